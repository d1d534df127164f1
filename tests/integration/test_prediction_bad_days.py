"""What goes wrong on ECS goes wrong on the embedded Prediction Service in the same words, with real containers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.support.prediction import Running, ask, definition, running, until
from tests.support.sample_project import docker

HUNGRY = "hoard = [bytearray(4 << 20) for _ in range(1000)]"
BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
ALARMS = {"alarms": {"alarmNames": ["errors"], "enable": True, "rollback": True}}
ROLE = "arn:aws:iam::000000000000:role/execution"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Iterator[Running]:
    assert base_image
    with running(tmp_path_factory.mktemp("prediction"), docker_host, "--faults") as started:
        yield started


@pytest.fixture
def cluster(server: Running, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a cluster of the test's own, and end its service afterwards."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    ecs = server.client()
    ecs.create_cluster(clusterName=name)
    yield name
    server.faults()
    ecs.delete_service(cluster=name, service="answer", force=True)
    until(lambda: ecs.describe_services(cluster=name, services=["answer"])["services"][0]["status"] == "INACTIVE", "its end")


class Deploys:
    """One service of one cluster."""

    def __init__(self, server: Running, cluster: str, image: str) -> None:
        self.ecs: Any = server.client()
        self.cluster, self.image = cluster, image

    def register(self, version: str, *, changed: dict[str, Any] | None = None, **container: Any) -> str:
        """Register a revision."""
        made = definition(self.image, version) | (changed or {})
        made["containerDefinitions"][0] |= container
        return str(self.ecs.register_task_definition(**made)["taskDefinition"]["taskDefinitionArn"])

    def create(self, revision: str, **more: Any) -> None:
        """Create the service."""
        self.ecs.create_service(cluster=self.cluster, serviceName="answer", taskDefinition=revision, **{"desiredCount": 1, **more})

    def update(self, revision: str) -> str:
        """Roll a revision out; return the deployment's id."""
        answer = self.ecs.update_service(cluster=self.cluster, service="answer", taskDefinition=revision)
        return str(answer["service"]["deployments"][0]["id"])

    def service(self) -> Any:
        """Look at the service."""
        return self.ecs.describe_services(cluster=self.cluster, services=["answer"])["services"][0]

    def completed(self) -> None:
        """Wait until its primary deployment is done."""
        until(lambda: next(one for one in self.service()["deployments"] if one["status"] == "PRIMARY")["rolloutState"] == "COMPLETED", "it")

    def events(self) -> str:
        """Return what ECS told."""
        return "\n".join(event["message"] for event in self.service()["events"])

    def stopped(self) -> Any:
        """Wait for a task that stopped."""

        def look() -> Any:
            arns = self.ecs.list_tasks(cluster=self.cluster, serviceName="answer", desiredStatus="STOPPED")["taskArns"]
            tasks = self.ecs.describe_tasks(cluster=self.cluster, tasks=arns)["tasks"] if arns else []
            return next((task for task in tasks if "stoppedAt" in task), None)

        return until(look, "a stopped task")


@pytest.fixture
def deploys(server: Running, cluster: str, base_image: str) -> Deploys:
    return Deploys(server, cluster, base_image)


def test_a_task_that_takes_more_memory_than_it_has_is_killed_and_says_so(deploys: Deploys) -> None:
    deploys.create(deploys.register("hungry", command=["python3", "-c", HUNGRY], memory=32))
    task = deploys.stopped()
    assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    (container,) = task["containers"]
    assert (container["exitCode"], container["reason"]) == (137, "OutOfMemoryError: Container killed due to memory usage")


def test_a_task_that_is_never_healthy_is_told_by_whom_it_was_judged(deploys: Deploys) -> None:
    sick: dict[str, Any] = {"environment": [{"name": "VERSION", "value": "sick"}, {"name": "SICK", "value": "1"}]}
    check = {"command": ["CMD", "true"], "interval": 1, "retries": 1, "startPeriod": 0}
    group = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/answer/0123456789abcdef"
    balancers = [{"targetGroupArn": group, "containerName": "answer", "containerPort": 8080}]
    deploys.create(deploys.register("sick", healthCheck=check, **sick), deploymentConfiguration=BREAKER, loadBalancers=balancers)
    task = deploys.stopped()
    assert (task["stopCode"], task["stoppedReason"]) == (
        "ServiceSchedulerInitiated",
        f"Task failed ELB health checks in (target-group {group})",
    )
    assert f"is unhealthy in (target-group {group}) due to (reason Health checks failed" in deploys.events()


def test_secrets_reach_the_container_and_nothing_else(server: Running, deploys: Deploys, docker_host: str) -> None:
    secrets = server.aws("secretsmanager")
    arn = secrets.create_secret(Name="prod/answer", SecretString=json.dumps({"version": "hush-4711"}))["ARN"]
    container: dict[str, Any] = {"environment": [], "secrets": [{"name": "VERSION", "valueFrom": f"{arn}:version::"}]}
    command = ["python3", "-c", "import os, time; assert os.environ['VERSION'][:5] == 'hush-'; print('ready', flush=True); time.sleep(600)"]
    given: dict[str, Any] = {"dockerLabels": {}, "portMappings": [], "command": command, "stopTimeout": 1}
    deploys.create(deploys.register("secret", **given, **container))
    deploys.completed()
    assert "hush-4711" not in (server.state / "state.json").read_text()
    assert (server.state / "secrets.json").stat().st_mode & 0o777 == 0o600
    (task,) = deploys.ecs.list_tasks(cluster=deploys.cluster)["taskArns"]
    path = f"/_embedded/tasks/{task.rpartition('/')[2]}/log"
    assert until(lambda: ask(server.url.removeprefix("http://"), "GET", path)[1], "the log") == b"ready\n"
    names = docker(docker_host, "ps", "--no-trunc", "--filter", f"label=io.trainshed.prediction.task={task.rpartition('/')[2]}")
    assert "hush-4711" not in names
    shown = deploys.ecs.describe_task_definition(taskDefinition=deploys.service()["taskDefinition"])["taskDefinition"]
    assert "hush-4711" not in json.dumps(shown, default=str)
    deploys.update(deploys.register("gone", **given, secrets=[{"name": "VERSION", "valueFrom": f"{arn}:none::"}]))
    task = deploys.stopped()
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth")
    assert "did not contain json key none" in task["stoppedReason"]
    assert task["stopCode"] == "TaskFailedToStart"


def test_an_execution_role_that_may_not_be_assumed_stops_the_task(server: Running, deploys: Deploys) -> None:
    server.faults({"kind": "role", "name": ROLE})
    deploys.create(deploys.register("one", changed={"executionRoleArn": ROLE}), deploymentConfiguration=BREAKER)
    assert deploys.stopped()["stoppedReason"].startswith(f"ECS was unable to assume the role '{ROLE}'")
    assert "failed to launch a task with (error ECS was unable to assume the role" in deploys.events()
    until(lambda: deploys.service()["deployments"][0]["rolloutState"] == "FAILED", "the breaker")
    assert "deployment failed: tasks failed to start." in deploys.events()


def test_an_alarm_that_goes_off_takes_the_deployment_back(server: Running, deploys: Deploys) -> None:
    good = deploys.register("good")
    deploys.create(good, deploymentConfiguration=ALARMS)
    deploys.completed()
    server.faults({"kind": "alarm", "name": "errors"}, {"kind": "capacity"})
    own = deploys.update(deploys.register("bad"))
    failed = until(
        lambda: next((one for one in deploys.service()["deployments"] if one["id"] == own and one["rolloutState"] == "FAILED"), None), "it"
    )
    assert "alarm" in failed["rolloutStateReason"]
    server.faults()
    deploys.completed()
    assert deploys.service()["taskDefinition"] == good
    newest = deploys.ecs.list_service_deployments(cluster=deploys.cluster, service="answer")["serviceDeployments"][0]
    (told,) = deploys.ecs.describe_service_deployments(serviceDeploymentArns=[newest["serviceDeploymentArn"]])["serviceDeployments"]
    assert (told["status"], told["alarms"]["status"], told["alarms"]["triggeredAlarmNames"]) == (
        "ROLLBACK_SUCCESSFUL",
        "TRIGGERED",
        ["errors"],
    )


def test_half_of_the_tasks_may_be_replaced_where_the_service_says_so(deploys: Deploys) -> None:
    narrow = {"minimumHealthyPercent": 50, "maximumPercent": 100}
    deploys.create(deploys.register("one"), desiredCount=2, deploymentConfiguration=narrow)
    deploys.completed()
    second = deploys.register("two")
    deploys.update(second)
    most = 0

    def done() -> bool:
        nonlocal most
        found = deploys.service()
        most = max(most, found["runningCount"] + found["pendingCount"])
        return bool(found["deployments"][0]["rolloutState"] == "COMPLETED")

    until(done, "the second revision")
    assert deploys.service()["taskDefinition"] == second
    assert "has stopped 1 running tasks" in deploys.events()


def test_answers_fail_as_asked_and_no_longer(server: Running, deploys: Deploys) -> None:
    deploys.create(deploys.register("one"), desiredCount=0)
    server.faults(
        {"kind": "throttle", "action": "DescribeServices", "times": 1},
        {"kind": "denied", "action": "DescribeServices", "times": 1},
        {"kind": "expired", "action": "DescribeServices", "times": 1},
        {"kind": "error", "action": "DescribeServices", "times": 1},
    )
    codes = []
    for _ in range(4):
        with pytest.raises(ClientError) as caught:
            deploys.service()
        codes.append(caught.value.response["Error"]["Code"])
    assert codes == ["ThrottlingException", "AccessDeniedException", "ExpiredTokenException", "ServerException"]
    assert deploys.service()["status"] == "ACTIVE"
    server.faults({"kind": "cut", "action": "UpdateService", "times": 1, "after": True})
    second = deploys.register("two")
    with pytest.raises(ConnectionClosedError):
        deploys.update(second)
    assert deploys.service()["taskDefinition"] == second  # it was done, and only the answer was lost
    server.faults({"kind": "stale", "action": "DescribeServices", "seconds": 3600, "times": 1})
    old = deploys.ecs.describe_services(cluster="default", services=["answer"])
    assert old["services"] == []
    assert deploys.service()["taskDefinition"] == second


def test_faults_are_for_tests_only(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> None:
    with running(tmp_path_factory.mktemp("plain"), docker_host) as plain:
        host = plain.url.removeprefix("http://")
        assert ask(host, "PUT", "/_embedded/faults", b"[]")[0] == 403
        assert ask(host, "DELETE", "/_embedded/faults")[0] == 403
        assert ask(host, "GET", "/_embedded/faults")[0] == 404
