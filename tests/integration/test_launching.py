"""Launches on a server that keeps Kubeflow's rules: what it is asked for, what is lost on the way, and how runs are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow_project import FlowProject, told
from tests.support.kubeflow_server import Fault, StrictServer
from tests.support.nested_pipeline import compiled
from trainshed.errors import UsageError
from trainshed.pipelines import caching, documents
from trainshed.results import Report, Result
from trainshed.settings import Tier
from trainshed.stages import following
from trainshed.stages.launch import launch
from trainshed.stages.upload import upload

RUNS = "/apis/v2beta1/runs"
STORE = "/ml_metadata.*"
SETTINGS = """
[profiles.quick]
parameters = { rate = 0.1 }
gates = ["auc >= best - 0.01"]
experiment = "quick looks"
"""


class Lab:
    """A project whose pipeline is in the server, and what its launches say."""

    def __init__(self, root: Path, server: StrictServer) -> None:
        self.server, self.flows, self.said = server, FlowProject(root, server.address), ""
        (root / "pipeline_templates" / "training.toml").write_text(SETTINGS)
        file = root / "trainshed.toml"
        file.write_text(f'{file.read_text()}kubeflow.namespace = "risk"\nkubeflow.service-account = "runner"\n')
        self.flows.commit()
        self.flows.settle()
        with self.flows.open(Tier.MAIN) as context:
            assert upload(context).exit_code == 0
        self.trains(0.9)

    def trains(self, auc: float, *states: str) -> None:
        """Say how the runs go that are started from now."""
        script = self.server.runs.default
        changed = {"states": states or ("RUNNING", "SUCCEEDED"), "parameters": {"train": {"auc": auc}}}
        self.server.runs.default = type(script)(**{**vars(script), **changed})

    def report(self, tier: Tier = Tier.LAPTOP, **options: Any) -> Report:
        with self.flows.open(tier) as context:
            try:
                return launch(context, (), **options)
            finally:
                self.said = told(context)

    def launch(self, tier: Tier = Tier.LAPTOP, **options: Any) -> Result:
        (result,) = self.report(tier, **options).results
        return result

    def bodies(self) -> list[Mapping[str, Any]]:
        """Return what runs were asked for."""
        return [json.loads(asked.body) for asked in self.server.asked("POST", RUNS)]

    def newest(self) -> Mapping[str, Any]:
        with self.flows.open() as context:
            return context.ledger.events("run", "local", "training")[0].document


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)
    monkeypatch.setattr(following, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 0.05)
    server = StrictServer(multi_user=True)
    with server.serve():
        yield Lab(tmp_path / "project", server)


def test_a_profile_is_launched_of_what_ci_uploaded_and_held_to_the_last_accepted_run(lab: Lab) -> None:
    first = lab.launch(profile="quick")
    assert (first.good, first.details["metrics"]) == (True, {"train.auc": 0.9})
    assert ("uploaded for commit" in first.cause, "no accepted run has it yet" in lab.said) == (True, True)
    lab.trains(0.85)
    second = lab.launch(profile="quick")
    assert (second.exit_code, second.good, lab.newest()["good"]) == (1, False, False)
    assert "auc is 0.85, wanted >= 0.89; best is 0.9" in second.message
    body = lab.bodies()[0]
    assert (body["service_account"], body["runtime_config"]["parameters"]) == ("runner", {"rate": 0.1})
    assert body["description"].startswith(f"pipeline: training\nversion: {first.details['version']}\ncommit: ")
    assert lab.newest()["experiment"] == "quick looks"


@pytest.mark.parametrize("kind", ["cut", "503", "wrong-json"])
def test_a_creation_whose_answer_is_lost_starts_no_second_run(lab: Lab, kind: str) -> None:
    lab.server.faults.add(Fault("POST", RUNS, kind=kind, after=True))
    result = lab.launch(wait=True)
    assert (result.good, len(lab.server.runs)) == (True, 1)
    assert lab.newest()["run_id"] == result.details["run_id"]


def test_a_store_that_is_away_passes_no_gate_and_the_run_is_judged_later(lab: Lab) -> None:
    lab.server.faults.add(Fault("POST", STORE, kind="500", times=None))
    result = lab.launch(gates=["auc >= 0.8"])
    assert (result.exit_code, lab.newest()["good"]) == (5, False)
    assert "its gates cannot be judged" in result.message
    lab.server.faults.clear()
    later = lab.launch(resume=result.details["run_id"])
    assert (later.good, lab.newest()["good"], len(lab.server.runs)) == (True, True, 1)


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 6), ("SKIPPED", 3)])
def test_each_end_of_a_run_has_one_exit_code(lab: Lab, state: str, code: int) -> None:
    lab.trains(0.9, "RUNNING", state)
    assert lab.report(wait=True, gates=["auc > 0"]).exit_code == code
    assert lab.newest()["state"] == state


def test_a_switched_cache_runs_a_specification_of_its_own_that_can_be_taken_up_without_a_record(lab: Lab) -> None:
    result = lab.launch(caching=True, wait=True)
    (body,) = lab.bodies()
    spec = body["pipeline_spec"]
    assert "pipeline_version_reference" not in body
    assert [task["cachingOptions"] for task in spec["root"]["dag"]["tasks"].values()] == [{"enableCache": True}]
    (lab.flows.root / ".trainshed" / "ledger.sqlite").unlink()
    again = lab.launch(resume=result.details["run_id"], gates=["auc >= 0.9"])
    assert (again.good, again.name, again.details["version"]) == (True, "training", result.details["version"])


def test_a_kubeflow_of_another_kind_is_refused_before_any_run(lab: Lab) -> None:
    lab.server.state.multi_user = False
    with pytest.raises(UsageError, match="no namespaces"):
        lab.report()
    assert len(lab.server.runs) == 0


def test_kfp_takes_a_pipeline_of_everything_whose_cache_was_switched() -> None:
    from kfp.components import load_component_from_text

    text = compiled()
    read = documents.load(text, place="everything")
    off = caching.with_caching(read[0], enabled=False)
    assert off is not None
    switched = documents.dump("", [off, *read[1:]])
    assert (switched.count("enableCache: true"), switched.count("enableCache: false")) == (0, text.count("enableCache: true"))
    assert caching.with_caching(off, enabled=True) == read[0]
    load_component_from_text(switched)
