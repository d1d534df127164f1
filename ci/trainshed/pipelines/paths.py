"""The tasks of a compiled pipeline by path, those of nested pipelines included: ``train``, ``inner.train``, ``for-loop-2.show``.

kfp makes levels of its own for loops, conditions and exit handlers, and numbers them anew when the code changes. A task has therefore
two paths: the whole one, and the one without these levels, which is what the code shows. A pattern may mean either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from trainshed.errors import UsageError
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines.documents import Document

MAX_TASKS = 10_000
MAX_LEVELS = 100
Kind = Literal["container", "importer", "dag", "group", "other"]
_GROUP = re.compile(r"(?:for-loop|condition|condition-branches|exit-handler)-\d+")
_PATTERN = re.compile(r"(?:\*\*|[\w*-]+)(?:\.(?:\*\*|[\w*-]+))*")


@dataclass(frozen=True, kw_only=True)
class TaskPath:
    """One task.

    ``short`` is its path without the levels that kfp makes (such a level has that of what it stands in). ``kind``: ``dag`` is a nested
    pipeline, ``group`` a loop, condition or exit handler. ``component`` is its name in the document, ``executor`` the label there
    (empty for what has none). ``reads`` are the tasks whose outputs come into this one, through nested pipelines too: what Kubeflow's
    step cache goes by. ``after`` are the tasks that end before this one begins, as its own level and those around it say; one that is
    a nested pipeline stands for all of it.
    """

    path: str
    short: str
    kind: Kind
    component: str
    executor: str = ""
    reads: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    caching: bool = False

    @property
    def is_leaf(self) -> bool:
        """Tell whether it runs something itself."""
        return self.kind not in {"dag", "group"}


def tasks(documents: list[Document]) -> list[TaskPath]:
    """Return all tasks in the order of the document, each nested pipeline before what it holds.

    Raises:
        UsageError: a component holds itself, or the tasks are too many.
    """
    return list(_Walk(documents).run())


def matching(pattern: str, found: Iterable[TaskPath]) -> list[TaskPath]:
    """Return the tasks that a pattern means, by their whole path or the short one.

    ``*`` stands for any text within a name, ``**`` for any number of levels: ``**.train`` is ``train`` at every level.

    Raises:
        UsageError: it is no pattern.
    """
    expression = _expression(pattern)
    return [task for task in found if expression.fullmatch(task.path) or (task.kind != "group" and expression.fullmatch(task.short))]


def short_of(path: str) -> str:
    """Return the short path of a task of a run, whose path has the iterations of loops too: ``for-loop-1.0.train`` is ``train``."""
    return ".".join(name for name in path.split(".") if not name.isdigit() and not _GROUP.fullmatch(name))


def downstream(found: Iterable[TaskPath], changed: Collection[str]) -> list[str]:
    """Return the paths of tasks that read, directly or not, what changed tasks make; the changed ones are left out."""
    known = list(found)
    readers: dict[str, list[str]] = {}
    for task in known:
        for source in task.reads:
            readers.setdefault(source, []).append(task.path)
    reached, waiting = set(changed), list(changed)
    while waiting:
        new = [path for path in readers.get(waiting.pop(), ()) if path not in reached]
        reached.update(new)
        waiting += new
    return [task.path for task in known if task.path in reached and task.path not in changed]


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    if not _PATTERN.fullmatch(pattern):
        message = f"'{pattern}' is no path of a task"
        raise UsageError(message, next_step="Join names by dots, as in `inner.train`; * is any text in a name, ** any levels.")
    names = pattern.split(".")
    parts = [r"(?:[^.]+\.)*" if name == "**" else _name(name) + r"\." for name in names[:-1]]
    last = r"[^.]+(?:\.[^.]+)*" if names[-1] == "**" else _name(names[-1])
    return re.compile("".join(parts) + last)


def _name(name: str) -> str:
    """Translate one level; stars side by side are one, or the expression would try all ways to share a name between them."""
    return re.sub(r"\*+", "*", name).replace("-", r"\-").replace("*", "[^.]*")


Sources = Mapping[str, frozenset[str]]
"""Which tasks stand behind each input: ``parameters.seed`` → paths."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One pipeline while it is walked: its place, and what comes in from around it."""

    dag: Mapping[str, Any]
    path: str = ""
    short: str = ""
    after: tuple[str, ...] = ()
    inputs: Sources = field(default_factory=dict)
    holders: tuple[str, ...] = ()

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class _Walk:
    """One walk over a document."""

    def __init__(self, documents: list[Document]) -> None:
        self._name = yaml_documents.pipeline_name(documents)
        self._root: Mapping[str, Any] = _mapping(documents[0], "root", "dag")
        self._components = _mapping(documents[0], "components")
        self._executors = yaml_documents.executors(documents)
        self._count = 0

    def run(self) -> Iterator[TaskPath]:
        """Walk all levels."""
        yield from self._level(_Level(dag=self._root))

    def _level(self, level: _Level) -> Iterator[TaskPath]:
        for name, task in _tables(level.dag, "tasks"):
            self._count += 1
            if self._count > MAX_TASKS:
                raise self._wrong(f"more than {MAX_TASKS} tasks")
            component = str(_mapping(task, "componentRef").get("name", ""))
            inputs = self._inputs(level, task)
            found = self._task(level, name, component, task)
            if found.is_leaf:
                yield replace(found, reads=tuple(sorted(frozenset().union(*inputs.values()))))
                continue
            yield found
            yield from self._level(self._inner(level, found, _with_items(task, inputs)))

    def _task(self, level: _Level, name: str, component: str, task: Mapping[str, Any]) -> TaskPath:
        label = str(_mapping(self._components, component).get("executorLabel", ""))
        kind = self._kind(name, component, label)
        named = [str(item) for item in task.get("dependentTasks") or ()]
        waits = dict.fromkeys([*named, *(producer for _key, producer, _output in _producers(task))])
        return TaskPath(
            path=level.at(name),
            short=level.short if kind == "group" else f"{level.short}.{name}".removeprefix("."),
            kind=kind,
            component=component,
            executor=label,
            after=(*level.after, *(level.at(other) for other in waits)),
            caching=_mapping(task, "cachingOptions").get("enableCache") is True,
        )

    def _kind(self, name: str, component: str, label: str) -> Kind:
        if "dag" in _mapping(self._components, component):
            return "group" if _GROUP.fullmatch(name) else "dag"
        executor = self._executors.get(label, {})
        return next((kind for kind in _LEAVES if kind in executor), "other")

    def _inner(self, level: _Level, task: TaskPath, inputs: Sources) -> _Level:
        if task.component in level.holders:
            raise self._wrong(f"the component {task.component} holds itself")
        if len(level.holders) >= MAX_LEVELS:
            raise self._wrong(f"nested deeper than {MAX_LEVELS} levels")
        dag = _mapping(self._components, task.component, "dag")
        holders = (*level.holders, task.component)
        return _Level(dag=dag, path=task.path, short=task.short, after=task.after, inputs=inputs, holders=holders)

    def _inputs(self, level: _Level, task: Mapping[str, Any]) -> Sources:
        """Find the tasks behind each input of a task: those beside it, or those behind an input of the level."""
        found = {key: level.inputs.get(source, frozenset()) for key, source in _passed(task)}
        for key, producer, output in _producers(task):
            if output:
                found[key] = found.get(key, frozenset()) | self._makers(level.dag, level.path, producer, output, 0)
        return found

    def _makers(self, dag: Mapping[str, Any], path: str, name: str, output: str, depth: int) -> frozenset[str]:
        """Find who makes an output (``parameters.auc``) of a task: the task, or those within it that its own outputs name."""
        here = f"{path}.{name}" if path else name
        component = str(_mapping(dag, "tasks", name, "componentRef").get("name", ""))
        inner = _mapping(self._components, component, "dag")
        if not inner or depth > MAX_LEVELS:
            return frozenset((here,))
        kind, _dot, key = output.partition(".")
        selectors = _selectors(_mapping(inner, "outputs", kind, key))
        return frozenset().union(*(self._makers(inner, here, task, f"{kind}.{told}", depth + 1) for task, told in selectors))

    def _wrong(self, message: str) -> UsageError:
        return UsageError(f"pipeline {self._name}: {message}", next_step="Compile the pipeline with kfp 2 and use its output as it is.")


_LEAVES: tuple[Kind, ...] = ("container", "importer")
_ORIGINS = {"parameters": ("taskOutputParameter", "outputParameterKey"), "artifacts": ("taskOutputArtifact", "outputArtifactKey")}
_ITERATORS = {"parameters": ("parameterIterator", "inputParameter"), "artifacts": ("artifactIterator", "inputArtifact")}
_PASSED = {"parameters": "componentInputParameter", "artifacts": "componentInputArtifact"}


def _producers(task: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Walk input, task and output; the output is empty for the final status of a task, which is no value of it."""
    for kind, (origin, key) in _ORIGINS.items():
        for name, told in _tables(task, "inputs", kind):
            if producer := _mapping(told, origin).get("producerTask"):
                yield f"{kind}.{name}", str(producer), f"{kind}.{_mapping(told, origin).get(key, '')}"
            elif producer := _mapping(told, "taskFinalStatus").get("producerTask"):
                yield f"{kind}.{name}", str(producer), ""


def _passed(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Walk the inputs that are those of the level: the task's and the level's."""
    for kind, field_name in _PASSED.items():
        for name, told in _tables(task, "inputs", kind):
            if told.get(field_name):
                yield f"{kind}.{name}", f"{kind}.{told[field_name]}"


def _with_items(task: Mapping[str, Any], inputs: Sources) -> Sources:
    """Add the item of a loop, which stands for the list that is looped over."""
    found = dict(inputs)
    for kind, (iterator, source) in _ITERATORS.items():
        told = _mapping(task, iterator)
        looped = inputs.get(f"{kind}.{_mapping(told, 'items').get(source)}")
        if looped:
            found[f"{kind}.{told.get('itemInput')}"] = looped
    return found


def _selectors(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Walk the tasks, each with its output, that an output of a nested pipeline may come from."""
    told = [output.get("valueFromParameter"), *_items(output, "artifactSelectors")]
    told += _items(_mapping(output, "valueFromOneof"), "parameterSelectors")
    for item in told:
        if isinstance(item, Mapping) and item.get("producerSubtask"):
            yield str(item["producerSubtask"]), str(item.get("outputParameterKey") or item.get("outputArtifactKey") or "")


def _items(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


def _mapping(value: Any, *keys: str) -> Mapping[str, Any]:  # noqa: ANN401 - what the file has
    """Go down by keys; what is no mapping counts as an empty one, for files are of any shape."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _tables(value: Any, *keys: str) -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 - what the file has
    yield from ((str(key), item) for key, item in _mapping(value, *keys).items() if isinstance(item, Mapping))
