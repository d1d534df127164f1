"""From what Kubeflow tells of a run's inner works to the tasks of its pipeline, by their paths.

The server lists the nodes of the Argo workflow that it made of the pipeline: for a task ``train`` a pod ``train-driver``, a graph
``train`` and in it a pod ``executor``; for a loop an ``iteration-driver`` and one graph for each iteration. Of a node it tells the display
name, the state, the times and the *ids* of what comes next, but neither its own id nor in which graph it lies. Yet an id ends with a
hash (FNV-1a, 32 bits) of the node's full name, ``<workflow>.root.inner.train``, so a graph's nodes are found by trying which of the
display names, put behind the graph's name, have an id that is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainshed.tools.kubeflow_records import Task

Detail = Mapping[str, Any]

_DRIVER, _ON_EXIT, _EXECUTOR, _ITEM = "-driver", ".onExit", "executor", "iteration-item"
_ITERATION = re.compile(r"iteration-iterations\((\d+):.*", re.DOTALL)
_OPEN_STATES = frozenset({"", "RUNTIME_STATE_UNSPECIFIED"})
_RANK = {"FAILED": 0, "RUNNING": 1, "CANCELED": 2, "SUCCEEDED": 3, "SKIPPED": 4, "PENDING": 5}
_SEED, _PRIME = 2_166_136_261, 16_777_619


def tasks_of(details: Sequence[Detail]) -> tuple[Task, ...]:
    """Return the tasks of a pipeline, one per step: ``train``, ``inner.train``, ``for-loop-1.0.train``.

    A pipeline within the pipeline is a task of its own only where none of its steps is known, as when its driver failed.

    Args:
        details: ``run_details.task_details`` of a run: the nodes of an Argo workflow, or a list whose entries name their parents.
    """
    workflow = _workflow_name(details)
    found = _Workflow(workflow, details).tasks() if workflow else _plain(details)
    return tuple(sorted(found, key=lambda task: (task.started or "~", task.name)))


@dataclass(eq=False)
class _Node:
    """A node of the workflow. ``display`` is its name within the graph ``above``; ``body`` are the nodes of its own graph.

    ``executor`` is the pod of a container's graph, ``attempts`` how often it was tried where it may be tried again.
    """

    display: str
    hash: int
    above: _Node | None
    executor: int = 0
    attempts: int = 0
    body: dict[str, _Node] = field(default_factory=dict)
    detail: Detail = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return the state; a node that ended without one was left out by Argo, as what it needs failed."""
        state = self.detail.get("state", "")
        if state in _OPEN_STATES:
            return "SKIPPED" if _time(self.detail.get("end_time")) else ""
        return str(state)


class _Workflow:
    """The nodes of one run, put in their places."""

    def __init__(self, name: str, details: Sequence[Detail]) -> None:
        self._name, self._details = name, details
        self._ids = {_suffix(child) for detail in details for child in _children(detail)}
        self._left = Counter(str(detail.get("display_name", "")) for detail in details)
        self._graphs = {str(detail.get("display_name", "")) for detail in details if any(_children(detail))}
        self._top = _Node(name, _hash(name), None)
        self._nodes: list[_Node] = []
        self._place()
        self._tell()

    def tasks(self) -> list[Task]:
        """Return the tasks, in no order."""
        found: list[Task] = []
        waiting = list(_visits(self._top.body, ""))
        while waiting:
            path, node, driver = waiting.pop()
            inner = node.body if node is not None else {}
            below = list(_iterations(inner, path))
            outermost = (node or driver or self._top).above is self._top
            below = below or list(_visits(inner, "" if outermost else path))
            waiting += below
            task = None if below else self._task(path, node, driver or inner.get(f"iteration{_DRIVER}"))
            if task is not None and (task.state == "FAILED" or not outermost):
                found.append(task)
        return found

    def _place(self) -> None:
        """Find the nodes of every graph, from the outermost inwards."""
        waiting = [self._top]
        while waiting:
            graph = waiting.pop()
            self._nodes.append(graph)
            if graph.display.endswith(_DRIVER) or graph.display not in self._graphs or self._is_container(graph):
                continue
            for display in ("root-driver", "root") if graph is self._top else tuple(self._left):
                self._add(graph, display)
            for display in [f"{task}{_ON_EXIT}" for task in graph.body]:
                self._add(graph, display, surely=True)
            waiting += graph.body.values()

    def _is_container(self, graph: _Node) -> bool:
        """Tell whether a graph is that of a container: it holds an executor, which has no driver as a task of that name has."""
        executor = _hash(f".{_EXECUTOR}", graph.hash)
        if executor not in self._ids or _hash(_DRIVER, executor) in self._ids:
            return False
        graph.executor = executor
        while _hash(f"({graph.attempts})", executor) in self._ids:
            graph.attempts += 1
        return True

    def _add(self, graph: _Node, display: str, *, surely: bool = False) -> _Node | None:
        found = _Node(display, _hash(f".{display}", graph.hash), graph)
        if self._left[display] < 1 or display in graph.body or not (surely or found.hash in self._ids):
            return None
        self._left[display] -= 1
        if not self._left[display]:
            del self._left[display]
        graph.body[display] = found
        return found

    def _tell(self) -> None:
        """Give each node what is told of it: those of one display name are told apart by what comes after them."""
        by_display: dict[str, list[Detail]] = {}
        for detail in self._details:
            by_display.setdefault(str(detail.get("display_name", "")), []).append(detail)
        open_nodes: dict[str, list[_Node]] = {}
        for node in self._nodes:
            open_nodes.setdefault(node.display, []).append(node)
        for display, nodes in open_nodes.items():
            _match(nodes, by_display.get(display, []))

    def _task(self, path: str, node: _Node | None, driver: _Node | None) -> Task:
        state = _state(node, driver)
        at = node if node is not None and node.state not in {"", "SKIPPED"} else driver or node
        detail: Detail = at.detail if at is not None else {}
        return Task(
            id=str(detail.get("task_id", "")),
            name=path,
            state=state,
            error=_error(detail),
            started=_time(detail.get("start_time")),
            ended=_time(detail.get("end_time")) if state in {"SUCCEEDED", "FAILED", "CANCELED"} else "",
            node=self._pod(state, node, driver),
        )

    def _pod(self, state: str, node: _Node | None, driver: _Node | None) -> str:
        """Return the pod whose log tells of a task: named as the API server names it, by template and hash."""
        if state == "SKIPPED":
            return ""
        if node is not None and node.attempts:
            return f"{self._name}-retry-system-container-impl-{_hash(f'({node.attempts - 1})', node.executor)}"
        if node is not None and node.executor:
            return f"{self._name}-system-container-impl-{node.executor}"
        if driver is not None:
            of_graph = driver.display.startswith("iteration") or driver.display == "root-driver"
            return f"{self._name}-system-{'dag' if of_graph else 'container'}-driver-{driver.hash}"
        return f"{self._name}-system-importer-{node.hash}" if node is not None else ""


def _visits(body: Mapping[str, _Node], prefix: str) -> Iterator[tuple[str, _Node | None, _Node | None]]:
    """Yield each task of a graph: its path, its node and its driver; a task of an exit handler lies beside what it follows."""
    told = set()
    for display, node in body.items():
        if display.endswith(_ON_EXIT):
            yield from _visits(node.body, prefix)
            continue
        is_driver = display.endswith(_DRIVER) and display + _DRIVER not in body
        name = display.removesuffix(_DRIVER) if is_driver else display
        of_loop = name == "iteration-iterations" or (name == "iteration" and name not in body)
        if name not in told and not of_loop:
            told.add(name)
            yield f"{prefix}.{name}" if prefix else name, body.get(name), body.get(name + _DRIVER)


def _iterations(body: Mapping[str, _Node], path: str) -> Iterator[tuple[str, _Node | None, _Node | None]]:
    """Yield the iterations of a loop: ``for-loop-1.0``."""
    for display, node in body.items():
        place = _ITERATION.fullmatch(display)
        if place:
            yield f"{path}.{place[1]}", node.body.get(_ITEM), node.body.get(_ITEM + _DRIVER) or node


def _match(nodes: list[_Node], details: list[Detail]) -> None:
    if len(nodes) == len(details) == 1:
        nodes[0].detail = details[0]
        return
    by_child = {_suffix(child): detail for detail in details for child in _children(detail)}
    by_child |= {_suffix(pod): detail for detail in details if (pod := detail.get("pod_name"))}
    taken: set[int] = set()
    left: list[_Node] = []
    for node in nodes:
        found = next((by_child[hint] for hint in _hints(node) if hint in by_child and id(by_child[hint]) not in taken), None)
        if found is None:
            left.append(node)
        else:
            node.detail = found
            taken.add(id(found))
    # What nothing follows cannot be told apart but by its graph: a node that failed lies in a graph that failed.
    rest = sorted((detail for detail in details if id(detail) not in taken), key=lambda detail: _RANK.get(detail.get("state", ""), 9))
    left.sort(key=lambda node: _RANK.get(node.above.state if node.above else "", 9))
    for node, detail in zip(left, rest, strict=False):
        node.detail = detail


def _hints(node: _Node) -> Iterable[int]:
    """Return hashes that only the children of this node have."""
    if node.display.endswith(_DRIVER) and node.above is not None:
        follows = node.above.body.get(node.display.removesuffix(_DRIVER))
        return [node.hash, *([follows.hash] if follows is not None else [])]
    return [node.hash, node.executor, *(inner.hash for inner in node.body.values())]


def _state(node: _Node | None, driver: _Node | None) -> str:
    """Return the state of a task from its node's and its driver's: it fails with its driver."""
    own, before = (node.state if node else ""), (driver.state if driver else "")
    if own and own != "SKIPPED":
        return own
    if before == "FAILED":
        return "FAILED"
    if own == "SKIPPED" or before == "SKIPPED":
        return "SKIPPED"
    return "RUNNING" if before in {"RUNNING", "SUCCEEDED"} else before or "PENDING"


def _workflow_name(details: Sequence[Detail]) -> str:
    """Return the name of the Argo workflow; empty where the details are not its nodes."""
    displays = {detail.get("display_name") for detail in details}
    names = (child.rpartition("-")[0] for detail in details for child in _children(detail))
    return next((name for name in names if name in displays), "")


def _children(detail: Detail) -> Iterator[str]:
    for child in detail.get("child_tasks") or ():
        name = child.get("pod_name") if isinstance(child, Mapping) else None
        if isinstance(name, str):
            yield name


def _suffix(identifier: str) -> int:
    """Return the hash that ends an id or the name of a pod; -1 for what has none."""
    text = identifier.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() else -1


def _hash(text: str, seed: int = _SEED) -> int:
    """Return the hash of a name, or of what follows the name whose hash is given."""
    for byte in text.encode():
        seed = ((seed ^ byte) * _PRIME) & 0xFFFFFFFF
    return seed


def _plain(details: Sequence[Detail]) -> list[Task]:
    """Read details that name their parents themselves; what is the parent of another is no task."""
    by_id = {detail["task_id"]: detail for detail in details if detail.get("task_id")}
    above = {detail["parent_task_id"] for detail in details if detail.get("parent_task_id") in by_id}
    paths: dict[str, str] = {}
    return [_plain_task(detail, _path(detail, by_id, paths)) for detail in details if detail.get("task_id") not in above]


def _path(detail: Detail, by_id: Mapping[str, Detail], known: dict[str, str]) -> str:
    """Return a path by way of the parents; a parent that is missing, or a circle of parents, ends it."""
    chain, seen, at = [detail], set[str](), detail
    while (key := at.get("parent_task_id") or "") in by_id and key not in known and key not in seen:
        seen.add(key)
        at = by_id[key]
        chain.append(at)
    above = known.get(at.get("parent_task_id") or "", "")
    for one in reversed(chain):
        name = str(one.get("display_name", ""))
        above = f"{above}.{name}" if above else name
        if one is not detail:
            known[one["task_id"]] = above
    return above


def _plain_task(detail: Detail, path: str) -> Task:
    return Task(
        id=str(detail.get("task_id", "")),
        name=path,
        state=str(detail.get("state", "")),
        error=_error(detail),
        started=_time(detail.get("start_time")),
        ended=_time(detail.get("end_time")),
        node=str(detail.get("pod_name") or ""),
    )


def _error(detail: Detail) -> str:
    error = detail.get("error")
    return str(error.get("message", "")) if isinstance(error, Mapping) else ""


def _time(text: object) -> str:
    """Return a time; empty for one that has not come, which Go's zero time and the epoch stand for."""
    return text if isinstance(text, str) and not text.startswith(("0001-", "1970-01-01T00:00:00")) else ""
