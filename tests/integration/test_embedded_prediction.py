"""boto3 itself against the embedded Prediction Service on a real engine."""

from __future__ import annotations

import http.client
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.prediction import Running, ask, definition, running, until
from tests.support.registry import running_registry
from tests.support.sample_project import docker
from tests.support.tiny import load

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
LEAST_REQUESTS = 1000


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Iterator[Running]:
    assert base_image
    with running(tmp_path_factory.mktemp("prediction"), docker_host) as started:
        yield started


def register(ecs: ECSClient, image: str, version: str, **environment: str) -> str:
    answer = ecs.register_task_definition(**definition(image, version, **environment))
    return answer["taskDefinition"]["taskDefinitionArn"]


def service_of(ecs: ECSClient) -> Any:
    return ecs.describe_services(cluster="blue", services=["answer"])["services"][0]


def rolled_out(ecs: ECSClient, revision: str) -> Any:
    """Wait until the service runs a revision and nothing else."""

    def look() -> Any:
        found = service_of(ecs)
        first = found["deployments"][0]
        primary = next(one for one in found["deployments"] if one["status"] == "PRIMARY")
        assert first["rolloutState"] != "FAILED" or first["taskDefinition"] != revision, found["events"]
        return found if primary["rolloutState"] == "COMPLETED" and primary["taskDefinition"] == revision else None

    return until(look, f"the rollout of {revision}")


def create(ecs: ECSClient, revision: str, count: int = 1) -> None:
    ecs.create_cluster(clusterName="blue")
    ecs.create_service(
        cluster="blue",
        serviceName="answer",
        taskDefinition=revision,
        desiredCount=count,
        deploymentConfiguration=BREAKER,  # type: ignore[arg-type]
    )


def version(server: Running) -> bytes:
    status, body = ask(server.address("answer"), "GET", "/")
    assert status == 200
    return body


def test_boto3_registers_creates_updates_scales_and_deletes(server: Running, base_image: str) -> None:
    ecs = server.client()
    first = register(ecs, base_image, "one")
    create(ecs, first)
    ecs.get_waiter("services_stable").wait(cluster="blue", services=["answer"], WaiterConfig={"Delay": 1, "MaxAttempts": 180})
    rolled_out(ecs, first)  # stable means running; only a completed deployment is healthy
    assert version(server) == b"one"
    second = register(ecs, base_image, "two")
    assert second.endswith("answer:2")
    ecs.update_service(cluster="blue", service="answer", taskDefinition=second)
    settled = rolled_out(ecs, second)
    assert settled["runningCount"] == 1
    assert version(server) == b"two"
    ecs.update_service(cluster="blue", service="answer", desiredCount=2)
    until(lambda: service_of(ecs)["runningCount"] == 2, "the second task")
    tasks = ecs.describe_tasks(cluster="blue", tasks=ecs.list_tasks(cluster="blue", serviceName="answer")["taskArns"])["tasks"]
    assert {task["taskDefinitionArn"] for task in tasks} == {second}
    ecs.delete_service(cluster="blue", service="answer", force=True)
    until(lambda: service_of(ecs)["status"] == "INACTIVE", "the service's end")
    assert server.containers() == []


def test_a_revision_that_exits_is_rolled_back_and_never_gets_a_request(server: Running, base_image: str) -> None:
    ecs = server.client()
    good = register(ecs, base_image, "good")
    create(ecs, good)
    rolled_out(ecs, good)
    broken = register(ecs, base_image, "broken", EXIT="7")
    updated = ecs.update_service(cluster="blue", service="answer", taskDefinition=broken)["service"]
    own = updated["deployments"][0]["id"]

    def failed() -> Any:
        assert version(server) == b"good"
        return next((one for one in service_of(ecs)["deployments"] if one["id"] == own and one["rolloutState"] == "FAILED"), None)

    assert "circuit breaker" in until(failed, "the circuit breaker")["rolloutStateReason"]
    assert rolled_out(ecs, good)["taskDefinition"] == good
    assert version(server) == b"good"
    stopped = ecs.describe_tasks(
        cluster="blue", tasks=ecs.list_tasks(cluster="blue", serviceName="answer", desiredStatus="STOPPED")["taskArns"]
    )["tasks"]
    ended = [
        task for task in stopped if task["startedBy"] == own and task["lastStatus"] == "STOPPED" and "exitCode" in task["containers"][0]
    ]
    assert ended
    assert {task["containers"][0]["exitCode"] for task in ended} == {7}
    assert {task["stoppedReason"] for task in ended} == {"Essential container in task exited"}
    host = server.url.removeprefix("http://")
    log = until(lambda: ask(host, "GET", f"/_embedded/tasks/{ended[0]['taskArn'].rpartition('/')[2]}/log")[1], "the log")
    assert b"no model to serve" in log


def test_two_updates_under_constant_load_lose_no_request(server: Running, base_image: str) -> None:
    ecs = server.client()
    create(ecs, register(ecs, base_image, "0"), count=2)
    rolled_out(ecs, service_of(ecs)["taskDefinition"])
    clients = Load(server.address("answer"))
    clients.start()
    try:
        for number in ("1", "2"):
            clients.wait_for(clients.done + LEAST_REQUESTS // 4)
            revision = register(ecs, base_image, number)
            ecs.update_service(cluster="blue", service="answer", taskDefinition=revision)
            rolled_out(ecs, revision)
        clients.wait_for(max(LEAST_REQUESTS, clients.done + LEAST_REQUESTS // 4))
    finally:
        clients.end()
    assert clients.failures == []
    assert clients.done >= LEAST_REQUESTS
    assert clients.versions == {b"0", b"1", b"2"}


def test_a_killed_server_takes_its_tasks_up_again(server: Running, base_image: str) -> None:
    ecs = server.client()
    revision = register(ecs, base_image, "one")
    create(ecs, revision)
    rolled_out(ecs, revision)
    address, before = server.address("answer"), server.containers()
    server.end(signal.SIGKILL)
    server.start()
    ecs = server.client()
    until(lambda: ask(address, "GET", "/") == (200, b"one"), "an answer at the same address")
    assert server.containers() == before
    assert rolled_out(ecs, revision)["runningCount"] == 1
    assert server.end() == 0
    assert server.containers() == []
    server.start()
    until(lambda: ask(address, "GET", "/") == (200, b"one"), "an answer after an ordinary end")


def test_what_cannot_run_says_why(server: Running, base_image: str) -> None:
    ecs = server.client()
    create(ecs, register(ecs, "127.0.0.1:1/none/such:image", "one"))

    def reasons() -> set[str]:
        arns = ecs.list_tasks(cluster="blue", serviceName="answer", desiredStatus="STOPPED")["taskArns"]
        return {task["stoppedReason"] for task in ecs.describe_tasks(cluster="blue", tasks=arns)["tasks"]} if arns else set()

    assert "failed to resolve ref 127.0.0.1:1/none/such:image" in next(iter(until(reasons, "a stopped task")))
    until(lambda: service_of(ecs)["deployments"][0]["rolloutState"] == "FAILED", "the circuit breaker")
    assert ask(server.address("answer"), "GET", "/")[0] == 503
    short = definition(base_image, "sick", SICK="1")
    short["containerDefinitions"][0]["healthCheck"] |= {"startPeriod": 0, "retries": 1}
    sick = ecs.register_task_definition(**short)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster="blue", service="answer", taskDefinition=sick)
    until(lambda: "Task failed container health checks" in reasons(), "an unhealthy task")
    with pytest.raises(ClientError) as caught:
        ecs.describe_services(cluster="none", services=["answer"])
    assert caught.value.response["Error"]["Code"] == "ClusterNotFoundException"


def test_a_task_is_pulled_by_digest_mounts_its_volume_and_is_healthy_by_its_own_command(
    server: Running, docker_host: str, tmp_path: Path
) -> None:
    (tmp_path / "model").write_text("trained\n")
    ecs = server.client()
    with running_registry(tmp_path / "registry") as registry:
        image = f"{registry}/blue/pulled:1"
        load(docker_host, tmp_path, image)
        digest = (
            docker(docker_host, "push", "-q", image) and docker(docker_host, "inspect", "-f", "{{index .RepoDigests 0}}", image).strip()
        )
        docker(docker_host, "rmi", image)
        wanted = definition(digest, "any")
        container = wanted["containerDefinitions"][0]
        del container["dockerLabels"], container["portMappings"]
        container |= {
            "command": ["sh", "-c", "cat /model; exec sleep 1000"],
            "mountPoints": [{"sourceVolume": "model", "containerPath": "/model", "readOnly": True}],
            "stopTimeout": 1,
        }
        container["healthCheck"]["command"] = ["CMD-SHELL", "cat /model"]
        wanted["volumes"] = [{"name": "model", "host": {"sourcePath": str(tmp_path / "model")}}]
        revision = ecs.register_task_definition(**wanted)["taskDefinition"]["taskDefinitionArn"]
        create(ecs, revision)
        rolled_out(ecs, revision)
    (task,) = ecs.describe_tasks(cluster="blue", tasks=ecs.list_tasks(cluster="blue")["taskArns"])["tasks"]
    assert task["containers"][0]["imageDigest"] == digest.partition("@")[2]
    path = f"/_embedded/tasks/{task['taskArn'].rpartition('/')[2]}/log"
    assert until(lambda: ask(server.url.removeprefix("http://"), "GET", path)[1], "the log") == b"trained\n"
    container["secrets"] = [{"name": "KEY", "valueFrom": "arn:secret"}]
    secret = ecs.register_task_definition(**wanted)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster="blue", service="answer", taskDefinition=secret)
    stopped = until(lambda: ecs.list_tasks(cluster="blue", desiredStatus="STOPPED")["taskArns"], "a task that cannot start")
    assert (
        "Secrets Manager can't find the specified secret" in ecs.describe_tasks(cluster="blue", tasks=stopped)["tasks"][0]["stoppedReason"]
    )


class Load:
    """Four clients that ask without a pause, GET and POST, each on a connection that it keeps."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.done = 0
        self.failures: list[str] = []
        self.versions: set[bytes] = set()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(method,)) for method in ("GET", "POST", "GET", "POST")]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        until(lambda: self.done >= count or self.failures, f"{count} requests")

    def _ask(self, method: str) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=90)
        while not self._ending.is_set():
            try:
                connection.request(method, "/predict", b"{}" if method == "POST" else None)
                answer = connection.getresponse()
                body = answer.read()
                problem = "" if answer.status == http.HTTPStatus.OK else f"{method}: {answer.status} {body!r}"
            except (OSError, http.client.HTTPException) as error:
                body, problem = b"", f"{method}: {error!r}"
                connection.close()
            with self._lock:
                self.done += 1
                self.versions |= {body} if not problem else set()
                self.failures += [problem] if problem else []
        connection.close()
