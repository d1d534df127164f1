"""A release's images, templates and versions: promoted between two real registries, stamped, uploaded, and undone, whatever was killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow_project import FlowProject
from tests.support.kubeflow_server import Fault, StrictServer
from tests.support.oci import Store, some
from trainshed import config
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.results import Report, Status
from trainshed.settings import Tier
from trainshed.stages import compile as compiling
from trainshed.stages import locking, versions
from trainshed.stages import stamp as stamps
from trainshed.stages import upload as uploads
from trainshed.stages.context import Context
from trainshed.stages.references import References
from trainshed.stages.releasing import promoting, room, stamping, uploading
from trainshed.stages.releasing.room import Room
from trainshed.stages.survey import survey
from trainshed.tools import compiler
from trainshed.tools.kubeflow_records import Pipeline, Version

PROJECT = """
[project]
name = "flows"
[environments.local]
registry = "{0}/team"
[environments.prod]
registry = "{1}/live"
trust = "main"
kubeflow.host = "{2}"
[release]
environment = "prod"
"""
KUBEFLOW = "http://kubeflow.invalid"
VERSION = UnitVersion(unit="", version="1.4.0", tag="v1.4.0", previous="v1.3.0", bump="minor")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, registries: tuple[str, str]) -> Path:
    """Return what a green build leaves behind: a lock, and compiled templates with their records."""
    flows = FlowProject(tmp_path_factory.mktemp("built") / "tree", KUBEFLOW)
    flows.template("second", "print('second')")
    write_project(flows.root, registries, KUBEFLOW)
    flows.commit()
    with flows.open(Tier.MAIN) as context:
        digest = Store(registries[0], "team/flows/train").image(some(2000, 1))["digest"]
        reference = f"{registries[0]}/team/flows/train@{digest}"
        image = LockedImage(
            reference=reference,
            digest=digest,
            input_digest="sha256:" + "2" * 64,
            verdicts={"scan": {"green": True}},
            origin={"build_url": "x"},
        )
        plan_digest = survey(context, ["train"]).plan_digest(["train"])
        lock = locks.of(project="flows", commit="c" * 40, dirty=False, plan_digest=plan_digest, images={"train": image})
        locks.write(locking.path(context), lock)
        assert stamps.stamp(context).exit_code == 0
    return flows.root


def write_project(root: Path, registries: tuple[str, str], kubeflow: str) -> None:
    (root / "trainshed.toml").write_text(PROJECT.format(*registries, kubeflow))


@pytest.fixture
def server() -> Iterator[StrictServer]:
    server = StrictServer()
    with server.serve():
        yield server


@pytest.fixture
def flows(built: Path, tmp_path: Path, registries: tuple[str, str], server: StrictServer) -> FlowProject:
    """Return a tree of its own, as the build left it, for a Kubeflow of its own."""
    shutil.copytree(built, tmp_path / "tree", symlinks=True)
    write_project(tmp_path / "tree", registries, server.address)
    made = FlowProject.__new__(FlowProject)
    made.root, made.reference = tmp_path / "tree", ""
    made.commit()
    return made


@contextmanager
def rooms(flows: FlowProject) -> Iterator[Room]:
    with flows.open(Tier.MAIN) as context, room.opened(context, to="prod") as opened:
        yield opened


def plan_of(opened: Room, names: tuple[str, ...] = ("second", "training"), *, before: bool = True, **changes: Any) -> Plan:
    """Return a plan as it is decided, and look how Kubeflow stands as that does."""
    lock = locks.read(locking.path(opened.here))
    found, known = uploading.before(opened, names, dict.fromkeys(names, "1.4.0")) if before else ({}, ())
    made = Plan(
        id="abc-123",
        project="flows",
        versions=(VERSION,),
        commit="c" * 40,
        branch="main",
        source="local",
        target="prod",
        lock=lock.document(),
        lock_digest=locks.lock_digest(lock),
        components=("train",),
        pipelines=names,
        services=(),
        models={},
        before=Before(versions=found, pipelines=known),
        created="2026-01-01T00:00:00Z",
        by="somebody",
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def stamped(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the work folder of a release whose first two steps are done."""
    tree = tmp_path_factory.mktemp("stamped") / "tree"
    shutil.copytree(built, tree, symlinks=True)
    flows = FlowProject.__new__(FlowProject)
    flows.root = tree
    with rooms(flows) as opened:
        plan = plan_of(opened, before=False)
        for report in (promoting.promote(opened, plan), stamping.stamp(opened, plan)):
            assert report.exit_code == 0, report.results
    return tree


@pytest.fixture
def ready(stamped: Path, flows: FlowProject) -> FlowProject:
    """Return a tree that is promoted and stamped."""
    for part in ("build", ".trainshed"):
        shutil.copytree(stamped / part, flows.root / part, dirs_exist_ok=True)
    return flows


def statuses(report: Report) -> list[Status]:
    return [result.status for result in report.results]


def pipeline(context: Context, name: str) -> Pipeline | None:
    return context.kubeflow.pipeline_by_name(name)


def named(context: Context, name: str) -> list[str]:
    """Return the names of a pipeline's versions."""
    found = pipeline(context, name)
    return [version.name for version in context.kubeflow.versions(found.id)] if found else []


def test_the_lock_of_production_is_written_when_all_digests_are_there_and_is_the_builds_but_for_the_place(
    flows: FlowProject, registries: tuple[str, str]
) -> None:
    with rooms(flows) as opened:
        built, target = locks.read(locking.path(opened.here)), locking.path(opened.there)
        lost = replace(built.images["train"], digest="sha256:" + "0" * 64, reference=f"{registries[0]}/team/flows/train@sha256:{'0' * 64}")
        plan = plan_of(opened, before=False)
        bad = promoting.promote(opened, replace(plan, lock=replace(built, images={"train": lost}).document()))
        assert (bad.exit_code, bad.stage, target.exists()) == (RemoteError.exit_code, "release-promote", False)
        report = promoting.promote(opened, plan)
        moved = locks.read(target)
        image = moved.images["train"]
        assert image.reference == f"{registries[1]}/live/flows/train@{built.images['train'].digest}"
        assert opened.there.registry.digest(image.reference) == image.digest
        assert replace(moved, images={"train": replace(image, reference=built.images["train"].reference)}) == built
        assert (report.exit_code, target.parent.name) == (0, "release")
        again = promoting.promote(opened, plan)
        assert [(each.status, each.details["bytes"]) for each in again.results] == [(Status.CACHED, 0)]
        # Where not all are there, there is no lock: that of a call before is none of this one's.
        assert promoting.promote(opened, replace(plan, lock=replace(built, images={"train": lost}).document())).exit_code
        assert not target.exists()


def test_a_lock_that_was_edited_is_not_promoted(flows: FlowProject) -> None:
    with rooms(flows) as opened:
        document = json.loads(locking.path(opened.here).read_text())
        document["images"]["train"]["input_digest"] = "sha256:" + "9" * 64
        with pytest.raises(UsageError, match="edited"):
            promoting.promote(opened, plan_of(opened, before=False, lock=document))


def test_what_the_build_compiled_is_stamped_for_production_without_compiling_it(
    flows: FlowProject, registries: tuple[str, str], monkeypatch: pytest.MonkeyPatch, stamped: Path
) -> None:
    accepted = ".trainshed/pipelines"
    shutil.copytree(stamped / accepted, flows.root / accepted, dirs_exist_ok=True)  # kfp's word on this very content

    def compile_all(jobs: Any, **_: Any) -> dict[str, Any]:
        assert not list(jobs), "compiled anew"
        return {}

    monkeypatch.setattr(compiler, "compile_all", compile_all)
    with rooms(flows) as opened:
        plan = plan_of(opened, before=False)
        assert promoting.promote(opened, plan).exit_code == 0
        report = stamping.stamp(opened, plan)
        assert statuses(report) == [Status.DONE, Status.DONE]
        for result in report.results:
            theirs, ours = (compiling.template_file(each.config.project, result.name) for each in (opened.here, opened.there))
            assert theirs.read_bytes() == ours.read_bytes()
            text = compiling.stamped_file(opened.there.config.project, result.name).read_text()
            assert f"{registries[1]}/live/flows/train@sha256:" in text
            assert registries[0] not in text
            assert (result.stage, result.cause) == ("release-stamp", "the build's template")
            assert result.details["template_digest"].startswith("sha256:")
            assert result.details["environment"] == "prod"
        compiling.template_file(opened.here.config.project, "second").write_text("another: one\n")
        other, good = stamping.stamp(opened, plan).results
        assert (other.name, other.status, other.stage) == ("second", Status.FAILED, "release-stamp")
        assert "the green build has" in other.message
        assert good.good


def test_a_version_has_the_releases_name_and_goes_away_with_it_and_its_pipeline(ready: FlowProject) -> None:
    with rooms(ready) as opened:
        plan = plan_of(opened)
        assert plan.before == Before(versions={"second": None, "training": None})
        first, again = uploading.upload(opened, plan), uploading.upload(opened, plan)
        assert (statuses(first), statuses(again)) == ([Status.DONE] * 2, [Status.CACHED] * 2)
        assert {(each.stage, each.details["version"]) for each in first.results} == {("release-upload", "v1.4.0")}
        assert uploading.before(opened, ["training"], {"training": "1.4.0"}) == (
            {"training": first.results[1].details["version_id"]},
            ("training",),
        )
        assert References(opened.there, local_images=None).reference("training").version.name == "v1.4.0"
        upload = opened.there.ledger.events("upload", "prod", "training", limit=1)[0].document
        assert (upload["release_id"], upload["lock_digest"]) == (plan.id, plan.lock_digest)
        assert sorted(uploading.undo(opened, plan)) == [
            "second: pipeline second, which the release made, is deleted in Kubeflow",
            "second: version v1.4.0 is deleted in Kubeflow",
            "training: pipeline training, which the release made, is deleted in Kubeflow",
            "training: version v1.4.0 is deleted in Kubeflow",
        ]
        assert (pipeline(opened.there, "training"), pipeline(opened.there, "second")) == (None, None)
        assert uploading.undo(opened, plan) == []
        # Nobody is pointed at what is gone.
        with pytest.raises(UsageError, match="CI uploaded nothing"):
            References(opened.there, local_images=None).reference("training")
        assert statuses(uploading.upload(opened, plan)) == [Status.DONE] * 2
        assert named(opened.there, "training") == ["v1.4.0"]


def test_a_pipeline_that_was_there_without_a_version_stays(ready: FlowProject) -> None:
    with rooms(ready) as opened:
        opened.there.kubeflow.create_pipeline("training")
        plan = plan_of(opened, ("training",))
        assert plan.before.pipelines == ("training",)
        uploading.upload(opened, plan)
        assert uploading.undo(opened, plan) == ["training: version v1.4.0 is deleted in Kubeflow"]
        assert pipeline(opened.there, "training") is not None


def test_what_was_there_before_or_is_anothers_stays(ready: FlowProject) -> None:
    with rooms(ready) as opened:
        assert statuses(uploads.upload(opened.there, ["training"])) == [Status.DONE]
        (old,) = named(opened.there, "training")
        plan = plan_of(opened, ("training",))
        (result,) = uploading.upload(opened, plan).results
        assert (result.status, result.details["version"]) == (Status.CACHED, old)
        assert "so there is none named v1.4.0" in result.cause
        assert uploading.undo(opened, plan) == []
        assert named(opened.there, "training") == [old]
        # A version of the very name, which another release made meanwhile, or which was there when it was planned.
        other = replace(plan_of(opened, ("second",)), id="another")
        (made,) = uploading.upload(opened, other).results
        theirs = plan_of(opened, ("second",))
        assert theirs.before.versions == {"second": made.details["version_id"]}
        assert uploading.upload(opened, theirs).results[0].status is Status.CACHED
        assert uploading.undo(opened, theirs) == []
        assert uploading.undo(opened, replace(other, before=theirs.before)) == []
        assert named(opened.there, "second") == ["v1.4.0"]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("where", ["before the version", "before its record"])
def test_an_upload_that_was_killed_is_undone_from_any_tree(ready: FlowProject, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object) -> None:
        raise Killed

    with rooms(ready) as opened:
        plan = plan_of(opened, ("training",))
        with monkeypatch.context() as patched:
            patched.setattr(uploads._Upload, "_add" if where == "before the version" else "_record", kill)
            with pytest.raises(Killed):
                uploading.upload(opened, plan)
        assert named(opened.there, "training") == ([] if where == "before the version" else ["v1.4.0"])
        assert pipeline(opened.there, "training") is not None
        (ready.root / "pipeline_templates" / "training.yaml").unlink()  # the tree that undoes it has moved on
        shutil.rmtree(opened.there.config.project.work_dir)
        assert len(uploading.undo(opened, plan)) == (1 if where == "before the version" else 2)
        assert pipeline(opened.there, "training") is None


def test_a_version_with_runs_stays_until_they_are_gone_and_the_rest_goes(ready: FlowProject) -> None:
    with rooms(ready) as opened:
        plan, client = plan_of(opened), opened.there.kubeflow
        results = {each.name: each.details for each in uploading.upload(opened, plan).results}
        version = client.version(results["training"]["pipeline_id"], results["training"]["version_id"])
        run = client.create_run(version, {}, name="somebody's", experiment=client.experiment("lab"))
        with pytest.raises(WorkFailed, match="run somebody's used it") as caught:
            uploading.undo(opened, plan)
        assert "Delete these" in caught.value.next_step
        assert (named(opened.there, "training"), pipeline(opened.there, "second")) == (["v1.4.0"], None)
        # It is there, so it may be pointed at.
        assert version.id not in uploads.deleted(opened.there, "training")
        client.terminate(run.id)
        client._requests.delete(f"/runs/{run.id}", what="the run")
        assert len(uploading.undo(opened, plan)) == 2
        assert pipeline(opened.there, "training") is None


def test_a_lost_answer_to_a_deletion_is_asked_for_again_and_an_error_leaves_it_to_the_next_call(
    ready: FlowProject, server: StrictServer
) -> None:
    with rooms(ready) as opened:
        plan = plan_of(opened)
        uploading.upload(opened, plan)
        server.faults.add(Fault("DELETE", ".*/versions/.*", "reset", after=True))
        refused = server.faults.add(Fault("DELETE", ".*/pipelines/[^/]*", "403"))
        with pytest.raises(RemoteError, match="not permitted"):
            uploading.undo(opened, plan)
        assert refused.seen == 1
        assert len(uploading.undo(opened, plan)) == 1
        assert [pipeline(opened.there, name) for name in ("second", "training")] == [None, None]


def test_units_with_versions_of_their_own_name_their_pipelines_by_them(ready: FlowProject) -> None:
    own = UnitVersion(unit="training", version="2.0.1", tag="training/v2.0.1", previous="", bump="patch")
    with rooms(ready) as opened:
        plan = plan_of(opened, ("training",), versions=(own,))
        assert uploading.upload(opened, plan).results[0].details["version"] == "v2.0.1"
        assert versions.told_release(_version(opened, "training").description) == plan.id


def _version(opened: Room, name: str) -> Version:
    found = pipeline(opened.there, name)
    assert found is not None
    return next(opened.there.kubeflow.versions(found.id))


def test_a_name_that_is_taken_by_other_content_is_refused_and_nothing_of_it_is_deleted(ready: FlowProject) -> None:
    with rooms(ready) as opened:
        plan = plan_of(opened, ("training",))
        client = opened.there.kubeflow
        made = client.create_pipeline("training")
        text = compiling.stamped_file(opened.there.config.project, "second").read_text()
        client.upload_version(made.id, "v1.4.0", text, description="by hand")
        (result,) = uploading.upload(opened, plan).results
        assert (result.status, "other content" in result.message) == (Status.FAILED, True)
        assert uploading.undo(opened, plan) == []
        assert named(opened.there, "training") == ["v1.4.0"]


def test_an_environment_with_the_machines_own_registry_takes_no_release_of_anothers(flows: FlowProject) -> None:
    file = flows.root / "trainshed.toml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "/live" not in line))
    assert config.load(file, environment="prod").environment.registry is None
    with rooms(flows) as opened, pytest.raises(UsageError, match="own registry"):
        promoting.promote(opened, plan_of(opened, before=False))
