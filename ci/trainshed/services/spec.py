"""``service.yaml``: what a deployable artifact needs, with the overlay of one environment laid over; all problems at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed.errors import problems, suggestion
from trainshed.services import marked

FILE_NAME = "service.yaml"

_FARGATE_MEMORY: Mapping[int, Iterable[int]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}
"""Memory in MiB that Fargate takes for each CPU size (1024 is one core):
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """The health check: a GET of ``path`` that answers 200. ``interval``, ``timeout`` and ``start`` are whole seconds."""

    path: str = "/healthz"
    interval: int = 10
    timeout: int = 2
    retries: int = 3
    start: int = 30


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """The bounds within which a policy owns the count, and the values that it tracks.

    ``cpu`` and ``memory`` are percents of what the service reserves, ``requests`` counts those of one task and minute.
    """

    min: int
    max: int
    cpu: int | None = None
    memory: int | None = None
    requests: int | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """How a new revision replaces the old one.

    ``fail_early`` gives up at the first task that cannot start; while one of ``alarms`` (CloudWatch's) rings, ECS rolls back.
    ``minimum_healthy`` and ``maximum`` are percents of the count.
    """

    fail_early: bool = False
    alarms: tuple[str, ...] = ()
    minimum_healthy: int = 100
    maximum: int = 200


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the model comes from: an output (``task.output``) of a pipeline's last good run."""

    pipeline: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service for one environment. ``cpu`` in 1/1024 core, ``memory`` in MiB; ``count`` None where autoscaling owns it.

    ``secrets`` maps a variable to a secret's name or ARN, optionally ``#key`` of its JSON. ``address`` is where requests are sent
    when no embedded service answers for it; ``balancer`` the ARN of the load balancer, ``target_group`` that of its target group.
    ``ephemeral_storage`` in GiB and ``stop_timeout`` in seconds are None where ECS decides.
    """

    file: Path
    name: str
    port: int
    cpu: int = 256
    memory: int = 512
    architecture: str = "x86_64"
    ephemeral_storage: int | None = None
    stop_timeout: int | None = None
    count: int | None = 1
    autoscaling: Autoscaling | None = None
    deployment: Deployment = Deployment()
    health: Health = Health()
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    execution_role: str = ""
    task_role: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    public_ip: bool = False
    target_group: str = ""
    balancer: str = ""
    address: str = ""
    log_group: str = ""
    model: ModelSource | None = None
    golden: Path | None = None
    places: marked.Places = field(default_factory=dict, compare=False, repr=False)

    def problem(self, key: str, what: str) -> str:
        """Say what is wrong with a key, with file and line."""
        line, within = marked.place(self.places, key)
        return f"{self.file}:{line}: {within}{key}: {what}"

    @property
    def first_count(self) -> int:
        """Return how many tasks a service that does not exist yet starts with."""
        return self.autoscaling.min if self.autoscaling is not None else self.count or 0


def load(path: Path, *, environment: str, known: Collection[str] = ()) -> Service:
    """Read a ``service.yaml`` for one environment.

    Args:
        path: of the file.
        environment: whose overlay is laid over.
        known: the environments that there are; an overlay of another one whose name is nearly one of them is a mistake.

    Raises:
        UsageError: with all problems, each with file, line and key.
    """
    from trainshed.services.reading import Reader  # which makes a Service of what it reads

    found = marked.read(path, what="the service")
    document = dict(found.document)
    overlays = document.pop("environments", {})
    reader = Reader(path, found.lines)
    for place, line in found.doubled:
        reader.problem(".".join(place), "is given twice", line=line)
    if not isinstance(overlays, dict) or not all(isinstance(overlay, dict) for overlay in overlays.values()):
        reader.problem("environments", "expected a mapping of environments, each with what it changes")
        overlays = {}
    for name in overlays:
        hint = suggestion(str(name), known)
        if name not in known and hint:
            reader.problem(f"environments.{name}", f"there is no such environment{hint}")
    overlay = overlays.get(environment, {})
    service = reader.service(merged(document, overlay), overlay=environment if overlay else "")
    for name, other in overlays.items():  # an overlay is checked even where it is not the one in force
        if name != environment:
            reader.service(merged(document, other), overlay=str(name))
    if reader.found:
        raise problems(reader.found, next_step="Mend the file; docs/reference/files.md lists every key.")
    return service


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a mapping over another: mappings are merged, all else is replaced, and null takes a key away."""
    result = dict(base)
    for key, value in overlay.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    if "autoscaling" in overlay and "count" not in overlay:
        result.pop("count", None)
    if "count" in overlay and "autoscaling" not in overlay:
        result.pop("autoscaling", None)
    return result


def fargate_problems(service: Service) -> list[str]:
    """List what ECS on Fargate would refuse, which the embedded service takes."""
    found = []
    if service.memory not in _FARGATE_MEMORY.get(service.cpu, ()):
        sizes = _FARGATE_MEMORY.get(service.cpu)
        known = f"memory for {service.cpu} is one of {', '.join(map(str, sizes))}" if sizes else f"cpu is one of {_listed(_FARGATE_MEMORY)}"
        key = "memory" if sizes else "cpu"
        found.append((key, f"Fargate has no size of cpu {service.cpu} with memory {service.memory}; {known}"))
    for name, value, low, high in (
        ("interval", service.health.interval, 5, 300),
        ("timeout", service.health.timeout, 2, 60),
        ("retries", service.health.retries, 1, 10),
        ("start", service.health.start, 0, 300),
    ):
        if not low <= value <= high:
            found.append((f"health.{name}", f"ECS takes {low} to {high}, not {value}"))
    if not service.subnets:
        found.append(("network.subnets", "at least one subnet is needed"))
    if not service.execution_role and (service.log_group or service.secrets):
        found.append(("roles.execution", "needed to write logs and to read secrets"))
    if service.autoscaling is not None and service.autoscaling.requests is not None and not (service.balancer and service.target_group):
        found.append(("autoscaling.requests", "load-balancer.target-group and load-balancer.arn are needed to count requests"))
    return [service.problem(key, what) for key, what in found]


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
