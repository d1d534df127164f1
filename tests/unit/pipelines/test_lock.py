from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.pipelines import DIGEST, IMAGES, OTHER_DIGEST
from trainshed import sealing
from trainshed.errors import UsageError
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock, LockedImage


def locked(name: str = "train") -> LockedImage:
    return LockedImage(
        reference=IMAGES[name],
        digest=DIGEST,
        input_digest=OTHER_DIGEST,
        base={"base-python": DIGEST},
        verdicts={"build": {"green": True}, "scan": {}, "test": {}},
        origin={"environment": "local", "build_url": None},
    )


def made() -> Lock:
    images = {"train": locked(), "extract": locked("extract")}
    return locks.of(project="small", commit="c" * 40, dirty=False, plan_digest=OTHER_DIGEST, images=images)


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    lock, path = made(), tmp_path / locks.FILE_NAME
    assert locks.write(path, lock)
    assert locks.read(path) == lock
    document = json.loads(path.read_text())
    assert document["schema"] == "trainshed/lock/v1"
    assert document["created"].endswith("Z")
    assert document["images"]["train"]["base"] == {"base-python": DIGEST}


def test_references_are_sorted_by_component() -> None:
    assert list(made().references.items()) == sorted(IMAGES.items())


def test_a_lock_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / locks.FILE_NAME
    first = replace(made(), created="2024-01-01T00:00:00Z")
    assert locks.write(path, first)
    before = path.read_bytes()
    assert not locks.write(path, made())
    assert path.read_bytes() == before
    assert locks.write(path, replace(made(), dirty=True))


def test_an_edited_lock_is_refused(tmp_path: Path) -> None:
    path = tmp_path / locks.FILE_NAME
    locks.write(path, made())
    path.write_text(path.read_text().replace("a" * 64, "d" * 64))
    with pytest.raises(UsageError, match="edited after it was written") as caught:
        locks.read(path)
    assert caught.value.exit_code == 2
    assert "trainshed images" in caught.value.next_step


def test_a_stale_lock_is_refused() -> None:
    made().require_current(OTHER_DIGEST, place="x")
    with pytest.raises(UsageError, match="x: stale: the components changed"):
        made().require_current(DIGEST, place="x")


def test_a_missing_lock_and_one_that_is_not_json_are_told(tmp_path: Path) -> None:
    path = tmp_path / locks.FILE_NAME
    with pytest.raises(UsageError, match="there is no lock"):
        locks.read(path)
    for text in ("{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(UsageError, match="the lock is not JSON"):
            locks.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="the lock is not UTF-8"):
        locks.read(path)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "x: not a lock: it names no schema"),
        ({}, "x: not a lock: it names no schema"),
        ({"schema": 1}, "x: not a lock: its schema is 1"),
        ({"schema": "trainshed/lock/v0"}, "x: not a lock: its schema is "),
        ({"schema": "trainshed/manifest/v1"}, "x: not a lock: it is a build's manifest (trainshed/manifest/v1)"),
    ],
)
def test_what_is_no_lock_is_refused_with_what_it_is(document: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        locks.parse(document, place="x")
    assert caught.value.message.startswith(said)


def test_a_lock_of_a_newer_trainshed_says_so() -> None:
    with pytest.raises(UsageError, match="x: trainshed/lock/v2, written by a newer Trainshed") as caught:
        locks.parse({**made().document(), "schema": "trainshed/lock/v2"}, place="x")
    assert caught.value.next_step == "Update Trainshed."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "not a lock"),
        ({"commit": 1}, "commit: 1 is not of type 'string', 'null'"),
        ({"dirty": "no"}, "dirty: 'no' is not of type 'boolean'"),
        ({"project": ""}, "project: '' should be non-empty"),
        ({"images": {"train": {"reference": "x"}}}, "images.train: 'digest' is a required property"),
        ({"images": {"train": {**made().document()["images"]["train"], "base": []}}}, "images.train.base: [] is not of type 'object'"),
        ({"images": {"train": {**made().document()["images"]["train"], "digest": OTHER_DIGEST}}}, "is not pinned to its digest"),
        (
            {"images": {"train": {**made().document()["images"]["train"], "reference": "a:b"}}},
            "images.train.reference: 'a:b' does not match",
        ),
    ],
)
def test_a_sealed_document_that_is_no_lock_is_refused(change: dict[str, Any], message: str) -> None:
    document = sealing.sealed({**made().document(), **change})
    with pytest.raises(UsageError) as caught:
        locks.parse(document, place="x")
    assert caught.value.message.startswith("x: not a lock: ")
    assert message in caught.value.message


def test_the_lock_digest_is_that_of_the_images_alone() -> None:
    lock = made()
    assert locks.lock_digest(lock) == locks.lock_digest(replace(lock, created="2024-01-01T00:00:00Z", commit=None, plan_digest=DIGEST))
    assert locks.lock_digest(lock) != locks.lock_digest(replace(lock, images={"train": locked()}))


def test_an_image_that_the_lock_lacks_comes_with_a_suggestion() -> None:
    assert made().image("train", place="x") == locked()
    with pytest.raises(UsageError, match="x: no image of 'trian'; perhaps you meant 'train'"):
        made().image("trian", place="x")
