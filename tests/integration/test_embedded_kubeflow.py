from __future__ import annotations

import os
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import kubeflow_flows as flows
from tests.support.kubeflow import OUTPUTS, Process, specification, step, text, wait_for
from tests.support.sample_project import docker
from trainshed.errors import UsageError
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import FINISHED, Run

IMAGE = "trainshed-test-kubeflow:1"


@pytest.fixture(scope="module")
def image(docker_host: str, base_image: str) -> str:
    """Return an image as components have them: not root, and with an ENTRYPOINT that Kubernetes would replace."""
    dockerfile = f'FROM {base_image}\nUSER 65534:65534\nENTRYPOINT ["/bin/false"]\n'
    command = ["docker", "-H", docker_host, "build", "-q", "-t", IMAGE, "-"]
    subprocess.run(command, input=dockerfile.encode(), check=True, capture_output=True)
    return IMAGE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Iterator[Process]:
    assert base_image
    process = Process(tmp_path_factory.mktemp("kubeflow"), docker_host)
    process.start()
    yield process
    assert process.stop() == 0
    assert list((process.state / "runs").iterdir()) != []
    assert process.containers() == []


@pytest.fixture
def sdk(server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the SDK's own client, with a home that has no settings."""
    import kfp

    monkeypatch.setenv("HOME", str(tmp_path))
    return kfp.Client(host=server.address)


@pytest.fixture
def client(server: Process) -> Iterator[KubeflowClient]:
    with KubeflowClient(server.address) as client:
        yield client


def launched(client: KubeflowClient, document: dict[str, Any]) -> str:
    """Upload a pipeline under its own name and start a run; return the run's id."""
    name = document["pipelineInfo"]["name"]
    version = client.upload_version(client.create_pipeline(name).id, "v1", text(document))
    return client.create_run(version, {}, name=name, experiment=client.experiment("tests")).id


def finished(client: KubeflowClient, run_id: str) -> Run:
    run = wait_for(lambda: client.run(run_id), lambda run: run.state in FINISHED)
    assert isinstance(run, Run)
    return run


def test_the_sdk_uploads_adds_a_version_runs_and_waits(sdk: Any, server: Process, tmp_path: Path) -> None:
    package = str(flows.write(flows.chain, tmp_path))
    pipeline = sdk.upload_pipeline(package, "sdk", description="from the SDK")
    version = sdk.upload_pipeline_version(package, "second", pipeline_name="sdk")
    assert sdk.get_pipeline_id("sdk") == pipeline.pipeline_id
    assert sdk.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id).display_name == "second"
    experiment = sdk.create_experiment("sdk-experiment")
    assert sdk.create_experiment("sdk-experiment").experiment_id == experiment.experiment_id
    run = sdk.run_pipeline(
        experiment.experiment_id,
        "job",
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        params={"word": "hi"},
    )
    done = sdk.wait_for_run_completion(run.run_id, timeout=120, sleep_duration=1)
    assert done.state == "SUCCEEDED"
    assert {task.display_name: task.state for task in done.run_details.task_details} == dict.fromkeys(("say", "keep", "read"), "SUCCEEDED")
    assert done.finished_at >= done.created_at
    with KubeflowClient(server.address) as client:
        told = {task.name: task.parameters for task in client.with_outputs(client.run(run.run_id)).tasks}
        model = client.artifacts(run.run_id)["keep.model"]
    assert told["read"] == {"text": "hi!"}
    assert Path(urllib.parse.urlsplit(model.uri).path).read_text() == "hi"


def test_the_sdk_pages_through_versions(sdk: Any, tmp_path: Path) -> None:
    package = str(flows.write(flows.slow, tmp_path))
    pipeline = sdk.upload_pipeline(package, "paged")
    for number in range(4):
        sdk.upload_pipeline_version(package, f"v{number}", pipeline_id=pipeline.pipeline_id)
    names, token = [], ""
    while True:
        page = sdk.list_pipeline_versions(pipeline.pipeline_id, page_token=token, page_size=2)
        names += [version.display_name for version in page.pipeline_versions]
        token = page.next_page_token
        if not token:
            break
    assert names == ["paged", "v0", "v1", "v2", "v3"]


def test_the_sdk_and_we_delete_versions_and_then_their_pipeline(sdk: Any, client: KubeflowClient, tmp_path: Path) -> None:
    package = str(flows.write(flows.slow, tmp_path))
    pipeline = sdk.upload_pipeline(package, "to-delete").pipeline_id
    second = sdk.upload_pipeline_version(package, "second", pipeline_id=pipeline).pipeline_version_id
    with pytest.raises(UsageError, match="has versions"):
        client.delete_pipeline(pipeline)
    sdk.delete_pipeline_version(pipeline, second)
    client.delete_version(pipeline, second)  # it is gone: that is what was wanted
    (first,) = client.versions(pipeline)
    client.delete_version(pipeline, first.id)
    assert list(client.versions(pipeline)) == []
    sdk.delete_pipeline(pipeline)
    client.delete_pipeline(pipeline)
    assert client.pipeline_by_name("to-delete") is None


def test_the_sdk_terminates_a_run_and_its_container_is_gone(sdk: Any, docker_host: str, tmp_path: Path) -> None:
    run = sdk.create_run_from_pipeline_package(str(flows.write(flows.slow, tmp_path)), run_name="slow")
    label = f"label=io.trainshed.run={run.run_id}"
    wait_for(lambda: docker(docker_host, "ps", "-q", "--filter", label), bool)
    sdk.terminate_run(run.run_id)
    ended = wait_for(lambda: sdk.get_run(run.run_id), lambda seen: seen.state == "CANCELED")
    assert [task.state for task in ended.run_details.task_details] == ["CANCELED"]
    assert docker(docker_host, "ps", "-aq", "--filter", label) == ""


def test_an_image_that_is_not_root_writes_its_outputs_and_its_entrypoint_is_replaced(client: KubeflowClient, image: str) -> None:
    write = "import os, sys; open(sys.argv[1], 'w').write('by ' + str(os.getuid())); os.chmod(sys.argv[1], 0o600)"
    steps = {"train": step(write, image=image, outputs=OUTPUTS)}
    run = finished(client, launched(client, specification("not-root", steps)))
    assert (run.state, run.error) == ("SUCCEEDED", "")
    assert Path(urllib.parse.urlsplit(client.artifacts(run.id)["train.model"].uri).path).read_text() == "by 65534"


def test_a_task_that_ends_at_once_with_an_error_is_never_taken_for_a_success(client: KubeflowClient, image: str) -> None:
    run_id = launched(client, specification("failing", {f"exit-{n}": step("raise SystemExit(3)", image=image) for n in range(5)}))
    run = finished(client, run_id)
    assert run.state == "FAILED"
    assert {task.error for task in run.tasks} == {"exit code 3"}


def test_a_failing_task_tells_why_and_keeps_its_log(client: KubeflowClient, image: str) -> None:
    steps = {"bad": step("print('the last words'); raise SystemExit(7)", image=image), "after": step("pass", needs=["bad"], image=image)}
    run = finished(client, launched(client, specification("telling", steps)))
    assert {task.name: task.state for task in run.tasks} == {"bad": "FAILED", "after": "SKIPPED"}
    assert run.error == "task bad: exit code 7"
    assert client.task_log(run.id, "bad") == "the last words\n[trainshed] exit code 7\n"


def test_an_image_that_cannot_be_pulled_fails_the_task_with_that_reason(client: KubeflowClient) -> None:
    steps = {"bad": step("pass", image=f"127.0.0.1:9/none@sha256:{'0' * 64}")}
    run = finished(client, launched(client, specification("imageless", steps)))
    assert run.state == "FAILED"
    assert "cannot be pulled" in run.error


def test_a_program_that_writes_where_others_write_is_refused_by_the_container(client: KubeflowClient, image: str) -> None:
    meddle = "import sys; open(sys.argv[1].replace('second', 'first'), 'w').write('mine')"
    steps = {"first": step("pass", image=image, outputs=OUTPUTS), "second": step(meddle, needs=["first"], image=image, outputs=OUTPUTS)}
    run = finished(client, launched(client, specification("meddling", steps)))
    assert {task.name: task.state for task in run.tasks} == {"first": "SUCCEEDED", "second": "FAILED"}
    assert "Read-only file system" in (client.task_log(run.id, "second") or "")


def test_runs_and_versions_outlive_a_killed_server(client: KubeflowClient, server: Process, image: str, docker_host: str) -> None:
    wait = "import os, sys, time\nwhile not os.path.exists(os.path.dirname(sys.argv[1]) + '/go'): time.sleep(0.05)"
    run_id = launched(client, specification("outliving", {"train": step(wait, image=image, outputs=OUTPUTS)}))
    wait_for(lambda: docker(docker_host, "ps", "-q", "--filter", f"label=io.trainshed.run={run_id}"), bool)
    server.kill()
    server.start()
    assert client.run(run_id).state == "RUNNING"
    assert client.pipeline_by_name("outliving") is not None
    (server.state / "runs" / run_id / "artifacts" / "train" / "go").touch()
    assert finished(client, run_id).state == "SUCCEEDED"


def test_a_run_whose_process_is_killed_leaves_no_container(client: KubeflowClient, server: Process, image: str, docker_host: str) -> None:
    run_id = launched(client, specification("killed", {"train": step("import time; time.sleep(600)", image=image)}))
    label = f"label=io.trainshed.run={run_id}"
    wait_for(lambda: docker(docker_host, "ps", "-q", "--filter", label), bool)
    mark = (server.state / "runs" / run_id / "owner").read_text()
    os.kill(int(mark.split(":")[1]), signal.SIGKILL)
    run = finished(client, run_id)
    assert (run.state, "the process of the run ended without a result" in run.error) == ("FAILED", True)
    assert docker(docker_host, "ps", "-aq", "--filter", label) == ""


def test_a_server_that_is_stopped_ends_its_runs(docker_host: str, base_image: str, tmp_path: Path) -> None:
    server = Process(tmp_path, docker_host)
    server.start()
    with KubeflowClient(server.address) as client:
        document = specification("stopped", {"train": step("import time; time.sleep(600)", image=base_image)})
        run_id = launched(client, document)
        label = f"label=io.trainshed.run={run_id}"
        wait_for(lambda: docker(docker_host, "ps", "-q", "--filter", label), bool)
        assert server.stop() == 0
        assert docker(docker_host, "ps", "-aq", "--filter", label) == ""
        server.start()
        assert client.run(run_id).state == "CANCELED"
        assert server.stop() == 0
