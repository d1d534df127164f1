from __future__ import annotations

import copy
from typing import Any

import pytest

from trainshed.pipelines.caching import with_caching


def task(component: str, **more: Any) -> dict[str, Any]:
    return {"componentRef": {"name": component}, "taskInfo": {"name": component}, **more}


ON: dict[str, Any] = {"cachingOptions": {"enableCache": True}}
STEP = {"executorLabel": "exec-step"}


def nested() -> dict[str, Any]:
    """Return a pipeline as kfp writes it: an exit handler around a condition, a loop and a nested pipeline; groups have no option."""
    return {
        "pipelineInfo": {"name": "p"},
        "root": {"dag": {"tasks": {"exit-handler-1": task("comp-exit"), "tell": task("comp-step", **ON)}}},
        "components": {
            "comp-exit": {
                "dag": {
                    "tasks": {"condition-1": task("comp-condition"), "for-loop-1": task("comp-loop"), "inner": task("comp-inner", **ON)}
                }
            },
            "comp-condition": {"dag": {"tasks": {"a": task("comp-step", cachingOptions={})}}},
            "comp-loop": {"dag": {"tasks": {"b": task("comp-step", cachingOptions={"enableCache": True, "cacheKey": "mine"})}}},
            "comp-inner": {"dag": {"tasks": {"c": task("comp-step", **ON), "d": task("comp-step")}}},
            "comp-step": STEP,
        },
    }


def options(document: dict[str, Any]) -> dict[str, Any]:
    dags = [document["root"]["dag"], *(each["dag"] for each in document["components"].values() if "dag" in each)]
    return {name: each.get("cachingOptions") for dag in dags for name, each in dag["tasks"].items()}


@pytest.mark.parametrize("enabled", [True, False])
def test_every_step_of_every_dag_is_set_and_nothing_else_is_changed(enabled: bool) -> None:
    given = nested()
    found = with_caching(given, enabled=enabled)
    assert found is not None
    assert options(found) == {
        **{name: {"enableCache": enabled} for name in ("tell", "inner", "a", "c", "d")},
        "b": {"enableCache": enabled, "cacheKey": "mine"},
        **dict.fromkeys(("exit-handler-1", "condition-1", "for-loop-1")),
    }
    assert given == nested()
    plain = copy.deepcopy(found)
    for dag in [plain["root"]["dag"], *(each["dag"] for each in plain["components"].values() if "dag" in each)]:
        for name, each in dag["tasks"].items():
            each.pop("cachingOptions", None)
            if options(given)[name] is not None:
                each["cachingOptions"] = options(given)[name]
    assert plain == given


def test_a_pipeline_that_says_so_already_is_launched_as_it_is() -> None:
    given = nested()
    on = with_caching(given, enabled=True)
    assert on is not None
    assert with_caching(on, enabled=True) is None
    off = {
        "root": {"dag": {"tasks": {"a": task("comp-step", cachingOptions={}), "b": task("comp-step")}}},
        "components": {"comp-step": STEP},
    }
    assert with_caching(off, enabled=False) is None


def test_the_platform_document_stays_beside_the_specification() -> None:
    platform: dict[str, Any] = {"platforms": {"kubernetes": {}}}
    found = with_caching({"pipeline_spec": nested(), "platform_spec": platform}, enabled=False)
    assert found is not None
    assert (options(found["pipeline_spec"])["tell"], found["platform_spec"]) == ({"enableCache": False}, platform)
