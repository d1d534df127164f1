from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, ScriptedEcs, complete, scripted, task_of, trip
from tests.support.scripted_ecs import client as ecs_client
from trainshed.errors import RemoteError, UsageError
from trainshed.results import Status
from trainshed.tools.ecs import Ecs

pytestmark = pytest.mark.sockets
FARGATE = """roles: {execution: run}
network: {subnets: [subnet-1]}
logs: {group: /prediction/answer}
secrets: {API_KEY: "prediction/api#key", OTHER: prediction/other}
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ScriptedEcs]:
    with scripted() as found:
        yield found


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
def desk(tmp_path: Path, script: ScriptedEcs, ecs: Ecs) -> Iterator[Desk]:
    script.secrets["prediction/api"] = '{"key": "hidden"}'
    made = Desk(tmp_path, script, ecs)
    made.service(SERVICE + FARGATE)
    yield made
    made.close()


def test_a_service_on_fargate_gets_secrets_by_arn_and_never_their_values(desk: Desk) -> None:
    desk.ecs.steps = [complete]
    result = desk.result()
    assert result.status is Status.DONE, result.message
    (container,) = desk.ecs.sent("RegisterTaskDefinition")[0]["containerDefinitions"]
    prefix = "arn:aws:secretsmanager:us-east-1:000000000000:secret:prediction"
    assert container["secrets"] == [
        {"name": "API_KEY", "valueFrom": f"{prefix}/api-AbCdEf:key::"},
        {"name": "OTHER", "valueFrom": f"{prefix}/other-AbCdEf"},
    ]
    assert desk.ecs.sent("CreateService")[0]["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-1"]
    assert result.details["url"] is None
    assert "hidden" not in str(desk.ecs.sent("RegisterTaskDefinition"))


def test_the_last_lines_of_a_stopped_task_come_from_cloudwatch(desk: Desk) -> None:
    desk.ecs.steps = [trip]
    assert desk.result().status is Status.FAILED
    assert "answer/answer/1stopped: Traceback: no model" in desk.said.getvalue()


def test_what_fargate_lacks_and_golden_needs_is_told_before_anything_is_asked(desk: Desk) -> None:
    desk.service(SERVICE + "golden: golden.json\nmemory: 300\n")
    result = desk.result()
    assert result.exit_code == UsageError.exit_code
    assert "Fargate has no such size" in result.message
    assert "load-balancer.address: needed to check the golden predictions" in result.message
    assert desk.ecs.requests == []


@pytest.mark.parametrize(
    ("secret", "said"), [("{}", "has no JSON key 'key'"), ("plain", "has no JSON key 'key'"), (None, "ResourceNotFound")]
)
def test_a_secret_or_key_that_is_not_there_stops_the_deployment(desk: Desk, secret: str | None, said: str) -> None:
    desk.ecs.secrets = {} if secret is None else {"prediction/api": secret}
    result = desk.result()
    assert result.exit_code == UsageError.exit_code
    assert said in result.message
    assert desk.ecs.changes() == []


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
