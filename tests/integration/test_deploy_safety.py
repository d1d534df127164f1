"""A deploy that cannot lie: answers lost or old, others' deployments, kills, and the count that is not ours."""

from __future__ import annotations

import time

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, ScriptedEcs, complete, task_of, trip, wait
from trainshed.errors import Interrupted, RemoteError, WorkFailed
from trainshed.results import Status
from trainshed.stages.deploying import records, rollout, starting
from trainshed.tools import process
from trainshed.tools.ecs import Ecs

EARLY = SERVICE + "deployment: {fail-early: true}\n"


@pytest.fixture
def desk(desk: Desk, client: Ecs, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk whose client repeats at once, and bears a long silence."""
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    client.patience = 300.0
    return desk


def states(desk: Desk) -> dict[str, str]:
    return {known.revision.rpartition("/")[2]: known.state for known in records.history(desk.context, "answer")}


def test_a_lost_answer_of_update_is_looked_for_and_not_asked_again(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.lost = ["UpdateService"]
    serving.ecs.steps = [wait, complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]
    assert "the answer to UpdateService was lost" in serving.said.getvalue()
    assert result.details["deployment"] == "ecs-svc/2"


def test_a_lost_answer_of_create_is_looked_for_and_not_asked_again(desk: Desk) -> None:
    desk.ecs.lost = ["CreateService"]
    desk.ecs.steps = [wait, complete]
    assert desk.result().status is Status.DONE
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "CreateService"]


def test_an_update_that_ecs_did_not_take_is_made_again_with_the_same_revision(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.refusals = {"UpdateService": [Refusal("ServerException", status=500)]}
    serving.ecs.steps = [complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService", "UpdateService"]
    assert serving.ecs.deployments == 2  # the first revision's and this one


def test_an_update_that_never_gets_an_answer_says_that_its_fate_is_unknown(serving: Desk, client: Ecs) -> None:
    serving.build("2")
    serving.ecs.refusals = {"UpdateService": [Refusal("ServerException", status=500)] * 9}
    client.patience = 0.0
    result = serving.result()
    assert (result.status, result.exit_code) == (Status.FAILED, RemoteError.exit_code)
    assert "whether ECS took UpdateService is not known" in result.message


def test_a_lost_answer_of_register_leaves_one_revision(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.lost = ["RegisterTaskDefinition"]
    serving.ecs.steps = [complete]
    assert serving.result().status is Status.DONE
    assert len(serving.ecs.definitions) == 2


def test_an_old_answer_right_after_the_update_is_not_believed(serving: Desk) -> None:
    def old(ecs: ScriptedEcs) -> None:
        assert ecs.service is not None
        ecs.service["deployments"].reverse()
        kept.append(ecs.service["deployments"].pop())
        ecs.service["deployments"][0] |= {"status": "PRIMARY", "rolloutState": "IN_PROGRESS"}

    def fresh(ecs: ScriptedEcs) -> None:
        assert ecs.service is not None
        ecs.service["deployments"][0]["status"] = "ACTIVE"
        ecs.service["deployments"].insert(0, kept.pop())

    kept: list[dict[str, object]] = []
    serving.build("2")
    serving.ecs.steps = [old, wait, fresh, complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]


def test_the_end_that_ecs_keeps_is_told_of_a_deployment_that_it_no_longer_lists(serving: Desk) -> None:
    def forget(ecs: ScriptedEcs) -> None:
        trip(ecs)
        assert ecs.service is not None
        gone = ecs.service["deployments"].pop(0)
        arn = "arn:aws:ecs:us-east-1:0:service-deployment/embedded/answer/1"
        told = {"status": "ROLLBACK_SUCCESSFUL", "statusReason": "alarms detected", "alarms": {"triggeredAlarmNames": ["latency"]}}
        target = {"targetServiceRevision": {"arn": gone["taskDefinition"]}, "createdAt": time.time()}
        ecs.past = [{"serviceDeploymentArn": arn, **told, **target}]
        complete(ecs)

    serving.build("2")
    serving.ecs.steps = [forget]
    result = serving.result()
    assert result.status is Status.FAILED
    assert "its end: ROLLBACK_SUCCESSFUL, alarms detected (alarms: latency)" in result.message


def test_a_deployment_of_somebody_else_is_refused_with_what_its_tags_tell(serving: Desk) -> None:
    revision = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer:9"
    tags = [{"key": "trainshed:commit", "value": "abc"}, {"key": "other", "value": "x"}]
    serving.ecs.definitions[revision] = {"taskDefinitionArn": revision, "family": "answer", "status": "INACTIVE", "tags": tags}
    serving.ecs.definitions[revision]["containerDefinitions"] = [{"name": "answer", "image": "by-hand"}]
    serving.ecs._UpdateService({"taskDefinition": revision})
    serving.build("2")
    result = serving.result()
    assert (result.status, result.exit_code) == (Status.FAILED, WorkFailed.exit_code)
    assert "a deployment that this ledger does not know goes on: answer:9 (trainshed:commit abc), begun" in result.message
    assert "UpdateService" not in serving.ecs.changes()


def test_a_deploy_killed_during_the_rollout_is_taken_up_by_the_next(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.build("2")
    with monkeypatch.context() as patch:
        patch.setattr(rollout, "follow", _killed)
        with pytest.raises(Interrupted):
            serving.deploy()
    assert states(serving) == {"answer:2": "begun", "answer:1": "good"}
    serving.ecs.steps = [wait, complete]
    result = serving.result()
    assert (result.status, result.details["deployment"]) == (Status.DONE, "ecs-svc/2")
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]
    assert states(serving)["answer:2"] == "good"


def test_a_dead_deploys_deployment_gives_way_to_another_wish_and_is_no_rollback_target(serving: Desk) -> None:
    serving.build("2")
    assert serving.result(wait=False).status is Status.DONE
    serving.build("3")
    serving.ecs.steps = [wait, trip, complete]
    result = serving.result()
    assert "the deployment of answer:2 goes on, and nobody follows it: it is superseded" in serving.said.getvalue()
    assert (result.status, result.details["previous"]) == (Status.FAILED, "answer:1")


def test_a_deploy_killed_between_register_and_update_leaves_a_revision_that_is_used(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.build("2")
    with monkeypatch.context() as patch:
        patch.setattr(starting, "update", _killed)
        with pytest.raises(Interrupted):
            serving.deploy()
    serving.ecs.steps = [complete]
    result = serving.result()
    assert (result.status, result.details["revision"]) == (Status.DONE, "answer:2")
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]


def test_sigterm_says_that_ecs_goes_on(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.build("2")

    monkeypatch.setattr(process, "pause", _killed)
    with pytest.raises(Interrupted):
        serving.deploy()
    assert "ECS goes on with answer:2; `trainshed deploy answer` takes it up" in serving.said.getvalue()


def test_a_task_that_cannot_start_ends_a_deployment_early_where_that_is_asked_for(serving: Desk) -> None:
    def stopped(number: int) -> None:
        assert serving.ecs.service is not None
        first = serving.ecs.service["deployments"][0]
        first["failedTasks"] = number
        task = task_of(first, "STOPPED", reason="no such image")
        task |= {
            "taskArn": f"{task['taskArn']}{number}",
            "stopCode": "TaskFailedToStart",
            "stoppedReason": "CannotPullContainerError: gone",
        }
        serving.ecs.tasks.append(task)

    def back(ecs: ScriptedEcs) -> None:
        if ecs.service is not None and ecs.service["taskDefinition"].endswith("answer:1"):
            complete(ecs)

    serving.service(EARLY)
    serving.build("2")
    serving.ecs.steps = [wait, lambda _: stopped(1), *[back] * 9]
    result = serving.result()
    assert result.status is Status.FAILED
    assert "given up early, as deployment.fail-early asks" in result.message
    assert "CannotPullContainerError: gone" in result.message
    assert "rolled back to answer:1" in result.message
    assert serving.said.getvalue().count("\n  answer: task 2stopped stopped: CannotPull") == 1  # as it happened, once


def test_the_network_may_be_away_while_a_deployment_goes_on(serving: Desk) -> None:
    serving.build("2")
    away = [Refusal("ServerException", status=500)] * 12

    def cut(ecs: ScriptedEcs) -> None:
        ecs.refusals["DescribeServices"] = list(away)

    serving.ecs.steps = [cut, complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.said.getvalue().count("ECS gives no answer; asking on") == 1


@pytest.mark.parametrize("kind", ["ServerException", "ExpiredTokenException", "AccessDeniedException"])
def test_whoever_can_ask_no_longer_is_told_that_ecs_goes_on(serving: Desk, client: Ecs, kind: str) -> None:
    def end(ecs: ScriptedEcs) -> None:
        client.patience = 0.0 if kind == "ServerException" else 300.0
        ecs.refusals["DescribeServices"] = [Refusal(kind, status=500 if kind == "ServerException" else 400)] * 9

    serving.build("2")
    serving.ecs.steps = [end]
    result = serving.result()
    assert (result.status, result.exit_code) == (Status.FAILED, 2 if kind == "AccessDeniedException" else 5)
    assert "ECS goes on with the deployment of answer:2" in result.message
    assert "`trainshed deploy answer` takes it up" in result.message
    assert states(serving)["answer:2"] == "begun"


def test_another_deploy_is_told_by_name_and_waited_for_until_the_deadline(serving: Desk) -> None:
    serving.build("2")
    with serving.context.ledger.lease("deploy:local:embedded:answer"):
        result = serving.result(deadline=0.05)
        dry = serving.result(dry_run=True)
    assert (result.status, dry.status) == (Status.FAILED, Status.SKIPPED)
    assert "waiting for its deploy by process" in serving.said.getvalue()
    assert "is still held by process" in result.message
    assert serving.ecs.changes() == []


def test_what_ecs_resolved_to_another_image_is_rolled_back(serving: Desk) -> None:
    def resolve(ecs: ScriptedEcs) -> None:
        complete(ecs)
        assert ecs.service is not None
        revision = ecs.service["taskDefinition"]
        ecs.service["currentServiceRevisions"] = [{"arn": "revision"}]
        images = [{"containerName": "answer", "image": "any", "imageDigest": f"sha256:{'f' * 64}"}]
        ecs.revisions["revision"] = {"taskDefinition": revision, "containerImages": images}

    serving.build("2")
    serving.ecs.steps = [resolve, complete]
    result = serving.result()
    assert result.status is Status.FAILED
    assert f"ECS resolved answer to sha256:{'f' * 64}" in result.message


def test_old_revisions_go_last_but_never_what_serves_or_can_be_gone_back_to(serving: Desk) -> None:
    serving.write("trainshed.toml", '[project]\nname = "small"\n[environments.local]\nprediction-service.keep-revisions = 1\n')
    serving.reopen()
    for digit in "2345":
        serving.build(digit)
        serving.ecs.steps = [complete] if digit != "3" else [trip, complete]
        serving.deploy()
    active = [name.rpartition("/")[2] for name, one in serving.ecs.definitions.items() if one["status"] == "ACTIVE"]
    assert active == ["answer:4", "answer:5"]
    assert serving.ecs.changes()[-1] == "DeregisterTaskDefinition"


def test_old_revisions_that_may_not_be_listed_are_a_note_and_no_failure(serving: Desk) -> None:
    def refuse(ecs: ScriptedEcs) -> None:
        complete(ecs)
        ecs.refusals["ListTaskDefinitions"] = [Refusal("AccessDeniedException")]

    serving.build("2")
    serving.ecs.steps = [refuse]
    assert serving.result().status is Status.DONE
    assert "old revisions stay: " in serving.said.getvalue()


def _killed(*_: object, **__: object) -> str:
    raise Interrupted("interrupted")
