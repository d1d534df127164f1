"""Dockerfiles pinned by digest."""

from __future__ import annotations

from pathlib import Path

from tests.support.images import DIGEST, PYTHON
from trainshed.images import dockerfile
from trainshed.images.pinning import pinned

PIN = f"{PYTHON}@{DIGEST}"
UV = "ghcr.io/astral/uv:1"
UV_PIN = f"{UV}@{DIGEST}"


def text_of(folder: Path, text: str, pins: dict[str, str], args: dict[str, str] | None = None) -> str:
    (folder / "Dockerfile").write_text(text)
    return pinned(dockerfile.parse(folder / "Dockerfile"), pins, args=args or {})


def test_a_base_is_pinned_and_keeps_platform_and_name(tmp_path: Path) -> None:
    text = "# python:3.11\nfrom --platform=linux/amd64 python:3.11 as Build\nRUN true\nFROM build\n"
    expected = f"# python:3.11\nFROM --platform=linux/amd64 {PIN} AS build\nRUN true\nFROM build\n"
    assert text_of(tmp_path, text, {PYTHON: PIN}) == expected


def test_a_base_made_of_arguments_is_pinned_as_resolved(tmp_path: Path) -> None:
    text = "ARG V=3.10\nFROM python:${V}\n"
    assert text_of(tmp_path, text, {PYTHON: PIN}, {"V": "3.11"}) == f"ARG V=3.10\nFROM {PIN}\n"


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    text = "FROM \\\n  # why\n  python:3.11 \\\n  AS a\nRUN true\n"
    assert text_of(tmp_path, text, {PYTHON: PIN}) == f"FROM {PIN} AS a\n\n\n\nRUN true\n"


def test_copied_and_mounted_images_are_pinned_where_they_are_named_and_nowhere_else(tmp_path: Path) -> None:
    text = (
        f"FROM scratch\nCOPY --link --from={UV} /uv /{UV}\n"
        f"RUN --mount=target=/a,from={UV} \\\n  --mount=from={UV},target=/b \\\n  echo from={UV}\n"
    )
    expected = (
        f"FROM scratch\nCOPY --link --from={UV_PIN} /uv /{UV}\n"
        f"RUN --mount=target=/a,from={UV_PIN} \\\n  --mount=from={UV_PIN},target=/b \\\n  echo from={UV}\n"
    )
    assert text_of(tmp_path, text, {UV: UV_PIN}) == expected


def test_own_bases_and_what_has_no_pin_stay_as_they_are(tmp_path: Path) -> None:
    text = "ARG BASE=127.0.0.1:5000/p/base:latest\nFROM ${BASE} AS a\nFROM other:1\nCOPY --from=a /a /a\n"
    assert text_of(tmp_path, text, {PYTHON: PIN}) == text


def test_a_longer_name_that_begins_alike_is_another_image(tmp_path: Path) -> None:
    text = "FROM scratch\nCOPY --from=python:3.11-slim /a /a\nCOPY --from=python:3.11 /b /b\n"
    expected = f"FROM scratch\nCOPY --from=python:3.11-slim /a /a\nCOPY --from={PIN} /b /b\n"
    assert text_of(tmp_path, text, {PYTHON: PIN}) == expected
