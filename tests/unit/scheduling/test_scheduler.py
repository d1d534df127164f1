"""The scheduler: order, budgets, failures, interruptions. Threads meet at events and barriers, never by the clock."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.errors import Interrupted
from trainshed.scheduling import scheduler
from trainshed.scheduling.scheduler import Node

DEADLINE = 60.0


@dataclass(frozen=True)
class Ended:
    good: bool
    reason: str = ""


GOOD, BAD = Ended(good=True), Ended(good=False)


def aborted(_node: Node[Ended], reason: str) -> Ended:
    return Ended(good=False, reason=reason)


def node(key: str, *needs: str, work: Callable[[], Ended] = lambda: GOOD, weight: float = 1.0, budget: str = "cpu") -> Node[Ended]:
    return Node(key=key, needs=needs, work=work, weight=weight, budget=budget)


def fail() -> Ended:
    return BAD


def succeed() -> Ended:
    return GOOD


def started(nodes: Sequence[Node[Ended]], *, fail_fast: bool = False, **budgets: int) -> tuple[dict[str, Ended], list[str]]:
    order: list[str] = []
    outcomes = scheduler.run(
        nodes, budgets=budgets or {"cpu": 1}, aborted=aborted, fail_fast=fail_fast, on_start=lambda node: order.append(node.key)
    )
    return outcomes, order


def test_no_nodes_have_no_outcomes() -> None:
    assert scheduler.run([], budgets={}, aborted=aborted) == {}


def test_a_node_starts_after_all_that_it_needs_and_outcomes_keep_the_input_order() -> None:
    outcomes, order = started([node("d", "b", "c"), node("b", "a"), node("c", "a", "a"), node("a")])
    assert order == ["a", "b", "c", "d"]
    assert list(outcomes) == ["d", "b", "c", "a"]
    assert all(outcome.good for outcome in outcomes.values())


def test_the_longest_remaining_path_goes_first() -> None:
    nodes = [node("light"), node("heavy", weight=5), node("head"), node("tail", "head", weight=9)]
    assert scheduler.remaining(nodes) == {"light": 1, "heavy": 5, "head": 10, "tail": 9}
    assert started(nodes)[1] == ["head", "tail", "heavy", "light"]


def test_equal_weights_keep_the_input_order() -> None:
    assert started([node("c"), node("a"), node("b")])[1] == ["c", "a", "b"]


def test_as_many_nodes_run_at_once_as_the_budget_has_room_for() -> None:
    meeting = threading.Barrier(3)

    def meet() -> Ended:
        meeting.wait(DEADLINE)
        return GOOD

    outcomes, _ = started([node(key, work=meet) for key in "abcdef"], cpu=3)
    assert all(outcome.good for outcome in outcomes.values())


def test_never_more_nodes_run_at_once_than_the_budget_has_room_for() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> Ended:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return GOOD

    started([node(str(number), work=work) for number in range(50)], cpu=2)
    assert 1 <= most <= 2


def test_a_full_budget_does_not_hold_up_another() -> None:
    scanned = threading.Event()

    def build() -> Ended:
        return Ended(good=scanned.wait(DEADLINE))

    def scan() -> Ended:
        scanned.set()
        return GOOD

    outcomes, _ = started([node("build", work=build), node("scan", work=scan, budget="scan")], cpu=1, scan=1)
    assert outcomes == {"build": GOOD, "scan": GOOD}


def test_a_failure_aborts_its_dependents_with_the_reason_and_nobody_else() -> None:
    outcomes, order = started([node("a", work=fail), node("b", "a"), node("c", "b"), node("other"), node("last", "other")])
    assert outcomes["b"] == Ended(good=False, reason="needs a, which failed")
    assert outcomes["c"] == Ended(good=False, reason="needs a, which failed")
    assert outcomes["last"].good
    assert order == ["a", "other", "last"]


def test_a_node_that_needs_two_failed_ones_is_aborted_once() -> None:
    ended: list[str] = []
    nodes = [node("a", work=fail), node("b", work=fail), node("c", "a", "b")]
    scheduler.run(nodes, budgets={"cpu": 1}, aborted=aborted, on_end=lambda node, _: ended.append(node.key))
    assert ended == ["a", "c", "b"]


def test_fail_fast_starts_nothing_after_the_first_failure() -> None:
    outcomes, order = started([node("a", work=fail, weight=9), node("b"), node("c", "b")], fail_fast=True)
    assert order == ["a"]
    assert outcomes["b"].reason == outcomes["c"].reason == "a failed, and the first failure stops the rest"


def test_fail_fast_lets_what_runs_go_on_to_its_end() -> None:
    failed = threading.Event()

    def wait() -> Ended:
        return Ended(good=failed.wait(DEADLINE))

    ended: dict[str, Ended] = {}

    def on_end(node: Node[Ended], outcome: Ended) -> None:
        ended[node.key] = outcome
        failed.set()

    nodes = [node("slow", work=wait, weight=9), node("bad", work=fail), node("after", "slow"), node("ready")]
    scheduler.run(nodes, budgets={"cpu": 2}, aborted=aborted, fail_fast=True, on_end=on_end)
    assert ended["slow"] == GOOD
    assert ended["ready"].reason == ended["after"].reason != ""


def test_an_interruption_in_the_work_stops_all() -> None:
    stop = threading.Event()

    def interrupted() -> Ended:
        raise Interrupted("interrupted")

    nodes = [node("a", work=interrupted), node("b"), node("c", "a")]
    outcomes = scheduler.run(nodes, budgets={"cpu": 1}, aborted=aborted, stop=stop)
    assert stop.is_set()
    assert {outcome.reason for outcome in outcomes.values()} == {scheduler.INTERRUPTED}


def test_a_stop_from_outside_lets_running_work_end_and_starts_nothing_more() -> None:
    stop = threading.Event()

    def work() -> Ended:
        stop.set()
        return BAD

    outcomes = scheduler.run([node("a", work=work), node("b", "a"), node("c")], budgets={"cpu": 1}, aborted=aborted, stop=stop)
    assert outcomes["a"] == BAD
    assert outcomes["b"].reason == outcomes["c"].reason == scheduler.INTERRUPTED


def test_a_stop_before_the_start_starts_nothing() -> None:
    stop = threading.Event()
    stop.set()
    outcomes = scheduler.run([node("a", work=fail)], budgets={"cpu": 1}, aborted=aborted, stop=stop)
    assert outcomes == {"a": Ended(good=False, reason=scheduler.INTERRUPTED)}


def test_a_bug_in_the_work_is_raised_once_what_runs_has_ended() -> None:
    raised, ended = threading.Event(), threading.Event()

    def broken() -> Ended:
        raised.set()
        raise KeyError("bug")

    def slow() -> Ended:
        raised.wait(DEADLINE)
        ended.set()
        return GOOD

    with pytest.raises(KeyError, match="bug"):
        started([node("broken", work=broken), node("slow", work=slow), node("never", work=ended.clear)], cpu=2)  # type: ignore[arg-type]
    assert ended.is_set()


def test_a_bug_in_a_callback_is_raised_once_what_runs_has_ended() -> None:
    ended = threading.Event()

    def slow() -> Ended:
        ended.set()
        return GOOD

    def on_start(node: Node[Ended]) -> None:
        if node.key == "b":
            raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        scheduler.run([node("a", work=slow), node("b")], budgets={"cpu": 2}, aborted=aborted, on_start=on_start)
    assert ended.is_set()


def test_callbacks_come_in_the_thread_of_the_caller() -> None:
    threads: set[int] = set()

    def note(*_: object) -> None:
        threads.add(threading.get_ident())

    nodes = [node("a"), node("b", work=fail), node("c", "b")]
    scheduler.run(nodes, budgets={"cpu": 2}, aborted=aborted, on_start=note, on_end=note)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("a"), node("a")], "two nodes of one key: a"),
        ([node("a", "b")], "a needs b, which is no node"),
        ([node("a", budget="gpu")], "a runs on the budget 'gpu', which has no room"),
        ([node("a", "a")], "the needs go in a circle: a → a"),
    ],
)
def test_nodes_that_can_never_run_are_refused(nodes: list[Node[Ended]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        started(nodes)


def test_a_cycle_is_shown_as_the_way_that_each_node_needs_the_next() -> None:
    with pytest.raises(ValueError, match="circle") as raised:
        started([node("a", "b"), node("b", "c"), node("c", "a")])
    way = str(raised.value).partition(": ")[2].split(" → ")
    assert way[0] == way[-1]
    assert set(itertools.pairwise(way)) == {("a", "b"), ("b", "c"), ("c", "a")}


@st.composite
def graphs(draw: st.DrawFn) -> list[Node[Ended]]:
    size = draw(st.integers(1, 8))
    nodes = []
    for number in range(size):
        needs = draw(st.sets(st.integers(0, number - 1))) if number else set()
        work = draw(st.sampled_from([succeed, succeed, fail]))
        nodes.append(node(str(number), *(str(need) for need in sorted(needs)), work=work, weight=draw(st.floats(0, 9))))
    return draw(st.permutations(nodes))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 3))
def test_whatever_the_graph_exactly_the_nodes_below_a_failure_are_aborted(nodes: list[Node[Ended]], room: int) -> None:
    outcomes, order = started(nodes, cpu=room)
    assert list(outcomes) == [node.key for node in nodes]
    by_key = {node.key: node for node in nodes}
    for key, outcome in outcomes.items():
        needs_hold = all(outcomes[need].good for need in by_key[key].needs)
        assert (key in order) == needs_hold
        assert bool(outcome.reason) == (not needs_hold)
        assert all(order.index(need) < order.index(key) for need in by_key[key].needs if key in order)
