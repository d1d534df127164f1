"""The manifest of a release: from a real history, a real ledger and what the steps told; found again, and on disk as it was kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support import manifests as samples
from tests.support.pipelines import DIGEST, OTHER_DIGEST
from tests.support.repositories import Repository
from trainshed import config, formats, sealing
from trainshed.console import Console
from trainshed.errors import UsageError, WorkFailed
from trainshed.findings.model import Finding
from trainshed.ledger.records import Verdict, details
from trainshed.pipelines import lock as locks
from trainshed.releases import manifest as manifests
from trainshed.releases import notes
from trainshed.releases.manifest import Manifest
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.reports import manifest as builds
from trainshed.reports import records
from trainshed.results import Report
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.releasing import composing, current, journal, recording
from trainshed.stages.releasing.room import Room
from trainshed.stages.report import report

CONFIGURATION = """[project]
name = "tumours"
[release]
environment = "prod"
versions = "{versions}"
[environments.staging]
[environments.prod]
registry = {{ url = "registry.invalid/models" }}
"""
WAIVERS = """[[waiver]]
id = "CVE-2026-0001"
owner = "risk-models@example.org"
reason = "never given input"
expires = 2026-12-31
[[waiver]]
id = "CVE-2026-0002"
owner = "nobody@example.org"
reason = "found no more"
expires = 2026-12-31
[[waiver]]
id = "CVE-2026-0003"
owner = "nobody@example.org"
reason = "ran out before"
expires = 2026-11-21
"""
SERVICE = "name: predictor\nport: 8080\n"
DONE: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "promote": [{"name": "predictor"}, {"name": "train"}],
    "upload": [{"name": "training", "stage": "release-upload", "seconds": 1.5, **samples.manifest().pipelines["training"]}],
    "deploy": [{"name": "predictor", "stage": "release-deploy", "seconds": 9.5, "url": None, **samples.service()}],
}


class World:
    """A repository with a release behind it, and the rooms of the next."""

    def __init__(self, root: Path, *, versions: str = "repository") -> None:
        self.repository = Repository.new(root)
        self.repository.write("trainshed.toml", CONFIGURATION.format(versions=versions))
        self.repository.write("waivers.toml", WAIVERS)
        self.repository.write("components/predictor/Dockerfile", "FROM scratch\n")
        self.repository.write("components/predictor/service.yaml", SERVICE)
        self.repository.write("components/train/Dockerfile", "FROM scratch\n")
        self.repository.write(".gitignore", ".trainshed/\nbuild/\n")
        self.root = root
        self.first = self.repository.commit("feat: begin")
        self.contexts = [self._context(name, folder) for name, folder in (("staging", "build"), ("prod", "build/release"))]
        self.room = Room(here=self.contexts[0], there=self.contexts[1])

    def _context(self, environment: str, folder: str) -> Context:
        loaded = config.load(self.root / "trainshed.toml", environment=environment)
        loaded = replace(loaded, project=replace(loaded.project, work_dir=self.root / folder))
        return Context(config=loaded, console=Console(io.StringIO(), root=self.root), tier=Tier.MAIN)

    def promoted(self) -> None:
        locks.write(locking.path(self.room.there), samples.lock())

    def plan(self, version: str = "1.4.0", previous: str = "v1.3.2", **changed: Any) -> Plan:
        lock = samples.lock()
        made = Plan(
            id=f"id-{version}",
            project="tumours",
            versions=(UnitVersion(unit="", version=version, tag=f"v{version}", previous=previous, bump="minor"),),
            commit=self.repository.git("rev-parse", "HEAD"),
            branch="main",
            source="staging",
            target="prod",
            lock=lock.document(),
            lock_digest=locks.lock_digest(lock),
            components=("predictor", "train"),
            pipelines=("training",),
            services=("predictor",),
            models={"predictor": {"uri": "s3://m", "run_id": samples.RUN_ID, "sha256": "d" * 64, "path": "", "environment": "staging"}},
            before=Before(),
            created="2026-11-22T10:30:00Z",
            by="https://jenkins.example/job/tumours/main/42/",
        )
        return replace(made, **changed)

    def released(self, plan: Plan, composed: Manifest, *, state: str = journal.RELEASED) -> None:
        context = self.room.there
        entry = journal.begin(context, plan)
        for step in journal.STEPS:
            entry = journal.done(context, entry, step, [], manifest=composing.keep(context, composed))
        if state == journal.UNDONE:
            entry = journal.undoing(context, entry, "a test")
        if state != journal.OPEN:
            journal.settled(context, entry)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "BUILD_", "CHANGE_", "BRANCH_", "TAG_", "TRAINSHED_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.repository.git("tag", "-a", "v1.3.2", "-m", "1.3.2")
    made.promoted()
    made.repository.commit("fix(train): read one more row")
    made.repository.commit("feat(predictor)!: answer in JSON")
    made.repository.commit("tidy up")
    yield made
    for context in made.contexts:
        context.close()


def scanned(context: Context, digest: str, *found: str, version: str = "scan/1") -> None:
    findings = [Finding(id=name, severity="high", kind="vulnerability", package="libxml2") for name in found]
    verdict = Verdict(digest=digest, check="scan", version=version, component="predictor", green=True, details=details(findings=findings))
    context.ledger.record_verdict(verdict)


def test_the_manifest_tells_what_is_in_production_and_why(world: World) -> None:
    there, plan = world.room.there, world.plan()
    scanned(there, DIGEST, "CVE-2026-0001", "CVE-2026-0002")
    scanned(there, DIGEST, "CVE-2026-0001", "CVE-2026-0003", version="scan/2")
    ran = {"run_id": samples.RUN_ID, **samples.run(), "good": True}
    there.ledger.record_event("run", "staging", "training", samples.RUN_ID, ran)
    there.ledger.record_event("run", "staging", "training", samples.RUN_ID, {**ran, "good": False, "metrics": {}})
    old = {
        **plan.lock,
        "images": {
            **plan.lock["images"],
            "predictor": {
                **plan.lock["images"]["predictor"],
                "reference": samples.reference("predictor", samples.OLD_DIGEST),
                "digest": samples.OLD_DIGEST,
            },
        },
    }
    before = samples.manifest(release="1.3.2")
    world.released(world.plan("1.3.2", "", lock=sealing.sealed(old)), before)

    composed = composing.manifest(world.room, plan, DONE)

    assert (composed.release, composed.tags, composed.created) == ("1.4.0", ["v1.4.0"], plan.created)
    assert composed.build_url == plan.by
    assert composed.lock == samples.lock().document()
    assert {name: (each["digest"], each["before"]) for name, each in composed.images.items()} == {
        "predictor": (DIGEST, samples.OLD_DIGEST),
        "train": (OTHER_DIGEST, OTHER_DIGEST),
    }
    assert composed.pipelines == samples.manifest().pipelines
    assert composed.services == {"predictor": samples.service()}
    assert composed.runs[samples.RUN_ID] == {**samples.run(), "environment": "staging"}
    assert [(each["id"], each["components"], each["days"]) for each in composed.waivers] == [("CVE-2026-0001", ["predictor"], 39)]
    assert [(each["type"], each["text"], bool(each["breaking"])) for each in composed.changes[""]] == [
        ("feat", "answer in JSON", True),
        ("fix", "read one more row", False),
    ]
    assert composed.previous == {"release": "1.3.2", "tags": ["v1.3.2"], "manifest": before.digest, "commit": plan.commit}
    schema = formats.schema("release-manifest", 1)
    assert list(Draft202012Validator(schema).iter_errors(json.loads(composed.content()))) == []


@pytest.mark.parametrize(("whole", "wanted"), [(True, "1.3.1"), (False, "1.3.2")])
def test_the_release_before_is_the_one_that_somebody_went_back_to(world: World, whole: bool, wanted: str) -> None:
    for version in ("1.3.1", "1.3.2"):
        world.released(world.plan(version, ""), samples.manifest(release=version))
    there = world.room.there
    current.record(there, samples.manifest(release="1.3.1"), state=current.ENDED, services={}, whole=whole)
    composed = composing.manifest(world.room, world.plan(), DONE)
    assert composed.previous is not None
    assert composed.previous["release"] == wanted
    assert f"rollback --env prod --release v{wanted}" in notes.notes(composed)


def test_whoever_goes_on_composes_the_same_bytes(world: World) -> None:
    plan = world.plan()
    first = composing.manifest(world.room, plan, DONE).content()
    again = {
        step: [{**told, "seconds": 99.0, "status": "cached", "cause": "it serves already"} for told in results]
        for step, results in DONE.items()
    }
    assert composing.manifest(world.room, plan, again).content() == first
    assert composing.manifest(Room(here=world.room.here, there=world.room.there), world.plan(), DONE).content() == first


def test_the_last_tag_may_be_on_the_remote_alone(world: World, tmp_path: Path) -> None:
    whole = composing.manifest(world.room, world.plan(), DONE)
    world.repository.git("clone", "--quiet", "--bare", str(world.root), str(tmp_path / "remote.git"))
    world.repository.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    world.repository.git("tag", "--delete", "v1.3.2")
    assert composing.manifest(world.room, world.plan(), DONE).changes == whole.changes
    world.repository.git("--git-dir", str(tmp_path / "remote.git"), "tag", "--delete", "v1.3.2")
    with pytest.raises(WorkFailed, match=r"tag v1\.3\.2 of the last release is gone"):
        composing.manifest(world.room, world.plan(), DONE)


def test_units_with_versions_of_their_own_have_the_changes_of_what_they_are_made_of(tmp_path: Path) -> None:
    world = World(tmp_path, versions="each")
    world.repository.write("components/train/main.py", "1")
    world.repository.commit("feat(train): of no service")
    world.repository.write("components/predictor/main.py", "1")
    world.repository.commit("fix(predictor): answer")
    world.promoted()
    own = UnitVersion(unit="predictor", version="0.1.0", tag="predictor/v0.1.0", previous="", bump="minor")
    composed = composing.manifest(world.room, world.plan(versions=(own,), pipelines=()), DONE)
    assert [each["text"] for each in composed.changes["predictor"]] == ["answer", "begin"]
    assert (composed.release, composed.pipelines, composed.previous) == ("predictor 0.1.0", {}, None)
    for context in world.contexts:
        context.close()


def test_a_dry_run_tells_what_would_be_and_what_it_made_is_never_kept(world: World) -> None:
    locking.path(world.room.there).unlink()
    told = composing.foreseen(world.room, world.plan())
    assert [name for name, each in told.images.items() if each["reference"].endswith(f"/tumours/{name}@{each['digest']}")] == [*told.images]
    assert (told.pipelines["training"]["version"], [*told.services]) == ("v1.4.0", ["predictor"])
    assert notes.notes(told).startswith("# tumours 1.4.0\n")
    with pytest.raises(UsageError, match=r"the manifest of release 1\.4\.0: not a release's manifest: services\.predictor\.arn"):
        composing.keep(world.room.there, told)


def test_what_a_step_did_not_tell_and_another_lock_are_errors(world: World) -> None:
    with pytest.raises(WorkFailed, match="step deploy told nothing of predictor"):
        composing.manifest(world.room, world.plan(), {**DONE, "deploy": []})
    lock = samples.lock()
    locks.write(locking.path(world.room.there), replace(lock, images={"train": lock.images["train"]}))
    with pytest.raises(WorkFailed, match=r"images\.lock\.json: not the images that release 1\.4\.0 was planned with"):
        composing.manifest(world.room, world.plan(), DONE)


@pytest.mark.parametrize("name", ["1.4.0", "v1.4.0", "digest", "file"])
def test_a_release_is_found_by_version_tag_digest_or_file(world: World, name: str) -> None:
    composed = composing.manifest(world.room, world.plan(), DONE)
    world.released(world.plan(), composed)
    file = world.root / "kept.json"
    file.write_bytes(composed.content())
    asked = {"digest": composed.digest, "file": str(file)}.get(name, name)
    assert composing.find(world.room.there, asked) == composed


def test_one_that_is_decided_and_not_ended_is_found_and_one_that_was_undone_is_not(world: World) -> None:
    world.released(world.plan("1.4.0"), samples.manifest(), state=journal.OPEN)
    assert composing.find(world.room.there, "1.4.0") == samples.manifest()
    world.released(world.plan("1.5.0"), samples.manifest(release="1.5.0"), state=journal.UNDONE)
    with pytest.raises(UsageError, match=r"release 1\.5\.0: there is none in prod; perhaps you meant 'v1\.4\.0'; known: v1\.4\.0"):
        composing.find(world.room.there, "1.5.0")


def test_a_version_of_two_units_is_asked_for_by_its_tag(world: World) -> None:
    for unit in ("predictor", "training"):
        own = UnitVersion(unit=unit, version="1.0.0", tag=f"{unit}/v1.0.0", previous="", bump="major")
        world.released(world.plan(f"of {unit}", versions=(own,)), samples.manifest(release=f"{unit} 1.0.0", versions=(own,)))
    with pytest.raises(UsageError, match=r"there are several: training/v1\.0\.0, predictor/v1\.0\.0"):
        composing.find(world.room.there, "1.0.0")
    assert composing.find(world.room.there, "predictor/v1.0.0").release == "predictor 1.0.0"
    assert composing.find(world.room.there, "training 1.0.0").release == "training 1.0.0"


def test_a_manifest_that_was_changed_lost_or_of_another_place_is_refused(world: World) -> None:
    there, made = world.room.there, samples.manifest()
    with pytest.raises(WorkFailed, match="the ledger has no manifest"):
        composing.of(there, made.digest)
    there.ledger.attach(made.digest, composing.KIND, samples.manifest(project="other").content())
    with pytest.raises(WorkFailed, match="was changed"):
        composing.of(there, made.digest)
    file = world.root / "release.json"
    file.write_bytes(samples.manifest(target="other").content())
    with pytest.raises(UsageError, match="a release of tumours to other, not of tumours to prod"):
        composing.find(there, str(file))
    with pytest.raises(UsageError, match=r"missing\.json"):
        composing.find(there, str(world.root / "missing.json"))


def test_the_files_are_what_the_ledger_keeps_and_the_tag_names(world: World) -> None:
    composed = composing.manifest(world.room, world.plan(), DONE)
    digest = composing.keep(world.room.there, composed)
    recorded = recording.record(world.room, world.plan(), composing.of(world.room.there, digest))
    folder = world.root / "build/release"
    content = (folder / "release.json").read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest == recorded.extra["manifest"]
    assert manifests.read(folder / "release.json") == composed
    assert (folder / "notes.md").read_text().startswith("# tumours 1.4.0\n")
    assert [result.name for result in recorded.results] == ["build/release/release.json", "build/release/notes.md"]


def test_the_manifest_of_a_build_has_the_version_where_git_tells_one(world: World) -> None:
    def told(context: Context) -> Any:
        records.write(context.config.project.work_dir, Report(stage="images"))
        document = report(context).extra["manifest"]
        assert list(Draft202012Validator(formats.schema("manifest", 1)).iter_errors(document)) == []
        assert builds.parse(document, place="x") == document
        return document.get("version")

    built = replace(world.room.here, tier=Tier.LAPTOP)
    head = world.repository.git("rev-parse", "HEAD")
    assert told(world.room.here) == "2.0.0"
    assert told(built) == f"2.0.0-dev.3+g{head[:7]}"
    (world.root / ".git/shallow").write_text(head)
    assert told(built) is None
