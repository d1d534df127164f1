"""Input digests: what changes an image changes its number, and nothing else does. Each on real files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST, PYTHON, TESTED, component, inputs_of, rediscovered, write
from trainshed.errors import UsageError
from trainshed.images import components
from trainshed.images.components import Component
from trainshed.images.hashes import HashCache
from trainshed.images.inputs import changes, check_inputs, image_inputs

FILES = {"src/train.py": "train", "src/run.sh": "run", "src/deep/a.py": "a", "tests/test_train.py": "test", "README.md": "read me"}


@pytest.fixture
def train(tmp_path: Path) -> Component:
    found = component(tmp_path, TESTED, FILES)
    (found.folder / "src/link").symlink_to("train.py")
    return found


def check_of(found: Component, **extra: object) -> str:
    return check_inputs(found, hashes=HashCache(found.folder.parent / "hashes.json"), extra=extra)


class Before:
    """A component's digests, to compare with later ones."""

    def __init__(self, found: Component) -> None:
        self.found = found
        self.image, self.check = inputs_of(found), check_of(found)

    def image_moved(self) -> bool:
        return inputs_of(rediscovered(self.found)).digest != self.image.digest

    def check_moved(self) -> bool:
        return check_of(rediscovered(self.found)) != self.check

    def causes(self) -> list[str]:
        return changes(self.image.manifest, inputs_of(rediscovered(self.found)).manifest)


def test_one_byte_of_a_file_is_another_image(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"src/train.py": "trajn"})
    assert before.image_moved()
    assert not before.check_moved()
    assert before.causes() == ["changed: src/train.py"]


def test_a_file_moved_between_folders_is_another_image(train: Component) -> None:
    before = Before(train)
    (train.folder / "src/deep/a.py").rename(train.folder / "src/a.py")
    (train.folder / "src/deep").rmdir()
    assert before.image_moved()
    assert before.causes() == ["moved: src/deep/a.py → src/a.py"]


def test_a_new_file_and_a_removed_one_are_another_image(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"src/new.py": "new"})
    (train.folder / "src/deep/a.py").unlink()
    assert before.image_moved()
    assert before.causes() == ["added: src/deep", "added: src/new.py", "removed: src/deep/a.py"]


def test_two_files_that_change_places_are_another_image(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"src/train.py": "run", "src/run.sh": "train"})
    assert before.image_moved()
    assert before.causes() == ["changed: src/run.sh", "changed: src/train.py"]


def test_another_target_of_a_link_is_another_image(train: Component) -> None:
    before = Before(train)
    (train.folder / "src/link").unlink()
    (train.folder / "src/link").symlink_to("run.sh")
    assert before.image_moved()
    assert before.causes() == ["changed: src/link"]


def test_a_link_in_the_place_of_its_own_content_is_another_image(train: Component) -> None:
    before = Before(train)
    (train.folder / "src/link").unlink()
    shutil.copy(train.folder / "src/train.py", train.folder / "src/link")
    assert before.image_moved()


def test_the_executable_bit_is_an_input_and_the_other_bits_are_not(train: Component) -> None:
    before = Before(train)
    (train.folder / "src/run.sh").chmod(0o600)
    assert not before.image_moved()
    (train.folder / "src/run.sh").chmod(0o755)
    assert before.image_moved()
    assert before.causes() == ["made executable: src/run.sh"]
    executable = Before(train)
    (train.folder / "src/run.sh").chmod(0o644)
    assert executable.causes() == ["no longer executable: src/run.sh"]


def test_an_empty_folder_is_an_input(train: Component) -> None:
    before = Before(train)
    (train.folder / "src/empty").mkdir()
    assert before.causes() == ["added: src/empty"]


def test_a_changed_dockerfile_is_another_image_and_another_test(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"Dockerfile": TESTED + "ENV A=1\n"})
    assert before.image_moved()
    assert before.check_moved()
    assert before.causes() == ["changed: Dockerfile"]


def test_a_test_file_moves_the_check_and_not_the_image(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"tests/test_train.py": "other"})
    assert not before.image_moved()
    assert before.check_moved()
    assert before.causes() == []


def test_a_file_that_no_stage_takes_moves_nothing(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"README.md": "other", "component.yaml": "name: T\n", "notes/new.txt": ""})
    assert not before.image_moved()
    assert not before.check_moved()


def test_an_ignored_file_moves_nothing_and_ignoring_one_does(train: Component) -> None:
    write(train.folder, {".dockerignore": "**/*.log\n"})
    before = Before(train)
    write(train.folder, {"src/x.log": "1"})
    assert not before.image_moved()
    write(train.folder, {".dockerignore": "**/*.log\n**/deep\n"})
    assert before.causes() == ["removed: src/deep/a.py"]


def test_times_and_the_order_of_listing_are_no_inputs(train: Component, tmp_path: Path) -> None:
    before = Before(train)
    copy = tmp_path / "elsewhere" / "train"
    for path in sorted((path for path in train.folder.rglob("*") if not path.is_dir()), reverse=True):
        (copy / path.relative_to(train.folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / path.relative_to(train.folder), follow_symlinks=False)
    os.utime(copy / "src/train.py", (1, 1))
    found = components.discover(copy.parent)["train"]
    assert inputs_of(found) == before.image
    assert check_of(found) == before.check


def test_another_digest_of_a_base_is_another_image(train: Component) -> None:
    old, new = inputs_of(train), inputs_of(train, bases={PYTHON: OTHER_DIGEST})
    assert old.digest != new.digest
    assert changes(old.manifest, new.manifest) == [f"base {PYTHON} moved"]


def test_a_base_that_the_image_does_not_need_is_no_input(train: Component) -> None:
    assert inputs_of(train, bases={PYTHON: DIGEST, "docker.io/library/other:1": OTHER_DIGEST}) == inputs_of(train)


def test_a_base_without_digest_is_the_callers_mistake(train: Component) -> None:
    with pytest.raises(ValueError, match=f"train: no digest for the base {PYTHON}"):
        inputs_of(train, bases={})


def test_scratch_needs_no_digest(tmp_path: Path) -> None:
    found = component(tmp_path, "ARG B=scratch\nFROM $B\nCOPY a /a\n", {"a": ""})
    assert inputs_of(found, bases={}).manifest["bases"] == {}


def test_an_own_base_counts_by_its_digest_and_not_by_where_it_lies(tmp_path: Path) -> None:
    found = component(tmp_path, "ARG BASE_X=127.0.0.1:5000/p/base-x:latest\nFROM ${BASE_X}\n")
    here = inputs_of(found, bases={"base-x": DIGEST}, args={"BASE_X": f"127.0.0.1:5000/p/base-x@{DIGEST}"})
    there = inputs_of(found, bases={"base-x": DIGEST}, args={"BASE_X": f"registry.example.org/p/base-x@{DIGEST}"})
    moved = inputs_of(found, bases={"base-x": OTHER_DIGEST})
    assert here == there
    assert changes(here.manifest, moved.manifest) == ["base base-x moved"]


def test_build_arguments_count_when_they_are_declared(tmp_path: Path) -> None:
    text = "FROM python:3.11 AS program\nARG FLAVOUR\nARG HTTP_PROXY\nARG https_proxy\nFROM program AS test\nARG TESTS\nFROM program\n"
    found = component(tmp_path, text)
    plain = inputs_of(found)
    for other in ("UNKNOWN", "TESTS", "HTTP_PROXY", "https_proxy"):
        assert inputs_of(found, args={other: "1"}) == plain
    small, large = inputs_of(found, args={"FLAVOUR": "small"}), inputs_of(found, args={"FLAVOUR": "large"})
    assert len({plain.digest, small.digest, large.digest}) == 3
    assert changes(plain.manifest, small.manifest) == ["build argument FLAVOUR added"]
    assert changes(small.manifest, large.manifest) == ["build argument FLAVOUR changed"]
    assert changes(small.manifest, plain.manifest) == ["build argument FLAVOUR removed"]


def test_a_components_own_argument_goes_before_the_projects(tmp_path: Path) -> None:
    settings = {"trainshed.toml": '[build]\nargs = { V = "3.11" }\n'}
    found = component(tmp_path, "ARG V\nFROM python:$V\n", settings)
    assert inputs_of(found, args={"V": "2"}).manifest["bases"] == {PYTHON: DIGEST}


def test_the_value_of_an_argument_is_not_in_the_record(tmp_path: Path) -> None:
    found = component(tmp_path, "FROM python:3.11\nARG TOKEN\n")
    manifest = inputs_of(found, args={"TOKEN": "hunter2"}).manifest
    assert "TOKEN" in manifest["args"]
    assert "hunter2" not in json.dumps(manifest)


def test_another_platform_is_another_image_and_their_order_is_not(train: Component) -> None:
    one, other = inputs_of(train), inputs_of(train, platforms=["linux/arm64"])
    assert changes(one.manifest, other.manifest) == ["another platform"]
    assert inputs_of(train, platforms=["a", "b"]) == inputs_of(train, platforms=["b", "a"])


def test_names_of_mounted_secrets_are_inputs_and_others_are_not(tmp_path: Path) -> None:
    found = component(tmp_path, "FROM python:3.11\nRUN --mount=type=secret,id=pip true\n")
    without, other, given = inputs_of(found), inputs_of(found, secrets=["other"]), inputs_of(found, secrets=["pip", "other"])
    assert without == other
    assert changes(without.manifest, given.manifest) == ["build secret pip added"]


def test_another_target_stage_is_another_image(train: Component) -> None:
    manifest = inputs_of(train).manifest
    assert manifest["target"] == "2"
    assert changes({**manifest, "target": "program"}, manifest) == ["another target stage"]


def test_other_rules_are_another_image(train: Component) -> None:
    manifest = inputs_of(train).manifest
    assert changes({**manifest, "rules": 0}, manifest) == ["other rules for what counts as an input"]


def test_a_file_copied_into_the_image_and_the_dockerfile_itself_are_named_once(tmp_path: Path) -> None:
    found = component(tmp_path)
    before = Before(found)
    write(found.folder, {"Dockerfile": "FROM python:3.11\nCOPY . /srv\n"})
    assert before.causes() == ["changed: Dockerfile"]


def test_without_an_earlier_record_it_is_the_first_build(train: Component) -> None:
    assert changes(None, inputs_of(train).manifest) == ["first build"]


def test_a_record_survives_json(train: Component) -> None:
    manifest = inputs_of(train).manifest
    assert changes(json.loads(json.dumps(manifest)), manifest) == []


def test_inputs_taken_again_see_a_dockerfile_that_changed_meanwhile(train: Component) -> None:
    before = inputs_of(train)
    write(train.folder, {"Dockerfile": TESTED + "# edited\n"})
    assert changes(before.manifest, inputs_of(train).manifest) == ["changed: Dockerfile"]


def test_a_file_that_vanishes_is_never_skipped(train: Component) -> None:
    shutil.rmtree(train.folder / "src")
    with pytest.raises(UsageError, match="Dockerfile:2: 'src' is not there"):
        inputs_of(train)


def test_the_check_depends_on_structure_test_settings_arguments_and_what_the_caller_adds(train: Component) -> None:
    digests = [check_of(train), check_of(train, rules=2)]
    write(train.folder, {"structure-test.yaml": "schemaVersion: 2.0.0\n"})
    digests.append(check_of(rediscovered(train)))
    write(train.folder, {"structure-test.yaml": "schemaVersion: 2.0.1\n"})
    digests.append(check_of(rediscovered(train)))
    write(train.folder, {"trainshed.toml": "[test]\nnetwork = true\n"})
    digests.append(check_of(rediscovered(train)))
    assert len(set(digests)) == 5


def test_the_check_depends_on_arguments_that_only_the_test_stage_declares(tmp_path: Path) -> None:
    found = component(tmp_path, "FROM python:3.11 AS program\nARG BOTH\nFROM program AS test\nARG BOTH\nARG TESTS\nFROM program\n")
    cache = HashCache(tmp_path / "hashes.json")
    plain = check_inputs(found, hashes=cache, extra={})
    assert check_inputs(found, hashes=cache, args={"BOTH": "1"}, extra={}) == plain
    assert check_inputs(found, hashes=cache, args={"TESTS": "1"}, extra={}) != plain


def test_the_build_timeout_moves_nothing(train: Component) -> None:
    before = Before(train)
    write(train.folder, {"trainshed.toml": '[build]\ntimeout = "1m"\n'})
    assert not before.image_moved()
    assert not before.check_moved()


def test_a_component_without_tests_has_a_check_digest_too(tmp_path: Path) -> None:
    found = component(tmp_path)
    before = check_of(found)
    write(found.folder, {"tests/new.py": ""})
    assert check_of(found) == before


def test_a_remembered_hash_gives_the_same_digest(train: Component, tmp_path: Path) -> None:
    cache = HashCache(tmp_path / "cache")
    given = {"args": {}, "platforms": ["linux/amd64"], "secrets": [], "bases": {PYTHON: DIGEST}}
    first = image_inputs(train, **given, hashes=cache)  # type: ignore[arg-type]
    cache.save()
    assert image_inputs(train, **given, hashes=HashCache(tmp_path / "cache")) == first  # type: ignore[arg-type]
    assert first.digest.startswith("sha256:")
