from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.nested_pipeline import compiled
from trainshed.errors import UsageError
from trainshed.pipelines import documents, paths
from trainshed.pipelines.paths import TaskPath

END = "exit-handler-7.inner-2.deepest"


@pytest.fixture(scope="module")
def found() -> dict[str, TaskPath]:
    return {task.path: task for task in paths.tasks(documents.load(compiled(), place="x"))}


def leaf(command: str = "exec-a") -> dict[str, Any]:
    return {"executorLabel": command}


def task(component: str, **more: Any) -> dict[str, Any]:
    return {"componentRef": {"name": component}, **more}


def pipeline(tasks: dict[str, Any], components: dict[str, Any]) -> list[documents.Document]:
    executors = {"exec-a": {"container": {"image": "x"}}}
    document = {"pipelineInfo": {"name": "p"}, "root": {"dag": {"tasks": tasks}}, "components": components}
    return documents.load(json.dumps({**document, "deploymentSpec": {"executors": executors}}), place="x")


def dag(tasks: dict[str, Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"dag": {"tasks": tasks, "outputs": outputs or {}}}


def test_every_task_has_a_path_a_kind_and_an_executor(found: dict[str, TaskPath]) -> None:
    assert len(found) == 29
    train = found["inner.deepest.train"]
    assert (train.kind, train.component, train.executor, train.short) == ("container", "comp-train", "exec-train", "inner.deepest.train")
    assert found["importer"].kind == "importer"
    assert {task.path for task in found.values() if task.kind == "dag"} == {
        "inner",
        "inner.deepest",
        "exit-handler-7.inner-2",
        "exit-handler-7.inner-2.deepest",
    }
    groups = {path for path, task in found.items() if task.kind == "group" and not task.is_leaf}
    assert {"exit-handler-7", "for-loop-2", "for-loop-3.condition-branches-4.condition-6"} <= groups


def test_the_levels_that_kfp_makes_are_left_out_of_the_short_path(found: dict[str, TaskPath]) -> None:
    assert found["for-loop-3.condition-branches-4.condition-6.train"].short == "train"
    assert found[f"{END}.train"].short == "inner-2.deepest.train"


def test_what_a_task_reads_is_found_through_nested_pipelines_loops_and_conditions(found: dict[str, TaskPath]) -> None:
    assert found["look-2"].reads == ("inner.deepest.train",)
    assert found["look"].reads == ("importer",)
    assert found["for-loop-3.show-2"].reads == ("words",)
    assert found["for-loop-3.condition-branches-4.condition-6.train"].reads == ("make",)
    assert found["inner.deepest.make"].reads == ()


def test_what_ends_before_a_task_is_told_by_level(found: dict[str, TaskPath]) -> None:
    assert found["look-2"].after == ("inner",)
    assert found["clean"].after == ("exit-handler-7",)
    assert found["for-loop-3.condition-branches-4.condition-5.show-3"].after == ("make", "words")
    assert found["exit-handler-7.show-4"].after == ("exit-handler-7.make-3",)
    assert found["exit-handler-7.show-4"].reads == ()


def test_downstream_is_what_reads_a_change_and_not_what_only_waits(found: dict[str, TaskPath]) -> None:
    tasks = list(found.values())
    assert paths.downstream(tasks, ["inner.deepest.make"]) == ["inner.deepest.show", "inner.deepest.train", "look-2"]
    assert paths.downstream(tasks, ["make"]) == ["for-loop-3.condition-branches-4.condition-6.train"]
    assert paths.downstream(tasks, ["exit-handler-7.make-3"]) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("inner.deepest.train", ["inner.deepest.train"]),
        ("train", ["for-loop-3.condition-branches-4.condition-6.train"]),
        ("for-loop-2.*", ["for-loop-2.make-2", "for-loop-2.show"]),
        ("inner.**", ["inner.deepest", "inner.deepest.make", "inner.deepest.show", "inner.deepest.train"]),
        ("inner-*.*.*", [f"{END}.make", f"{END}.show", f"{END}.train"]),
        ("**.train", [f"{END}.train", "for-loop-3.condition-branches-4.condition-6.train", "inner.deepest.train"]),
        ("**.make", [f"{END}.make", "inner.deepest.make", "make"]),
        ("inner.*.tr*n", ["inner.deepest.train"]),
        ("look**", ["look", "look-2"]),
        ("inner", ["inner"]),
        ("trai", []),
    ],
)
def test_patterns_mean_whole_and_short_paths(found: dict[str, TaskPath], pattern: str, expected: list[str]) -> None:
    assert [task.path for task in paths.matching(pattern, found.values())] == expected


def test_two_stars_mean_every_task(found: dict[str, TaskPath]) -> None:
    assert paths.matching("**", found.values()) == list(found.values())


@pytest.mark.parametrize("pattern", ["", ".", "a.", "a..b", "a b", "[a]", "a?", "***x y"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="is no path of a task"):
        paths.matching(pattern, [])


def test_stars_without_end_are_matched_in_no_time() -> None:
    many = [TaskPath(path="a" * 120 + "!", short="", kind="container", component="c")]
    assert paths.matching("*" * 200 + "b", many) == []


def test_an_output_may_come_from_one_of_several_branches() -> None:
    made = {"taskOutputParameter": {"producerTask": "branches", "outputParameterKey": "out"}}
    selectors = [{"producerSubtask": name, "outputParameterKey": "o"} for name in ("one", "two")]
    branches = dag(
        {"one": task("comp-a"), "two": task("comp-a"), "three": task("comp-a")},
        {"parameters": {"out": {"valueFromOneof": {"parameterSelectors": selectors}}}},
    )
    tasks = {"branches": task("comp-branches"), "use": task("comp-a", inputs={"parameters": {"x": made}})}
    found = {item.path: item for item in paths.tasks(pipeline(tasks, {"comp-branches": branches, "comp-a": leaf()}))}
    assert found["use"].reads == ("branches.one", "branches.two")


def test_components_that_hold_themselves_are_refused() -> None:
    turning = pipeline({"a": task("comp-x")}, {"comp-x": dag({"b": task("comp-y")}), "comp-y": dag({"c": task("comp-x")})})
    with pytest.raises(UsageError, match="pipeline p: the component comp-x holds itself"):
        paths.tasks(turning)


def test_tasks_that_multiply_level_by_level_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_TASKS", 500)
    levels = {f"comp-{n}": dag({"a": task(f"comp-{n + 1}"), "b": task(f"comp-{n + 1}")}) for n in range(90)}
    with pytest.raises(UsageError, match="more than 500 tasks"):
        paths.tasks(pipeline({"a": task("comp-0")}, {**levels, "comp-90": leaf()}))


def test_a_file_of_another_shape_has_tasks_that_run_nothing() -> None:
    odd: dict[str, Any] = {"a": task("comp-gone"), "b": {"componentRef": 7, "inputs": {"parameters": [1]}}, "c": 3}
    assert [(item.path, item.kind, item.executor) for item in paths.tasks(pipeline(odd, {}))] == [("a", "other", ""), ("b", "other", "")]
