from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest

from trainshed.console import Console
from trainshed.errors import RemoteError, ToolMissing
from trainshed.local import bases, debian
from trainshed.tools.docker import ImageInfo

REFERENCE = "python:3.11-slim-bookworm"
MIRROR = "mirror.example.org/hub/library/python:3.11-slim-bookworm"


class FakeEngine:
    """An engine that holds images by name, and pulls what ``registry`` has."""

    def __init__(self, *held: str, registry: tuple[str, ...] = ()) -> None:
        self.held, self.registry, self.pulls = set(held), registry, 0
        self.host = "unix:///nowhere"
        self.tagged: list[tuple[str, str]] = []

    def image(self, reference: str) -> str | None:
        return reference if reference in self.held else None

    def pull(self, reference: str) -> ImageInfo:
        self.pulls += 1
        if reference not in self.registry:
            raise RemoteError(f"pull of {reference}: no such host")
        self.held.add(reference)
        return ImageInfo(id=reference, config={}, layers=())

    def tag(self, image: str, reference: str) -> None:
        self.tagged.append((image, reference))
        self.held.add(reference)


def ensure(engine: Any, tmp_path: Path, reference: str = REFERENCE) -> tuple[bool, str]:
    told = io.StringIO()
    return bases.ensure_base(engine, reference, state=tmp_path, console=Console(stream=told)), told.getvalue()


@pytest.mark.parametrize(
    ("reference", "suite"),
    [
        ("python:3.11-slim-bookworm", "bookworm"),
        ("python:3.11-slim", "bookworm"),
        ("python:3.11", "bookworm"),
        ("python:3.13-bookworm", None),
        ("python:3.13-slim", "trixie"),
        ("docker.io/library/python:3.9-bullseye", "bullseye"),
        ("library/python:3.11-slim-bookworm", "bookworm"),
        ("debian:bookworm-slim", "bookworm"),
        ("debian:12", "bookworm"),
        ("debian:stable-backports", None),
        ("debian:sid", None),
        ("python:3.12-slim", None),
        ("python:3.11-alpine", None),
        ("python:3.11-slim-bookworm-extra", None),
        ("python:latest", None),
        ("quay.io/python:3.11", None),
        ("python@sha256:0000", None),
        ("alpine:3.20", None),
    ],
)
def test_a_recipe_is_known_for_debian_and_the_pythons_that_it_carries(reference: str, suite: str | None) -> None:
    found = bases.recipe(reference)
    assert (found.suite if found else None) == suite


def test_a_python_recipe_brings_pip_and_the_names_of_docker_hub() -> None:
    found = bases.recipe(REFERENCE)
    assert found is not None
    assert "python3-pip" in found.packages
    assert found.command == "python3"
    assert found.links["usr/local/bin/python"] == "/usr/bin/python3"


def test_the_engines_own_copy_is_enough(tmp_path: Path) -> None:
    engine = FakeEngine(REFERENCE)
    assert ensure(engine, tmp_path) == (True, "")
    assert engine.pulls == 0


def test_a_base_is_pulled_where_its_registry_can_be_reached(tmp_path: Path) -> None:
    engine = FakeEngine(registry=(REFERENCE,))
    assert ensure(engine, tmp_path) == (True, "")


def test_a_base_that_nobody_can_make_is_left_to_the_caller(tmp_path: Path) -> None:
    assert ensure(FakeEngine(), tmp_path, "alpine:3.20") == (False, "")


def test_a_base_that_could_be_made_elsewhere_says_what_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "obstacle", lambda: "this user is not root")
    with pytest.raises(ToolMissing, match=r"no such host\npython:3.11-slim-bookworm could be made .* but this user is not root"):
        ensure(FakeEngine(), tmp_path)


def test_a_failed_making_says_what_debootstrap_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "debootstrap"
    tool.write_text('#!/bin/sh\necho "E: Failed getting release file"\nexit 1\n')
    tool.chmod(0o755)
    monkeypatch.setattr(debian, "obstacle", lambda: "")
    monkeypatch.setattr(debian, "program", lambda *_, **__: str(tool))
    with pytest.raises(RemoteError, match=r"debootstrap could not make python:3.11-slim-bookworm:\nE: Failed getting release file"):
        ensure(FakeEngine(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == ["lock", "python-3.11-slim-bookworm.log"]


def test_a_made_system_has_python_pip_and_nothing_that_was_only_fetched(tmp_path: Path) -> None:
    for name in ("usr/local/bin/.keep", "usr/lib/python3.11/EXTERNALLY-MANAGED", "var/cache/apt/archives/x.deb", "var/log/dpkg.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    how = bases.recipe(REFERENCE)
    assert how is not None
    bases._finish(tmp_path, how)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir() or path.is_symlink())
    assert left == ["usr/local/bin/.keep", "usr/local/bin/python", "usr/local/bin/python3"]
    assert (tmp_path / "usr/local/bin/python").readlink() == Path("/usr/bin/python3")


@pytest.mark.parametrize(("reference", "tagged"), [(REFERENCE, [(MIRROR, REFERENCE)]), (f"{REFERENCE}@sha256:1", [])])
def test_a_mirror_is_pulled_from_and_the_name_is_the_bases_own(tmp_path: Path, reference: str, tagged: list[tuple[str, str]]) -> None:
    engine = FakeEngine(registry=(MIRROR,))
    console = Console(stream=io.StringIO())
    assert bases.ensure_base(cast(Any, engine), reference, state=tmp_path, console=console, mirror=MIRROR)
    assert (engine.pulls, engine.tagged) == (1, tagged)
