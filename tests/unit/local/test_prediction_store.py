"""What the embedded Prediction Service remembers outlives old versions, kills at any moment, and a disk that takes nothing."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.prediction import definition, until
from trainshed.files import write_bytes
from trainshed.local.prediction import records, rollout, runner, vault
from trainshed.local.prediction.api import TARGET, Api
from trainshed.local.prediction.containers import State
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.protocol import RefusedError
from trainshed.local.prediction.records import Service, Store, Task

REVISION = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer:1"
OLD_TASK = {
    "id": "a" * 32,
    "cluster": "embedded",
    "service": "answer",
    "deployment": "ecs-svc/1",
    "revision": REVISION,
    "image": "image",
    "container": "answer",
    "digest": "",
    "status": "PENDING",
    "desired": "RUNNING",
    "health": "UNKNOWN",
    "container_id": "",
    "port": 0,
    "created": 1.0,
    "started": 0.0,
    "stopped": 0.0,
    "stop_code": "",
    "reason": "",
    "exit_code": None,
    "container_reason": "",
}
OLD_DEPLOYMENT = {"id": "ecs-svc/1", "revision": REVISION, "reason": "", "failed": 0, "proven": True, "created": 1.0, "updated": 1.0}
OLD_SERVICE = {
    "name": "answer",
    "cluster": "embedded",
    "desired": 1,
    "port": 0,
    "breaker": True,
    "rollback": True,
    "status": "ACTIVE",
    "created": 1.0,
    "deployments": [{**OLD_DEPLOYMENT, "status": "PRIMARY", "rollout": "COMPLETED"}],
    "events": [{"id": "1", "message": "(service answer) has reached a steady state.", "at": 1.0}],
    "given": {},
    "crashes": 0,
    "not_before": 0.0,
}
OLD = {
    "identity": "b" * 32,
    "clusters": ["default", "embedded"],
    "definitions": {
        REVISION: {
            "family": "answer",
            "revision": 1,
            "status": "ACTIVE",
            "taskDefinitionArn": REVISION,
            "registeredAt": 1.0,
            "containerDefinitions": [{"name": "answer", "image": "image"}],
        }
    },
    "revisions": {"answer": 1},
    "services": {"embedded/answer": OLD_SERVICE},
    "tasks": {"a" * 32: OLD_TASK},
}
"""As it was written before services had a configuration and a history."""


class House:
    """A service without its server."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir(exist_ok=True)
        self.engine, self.store = FakeEngine(), Store(folder / "state.json")
        self.controller = Controller(self.store, self.engine, folder / "logs")
        self.api = Api(self.store, self.controller)

    def act(self, action: str, **request: Any) -> dict[str, Any]:
        """Ask the API."""
        return self.api.answer(TARGET + action, {"cluster": "embedded", **request})

    def create(self) -> None:
        """Create the service."""
        made = definition("image", "one")
        del made["containerDefinitions"][0]["dockerLabels"]
        self.act("RegisterTaskDefinition", **made)
        self.act("CreateService", serviceName="answer", taskDefinition="answer", desiredCount=1)

    def completed(self) -> bool:
        """Tell whether the service's deployment is done."""
        return bool(self.act("DescribeServices", services=["answer"])["services"][0]["deployments"][0]["rolloutState"] == "COMPLETED")


class Disk:
    """A disk that can be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False

        def written(path: Path, content: bytes, *, mode: int = 0o644) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            write_bytes(path, content, mode=mode)

        for module in (records, runner, vault):
            monkeypatch.setattr(module, "write_bytes", written)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def written(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps(OLD))


def test_the_records_of_the_version_before_are_read_and_their_breaker_is_shown(tmp_path: Path) -> None:
    written(tmp_path)
    house = House(tmp_path)
    (shown,) = house.act("DescribeServices", services=["answer"])["services"]
    assert shown["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    assert house.act("DescribeTasks", tasks=["a" * 32])["tasks"][0]["lastStatus"] == "PENDING"
    assert house.act("ListServiceDeployments", service="answer")["serviceDeployments"] == []
    house.act("UpdateService", service="answer", forceNewDeployment=True)
    (fresh, old) = Store(tmp_path / "state.json").services["embedded/answer"].deployments
    assert (fresh.status, old.status) == ("PRIMARY", "ACTIVE")


def test_records_that_lost_their_primary_deployment_have_one_again(tmp_path: Path) -> None:
    failed = [{**OLD_DEPLOYMENT, "id": f"ecs-svc/{number}", "status": "ACTIVE", "rollout": "FAILED"} for number in (4, 3, 2)]
    document = {**OLD, "services": {"embedded/answer": {**OLD_SERVICE, "deployments": failed}}}
    (tmp_path / "state.json").write_text(json.dumps(document))
    service = Store(tmp_path / "state.json").services["embedded/answer"]
    assert service.primary.id == "ecs-svc/4"
    assert rollout.decide(service, [], 1.0).start == 0


@pytest.mark.sockets
def test_a_container_that_was_made_just_before_a_kill_is_removed_and_made_again(tmp_path: Path) -> None:
    written(tmp_path)
    house = House(tmp_path)
    house.engine.states["made"], house.engine.labels["made"] = State(present=True, running=True), "a" * 32
    house.controller.start()
    try:
        until(house.completed, "the service")
        (container,) = house.engine.ours()
        assert container == house.store.tasks["a" * 32].container_id != "made"
        assert house.store.services["embedded/answer"].primary.failed == 0
    finally:
        assert house.controller.end()


@pytest.mark.sockets
def test_a_full_disk_ends_no_task_and_is_told_to_who_changes_something(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(tmp_path)
    house.controller.start()
    try:
        house.create()
        until(house.completed, "the service")
        disk.full = True
        (task,) = house.act("ListTasks")["taskArns"]
        with pytest.raises(RefusedError, match="No space left") as told:
            house.act("StopTask", task=task)
        assert (told.value.kind, told.value.status) == ("ServerException", 500)
        until(lambda: house.act("DescribeTasks", tasks=[task])["tasks"][0]["lastStatus"] == "STOPPED", "the end of the task")
        until(lambda: house.act("ListTasks")["taskArns"] not in ([], [task]), "another task")
        assert json.loads((tmp_path / "state.json").read_bytes())["tasks"].keys() == {task.rpartition("/")[2]}
        disk.full = False
        until(lambda: len(json.loads((tmp_path / "state.json").read_bytes())["tasks"]) > 1, "the records on the disk")
        house.act("UpdateService", service="answer", desiredCount=0)
    finally:
        assert house.controller.end()
    assert capsys.readouterr().err.count("cannot be written") == 1


@pytest.mark.sockets
def test_whatever_one_look_meets_the_services_are_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decide, left = rollout.decide, ["one"]

    def failing(service: Service, tasks: list[Task], now: float, alarms: frozenset[str]) -> rollout.Steps:
        if left:
            raise RuntimeError(left.pop())
        return decide(service, tasks, now, alarms)

    monkeypatch.setattr(rollout, "decide", failing)
    house = House(tmp_path)
    house.controller.start()
    try:
        house.create()
        until(house.completed, "the service")
    finally:
        assert house.controller.end()
    assert "RuntimeError: one" in capsys.readouterr().err


def test_a_secret_that_is_not_on_the_disk_is_not_known(tmp_path: Path, disk: Disk) -> None:
    store = vault.Vault(tmp_path / "secrets.json")
    store.actions["CreateSecret"]({"Name": "old", "SecretString": "kept"})
    disk.full = True
    for action, request in (("CreateSecret", {"Name": "new"}), ("PutSecretValue", {"SecretId": "old"})):
        with pytest.raises(OSError, match="No space left"):
            store.actions[action]({**request, "SecretString": "lost"})
    assert store.value("old") == "kept"
    with pytest.raises(RefusedError):
        store.value("new")


@pytest.mark.sockets
def test_a_change_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.controller.start()
    house.create()
    both = {"minimumHealthyPercent": 100, "maximumPercent": 100}
    with pytest.raises(RefusedError):
        house.act("UpdateService", service="answer", desiredCount=5, deploymentConfiguration=both)
    assert house.act("DescribeServices", services=["answer"])["services"][0]["desiredCount"] == 1
    with pytest.raises(RefusedError, match="cannot be empty"):
        house.act("DescribeServices", services=[])
    house.controller.end()


def test_a_service_that_cannot_start_takes_no_other_ones_history(tmp_path: Path) -> None:
    store, now = Store(tmp_path / "state.json"), time.time()
    for number in range(210):
        task = Task(**{**OLD_TASK, "id": f"{number}", "status": "STOPPED", "stopped": now + number})  # type: ignore[arg-type]
        task.service = "quiet" if number < 5 else "loud"
        store.tasks[task.id] = task
    with store.changing():
        pass
    assert sorted(store.tasks, key=int) == [*map(str, range(5)), *map(str, range(110, 210))]
