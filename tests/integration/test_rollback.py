from __future__ import annotations

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import ScriptedEcs, complete, trip, wait
from tests.support.scripted_ecs import client as ecs_client
from trainshed.errors import UsageError, WorkFailed
from trainshed.results import Status
from trainshed.stages import rollback
from trainshed.stages.deploying import records, verification

ARN = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer"
GOOD, WRONG = (200, {"twice": 42}), (200, {"twice": 63})


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Return a desk with three revisions that served well; the third serves."""
    for digit in "123":
        desk.build(digit)
        desk.ecs.steps = [complete]
        assert desk.result().status is Status.DONE
    desk.ecs.requests.clear()
    return desk


def test_the_revision_that_served_before_serves_again_with_one_call(desk: Desk) -> None:
    desk.ecs.steps = [wait, complete]
    result = desk.rollback()
    assert result.status is Status.DONE, result.message
    assert (result.details["revision"], result.details["previous"]) == ("answer:2", "answer:3")
    assert result.details["digest"] == f"sha256:{'2' * 64}"
    assert desk.ecs.changes() == ["UpdateService"]
    assert set(desk.ecs.sent("UpdateService")[0]) == {"cluster", "service", "taskDefinition"}
    known = {one.revision: one.state for one in records.history(desk.context, "answer")}
    assert known == {f"{ARN}:3": "rolled-back", f"{ARN}:2": "good", f"{ARN}:1": "good"}


def test_twice_goes_further_back_and_then_there_is_nothing(desk: Desk) -> None:
    for revision in ("answer:2", "answer:1"):
        desk.ecs.steps = [complete]
        assert desk.rollback().details["revision"] == revision
    result = desk.rollback()
    assert (result.status, result.exit_code) == (Status.FAILED, WorkFailed.exit_code)
    assert "the ledger knows no revision that served well before answer:1" in result.message


def test_what_was_gone_back_from_is_deployed_anew_and_can_be_named(desk: Desk) -> None:
    desk.ecs.steps = [complete]
    desk.rollback()
    desk.ecs.steps = [complete]
    assert desk.rollback(to="answer:3").status is Status.DONE
    desk.ecs.steps = [complete]
    assert desk.rollback().details["revision"] == "answer:1"  # answer:2 was gone back from
    desk.ecs.steps = [complete]
    again = desk.result()  # the lock still names the third image
    assert (again.status, again.details["revision"]) == (Status.DONE, "answer:4")


@pytest.mark.parametrize(
    ("to", "said"),
    [("other:1", "not a revision of answer"), ("answer:9", "known: answer:3, answer:2, answer:1"), ("7", "answer:7 ever served well")],
)
def test_a_revision_that_never_served_well_is_refused(desk: Desk, to: str, said: str) -> None:
    result = desk.rollback(to=to)
    assert result.exit_code == UsageError.exit_code
    assert said in result.message
    assert desk.ecs.changes() == []


def test_a_revision_that_was_deregistered_is_refused(desk: Desk) -> None:
    desk.ecs.definitions[f"{ARN}:2"]["status"] = "INACTIVE"
    result = desk.rollback()
    assert result.exit_code == UsageError.exit_code
    assert "answer:2 cannot be gone back to: it was deregistered" in result.message


def test_a_dry_run_shows_the_difference(desk: Desk) -> None:
    result = desk.rollback(dry_run=True, to="1")
    assert result.status is Status.SKIPPED
    assert result.cause.startswith("dry run: back from answer:3 to answer:1: containerDefinitions.answer.image")
    assert [change.partition(": ")[0] for change in result.details["changes"]] == ["containerDefinitions.answer.image"]
    assert desk.ecs.changes() == []


def test_a_service_that_is_not_there_and_one_that_is_there_already(desk: Desk) -> None:
    assert desk.rollback(to="answer:3").status is Status.CACHED
    desk.ecs.service = None
    assert "nothing is deployed" in desk.rollback().message


def test_a_rollback_that_fails_says_what_is_deployed_now(desk: Desk) -> None:
    desk.ecs.steps = [trip, complete]
    result = desk.rollback()
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "circuit breaker" in result.message
    assert "deployed now: answer:3 with" in result.message


def test_the_golden_requests_of_the_old_revision_are_asked(desk: Desk) -> None:
    desk.service(SERVICE + "golden: golden.json\n")
    desk.build("4")
    desk.ecs.answers["/predict"] = GOOD
    desk.ecs.steps = [complete]
    assert desk.result().status is Status.DONE
    desk.service(SERVICE)
    desk.build("5")
    desk.ecs.steps = [complete]
    assert desk.result().status is Status.DONE
    desk.ecs.answers["/predict"] = WRONG
    desk.ecs.steps = [complete]
    result = desk.rollback()
    assert result.status is Status.FAILED
    assert "golden prediction twice: answer.twice is 63 instead of 42" in result.message


def test_one_revision_is_not_of_several_services(desk: Desk) -> None:
    desk.write("components/other/Dockerfile", "FROM scratch\n")
    desk.write("components/other/service.yaml", SERVICE.replace("answer", "other"))
    with pytest.raises(UsageError, match="one revision belongs to one service"):
        rollback.rollback(desk.context, to="answer:1")


def test_records_of_before_are_read_by_their_verdict(desk: Desk) -> None:
    for number, good in ((8, True), (9, False)):
        document = {"good": good, "digest": "sha256:1", "deployment": "ecs-svc/1", "build_url": "http://ci/1"}
        desk.context.ledger.record_event("deployment", "local", "old", f"{ARN}:{number}", document)
    bad, good_one = records.history(desk.context, "old")
    assert (bad.state, bad.proven, good_one.state, good_one.by) == ("bad", False, "good", "http://ci/1")
    assert records.proven(desk.context, "old") == [good_one]


def test_autoscaling_is_set_last_compared_first_and_owns_the_count(
    desk: Desk, endpoint: ScriptedEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setattr(verification, "verify", lambda *_, **__: verification.Verified(secrets={}, notes=()))
    desk.context.__dict__["prediction"] = ecs_client(endpoint.url, embedded=False)
    desk.service(SERVICE.replace("count: 1", "autoscaling: {min: 1, max: 4}"))
    desk.build("4")
    desk.ecs.steps = [complete]
    result = desk.result()
    assert result.status is Status.DONE, result.message
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "UpdateService", "RegisterScalableTarget"]
    assert "desiredCount" not in desk.ecs.sent("UpdateService")[0]
    assert desk.result().status is Status.CACHED
    desk.service(SERVICE.replace("count: 1", "count: 3"))
    desk.build("5")
    desk.ecs.steps = [complete]
    assert desk.result().status is Status.DONE
    assert "autoscaling (1 to 4) owns the count, though service.yaml gives one" in desk.said.getvalue()
    assert "desiredCount" not in desk.ecs.sent("UpdateService")[-1]
