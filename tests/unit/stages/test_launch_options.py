"""What a launch asks of Kubeflow: profile, parameters, experiment, labels, caching, names and descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.launching import SPEC, Lab
from trainshed.errors import RemoteError, UsageError
from trainshed.stages.launching import naming

PROFILE = """
[profiles.quick]
parameters = { rate = 0.1, rows = 5 }
gates = ["auc >= 0.8"]
caching = false
experiment = "quick looks"
labels = { purpose = "look", team = "mine" }
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path / "project", monkeypatch)


def test_the_command_line_wins_over_the_file_of_parameters_and_that_over_the_profile(lab: Lab, tmp_path: Path) -> None:
    lab.settings(PROFILE)
    file = tmp_path / "params.yaml"
    file.write_text("rate: 0.2\nrows: 6\n")
    lab.launch(profile="quick", wait=True)
    lab.launch(profile="quick", params_file=file, wait=True)
    lab.launch(profile="quick", params_file=file, parameters={"rate": "0.3"}, wait=True)
    lab.launch()
    assert [each["parameters"] for each in lab.kubeflow.created] == [
        {"rate": 0.1, "rows": 5},
        {"rate": 0.2, "rows": 6},
        {"rate": 0.3, "rows": 6},
        {},
    ]


def test_a_profile_gives_gates_experiment_labels_and_caching_and_the_command_line_wins(lab: Lab) -> None:
    lab.settings(PROFILE)
    lab.config('kubeflow.experiment = "of all"\nkubeflow.labels = { team = "risk", cost = "7" }\n')
    lab.launch(profile="quick", gates=["auc >= 0.8", "auc < 2"])
    lab.launch(profile="quick", experiment="mine", labels={"purpose": "try"}, caching=True)
    lab.launch()
    first, second, third = lab.kubeflow.created
    assert [each["experiment"] for each in (first, second, third)] == ["id of quick looks", "id of mine", "id of of all"]
    assert [each["specification"] is None for each in (first, second, third)] == [True, False, True]  # no step of it was cached anyway
    _, *records = lab.records()[::-1]
    assert records[0]["gates_wanted"] == ["auc >= 0.8", "auc < 2"]
    labels = [record["labels"] for record in lab.records()[::-1] if record["state"] == "STARTED"]
    assert labels == [
        {"team": "mine", "cost": "7", "purpose": "look"},
        {"team": "mine", "cost": "7", "purpose": "try"},
        {"team": "risk", "cost": "7"},
    ]


def test_without_any_setting_the_experiment_is_the_projects(lab: Lab) -> None:
    result = lab.launch()
    assert lab.kubeflow.created[0]["experiment"] == "id of flows"
    assert (result.details["experiment"], result.details["link"]) == ("flows", "https://kubeflow.example.org/#/runs/details/run-1")


def test_the_environment_gives_service_account_and_pipeline_root(lab: Lab) -> None:
    lab.config('kubeflow.service-account = "runner"\nkubeflow.pipeline-root = "s3://bucket/runs"\n')
    lab.launch()
    assert {key: lab.kubeflow.created[0][key] for key in ("service_account", "pipeline_root")} == {
        "service_account": "runner",
        "pipeline_root": "s3://bucket/runs",
    }


def test_a_switched_cache_runs_a_changed_specification_that_the_description_tells(lab: Lab) -> None:
    lab.launch(caching=True)
    (created,) = lab.kubeflow.created
    tasks = created["specification"]["root"]["dag"]["tasks"]
    assert tasks["train"]["cachingOptions"] == {"enableCache": True}
    assert "cachingOptions" not in SPEC["root"]["dag"]["tasks"]["train"]
    assert "version: main-1a2b3c4d-5e6f7a8b (all caching on)" in created["description"]
    assert lab.records()[0]["caching"] is True


def test_the_description_says_what_runs_where_it_comes_from_and_who_started_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.launch(labels={"team": "risk"})
    monkeypatch.setenv("BUILD_URL", "https://ci.example.org/job/8/")
    lab.launch()
    first, second = (each["description"].splitlines() for each in lab.kubeflow.created)
    assert first[:4] == ["pipeline: training", "version: main-1a2b3c4d-5e6f7a8b", "commit: cccccccccccc", "label team: risk"]
    assert first[4].startswith("by: ")
    assert "@" in first[4]
    assert first[5:] == ["build: https://ci.example.org/job/7/"]
    assert second[3:] == ["by: https://ci.example.org/job/8/", "build: https://ci.example.org/job/7/"]


def test_a_description_fits_the_servers_column_and_what_does_not_is_said(lab: Lab) -> None:
    lab.launch(labels={f"label-{number}": "x" * 60 for number in range(6)})
    assert len(lab.kubeflow.created[0]["description"]) <= 255
    assert "no room in the run's description for label label-2: xxx" in lab.said
    assert len(lab.records()[0]["labels"]) == 6


def test_no_two_runs_have_one_name() -> None:
    assert len({naming.run_name("training") for _ in range(50)}) == 50
    assert naming.run_name("training").startswith("training 2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": ["auc over 1"]}, "gate 'auc over 1'"),
        ({"gates": ["auc > 1"], "wait": False}, "judged at the end of a run"),
        ({"params_file": Path("/nowhere/params.yaml")}, "cannot be read"),
        ({"profile": "quikc"}, "pipeline_templates/training.toml: no profile 'quikc'; perhaps you meant 'quick'"),
        ({"profile": "quick", "wait": False}, "a gate is judged at the end of a run: auc >= 0.8"),
        ({"labels": {"a b": "c"}}, "--label a b=c: expected at most 63"),
        ({"labels": {"a": "x" * 64}}, "expected at most 63"),
        ({"experiment": "x" * 129}, "longer than 128 characters"),
        ({"gates": ["auc >= best / 2"]}, "gate 'auc >= best / 2'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(lab: Lab, options: Any, message: str) -> None:
    lab.settings(PROFILE)
    with pytest.raises(UsageError) as caught:
        lab.launch(**options)
    assert message in caught.value.message
    assert lab.kubeflow.asked == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"rat": "1"}, "perhaps you meant 'rate'"), ({"rate": "high"}, "expected a number"), ({"rows": 2**60}, "more than 2^53")],
)
def test_parameters_that_do_not_fit_start_nothing(lab: Lab, parameters: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.launch(parameters=parameters)
    assert message in caught.value.message
    assert (lab.kubeflow.created, lab.records()) == ([], [])


@pytest.mark.parametrize("text", ["", "\n", "# none\n"])
def test_an_empty_file_of_parameters_is_none(lab: Lab, tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    assert lab.launch(params_file=tmp_path / "params.yaml").details["parameters"] == {}


def test_a_profile_without_a_file_says_where_it_would_be(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"pipeline_templates/training.toml: no profile 'quick'") as caught:
        lab.launch(profile="quick")
    assert caught.value.next_step == "Known profiles: none."


def test_nothing_is_begun_with_a_kubeflow_that_is_not_ready(lab: Lab) -> None:
    lab.kubeflow.not_ready = RemoteError("session expired")
    with pytest.raises(RemoteError, match="session expired"):
        lab.launch()
    assert lab.kubeflow.asked == ["ready"]


def test_a_server_that_is_older_than_the_sdk_is_said(lab: Lab) -> None:
    lab.launch()
    assert "older than kfp-2.17.0" in lab.said
