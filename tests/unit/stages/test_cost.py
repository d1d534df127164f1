"""What a new image costs is told from past runs: the steps that use it, what reads their outputs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.kubeflow import text
from trainshed.errors import UsageError
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import paths
from trainshed.results import Result, Status
from trainshed.stages import compile as compiling
from trainshed.stages.context import Context
from trainshed.stages.cost import Cost, Step, costs, total, useless


def reads(producer: str) -> dict[str, Any]:
    return {"inputs": {"parameters": {"data": {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": "data"}}}}}


def pipeline(name: str, steps: Mapping[str, tuple[str, str]], uncached: tuple[str, ...] = ()) -> str:
    """Write a pipeline: each step with its component and the step that it reads from, if any."""
    tasks = {
        step: {
            "componentRef": {"name": f"comp-{step}"},
            "taskInfo": {"name": step},
            "cachingOptions": {} if step in uncached else {"enableCache": True},
            **({**reads(source), "dependentTasks": [source]} if source else {}),
        }
        for step, (_, source) in steps.items()
    }
    executors = {f"exec-{step}": {"container": {"image": f"component.invalid/{used}:unstamped"}} for step, (used, _) in steps.items()}
    return text(
        {
            "pipelineInfo": {"name": name},
            "schemaVersion": "2.1.0",
            "sdkVersion": "kfp-2.17.0",
            "root": {"dag": {"tasks": tasks}},
            "components": {f"comp-{step}": {"executorLabel": f"exec-{step}"} for step in steps},
            "deploymentSpec": {"executors": executors},
        }
    )


TRAINING = pipeline(
    "training",
    {
        "load": ("load", ""),
        "featurize": ("featurize", "load"),
        "train": ("train", "featurize"),
        "report": ("report", "train"),
        "other": ("train", "load"),
    },
    uncached=("report",),
)


def ran(seconds: float, *, cached: bool = False, state: str = "SUCCEEDED") -> dict[str, Any]:
    return {"seconds": seconds, "cached": cached, "state": state}


class World:
    """A ledger with runs, and templates that were compiled before."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.runs, self.compiled, self.asked = root, dict[str, list[Any]](), list[str](), list[int | None]()
        self.broken: set[str] = set()
        monkeypatch.setattr(compiling, "compile_templates", self._compile)

    def template(self, name: str, told: str) -> None:
        (self.root / f"{name}.template.yaml").write_text(told)

    def run(self, name: str, tasks: Any, *, key: str = "", **more: str) -> None:
        runs = self.runs.setdefault(name, [])
        runs.insert(0, SimpleNamespace(key=key or f"run-{len(runs)}", document={"tasks": tasks, **more}))

    def _compile(self, _: Context, names: list[str]) -> list[Result]:
        self.compiled += names
        details = {name: {"template": f"{name}.template.yaml"} for name in names}
        status = {name: Status.FAILED if name in self.broken else Status.CACHED for name in names}
        return [Result(name=name, stage="compile", status=status[name], details=details[name]) for name in names]

    def _events(self, _kind: str, _environment: str, name: str, *, limit: int | None = None) -> list[Any]:
        self.asked.append(limit)
        return self.runs.get(name, [])[:limit]

    @property
    def context(self) -> Context:
        config = SimpleNamespace(environment=SimpleNamespace(name="local"), project=SimpleNamespace(root=self.root))
        return cast("Context", SimpleNamespace(config=config, has_ledger=True, ledger=SimpleNamespace(events=self._events)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.template("training", TRAINING)
    return world


def test_a_new_image_costs_its_own_steps_and_what_reads_from_them() -> None:
    documents = yaml_documents.load(TRAINING, place="training")
    assert useless(documents, "featurize") == ["featurize", "train"]
    assert sorted(useless(documents, "train")) == ["other", "train"]
    assert sorted(useless(documents, "load")) == ["featurize", "load", "other", "train"]
    assert useless(documents, "report") == []  # it is never cached, so it is no loss
    assert useless(documents, "unknown") == []


def test_the_time_is_the_median_of_the_last_five_that_were_not_cached(world: World) -> None:
    for seconds in (1.0, 9000.0, 3600.0, 3600.0, 3600.0, 1.0):
        world.run("training", {"featurize": ran(seconds), "train": ran(7200.0)})
    world.run("training", {"featurize": ran(1.0, cached=True), "train": ran(5.0, state="FAILED")})
    cost = costs(world.context, {"featurize": ["training"]})["featurize"]
    assert [(step.task, step.seconds) for step in cost.steps] == [("featurize", 3600.0), ("train", 7200.0)]
    assert str(cost) == "2 steps of 1 pipeline, about 3 h"
    assert cost.document()["longest"][0] == {"pipeline": "training", "task": "train", "seconds": 7200.0}
    assert world.asked == [60]


def test_a_run_that_failed_was_not_asked_for_cache_hits_so_its_times_count_where_there_is_no_better(world: World) -> None:
    world.run("training", {"featurize": ran(3600)}, state="SUCCEEDED")
    for _ in range(5):
        world.run("training", {"featurize": ran(4), "train": ran(600)}, state="FAILED")
    cost = costs(world.context, {"featurize": ["training"]})["featurize"]
    assert [(step.task, step.seconds) for step in cost.steps] == [("featurize", 3600.0), ("train", 600.0)]


def test_steps_of_several_pipelines_are_counted_together_and_joined_without_counting_twice(world: World) -> None:
    world.template("scoring", pipeline("scoring", {"load": ("load", ""), "featurize": ("featurize", "load")}))
    world.run("training", {"load": ran(60), "featurize": ran(600), "train": ran(600), "other": ran(60)})
    world.run("scoring", {"load": ran(60), "featurize": ran(600)})
    found = costs(world.context, {"featurize": ["training", "scoring"], "load": ["training", "scoring"], "base": []})
    assert {name: str(cost) for name, cost in found.items()} == {
        "featurize": "3 steps of 2 pipelines, about 30 min",
        "load": "6 steps of 2 pipelines, about 33 min",
    }
    assert str(total(found.values())) == "6 steps of 2 pipelines, about 33 min"


def test_without_a_past_run_nothing_is_compiled_and_that_is_said(world: World) -> None:
    cost = costs(world.context, {"train": ["training"]})["train"]
    assert str(cost) == "no past run to judge by"
    assert cost.document() == {
        "steps": 0,
        "pipelines": [],
        "seconds": 0,
        "longest": [],
        "unknown": {"training": "no past run to judge by"},
    }
    assert world.compiled == []


def test_one_pipeline_without_a_past_run_does_not_hide_the_others(world: World) -> None:
    world.run("training", {"train": ran(30), "other": ran(10)})
    cost = costs(world.context, {"train": ["scoring", "training"]})["train"]
    assert str(cost) == "2 steps of 1 pipeline, about 40 s; scoring: no past run to judge by"


def test_a_step_that_never_succeeded_is_no_loss_and_one_that_was_always_cached_has_no_time(world: World) -> None:
    world.run("training", {"train": ran(0, cached=True), "other": ran(3, state="FAILED")})
    cost = costs(world.context, {"train": ["training"]})["train"]
    assert str(cost) == "1 step of 1 pipeline, of unknown time"
    assert cost.document()["seconds"] is None
    world.run("training", {"other": ran(20)})
    assert str(costs(world.context, {"train": ["training"]})["train"]) == "2 steps of 1 pipeline, about 20 s or more"


def test_iterations_of_a_loop_count_together_and_records_of_another_shape_are_passed_over(world: World) -> None:
    world.run("training", {"for-loop-1.0.train": ran(10), "for-loop-1.1.train": ran(20), "other": "odd", "load": ran(-5)})
    world.run("training", ["odd"])
    world.run("training", {"train": ran(1000)}, key="run-0")  # an older record of a run that has a newer one
    world.runs["training"].append(world.runs["training"].pop(0))
    assert str(costs(world.context, {"train": ["training"]})["train"]) == "1 step of 1 pipeline, about 30 s"


def test_a_template_that_does_not_compile_leaves_the_plan_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("training", {"train": ran(30)})
    world.broken.add("training")
    assert str(costs(world.context, {"train": ["training"]})["train"]) == "it does not compile"

    def refuse(*_: object) -> list[Result]:
        raise UsageError("no such template")

    monkeypatch.setattr(compiling, "compile_templates", refuse)
    assert str(costs(world.context, {"train": ["training"]})["train"]) == "it does not compile"


def test_no_ledger_is_made_for_the_cost(tmp_path: Path) -> None:
    context = cast("Context", SimpleNamespace(has_ledger=False))
    assert str(costs(context, {"train": ["training"]})["train"]) == "no past run to judge by"
    assert not list(tmp_path.iterdir())


def test_nothing_cached_is_said() -> None:
    assert str(Cost()) == "no cached step"
    assert str(Cost(steps=(Step(pipeline="p", task="t", seconds=1.0),))) == "1 step of 1 pipeline, about 1 s"


def test_a_path_of_a_run_is_shortened_to_what_the_code_shows() -> None:
    assert [paths.short_of(path) for path in ("for-loop-1.0.train", "inner.condition-2.train", "train")] == [
        "train",
        "inner.train",
        "train",
    ]
