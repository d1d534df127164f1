from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, ScriptedEcs, complete, task_of, trip
from tests.support.scripted_ecs import client as ecs_client
from trainshed.errors import RemoteError, UsageError
from trainshed.results import Status
from trainshed.stages.deploying import verification
from trainshed.tools.ecs import Ecs

pytestmark = pytest.mark.sockets
SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:prediction"  # noqa: S105 - its name
FARGATE = """roles: {execution: run}
network: {subnets: [subnet-1]}
logs: {group: /prediction/answer}
secrets: {API_KEY: "prediction/api#key", OTHER: prediction/other}
"""


@pytest.fixture
def script(endpoint: ScriptedEcs, monkeypatch: pytest.MonkeyPatch) -> ScriptedEcs:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    endpoint.reset()
    return endpoint


@pytest.fixture
def ecs(script: ScriptedEcs) -> Ecs:
    return ecs_client(script.url, embedded=False)


@pytest.fixture
def desk(tmp_path: Path, script: ScriptedEcs, ecs: Ecs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk whose service is verified: that asks half of AWS, and has tests of its own."""
    secrets = {"API_KEY": f"{SECRET}/api-AbCdEf:key::", "OTHER": f"{SECRET}/other-AbCdEf"}
    monkeypatch.setattr(verification, "verify", lambda *_, **__: verification.Verified(secrets=secrets, notes=()))
    made = Desk(tmp_path, script, ecs)
    made.service(SERVICE + FARGATE)
    yield made
    made.close()


def test_a_service_on_fargate_gets_secrets_by_arn(desk: Desk) -> None:
    desk.ecs.steps = [complete]
    result = desk.result()
    assert result.status is Status.DONE, result.message
    (container,) = desk.ecs.sent("RegisterTaskDefinition")[0]["containerDefinitions"]
    assert container["secrets"] == [
        {"name": "API_KEY", "valueFrom": f"{SECRET}/api-AbCdEf:key::"},
        {"name": "OTHER", "valueFrom": f"{SECRET}/other-AbCdEf"},
    ]
    assert desk.ecs.sent("CreateService")[0]["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-1"]
    assert result.details["url"] is None


def test_the_last_lines_of_a_stopped_task_come_from_cloudwatch(desk: Desk) -> None:
    desk.ecs.steps = [trip]
    assert desk.result().status is Status.FAILED
    assert "answer/answer/1stopped: Traceback: no model" in desk.said.getvalue()


@pytest.mark.parametrize(
    ("refusals", "error", "step"),
    [
        ([Refusal("AccessDeniedException")], UsageError, "credentials"),
        ([Refusal("InvalidParameterException", "no such thing")], UsageError, "Mend what the message names"),
        ([Refusal("ThrottlingException")] * 9, RemoteError, "Wait a minute"),
        ([Refusal("ServerException", status=500)] * 9, RemoteError, "Wait a minute"),
    ],
)
def test_refusals_become_the_error_that_a_person_can_mend(
    ecs: Ecs, script: ScriptedEcs, monkeypatch: pytest.MonkeyPatch, refusals: list[Refusal], error: type[Exception], step: str
) -> None:
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    script.refusals["DescribeServices"] = list(refusals)
    with pytest.raises(error) as caught:
        ecs.service("answer")
    assert step in getattr(caught.value, "next_step", "")
    assert "describe_services was refused" in str(caught.value)


def test_a_change_is_not_repeated_after_an_error_of_the_server(ecs: Ecs, script: ScriptedEcs) -> None:
    script.refusals["RegisterTaskDefinition"] = [Refusal("ServerException", status=500)]
    with pytest.raises(RemoteError):
        ecs.register({"family": "answer", "containerDefinitions": []})
    assert len(script.sent("RegisterTaskDefinition")) == 1


def test_an_address_where_nothing_listens_is_a_remote_error(script: ScriptedEcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    assert script.requests == []
    away = ecs_client("http://127.0.0.1:9")
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:9"):
        away.check_cluster()


def test_missing_credentials_are_named(script: ScriptedEcs, ecs: Ecs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="credentials"):
        ecs.check_cluster()
    assert script.requests == []


def test_parameters_that_boto3_refuses_are_a_usage_error(ecs: Ecs) -> None:
    with pytest.raises(UsageError, match="family"):
        ecs.register({"containerDefinitions": []})


def test_tasks_are_read_in_pages_with_why_they_stopped(ecs: Ecs, script: ScriptedEcs) -> None:
    deployment = {"id": "ecs-svc/1", "taskDefinition": "answer:1"}
    script.tasks = [task_of(deployment, "STOPPED", exitCode=137, reason="OutOfMemoryError"), task_of(deployment, "RUNNING")]
    (stopped,) = ecs.tasks("answer", stopped=True)
    assert stopped.why == "Essential container in task exited; answer: exit code 137, OutOfMemoryError"
    assert [task.status for task in ecs.tasks("answer")] == ["RUNNING"]


def test_a_service_that_is_being_deleted_looks_complete_and_is_neither_deployed_nor_gone_back_from(desk: Desk, script: ScriptedEcs) -> None:
    script.steps = [complete]
    assert desk.result().status is Status.DONE
    assert script.service is not None
    script.service |= {"status": "DRAINING", "desiredCount": 0, "runningCount": 0}
    script.requests.clear()
    for result in (desk.result(), desk.rollback()):
        assert result.status is Status.FAILED
        assert "the service was deleted, its last tasks are ending" in result.message
    assert script.changes() == []
