"""The services of a release against a scripted ECS: what is asked of it, step by step, and what an undo leaves."""

from __future__ import annotations

import pytest

from tests.support import released
from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import ScriptedEcs, complete, end, trip, wait
from trainshed.errors import Interrupted, WorkFailed
from trainshed.releases.plan import Plan
from trainshed.results import Result
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, turn
from trainshed.stages.releasing import serving as stage
from trainshed.stages.releasing.room import Room
from trainshed.tools import process
from trainshed.tools.ecs import registrable

ARN = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer"
GOOD = (200, {"twice": 42})


def room_of(desk: Desk) -> Room:
    return Room(here=desk.context, there=desk.context)


def plan_of(desk: Desk, version: str = "1.1.0") -> Plan:
    room = room_of(desk)
    return released.plan(room, version, ["answer"], stage.before(room, ["answer"]))


def states(desk: Desk) -> dict[str, str]:
    return {one.revision.rpartition(":")[2]: one.state for one in records.history(desk.context, "answer")}


def test_a_release_deploys_and_tells_what_registers_the_same_unit_again(serving: Desk) -> None:
    serving.service(SERVICE + "golden: golden.json\n")
    serving.ecs.answers["/predict"] = GOOD
    serving.build("2")
    plan = plan_of(serving)
    assert plan.before.services == {"answer": f"{ARN}:1"}
    serving.ecs.steps = [wait, complete]
    report = stage.deploy(room_of(serving), plan)
    (result,) = report.results
    assert (report.stage, result.stage, report.exit_code) == ("release-deploy", "release-deploy", 0), result.message
    assert result.details["arn"] == f"{ARN}:2"
    definition = dict(result.details["definition"])
    assert not {"taskDefinitionArn", "status"} & set(definition)
    again = serving.client.register(definition)
    found = (serving.client.definition(name) for name in (f"{ARN}:2", again))
    assert len({str(sorted(one.document["containerDefinitions"][0].items())) for one in found}) == 1
    event = serving.context.ledger.events("deployment", "local", "answer", limit=1)[0].document
    assert (event["release"], event["release_id"], event["golden"]) == ("1.1.0", "id-1.1.0", result.details["golden"])
    assert serving.context.ledger.attachment(result.details["golden"], "golden") is not None
    serving.ecs.requests.clear()
    (cached,) = stage.deploy(room_of(serving), plan).results
    assert (str(cached.status), cached.details["definition"], serving.ecs.changes()) == ("cached", definition, [])


def test_a_service_that_cannot_be_deployed_is_found_before_any_is_touched(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.images.known.clear()
    report = stage.deploy(room_of(serving), plan)
    assert (report.stage, report.exit_code) == ("release-deploy", 2)
    assert "is not in the registry" in report.results[0].message
    assert serving.ecs.changes() == []
    assert stage.undo(room_of(serving), plan) == []


def test_undone_it_is_back_where_it_was_and_that_again_changes_nothing(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    assert stage.deploy(room_of(serving), plan).exit_code == 0
    serving.ecs.requests.clear()
    serving.ecs.steps = [wait, complete]
    assert stage.undo(room_of(serving), plan) == ["answer: back to answer:1"]
    assert [body["taskDefinition"] for body in serving.ecs.sent("UpdateService")] == [f"{ARN}:1"]
    assert states(serving) == {"1": "good", "2": "rolled-back"}
    serving.ecs.requests.clear()
    assert stage.undo(room_of(serving), plan) == ["answer: answer:1 serves, as before"]
    assert serving.ecs.changes() == []


def test_an_undo_that_was_killed_on_the_way_goes_on(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    stage.deploy(room_of(serving), plan)
    serving.ecs.requests.clear()

    def killed(_: ScriptedEcs) -> None:
        process.stopping.set()

    serving.ecs.steps = [killed]
    with pytest.raises(Interrupted):
        stage.undo(room_of(serving), plan)
    process.stopping.clear()
    serving.ecs.steps = [complete]
    assert stage.undo(room_of(serving), plan) == ["answer: back to answer:1"]
    assert serving.ecs.changes() == ["UpdateService"]
    assert states(serving) == {"1": "good", "2": "rolled-back"}


def test_a_deploy_that_was_killed_is_undone_with_the_settings_of_before(serving: Desk) -> None:
    serving.service(SERVICE.replace("count: 1", "count: 3"))
    serving.build("2")
    plan = plan_of(serving)

    def killed(_: ScriptedEcs) -> None:
        process.stopping.set()

    serving.ecs.steps = [killed]
    with pytest.raises(Interrupted):
        stage.deploy(room_of(serving), plan)
    assert "ECS goes on with answer:2; `trainshed release` goes on with it, or undoes it." in serving.said.getvalue()
    process.stopping.clear()
    serving.ecs.requests.clear()
    serving.ecs.steps = [complete]
    assert stage.undo(room_of(serving), plan) == ["answer: back to answer:1"]
    (sent,) = serving.ecs.sent("UpdateService")
    assert (sent["taskDefinition"], sent["desiredCount"]) == (f"{ARN}:1", 1)


def test_a_deploy_that_failed_and_went_back_by_itself_needs_no_more(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [trip, complete]
    assert stage.deploy(room_of(serving), plan).exit_code == 1
    serving.ecs.requests.clear()
    assert stage.undo(room_of(serving), plan) == ["answer: answer:1 serves, as before"]
    assert serving.ecs.changes() == []


@pytest.mark.parametrize("scaled", [False, True])
def test_a_service_that_was_not_there_before_is_deleted(desk: Desk, *, scaled: bool) -> None:
    if scaled:
        desk.service(SERVICE.replace("count: 1", "autoscaling: {min: 1, max: 4}"))
    plan = plan_of(desk)
    assert plan.before.services == {"answer": None}
    desk.ecs.steps = [complete]
    assert stage.deploy(room_of(desk), plan).exit_code == 0
    desk.ecs.requests.clear()
    desk.ecs.steps = [wait, end]
    assert stage.undo(room_of(desk), plan) == ["answer: deleted: it was not there before"]
    assert desk.ecs.changes() == [*["DeregisterScalableTarget"] * scaled, "DeleteService"]
    assert states(desk) == {"1": "rolled-back"}
    desk.ecs.requests.clear()
    assert stage.undo(room_of(desk), plan) == []
    assert desk.ecs.changes() == []


def test_a_deletion_that_was_killed_is_waited_for(desk: Desk) -> None:
    plan = plan_of(desk)
    desk.ecs.steps = [complete]
    stage.deploy(room_of(desk), plan)
    desk.client.delete_service("answer")
    desk.ecs.requests.clear()
    desk.ecs.requests.append(("DeleteService", {}))  # the script goes on after a change only
    desk.ecs.steps = [wait, wait, end]
    assert stage.undo(room_of(desk), plan) == ["answer: deleted: it was not there before"]


def test_a_service_that_somebody_deletes_meanwhile_is_left_so_and_told(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    stage.deploy(room_of(serving), plan)
    serving.client.delete_service("answer")
    assert stage.undo(room_of(serving), plan) == ["answer: it was deleted meanwhile, and is left so; answer:1 served before"]


def test_what_somebody_deployed_meanwhile_is_left_alone_and_told(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    stage.deploy(room_of(serving), plan)
    serving.build("3")
    serving.ecs.steps = [complete]
    serving.result()
    serving.ecs.requests.clear()
    assert stage.undo(room_of(serving), plan) == ["answer: answer:3 was deployed meanwhile, and is left alone"]
    assert serving.ecs.changes() == []


@pytest.mark.parametrize("there", [True, False])
def test_what_somebody_deployed_after_the_plan_was_made_is_what_an_undo_comes_back_to(desk: Desk, *, there: bool) -> None:
    if there:
        desk.ecs.steps = [complete]
        desk.result()
    plan = plan_of(desk)
    assert plan.before.services == {"answer": f"{ARN}:1" if there else None}
    desk.build("2")
    desk.ecs.steps = [complete]
    desk.result()
    theirs = str(desk.ecs.service["taskDefinition"]) if desk.ecs.service else ""
    desk.build("3")
    desk.ecs.steps = [complete]
    assert stage.deploy(room_of(desk), plan).exit_code == 0
    desk.ecs.steps = [complete]
    assert stage.undo(room_of(desk), plan) == [f"answer: back to {theirs.rpartition('/')[2]}"]


def test_what_somebody_deployed_while_other_services_were_deployed_ends_the_release(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    detailed = stage._detailed

    def then_somebody_deploys(context: Context, result: Result) -> Result:
        told = detailed(context, result)
        serving.build("3")
        serving.ecs.steps = [complete]
        serving.result()
        return told

    monkeypatch.setattr(stage, "_detailed", then_somebody_deploys)
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    with pytest.raises(WorkFailed, match="answer:3 is deployed meanwhile, not answer:2"):
        stage.deploy(room_of(serving), plan)
    assert stage.undo(room_of(serving), plan) == ["answer: answer:3 was deployed meanwhile, and is left alone"]


def test_a_revision_that_the_ledger_does_not_know_is_gone_back_to(serving: Desk) -> None:
    serving.build("2")
    unknown = serving.client.register(registrable(serving.client.task_definition(f"{ARN}:1")))
    serving.ecs.steps = [complete]
    serving.client.update_service("answer", unknown, {})
    assert serving.client.service("answer") is not None
    plan = plan_of(serving)
    assert plan.before.services == {"answer": unknown}
    serving.ecs.steps = [complete]
    assert stage.deploy(room_of(serving), plan).exit_code == 0
    serving.ecs.steps = [complete]
    assert stage.undo(room_of(serving), plan) == ["answer: back to answer:2"]
    assert records.known(serving.context, "answer", unknown) is not None


def test_an_undo_that_fails_says_so_and_is_tried_again(serving: Desk) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    stage.deploy(room_of(serving), plan)
    serving.ecs.steps = [trip, complete]
    with pytest.raises(WorkFailed, match=r"going back to answer:1 failed: .*circuit breaker") as caught:
        stage.undo(room_of(serving), plan)
    assert "deployed now: answer:2" in caught.value.message
    serving.ecs.steps = [complete]
    assert stage.undo(room_of(serving), plan) == ["answer: back to answer:1"]


def test_another_deploy_of_the_service_is_waited_for(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.build("2")
    plan = plan_of(serving)
    serving.ecs.steps = [complete]
    stage.deploy(room_of(serving), plan)
    service = preparing.read(serving.context, "answer")
    monkeypatch.setattr(serving.context.console, "line", lambda _: process.stopping.set())
    try:
        with turn.taken(serving.context, "answer", service, stage="deploy", ends=None), pytest.raises(Interrupted):
            stage.undo(room_of(serving), plan)
    finally:
        process.stopping.clear()
    assert states(serving)["2"] == "good"
