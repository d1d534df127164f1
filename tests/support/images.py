"""Components on disk, as small as a test needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainshed.images import components
from trainshed.images.components import Component
from trainshed.images.hashes import HashCache
from trainshed.images.inputs import Inputs, image_inputs

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
PYTHON = "docker.io/library/python:3.11"
TESTED = "FROM python:3.11 AS program\nCOPY src /app/\nFROM program AS test\nCOPY tests /app/tests/\nFROM program\nUSER 1000\n"


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files with their folders; return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def component(
    folder: Path, dockerfile: str = "FROM python:3.11\nCOPY . /app\n", files: Mapping[str, str | bytes] | None = None
) -> Component:
    """Write a component ``folder/train`` and return it as discovered."""
    write(folder / "train", {"Dockerfile": dockerfile, **(files or {})})
    return components.discover(folder)["train"]


def inputs_of(found: Component, **changed: object) -> Inputs:
    """Take a component's inputs as they are on disk now, with nothing remembered and one base."""
    given: dict[str, object] = {
        "args": {},
        "platforms": ["linux/amd64"],
        "secrets": [],
        "bases": {PYTHON: DIGEST},
        "hashes": HashCache(found.folder.parent / "hashes.json"),
        **changed,
    }
    return image_inputs(found, **given)  # type: ignore[arg-type]


def rediscovered(found: Component) -> Component:
    """Read a component again after its files changed."""
    return components.discover(found.folder.parent)[found.name]
