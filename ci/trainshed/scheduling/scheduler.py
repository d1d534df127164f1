"""Runs work in the order that its needs allow, within budgets, the longest remaining path first.

The scheduler knows nodes, edges and budgets only. One thread per running node; everything else, the callbacks included, happens
in the caller's thread, so that they need no locks.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Generic, Protocol, TypeVar

from trainshed.errors import Interrupted


class Outcome(Protocol):
    """Anything that tells whether it went well."""

    @property
    def good(self) -> bool:
        """Tell whether dependents may go on."""
        ...


O = TypeVar("O", bound=Outcome)  # noqa: E741 - an outcome
INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Node(Generic[O]):
    """One piece of work.

    ``needs`` are the keys of nodes that must have ended well; ``budget`` names what it takes one of while it runs; ``weight`` is
    how long it is expected to take, in seconds; ``work`` returns its outcome and turns the failures it knows into one.
    """

    key: str
    work: Callable[[], O]
    budget: str
    needs: tuple[str, ...] = ()
    weight: float = 1.0


def run(  # noqa: PLR0913 - all by keyword
    nodes: Sequence[Node[O]],
    *,
    budgets: Mapping[str, int],
    aborted: Callable[[Node[O], str], O],
    fail_fast: bool = False,
    stop: threading.Event | None = None,
    on_start: Callable[[Node[O]], None] = lambda _: None,
    on_end: Callable[[Node[O], O], None] = lambda _node, _outcome: None,
) -> dict[str, O]:
    """Run all nodes and return their outcomes by key, in the order of the input.

    A node that fails aborts those that need it, directly or not, and nobody else.

    Args:
        nodes: the work; keys are unique.
        budgets: how many nodes of each budget may run at once, each at least 1.
        aborted: makes the outcome of a node that is not run, from the reason ("needs build train, which failed").
        fail_fast: start nothing more after the first failure; what runs goes on to its end.
        stop: once set, nothing more starts. Work that raises `Interrupted` sets it; such nodes end with ``aborted(node, INTERRUPTED)``.
        on_start: called before a node starts.
        on_end: called for every node when its outcome is known, aborted ones included.

    Raises:
        ValueError: two nodes of one key, an unknown need or budget, a budget below 1, or a cycle (the message shows the way).
        Exception: whatever else work raised, a bug of the caller; nothing new is started, and what runs is waited for.
    """
    _check(nodes, budgets)
    return _Run(nodes, budgets, aborted, fail_fast, stop or threading.Event(), on_start, on_end).outcomes()


def remaining(nodes: Sequence[Node[O]]) -> dict[str, float]:
    """Return, by key, the weight of the heaviest chain of dependents that starts with each node, itself included."""
    order = tuple(TopologicalSorter({node.key: node.needs for node in nodes}).static_order())
    weights = {node.key: node.weight for node in nodes}
    needs = {node.key: node.needs for node in nodes}
    longest = dict(weights)
    for key in reversed(order):
        for need in needs[key]:
            longest[need] = max(longest[need], weights[need] + longest[key])
    return longest


def _check(nodes: Sequence[Node[O]], budgets: Mapping[str, int]) -> None:
    keys = [node.key for node in nodes]
    known = set(keys)
    if len(known) != len(keys):
        raise ValueError(f"two nodes of one key: {', '.join(sorted(key for key in known if keys.count(key) > 1))}")
    for node in nodes:
        unknown = [need for need in node.needs if need not in known]
        if unknown:
            raise ValueError(f"{node.key} needs {', '.join(unknown)}, which is no node")
        if budgets.get(node.budget, 0) < 1:
            raise ValueError(f"{node.key} runs on the budget '{node.budget}', which has no room")
    try:
        TopologicalSorter({node.key: node.needs for node in nodes}).prepare()
    except CycleError as error:
        raise ValueError(f"the needs go in a circle: {' → '.join(reversed(error.args[1]))}") from error


class _Run(Generic[O]):
    """One run. Only `_work` is called in other threads; it speaks to the caller's thread through the queue alone."""

    def __init__(  # noqa: PLR0913 - `run` has the same
        self,
        nodes: Sequence[Node[O]],
        budgets: Mapping[str, int],
        aborted: Callable[[Node[O], str], O],
        fail_fast: bool,
        stop: threading.Event,
        on_start: Callable[[Node[O]], None],
        on_end: Callable[[Node[O], O], None],
    ) -> None:
        self.nodes = {node.key: node for node in nodes}
        self.free = dict(budgets)
        self.aborted, self.fail_fast, self.stop = aborted, fail_fast, stop
        self.on_start, self.on_end = on_start, on_end
        self.ended: dict[str, O] = {}
        self.running: set[str] = set()
        self.back: queue.SimpleQueue[tuple[Node[O], O | BaseException]] = queue.SimpleQueue()
        self.missing = {node.key: len(set(node.needs)) for node in nodes}
        self.dependents: dict[str, list[str]] = {node.key: [] for node in nodes}
        for node in nodes:
            for need in set(node.needs):
                self.dependents[need].append(node.key)
        longest = remaining(nodes)
        self.rank = {node.key: (-longest[node.key], number) for number, node in enumerate(nodes)}
        self.ready: dict[str, list[tuple[tuple[float, int], str]]] = {name: [] for name in budgets}
        for node in nodes:
            if not node.needs:
                self._make_ready(node.key)

    def outcomes(self) -> dict[str, O]:
        """Run to the end."""
        try:
            while len(self.ended) < len(self.nodes):
                if self.stop.is_set():
                    self._abort_waiting(INTERRUPTED)
                self._start_what_may()
                if self.running:
                    self._take(*self.back.get())
        except BaseException:
            while self.running:
                self.running.discard(self.back.get()[0].key)
            raise
        return {key: self.ended[key] for key in self.nodes}

    def _make_ready(self, key: str) -> None:
        heapq.heappush(self.ready[self.nodes[key].budget], (self.rank[key], key))

    def _start_what_may(self) -> None:
        for budget, waiting in self.ready.items():
            while waiting and self.free[budget] and not self.stop.is_set():
                node = self.nodes[heapq.heappop(waiting)[1]]
                if node.key in self.ended:
                    continue
                self.on_start(node)
                self.free[budget] -= 1
                self.running.add(node.key)
                threading.Thread(target=self._work, args=(node,), name=node.key, daemon=True).start()

    def _work(self, node: Node[O]) -> None:
        try:
            outcome: O | BaseException = node.work()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome = error
        self.back.put((node, outcome))

    def _take(self, node: Node[O], outcome: O | BaseException) -> None:
        self.running.discard(node.key)
        self.free[node.budget] += 1
        if isinstance(outcome, Interrupted):
            self.stop.set()
            outcome = self.aborted(node, INTERRUPTED)
        elif isinstance(outcome, BaseException):
            raise outcome
        self._end(node.key, outcome)
        if outcome.good:
            for key in self.dependents[node.key]:
                self.missing[key] -= 1
                if not self.missing[key] and key not in self.ended:
                    self._make_ready(key)
            return
        if self.stop.is_set():
            return
        self._abort_dependents(node.key)
        if self.fail_fast:
            self._abort_waiting(f"{node.key} failed, and the first failure stops the rest")

    def _end(self, key: str, outcome: O) -> None:
        self.ended[key] = outcome
        self.on_end(self.nodes[key], outcome)

    def _abort(self, key: str, reason: str) -> None:
        self._end(key, self.aborted(self.nodes[key], reason))

    def _abort_dependents(self, failed: str) -> None:
        waiting = list(self.dependents[failed])
        while waiting:
            key = waiting.pop(0)
            if key not in self.ended:
                self._abort(key, f"needs {failed}, which failed")
                waiting += self.dependents[key]

    def _abort_waiting(self, reason: str) -> None:
        for key in self.nodes:
            if key not in self.ended and key not in self.running:
                self._abort(key, reason)
