from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kubeflow import embedded, text
from tests.support.kubeflow_project import REFERENCE, FlowProject, told
from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.results import Report, Status
from trainshed.stages.upload import upload
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient

pytestmark = pytest.mark.sockets


@pytest.fixture
def flows(tmp_path: Path) -> Iterator[FlowProject]:
    with embedded(tmp_path / "kubeflow") as (address, _):
        made = FlowProject(tmp_path / "project", address)
        made.settle()
        yield made


def uploaded(flows: FlowProject, *, dry_run: bool = False) -> Report:
    with flows.open() as context:
        return upload(context, dry_run=dry_run)


def versions(flows: FlowProject) -> list[str]:
    with flows.open() as context:
        pipeline = context.kubeflow.pipeline_by_name("training")
        return [version.name for version in context.kubeflow.versions(pipeline.id)] if pipeline else []


def test_the_same_content_is_one_version_whoever_uploads_it(flows: FlowProject) -> None:
    first = uploaded(flows).results[0]
    assert (first.status, first.cause) == (Status.DONE, "new content")
    assert first.details["version"] == f"uncommitted-{first.details['content_digest'][7:15]}"
    flows.commit()
    again = uploaded(flows).results[0]
    assert (again.status, again.details["version_id"]) == (Status.CACHED, first.details["version_id"])
    assert versions(flows) == [first.details["version"]]


def test_a_version_says_where_it_comes_from_and_the_ledger_knows_it(flows: FlowProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_URL", "https://jenkins.example.org/job/1/")
    monkeypatch.setenv("CHANGE_BRANCH", "quicker")
    flows.commit()
    result = uploaded(flows).results[0]
    with flows.open() as context:
        version = context.kubeflow.version(result.details["pipeline_id"], result.details["version_id"])
        events = context.ledger.events("upload", "local", "training")
        assert uploaded(flows).results[0].status is Status.CACHED
        assert len(context.ledger.events("upload", "local", "training")) == 1
    assert "build: https://jenkins.example.org/job/1/" in version.description
    assert f"content: {result.details['content_digest']}" in version.description
    assert (events[0].document["version_id"], events[0].document["branch"], events[0].document["dirty"]) == (version.id, "main", False)
    assert events[0].document["change_branch"] == "quicker"
    assert version.name.startswith("main-")
    assert str(version.spec["deploymentSpec"]["executors"]).count(REFERENCE) == 1


def test_a_changed_template_is_a_new_version(flows: FlowProject) -> None:
    first = uploaded(flows).results[0]
    flows.template("training", "print('other')")
    flows.settle()
    assert uploaded(flows).results[0].details["pipeline_id"] == first.details["pipeline_id"]
    assert len(versions(flows)) == 2


def test_a_dry_run_shows_the_difference_and_changes_nothing(flows: FlowProject) -> None:
    with flows.open() as context:
        report = upload(context, (), dry_run=True)
        assert report.results[0].status is Status.SKIPPED
        assert "this is the first version" in told(context)
    assert versions(flows) == []
    uploaded(flows)
    assert uploaded(flows, dry_run=True).results[0].status is Status.CACHED
    flows.template("training", "print('other')")
    flows.settle()
    with flows.open() as context:
        difference = upload(context, (), dry_run=True).results[0].details["difference"]
    assert "+        - print('other')" in difference
    assert len(versions(flows)) == 1


def test_a_name_with_other_content_is_an_error_that_shows_the_difference(flows: FlowProject) -> None:
    name = uploaded(flows, dry_run=True).results[0].details["version"]
    with flows.open() as context:
        pipeline = context.kubeflow.create_pipeline("training")
        other = (flows.root / "build" / "pipelines" / "training.yaml").read_text().replace("0.9", "0.1")
        context.kubeflow.upload_version(pipeline.id, name, other)
    result = uploaded(flows).results[0]
    assert (result.status, result.exit_code) == (Status.FAILED, 2)
    assert f"version {name} has other content" in result.message
    assert "write('0.1')" in result.message
    assert versions(flows) == [name]


def test_settings_of_a_platform_are_part_of_the_content(flows: FlowProject) -> None:
    first = uploaded(flows).results[0]
    folder = flows.root / "build" / "pipelines"
    for file in (folder / "training.yaml", folder / "training.template.yaml"):
        file.write_text(
            file.read_text() + "---\n" + text({"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": {}}}}}})
        )
    second = uploaded(flows).results[0]
    assert second.status is Status.DONE
    assert second.details["content_digest"] != first.details["content_digest"]
    assert uploaded(flows).results[0].status is Status.CACHED


@pytest.mark.parametrize("break_it", ["image", "missing", "component", "name"])
def test_nothing_is_uploaded_of_a_tree_that_is_not_the_locked_one(flows: FlowProject, break_it: str) -> None:
    stamped = flows.root / "build" / "pipelines" / "training.yaml"
    if break_it == "image":
        stamped.write_text(stamped.read_text().replace("1" * 64, "2" * 64))
    elif break_it == "missing":
        stamped.unlink()
    elif break_it == "component":
        (flows.root / "components" / "train" / "train.py").write_text("print('changed')\n")
    with flows.open() as context, pytest.raises(UsageError) as caught:
        upload(context, ("trainig",) if break_it == "name" else ())
    wanted = {
        "image": "build/pipelines/training.yaml: deploymentSpec.",
        "missing": "no stamped pipeline",
        "component": "stale",
        "name": "perhaps you meant 'training'",
    }
    assert wanted[break_it] in caught.value.message
    assert versions(flows) == []


def test_one_pipelines_error_keeps_the_others_results(flows: FlowProject) -> None:
    flows.template("another", "print('another')")
    flows.settle()
    name = uploaded(flows, dry_run=True).results[0].details["version"]
    with flows.open() as context:
        pipeline = context.kubeflow.create_pipeline("another")
        other = (flows.root / "build" / "pipelines" / "training.yaml").read_text()
        context.kubeflow.upload_version(pipeline.id, name, other)
    report = uploaded(flows)
    assert [(result.name, result.status) for result in report.results] == [("another", Status.FAILED), ("training", Status.DONE)]
    assert (report.status, report.exit_code) == ("red", 2)


def test_a_deadline_that_passed_and_an_interruption_end_the_uploads(flows: FlowProject) -> None:
    with flows.open() as context:
        report = upload(context, (), deadline=-1.0)
        assert (report.exit_code, "deadline" in report.results[0].message) == (1, True)
    with flows.open() as context:
        process.stopping.set()
        with pytest.raises(Interrupted):
            upload(context, ())
    process.stopping.clear()
    assert versions(flows) == []


def test_a_kubeflow_that_cannot_be_reached_is_exit_code_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)
    flows = FlowProject(tmp_path, "http://127.0.0.1:9")
    flows.settle()
    with pytest.raises(RemoteError, match="no connection"):
        uploaded(flows)


def test_a_pipeline_that_another_upload_creates_meanwhile_is_taken(flows: FlowProject, monkeypatch: pytest.MonkeyPatch) -> None:
    before = KubeflowClient.pipeline_by_name
    asked = []

    def late(self: KubeflowClient, name: str) -> object:
        asked.append(name)
        if len(asked) > 1:
            return before(self, name)
        self.create_pipeline(name)
        return None

    monkeypatch.setattr(KubeflowClient, "pipeline_by_name", late)
    assert uploaded(flows).results[0].status is Status.DONE


def test_a_tagged_commit_names_its_version_and_other_content_is_a_conflict(flows: FlowProject) -> None:
    flows.commit()
    flows.git("tag", "v1.2.3")
    flows.git("tag", "nightly")
    assert uploaded(flows).results[0].details["version"] == "v1.2.3"
    assert uploaded(flows).results[0].status is Status.CACHED
    flows.git("tag", "-d", "v1.2.3")
    assert uploaded(flows).results[0].cause == "same content as version v1.2.3"
    flows.template("training", "print('other')")
    flows.settle()
    assert uploaded(flows).results[0].details["version"].startswith("main-")  # a changed tree is no release
    flows.commit()
    flows.git("tag", "v1.2.3")
    conflict = uploaded(flows).results[0]
    assert (conflict.status, conflict.exit_code) == (Status.FAILED, 2)
    assert "version v1.2.3 has other content" in conflict.message
    assert "+        - print('other')" in conflict.message
    assert "Tag another version" in conflict.message
    flows.git("tag", "v1.2.4")
    again = uploaded(flows).results[0]
    assert again.status is Status.CACHED
    assert again.cause.endswith("so there is none named v1.2.4")


def test_a_version_is_found_by_its_content_under_any_name(flows: FlowProject) -> None:
    with flows.open() as context:
        pipeline = context.kubeflow.create_pipeline("training")
        stamped = (flows.root / "build" / "pipelines" / "training.yaml").read_text()
        context.kubeflow.upload_version(pipeline.id, "by hand", stamped)
    assert uploaded(flows).results[0].cause == "same content as version by hand"
    assert versions(flows) == ["by hand"]


def test_several_pipelines_are_told_in_their_order(flows: FlowProject) -> None:
    for name in ("zebra", "another", "middle"):
        flows.template(name, f"print('{name}')")
    flows.settle()
    report = uploaded(flows)
    assert [result.name for result in report.results] == ["another", "middle", "training", "zebra"]
    assert {result.status for result in report.results} == {Status.DONE}
