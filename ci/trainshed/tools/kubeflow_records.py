"""What Kubeflow Pipelines tells, as frozen records, and how its JSON documents are read: an answer without its ids is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainshed.errors import RemoteError, UsageError

PACKAGE_LIMIT = 32 * 1024 * 1024
PIPELINE_NAME_LIMIT = 128
VERSION_NAME_LIMIT = 127
EXPERIMENT_NAME_LIMIT = 128
TAG_LIMIT = 63
DESCRIPTION_LIMIT = 255
"""What the column of a run or a recurring run holds: a longer description fails the creation."""
CONCURRENCY_LIMIT = 10
FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})

T = TypeVar("T")
_CHECK_HOST = "Check that the host is the Kubeflow Pipelines API, and log in anew."


class MalformedAnswer(RemoteError):
    """An answer is JSON, but not what the API gives: an id is missing, or a field has another type."""


class Denied(RemoteError):
    """Kubeflow does not know who asks, or does not let them: waiting does not help."""

    permanent = True


class NotFound(RemoteError):
    """Kubeflow has no such pipeline, version, run or experiment."""


class Conflict(UsageError):
    """Kubeflow has another thing of the same name."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline: the name that its versions share."""

    id: str
    name: str
    namespace: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a pipeline. ``spec`` is the IR, with a platform document ``{"pipeline_spec": …, "platform_spec": …}``."""

    id: str
    pipeline_id: str
    name: str
    description: str = ""
    created: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An output of a task. ``uri`` is ``file:///…`` for the embedded Kubeflow; ``type`` is such as ``system.Model``."""

    name: str
    uri: str
    type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a run.

    ``name`` is its path, such as ``inner.train``; ``node`` is what its log is asked by, empty while it has none. ``cached`` and the
    outputs ``parameters`` and ``artifacts`` are known after `KubeflowClient.with_outputs`.
    """

    id: str
    name: str
    state: str
    error: str = ""
    started: str = ""
    ended: str = ""
    node: str = ""
    cached: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run. ``state`` is one of PENDING, RUNNING, SUCCEEDED, FAILED, CANCELING, CANCELED, PAUSED, SKIPPED."""

    id: str
    name: str
    state: str
    error: str = ""
    experiment_id: str = ""
    pipeline_id: str = ""
    version_id: str = ""
    created: str = ""
    ended: str = ""
    description: str = ""
    tasks: tuple[Task, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Tell whether the state is final."""
        return self.state in FINISHED

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Return what the tasks gave, by ``task.output``."""
        return {f"{task.name}.{name}": artifact for task in self.tasks for name, artifact in task.artifacts.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """Return every number that the tasks give, by ``task.output`` or, from an artifact's metadata, ``task.output.key``."""
        return {name: number for task in self.tasks for name, number in _numbers(task)}


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a Kubeflow says of itself. ``version`` is such as ``2.17.0``, empty where it does not tell."""

    version: str
    multi_user: bool


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a recurring run starts: by a cron expression of six fields (seconds first), or every so many seconds; never both."""

    cron: str = ""
    every: int = 0
    start: str = ""
    end: str = ""


@dataclass(frozen=True, kw_only=True)
class RecurringRun:
    """A schedule as Kubeflow keeps it. ``version_id`` is empty where it runs whatever version is the latest."""

    id: str
    name: str
    enabled: bool
    trigger: Trigger
    experiment_id: str = ""
    pipeline_id: str = ""
    version_id: str = ""
    description: str = ""
    service_account: str = ""
    pipeline_root: str = ""
    max_concurrency: int = 1
    catch_up: bool = False
    created: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def text_of(document: Mapping[str, Any], key: str) -> str:
    """Return a text that every good answer has, such as an id."""
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedAnswer(f"Kubeflow answered without {key}", next_step=_CHECK_HOST)
    return value


def optional(document: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return a field that may be absent or null, as proto JSON leaves out what is unset; empty then."""
    value = document.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise MalformedAnswer(f"Kubeflow answered {key} of another shape than its API has", next_step=_CHECK_HOST)
    return value


def objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects that may be absent."""
    found: list[Any] = optional(document, key, list)
    if not all(isinstance(each, dict) for each in found):
        raise MalformedAnswer(f"Kubeflow answered {key} of another shape than its API has", next_step=_CHECK_HOST)
    return found


def page(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects of a list's page; an empty document is an empty list, one with other words in it is another's."""
    if document and not document.keys() & {key, "total_size", "next_page_token"}:
        raise MalformedAnswer(f"Kubeflow answered no list of {key}", next_step=_CHECK_HOST)
    return objects(document, key)


def whole(document: Mapping[str, Any], key: str, default: int = 0) -> int:
    """Return a whole number; proto JSON writes 64-bit ones as texts."""
    value = document.get(key, default)
    try:
        return int(value if isinstance(value, (int, str)) else "")
    except ValueError:
        raise MalformedAnswer(f"Kubeflow answered {key} that is not a whole number", next_step=_CHECK_HOST) from None


def moment(document: Mapping[str, Any], key: str) -> str:
    """Return a time; empty for 1970 and for the year 1, which is how the server writes "not yet"."""
    value = optional(document, key, str)
    return "" if value.startswith(("1970-01-01T00:00:00", "0001-01-01T00:00:00")) else value


def state_of(document: Mapping[str, Any]) -> str:
    """Return a run's state; what has just been made may not have one yet."""
    state = optional(document, "state", str)
    return "PENDING" if state in {"", "RUNTIME_STATE_UNSPECIFIED"} else state


def pipeline_of(document: Mapping[str, Any]) -> Pipeline:
    """Read a pipeline."""
    return Pipeline(
        id=text_of(document, "pipeline_id"),
        name=_name_of(document),
        namespace=optional(document, "namespace", str),
        description=optional(document, "description", str),
    )


def version_of(document: Mapping[str, Any]) -> Version:
    """Read a version."""
    return Version(
        id=text_of(document, "pipeline_version_id"),
        pipeline_id=text_of(document, "pipeline_id"),
        name=_name_of(document),
        description=optional(document, "description", str),
        created=moment(document, "created_at"),
        spec=optional(document, "pipeline_spec", dict),
        tags=optional(document, "tags", dict),
    )


def run_of(document: Mapping[str, Any]) -> Run:
    """Read a run; its tasks are read apart, from `task_details_of`."""
    pipeline_id, version_id = _reference(document)
    return Run(
        id=text_of(document, "run_id"),
        name=optional(document, "display_name", str),
        state=state_of(document),
        error=_error_of(document),
        experiment_id=optional(document, "experiment_id", str),
        pipeline_id=pipeline_id,
        version_id=version_id,
        created=moment(document, "created_at"),
        ended=moment(document, "finished_at"),
        description=optional(document, "description", str),
        parameters=optional(optional(document, "runtime_config", dict), "parameters", dict),
    )


def task_details_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tasks of a run as the server tells them."""
    return objects(optional(document, "run_details", dict), "task_details")


def recurring_run_of(document: Mapping[str, Any]) -> RecurringRun:
    """Read a recurring run."""
    pipeline_id, version_id = _reference(document)
    config = optional(document, "runtime_config", dict)
    # The mode is what was asked for last; the status follows when the cluster has taken it up.
    told = optional(document, "mode", str)
    told = told if told not in {"", "MODE_UNSPECIFIED"} else optional(document, "status", str)
    return RecurringRun(
        id=text_of(document, "recurring_run_id"),
        name=optional(document, "display_name", str),
        enabled=told in {"ENABLED", "ENABLE"},
        trigger=_trigger_of(optional(document, "trigger", dict)),
        experiment_id=optional(document, "experiment_id", str),
        pipeline_id=pipeline_id,
        version_id=version_id,
        description=optional(document, "description", str),
        service_account=optional(document, "service_account", str),
        pipeline_root=optional(config, "pipeline_root", str),
        max_concurrency=whole(document, "max_concurrency", 1),
        catch_up=not optional(document, "no_catchup", bool),
        created=moment(document, "created_at"),
        parameters=optional(config, "parameters", dict),
    )


def trigger_document(trigger: Trigger) -> dict[str, Any]:
    """Return a trigger as the API takes it."""
    span = {"start_time": trigger.start, "end_time": trigger.end}
    shown = {name: value for name, value in span.items() if value}
    if trigger.cron:
        return {"cron_schedule": {"cron": trigger.cron, **shown}}
    return {"periodic_schedule": {"interval_second": str(trigger.every), **shown}}


def bounded(name: str, limit: int, what: str) -> None:
    """Refuse a name that the server would; it counts the bytes of UTF-8."""
    if not name.strip() or len(name.encode()) > limit:
        raise UsageError(f"{what} name '{name}': expected 1 to {limit} characters", next_step="Choose a shorter name.")


def check_schedule(name: str, trigger: Trigger, max_concurrency: int) -> None:
    """Refuse a recurring run that the server would."""
    if not name:
        raise UsageError("a recurring run needs a name")
    if bool(trigger.cron) == (trigger.every > 0):
        raise UsageError(f"recurring run '{name}': expected a cron expression or a number of seconds, and not both")
    if not 1 <= max_concurrency <= CONCURRENCY_LIMIT:
        raise UsageError(f"recurring run '{name}': {max_concurrency} runs at once; Kubeflow takes 1 to {CONCURRENCY_LIMIT}")


def _trigger_of(document: Mapping[str, Any]) -> Trigger:
    cron, periodic = optional(document, "cron_schedule", dict), optional(document, "periodic_schedule", dict)
    return Trigger(
        cron=optional(cron, "cron", str),
        every=whole(periodic, "interval_second"),
        start=moment(cron or periodic, "start_time"),
        end=moment(cron or periodic, "end_time"),
    )


def _name_of(document: Mapping[str, Any]) -> str:
    return optional(document, "display_name", str) or optional(document, "name", str)


def _reference(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return the ids of pipeline and version; older servers tell the version apart."""
    reference = optional(document, "pipeline_version_reference", dict)
    version = optional(reference, "pipeline_version_id", str) or optional(document, "pipeline_version_id", str)
    return optional(reference, "pipeline_id", str), version


def _error_of(document: Mapping[str, Any]) -> str:
    """Return why a run failed: its own error, else the last one of its history."""
    told = [*objects(document, "state_history"), document]
    messages = [optional(optional(each, "error", dict), "message", str) for each in told]
    return next(filter(None, reversed(messages)), "")


def _numbers(task: Task) -> Iterator[tuple[str, float]]:
    outputs: list[tuple[str, Any]] = list(task.parameters.items())
    outputs += [(f"{name}.{key}", value) for name, artifact in task.artifacts.items() for key, value in artifact.metadata.items()]
    for name, value in outputs:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{task.name}.{name}", float(value)
