"""Deploys and rollbacks that are ended anywhere, or lose sight of ECS at the worst moment: the same command comes to a true end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, ScriptedEcs, complete, task_of, trip, wait
from trainshed.errors import Interrupted, UsageError, WorkFailed
from trainshed.results import Status
from trainshed.stages.deploying import records, returning, rollout, starting, verification
from trainshed.tools.aws import Aws
from trainshed.tools.ecs import Ecs

NETWORK = "network: {{subnets: [subnet-{0}], security-groups: [sg-1]}}\n"
AWAY = [Refusal("ServerException", status=500)] * 12


@pytest.fixture
def desk(desk: Desk, client: Ecs, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk whose client repeats at once, and bears a long silence."""
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    client.patience = 300.0
    return desk


def serve(desk: Desk, *digits: str) -> Desk:
    """Deploy images that serve well, one after the other."""
    for digit in digits:
        desk.build(digit)
        desk.ecs.steps = [complete]
        assert desk.result().status is Status.DONE
    desk.ecs.requests.clear()
    return desk


def states(desk: Desk) -> dict[str, str]:
    return {known.revision.rpartition(":")[2]: known.state for known in records.history(desk.context, "answer")}


def killed(*_: object, **__: object) -> Any:
    raise Interrupted("interrupted")


@pytest.mark.parametrize("place", [(starting, "update"), (rollout, "follow")], ids=["before the call", "after the call"])
@pytest.mark.parametrize("to", [None, "answer:2"])
def test_a_killed_rollback_is_taken_up_and_goes_no_further_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], to: str | None
) -> None:
    serve(desk, "1", "2", "3")
    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        with pytest.raises(Interrupted):
            desk.rollback(to=to)
    assert states(desk)["3"] == "rolled-back"
    desk.ecs.steps = [wait, complete]
    result = desk.rollback(to=to)
    assert (result.status, result.details["revision"]) == (Status.DONE, "answer:2"), result.message
    assert desk.ecs.changes() == ["UpdateService"]
    assert desk.ecs.steps == []  # followed to its end
    assert states(desk) == {"2": "good", "3": "rolled-back", "1": "good"}
    assert desk.rollback(to="answer:2").status is Status.CACHED


def test_a_way_back_whose_deployment_failed_is_asked_for_anew(desk: Desk) -> None:
    serve(desk, "1", "2")
    desk.ecs.steps = [_fail]
    assert desk.rollback().status is Status.FAILED
    desk.ecs.requests.clear()
    desk.ecs.steps = [complete]
    again = desk.rollback(to="answer:1")
    assert again.status is Status.DONE, again.message
    assert [body.get("forceNewDeployment") for body in desk.ecs.sent("UpdateService")] == [True]


def test_a_rollback_that_runs_out_of_time_does_not_advise_to_deploy_again_what_was_left(desk: Desk) -> None:
    serve(desk, "1", "2")
    desk.ecs.steps = [wait] * 1000
    result = desk.rollback(deadline=1.0)
    assert "ECS goes on" in result.message
    assert "`trainshed rollback answer --to answer:1`" in result.message
    assert "trainshed deploy" not in result.message


def test_what_breaks_todays_settings_does_not_stand_in_the_way_back(desk: Desk) -> None:
    serve(desk, "1")
    desk.ecs.secrets["keys"] = '{"token": "t"}'
    desk.service(SERVICE + "secrets: {TOKEN: keys#token}\n")
    serve(desk, "2")
    desk.ecs.secrets.clear()  # which breaks the second revision, and its service.yaml
    desk.ecs.steps = [complete]
    result = desk.rollback()
    assert (result.status, result.details["revision"]) == (Status.DONE, "answer:1"), result.message


def test_what_the_way_back_needs_is_verified_though_todays_settings_name_it_no_more(desk: Desk) -> None:
    desk.ecs.secrets["keys"] = '{"token": "t"}'
    desk.service(SERVICE + "secrets: {TOKEN: keys#token}\n")
    serve(desk, "1")
    desk.service(SERVICE)
    serve(desk, "2")
    desk.ecs.secrets.clear()
    result = desk.rollback()
    assert result.exit_code == UsageError.exit_code
    assert "secret" in result.message
    assert desk.ecs.changes() == []


def test_an_answer_that_is_lost_while_ecs_rolls_back_is_asked_for_again(desk: Desk) -> None:
    def lose(ecs: ScriptedEcs) -> None:
        trip(ecs)
        ecs.refusals["ListTasks"] = list(AWAY)

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [lose, wait, complete]
    result = desk.result()
    assert result.status is Status.FAILED
    assert "ECS rolled back to answer:1, which keeps the traffic" in result.message
    assert "what serves now is not known" not in result.message


def test_a_failed_deployment_is_taken_back_although_answers_are_lost_then(desk: Desk) -> None:
    def fail(ecs: ScriptedEcs) -> None:
        _fail(ecs)
        ecs.refusals["ListTasks"] = list(AWAY)
        ecs.refusals["DescribeServices"] = list(AWAY)

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [fail, *[_back] * 99]
    result = desk.result()
    assert result.status is Status.FAILED
    assert "rolled back to answer:1" in result.message


def test_lost_answers_while_the_images_are_read_back_are_asked_for_again(desk: Desk) -> None:
    def lose(ecs: ScriptedEcs) -> None:
        complete(ecs)
        ecs.refusals["DescribeTasks"] = list(AWAY)

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [lose]
    result = desk.result()
    assert result.status is Status.DONE, result.message


def test_images_that_may_not_be_read_back_leave_a_deployment_that_is_not_proven(desk: Desk) -> None:
    def refuse(ecs: ScriptedEcs) -> None:
        complete(ecs)
        ecs.refusals["DescribeTasks"] = [Refusal("AccessDeniedException")] * 3

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [refuse]
    result = desk.result()
    assert (result.status, result.exit_code) == (Status.FAILED, UsageError.exit_code)
    assert "answer:2 is deployed, and was not proven" in result.message
    assert states(desk)["2"] == "begun"
    desk.ecs.refusals.clear()
    assert desk.result().status is Status.DONE
    assert states(desk)["2"] == "good"


def test_settings_of_the_service_are_taken_back_with_the_revision(desk: Desk) -> None:
    desk.service(SERVICE.replace("count: 1", "count: 2") + NETWORK.format("good"))
    serve(desk, "1")
    desk.service(SERVICE.replace("count: 1", "count: 4") + NETWORK.format("bad"))
    desk.build("2")
    desk.ecs.steps = [_fail, *[_back] * 99]
    result = desk.result(deadline=20.0)
    assert "rolled back to answer:1" in result.message
    *_, back = desk.ecs.sent("UpdateService")
    assert back["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-good"]
    assert back["desiredCount"] == 2
    assert back["taskDefinition"].endswith("answer:1")


def test_a_change_of_settings_alone_that_fails_goes_back_to_the_same_revision(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.service(SERVICE + "golden: golden.json\n" + NETWORK.format("good"))
    desk.ecs.answers["/predict"] = (200, {"twice": 42})
    serve(desk, "1", "2")
    desk.service(SERVICE + "golden: golden.json\n" + NETWORK.format("bad"))
    desk.ecs.answers["/predict"] = (200, {"twice": 63})

    settle = returning.return_to

    def mended(*given: Any, **named: Any) -> Any:
        desk.ecs.answers["/predict"] = (200, {"twice": 42})
        return settle(*given, **named)

    monkeypatch.setattr(returning, "return_to", mended)
    desk.ecs.steps = [complete, complete]
    result = desk.result()
    assert result.status is Status.FAILED
    assert "rolled back to answer:2" in result.message
    assert [body["taskDefinition"].rpartition("/")[2] for body in desk.ecs.sent("UpdateService")] == ["answer:2", "answer:2"]
    assert states(desk) == {"2": "good", "1": "good"}


def test_nothing_is_begun_after_the_deadline(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(desk, "1", "2")
    slow = verification.verify

    def late(*given: Any, **named: Any) -> verification.Verified:
        time.sleep(0.3)
        return slow(*given, **named)

    monkeypatch.setattr(verification, "verify", late)
    desk.build("3")
    for result in (desk.result(deadline=0.2), desk.rollback(deadline=0.2)):
        assert (result.status, result.exit_code) == (Status.FAILED, WorkFailed.exit_code)
        assert "the deadline passed" in result.message
        assert "nothing was changed" in result.message
    assert desk.ecs.changes() == []


def test_another_deploys_log_is_left_alone(desk: Desk) -> None:
    log = desk.root / "build" / "logs" / "answer.deploy.log"
    serve(desk, "1")
    desk.build("2")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("what the other one saw\n")
    with desk.context.ledger.lease("deploy:local:embedded:answer"):
        refused = desk.result(deadline=0.05)
        desk.result(dry_run=True)
    assert log.read_text() == "what the other one saw\n"
    assert refused.log is None


def test_somebody_elses_deployment_is_not_called_a_rollback_of_ecs(desk: Desk) -> None:
    def replaced(ecs: ScriptedEcs) -> None:
        assert ecs.service is not None
        gone = ecs.service["deployments"][0]["taskDefinition"]
        other = f"{gone.rpartition(':')[0]}:9"
        ecs.definitions[other] = {**ecs.definitions[gone], "taskDefinitionArn": other}
        ecs._UpdateService({"taskDefinition": other})
        complete(ecs)
        target = {"targetServiceRevision": {"arn": gone}, "createdAt": time.time()}
        arn = "arn:aws:ecs:us-east-1:0:service-deployment/embedded/answer/1"
        ecs.past = [{"serviceDeploymentArn": arn, "status": "STOPPED", "statusReason": "Service deployment stopped", **target}]

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [replaced]
    result = desk.result()
    assert result.status is Status.FAILED
    assert "its end: STOPPED" in result.message
    assert "ECS rolled back" not in result.message
    assert "answer:9" in result.message


def test_an_old_answer_is_not_taken_for_what_the_ledger_knows_better(desk: Desk) -> None:
    serve(desk, "1")
    shown = dict(desk.ecs.service or {}, deployments=[dict(one) for one in (desk.ecs.service or {})["deployments"]])
    serve(desk, "2")
    desk.build("1")
    truth, desk.ecs.service = desk.ecs.service, shown
    looks = desk.client.service
    first = [True]

    def look(name: str) -> Any:
        found = looks(name)
        if first:
            first.clear()
            desk.ecs.service = truth
        return found

    desk.client.service = look  # type: ignore[method-assign]
    try:
        result = desk.result()
    finally:
        del desk.client.service
    assert result.status is Status.FAILED
    assert "answer:2" in result.message


def test_tasks_that_end_again_and_again_are_told_of_as_what_only_we_end(desk: Desk) -> None:
    def crash(number: int) -> Callable[[ScriptedEcs], None]:
        def step(ecs: ScriptedEcs) -> None:
            assert ecs.service is not None
            task = task_of(ecs.service["deployments"][0], "STOPPED", exitCode=1)
            ecs.tasks.append({**task, "taskArn": f"{task['taskArn']}{number}"})
            wait(ecs)

        return step

    serve(desk, "1")
    desk.build("2")
    desk.ecs.steps = [*(crash(number) for number in range(4)), complete]
    assert desk.result().status is Status.DONE
    assert desk.said.getvalue().count("ECS may go on for ever") == 1


def _back(ecs: ScriptedEcs) -> None:
    """What is gone back to comes up, whenever it is asked for."""
    if ecs.service is not None and ecs.service["taskDefinition"].endswith("answer:1"):
        complete(ecs)


def _fail(ecs: ScriptedEcs) -> None:
    """The deployment failed, and there is no breaker that rolls back."""
    assert ecs.service is not None
    ecs.service["deployments"][0] |= {"rolloutState": "FAILED", "rolloutStateReason": "tasks failed to start."}


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


class Reaper:
    """Ends a command at its n-th request or record, before or after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.after = False
        call, record = Aws.call, records._write

        def asked(aws: Aws, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
            answer: dict[str, Any] = self.passing(lambda: call(aws, service, operation, **parameters))
            return answer

        def recorded(*given: Any, **named: Any) -> None:
            self.passing(lambda: record(*given, **named))

        monkeypatch.setattr(Aws, "call", asked)
        monkeypatch.setattr(records, "_write", recorded)

    def passing(self, work: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        done = work()
        if self.left == 0:
            raise Killed
        return done


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["deploy", "first", "breaker", "rollback"])
def test_killed_at_each_request_and_record_the_same_command_ends_true(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str, *, after: bool
) -> None:
    reaper = Reaper(monkeypatch)
    reaper.after = after
    if kind != "first":
        serve(desk, "1", "2", "3")
    desk.build("4")
    restore = desk.keep()
    point, ended = 0, False
    while not ended:
        point += 1
        restore()
        desk.ecs.steps = [wait, trip if kind == "breaker" else complete, *[complete] * 9]
        go = desk.rollback if kind == "rollback" else desk.result
        reaper.left = point
        try:
            go()
            ended = True
        except Killed:
            pass
        reaper.left = -1
        newest = next(iter(records.history(desk.context, "answer")), None)
        ended_well = newest is not None and newest.good and newest.revision.endswith(":2")
        if kind == "rollback" and ended_well:  # once more would go further back
            go = partial(desk.rollback, to="answer:2")
        _is_true(desk, kind, go().status, f"killed {'after' if after else 'before'} {point}")
    assert point > 10


def _is_true(desk: Desk, kind: str, status: Status, where: str) -> None:
    """Check that what was told is what serves, and what the ledger says."""
    service = desk.ecs.service
    assert service is not None, where
    serving, known = service["taskDefinition"].rpartition(":")[2], states(desk)
    image = desk.ecs.definitions[service["taskDefinition"]]["containerDefinitions"][0]["image"][-1]
    if kind == "rollback":
        assert (status in {Status.DONE, Status.CACHED}, image) == (True, "2"), where
    elif status in {Status.DONE, Status.CACHED}:
        assert image == "4", where
    else:
        assert (kind, image) == ("breaker", "3"), where
    assert known[serving] == "good", where
    assert [one["status"] for one in service["deployments"]].count("PRIMARY") == 1
    assert desk.ecs.definitions[service["taskDefinition"]]["status"] == "ACTIVE"
