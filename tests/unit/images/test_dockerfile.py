"""Dockerfiles: stages, and what a target needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.images import dockerfile
from trainshed.images.dockerfile import Dockerfile

SEVERAL = """\
ARG VERSION=3.11
ARG IMAGE=python:${VERSION}
FROM --platform=linux/amd64 ${IMAGE} AS Build
ARG FLAG=1
RUN --mount=type=secret,id=pip --mount=type=secret,target=/run/secrets/ca --mount=from=ghcr.io/astral/uv:1,target=/uv true
FROM scratch AS unused
COPY --from=busybox:1 /bin/sh /sh
FROM debian:12 AS program
COPY --from=build /a /a
COPY --from=0 /b /b
ARG USERNAME
FROM program AS test
ARG TESTS
COPY --from=pytest:8 /p /p
RUN --mount=type=secret,id=token true
FROM program
USER 1000
"""


def parsed(folder: Path, text: str) -> Dockerfile:
    (folder / "Dockerfile").write_text(text)
    return dockerfile.parse(folder / "Dockerfile")


def test_stages_have_names_in_lower_case_and_targets(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    assert [(stage.name, stage.base, stage.target) for stage in found.stages] == [
        ("build", "${IMAGE}", "build"),
        ("unused", "scratch", "unused"),
        ("program", "debian:12", "program"),
        ("test", "program", "test"),
        ("", "program", "4"),
    ]
    assert found.stages[0].platform == "linux/amd64"


def test_the_image_is_the_last_stage_that_is_no_test(tmp_path: Path) -> None:
    assert parsed(tmp_path, SEVERAL).final.index == 4
    assert parsed(tmp_path, "FROM a AS program\nFROM program AS test\n").final.name == "program"


def test_a_target_needs_the_stages_it_stands_on_or_copies_from_and_no_others(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    assert [stage.target for stage in found.needed(None)] == ["build", "program", "4"]
    assert [stage.target for stage in found.needed("test")] == ["build", "program", "test"]
    assert [stage.target for stage in found.needed("1")] == ["unused"]


def test_references_are_those_of_the_needed_stages_with_arguments_filled_in(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    image = ("docker.io/library/python:3.11", "ghcr.io/astral/uv:1", "docker.io/library/debian:12")
    assert found.references(None, {}) == image
    assert found.references("test", {}) == (*image, "docker.io/library/pytest:8")
    assert found.references("unused", {}) == ("docker.io/library/busybox:1",)
    assert found.references("build", {"VERSION": "3.12"})[0] == "docker.io/library/python:3.12"
    assert found.references("build", {"IMAGE": "pypy"})[0] == "docker.io/library/pypy:latest"


def test_scratch_is_no_image_even_through_an_argument(tmp_path: Path) -> None:
    assert parsed(tmp_path, "ARG B=scratch\nFROM $B\n").references(None, {}) == ()


def test_secrets_are_those_that_the_target_mounts(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    assert found.secrets(None) == {"pip", "ca"}
    assert found.secrets("test") == {"pip", "ca", "token"}


def test_arguments_are_those_that_the_target_declares(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    assert found.arguments(None) == {"VERSION", "IMAGE", "FLAG", "USERNAME"}
    assert found.arguments("test") == {"VERSION", "IMAGE", "FLAG", "USERNAME", "TESTS"}


def test_a_stage_is_found_by_name_in_any_case_or_by_index(tmp_path: Path) -> None:
    found = parsed(tmp_path, SEVERAL)
    assert found.stage("BUILD") is found.stage("0")
    assert found.has_stage("test")
    assert not found.has_stage("9")


def test_an_unknown_stage_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stage 'progam'; perhaps you meant 'program'"):
        parsed(tmp_path, SEVERAL).needed("progam")


def test_a_name_that_is_a_later_stage_only_is_an_image(tmp_path: Path) -> None:
    assert parsed(tmp_path, "FROM debian AS a\nFROM a AS debian\n").references(None, {}) == ("docker.io/library/debian:latest",)


def test_an_argument_without_value_is_refused_with_file_line_and_suggestion(tmp_path: Path) -> None:
    found = parsed(tmp_path, "ARG VERSION\n\nFROM python:${VERSON}\n")
    with pytest.raises(UsageError) as raised:
        found.references(None, {})
    assert raised.value.message == (
        f"{tmp_path}/Dockerfile:3: 'python:${{VERSON}}' cannot be resolved: no value for the argument VERSON; perhaps you meant 'VERSION'"
    )
    assert "ARG line before the first FROM" in raised.value.next_step


def test_a_default_that_stands_on_a_missing_argument_counts_as_none(tmp_path: Path) -> None:
    found = parsed(tmp_path, "ARG A\nARG B=python:${A}\nFROM $B\n")
    assert found.references(None, {"A": "3"}) == ("docker.io/library/python:3",)
    with pytest.raises(UsageError, match="no value for the argument B"):
        found.references(None, {})


def test_a_base_that_is_no_reference_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:1: 'Python:3' is not an image reference"):
        parsed(tmp_path, "FROM Python:3\n").references(None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM"),
        ("# only a comment\n", "no FROM"),
        ("ARG A=1\n", "no FROM"),
        ("RUN true\nFROM a\n", ":1: RUN before the first FROM"),
        ("FROM a AS test\n", ":1: the only stage is 'test'"),
        ("FROM\n", ":1: 'FROM ' is not understood"),
        ("FROM a as\n", ":1: 'FROM a as' is not understood"),
        ("FROM a b c\n", ":1: 'FROM a b c' is not understood"),
        ("FROM a\nONBUILD COPY . /x\n", ":2: ONBUILD"),
    ],
)
def test_a_broken_dockerfile_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parsed(tmp_path, text)
    assert message in raised.value.message
    assert str(tmp_path / "Dockerfile") in raised.value.message


def test_onbuild_without_inputs_is_left_alone(tmp_path: Path) -> None:
    assert len(parsed(tmp_path, "FROM a\nONBUILD ENV X=1\n").stages) == 1


def test_a_dockerfile_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"FROM a\n# caf\xe9\n")
    with pytest.raises(UsageError, match="is not UTF-8 \\(byte 12\\)"):
        dockerfile.parse(tmp_path / "Dockerfile")
