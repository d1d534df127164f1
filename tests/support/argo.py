"""The nodes of an Argo workflow as Kubeflow's API server tells them: what its compiler makes of a pipeline, with states as told."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUCCEEDED, FAILED, RUNNING = "SUCCEEDED", "FAILED", "RUNNING"
OMITTED = "RUNTIME_STATE_UNSPECIFIED"
START, END, NEVER = "2026-01-01T00:00:01Z", "2026-01-01T00:00:09Z", "0001-01-01T00:00:00Z"


def fnv(name: str) -> int:
    """Return the hash that ends the id of a node."""
    found = 2166136261
    for byte in name.encode():
        found = ((found ^ byte) * 16777619) % 2**32
    return found


@dataclass
class Step:
    """A container task. ``state`` is that of its graph, ``driver`` that of its driver; ``attempts`` make it one that is tried again."""

    state: str = SUCCEEDED
    driver: str = SUCCEEDED
    after: tuple[str, ...] = ()
    attempts: int = 0


@dataclass
class Importer:
    """A task that is one pod."""

    state: str = SUCCEEDED
    after: tuple[str, ...] = ()


@dataclass
class Graph:
    """A pipeline within the pipeline; ``exit`` are the tasks of an exit handler around it."""

    tasks: Mapping[str, Any] = field(default_factory=dict)
    state: str = SUCCEEDED
    driver: str = SUCCEEDED
    after: tuple[str, ...] = ()
    exit: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Loop:
    """A loop, whose iterations are graphs."""

    iterations: list[Graph] = field(default_factory=list)
    state: str = SUCCEEDED
    driver: str = SUCCEEDED
    after: tuple[str, ...] = ()


class Workflow:
    """Makes ``task_details`` of a pipeline."""

    def __init__(self, name: str, tasks: Mapping[str, Any], *, driver: str = SUCCEEDED) -> None:
        self.name, self._nodes = name, dict[str, dict[str, Any]]()
        self._node(name, "", RUNNING)
        self._node(f"{name}.root-driver", name, driver, after=[name])
        self._graph(f"{name}.root", name, Graph(tasks, RUNNING if driver == SUCCEEDED else OMITTED), after=[f"{name}.root-driver"])

    def details(self, *, shuffled: int = 0) -> list[dict[str, Any]]:
        """Return the details in the order of their ids, which is none."""
        told = list(self._nodes.values())
        random.Random(shuffled).shuffle(told)  # noqa: S311 - the same order each time
        return told

    def pod(self, template: str, path: str) -> str:
        """Return the name of the pod of a node."""
        return f"{self.name}-{template}-{fnv(f'{self.name}.{path}')}"

    def _id(self, name: str) -> str:
        return self.name if name == self.name else f"{self.name}-{fnv(name)}"

    def _node(self, name: str, boundary: str, state: str, *, after: list[str] | None = None) -> str:
        ended = NEVER if state == RUNNING else END
        shown = name.removeprefix(boundary).removeprefix(".")
        detail = {"run_id": "r", "task_id": f"task-{len(self._nodes)}", "display_name": shown, "start_time": START, "end_time": ended}
        self._nodes[name] = {**detail, "create_time": START, "state": state}
        for before in after or ():
            self._nodes[before].setdefault("child_tasks", []).append({"pod_name": self._id(name)})
        return name

    def _graph(self, name: str, boundary: str, graph: Graph, *, after: list[str]) -> list[str]:
        """Add a graph; return the nodes that end it."""
        self._node(name, boundary, graph.state, after=after)
        if graph.state == OMITTED:
            return [name]
        ends: dict[str, list[str]] = {}
        for task, told in graph.tasks.items():
            needs = [end for needed in told.after for end in ends[needed]] or [name]
            ends[task] = self._task(f"{name}.{task}", name, told, needs)
        needed = {each for told in graph.tasks.values() for each in told.after}
        if graph.exit:
            self._graph(f"{name}.onExit", boundary, Graph(graph.exit), after=[name])
        return [end for task in graph.tasks if task not in needed for end in ends[task]] or [name]

    def _task(self, name: str, boundary: str, told: Any, after: list[str]) -> list[str]:
        if isinstance(told, Importer):
            return [self._node(name, boundary, told.state, after=after)]
        if isinstance(told, Loop):
            return self._loop(name, boundary, told, after)
        driver = self._node(f"{name}-driver", boundary, told.driver, after=after)
        if isinstance(told, Graph):
            graph = told if told.driver == SUCCEEDED else Graph(state=OMITTED)
            return [driver] if told.driver == RUNNING else self._graph(name, boundary, graph, after=[driver])
        if told.driver == RUNNING:
            return [driver]
        self._node(name, boundary, told.state if told.driver == SUCCEEDED else OMITTED, after=[driver])
        if told.driver != SUCCEEDED or told.state in {OMITTED, "SKIPPED"}:
            return [name]
        executor = self._node(f"{name}.executor", name, told.state, after=[name])
        tries = [self._node(f"{executor}({n})", name, told.state, after=[executor]) for n in range(told.attempts)]
        return tries[-1:] or [executor]

    def _loop(self, name: str, boundary: str, loop: Loop, after: list[str]) -> list[str]:
        self._node(name, boundary, loop.state, after=after)
        driver = self._node(f"{name}.iteration-driver", name, loop.driver, after=[name])
        if loop.driver != SUCCEEDED:
            return [driver]
        group = self._node(f"{name}.iteration-iterations", name, loop.state, after=[driver])
        ends: list[str] = []
        for place, graph in enumerate(loop.iterations):
            one = self._node(f"{name}.iteration-iterations({place}:{place})", name, graph.state, after=[group])
            ends += self._task(f"{one}.iteration-item", one, graph, [one])
        return ends or [group]
