"""Compile, stamp and verify as stages: on a small project, with the real kfp, a lock of its tree and no engine."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pipelines import COMPILED, DIGEST, IMAGES, OTHER_DIGEST, TEMPLATE, write_project
from trainshed import config, settings
from trainshed.console import Console
from trainshed.errors import NothingSelected, UsageError
from trainshed.pipelines import content
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, by_name
from trainshed.settings import Tier
from trainshed.stages import compile as compiling
from trainshed.stages import stamp as stamping
from trainshed.stages import verify as verifying
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.tools import compiler


class Room:
    """A project with what its stages print."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said = io.StringIO()

    @property
    def context(self) -> Context:
        """Return a fresh room, as each command has one."""
        loaded = config.load(self.root / config.FILE_NAME, environment="local")
        return Context(config=loaded, console=Console(self.said, root=self.root), tier=Tier.LAPTOP)

    def lock(self, digest: str = DIGEST) -> None:
        images = {
            name: LockedImage(reference=reference.replace(DIGEST, digest), digest=digest, input_digest=OTHER_DIGEST)
            for name, reference in IMAGES.items()
        }
        plan_digest = survey(self.context).plan_digest()
        made = locks.of(project="small", commit=None, dirty=True, plan_digest=plan_digest, images=images)
        locks.write(self.root / "build" / locks.FILE_NAME, made)

    def file(self, name: str) -> Path:
        return self.root / "build" / "pipelines" / name


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(write_project(tmp_path / "project"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Compile, stamp and verify once: copies of this project start warm."""
    room = Room(write_project(tmp_path_factory.mktemp("stages") / "project"))
    room.lock()
    assert stamping.stamp(room.context).exit_code == 0
    assert verifying.verify(room.context).exit_code == 0
    return room


@pytest.fixture
def warm(compiled: Room, tmp_path: Path) -> Room:
    copy = tmp_path / "project"
    shutil.copytree(compiled.root, copy)
    return Room(copy)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every start of the compiler's process fail."""
    monkeypatch.setattr(settings, "interpreter", lambda: "/nowhere/python")


def one(report: Report) -> Result:
    (result,) = report.results
    return result


def test_the_first_stamp_compiles_and_the_first_verify_asks_kfp(compiled: Room) -> None:
    assert compiled.file("training.template.yaml").read_text() == COMPILED
    stamped = compiled.file("training.yaml").read_text()
    assert stamped == COMPILED.replace("component.invalid/extract:unstamped", IMAGES["extract"]).replace(
        "component.invalid/train:unstamped", IMAGES["train"]
    )
    said = compiled.said.getvalue()
    assert "compile training … (not compiled here before)" in said
    assert "stamp training: done" in said
    assert "verify training: done" in said


@pytest.mark.usefixtures("no_processes")
def test_what_is_unchanged_is_cached_without_a_process(warm: Room) -> None:
    stamped = one(stamping.stamp(warm.context))
    verified = one(verifying.verify(warm.context, ["training"]))
    templates = compiling.compile_templates(warm.context)
    assert [result.status for result in (stamped, verified, *templates)] == [Status.CACHED] * 3
    text = warm.file("training.yaml").read_text()
    assert stamped.details == {
        "file": "build/pipelines/training.yaml",
        "pipeline": "small-training",
        "content_digest": content.content_digest(text),
        "environment": "local",
        "overlays": [],
        "images": IMAGES,
    }
    assert verified.details["content_digest"] == stamped.details["content_digest"]
    assert templates[0].details["components"] == ["extract", "train"]


@pytest.mark.usefixtures("no_processes")
def test_a_moved_image_is_stamped_without_compiling_again(warm: Room) -> None:
    warm.lock(OTHER_DIGEST)
    stamped = one(stamping.stamp(warm.context))
    assert (stamped.status, stamped.cause) == (Status.DONE, "new image of extract, train")
    assert OTHER_DIGEST in warm.file("training.yaml").read_text()


@pytest.mark.usefixtures("no_processes")
def test_files_that_went_missing_from_the_work_folder_come_back(warm: Room) -> None:
    warm.file("training.template.yaml").unlink()
    warm.file("training.yaml").unlink()
    assert one(stamping.stamp(warm.context)).cause == "not stamped here before"
    warm.file("training.yaml").write_text("a: [")
    assert one(stamping.stamp(warm.context)).cause == "the stamped file was not whole"
    assert one(verifying.verify(warm.context)).status is Status.CACHED


def test_every_file_that_was_read_is_a_cause_to_compile_again(warm: Room) -> None:
    def cause() -> str:
        (result,) = compiling.compile_templates(warm.context)
        assert (result.good, result.status) == (True, Status.DONE), result.message
        return result.cause

    template = warm.root / "pipeline_templates" / "training.py"
    (warm.root / "pipeline_templates" / "_names.py").write_text("NAME = 'small-training'\n")
    template.write_text("import _names\n" + template.read_text().replace('name="small-training"', "name=_names.NAME"))
    assert cause() == "changed: pipeline_templates/training.py"
    (warm.root / "pipeline_templates" / "_names.py").write_text("NAME = 'other-training'\n")
    assert cause() == "changed: pipeline_templates/_names.py"
    assert "name: other-training" in warm.file("training.template.yaml").read_text()
    (warm.root / "pipeline_templates" / "_names.py").unlink()
    (warm.root / "names").mkdir()
    template.write_text("import glob\nNAME = '-'.join(['new', *sorted(glob.glob('*', root_dir='names'))])\n" + TEMPLATE)
    template.write_text(template.read_text().replace('name="small-training"', "name=NAME"))
    assert cause() == "removed: pipeline_templates/_names.py, changed: pipeline_templates/training.py"
    (warm.root / "names" / "more").touch()
    assert cause() == "changed: names"
    assert "name: new-more" in warm.file("training.template.yaml").read_text()
    template.write_text(TEMPLATE)
    assert cause() == "changed: pipeline_templates/training.py"
    record = warm.root / ".trainshed" / "pipelines" / "training.json"
    document = json.loads(record.read_text())
    document["versions"]["kfp"] = "2.16.0"
    record.write_text(json.dumps(document))
    assert cause() == f"kfp 2.16.0 → {compiler.versions()['kfp']}"
    record.write_text("{")
    assert cause() == "not compiled here before"


def test_a_template_that_changes_while_it_is_compiled_is_compiled_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_all = compiler.compile_all

    def slowly(*arguments: Any, **named: Any) -> Any:
        outcomes = compile_all(*arguments, **named)
        (room.root / "pipeline_templates" / "training.py").write_text(TEMPLATE.replace("small-training", "new-training"))
        return outcomes

    with monkeypatch.context() as patched:
        patched.setattr(compiler, "compile_all", slowly)
        assert compiling.compile_templates(room.context)[0].details["pipeline"] == "small-training"
    (again,) = compiling.compile_templates(room.context)
    assert (again.cause, again.details["pipeline"]) == ("not compiled here before", "new-training")


def test_templates_compile_in_one_process_beside_other_work(room: Room) -> None:
    folder = room.root / "pipeline_templates"
    (folder / "again.py").write_text((folder / "training.py").read_text())
    (folder / "bad.py").write_text("raise ValueError('no')\n")
    (folder / "broken.yaml").write_text("a: b\n")
    (folder / "foreign.yaml").write_text(
        COMPILED.replace("component.invalid/train:unstamped", "python:3.11").replace("name: small-training", "name: foreign")
    )
    (folder / "latin.py").write_bytes(b"# \xff\n")
    (folder / "prints.py").write_text("print('hello')\n" + (folder / "training.py").read_text().replace("small-training", "prints"))
    (folder / "unknown.yaml").write_text(
        COMPILED.replace("component.invalid/train:", "component.invalid/trian:").replace("name: small-training", "name: unknown")
    )
    names = ["again", "bad", "broken", "foreign", "latin", "prints", "training", "unknown"]
    work = compiling.nodes(room.context, names)
    assert list(work) == [f"{name}/compile" for name in names]
    results = by_name(do() for do in work.values())
    good = {name for name, result in results.items() if result.good}
    assert good == {"again", "prints"}
    assert {result.exit_code for result in results.values() if not result.good} == {2}
    assert results["bad"].message.startswith("pipeline_templates/bad.py:1: ValueError: no. Mend ")
    assert results["bad"].log == "build/logs/bad.compile.log"
    assert "pipelineInfo.name is missing" in results["broken"].message
    assert "exec-train.container.image: 'python:3.11' is no component of this repository" in results["foreign"].message
    assert "latin.py: the pipeline template is not UTF-8 (byte 2)" in results["latin"].message
    assert "training: its pipeline is named 'small-training', as that of again" in results["training"].message
    assert "exec-train.container.image: no component 'trian'; perhaps you meant 'train'" in results["unknown"].message
    assert "warning: pipeline_templates/prints.py:1: prints while it is compiled" in room.said.getvalue()
    assert not room.file("unknown.template.yaml").exists()


def test_a_template_that_does_not_compile_is_neither_stamped_nor_verified(warm: Room) -> None:
    (warm.root / "pipeline_templates" / "training.py").write_text("raise ValueError('no')\n")
    for stage in (stamping.stamp, verifying.verify):
        report = stage(warm.context)
        assert report.exit_code == 2
        assert [(result.stage, result.status) for result in report.results] == [
            ("compile", Status.FAILED),
            (report.stage, Status.ABORTED),
        ]


@pytest.mark.usefixtures("no_processes")
def test_verify_fails_on_what_was_changed_by_hand(warm: Room) -> None:
    stamped = warm.file("training.yaml")
    stamped.write_text(stamped.read_text().replace("value: plain", "value: rough"))
    result = one(verifying.verify(warm.context))
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "exec-train.container.env[0].value: differs from the template stamped with this lock" in result.message
    stamped.write_bytes(b"\xff")
    assert "the stamped pipeline is not UTF-8" in one(verifying.verify(warm.context)).message
    stamped.unlink()
    result = one(verifying.verify(warm.context))
    assert (result.exit_code, result.message) == (2, "build/pipelines/training.yaml: not stamped yet. Run `trainshed stamp`.")


def test_verify_shows_what_nobody_pins_and_asks_kfp_again_for_new_content(warm: Room) -> None:
    template = warm.root / "pipeline_templates" / "training.py"
    template.write_text(template.read_text().replace('"plain"', '"docker.io/library/busybox:1.36"'))
    report = stamping.stamp(warm.context)
    assert [(result.stage, result.status) for result in report.results] == [("compile", Status.DONE), ("stamp", Status.DONE)]
    assert report.results[1].cause == "the template changed"
    verified = one(verifying.verify(warm.context))
    assert (verified.status, verified.cause) == (Status.DONE, "new content")
    assert "'docker.io/library/busybox:1.36' looks like an image; it is not pinned" in warm.said.getvalue()
    assert one(verifying.verify(warm.context)).status is Status.CACHED


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# Name: small", "# Name: other", "training: kfp reads the stamped pipeline, and writes another one"),
        ("deploymentSpec:\n", "commit: abc\ndeploymentSpec:\n", "build/pipelines/training.yaml: kfp refuses it: "),
    ],
)
def test_verify_fails_on_a_pipeline_that_kfp_refuses_or_writes_otherwise(warm: Room, old: str, new: str, message: str) -> None:
    record = warm.root / ".trainshed" / "pipelines" / "training.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "text": COMPILED.replace(old, new, 1)}))
    assert one(stamping.stamp(warm.context)).status is Status.DONE
    result = one(verifying.verify(warm.context))
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert message in result.message


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize("stage", [stamping.stamp, verifying.verify])
def test_a_missing_edited_or_stale_lock_is_refused_and_nothing_written(warm: Room, stage: Callable[[Context], Report]) -> None:
    lock, stamped = warm.root / "build" / locks.FILE_NAME, warm.file("training.yaml")
    before, written = lock.read_text(), stamped.stat().st_mtime_ns
    (warm.root / "components" / "train" / "train.py").write_text("changed\n")
    with pytest.raises(UsageError, match="stale: the components changed") as caught:
        stage(warm.context)
    assert caught.value.exit_code == 2
    lock.write_text(before.replace("small/train", "small/other"))
    with pytest.raises(UsageError, match="edited after it was written"):
        stage(warm.context)
    lock.unlink()
    with pytest.raises(UsageError, match="there is no lock"):
        stage(warm.context)
    assert stamped.stat().st_mtime_ns == written


def test_a_component_that_the_lock_lacks_is_told(warm: Room) -> None:
    path = warm.root / "build" / locks.FILE_NAME
    whole = locks.read(path)
    images = {name: image for name, image in whole.images.items() if name != "train"}
    plan_digest = survey(warm.context, list(images)).plan_digest(images)
    locks.write(path, locks.of(project="small", commit=None, dirty=True, plan_digest=plan_digest, images=images))
    result = one(stamping.stamp(warm.context))
    assert (result.status, result.exit_code) == (Status.FAILED, 2)
    assert "training: exec-train names the component 'train', which is not in the lock" in result.message


def test_names_that_no_template_has_and_an_empty_folder_are_told(warm: Room) -> None:
    with pytest.raises(UsageError, match="no pipeline 'trainin'; perhaps you meant 'training'"):
        stamping.stamp(warm.context, ["trainin"])
    (warm.root / "pipeline_templates" / "training.py").unlink()
    with pytest.raises(NothingSelected, match="pipeline_templates: there is no pipeline template"):
        compiling.compile_templates(warm.context)
