from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow import embedded, step, wait_for
from tests.support.kubeflow_project import UNSTAMPED, FlowProject, told
from trainshed.errors import RemoteError, UsageError
from trainshed.ledger.records import Event
from trainshed.local.kubeflow.runs import Runs, settled, write_status
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages import following
from trainshed.stages.launch import launch
from trainshed.stages.upload import upload
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import NotFound, Run

pytestmark = pytest.mark.sockets

MODEL = {"uri": "file:///model", "type": "system.Model", "metadata": {"rows": 3}}
GOOD = {"name": "train", "state": "SUCCEEDED", "parameters": {"auc": 0.9}, "artifacts": {"model": MODEL}}
BAD = {"name": "train", "state": "FAILED", "error": "exit code 3", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:07Z"}


class Lab:
    """The project, and the runs of the Kubeflow that it uploads to: a test plays the tasks."""

    def __init__(self, flows: FlowProject, runs: Runs) -> None:
        self.flows, self.runs = flows, runs

    def folder(self) -> Path:
        found = wait_for(lambda: sorted(path.parent for path in self.runs.folder(".").glob("*-*/status.json")), bool)
        return Path(found[-1])

    def write(self, *tasks: dict[str, Any], state: str = "RUNNING", error: str = "") -> None:
        write_status(self.folder(), {"state": state, "error": error, "tasks": list(tasks)})

    def write_newest(self, but: str, *tasks: dict[str, Any]) -> None:
        """Let the run that comes beside another one succeed."""
        folders = lambda: [path.parent for path in self.runs.folder(".").glob("*-*/status.json") if path.parent.name != but]  # noqa: E731
        write_status(wait_for(folders, bool)[0], {"state": "SUCCEEDED", "error": "", "tasks": list(tasks)})

    @contextmanager
    def playing(self, *steps: Any) -> Iterator[None]:
        """Call the steps one after the other beside the test."""
        thread = threading.Thread(target=lambda: [one() for one in steps])
        thread.start()
        yield
        thread.join()

    def launch(self, **options: Any) -> tuple[Report, str]:
        with self.flows.open() as context:
            return launch(context, (), **{"local_images": True, **options}), told(context)

    def events(self) -> list[Event]:
        with self.flows.open() as context:
            return [event for event in context.ledger.events("run", "local", "training") if event.document["state"] != "ASKED"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(following, "_FIRST_PAUSE", 0.01)
    with embedded(tmp_path / "kubeflow") as (address, runs):
        flows = FlowProject(tmp_path / "project", address)
        flows.settle()
        with flows.open() as context:
            upload(context, ())
        yield Lab(flows, runs)


def only(report: Report) -> Result:
    (result,) = report.results
    return result


def test_a_run_that_nobody_waits_for_is_started_and_recorded(lab: Lab) -> None:
    report, said = lab.launch(parameters={"rate": "0.25"})
    result = only(report)
    assert (result.status, result.details["parameters"], result.details["state"]) == (Status.DONE, {"rate": 0.25}, "RUNNING")
    assert f"run {result.details['run_id']}" in said
    (event,) = lab.events()
    assert (event.key, event.document["state"], event.document["followed"]) == (result.details["run_id"], "STARTED", False)


def test_a_followed_run_tells_every_task_and_its_model_may_be_deployed(lab: Lab) -> None:
    with lab.playing(
        lambda: lab.write({"name": "train", "state": "RUNNING"}),
        lambda: lab.write(GOOD, state="SUCCEEDED"),
    ):
        report, said = lab.launch(wait=True, gates=["auc >= 0.8", "rows == 3"])
    result = only(report)
    assert (result.status, result.details["metrics"]) == (Status.DONE, {"train.auc": 0.9, "train.model.rows": 3.0})
    assert [gate["passed"] for gate in result.details["gates"]] == [True, True]
    assert "launch training: train SUCCEEDED" in said
    assert [(case.name, case.suite, case.failure) for case in result.cases] == [
        ("train", "training", ""),
        ("gate auc >= 0.8", "training", ""),
        ("gate rows == 3", "training", ""),
    ]
    newest = lab.events()[0].document
    assert (newest["state"], newest["good"]) == ("SUCCEEDED", True)
    assert newest["artifacts"] == {"train.model": {"uri": "file:///model", "type": "system.Model"}}


def test_a_failing_step_fails_the_stage_with_the_end_of_its_log(lab: Lab) -> None:
    def fail() -> None:
        log = lab.folder() / "logs" / "train.log"
        log.parent.mkdir()
        log.write_text("epoch 1\nthe last words\n")
        lab.write(BAD, {"name": "after", "state": "SKIPPED"}, state="FAILED", error="task train: exit code 3")

    with lab.playing(fail):
        report, said = lab.launch(wait=True)
    result = only(report)
    assert (report.exit_code, result.status, result.log) == (1, Status.FAILED, "build/logs/training.train.log")
    assert "task train: exit code 3" in result.message
    assert "the last words" in said
    assert [(case.name, case.failure, case.skipped, case.seconds) for case in result.cases] == [
        ("train", "exit code 3", "", 7.0),
        ("after", "", "skipped", 0.0),
    ]
    assert lab.events()[0].document["good"] is False


def test_a_missed_gate_fails_the_stage_and_the_model_may_not_be_deployed(lab: Lab) -> None:
    with lab.playing(lambda: lab.write(GOOD, state="SUCCEEDED")):
        report, _ = lab.launch(gates=["auc >= 0.95", "nothing > 0"])
    result = only(report)
    assert report.exit_code == 1
    assert "auc is 0.9" in result.message
    assert "no metric 'nothing'" in result.message
    newest = lab.events()[0].document
    assert (newest["state"], newest["good"], newest["gates"][0]["value"]) == ("SUCCEEDED", False, 0.9)
    cases = {case.name: case.failure for case in result.cases if case.name.startswith("gate ")}
    assert cases == {"gate auc >= 0.95": "gate auc >= 0.95: auc is 0.9", "gate nothing > 0": result.message.splitlines()[1]}


def test_a_deadline_ends_the_run(lab: Lab) -> None:
    report, _ = lab.launch(wait=True, deadline=0.01)
    assert report.exit_code == 1
    assert "the deadline passed" in only(report).message
    assert lab.runs.terminating(lab.folder().name)


def test_an_interruption_ends_the_run_and_the_next_launch_starts_another(lab: Lab) -> None:
    def interrupt() -> None:
        wait_for(lab.events, bool)
        process.stopping.set()

    with lab.playing(interrupt), lab.flows.open() as context:
        report = launch(context, (), wait=True, local_images=True)
        assert (report.exit_code, only(report).status, only(report).details["state"]) == (130, "aborted", "CANCELED")
        assert "terminated" in told(context)
    process.stopping.clear()
    first = lab.folder().name
    assert lab.runs.terminating(first)
    assert lab.events()[0].document["state"] == "CANCELED"
    assert only(lab.launch()[0]).details["run_id"] != first


def test_a_run_whose_command_was_killed_is_taken_up_by_the_same_launch(lab: Lab) -> None:
    first = only(lab.launch(parameters={"rate": "0.25"})[0]).details["run_id"]
    with lab.flows.open() as context:
        left = {**lab.events()[0].document, "followed": True, "owner": f"{_other_owner()}"}
        context.ledger.record_event("run", "local", "training", first, left)
    with lab.playing(lambda: lab.write(GOOD, state="SUCCEEDED")):
        report, said = lab.launch(parameters={"rate": 0.25}, wait=True)
    assert only(report).details["run_id"] == first
    assert "taking up run" in said
    assert only(lab.launch(parameters={"rate": 0.25})[0]).details["run_id"] != first


def test_no_second_run_is_started_while_the_first_cannot_be_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = only(lab.launch()[0]).details["run_id"]
    with lab.flows.open() as context:
        left = {**lab.events()[0].document, "followed": True, "owner": f"{_other_owner()}"}
        context.ledger.record_event("run", "local", "training", first, left)

    def away(_client: KubeflowClient, _run: str) -> Run:
        raise RemoteError("Kubeflow is away")

    monkeypatch.setattr(KubeflowClient, "run", away)
    result = only(lab.launch(wait=True)[0])
    assert (result.exit_code, result.message) == (5, "Kubeflow is away")
    assert {event.key for event in lab.events()} == {first}


def _other_owner() -> str:
    from trainshed import owner

    host, pid, _ = owner.mark().split(":")
    return f"{host}:{pid}:1"


def test_a_parameter_of_jenkins_may_hold_several_gates_or_none(lab: Lab) -> None:
    with lab.playing(lambda: lab.write(GOOD, state="SUCCEEDED")):
        report, _ = lab.launch(gates=["\nauc >= 0.8\r\n  \nrows == 3\n"])
    assert [gate["gate"] for gate in only(report).details["gates"]] == ["auc >= 0.8", "rows == 3"]
    report, _ = lab.launch(gates=["", " \n"])
    assert "not followed" in only(report).cause


def test_a_tree_that_was_never_uploaded_is_refused(lab: Lab) -> None:
    lab.flows.template("training", "print('changed')")
    lab.flows.settle()
    with lab.flows.open() as context, pytest.raises(UsageError, match="was not uploaded"):
        launch(context, (), local_images=True)


def test_main_takes_up_no_run_of_a_pull_request(lab: Lab) -> None:
    with lab.flows.open(Tier.PULL_REQUEST) as context:
        first = only(launch(context, (), parameters={"rate": 0.25}, local_images=True)).details["run_id"]
        left = {**context.ledger.events("run", "local", "training")[0].document, "followed": True, "owner": _other_owner()}
        context.ledger.record_event("run", "local", "training", first, left)
    with lab.playing(lambda: lab.write_newest(first, GOOD)), lab.flows.open(Tier.MAIN) as context:
        assert only(launch(context, (), parameters={"rate": 0.25}, wait=True, deadline=120, local_images=True)).details["run_id"] != first


def test_two_pipelines_run_side_by_side_and_one_failure_keeps_the_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.flows.template("another", "print('another')", {"more": step("pass", image=UNSTAMPED)})
    lab.flows.settle()

    def play() -> None:
        folders = wait_for(
            lambda: sorted(path.parent for path in lab.runs.folder(".").glob("*-*/status.json")), lambda found: len(found) == 2
        )
        for folder in folders:
            write_status(folder, settled({"state": "RUNNING", "tasks": [GOOD]}, "SUCCEEDED", ""))

    with lab.flows.open() as context:
        upload(context, ())
    monkeypatch.setattr(following, "_PATIENCE_SECONDS", 30)
    with lab.playing(play):
        report, _ = lab.launch(wait=True)
    assert [(result.name, result.status) for result in report.results] == [("another", Status.DONE), ("training", Status.DONE)]


def test_a_kubeflow_that_goes_away_while_it_is_followed_is_exit_code_5(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PATIENCE_SECONDS", -1)

    def gone(_: KubeflowClient, run_id: str) -> Run:
        raise NotFound(f"run {run_id} not found")

    monkeypatch.setattr(KubeflowClient, "run", gone)
    report, _ = lab.launch(wait=True)
    assert (report.exit_code, "not found" in only(report).message) == (5, True)
