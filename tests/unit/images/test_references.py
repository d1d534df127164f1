"""Image references."""

from __future__ import annotations

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST
from trainshed.errors import UsageError
from trainshed.images import references


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11", "docker.io/library/python:3.11"),
        ("index.docker.io/python:3.11", "docker.io/library/python:3.11"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("127.0.0.1:5000/diagnosis/base-python:latest", "127.0.0.1:5000/diagnosis/base-python:latest"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("ghcr.io/a/b_c/d__e.f-g:v1.2", "ghcr.io/a/b_c/d__e.f-g:v1.2"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"host:1/python:3@{DIGEST}", f"host:1/python:3@{DIGEST}"),
    ],
)
def test_a_reference_is_completed_as_docker_does_it(text: str, full: str) -> None:
    assert references.normalise(text) == full
    assert references.normalise(full) == full


@pytest.mark.parametrize(
    "text", ["", "Python", "a//b", "python:", ":3", "a b", "python@sha256:12", "https://ghcr.io/a", "a/../b", "x:" + "t" * 129]
)
def test_what_is_no_reference_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        references.parse(text)
    assert f"'{text}'" in raised.value.message


def test_only_a_reference_with_a_digest_is_pinned() -> None:
    assert references.is_pinned(f"a/b:1@{DIGEST}")
    assert not references.is_pinned("a/b:1")
    assert not references.is_pinned(f"not a reference@{DIGEST}")


def test_pinning_keeps_the_tag_for_the_reader() -> None:
    assert references.pin("python:3.11", DIGEST) == f"docker.io/library/python:3.11@{DIGEST}"
    assert references.pin(f"python@{DIGEST}", DIGEST) == f"docker.io/library/python@{DIGEST}"


def test_a_pinned_reference_is_never_pinned_elsewhere() -> None:
    with pytest.raises(UsageError, match="pinned already"):
        references.pin(f"python@{DIGEST}", OTHER_DIGEST)


def test_the_repository_has_neither_tag_nor_digest() -> None:
    assert references.repository_of(f"python:3.11@{DIGEST}") == "docker.io/library/python"


def test_a_reserved_reference_leads_back_to_its_component() -> None:
    assert references.component_of(references.reserved("base-python")) == "base-python"


@pytest.mark.parametrize(
    "text", ["component.invalid/x:latest", "component.invalid/X:unstamped", "a component.invalid/x:unstamped", "python"]
)
def test_anything_else_stands_for_no_component(text: str) -> None:
    assert references.component_of(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("python:3.11", "mirror.example.org/hub/library/python:3.11"),
        ("bitnami/redis", "mirror.example.org/hub/bitnami/redis:latest"),
        ("index.docker.io/library/python:3.11", "mirror.example.org/hub/library/python:3.11"),
        (f"python:3.11@{DIGEST}", f"mirror.example.org/hub/library/python:3.11@{DIGEST}"),
        (f"quay.io/a/b@{DIGEST}", f"127.0.0.1:5000/a/b@{DIGEST}"),
        ("ghcr.io/a/b:1", None),
    ],
)
def test_a_mirror_has_an_image_under_its_full_name(text: str, found: str | None) -> None:
    assert references.mirrored(text, {"docker.io": "mirror.example.org/hub", "quay.io": "127.0.0.1:5000"}) == found
