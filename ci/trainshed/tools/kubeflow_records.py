"""What Kubeflow Pipelines tells, as frozen records, and how its JSON documents are read: an answer without its ids is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.errors import RemoteError, UsageError

PACKAGE_LIMIT = 32 * 1024 * 1024
PIPELINE_NAME_LIMIT = 128
VERSION_NAME_LIMIT = 127
FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})


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
        raise RemoteError(
            f"Kubeflow answered without {key}", next_step="Check that the host is the Kubeflow Pipelines API, and log in anew."
        )
    return value


def pipeline_of(document: Mapping[str, Any]) -> Pipeline:
    """Read a pipeline."""
    name = document.get("display_name") or document.get("name") or ""
    return Pipeline(id=text_of(document, "pipeline_id"), name=name, namespace=document.get("namespace", ""))


def version_of(document: Mapping[str, Any]) -> Version:
    """Read a version."""
    return Version(
        id=text_of(document, "pipeline_version_id"),
        pipeline_id=text_of(document, "pipeline_id"),
        name=document.get("display_name") or document.get("name") or "",
        description=document.get("description", ""),
        created=document.get("created_at", ""),
        spec=document.get("pipeline_spec") or {},
    )


def run_of(document: Mapping[str, Any]) -> Run:
    """Read a run."""
    reference = document.get("pipeline_version_reference") or {}
    tasks = (document.get("run_details") or {}).get("task_details") or ()
    return Run(
        id=text_of(document, "run_id"),
        name=document.get("display_name", ""),
        state=document.get("state", "PENDING"),
        error=(document.get("error") or {}).get("message", ""),
        experiment_id=document.get("experiment_id", ""),
        pipeline_id=reference.get("pipeline_id", ""),
        version_id=reference.get("pipeline_version_id", ""),
        created=document.get("created_at", ""),
        tasks=tuple(map(_task, tasks)),
        parameters=(document.get("runtime_config") or {}).get("parameters") or {},
    )


def _task(document: Mapping[str, Any]) -> Task:
    """Read a task; ``embedded`` is the extension of the embedded Kubeflow, which the SDK's client passes over."""
    told = document.get("embedded") or {}
    return Task(
        id=document.get("task_id", ""),
        name=document.get("display_name", ""),
        state=document.get("state", ""),
        error=(document.get("error") or {}).get("message", ""),
        started=document.get("start_time", ""),
        ended=document.get("end_time", ""),
        parameters=told.get("parameters") or {},
        artifacts={name: Artifact(name=name, **found) for name, found in (told.get("artifacts") or {}).items()},
    )


def _numbers(task: Task) -> Iterator[tuple[str, float]]:
    outputs: list[tuple[str, Any]] = list(task.parameters.items())
    outputs += [(f"{name}.{key}", value) for name, artifact in task.artifacts.items() for key, value in artifact.metadata.items()]
    for name, value in outputs:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{task.name}.{name}", float(value)
