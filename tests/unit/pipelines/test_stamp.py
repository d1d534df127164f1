from __future__ import annotations

import difflib

import pytest

from tests.support.pipelines import COMPILED, IMAGES
from trainshed.errors import UsageError
from trainshed.pipelines.stamp import stamp


def test_only_the_image_lines_change() -> None:
    stamped = stamp(COMPILED, IMAGES, place="x")
    changed = [line for line in difflib.ndiff(COMPILED.splitlines(), stamped.splitlines()) if line[:1] in "+-"]
    assert changed == [
        "-         image: component.invalid/extract:unstamped",
        f"+         image: {IMAGES['extract']}",
        "-         image: component.invalid/train:unstamped",
        f"+         image: {IMAGES['train']}",
    ]


def test_stamping_twice_gives_the_same_bytes() -> None:
    once = stamp(COMPILED, IMAGES, place="x")
    assert stamp(once, IMAGES, place="x") == once


def test_images_are_found_by_reference_and_not_by_label() -> None:
    moved = COMPILED.replace("exec-train", "exec-train-2").replace("exec-extract", "exec-train").replace("exec-train-2", "exec-extract")
    stamped = stamp(moved, IMAGES, place="x")
    assert f"/app/train.py\n        env:\n        - name: NOTE\n          value: plain\n        image: {IMAGES['train']}" in stamped


def test_a_foreign_image_is_left_alone() -> None:
    text = COMPILED.replace("component.invalid/extract:unstamped", "docker.io/library/python:3.11")
    assert "image: docker.io/library/python:3.11\n" in stamp(text, IMAGES, place="x")


def test_every_component_without_an_image_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        stamp(COMPILED, {"trian": IMAGES["train"]}, place="small")
    assert caught.value.message.splitlines() == [
        "small: exec-extract names the component 'extract', which is not in the lock",
        "small: exec-train names the component 'train', which is not in the lock; perhaps you meant 'trian'",
    ]
