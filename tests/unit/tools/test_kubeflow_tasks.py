from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.argo import FAILED, OMITTED, RUNNING, SUCCEEDED, Graph, Importer, Loop, Step, Workflow, fnv
from trainshed.tools.kubeflow_tasks import tasks_of

PAIR = {"extract": Step(), "train": Step(after=("extract",))}


def states(details: list[dict[str, Any]]) -> dict[str, str]:
    return {task.name: task.state for task in tasks_of(details)}


@pytest.mark.parametrize("order", range(5))
def test_a_nested_pipeline_with_a_task_of_the_same_name_has_a_path_of_its_own(order: int) -> None:
    inner = Graph({**PAIR, "deep": Graph(PAIR, after=("train",))})
    flow = Workflow("flow-x7k2p", {**PAIR, "inner": inner, "last": Step(after=("inner",))})
    inside = {f"{path}{task}": SUCCEEDED for path in ("", "inner.", "inner.deep.") for task in PAIR}
    assert states(flow.details(shuffled=order)) == {**inside, "last": SUCCEEDED}


@pytest.mark.parametrize("order", range(5))
def test_states_stay_with_the_task_they_are_told_of_though_others_have_its_name(order: int) -> None:
    broken = {"extract": Step(), "train": Step(FAILED, after=("extract",))}
    flow = Workflow("flow-x7k2p", {**PAIR, "inner": Graph(broken, state=FAILED), "other": Graph(PAIR)})
    assert [name for name, state in states(flow.details(shuffled=order)).items() if state == FAILED] == ["inner.train"]


@pytest.mark.parametrize("order", range(5))
def test_the_iterations_of_a_loop_are_tasks_of_their_own(order: int) -> None:
    loop = Loop([Graph(PAIR), Graph({"extract": Step(), "train": Step(FAILED, after=("extract",))}, state=FAILED)], state=FAILED)
    nested = Loop([Graph({"for-loop-2": Loop([Graph(PAIR), Graph(PAIR)])})])
    found = states(Workflow("flow-x7k2p", {"for-loop-1": loop, "for-loop-3": nested}).details(shuffled=order))
    assert found == {
        **dict.fromkeys(("for-loop-1.0.extract", "for-loop-1.0.train", "for-loop-1.1.extract"), SUCCEEDED),
        "for-loop-1.1.train": FAILED,
        **{f"for-loop-3.0.for-loop-2.{place}.{task}": SUCCEEDED for place in (0, 1) for task in PAIR},
    }


def test_a_driver_that_failed_fails_its_task_and_what_argo_left_out_is_skipped() -> None:
    tasks = {
        "bad": Step(driver=FAILED),
        "after": Step(driver=OMITTED, after=("bad",)),
        "inner": Graph(driver=FAILED),
        "loop": Loop(driver=FAILED, state=FAILED),
        "not-wanted": Step("SKIPPED"),
        "waiting": Step(driver=RUNNING),
    }
    flow = Workflow("flow-x7k2p", tasks)
    assert states(flow.details()) == {
        **dict.fromkeys(("bad", "inner", "loop"), FAILED),
        **dict.fromkeys(("after", "not-wanted"), "SKIPPED"),
        "waiting": RUNNING,
    }
    node = {task.name: task.node for task in tasks_of(flow.details())}
    assert (node["bad"], node["after"]) == (flow.pod("system-container-driver", "root.bad-driver"), "")


def test_a_run_whose_first_driver_fails_has_that_as_its_failure_and_one_that_begins_has_no_task() -> None:
    assert states(Workflow("flow-x7k2p", {}, driver=FAILED).details()) == {"root": FAILED}
    assert states(Workflow("flow-x7k2p", {}, driver=RUNNING).details()) == {}
    assert tasks_of([]) == ()


def test_the_log_of_a_task_is_that_of_its_last_attempt() -> None:
    flow = Workflow("flow-x7k2p", {"once": Step(), "again": Step(attempts=3), "get": Importer(), "on": Step(RUNNING)})
    told = {task.name: task for task in tasks_of(flow.details())}
    assert told["once"].node == flow.pod("system-container-impl", "root.once.executor")
    assert told["again"].node == flow.pod("retry-system-container-impl", "root.again.executor(2)")
    assert told["get"].node == flow.pod("system-importer", "root.get")
    assert (told["once"].started, told["once"].ended) == ("2026-01-01T00:00:01Z", "2026-01-01T00:00:09Z")
    assert (told["on"].state, told["on"].ended) == (RUNNING, "")


def test_the_tasks_of_an_exit_handler_lie_beside_what_they_follow() -> None:
    handled = Graph(PAIR, exit={"clean-up": Step(), "tell": Step(FAILED)})
    assert states(Workflow("flow-x7k2p", {"exit-handler-1": handled}).details()) == {
        "exit-handler-1.extract": SUCCEEDED,
        "exit-handler-1.train": SUCCEEDED,
        "clean-up": SUCCEEDED,
        "tell": FAILED,
    }


def test_a_task_may_be_called_what_kubeflow_calls_its_own() -> None:
    tasks = {"executor": Step(), "root": Graph({"executor": Step()}), "screw-driver": Step(), "for": Loop([Graph({"root": Step()})])}
    found = states(Workflow("flow-x7k2p", tasks).details())
    assert found == dict.fromkeys(("executor", "root.executor", "screw-driver", "for.0.root"), SUCCEEDED)


def test_thousands_of_nodes_are_read_without_trying_each_with_each() -> None:
    wide = {f"task-{number}": Step() for number in range(300)}
    loop = Loop([Graph(PAIR) for _ in range(100)])
    groups = {f"group-{number}": Graph({f"part-{number}-{part}": Step() for part in range(10)}) for number in range(30)}
    details = Workflow("flow-x7k2p", {**wide, "for-loop-1": loop, **groups}).details()
    began = time.process_time()
    assert len(tasks_of(details)) == 300 + 200 + 300
    assert time.process_time() - began < 20  # 0.2 s here; each with each would be millions of hashes


def test_a_list_that_names_parents_gives_paths_too() -> None:
    def detail(name: str, above: str = "", **more: Any) -> dict[str, Any]:
        return {"task_id": f"id-{name}", "display_name": name.rpartition(".")[2], "parent_task_id": above, "state": SUCCEEDED, **more}

    error = {"code": 2, "message": "exit code 3"}
    details = [
        detail("train", start_time="2026-01-01T00:00:01Z", end_time="1970-01-01T00:00:00Z", pod_name="r-train"),
        detail("inner"),
        detail("inner.train", "id-inner", error=error),
        detail("inner.deep", "id-inner"),
        detail("inner.deep.train", "id-inner.deep"),
        detail("lost", "id-of-nobody"),
    ]
    found = {task.name: task for task in tasks_of(details)}
    assert set(found) == {"train", "inner.train", "inner.deep.train", "lost"}
    assert (found["train"].started, found["train"].ended, found["train"].node) == ("2026-01-01T00:00:01Z", "", "r-train")
    assert (found["inner.train"].error, found["inner.train"].id) == ("exit code 3", "id-inner.train")


def test_a_circle_of_parents_and_children_that_are_not_there_end() -> None:
    circle = [{"task_id": name, "display_name": name, "parent_task_id": above} for name, above in (("a", "b"), ("b", "a"), ("c", "a"))]
    assert [task.name for task in tasks_of(circle)] == ["b.a.c"]
    flow = Workflow("flow-x7k2p", PAIR).details()
    flow[0].setdefault("child_tasks", []).extend([{"pod_name": "flow-x7k2p-12"}, {"pod_name": "strange"}, {}, None])
    assert set(states(flow)) == set(PAIR)
    assert states([each for each in flow if each["display_name"] != "train-driver"]) == {"extract": SUCCEEDED}


@pytest.mark.parametrize(
    ("name", "number"),
    [("print-msg", 3292940923), ("print-msg-2", 1189960944), ("random-failure", 3193641316), ("random-failure(0)", 310421839)],
)
def test_the_nodes_of_these_tests_have_the_ids_that_argo_gave_in_a_real_workflow(name: str, number: int) -> None:
    assert fnv(f"retry-random-failures-p9snt.{name}") == number
