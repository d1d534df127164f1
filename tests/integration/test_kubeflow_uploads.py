"""Uploads to a strict server: one version of one content whoever comes, whatever is lost on the way, and never a false success."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from tests.support.kubeflow_project import FlowProject, told
from tests.support.kubeflow_server import Fault, StrictServer
from trainshed.errors import TrainshedError, UsageError
from trainshed.ledger.leases import Lease
from trainshed.results import Result, Status
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.upload import upload
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Pipeline, Version

UPLOAD = "/apis/v2beta1/pipelines/upload_version"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)


@pytest.fixture
def server() -> Iterator[StrictServer]:
    server = StrictServer()
    with server.serve():
        yield server


def project(folder: Path, server: StrictServer, ledger: Path, *, branch: str = "main") -> FlowProject:
    """Return a checkout on a branch; those with one ledger are builds of one controller."""
    flows = FlowProject(folder, server.address)
    file = folder / "trainshed.toml"
    file.write_text(f'{file.read_text()}[ledger]\nurl = "sqlite:///{ledger}"\n')
    flows.settle()
    flows.git("checkout", "-q", "-b", f"of-{branch}")
    (folder / "notes").write_text(branch)
    flows.commit()
    return flows


def uploaded(flows: FlowProject) -> Result:
    with flows.open(Tier.MAIN) as context:
        (result,) = upload(context).results
        return result


def exit_code(context: Context) -> int:
    """Return how the command would end."""
    try:
        return upload(context).exit_code
    except TrainshedError as error:
        return error.exit_code


def versions(flows: FlowProject) -> list[Version]:
    with flows.open(Tier.MAIN) as context:
        pipeline = context.kubeflow.pipeline_by_name("training")
        return list(context.kubeflow.versions(pipeline.id)) if pipeline else []


@pytest.mark.parametrize("branches", [("main", "main"), ("main", "topic", "third")])
def test_builds_that_upload_one_content_at_once_all_succeed_with_one_version(
    tmp_path: Path, server: StrictServer, branches: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    together, look = Barrier(len(branches)), KubeflowClient.pipeline_by_name

    def looked(self: KubeflowClient, name: str) -> Pipeline | None:
        """Look, and go on when all have looked, which never happens when they come one after another."""
        found = look(self, name)
        with suppress(BrokenBarrierError):
            together.wait(0.5)
        return found

    monkeypatch.setattr(KubeflowClient, "pipeline_by_name", looked)
    builds = [project(tmp_path / str(number), server, tmp_path / "ledger", branch=each) for number, each in enumerate(branches)]
    with ThreadPoolExecutor(len(builds)) as pool:
        results = list(pool.map(uploaded, builds))
    assert sorted(result.status for result in results) == [*[Status.CACHED] * (len(builds) - 1), Status.DONE]
    (version,) = versions(builds[0])
    assert {result.details["version_id"] for result in results} == {version.id}
    with builds[0].open(Tier.MAIN) as context:
        recorded = {event.document["branch"] for event in context.ledger.events("upload", "local", "training")}
    assert recorded == {f"of-{branch}" for branch in branches}


def test_a_name_that_another_took_meanwhile_is_adopted_for_the_same_content(tmp_path: Path, server: StrictServer) -> None:
    first, second = (project(tmp_path / name, server, tmp_path / name / "ledger") for name in ("one", "two"))
    for flows in (first, second):
        flows.git("tag", "v1.0.0")
    uploaded(first)
    listing = "/apis/v2beta1/pipelines/[^/]+/versions"
    fault = server.faults.add(Fault("GET", listing, kind="empty", times=3))  # as if it was not there when asked
    result = uploaded(second)
    assert fault.seen
    assert result.good
    assert [version.name for version in versions(first)] == ["v1.0.0"]


def test_a_version_tells_commit_build_images_and_tags(tmp_path: Path, server: StrictServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_URL", "https://ci.example.org/job/flows/17/")
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    result = uploaded(flows)
    (version,) = versions(flows)
    told_of_it = dict(line.split(": ", 1) for line in version.description.splitlines())
    assert told_of_it["build"] == "https://ci.example.org/job/flows/17/"
    assert told_of_it["image train"] == "sha256:" + "1" * 64
    assert told_of_it["content"] == result.details["content_digest"]
    assert (len(told_of_it["commit"]), version.tags["commit"]) == (40, told_of_it["commit"])
    assert (version.tags["branch"], version.tags["build"], version.tags["project"]) == ("of-main", "17", "flows")
    assert "pipeline_id" in result.details
    assert [each.path for each in server.asked("POST")] == ["/apis/v2beta1/pipelines", UPLOAD]  # the first version has its own name


def test_an_older_server_gets_no_tags_and_a_warning_is_shown_once(tmp_path: Path) -> None:
    server = StrictServer(version="2.5.0")
    with server.serve():
        flows = project(tmp_path / "flows", server, tmp_path / "ledger")
        flows.template("another", "print('another')")
        flows.settle()
        with flows.open(Tier.MAIN) as context:
            assert upload(context).exit_code == 0
            assert told(context).count("older than the SDK") == 1
    assert [each.query.get("tags", "") for each in server.asked("POST", UPLOAD)] == ["", ""]


@pytest.mark.parametrize("kind", ["cut", "500", "502", "503", "504", "wrong-json", "no-json", "empty", "reset"])
def test_a_lost_answer_makes_no_second_version(tmp_path: Path, server: StrictServer, kind: str) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    fault = server.faults.add(Fault("POST", UPLOAD, kind=kind, times=1, after=True))
    result = uploaded(flows)
    assert fault.seen == 1
    assert result.good
    assert len(versions(flows)) == 1
    assert uploaded(flows).status is Status.CACHED


@pytest.mark.parametrize("kind", ["login", "html", "401", "403"])
@pytest.mark.parametrize("path", [UPLOAD, "/apis/v2beta1/pipelines", "/apis/v2beta1/.*"])
def test_an_expired_login_is_never_a_success(tmp_path: Path, server: StrictServer, kind: str, path: str) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    server.faults.add(Fault("*" if path.endswith("*") else "POST", path, kind=kind, times=None))
    with flows.open(Tier.MAIN) as context:
        assert exit_code(context) == 5
        assert context.ledger.events("upload", "local") == []
    server.faults.clear()
    assert versions(flows) == []


def test_what_the_server_keeps_otherwise_is_an_error_that_names_it(tmp_path: Path, server: StrictServer) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    uploaded(flows)
    stamped = flows.root / "build" / "pipelines" / "training.yaml"
    changed = stamped.read_text().replace("1" * 64, "2" * 64)
    flows.git("tag", "v2.0.0")
    with flows.open(Tier.MAIN) as context:
        client = context.kubeflow
        pipeline = client.pipeline_by_name("training")
        assert pipeline is not None
        client.upload_version(pipeline.id, "v2.0.0", changed, description=versions(flows)[0].description)
    result = uploaded(flows)
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "Kubeflow keeps version v2.0.0 otherwise than it was uploaded" in result.message
    assert f"image of exec-train: 127.0.0.1:9/flows/train@sha256:{'2' * 64} → 127.0.0.1:9/flows/train@sha256:{'1' * 64}" in result.message


def test_a_namespace_that_the_server_wants_is_asked_for_before_anything(tmp_path: Path) -> None:
    server = StrictServer(multi_user=True)
    with server.serve():
        flows = project(tmp_path / "flows", server, tmp_path / "ledger")
        with flows.open(Tier.MAIN) as context, pytest.raises(UsageError, match="namespace"):
            upload(context)
    assert server.asked("POST") == []


def test_an_upload_that_stood_still_while_another_took_over_adds_nothing(
    tmp_path: Path, server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    monkeypatch.setattr(Lease, "lost", True)
    result = uploaded(flows)
    assert (result.status, "stood still" in result.message) == (Status.FAILED, True)
    assert server.asked("POST") == []


def test_what_a_server_leaves_out_of_a_pipeline_changes_nothing(tmp_path: Path, server: StrictServer) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    for file in (*(flows.root / "build" / "pipelines").iterdir(), flows.root / "pipeline_templates" / "training.yaml"):
        text = file.read_text()
        assert "        taskInfo:\n" in text
        file.write_text(text.replace("        taskInfo:\n", "        cachingOptions:\n          enableCache: false\n        taskInfo:\n"))
    flows.settle()
    assert uploaded(flows).status is Status.DONE
    assert "cachingOptions:" in (flows.root / "build" / "pipelines" / "training.yaml").read_text()
    assert uploaded(flows).status is Status.CACHED


def test_a_content_is_looked_for_with_few_requests(tmp_path: Path, server: StrictServer) -> None:
    flows = project(tmp_path / "flows", server, tmp_path / "ledger")
    with flows.open(Tier.MAIN) as context:
        pipeline = context.kubeflow.create_pipeline("training")
        stamped = (flows.root / "build" / "pipelines" / "training.yaml").read_text()
        for number in range(30):
            context.kubeflow.upload_version(pipeline.id, f"old-{number}", stamped.replace("0.9", f"0.{number}1"))
    server.requests.clear()
    with flows.open(Tier.MAIN) as context:
        assert upload(context, dry_run=True).results[0].status is Status.SKIPPED
    assert {each.method for each in server.requests} == {"GET"}
    server.requests.clear()
    assert uploaded(flows).status is Status.DONE
    assert len(server.requests) < 12, json.dumps([each.path for each in server.requests])
