from __future__ import annotations

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, ScriptedEcs, complete, forget, trip, wait
from trainshed.errors import NothingSelected, RemoteError, UsageError
from trainshed.results import Status
from trainshed.stages.context import Context

pytestmark = pytest.mark.sockets
GOOD, WRONG = (200, {"twice": 42, "version": "any"}), (200, {"twice": 63})
WITH_GOLDEN = SERVICE + "golden: golden.json\n"


def test_a_new_service_is_created_with_one_call_and_followed_to_its_end(desk: Desk) -> None:
    desk.service(WITH_GOLDEN)
    desk.ecs.answers["/predict"] = GOOD
    desk.ecs.steps = [wait, complete]
    result = desk.result()
    assert result.status is Status.DONE, result.message
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "CreateService"]
    assert (result.details["revision"], result.details["golden"]) == ("answer:1", 1)
    assert result.details["url"] == desk.ecs.url
    assert "has started 1 tasks" in desk.said.getvalue()
    assert f"  answer: address {desk.ecs.url}\n" in desk.said.getvalue()
    event, *before = desk.context.ledger.events("deployment", "local", "answer")
    assert [one.document["state"] for one in before] == ["begun", "begun"]  # before the call, and when its deployment was known
    assert [one.document["deployment"] for one in before] == ["ecs-svc/1", ""]
    assert event.document["good"] is True
    assert event.document["digest"] == f"sha256:{'1' * 64}"


def test_the_same_again_is_cached_and_changes_nothing(serving: Desk) -> None:
    result = serving.result()
    assert result.status is Status.CACHED
    assert serving.ecs.changes() == []


def test_another_image_is_one_update_and_says_why(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.steps = [wait, complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]
    assert result.cause == "new image"
    assert any("answer.image: 127.0.0.1:5000/small/answer@sha256:111" in change for change in result.details["changes"])
    assert (result.details["revision"], result.details["previous"]) == ("answer:2", "answer:1")


def test_another_count_is_one_update_of_the_same_revision(serving: Desk) -> None:
    serving.service(SERVICE.replace("count: 1", "count: 3"))
    serving.ecs.steps = [complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert serving.ecs.changes() == ["UpdateService"]
    assert serving.ecs.sent("UpdateService")[0]["desiredCount"] == 3
    assert result.details["revision"] == "answer:1"


def test_a_count_that_autoscaling_owns_is_left_alone(serving: Desk) -> None:
    serving.service(SERVICE.replace("count: 1", "autoscaling: {min: 2, max: 4}"))
    serving.build("2")
    serving.ecs.steps = [complete]
    assert serving.result().status is Status.DONE
    assert "desiredCount" not in serving.ecs.sent("UpdateService")[0]


def test_a_rollback_is_a_failure_with_the_reasons_of_stopped_tasks_and_their_logs(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.steps = [wait, trip, complete]
    report = serving.deploy()
    (result,) = report.results
    assert (report.exit_code, result.status) == (1, Status.FAILED)
    assert "circuit breaker" in result.message
    assert "Essential container in task exited; answer: exit code 7, no model" in result.message
    assert "ECS rolled back to answer:1, which keeps the traffic" in result.message
    assert "Traceback: no model" in serving.said.getvalue()
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]
    assert serving.context.ledger.events("deployment", "local", "answer")[0].document["good"] is False


def test_a_stable_service_after_a_rollback_that_ecs_forgot_is_no_success(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.steps = [forget]
    result = serving.result()
    assert result.status is Status.FAILED
    assert "ECS gave the deployment up: answer:1 runs instead" in result.message


def test_a_first_revision_that_fails_has_nothing_to_go_back_to(desk: Desk) -> None:
    desk.ecs.steps = [trip]
    result = desk.result()
    assert result.status is Status.FAILED
    assert "rolled back" not in result.message
    desk.ecs.requests.clear()
    desk.ecs.steps = [complete]
    again = desk.result()
    assert again.status is Status.DONE, again.message
    assert again.details["revision"] == "answer:2"  # a failed deployment is only left by a new revision


def test_another_deployment_that_takes_over_is_said(serving: Desk) -> None:
    def take_over(ecs: ScriptedEcs) -> None:
        assert ecs.service is not None
        ecs.service["deployments"][0]["status"] = "ACTIVE"
        ecs.service["deployments"][1]["status"] = "PRIMARY"

    serving.build("2")
    serving.ecs.steps = [take_over, complete]
    assert "another deployment took its place: answer:1" in serving.result().message


def test_a_service_that_is_deleted_meanwhile_is_said(serving: Desk) -> None:
    def delete(ecs: ScriptedEcs) -> None:
        assert ecs.service is not None
        ecs.service["status"] = "INACTIVE"

    serving.build("2")
    serving.ecs.steps = [delete]
    assert "deleted meanwhile" in serving.result().message


def test_an_image_that_is_not_the_locked_one_is_rolled_back(serving: Desk) -> None:
    def complete_with_another(ecs: ScriptedEcs) -> None:
        complete(ecs)
        ecs.tasks[-1]["containers"][0]["imageDigest"] = f"sha256:{'f' * 64}"

    digest = serving.build("2")
    serving.ecs.steps = [complete_with_another, complete]
    result = serving.result()
    assert result.status is Status.FAILED
    assert f"runs sha256:{'f' * 64}, not {digest}" in result.message
    assert "rolled back to answer:1" in result.message
    assert serving.ecs.sent("UpdateService")[-1]["taskDefinition"].endswith("answer:1")


def test_wrong_answers_roll_back_to_the_revision_that_ran(serving: Desk) -> None:
    serving.service(WITH_GOLDEN)
    serving.build("2")
    serving.ecs.answers["/predict"] = WRONG
    serving.ecs.steps = [complete, complete]
    result = serving.result()
    assert result.status is Status.FAILED
    assert "golden prediction twice: answer.twice is 63 instead of 42" in result.message
    assert "rolled back to answer:1" in result.message
    assert serving.ecs.changes() == ["RegisterTaskDefinition", "UpdateService", "UpdateService"]


def test_wrong_answers_of_a_first_revision_scale_it_to_nothing(desk: Desk) -> None:
    desk.service(WITH_GOLDEN)
    desk.ecs.answers["/predict"] = (500, {})
    desk.ecs.steps = [complete]
    result = desk.result()
    assert "status 500 instead of 200" in result.message
    assert "scaled to 0" in result.message
    assert desk.ecs.sent("UpdateService")[-1]["desiredCount"] == 0


def test_a_rollback_that_fails_too_is_said(serving: Desk) -> None:
    serving.service(WITH_GOLDEN)
    serving.build("2")
    serving.ecs.answers["/predict"] = WRONG
    serving.ecs.steps = [complete, trip, complete]
    assert "going back to answer:1 failed: ECS deployment circuit breaker" in serving.result().message


def test_throttled_calls_are_repeated(serving: Desk) -> None:
    serving.build("2")
    serving.ecs.refusals = {"DescribeServices": [Refusal("ThrottlingException")], "UpdateService": [Refusal("ThrottlingException")]}
    serving.ecs.steps = [complete]
    result = serving.result()
    assert result.status is Status.DONE, result.message
    assert len(serving.ecs.sent("UpdateService")) == 2  # the refused one and the one that counts


def test_a_dry_run_shows_the_difference_and_changes_nothing(serving: Desk) -> None:
    serving.build("2")
    result = serving.result(dry_run=True)
    assert result.status is Status.SKIPPED
    assert len(result.details["changes"]) == 1
    assert serving.ecs.changes() == []


def test_a_deployment_that_nobody_waited_for_is_followed_by_the_next_one(desk: Desk) -> None:
    first = desk.result(wait=False)
    assert (first.status, desk.ecs.changes()) == (Status.DONE, ["RegisterTaskDefinition", "CreateService"])
    assert "answer:1 is asked for, and its rollout is not followed: `trainshed deploy answer` takes it up." in desk.said.getvalue()
    desk.ecs.steps = [wait, complete]
    second = desk.result()
    assert second.status is Status.DONE
    assert second.cause == "its last rollout was not followed to a good end"
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "CreateService"]
    assert desk.result().status is Status.CACHED


def test_a_deadline_that_passes_is_a_failure_that_says_that_ecs_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.stages.deploying.turn.Turn.require_time", lambda _: None)  # it passes once ECS was asked
    result = desk.result(deadline=0.0)
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "the deadline passed before answer:1 was rolled out; ECS goes on" in result.message


def test_an_image_that_left_the_registry_stops_before_anything_is_touched(desk: Desk) -> None:
    desk.images.known.clear()
    result = desk.result()
    assert (result.status, result.exit_code) == (Status.FAILED, UsageError.exit_code)
    assert "is not in the registry" in result.message
    assert desk.ecs.changes() == []


def test_a_cluster_that_is_not_there_is_a_usage_error(desk: Desk) -> None:
    desk.ecs.clusters = ()
    assert desk.result().exit_code == UsageError.exit_code


def test_a_secret_that_is_not_there_is_said_before_anything_is_touched(desk: Desk) -> None:
    desk.service(SERVICE + 'secrets: {API_KEY: "prediction/api#key"}\n')
    result = desk.result()
    assert result.exit_code == UsageError.exit_code
    assert "secrets.API_KEY" in result.message
    assert desk.ecs.changes() == []


def test_an_unknown_service_is_refused_with_a_suggestion(desk: Desk) -> None:
    with pytest.raises(UsageError, match="answer"):
        desk.deploy("answr")


def test_a_project_without_services_selects_nothing(desk: Desk) -> None:
    (desk.root / "components/answer/service.yaml").unlink()
    with pytest.raises(NothingSelected):
        desk.deploy()


def test_a_tree_that_changed_since_the_lock_is_not_deployed(desk: Desk) -> None:
    desk.write("components/answer/main.py", "changed")
    with pytest.raises(UsageError, match="stale"):
        desk.deploy()
    assert desk.ecs.requests == []


def test_an_image_that_cannot_be_kept_is_not_deployed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_context: Context, reference: str) -> None:
        assert reference.startswith("127.0.0.1:5000/small/answer@sha256:")
        raise RemoteError("forbidden", next_step="Ask for the permission.")

    monkeypatch.setattr("trainshed.stages.deploy.keeping.keep_deployed", refused)
    assert desk.result().message.startswith("forbidden")
    assert desk.ecs.changes() == []
