"""``service.yaml``: what a deployable artifact needs, with the overlay of one environment laid over; all problems at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainshed.errors import UsageError, problems, suggestion
from trainshed.files import read_text
from trainshed.values import duration

FILE_NAME = "service.yaml"
_MAX_BYTES = 256 * 1024
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"

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
    """The bounds within which a scaling policy owns the count."""

    min: int
    max: int


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the model comes from: an output (``task.output``) of a pipeline's last good run."""

    pipeline: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service for one environment. ``cpu`` in 1/1024 core, ``memory`` in MiB; ``count`` None where autoscaling owns it.

    ``secrets`` maps a variable to a secret's name or ARN, optionally ``#key`` of its JSON. ``address`` is where requests are sent
    when no embedded service answers for it.
    """

    file: Path
    name: str
    port: int
    cpu: int = 256
    memory: int = 512
    count: int | None = 1
    autoscaling: Autoscaling | None = None
    health: Health = Health()
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    execution_role: str = ""
    task_role: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    public_ip: bool = False
    target_group: str = ""
    address: str = ""
    log_group: str = ""
    model: ModelSource | None = None
    golden: Path | None = None

    @property
    def first_count(self) -> int:
        """Return how many tasks a service that does not exist yet starts with."""
        return self.autoscaling.min if self.autoscaling is not None else self.count or 0


def load(path: Path, *, environment: str) -> Service:
    """Read a ``service.yaml`` for one environment.

    Raises:
        UsageError: with all problems, a line each, with file and key.
    """
    document = _document(path)
    overlays = document.pop("environments", {})
    reader = _Reader(path)
    if not isinstance(overlays, dict) or not all(isinstance(overlay, dict) for overlay in overlays.values()):
        reader.problem("environments", "expected a mapping of environments, each with what it changes")
        overlays = {}
    service = reader.service(merged(document, overlays.get(environment, {})))
    for name, overlay in overlays.items():  # an overlay is checked even where it is not the one in force
        if name != environment and not reader.found:
            reader.service(merged(document, overlay), within=f"environments.{name}")
    if reader.found:
        raise problems(dict.fromkeys(reader.found), next_step="Mend the file; docs/reference/files.md lists every key.")
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
        found.append(f"cpu {service.cpu} with memory {service.memory}: Fargate has no such size; {known}")
    for name, value, low, high in (
        ("interval", service.health.interval, 5, 300),
        ("timeout", service.health.timeout, 2, 60),
        ("retries", service.health.retries, 1, 10),
        ("start", service.health.start, 0, 300),
    ):
        if not low <= value <= high:
            found.append(f"health.{name}: ECS takes {low} to {high}, not {value}")
    if not service.subnets:
        found.append("network.subnets: at least one subnet is needed")
    if not service.execution_role and (service.log_group or service.secrets):
        found.append("roles.execution: needed to write logs and to read secrets")
    return [f"{service.file}: {problem}" for problem in found]


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _document(path: Path) -> dict[str, Any]:
    text = read_text(path, what="the service")
    if len(text) > _MAX_BYTES:
        raise UsageError(f"{path}: larger than {_MAX_BYTES // 1024} KiB")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: what looks like a date and is none
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise UsageError(f"{place}: not YAML: {getattr(error, 'problem', error)}", next_step="Mend the line that is named.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping with name, port, …", next_step="See docs/reference/files.md for every key.")
    return document


class _Reader:
    """Checks one document, and collects every problem."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[str] = []
        self._within = ""

    def problem(self, key: str, what: str) -> None:
        """Note a problem of a key."""
        place = f"{self._within}: {key}" if self._within else key
        self.found.append(f"{self.path}: {place}: {what}")

    def service(self, document: Mapping[str, Any], within: str = "") -> Service:
        """Check one whole document; what is wrong is noted and replaced by a default."""
        self._within = within
        self._unknown("", document, _KEYS)
        tables = {name: self._table(document, name, keys) for name, keys in _TABLES.items()}
        roles, network, balancer = tables["roles"], tables["network"], tables["load-balancer"]
        return Service(
            file=self.path,
            name=self._text(document, "name", pattern=_NAME, required=True),
            port=self._number(document, "port", 1, 65535, default=None),
            cpu=self._number(document, "cpu", 1, 16384, default=256),
            memory=self._number(document, "memory", 32, 122880, default=512),
            **self._counts(document, tables["autoscaling"]),
            health=self._health(tables["health"]),
            environment=self._texts(document, "environment"),
            secrets=self._texts(document, "secrets"),
            execution_role=self._text(roles, "roles.execution"),
            task_role=self._text(roles, "roles.task"),
            subnets=self._list(network, "network.subnets"),
            security_groups=self._list(network, "network.security-groups"),
            public_ip=self._flag(network, "network.public-ip"),
            target_group=self._text(balancer, "load-balancer.target-group"),
            address=self._text(balancer, "load-balancer.address", pattern=r"https?://[^\s@]+").rstrip("/"),
            log_group=self._text(tables["logs"], "logs.group"),
            model=self._model(document, tables["model"]),
            golden=self._golden(document),
        )

    def _unknown(self, prefix: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        known = tuple(known)
        for key in table:
            if key not in known:
                self.problem(f"{prefix}{key}", f"unknown key{suggestion(str(key), known)}")

    def _table(self, document: Mapping[str, Any], name: str, known: Iterable[str]) -> Mapping[str, Any]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            self.problem(name, f"expected a mapping with {', '.join(known)}")
            return {}
        self._unknown(f"{name}.", table, known)
        return table

    def _checked(self, table: Mapping[str, Any], path: str, good: Callable[[Any], bool], expected: str, default: Any) -> Any:  # noqa: ANN401
        value = table.get(path.rpartition(".")[2], default)
        if value is default or good(value):
            return value
        self.problem(path, f"expected {expected}, not {value!r}")
        return default

    def _text(self, table: Mapping[str, Any], path: str, *, pattern: str = r"[^\s].*", required: bool = False) -> str:
        if required and not table.get(path):
            self.problem(path, "is missing")
            return ""
        value = table.get(path.rpartition(".")[2], "")
        if value and (not isinstance(value, str) or not re.fullmatch(pattern, value)):
            self.problem(path, f"expected text such as {_EXAMPLES.get(path, 'a name')}, not {value!r}")
            return ""
        return str(value or "")

    def _number(self, table: Mapping[str, Any], path: str, low: int, high: int, *, default: int | None) -> int:
        if default is None and table.get(path) is None:
            self.problem(path, "is missing")
            return low

        def good(value: Any) -> bool:  # noqa: ANN401 - what YAML gives
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

        number = self._checked(table, path, good, f"a whole number from {low} to {high}", default)
        return int(low if number is None else number)

    def _seconds(self, table: Mapping[str, Any], path: str, default: int, low: int = 1) -> int:
        value = table.get(path.rpartition(".")[2], default)
        try:
            seconds = duration(value)
        except ValueError as error:
            self.problem(path, str(error))
            return default
        if seconds != int(seconds) or seconds < low:
            self.problem(path, f"expected whole seconds, {low} or more, not {value!r}")
            return default
        return int(seconds)

    def _flag(self, table: Mapping[str, Any], path: str) -> bool:
        return bool(self._checked(table, path, lambda value: isinstance(value, bool), "true or false", default=False))

    def _list(self, table: Mapping[str, Any], path: str) -> tuple[str, ...]:
        def good(value: Any) -> bool:  # noqa: ANN401 - what YAML gives
            return isinstance(value, list) and all(isinstance(item, str) and item for item in value)

        return tuple(self._checked(table, path, good, "a list of texts", []))

    def _texts(self, document: Mapping[str, Any], name: str) -> Mapping[str, str]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            self.problem(name, "expected a mapping of variables to texts")
            return {}
        for key, value in table.items():
            if not isinstance(key, str) or not re.fullmatch(_VARIABLE, key):
                self.problem(f"{name}.{key}", "a variable has letters, digits and underscores")
            elif not isinstance(value, str):  # YAML's yes, 010 and 1e3 would reach the program as something else
                self.problem(f"{name}.{key}", f'expected text, not {value!r}; quote it: "{value}"')
        return {str(key): str(value) for key, value in sorted(table.items(), key=lambda item: str(item[0]))}

    def _counts(self, document: Mapping[str, Any], scaling: Mapping[str, Any]) -> dict[str, Any]:
        if "autoscaling" not in document:
            return {"count": self._number(document, "count", 0, 1000, default=1), "autoscaling": None}
        if "count" in document:
            self.problem("count", "autoscaling owns the count; give one of both")
        low = self._number(scaling, "autoscaling.min", 0, 1000, default=1)
        high = self._number(scaling, "autoscaling.max", 1, 1000, default=max(low, 1))
        if low > high:
            self.problem("autoscaling.min", f"{low} is more than max, {high}")
        return {"count": None, "autoscaling": Autoscaling(min=low, max=high)}

    def _health(self, table: Mapping[str, Any]) -> Health:
        return Health(
            path=self._text(table, "health.path", pattern=r"/\S*") or Health.path,
            interval=self._seconds(table, "health.interval", Health.interval),
            timeout=self._seconds(table, "health.timeout", Health.timeout),
            retries=self._number(table, "health.retries", 1, 100, default=Health.retries),
            start=self._seconds(table, "health.start", Health.start, low=0),
        )

    def _model(self, document: Mapping[str, Any], table: Mapping[str, Any]) -> ModelSource | None:
        if "model" not in document:
            return None
        for key in ("pipeline", "output"):
            if not table.get(key):
                self.problem(f"model.{key}", "is missing")
        pipeline = self._text(table, "model.pipeline", pattern=r"[a-z][a-z0-9_]*")
        return ModelSource(pipeline=pipeline, output=self._text(table, "model.output", pattern=r"[\w.-]+\.[\w-]+"))

    def _golden(self, document: Mapping[str, Any]) -> Path | None:
        name = self._text(document, "golden")
        if not name:
            return None
        file = self.path.parent / name
        if not file.resolve().is_relative_to(self.path.parent.resolve()):
            self.problem("golden", f"'{name}' lies outside of the component")
        elif not file.is_file():
            self.problem("golden", f"there is no {name} in {self.path.parent}")
        return file


_TABLES: Mapping[str, tuple[str, ...]] = {
    "health": ("path", "interval", "timeout", "retries", "start"),
    "autoscaling": ("min", "max"),
    "roles": ("execution", "task"),
    "network": ("subnets", "security-groups", "public-ip"),
    "load-balancer": ("target-group", "address"),
    "logs": ("group",),
    "model": ("pipeline", "output"),
}
_KEYS = ("name", "port", "cpu", "memory", "count", "environment", "secrets", "golden", *_TABLES)
_EXAMPLES = {
    "name": "predictor",
    "health.path": "/healthz",
    "load-balancer.address": "https://predict.example.org",
    "model.pipeline": "diagnosis_training",
    "model.output": "train.model",
}
