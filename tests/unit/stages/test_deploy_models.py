"""Where a service's model comes from, and that it is deployed with the image as one pair."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import client as ecs_client
from tests.support.scripted_ecs import complete
from trainshed.errors import UsageError, WorkFailed
from trainshed.ledger.store import Ledger
from trainshed.results import Status
from trainshed.services.spec import ModelSource
from trainshed.settings import Tier
from trainshed.stages import models
from trainshed.stages.deploying import checksums, records
from trainshed.tools.kubeflow_records import Artifact, Run

pytestmark = pytest.mark.sockets


@dataclass
class Runs:
    """A Kubeflow that knows some runs."""

    states: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, Artifact]] = field(default_factory=dict)

    def run(self, run_id: str) -> Run:
        """Return a run."""
        return Run(id=run_id, name=run_id, state=self.states[run_id])

    def artifacts(self, run_id: str) -> dict[str, Artifact]:
        """Return its artifacts."""
        return self.outputs.get(run_id, {})


@pytest.fixture
def kubeflow() -> Runs:
    return Runs()


@pytest.fixture
def desk(desk: Desk, kubeflow: Runs) -> Desk:
    """Return a desk whose service takes its model from a pipeline."""
    desk.context.__dict__["kubeflow"] = kubeflow
    desk.service(SERVICE + "model: {pipeline: training, output: train.model}\n")
    return desk


def trained(desk: Desk, kubeflow: Runs, run_id: str, *, good: bool = True, state: str = "SUCCEEDED", followed: bool = True) -> Path:
    """Record a run with its model."""
    model = desk.root / "runs" / run_id / "a model.json"
    model.parent.mkdir(parents=True)
    model.write_text(run_id)
    kubeflow.outputs[run_id] = {"train.model": Artifact(name="model", uri=model.as_uri(), type="system.Model")}
    document = {"run_id": run_id, "state": state, "good": good, "followed": followed}
    desk.context.ledger.record_event("run", "local", "training", run_id, document)
    return model


def test_the_newest_good_run_gives_the_model_and_a_newer_one_is_another_revision(desk: Desk, kubeflow: Runs) -> None:
    first = trained(desk, kubeflow, "run-1")
    trained(desk, kubeflow, "run-2", good=False)
    desk.ecs.steps = [complete]
    result = desk.result()
    assert result.status is Status.DONE, result.message
    assert result.details["model"] == {"uri": first.as_uri(), "run_id": "run-1", "sha256": hashlib.sha256(b"run-1").hexdigest()}
    sent = desk.ecs.sent("RegisterTaskDefinition")[0]
    assert sent["volumes"][0]["host"]["sourcePath"] == str(first)
    assert desk.result().status is Status.CACHED
    trained(desk, kubeflow, "run-3")
    desk.ecs.requests.clear()
    desk.ecs.steps = [complete]
    result = desk.result()
    assert result.cause == "new model"
    assert any("MODEL_RUN_ID.value: run-1 → run-3" in change for change in result.details["changes"])
    assert (result.details["revision"], result.details["previous"]) == ("answer:2", "answer:1")


def test_a_run_that_nobody_followed_counts_when_kubeflow_says_that_it_succeeded(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1", good=False, state="STARTED", followed=False)
    trained(desk, kubeflow, "run-2", good=False, state="STARTED", followed=False)
    trained(desk, kubeflow, "run-3", good=False, state="STARTED")
    kubeflow.states = {"run-1": "SUCCEEDED", "run-2": "FAILED", "run-3": "SUCCEEDED"}
    desk.ecs.steps = [complete]
    assert desk.result().details["model"]["run_id"] == "run-1"


def test_without_a_good_run_nothing_is_deployed(desk: Desk) -> None:
    result = desk.result()
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "no run of training has succeeded in local" in result.message
    assert desk.ecs.changes() == []


def test_a_release_takes_no_model_of_a_pull_request_or_a_laptop(desk: Desk, kubeflow: Runs) -> None:
    desk.context.tier = Tier.MAIN
    ledger = f"sqlite:///{desk.root / '.trainshed' / 'ledger.sqlite'}"
    for tier in (Tier.PULL_REQUEST, Tier.LAPTOP):
        with Ledger.open(ledger, tier=tier) as below:
            below.record_event("run", "local", "training", "run-of-others", {"run_id": "run-of-others", "state": "SUCCEEDED", "good": True})
    assert "no run of training has succeeded" in desk.result().message
    trained(desk, kubeflow, "run-of-main")
    with Ledger.open(ledger, tier=Tier.PULL_REQUEST) as below:
        below.record_event("run", "local", "training", "run-of-main", {"run_id": "run-of-main", "state": "SUCCEEDED", "good": False})
        below.record_event("run", "local", "training", "run-later", {"run_id": "run-later", "state": "SUCCEEDED", "good": True})
    desk.ecs.steps = [complete]
    assert desk.result().details["model"]["run_id"] == "run-of-main"


def test_a_release_goes_back_to_no_revision_that_only_a_pull_request_has_proven(desk: Desk) -> None:
    desk.context.tier = Tier.MAIN
    with Ledger.open(f"sqlite:///{desk.root / '.trainshed' / 'ledger.sqlite'}", tier=Tier.PULL_REQUEST) as below:
        below.record_event("deployment", "local", "answer", "answer:66", {"good": True})
    assert records.proven(desk.context, "answer") == []
    desk.context.ledger.record_event("deployment", "local", "answer", "answer:1", {"good": True})
    assert [known.revision for known in records.proven(desk.context, "answer")] == ["answer:1"]


def test_an_output_that_the_run_does_not_have_is_a_usage_error_with_a_suggestion(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1")
    desk.service(SERVICE + "model: {pipeline: training, output: train.modl}\n")
    result = desk.result()
    assert result.exit_code == UsageError.exit_code
    assert "perhaps you meant 'train.model'" in result.message
    kubeflow.outputs.clear()
    assert "its tasks gave no artifacts" in desk.result().message


def test_an_output_of_a_nested_pipeline_is_found_by_the_end_of_its_path_while_it_is_the_only_one(desk: Desk, kubeflow: Runs) -> None:
    model = trained(desk, kubeflow, "run-1")
    outputs = kubeflow.outputs["run-1"]
    outputs["condition-1.train.model"] = outputs.pop("train.model")
    desk.ecs.steps = [complete]
    assert desk.result().details["model"]["uri"] == model.as_uri()
    outputs["inner.train.model"] = outputs["condition-1.train.model"]
    assert "several outputs 'train.model': condition-1.train.model, inner.train.model" in desk.result().message


def test_a_named_run_gives_the_model_when_it_was_accepted(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1")
    trained(desk, kubeflow, "run-2")
    desk.ecs.steps = [complete]
    assert desk.result(from_run="run-1").details["model"]["run_id"] == "run-1"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"state": "SUCCEEDED", "gates": [{"passed": False, "message": "auc is 0.7, not >= 0.8"}]}, "not accepted: auc is 0.7, not >= 0.8"),
        ({"state": "FAILED"}, "its state is FAILED"),
        ({"state": "STARTED", "followed": True}, "did not hold it to its gates"),
        ({"state": "SUCCEEDED", "known": False}, "of a version that nobody vouches for"),
    ],
)
def test_a_named_run_that_was_not_accepted_is_refused_with_the_reason(desk: Desk, kubeflow: Runs, told: dict[str, Any], said: str) -> None:
    trained(desk, kubeflow, "run-1")
    desk.context.ledger.record_event("run", "local", "training", "run-2", {"run_id": "run-2", "good": False, **told})
    result = desk.result(from_run="run-2")
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "run run-2 of training is not accepted: " in result.message
    assert said in result.message
    assert desk.ecs.changes() == []


def test_a_named_run_that_is_unknown_or_of_another_pipeline_is_refused(desk: Desk) -> None:
    assert "run run-9 is not known in local" in desk.result(from_run="run-9").message
    desk.context.ledger.record_event("run", "local", "other", "run-3", {"run_id": "run-3", "state": "SUCCEEDED", "good": True})
    result = desk.result(from_run="run-3")
    assert "run run-3 is of other, and the model is training's" in result.message
    assert result.exit_code == UsageError.exit_code


def test_the_checksum_of_the_model_is_told_to_the_task(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1")
    desk.ecs.steps = [complete]
    desk.result()
    variables = desk.ecs.sent("RegisterTaskDefinition")[0]["containerDefinitions"][0]["environment"]
    assert {"name": "MODEL_SHA256", "value": hashlib.sha256(b"run-1").hexdigest()} in variables


def test_a_model_that_was_changed_after_it_was_first_deployed_is_refused(desk: Desk, kubeflow: Runs) -> None:
    model = trained(desk, kubeflow, "run-1")
    desk.ecs.steps = [complete]
    desk.result()
    desk.ecs.requests.clear()
    model.write_text("poisoned")
    result = desk.result()
    assert "the model of run run-1 was changed after the run" in result.message
    assert hashlib.sha256(b"run-1").hexdigest() in result.message
    assert desk.ecs.changes() == []
    model.write_text("run-1")
    assert desk.result().status is Status.CACHED


def test_a_model_on_this_machine_is_refused_for_fargate(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1")
    desk.context.__dict__["prediction"] = ecs_client(desk.ecs.url, embedded=False)
    with pytest.raises(UsageError, match="where Fargate cannot reach it"):
        models.model_of(desk.context, ModelSource(pipeline="training", output="train.model"))


@pytest.mark.parametrize(
    ("uri", "said"),
    [("gs://bucket/model", "only addresses s3://"), ("s3://bucket", "only addresses s3://"), ("minio://b/m", "lies in MinIO")],
)
def test_an_address_that_cannot_be_read_is_refused(desk: Desk, kubeflow: Runs, uri: str, said: str) -> None:
    trained(desk, kubeflow, "run-1")
    kubeflow.outputs["run-1"] = {"train.model": Artifact(name="model", uri=uri)}
    assert said in desk.result().message


def test_the_checksum_of_a_folder_is_that_of_what_sha256sum_prints(tmp_path: Path) -> None:
    gone = WorkFailed("gone")
    for name, content in (("b", b"2"), ("a/c", b"1"), ("a-b", b"3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in (("a-b", b"3"), ("a/c", b"1"), ("b", b"2"))]
    assert checksums.of_path(tmp_path, gone=gone) == hashlib.sha256("".join(lines).encode()).hexdigest()
    with pytest.raises(WorkFailed, match="gone"):
        checksums.of_path(tmp_path / "none", gone=gone)


def test_a_model_that_is_gone_is_said(desk: Desk, kubeflow: Runs) -> None:
    trained(desk, kubeflow, "run-1").unlink()
    assert "the model of run run-1 is gone" in desk.result().message


@pytest.mark.parametrize(
    ("uri", "path"), [("file:///a%20b/m", "/a b/m"), ("/a/m", "/a/m"), ("s3://bucket/m", ""), ("minio://bucket/m", "")]
)
def test_only_a_local_address_has_a_path(uri: str, path: str) -> None:
    assert models.local_path(uri) == path
