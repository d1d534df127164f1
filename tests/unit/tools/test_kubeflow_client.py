from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow import Said, Scripted, embedded, said, specification, step, text
from trainshed.errors import RemoteError, UsageError
from trainshed.local.kubeflow.runs import Runs, read_status, write_status
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Artifact, Conflict, NotFound, Run, Task

pytestmark = pytest.mark.sockets

SPEC = specification("flow", {"train": step("pass")}, {"rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5}})
HTML = {"Content-Type": "text/html"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[KubeflowClient, Runs]]:
    with embedded(tmp_path) as (address, runs), KubeflowClient(address) as client:
        yield client, runs


def refused(answer: Said, call: Any = None) -> Exception:
    with Scripted(lambda _: answer).serve() as address, KubeflowClient(address) as client:
        with pytest.raises((RemoteError, UsageError)) as caught:
            (call or (lambda client: client.healthz()))(client)
        return caught.value


def test_a_pipeline_gets_versions_with_names_of_their_own_and_their_content_back(served: tuple[KubeflowClient, Runs]) -> None:
    client, _ = served
    assert client.healthz()["multi_user"] is False
    assert client.pipeline_by_name("flow") is None
    pipeline = client.create_pipeline("flow", description="d")
    version = client.upload_version(pipeline.id, "main-1", text(SPEC), description="commit 1")
    assert client.pipeline_by_name("flow") == pipeline
    kept = client.version(pipeline.id, version.id)
    assert (kept.name, kept.description, kept.spec) == ("main-1", "commit 1", SPEC)
    assert [each.name for each in client.versions(pipeline.id)] == ["main-1"]


def test_a_name_that_is_taken_is_a_conflict(served: tuple[KubeflowClient, Runs]) -> None:
    client, _ = served
    pipeline = client.create_pipeline("flow")
    with pytest.raises(Conflict, match="pipeline 'flow' already exists"):
        client.create_pipeline("flow")
    client.upload_version(pipeline.id, "v", text(SPEC))
    with pytest.raises(Conflict, match="version 'v' already exists"):
        client.upload_version(pipeline.id, "v", text(SPEC))


def test_all_pages_of_versions_are_read_the_newest_first(served: tuple[KubeflowClient, Runs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.kubeflow._PAGE", 2)
    client, _ = served
    pipeline = client.create_pipeline("flow")
    for number in range(5):
        client.upload_version(pipeline.id, f"v{number}", text(SPEC))
    assert [each.name for each in client.versions(pipeline.id)] == ["v4", "v3", "v2", "v1", "v0"]


def test_a_run_tells_states_outputs_and_metrics_of_its_tasks(served: tuple[KubeflowClient, Runs]) -> None:
    client, runs = served
    pipeline = client.create_pipeline("flow")
    version = client.upload_version(pipeline.id, "v", text(SPEC))
    experiment = client.experiment("lab")
    assert client.experiment("lab") == experiment
    run = client.create_run(version, {"rate": 0.25}, name="one", experiment=experiment, pipeline_root="/x", service_account="robot")
    assert (run.state, run.parameters, run.version_id, run.finished) == ("RUNNING", {"rate": 0.25}, version.id, False)
    model: dict[str, Any] = {"uri": "file:///m", "type": "system.Model", "metadata": {"rows": 3, "note": "x", "flag": True}}
    told = {"name": "train", "state": "SUCCEEDED", "parameters": {"auc": 0.9}, "artifacts": {"model": model}}
    write_status(runs.folder(run.id), {"state": "SUCCEEDED", "error": "", "tasks": [told]})
    seen = client.run(run.id)
    assert seen.finished
    assert seen.metrics == {"train.auc": 0.9, "train.model.rows": 3.0}
    assert client.artifacts(run.id) == {"train.model": Artifact(name="model", **model)}
    assert [each.id for each in client.runs(experiment=experiment)] == [run.id]


def test_a_run_is_terminated_even_after_sigterm(served: tuple[KubeflowClient, Runs]) -> None:
    client, runs = served
    version = client.upload_version(client.create_pipeline("flow").id, "v", text(SPEC))
    run = client.create_run(version, {}, name="one", experiment=client.experiment("lab"))
    process.stopping.set()
    client.terminate(run.id)
    process.stopping.clear()
    assert runs.terminating(run.id)
    assert client.run(run.id).state == "CANCELING"


def test_the_log_of_a_task_is_read_where_the_server_has_it(served: tuple[KubeflowClient, Runs]) -> None:
    client, runs = served
    version = client.upload_version(client.create_pipeline("flow").id, "v", text(SPEC))
    run = client.create_run(version, {}, name="one", experiment=client.experiment("lab"))
    log = runs.folder(run.id) / "logs" / "train.log"
    log.parent.mkdir()
    log.write_text("epoch 1\n")
    assert client.task_log(run.id, "train") == "epoch 1\n"
    assert client.task_log(run.id, "nothing") is None
    assert read_status(runs.folder(run.id))["state"] == "RUNNING"


def test_an_unknown_run_is_not_found(served: tuple[KubeflowClient, Runs]) -> None:
    with pytest.raises(NotFound, match="not found"):
        served[0].run("nothing")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((302, {"Location": "https://login.example.org/"}, b""), "session expired"),
        ((200, HTML, b"<html>log in</html>"), "session expired"),
        (said({"message": "no"}, 401), "not permitted .HTTP 401.: no"),
        (said({"message": "no"}, 403), "not permitted .HTTP 403.: no"),
        ((500, HTML, b"broken"), "HTTP 500: broken"),
        (said([1]), "expected a JSON object"),
        ((200, {"Content-Type": "application/json"}, b"{"), "expected JSON"),
    ],
)
def test_what_is_not_the_api_is_said(answer: Said, message: str) -> None:
    error = refused(answer)
    assert isinstance(error, RemoteError)
    assert re.search(message, str(error))


def test_an_answer_without_an_id_is_an_error_and_not_an_empty_object() -> None:
    for answer in ({}, {"pipeline_id": ""}, {"pipeline_id": 7}):
        error = refused(said(answer), lambda client: client.create_pipeline("x"))
        assert "without pipeline_id" in str(error)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (said({"error_message": "m", "error_details": "already exists"}, 500), Conflict, "already exists"),
        (said({"error_message": "bad", "error_details": ""}, 400), UsageError, "refused: bad"),
        (said([], 400), UsageError, "refused: no message"),
    ],
)
def test_errors_of_the_upload_endpoints_are_read_in_their_own_shape(answer: Said, kind: type, message: str) -> None:
    error = refused(answer, lambda client: client.upload_version("p", "v", "{}"))
    assert type(error) is kind
    assert re.search(message, str(error))


def test_names_and_files_that_kubeflow_would_cut_are_refused_before_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.kubeflow.PACKAGE_LIMIT", 10)
    script = Scripted(lambda _: said({}))
    with script.serve() as address, KubeflowClient(address) as client:
        with pytest.raises(UsageError, match="expected 1 to 128 characters"):
            client.create_pipeline("x" * 129)
        with pytest.raises(UsageError, match="expected 1 to 127 characters"):
            client.upload_version("p", "", "")
        with pytest.raises(UsageError, match="more than Kubeflow takes"):
            client.upload_version("p", "v", "x" * 11)
    assert script.asked == []


def test_a_pipeline_of_another_namespace_is_not_taken_for_ours() -> None:
    script = Scripted(lambda _: said({"pipeline_id": "1", "display_name": "x", "namespace": "theirs"}))
    with script.serve() as address, KubeflowClient(address, namespace="ours") as client:
        assert client.pipeline_by_name("x") is None
    assert script.asked[0].path == "/apis/v2beta1/pipelines/names/x?namespace=ours"


def test_an_experiment_that_another_launch_creates_meanwhile_is_taken() -> None:
    listed = iter([{}, {"experiments": [{"experiment_id": "7", "display_name": "lab"}]}])
    script = Scripted(lambda asked: said({"message": "exists"}, 409) if asked.method == "POST" else said(next(listed)))
    with script.serve() as address, KubeflowClient(address) as client:
        assert client.experiment("lab") == "7"


def test_metrics_are_the_numbers_of_parameters_and_metadata() -> None:
    task = Task(id="1", name="t", state="SUCCEEDED", parameters={"n": 3, "on": True, "text": "4"})
    assert Run(id="r", name="r", state="SUCCEEDED", tasks=(task,)).metrics == {"t.n": 3.0}
