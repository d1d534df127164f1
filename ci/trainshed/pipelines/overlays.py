"""Overlays: what a team sets for steps in one environment, written into a compiled pipeline as kfp would have written it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainshed.errors import UsageError, problems, suggestion
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import overlay_settings, paths
from trainshed.pipelines.documents import Document
from trainshed.pipelines.overlay_fields import Step
from trainshed.pipelines.overlay_settings import Key
from trainshed.pipelines.paths import TaskPath
from trainshed.pipelines.settings import EVERYWHERE, Overlay

_SHOWN = 40
_HELP = "Mend the overlay; docs/how-to/choose-machines-for-steps.md shows how."


@dataclass(frozen=True, kw_only=True)
class InForce:
    """The overlays of a pipeline's settings file, ``place``, and the environment that is worked for."""

    overlays: tuple[Overlay, ...] = ()
    environment: str = ""
    place: str = ""


NONE = InForce()


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting of a task that an overlay made; ``before`` is what the template has there, None where it has nothing."""

    path: str
    key: str
    value: str
    before: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.key} = {self.value}{'' if self.before is None else f' (the template has {self.before})'}"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """Documents with overlays, and what these changed."""

    documents: list[Document]
    changes: tuple[Change, ...] = ()


def applied(documents: list[Document], overlays: Sequence[Overlay], *, environment: str, place: str) -> Applied:
    """Write the overlays of an environment into a compiled pipeline; what is given is left alone.

    An environment's own overlay counts more than that of ``*``, a later one more than an earlier one, each setting for itself. The
    overlays of other environments are checked too, so that a build for ``dev`` tells of a mistake that waits for ``prod``.

    Args:
        documents: the compiled pipeline.
        overlays: all of its settings file.
        environment: the one in force.
        place: the settings file, for errors.

    Raises:
        UsageError: with all problems at once: a path that matches no step, or one that runs no container; a setting that is unknown
            or makes no sense; an executor that several tasks share of which only some are meant; what kfp-kubernetes does not take.
    """
    if not overlays:
        return Applied(documents=documents)
    tasks = paths.tasks(documents)
    read = [_Read.of(overlay, tasks, place) for overlay in overlays]
    wrong = [problem for each in read for problem in each.wrong]
    if wrong:
        raise problems(wrong, next_step=_HELP)
    sharing, others = _sharing(tasks), {overlay.environment for overlay in overlays} - {EVERYWHERE, environment}
    for name in sorted(others):
        _written(documents, sharing, _wanted(read, name), f"{place}: for {name}")
    return _written(documents, sharing, _wanted(read, environment), place)


def _wanted(read: Sequence[_Read], environment: str) -> dict[str, dict[Key, Any]]:
    """Return by task what is to be set in an environment."""
    wanted: dict[str, dict[Key, Any]] = {}
    for name in dict.fromkeys((EVERYWHERE, environment)):
        for each in read:
            for task in each.meant if each.overlay.environment == name else ():
                wanted.setdefault(task.path, {}).update(each.values)
    return wanted


@dataclass(frozen=True, kw_only=True)
class _Read:
    """One overlay, read: what it sets, which tasks it means, and what is wrong with it."""

    overlay: Overlay
    values: Mapping[Key, Any]
    meant: Sequence[TaskPath]
    wrong: Sequence[str]

    @classmethod
    def of(cls, overlay: Overlay, tasks: Sequence[TaskPath], place: str) -> _Read:
        here = f'{place}: overlays.{overlay.environment}."{overlay.path}"'
        settings = overlay_settings.read(overlay.settings)
        wrong = [f"{here}: {problem}" for problem in settings.problems]
        try:
            meant = _meant(overlay.path, tasks)
        except UsageError as error:
            meant = []
            wrong.append(f"{here}: {error.message}")
        return cls(overlay=overlay, values=settings.values, meant=meant, wrong=wrong)


def _meant(pattern: str, tasks: Sequence[TaskPath]) -> list[TaskPath]:
    """Return the tasks with a container that a pattern means.

    Raises:
        UsageError: there is none.
    """
    matched = paths.matching(pattern, tasks)
    meant = [task for task in matched if task.kind == "container"]
    if meant:
        return meant
    if not matched:
        known = [task.short for task in tasks if task.kind == "container"]
        told = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
        raise UsageError(f"no task has this path{suggestion(pattern, known)}; the tasks are {told or 'none'}")
    if any(not task.is_leaf for task in matched):
        raise UsageError(f"{matched[0].path} holds tasks and runs nothing itself; write {matched[0].path}.** for all that it holds")
    raise UsageError(f"{matched[0].path} is an importer: it has no container, and Kubeflow chooses where it runs")


def _sharing(tasks: Sequence[TaskPath]) -> dict[str, list[TaskPath]]:
    """Return the tasks of each executor with a container."""
    found: dict[str, list[TaskPath]] = {}
    for task in tasks:
        if task.kind == "container":
            found.setdefault(task.executor, []).append(task)
    return found


def _parted(sharing: Mapping[str, Sequence[TaskPath]], wanted: Mapping[str, Mapping[Key, Any]]) -> Iterator[str]:
    """Say which executors would need to differ for the tasks that share them."""
    for label, shared in sharing.items():
        told = [wanted.get(task.path, {}) for task in shared]
        if any(each != told[0] for each in told):
            names = ", ".join(task.path for task in shared)
            yield f"the tasks {names} share the executor {label}: they can only be set alike, by a pattern that means all of them"


def _written(
    documents: list[Document], sharing: Mapping[str, Sequence[TaskPath]], wanted: Mapping[str, Mapping[Key, Any]], place: str
) -> Applied:
    made = copy.deepcopy(documents)
    containers = yaml_documents.containers(made)
    changes: list[Change] = []
    wrong = [f"{place}: {problem}" for problem in _parted(sharing, wanted)]
    for label, shared in sharing.items():
        if shared[0].path not in wanted:
            continue
        step = Step(containers[label], _platform(made, label, place))
        step.write(wanted[shared[0].path])
        wrong += [f"{place}: {shared[0].path}: {problem}" for problem in step.problems]
        if step.platform:
            _put(made, label, step.platform)
            wrong += [f"{place}: {shared[0].path}: kfp-kubernetes refuses it: {problem}" for problem in schema_problems(step.platform)]
        changes += [Change(path=task.path, key=key, value=value, before=before) for task in shared for key, value, before in step.made]
    if wrong:
        raise problems(wrong, next_step=_HELP)
    return Applied(documents=made, changes=tuple(changes))


def schema_problems(settings: Document) -> list[str]:
    """Return what kfp-kubernetes' own schema says against the settings of an executor."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2

    try:
        json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        return [str(error)]
    return []


_EXECUTORS = ("platforms", "kubernetes", "deploymentSpec", "executors")


def _platform(documents: list[Document], label: str, place: str) -> Document:
    """Return an executor's settings of the platform, an empty mapping where there are none."""
    table: Any = documents[1] if len(documents) > 1 else {}
    for key in (*_EXECUTORS, label):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"{place}: the pipeline's {key} is no mapping", next_step="Compile the pipeline with kfp 2 and use its output."
            )
    return dict(table)


def _put(documents: list[Document], label: str, settings: Document) -> None:
    if len(documents) == 1:
        documents.append({})
    table = documents[1]
    for key in _EXECUTORS:
        table = table.setdefault(key, {})
    table[label] = settings
