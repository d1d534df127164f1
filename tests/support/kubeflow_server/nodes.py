"""What Argo makes of a pipeline: drivers, DAG nodes and executor pods, and the executions that the drivers note in the metadata store.

A task ``train`` of a DAG becomes ``train-driver`` and, after it, a DAG node ``train`` with the pod ``executor`` in it. A loop becomes a DAG
node with ``iteration-driver`` and the group ``iteration-iterations``, whose items hold ``iteration-item``. A node's children are what
Argo draws below it: the first tasks of a DAG, and what comes next after the last pods of the one before. A node's id is the hash of its
full name; the server tells it only as a child of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.argo import fnv

_ROOT_DRIVER = "root-driver"


@dataclass
class Node:
    """One node. ``state`` is the server's word, but for OMITTED, which it has no word for; ``path`` is the task that it is or works for."""

    id: str
    name: str
    path: str
    state: str
    pod: str = ""
    children: list[str] = field(default_factory=list)


@dataclass
class Execution:
    """What the metadata store knows of a task: ``kind`` is such as system.ContainerExecution, ``component`` what it ran."""

    path: str
    task: str
    kind: str
    state: str
    parent: str = ""
    pod: str = ""
    index: int | None = None
    count: int | None = None
    component: Mapping[str, Any] = field(default_factory=dict)


def leaves(specification: Mapping[str, Any], iterations: Mapping[str, int]) -> list[str]:
    """Return the paths of all tasks that are no DAG, in an order in which they can run."""
    return list(_leaves(specification, specification["root"]["dag"], "", iterations))


def _leaves(whole: Mapping[str, Any], dag: Mapping[str, Any], prefix: str, iterations: Mapping[str, int]) -> Iterator[str]:
    for name in ordered(dag["tasks"]):
        task = dag["tasks"][name]
        component = whole["components"][task["componentRef"]["name"]]
        paths = [f"{prefix}{name}"]
        if iterates(task):
            paths = [f"{paths[0]}.{number}" for number in range(iterations.get(paths[0], 2))]
        for path in paths:
            if "dag" in component:
                yield from _leaves(whole, component["dag"], f"{path}.", iterations)
            else:
                yield path


def ordered(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names of tasks, each after those that it needs."""
    placed: dict[str, None] = {}

    def place(name: str) -> None:
        for needed in sorted(tasks[name].get("dependentTasks", [])):
            place(needed)
        placed[name] = None

    for name in sorted(tasks):
        place(name)
    return list(placed)


def iterates(task: Mapping[str, Any]) -> bool:
    """Tell whether a task is a loop."""
    return "parameterIterator" in task or "artifactIterator" in task


def exits(task: Mapping[str, Any]) -> bool:
    """Tell whether a task runs at the end of another, however that ended."""
    return bool(task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED")


class Workflow:
    """The nodes and executions of a run whose leaf tasks are in the states that ``status`` tells (empty: not begun)."""

    def __init__(self, specification: Mapping[str, Any], name: str, iterations: Mapping[str, int], status: Callable[[str], str]) -> None:
        self._whole, self._name, self._iterations, self._status = specification, name, iterations, status
        self._leaves = [(path, status(path)) for path in leaves(specification, iterations)]
        self.nodes: dict[str, Node] = {}
        self.executions: list[Execution] = []
        top = self._add(name, name, "", "RUNNING", identifier=name)
        driver = self._add(f"{name}.{_ROOT_DRIVER}", _ROOT_DRIVER, "", "SUCCEEDED", under=[top])
        root = self._add(f"{name}.root", "root", "", "RUNNING", under=[driver])
        execution = self._note("", "", "system.DAGExecution", component=specification["root"])
        root.state, _ = self._dag(specification["root"]["dag"], "", root, f"{name}.root")
        root.state = top.state = execution.state = root.state or "RUNNING"

    def _add(self, full: str, display: str, path: str, state: str, *, under: list[Node] | None = None, identifier: str = "") -> Node:
        node = Node(identifier or f"{self._name}-{fnv(full)}", display, path, state)
        for parent in under or []:
            parent.children.append(node.id)
        self.nodes[node.id] = node
        return node

    def _note(self, path: str, task: str, kind: str, **told: Any) -> Execution:
        execution = Execution(path, task, kind, "RUNNING", **told)
        self.executions.append(execution)
        return execution

    def _dag(self, dag: Mapping[str, Any], prefix: str, boundary: Node, full: str) -> tuple[str, list[Node]]:
        """Add the tasks of a DAG; return its state and the nodes after which what follows it begins."""
        states: dict[str, str] = {}
        ends: dict[str, list[Node]] = {}
        for name in ordered(dag["tasks"]):
            task = dag["tasks"][name]
            needs = task.get("dependentTasks", [])
            if exits(task):
                states[name], ends[name] = self._exit(
                    name, task, prefix, [end for need in needs for end in ends[need]], f"{full}.{needs[0]}"
                )
                continue
            under = [end for need in needs for end in ends[need]] or [boundary]
            if any(states[need] in {"FAILED", "OMITTED"} for need in needs):
                states[name], ends[name] = "OMITTED", self._omitted(name, prefix, under, full)
            elif any(states[need] not in {"SUCCEEDED", "SKIPPED"} for need in needs):
                states[name], ends[name] = "", []
            else:
                states[name], ends[name] = self._task(name, task, prefix, under, full)
        needed = {need for task in dag["tasks"].values() for need in task.get("dependentTasks", [])}
        return _whole(list(states.values())), [end for name, found in ends.items() if name not in needed for end in found]

    def _omitted(self, name: str, prefix: str, under: list[Node], full: str) -> list[Node]:
        driver = self._add(f"{full}.{name}-driver", f"{name}-driver", prefix + name, "OMITTED", under=under)
        return [self._add(f"{full}.{name}", name, prefix + name, "OMITTED", under=[driver])]

    def _exit(self, name: str, task: Mapping[str, Any], prefix: str, under: list[Node], after: str) -> tuple[str, list[Node]]:
        if not self._begun(name, task, prefix):
            return "", []
        hook = self._add(f"{after}.onExit", f"{after.rpartition('.')[2]}.onExit", prefix + name, "RUNNING", under=under)
        hook.state, ends = self._task(name, task, prefix, [hook], f"{after}.onExit")
        return hook.state, ends

    def _begun(self, name: str, task: Mapping[str, Any], prefix: str) -> bool:
        component = self._whole["components"][task["componentRef"]["name"]]
        return "dag" in component or bool(self._status(prefix + name))

    def _task(self, name: str, task: Mapping[str, Any], prefix: str, under: list[Node], full: str) -> tuple[str, list[Node]]:
        component = self._whole["components"][task["componentRef"]["name"]]
        if not iterates(task):
            return self._one(name, prefix + name, component, under, full, parent=prefix.rstrip("."))
        path, count = prefix + name, self._iterations.get(prefix + name, 2)
        if not any(state for leaf, state in self._leaves if leaf.startswith(f"{path}.")):
            return "", []
        loop = self._add(f"{full}.{name}", name, path, "RUNNING", under=under)
        driver = self._add(f"{full}.{name}.iteration-driver", "iteration-driver", path, "SUCCEEDED", under=[loop])
        execution = self._note(path, name, "system.DAGExecution", parent=prefix.rstrip("."), count=count, component=component)
        group = self._add(f"{full}.{name}.iteration-iterations", "iteration-iterations", path, "RUNNING", under=[driver])
        states, ends = [], []
        for number in range(count):
            shown = f"iteration-iterations({number}:{number})"
            item = self._add(f"{full}.{name}.{shown}", shown, f"{path}.{number}", "RUNNING", under=[group])
            where = f"{full}.{name}.{shown}"
            state, last = self._one("iteration-item", f"{path}.{number}", component, [item], where, parent=path, task=name, index=number)
            item.state = state or "RUNNING"
            states.append(state)
            ends += last
        loop.state = group.state = execution.state = _whole(states) or "RUNNING"
        return _whole(states), ends

    def _one(
        self,
        name: str,
        path: str,
        component: Mapping[str, Any],
        under: list[Node],
        full: str,
        *,
        parent: str,
        task: str = "",
        index: int | None = None,
    ) -> tuple[str, list[Node]]:
        """Add a task that is no loop, or one item of a loop."""
        told: dict[str, Any] = {"parent": parent, "index": index, "component": component}
        if "dag" in component:
            return self._inner(name, path, component, under, full, {**told, "task": task or name})
        state = self._status(path)
        if not state:
            return "", []
        if "importer" in self._whole["deploymentSpec"]["executors"].get(component["executorLabel"], {}):
            pod = self._pod(self._add(f"{full}.{name}", name, path, state, under=under), "system-importer")
            self._note(path, task or name, "system.ImporterExecution", pod=pod.pod, **told).state = state
            return state, [pod]
        driver = self._pod(self._add(f"{full}.{name}-driver", f"{name}-driver", path, "SUCCEEDED", under=under), "system-container-driver")
        if state == "SKIPPED":
            return state, [self._add(f"{full}.{name}", name, path, "SKIPPED", under=[driver])]
        box = self._add(f"{full}.{name}", name, path, "SUCCEEDED" if state == "CACHED" else state, under=[driver])
        inner = "SKIPPED" if state == "CACHED" else state
        pod = self._pod(self._add(f"{full}.{name}.executor", "executor", path, inner, under=[box]), "system-container-impl")
        self._note(path, task or name, "system.ContainerExecution", pod="" if state == "CACHED" else pod.pod, **told).state = state
        return ("SUCCEEDED" if state == "CACHED" else state), [pod]

    def _inner(
        self, name: str, path: str, component: Mapping[str, Any], under: list[Node], full: str, told: dict[str, Any]
    ) -> tuple[str, list[Node]]:
        below = [state for leaf, state in self._leaves if leaf.startswith(f"{path}.")]
        if not any(below):
            return "", []
        driver = self._add(f"{full}.{name}-driver", f"{name}-driver", path, "SUCCEEDED", under=under)
        if set(below) == {"SKIPPED"}:
            return "SKIPPED", [self._add(f"{full}.{name}", name, path, "SKIPPED", under=[driver])]
        node = self._add(f"{full}.{name}", name, path, "RUNNING", under=[driver])
        execution = self._note(path, kind="system.DAGExecution", **told)
        state, ends = self._dag(component["dag"], f"{path}.", node, f"{full}.{name}")
        node.state = execution.state = state or "RUNNING"
        return state, ends or [node]

    def _pod(self, node: Node, template: str) -> Node:
        """Give a node its pod, whose name has the template in it."""
        node.pod = f"{self._name}-{template}-{node.id.rpartition('-')[2]}"
        return node


def _whole(states: list[str]) -> str:
    """Return the state of what is made of others."""
    if not any(states):
        return ""
    if "" in states or "RUNNING" in states:
        return "RUNNING"
    if "FAILED" in states or "OMITTED" in states:
        return "FAILED"
    return "SUCCEEDED"
