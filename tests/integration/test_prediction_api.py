"""The whole service but for the engine: boto3's requests and the server's own addresses over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.prediction import ask, definition, until
from trainshed.local.prediction.api import TARGET
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.protocol import RefusedError
from trainshed.local.prediction.records import Store
from trainshed.local.prediction.server import Server

pytestmark = pytest.mark.sockets
BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}


class House:
    """A running server over a fake engine."""

    def __init__(self, state: Path, engine: FakeEngine) -> None:
        (state / "logs").mkdir(exist_ok=True)
        self.engine, self.store = engine, Store(state / "state.json")
        self.controller = Controller(self.store, engine, state / "logs")
        self.server = Server(0, self.store, self.controller)
        self.controller.start()
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"127.0.0.1:{self.server.server_address[1]}"

    def act(self, action: str, **request: Any) -> dict[str, Any]:
        """Ask the API."""
        return self.server.api.answer(TARGET + action, {"cluster": "embedded", **request})

    def register(self, version: str, **changed: Any) -> str:
        """Register a revision whose health is its command's."""
        made = definition("image", version)
        container = made["containerDefinitions"][0]
        del container["dockerLabels"]
        container |= changed
        return str(self.act("RegisterTaskDefinition", **made)["taskDefinition"]["taskDefinitionArn"])

    def create(self, revision: str, **more: Any) -> None:
        """Create the service."""
        self.act("CreateService", serviceName="answer", taskDefinition=revision, **{"desiredCount": 1, **more})

    def service(self) -> dict[str, Any]:
        """Look at the service."""
        (found,) = self.act("DescribeServices", services=["answer"])["services"]
        return dict(found)

    def rolled_out(self, revision: str) -> None:
        """Wait for a revision."""

        def look() -> bool:
            primary = next(one for one in self.service()["deployments"] if one["status"] == "PRIMARY")
            return bool(primary["taskDefinition"] == revision and primary["rolloutState"] == "COMPLETED")

        until(look, f"the rollout of {revision}")

    def end(self) -> bool:
        """End it."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        return self.controller.end()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path, FakeEngine())
    yield found
    found.end()


def refusal(house: House, action: str, **request: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        house.act(action, **request)
    return caught.value.kind


def test_a_service_lives_from_its_creation_to_its_end(house: House) -> None:
    first = house.register("one")
    house.create(first)
    house.rolled_out(first)
    second = house.register("two")
    house.act("UpdateService", service="answer", taskDefinition="answer")  # a family stands for its newest revision
    house.rolled_out(second)
    assert house.act("ListServices")["serviceArns"][0].endswith("service/embedded/answer")
    assert refusal(house, "DeleteService", service="answer") == "InvalidParameterException"
    house.act("DeleteService", service="answer", force=True)
    until(lambda: house.service()["status"] == "INACTIVE", "the end of the service")
    assert house.engine.ours() == {}
    house.create(first)
    house.rolled_out(first)


def test_a_task_that_is_stopped_by_hand_is_replaced(house: House) -> None:
    revision = house.register("one")
    house.create(revision)
    house.rolled_out(revision)
    (task,) = house.act("ListTasks", serviceName="answer")["taskArns"]
    house.act("StopTask", task=task, reason="by hand")
    stopped = until(lambda: house.act("DescribeTasks", tasks=[task])["tasks"][0].get("stoppedAt"), "its end")
    assert stopped
    shown = house.act("DescribeTasks", tasks=[task, "none"])
    assert (shown["tasks"][0]["stoppedReason"], shown["tasks"][0]["stopCode"]) == ("by hand", "UserInitiated")
    assert shown["failures"][0]["reason"] == "MISSING"
    until(lambda: house.act("ListTasks", serviceName="answer")["taskArns"] not in ([], [task]), "another task")


def test_a_container_that_exits_is_told_with_its_code_and_its_log(house: House) -> None:
    revision = house.register("one")
    house.create(revision)
    house.rolled_out(revision)
    (task,) = house.act("ListTasks")["taskArns"]
    house.engine.exit(7)
    shown = until(lambda: next((one for one in house.act("DescribeTasks", tasks=[task])["tasks"] if "stoppedAt" in one), None), "its end")
    assert shown["stoppedReason"] == "Essential container in task exited"
    assert shown["containers"][0]["exitCode"] == 7
    status, log = ask(house.address, "GET", f"/_embedded/tasks/{task.rpartition('/')[2]}/log")
    assert (status, log) == (200, b"container-0 said 200")
    until(lambda: house.service()["runningCount"] == 1, "a new task")


def test_a_revision_that_cannot_start_or_is_never_healthy_trips_the_breaker(house: House) -> None:
    good = house.register("good")
    house.create(good, deploymentConfiguration=BREAKER)
    house.rolled_out(good)
    house.engine.unable = "CannotPullContainerError: no such image"
    broken = house.register("broken")
    house.act("UpdateService", service="answer", taskDefinition=broken)
    until(lambda: any(one["rolloutState"] == "FAILED" for one in house.service()["deployments"]), "the breaker")
    house.rolled_out(good)
    stopped = house.act("DescribeTasks", tasks=house.act("ListTasks", desiredStatus="STOPPED")["taskArns"])["tasks"]
    assert {task["stoppedReason"] for task in stopped} == {"CannotPullContainerError: no such image"}
    house.engine.unable, house.engine.healthy = "", False
    sick = house.register("sick", healthCheck={"command": ["CMD", "true"], "interval": 1, "retries": 1, "startPeriod": 0})
    house.act("UpdateService", service="answer", taskDefinition=sick)

    def unhealthy() -> bool:
        arns = house.act("ListTasks", desiredStatus="STOPPED")["taskArns"]
        return any(one["stoppedReason"] == "Task failed container health checks" for one in house.act("DescribeTasks", tasks=arns)["tasks"])

    until(unhealthy, "an unhealthy task")


def test_a_killed_service_takes_its_tasks_up_again_and_removes_strangers(tmp_path: Path) -> None:
    engine = FakeEngine()
    first = House(tmp_path, engine)
    revision = first.register("one")
    first.create(revision)
    first.rolled_out(revision)
    port = first.store.services["embedded/answer"].port
    kept = (tmp_path / "state.json").read_bytes()
    before = engine.ours()
    frozen = FakeEngine()
    frozen.states, frozen.labels = {**engine.states, "stranger": engine.states["container-0"]}, dict(engine.labels)
    assert first.end()
    assert engine.ours() == {}
    (tmp_path / "state.json").write_bytes(kept)  # as a kill would have left it
    (tmp_path / "logs" / "forgotten.log").write_text("old")
    second = House(tmp_path, frozen)
    try:
        second.rolled_out(revision)
        assert second.store.services["embedded/answer"].port == port
        assert frozen.ours() == before
        assert not (tmp_path / "logs" / "forgotten.log").exists()
    finally:
        assert second.end()


def test_a_container_that_died_with_the_service_is_replaced(tmp_path: Path) -> None:
    first = House(tmp_path, FakeEngine())
    revision = first.register("one")
    first.create(revision)
    first.rolled_out(revision)
    kept = (tmp_path / "state.json").read_bytes()
    first.end()
    (tmp_path / "state.json").write_bytes(kept)
    second = House(tmp_path, FakeEngine())
    try:
        until(lambda: second.service()["runningCount"] == 1 and second.engine.ours(), "another container")
        assert second.service()["taskDefinition"] == revision
    finally:
        second.end()


@pytest.mark.parametrize(
    ("action", "request_", "kind"),
    [
        ("DescribeServices", {"cluster": "none", "services": []}, "ClusterNotFoundException"),
        ("UpdateService", {"service": "none"}, "ServiceNotFoundException"),
        ("StopTask", {"task": "none"}, "InvalidParameterException"),
        ("CreateService", {"serviceName": "a/b", "taskDefinition": "x"}, "InvalidParameterException"),
        ("CreateService", {"serviceName": "a", "taskDefinition": "none"}, "ClientException"),
        ("DescribeTaskDefinition", {"taskDefinition": "none:1"}, "ClientException"),
        ("RegisterTaskDefinition", {"family": "a", "containerDefinitions": []}, "ClientException"),
        ("RunTask", {}, "UnsupportedFeatureException"),
    ],
)
def test_what_ecs_would_refuse_is_refused_by_the_same_name(house: House, action: str, request_: dict[str, Any], kind: str) -> None:
    assert refusal(house, action, **request_) == kind


def test_revisions_and_clusters_are_listed_described_and_taken_away(house: House) -> None:
    first, second = house.register("one"), house.register("two")
    assert house.act("ListTaskDefinitions", familyPrefix="answer", sort="DESC")["taskDefinitionArns"] == [second, first]
    page = house.act("ListTaskDefinitions", maxResults=1)
    assert house.act("ListTaskDefinitions", maxResults=1, nextToken=page["nextToken"])["taskDefinitionArns"] == [second]
    house.act("DeregisterTaskDefinition", taskDefinition=second)
    assert house.act("DescribeTaskDefinition", taskDefinition="answer")["taskDefinition"]["revision"] == 1
    assert refusal(house, "CreateService", serviceName="answer", taskDefinition=second) == "ClientException"
    bad = definition("image", "x")
    bad["containerDefinitions"][0]["mountPoints"] = [{"sourceVolume": "none", "containerPath": "/x"}]
    assert refusal(house, "RegisterTaskDefinition", **bad) == "ClientException"
    house.act("CreateCluster", clusterName="blue")
    assert house.act("DescribeClusters", clusters=["blue", "none"])["failures"][0]["reason"] == "MISSING"
    house.create(first)
    assert refusal(house, "CreateService", serviceName="answer", taskDefinition=first) == "InvalidParameterException"
    assert refusal(house, "UpdateService", service="answer", desiredCount=-1) == "InvalidParameterException"
    assert refusal(house, "DeleteCluster") == "ClusterContainsServicesException"
    assert house.act("DeleteCluster", cluster="blue")["cluster"]["status"] == "INACTIVE"
    assert not any(name.endswith("/blue") for name in house.act("ListClusters")["clusterArns"])


def test_the_server_answers_on_its_own_addresses_and_refuses_web_pages(house: House) -> None:
    house.create(house.register("one"), desiredCount=0)
    status, body = ask(house.address, "GET", "/_embedded/services/answer")
    url = json.loads(body)["url"]
    assert (status, url.startswith("http://127.0.0.1:")) == (200, True)
    assert ask(url.removeprefix("http://"), "GET", "/")[0] == 503
    assert ask(house.address, "GET", "/_embedded/health")[0] == 200
    assert ask(house.address, "GET", "/_embedded/services/none")[0] == 404
    assert ask(house.address, "GET", "/_embedded/tasks/none/log")[0] == 404
    assert ask(house.address, "GET", "/none")[0] == 404
    assert ask(house.address, "POST", "/", b"{")[0] == 400
    assert ask(house.address, "POST", "/", b"[]")[0] == 400
    assert ask(house.address, "GET", "/_embedded/health", headers={"Origin": "http://example.org"})[0] == 403
    assert ask(house.address, "POST", "/", b"{}", headers={"Host": "example.org"})[0] == 400


def test_log_groups_and_streams_are_those_of_the_tasks(house: House) -> None:
    options = {"awslogs-group": "/ecs/answer", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "answer"}
    revision = house.register("one", logConfiguration={"logDriver": "awslogs", "options": options})
    house.create(revision)
    house.rolled_out(revision)
    (task,) = house.act("ListTasks")["taskArns"]

    def logs(action: str, **request: Any) -> dict[str, Any]:
        return house.server.api.answer(f"Logs_20140328.{action}", request)

    (stream,) = logs("DescribeLogStreams", logGroupName="/ecs/answer")["logStreams"]
    assert stream["logStreamName"] == f"answer/answer/{task.rpartition('/')[2]}"
    events = logs("GetLogEvents", logGroupName="/ecs/answer", logStreamName=stream["logStreamName"], limit=1)
    assert [event["message"] for event in events["events"]] == ["container-0 said 200"]
    again = logs(
        "GetLogEvents", logGroupName="/ecs/answer", logStreamName=stream["logStreamName"], nextToken=events["nextForwardToken"], limit=1
    )
    assert (again["events"], again["nextForwardToken"]) == ([], events["nextForwardToken"])
    logs("CreateLogGroup", logGroupName="/ecs/other")
    found = logs("DescribeLogGroups", logGroupNamePrefix="/ecs/")["logGroups"]
    assert [group["logGroupName"] for group in found] == ["/ecs/answer", "/ecs/other"]
    for request in ({"logGroupName": "/ecs/none"}, {"logGroupName": "/ecs/answer", "logStreamName": "none"}):
        with pytest.raises(RefusedError) as caught:
            logs("GetLogEvents", **request)
        assert caught.value.kind == "ResourceNotFoundException"


def test_autoscaling_is_kept_shown_and_bounds_the_count(house: House) -> None:
    house.create(house.register("one"), desiredCount=0)
    which = {"ServiceNamespace": "ecs", "ResourceId": "service/embedded/answer", "ScalableDimension": "ecs:service:DesiredCount"}

    def scaling(action: str, **request: Any) -> dict[str, Any]:
        return house.server.api.answer(f"AnyScaleFrontendService.{action}", {**which, **request})

    with pytest.raises(RefusedError) as early:
        scaling("PutScalingPolicy", PolicyName="cpu")
    assert early.value.kind == "ObjectNotFoundException"
    arn = scaling("RegisterScalableTarget", MinCapacity=2, MaxCapacity=4)["ScalableTargetARN"]
    assert house.service()["desiredCount"] == 2
    scaling("RegisterScalableTarget", MaxCapacity=3)
    (target,) = scaling("DescribeScalableTargets", ResourceIds=[which["ResourceId"]])["ScalableTargets"]
    assert (target["ScalableTargetARN"], target["MinCapacity"], target["MaxCapacity"]) == (arn, 2, 3)
    tracking = {"TargetValue": 70.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}
    for _ in range(2):
        scaling("PutScalingPolicy", PolicyName="cpu", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration=tracking)
    (policy,) = scaling("DescribeScalingPolicies")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == tracking
    scaling("DeleteScalingPolicy", PolicyName="cpu")
    scaling("DeregisterScalableTarget")
    assert scaling("DescribeScalableTargets")["ScalableTargets"] == []
    with pytest.raises(RefusedError) as wrong:
        scaling("RegisterScalableTarget", MinCapacity=2, MaxCapacity=1)
    assert wrong.value.kind == "ValidationException"


def test_revisions_that_were_deregistered_serve_on_and_are_refused_to_new_deployments(house: House) -> None:
    revision = house.register("one")
    house.create(revision, clientToken="same", tags=[{"key": "team", "value": "blue"}])
    house.rolled_out(revision)
    house.create(revision, clientToken="same")  # asked again with its token it is the same service
    house.act("DeregisterTaskDefinition", taskDefinition=revision)
    assert refusal(house, "DeregisterTaskDefinition", taskDefinition=revision) == "ClientException"
    assert refusal(house, "UpdateService", service="answer", taskDefinition=revision) == "ClientException"
    assert house.act("UpdateService", service="answer", desiredCount=2)["service"]["deployments"][0]["rolloutState"] == "COMPLETED"
    until(lambda: house.service()["runningCount"] == 2, "a second task of the inactive revision")
    assert house.act("ListTaskDefinitions", status="INACTIVE")["taskDefinitionArns"] == [revision]
    arn = house.service()["serviceArn"]
    assert house.act("ListTagsForResource", resourceArn=arn)["tags"] == [{"key": "team", "value": "blue"}]
    (told,) = house.act("ListServiceDeployments", service="answer")["serviceDeployments"]
    (known,) = house.act("DescribeServiceRevisions", serviceRevisionArns=[told["targetServiceRevisionArn"]])["serviceRevisions"]
    assert known["containerImages"][0]["imageDigest"] == f"sha256:{'1' * 64}"
    assert refusal(house, "ListTagsForResource", resourceArn="none") == "InvalidParameterException"
    before = house.service()["deployments"][0]["id"]
    house.act("UpdateService", service="answer", forceNewDeployment=True)
    assert house.service()["deployments"][0]["id"] != before
