"""The keys of ``service.yaml``, each checked; every problem is collected with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainshed.errors import suggestion
from trainshed.services import marked
from trainshed.services.spec import Autoscaling, Deployment, Health, ModelSource, Service
from trainshed.values import duration

RESERVED = "MODEL_"
"""Variables that begin so are the deploy's own: they tell a task of its model."""
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = r"[^\s#]+(#[^\s#:]+)?"
_ARCHITECTURES = ("x86_64", "arm64")
_TARGET_GROUP = r"arn:[\w-]+:elasticloadbalancing:\S+:targetgroup/\S+"
_BALANCER = r"arn:[\w-]+:elasticloadbalancing:\S+:loadbalancer/(app|net)/\S+"
_ALARMS = 100
_TARGETS = {"cpu": 100, "memory": 100, "requests": 1_000_000}
_STOP_SECONDS, _STOP_MOST = 30, 120
_NO_TEXT = re.compile("[\\0\ud800-\udfff]")
"""What YAML can write and no variable can hold."""


class Reader:
    """Checks one document, with and without its overlays, and collects every problem."""

    def __init__(self, path: Path, lines: Mapping[marked.Path, int]) -> None:
        self.path, self._lines = path, lines
        self._found: dict[str, int] = {}
        self._places: marked.Places = {}
        self._look_at("")

    @property
    def found(self) -> list[str]:
        """Return the problems in the order of their lines."""
        return sorted(self._found, key=lambda said: self._found[said])

    def problem(self, key: str, what: str, *, line: int | None = None) -> None:
        """Note a problem of a key, once: what is wrong without an overlay is wrong with each of them."""
        own, within = marked.place(self._places, key)
        at = line or own
        self._found.setdefault(f"{self.path}:{at}: {within}{key}: {what}", at)

    def _look_at(self, overlay: str) -> None:
        """Find lines in the overlay first, then in what it is laid over."""
        prefix = ("environments", overlay)
        self._places = {".".join(place): (line, "") for place, line in self._lines.items()}
        if overlay:
            laid = {place[2:]: line for place, line in self._lines.items() if place[:2] == prefix and len(place) > len(prefix)}
            self._places |= {".".join(place): (line, f"environments.{overlay}: ") for place, line in laid.items()}

    def service(self, document: Mapping[str, Any], *, overlay: str = "") -> Service:
        """Check one whole document, with an overlay laid over or without; what is wrong is noted and replaced by a default."""
        self._look_at(overlay)
        self._unknown("", document, KEYS)
        tables = {name: self._table(document, name, keys) for name, keys in TABLES.items()}
        roles, network, balancer = tables["roles"], tables["network"], tables["load-balancer"]
        port = self._number(document, "port", 1, 65535)
        counts, deployment = self._counts(document, tables["autoscaling"]), self._deployment(tables["deployment"])
        self._replaceable(deployment, **counts)
        return Service(
            file=self.path,
            name=self._text(document, "name", pattern=_NAME, required=True),
            port=port,
            cpu=self._number(document, "cpu", 1, 16384, default=Service.cpu),
            memory=self._number(document, "memory", 32, 122880, default=Service.memory),
            architecture=self._word(document, "architecture", _ARCHITECTURES),
            ephemeral_storage=self._maybe(document, "ephemeral-storage", 21, 200),
            stop_timeout=self._stop_timeout(document),
            **counts,
            deployment=deployment,
            health=self._health(tables["health"]),
            **self._variables(document, port),
            execution_role=self._text(roles, "roles.execution"),
            task_role=self._text(roles, "roles.task"),
            subnets=self._list(network, "network.subnets", most=16),
            security_groups=self._list(network, "network.security-groups", most=5),
            public_ip=self._flag(network, "network.public-ip"),
            target_group=self._text(balancer, "load-balancer.target-group", pattern=_TARGET_GROUP),
            balancer=self._text(balancer, "load-balancer.arn", pattern=_BALANCER),
            address=self._text(balancer, "load-balancer.address", pattern=r"https?://[^\s@]+").rstrip("/"),
            log_group=self._text(tables["logs"], "logs.group", pattern=r"[\w./#-]{1,512}"),
            model=self._model(document, tables["model"]),
            golden=self._golden(document),
            places=self._places,
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

    def _number(self, table: Mapping[str, Any], path: str, low: int, high: int, *, default: int | None = None) -> int:
        if default is None and table.get(path) is None:
            self.problem(path, "is missing")
            return low
        number = self._maybe(table, path, low, high)
        return number if number is not None else low if default is None else default

    def _maybe(self, table: Mapping[str, Any], path: str, low: int, high: int) -> int | None:
        def good(value: Any) -> bool:  # noqa: ANN401 - what YAML gives
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

        number: int | None = self._checked(table, path, good, f"a whole number from {low} to {high}", None)
        return number

    def _word(self, table: Mapping[str, Any], path: str, words: Sequence[str]) -> str:
        """Return one of some words, the first by default."""
        value = table.get(path.rpartition(".")[2], words[0])
        if value in words:
            return str(value)
        hint = suggestion(value, words) if isinstance(value, str) else ""
        self.problem(path, f"expected one of {', '.join(words)}, not {value!r}{hint}")
        return words[0]

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

    def _list(self, table: Mapping[str, Any], path: str, *, most: int) -> tuple[str, ...]:
        def good(value: Any) -> bool:  # noqa: ANN401 - what YAML gives
            return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)

        found = tuple(self._checked(table, path, good, "a list of texts", []))
        for item in dict.fromkeys(item for item in found if found.count(item) > 1):
            self.problem(path, f"'{item}' is in the list twice")
        if len(found) > most:
            self.problem(path, f"ECS takes {most} at most, not {len(found)}")
        return found

    def _variables(self, document: Mapping[str, Any], port: int) -> dict[str, Any]:
        """Check the variables of both kinds, and what can be told of them: a port that the program is told is the one that is asked."""
        environment, secrets = self._texts(document, "environment"), self._texts(document, "secrets")
        for name in environment.keys() & secrets.keys():
            self.problem(f"secrets.{name}", "is set under environment too")
        for name, value in secrets.items():
            if not re.fullmatch(_REFERENCE, value):
                self.problem(f"secrets.{name}", "expected the name or ARN of a secret, with #key for one key of its JSON")
        told = environment.get("PORT", str(port))
        if told != str(port):
            self.problem("environment.PORT", f"the program would listen on {told}, but port is {port}")
        return {"environment": environment, "secrets": secrets}

    def _texts(self, document: Mapping[str, Any], name: str) -> Mapping[str, str]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            self.problem(name, "expected a mapping of variables to texts")
            return {}
        for key, value in table.items():
            if not isinstance(key, str) or not re.fullmatch(_VARIABLE, key):
                self.problem(f"{name}.{key}", "a variable has letters, digits and underscores")
            elif key.startswith(RESERVED):
                self.problem(f"{name}.{key}", f"variables that begin with {RESERVED} are set by the deploy, from model")
            elif not isinstance(value, str):  # YAML's yes, 010 and 1e3 would reach the program as something else
                self.problem(f"{name}.{key}", f'expected text, not {value!r}; quote it: "{value}"')
            elif _NO_TEXT.search(value):
                self.problem(f"{name}.{key}", f"no variable can hold {value!r}")
        return {str(key): str(value) for key, value in sorted(table.items(), key=lambda item: str(item[0]))}

    def _counts(self, document: Mapping[str, Any], scaling: Mapping[str, Any]) -> dict[str, Any]:
        if "autoscaling" not in document:
            return {"count": self._number(document, "count", 0, 1000, default=1), "autoscaling": None}
        if "count" in document:
            self.problem("count", "autoscaling owns the count; give one of both")
        low = self._number(scaling, "autoscaling.min", 0, 1000, default=1)
        if "max" not in scaling:
            self.problem("autoscaling.max", "is missing: nothing could be scaled")
        high = self._number(scaling, "autoscaling.max", 1, 1000, default=max(low, 1))
        if low > high:
            self.problem("autoscaling.min", f"{low} is more than max, {high}")
        targets = {name: self._maybe(scaling, f"autoscaling.{name}", 1, most) for name, most in _TARGETS.items()}
        return {"count": None, "autoscaling": Autoscaling(min=low, max=high, **targets)}

    def _deployment(self, table: Mapping[str, Any]) -> Deployment:
        return Deployment(
            fail_early=self._flag(table, "deployment.fail-early"),
            alarms=self._list(table, "deployment.alarms", most=_ALARMS),
            minimum_healthy=self._number(table, "deployment.minimum-healthy", 0, 100, default=Deployment.minimum_healthy),
            maximum=self._number(table, "deployment.maximum", 100, 200, default=Deployment.maximum),
        )

    def _replaceable(self, deployment: Deployment, *, count: int | None, autoscaling: Autoscaling | None) -> None:
        """Check that a task can be replaced, whatever the count: ECS rounds the minimum up and the maximum down, and waits for ever."""
        counts = range(autoscaling.min, autoscaling.max + 1) if autoscaling is not None else (count or 0,)
        for tasks in filter(None, counts):
            least, most = -(-tasks * deployment.minimum_healthy // 100), tasks * deployment.maximum // 100
            if least >= most:
                told = f"no task could be replaced: of {tasks}, at least {least} must run, and at most {most} may"
                self.problem("deployment.maximum", told)
                return

    def _stop_timeout(self, document: Mapping[str, Any]) -> int | None:
        if "stop-timeout" not in document:
            return None
        seconds = self._seconds(document, "stop-timeout", _STOP_SECONDS, low=1)
        if seconds > _STOP_MOST:
            self.problem("stop-timeout", f"ECS on Fargate waits {_STOP_MOST} s at most")
        return seconds

    def _health(self, table: Mapping[str, Any]) -> Health:
        return Health(
            path=self._text(table, "health.path", pattern=r"/[!-~]*") or Health.path,
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


TABLES: Mapping[str, tuple[str, ...]] = {
    "health": ("path", "interval", "timeout", "retries", "start"),
    "autoscaling": ("min", "max", "cpu", "memory", "requests"),
    "deployment": ("fail-early", "alarms", "minimum-healthy", "maximum"),
    "roles": ("execution", "task"),
    "network": ("subnets", "security-groups", "public-ip"),
    "load-balancer": ("target-group", "arn", "address"),
    "logs": ("group",),
    "model": ("pipeline", "output"),
}
KEYS = (
    "name",
    "port",
    "cpu",
    "memory",
    "architecture",
    "ephemeral-storage",
    "stop-timeout",
    "count",
    "environment",
    "secrets",
    "golden",
    *TABLES,
)
_EXAMPLES = {
    "name": "predictor",
    "health.path": "/healthz",
    "load-balancer.address": "https://predict.example.org",
    "load-balancer.arn": "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/predictions/50dc6c495c0c9188",
    "load-balancer.target-group": "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/predictor/73e2d6bc24d8a067",
    "logs.group": "/prediction/predictor",
    "model.pipeline": "diagnosis_training",
    "model.output": "train.model",
}
