"""How runs end: exit codes, gates, records, and runs that are taken up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.launching import Lab, trained
from trainshed import owner
from trainshed.errors import Interrupted, RemoteError, UsageError, WorkFailed
from trainshed.ledger.store import Ledger
from trainshed.reports import junit
from trainshed.services.spec import ModelSource
from trainshed.settings import Tier
from trainshed.stages.launching import history
from trainshed.stages.models import model_of
from trainshed.tools import process
from trainshed.tools.kubeflow_records import Artifact, Run, Task


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path / "project", monkeypatch)
    made.kubeflow.tasks = (trained(0.9),)
    return made


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 6), ("SKIPPED", 3)])
def test_each_end_has_one_exit_code_and_only_success_is_good(lab: Lab, state: str, code: int) -> None:
    lab.kubeflow.ends = state
    assert lab.report(wait=True).exit_code == code
    newest = lab.records()[0]
    assert (newest["state"], newest["good"]) == (state, code == 0)


def test_the_record_tells_the_tasks_with_their_times_and_cache_hits(lab: Lab) -> None:
    lab.kubeflow.tasks = (trained(0.9, cached=True), Task(id="u", name="inner.tell", state="FAILED"))
    lab.launch(wait=True)
    ended, began = lab.records()
    assert ended["tasks"] == {
        "train": {"seconds": 7.0, "cached": True, "state": "SUCCEEDED"},
        "inner.tell": {"seconds": 0.0, "cached": False, "state": "FAILED"},
    }
    assert (began["state"], began["experiment"], began["name"][:9], "tasks" in began) == ("STARTED", "flows", "training ", False)
    assert ended["artifacts"] == {"train.model": {"uri": "s3://models/1", "type": "system.Model"}}


def serves(lab: Lab, uri: str, extra: str = "") -> None:
    """Have a service take its model from the pipeline, whose run gives it at an address."""
    service = lab.flows.root / "components" / "answer" / "service.yaml"
    service.parent.mkdir(parents=True, exist_ok=True)
    service.write_text(f"name: answer\nport: 80\nmodel: {{pipeline: training, output: train.model}}\n{extra}")
    model = Artifact(name="model", uri=uri, type="system.Model")
    lab.kubeflow.tasks = (replace(trained(0.9), artifacts={"model": model}),)


def test_a_model_that_is_changed_between_its_acceptance_and_its_first_deploy_is_found_out(lab: Lab, tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(b"trained")
    serves(lab, model.as_uri())
    assert lab.launch(wait=True).good
    model.write_bytes(b"poison!")
    with lab.flows.open(Tier.LAPTOP) as context:
        context.__dict__["kubeflow"] = SimpleNamespace(artifacts=lambda _: lab.kubeflow.with_outputs(lab.kubeflow.run("run-1")).artifacts)
        context.__dict__["prediction"] = SimpleNamespace(embedded=True)
        with pytest.raises(WorkFailed, match="the model of run run-1 was changed after the run"):
            model_of(context, ModelSource(pipeline="training", output="train.model"))
    cached = lab.launch(wait=True)
    assert (cached.good, cached.exit_code) == (False, 1)
    assert "the model of run run-2 was changed after the run" in cached.message
    assert "as run run-1 gave it" in cached.message
    assert (lab.records()[0]["good"], lab.records()[0]["refused"]) == (False, cached.message.partition(". Find out")[0])


def test_a_run_whose_model_is_gone_already_is_not_accepted(lab: Lab, tmp_path: Path) -> None:
    serves(lab, (tmp_path / "gone").as_uri())
    assert "the model of run run-1 is gone" in lab.launch(wait=True).message
    assert lab.records()[0]["good"] is False


@pytest.mark.parametrize(
    ("uri", "extra", "said"),
    [
        ("gs://models/1", "", "the model gs://models/1 cannot be read"),
        ("gs://models/1", "count: many", "count: expected a whole number"),
    ],
)
def test_a_model_whose_checksum_cannot_be_taken_yet_is_said_and_the_run_is_good(lab: Lab, uri: str, extra: str, said: str) -> None:
    serves(lab, uri, extra)
    assert lab.launch(wait=True).good
    assert "the checksum of the model for answer is not kept yet" in lab.said
    assert said in lab.said
    assert lab.records()[0]["good"] is True


def test_a_gate_against_the_last_accepted_run_passes_the_first_time_and_says_so(lab: Lab) -> None:
    assert lab.launch(gates=["auc >= best - 0.01"]).good
    assert "no accepted run has it yet" in lab.said
    lab.kubeflow.tasks = (trained(0.895),)
    second = lab.launch(gates=["auc >= best - 0.01"])
    assert (second.good, second.details["gates"][0]["best"], second.details["gates"][0]["best_run"]) == (True, 0.9, "run-1")
    lab.kubeflow.tasks = (trained(0.88),)
    third = lab.launch(gates=["auc >= best - 0.01"])
    assert (third.exit_code, third.good) == (1, False)
    assert "auc is 0.88, wanted >= 0.885; best is 0.895, of run run-2" in third.message
    lab.kubeflow.tasks = (trained(0.89),)
    assert lab.launch(gates=["auc >= best - 0.01"]).details["gates"][0]["best_run"] == "run-2"  # the third was not accepted
    assert lab.records()[0]["gates"][0]["best"] == 0.895


def test_main_is_not_compared_with_a_run_of_a_pull_request(lab: Lab) -> None:
    lab.launch(Tier.PULL_REQUEST, wait=True)
    lab.kubeflow.tasks = (trained(0.5),)
    assert lab.launch(Tier.MAIN, gates=["auc >= best"]).good
    assert not lab.launch(Tier.PULL_REQUEST, gates=["auc > best"]).good


def test_junit_says_what_a_gate_was_judged_against(lab: Lab) -> None:
    lab.launch(wait=True)
    written = junit.write([lab.report(gates=["auc >= best", "auc > 1"])]).decode()
    assert "<system-out>gate auc &gt;= best: auc is 0.9, wanted &gt;= 0.9; best is 0.9, of run run-1</system-out>" in written
    assert 'message="gate auc &gt; 1: auc is 0.9"' in written


def test_an_undefined_metric_is_kept_as_a_word(lab: Lab) -> None:
    lab.kubeflow.tasks = (trained(float("nan")),)
    assert lab.launch(gates=["auc > 0"]).exit_code == 1
    assert (lab.records()[0]["metrics"]["train.auc"], lab.records()[0]["gates"][0]["value"]) == ("nan", "nan")


def test_gates_without_a_store_of_outputs_fail_and_are_judged_later(lab: Lab) -> None:
    lab.kubeflow.unread = RemoteError("the metadata store is away")
    result = lab.launch(gates=["auc >= 0.8"])
    assert (result.exit_code, result.good) == (5, False)
    assert "its gates cannot be judged" in result.message
    assert "`trainshed launch --resume run-1`" in result.message
    assert (lab.records()[0]["state"], lab.records()[0]["good"]) == ("SUCCEEDED", False)
    lab.kubeflow.unread = None
    later = lab.launch(resume="run-1")
    assert (later.good, [gate["passed"] for gate in later.details["gates"]]) == (True, [True])
    assert lab.records()[0]["good"] is True
    assert len(lab.kubeflow.created) == 1


def test_without_gates_unknown_outputs_are_a_warning(lab: Lab) -> None:
    lab.kubeflow.unread = RemoteError("the metadata store is away")
    assert lab.launch(wait=True).good
    assert "the outputs of run run-1 are not known: the metadata store is away" in lab.said


def test_a_run_is_taken_up_with_what_it_was_started_with(lab: Lab) -> None:
    lab.launch(parameters={"rate": "0.25"}, labels={"team": "risk"}, experiment="mine")
    result = lab.launch(resume=" run-1 ", gates=["auc >= 0.95"])
    assert (result.exit_code, result.name, len(lab.kubeflow.created)) == (1, "training", 1)
    facts = {key: result.details[key] for key in ("run_id", "parameters", "labels", "experiment", "version", "version_id")}
    assert facts == {
        "run_id": "run-1",
        "parameters": {"rate": 0.25},
        "labels": {"team": "risk"},
        "experiment": "mine",
        "version": "main-1a2b3c4d-5e6f7a8b",
        "version_id": "v1",
    }


def test_a_gate_of_one_resumption_is_not_kept_for_the_next(lab: Lab) -> None:
    lab.launch(gates=["auc >= 0.8"])
    assert lab.launch(resume="run-1", gates=["auc >= 2", "auc >= 0.8"]).exit_code == 1
    assert lab.records()[0]["gates_wanted"] == ["auc >= 0.8"]
    assert [gate["gate"] for gate in lab.launch(resume="run-1").details["gates"]] == ["auc >= 0.8"]


def test_a_run_is_taken_up_by_the_address_of_its_page_too(lab: Lab) -> None:
    lab.launch()
    assert lab.launch(resume="https://kubeflow.example.org/#/runs/details/run-1").details["run_id"] == "run-1"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_finished_run_is_judged_at_once(lab: Lab, state: str) -> None:
    lab.launch()
    lab.kubeflow.ends = state
    assert lab.report(resume="run-1").exit_code == {"FAILED": 1, "CANCELED": 6}[state]


def test_a_run_without_a_record_is_known_by_its_version(lab: Lab) -> None:
    lab.launch(parameters={"rate": 0.25})
    lab.forget()
    result = lab.launch(resume="run-1", gates=["auc >= 0.8"])
    assert (result.good, result.name, result.details["parameters"]) == (True, "training", {"rate": 0.25})
    assert "the ledger has no record of it" in result.cause
    assert lab.records()[0]["good"] is True


def test_a_run_of_its_own_specification_is_known_by_its_description(lab: Lab) -> None:
    lab.launch(caching=True)
    lab.forget()
    result = lab.launch(resume="run-1")
    assert (result.name, result.details["version"]) == ("training", "main-1a2b3c4d-5e6f7a8b")


def test_a_run_without_a_record_gives_main_no_model_unless_main_knows_its_version(lab: Lab) -> None:
    lab.launch(Tier.PULL_REQUEST)
    lab.record_upload(Tier.PULL_REQUEST)
    assert lab.launch(Tier.MAIN, resume="run-1").good
    assert "its model is not taken for a service" in lab.said
    assert lab.records(Tier.MAIN)[0]["good"] is False
    lab.launch(Tier.MAIN, resume="run-1")
    assert lab.records(Tier.MAIN)[0]["good"] is False  # its own record makes it no better
    lab.launch(Tier.PULL_REQUEST)
    lab.record_upload(Tier.MAIN)
    lab.launch(Tier.MAIN, resume="run-2")
    assert lab.records(Tier.MAIN)[0]["good"] is True


def test_a_run_of_nothing_that_is_known_is_refused(lab: Lab) -> None:
    lab.kubeflow.known["r"] = Run(id="r", name="somebody's", state="RUNNING", description="mine")
    with pytest.raises(UsageError, match="run r 'somebody's' is of no pipeline that is known here"):
        lab.launch(resume="r")
    with pytest.raises(UsageError, match="there is no run 'nothing' to take up"):
        lab.launch(resume="nothing")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"parameters": {"rate": "1"}}, "-p"),
        ({"profile": "quick", "labels": {"a": "b"}}, "--profile, --label"),
        ({"local_images": True, "caching": False, "experiment": "x"}, "--local-images, --cache, --experiment"),
        ({"wait": False}, "--no-wait"),
    ],
)
def test_what_says_how_to_start_a_run_is_refused_beside_one_that_was_started(lab: Lab, options: Any, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.launch(resume="run-1", **options)
    assert f": {named} can change nothing of it" in caught.value.message
    assert lab.kubeflow.asked == []


def test_a_blank_run_is_none_at_all(lab: Lab) -> None:
    with pytest.raises(UsageError, match="--resume: which run"):
        lab.launch(resume=" ")


def test_a_run_that_ended_while_the_command_was_told_to_end_is_told_as_not_judged(lab: Lab) -> None:
    lab.kubeflow.unread = Interrupted("interrupted")
    report = lab.report(gates=["auc >= 0.8"])
    (result,) = report.results
    assert (report.exit_code, result.status) == (130, "aborted")
    assert "run run-1 SUCCEEDED, and was not judged" in result.message
    assert "terminate run-1" not in lab.kubeflow.asked


class Killed(BaseException):
    """The command is gone, and nothing of it is done any more."""


def kill(lab: Lab, monkeypatch: pytest.MonkeyPatch, *, started: bool) -> None:
    """Have a launch killed while Kubeflow is asked for the run, which was ``started``, or not."""
    create = lab.kubeflow.create_run

    def killed(*given: Any, **more: Any) -> Run:
        if started:
            create(*given, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lab.kubeflow, "create_run", killed)
        with pytest.raises(Killed):
            lab.launch(gates=["auc >= 0.95"])
    monkeypatch.setattr(owner, "alive", lambda _: False)


def test_a_run_whose_start_was_never_heard_of_is_taken_up_and_no_second_one_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(lab, monkeypatch, started=True)
    assert lab.launch(gates=["auc >= 0.8"]).details["run_id"] == "run-1"
    assert ("taking up run run-1" in lab.said, len(lab.kubeflow.created)) == (True, 1)
    assert lab.launch(gates=["auc >= 0.8"]).details["run_id"] == "run-2"  # the first has been judged


def test_a_run_that_was_never_started_is_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(lab, monkeypatch, started=False)
    assert lab.launch(gates=["auc >= 0.8"]).details["run_id"] == "run-1"


def test_a_run_whose_start_was_never_heard_of_is_judged_by_the_gates_it_was_to_have(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(lab, monkeypatch, started=True)
    result = lab.launch(resume="run-1")
    assert (result.exit_code, result.message) == (1, "gate auc >= 0.95: auc is 0.9")
    assert lab.records()[0]["version_commit"] == "c" * 40


def test_best_is_found_behind_any_number_of_failures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.launch(wait=True)
    lab.kubeflow.tasks = (trained(0.5),)
    monkeypatch.setattr(history, "LOOKED_AT", 2)
    for _ in range(2):
        assert lab.launch(gates=["auc >= best"]).exit_code == 1


def test_an_old_run_that_is_judged_again_is_not_the_last_accepted_one(lab: Lab, tmp_path: Path) -> None:
    for auc in (0.5, 0.9):
        lab.kubeflow.tasks = (trained(auc),)
        lab.launch(wait=True)
    lab.kubeflow.tasks = (trained(0.5),)
    lab.launch(resume="run-1")
    assert "wanted >= 0.9; best is 0.9, of run run-2" in lab.launch(gates=["auc >= best"]).message
    source = ModelSource(pipeline="training", output="model")
    models = {run_id: tmp_path / run_id for run_id in ("run-1", "run-2")}
    for run_id, file in models.items():
        file.write_text(run_id)
    with lab.flows.open() as context:
        context.__dict__["kubeflow"] = SimpleNamespace(
            artifacts=lambda run_id: {"train.model": Artifact(name="model", uri=str(models[run_id]))}
        )
        context.__dict__["prediction"] = SimpleNamespace(embedded=True)
        assert model_of(context, source).uri == str(models["run-2"])


def test_a_run_that_may_go_on_after_an_interruption_is_for_the_next_command(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> None:
        raise RemoteError("Kubeflow is away")

    lab.kubeflow.ends = "RUNNING"
    with monkeypatch.context() as patch:
        patch.setattr(lab.kubeflow, "terminate", away)
        patch.setattr(process, "pause", interrupt)
        (result,) = lab.report(wait=True).results
    assert "run run-1 may still be running: Kubeflow is away" in result.message
    assert (lab.records()[0]["state"], result.details["state"]) == ("STARTED", "RUNNING")
    monkeypatch.setattr(owner, "alive", lambda _: False)
    lab.kubeflow.ends = "SUCCEEDED"
    assert lab.launch(wait=True).details["run_id"] == "run-1"


def test_a_run_that_succeeded_while_it_was_told_to_end_is_kept_as_it_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def ending(_: str) -> None:
        lab.kubeflow.ends = "SUCCEEDED"

    lab.kubeflow.ends = "RUNNING"
    monkeypatch.setattr(lab.kubeflow, "terminate", ending)
    monkeypatch.setattr(process, "pause", interrupt)
    (result,) = lab.report(wait=True).results
    assert "run run-1 SUCCEEDED, and was not judged" in result.message
    assert (lab.records()[0]["state"], lab.records()[0]["good"]) == ("SUCCEEDED", False)


def interrupt(seconds: float) -> None:
    """Have SIGTERM arrive during the first pause."""
    if seconds:
        raise Interrupted("interrupted")


def test_a_run_that_nobody_follows_is_ended_too_when_its_command_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    create = lab.kubeflow.create_run

    def created(*given: Any, **more: Any) -> Run:
        process.stopping.set()
        return create(*given, **more)

    monkeypatch.setattr(lab.kubeflow, "create_run", created)
    lab.kubeflow.ends = "CANCELING"
    assert lab.report().exit_code == 130
    assert "terminate run-1" in lab.kubeflow.asked


def test_a_deadline_that_would_end_nothing_is_warned_of(lab: Lab) -> None:
    lab.launch(deadline=60)
    assert "--deadline ends runs that are followed" in lab.said
    lab.launch(deadline=60, gates=["auc > 0"])
    assert "--deadline" not in lab.said


def test_a_ledger_that_cannot_keep_a_run_starts_none(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RemoteError("the database is away")

    monkeypatch.setattr(Ledger, "record_event", full)
    result = lab.launch(wait=True)
    assert (result.exit_code, result.message, lab.kubeflow.created) == (5, "the database is away", [])


def test_a_ledger_that_cannot_keep_a_run_is_said_with_the_way_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Ledger.record_event

    def full(ledger: Ledger, *given: Any) -> None:
        if lab.kubeflow.created:
            raise RemoteError("the database is away")
        keep(ledger, *given)

    monkeypatch.setattr(Ledger, "record_event", full)
    result = lab.launch(wait=True)
    assert (result.exit_code, result.status) == (5, "failed")
    assert "run run-1 was started and goes on, but the ledger cannot keep it: the database is away" in result.message
    assert "`trainshed launch --resume run-1`" in result.message
