"""What the embedded Prediction Service remembers: clusters, revisions, services, deployments, tasks; whole in one file."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainshed.files import write_bytes

ACCOUNT = "000000000000"
REGION = "us-east-1"
DEFAULT_CLUSTERS = ("default", "embedded")
_STOPPED_KEPT = 100
_EVENTS_KEPT = 100


def arn(kind: str, *parts: str) -> str:
    """Return an ARN of this service: ``arn:aws:ecs:us-east-1:000000000000:task/embedded/…``."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:{kind}/{'/'.join(parts)}"


def identity() -> str:
    """Return 32 hexadecimal digits, as ECS names its tasks."""
    return uuid.uuid4().hex


@dataclass(kw_only=True)
class Task:
    """One task, which is one container. Times are seconds since the epoch; ``port`` is where loopback reaches it."""

    id: str
    cluster: str
    service: str
    deployment: str
    revision: str
    image: str
    container: str
    digest: str = ""
    status: str = "PROVISIONING"
    desired: str = "RUNNING"
    health: str = "UNKNOWN"
    container_id: str = ""
    port: int = 0
    created: float = field(default_factory=time.time)
    started: float = 0.0
    stopped: float = 0.0
    stop_code: str = ""
    reason: str = ""
    exit_code: int | None = None
    container_reason: str = ""

    @property
    def gone(self) -> bool:
        """Tell whether nothing of it runs any more."""
        return self.status == "STOPPED"

    @property
    def wanted(self) -> bool:
        """Tell whether it runs or starts, and nobody asked it to stop."""
        return not self.gone and self.desired == "RUNNING"

    @property
    def serves(self) -> bool:
        """Tell whether requests may reach it."""
        return self.wanted and self.health == "HEALTHY"

    def ask_stop(self, reason: str, code: str = "ServiceSchedulerInitiated") -> None:
        """Ask for its end; the first reason stands."""
        if self.wanted:
            self.desired, self.reason, self.stop_code = "STOPPED", reason, code


@dataclass(kw_only=True)
class Deployment:
    """One deployment of a service, as ECS knows it."""

    id: str
    revision: str
    status: str = "PRIMARY"
    rollout: str = "IN_PROGRESS"
    reason: str = ""
    failed: int = 0
    proven: bool = False
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


@dataclass(kw_only=True)
class Event:
    """A line of a service's history."""

    id: str
    message: str
    at: float


@dataclass(kw_only=True)
class Service:
    """One service. ``deployments`` are newest first; ``given`` is what its owner said of network, load balancer and so on."""

    name: str
    cluster: str
    desired: int
    port: int
    breaker: bool = False
    rollback: bool = False
    status: str = "ACTIVE"
    created: float = field(default_factory=time.time)
    deployments: list[Deployment] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    crashes: int = 0
    not_before: float = 0.0

    @property
    def primary(self) -> Deployment:
        """Return the deployment to work towards."""
        return next(deployment for deployment in self.deployments if deployment.status == "PRIMARY")

    def deployment(self, wanted: str) -> Deployment | None:
        """Return a deployment by its id."""
        return next((deployment for deployment in self.deployments if deployment.id == wanted), None)

    def tell(self, message: str) -> None:
        """Add an event, the newest first."""
        event = Event(id=str(uuid.uuid4()), message=f"(service {self.name}) {message}", at=time.time())
        self.events = [event, *self.events][:_EVENTS_KEPT]

    def deploy(self, revision: str) -> Deployment:
        """Make a new primary deployment; those that are over are forgotten."""
        for old in self.deployments:
            old.status = "ACTIVE"
        self.deployments.insert(0, Deployment(id=f"ecs-svc/{uuid.uuid4().int % 10**19:019d}", revision=revision))
        self.crashes, self.not_before = 0, 0.0
        return self.deployments[0]


class Store:
    """All records, behind one lock; what `changing` changed is on the disk when it ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed = threading.Condition()
        self.version = 0
        self.identity = identity()
        self.clusters: list[str] = list(DEFAULT_CLUSTERS)
        self.definitions: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, int] = {}
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, Task] = {}
        self._written = b""
        if file.exists():
            self._read(json.loads(file.read_bytes()))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the records still."""
        with self._changed:
            yield

    def wait(self, until: Callable[[], bool], timeout: float) -> bool:
        """Wait until something holds, looking whenever a record changed; False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(until, timeout)

    def wake(self) -> None:
        """Have all who wait look again: what they wait for may lie beside the records."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the records, and write them when they changed."""
        with self._changed:
            yield
            self._forget()
            document = json.dumps(self._document()).encode()
            if document != self._written:
                write_bytes(self._file, document, mode=0o600)
                self._written = document
                self.version += 1
                self._changed.notify_all()

    def tasks_of(self, service: Service) -> list[Task]:
        """Return a service's tasks, the oldest first."""
        return [task for task in self.tasks.values() if (task.cluster, task.service) == (service.cluster, service.name)]

    def find_service(self, cluster: str, name: str) -> Service | None:
        """Return a service by name or ARN."""
        return self.services.get(f"{cluster}/{name.rpartition('/')[2]}")

    def _forget(self) -> None:
        gone = sorted((task for task in self.tasks.values() if task.gone), key=lambda task: task.stopped)
        for task in gone[:-_STOPPED_KEPT]:
            del self.tasks[task.id]

    def _document(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "clusters": self.clusters,
            "definitions": self.definitions,
            "revisions": self.revisions,
            "services": {key: asdict(service) for key, service in self.services.items()},
            "tasks": {key: asdict(task) for key, task in self.tasks.items()},
        }

    def _read(self, document: Mapping[str, Any]) -> None:
        self.identity = document["identity"]
        self.clusters = list(document["clusters"])
        self.definitions = dict(document["definitions"])
        self.revisions = dict(document["revisions"])
        self.services = {key: _service(found) for key, found in document["services"].items()}
        self.tasks = {key: Task(**found) for key, found in document["tasks"].items()}


def _service(document: Mapping[str, Any]) -> Service:
    deployments = [Deployment(**found) for found in document["deployments"]]
    events = [Event(**found) for found in document["events"]]
    return Service(**{**document, "deployments": deployments, "events": events})
