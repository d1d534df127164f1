"""What the embedded Prediction Service remembers: clusters, revisions, services, deployments, tasks; whole in one file."""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed.files import write_bytes

ACCOUNT = "000000000000"
REGION = "us-east-1"
DEFAULT_CLUSTERS = ("default", "embedded")
PERCENTS = {"minimumHealthyPercent": 100, "maximumPercent": 200}
_STOPPED_KEPT = 100
_STOPPED_SECONDS = 3600.0  # ECS shows a stopped task for about an hour
_EVENTS_KEPT = 100
_ROLLOUTS_KEPT = 50
_PAST_SECONDS = 120.0


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
    stopping: float = 0.0
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
            self.desired, self.reason, self.stop_code, self.stopping = "STOPPED", reason, code, time.time()


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
    completed: bool = False
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    @property
    def number(self) -> str:
        """Return the number that its service revision has too."""
        return self.id.rpartition("/")[2]


@dataclass(kw_only=True)
class ServiceRevision:
    """What one deployment runs, frozen when it was made; ``digests`` are of each container's image, once one was started."""

    number: str
    revision: str
    images: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)


@dataclass(kw_only=True)
class Rollout:
    """What ECS calls a service deployment: from some service revisions to another one. ``back`` is the one it went back to."""

    id: str
    target: str
    sources: list[str]
    configuration: dict[str, Any]
    status: str = "IN_PROGRESS"
    reason: str = ""
    back: str = ""
    back_reason: str = ""
    back_at: float = 0.0
    tripped: str = ""
    alarms: list[str] = field(default_factory=list)
    failures: int = 0
    threshold: int = 0
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    finished: float = 0.0
    stopped: float = 0.0

    def turn(self, status: str, reason: str = "", *, over: bool = False) -> None:
        """Note a new status."""
        now = time.time()
        self.status, self.reason, self.updated = status, reason or self.reason, now
        if over:
            self.finished = now
        if status == "STOPPED":
            self.stopped = now


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
    status: str = "ACTIVE"
    created: float = field(default_factory=time.time)
    deployments: list[Deployment] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)
    tags: list[dict[str, str]] = field(default_factory=list)
    token: str = ""
    revisions: list[ServiceRevision] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)
    crashes: int = 0
    not_before: float = 0.0
    steady: bool = False

    @property
    def primary(self) -> Deployment:
        """Return the deployment to work towards."""
        return next(deployment for deployment in self.deployments if deployment.status == "PRIMARY")

    def deployment(self, wanted: str) -> Deployment | None:
        """Return a deployment by its id."""
        return next((deployment for deployment in self.deployments if deployment.id == wanted), None)

    @property
    def breaker(self) -> Mapping[str, Any]:
        """Return what its owner said of the circuit breaker."""
        return self.configuration.get("deploymentCircuitBreaker") or {}

    def percent(self, key: str) -> int:
        """Return ``minimumHealthyPercent`` or ``maximumPercent``."""
        return int(self.configuration.get(key, PERCENTS[key]))

    @property
    def rollout(self) -> Rollout | None:
        """Return the service deployment that goes on; None when none does."""
        newest = self.rollouts[0] if self.rollouts else None
        return newest if newest is not None and not newest.finished else None

    def revision(self, number: str) -> ServiceRevision | None:
        """Return a service revision by its number."""
        return next((revision for revision in self.revisions if revision.number == number), None)

    def tell(self, message: str) -> None:
        """Add an event, the newest first."""
        event = Event(id=str(uuid.uuid4()), message=f"(service {self.name}) {message}", at=time.time())
        self.events = [event, *self.events][:_EVENTS_KEPT]

    def deploy(self, revision: str, images: Mapping[str, str] | None = None) -> Deployment:
        """Make a new primary deployment; one that was under way is stopped for it. ``images`` are by container."""
        sources = [old.number for old in self.deployments if old.status == "PRIMARY"]
        if self.rollout is not None:
            self.rollout.turn("STOPPED", "Service deployment stopped because of a newer service deployment.", over=True)
        for old in self.deployments:
            old.status = "ACTIVE"
        fresh = Deployment(id=f"ecs-svc/{uuid.uuid4().int % 10**19:019d}", revision=revision)
        self.deployments.insert(0, fresh)
        made = ServiceRevision(number=fresh.number, revision=revision, images=dict(images or {}), given=dict(self.given))
        rollout = Rollout(id=uuid.uuid4().hex[:21], target=fresh.number, sources=sources, configuration=dict(self.configuration))
        self.revisions = [made, *self.revisions][:_ROLLOUTS_KEPT]
        self.rollouts = [rollout, *self.rollouts][:_ROLLOUTS_KEPT]
        self.crashes, self.not_before, self.steady = 0, 0.0, False
        return fresh


class Store:
    """All records, behind one lock; what `changing` changed is on the disk when it ends.

    Where the disk takes nothing, ``unwritten`` says why, and every later `changing` tries it again: the records here are what counts.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._past: deque[tuple[float, bytes]] | None = None
        self._changed = threading.Condition()
        self.version = 0
        self.identity = identity()
        self.clusters: list[str] = list(DEFAULT_CLUSTERS)
        self.definitions: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, int] = {}
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, Task] = {}
        self.tags: dict[str, list[dict[str, str]]] = {}
        self.targets: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.log_groups: dict[str, float] = {}
        self.unwritten = ""
        self._seen = self._written = b""
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
        """Hold the records, and write them when they changed or could not be written before."""
        with self._changed:
            yield
            self._forget()
            document = self._serialised()
            if document != self._written:
                self._write(document)
            if document != self._seen:
                self._seen = document
                self._keep(document)
                self.version += 1
                self._changed.notify_all()

    def remember(self) -> None:
        """From now on keep what the records were, for `past`."""
        self._past = deque()

    def past(self, seconds: float) -> Store:
        """Return the records as they were some seconds ago, or at the first time that is remembered; they cannot be written."""
        with self._changed:
            kept = list(self._past or ())
            now = self._serialised()
        due = time.time() - seconds
        old = [document for at, document in kept if at <= due]
        found = Store(self._file.with_name("past"))
        found._read(json.loads(old[-1] if old else kept[0][1] if kept else now))
        return found

    def tasks_of(self, service: Service) -> list[Task]:
        """Return a service's tasks, the oldest first."""
        return [task for task in self.tasks.values() if (task.cluster, task.service) == (service.cluster, service.name)]

    def find_service(self, cluster: str, name: str) -> Service | None:
        """Return a service by name or ARN."""
        return self.services.get(f"{cluster}/{name.rpartition('/')[2]}")

    def _keep(self, document: bytes) -> None:
        if self._past is None:
            return
        now = time.time()
        self._past.append((now, document))
        while len(self._past) > 1 and self._past[1][0] < now - _PAST_SECONDS:
            self._past.popleft()

    def _forget(self) -> None:
        due = time.time() - _STOPPED_SECONDS
        kept: Counter[tuple[str, str]] = Counter()
        for task in sorted((task for task in self.tasks.values() if task.gone), key=lambda task: task.stopped, reverse=True):
            kept[task.cluster, task.service] += 1  # one service that cannot start takes no other one's history
            if kept[task.cluster, task.service] > _STOPPED_KEPT or task.stopped < due:
                del self.tasks[task.id]

    def _write(self, document: bytes) -> None:
        try:
            write_bytes(self._file, document, mode=0o600)
        except OSError as error:
            if not self.unwritten:
                sys.stderr.write(f"{self._file} cannot be written: {error}\n")
            self.unwritten = str(error)
        else:
            self._written, self.unwritten = document, ""

    def _serialised(self) -> bytes:
        document = {
            "identity": self.identity,
            "clusters": self.clusters,
            "definitions": self.definitions,
            "revisions": self.revisions,
            "services": self.services,
            "tasks": self.tasks,
            "tags": self.tags,
            "targets": self.targets,
            "policies": self.policies,
            "log_groups": self.log_groups,
        }
        return json.dumps(document, default=vars).encode()

    def _read(self, document: Mapping[str, Any]) -> None:
        self.identity = document["identity"]
        self.clusters = list(document["clusters"])
        self.definitions = dict(document["definitions"])
        self.revisions = dict(document["revisions"])
        self.services = {key: _service(found) for key, found in document["services"].items()}
        self.tasks = {key: Task(**found) for key, found in document["tasks"].items()}
        self.tags, self.targets, self.policies = (dict(document.get(key, {})) for key in ("tags", "targets", "policies"))
        self.log_groups = dict(document.get("log_groups", {}))


def _service(document: Mapping[str, Any]) -> Service:
    deployments = [Deployment(**found) for found in document["deployments"]]
    events = [Event(**found) for found in document["events"]]
    revisions = [ServiceRevision(**found) for found in document.get("revisions", [])]
    rollouts = [Rollout(**found) for found in document.get("rollouts", [])]
    whole: dict[str, Any] = {"deployments": deployments, "events": events, "revisions": revisions, "rollouts": rollouts}
    kept = {key: value for key, value in document.items() if key not in {"breaker", "rollback"}}
    if "breaker" in document:  # as it was written before there was a configuration
        breaker = {"enable": document["breaker"], "rollback": document["rollback"]}
        whole["configuration"] = {"deploymentCircuitBreaker": breaker, **document.get("configuration", {})}
    if deployments and not any(one.status == "PRIMARY" for one in deployments):  # it forgot its primary after several failed ones
        deployments[0].status = "PRIMARY"
    return Service(**{**kept, **whole})
