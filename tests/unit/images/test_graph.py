"""The graph of own bases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import write
from trainshed.errors import UsageError
from trainshed.images.components import discover
from trainshed.images.graph import Graph, base_argument


def on(*bases: str, more: str = "") -> str:
    """Return a Dockerfile with a stage on each of these own bases."""
    args = "".join(f"ARG {base_argument(base)}=127.0.0.1:5000/p/{base}:latest\n" for base in bases)
    return args + "".join(f"FROM ${{{base_argument(base)}}} AS s{number}\n" for number, base in enumerate(bases)) + more


def graph(folder: Path, dockerfiles: dict[str, str], args: dict[str, str] | None = None) -> Graph:
    write(folder, {f"{name}/Dockerfile": text for name, text in dockerfiles.items()})
    return Graph.of(discover(folder), args or {})


@pytest.fixture
def diamond(tmp_path: Path) -> Graph:
    dockerfiles = {
        "z": "FROM python:3\n",
        "b": on("z"),
        "c": on("z"),
        "a": on("b", "c", more="COPY --from=s0 /x /x\n"),
        "alone": "FROM scratch\n",
    }
    return graph(tmp_path, dockerfiles)


def test_an_own_base_comes_in_through_its_argument() -> None:
    assert base_argument("base-python") == "BASE_PYTHON"


def test_bases_are_direct_and_ancestors_are_all(diamond: Graph) -> None:
    assert diamond.bases("a") == ("b", "c")
    assert diamond.ancestors("a") == {"b", "c", "z"}
    assert diamond.bases("alone") == ()


def test_bases_come_first_in_the_order(diamond: Graph) -> None:
    assert diamond.order() == ["alone", "z", "b", "c", "a"]


def test_waves_may_run_side_by_side(diamond: Graph) -> None:
    assert diamond.waves(["a", "b", "c", "z", "alone"]) == [["alone", "z"], ["b", "c"], ["a"]]


def test_waves_of_some_names_still_follow_what_lies_between(diamond: Graph) -> None:
    assert diamond.waves(["a", "z"]) == [["z"], ["a"]]
    assert diamond.waves([]) == []


def test_foreign_bases_are_resolved_with_the_projects_and_the_components_arguments(tmp_path: Path) -> None:
    text = "ARG V=3.11\nARG W=1\nFROM python:${V} AS x\nCOPY --from=uv:${W} /uv /uv\n".replace("uv:${W}", "ghcr.io/uv:1")
    write(tmp_path, {"own/trainshed.toml": '[build]\nargs = { V = "3.13" }\n'})
    found = graph(tmp_path, {"plain": text, "own": text}, {"V": "3.12"})
    assert found.foreign("plain") == ("docker.io/library/python:3.12", "ghcr.io/uv:1")
    assert found.foreign("own") == ("docker.io/library/python:3.13", "ghcr.io/uv:1")


def test_what_only_the_tests_stand_on_is_no_base_of_the_image(tmp_path: Path) -> None:
    text = on("base", more="FROM tools:1 AS tools\nFROM s0 AS test\nCOPY --from=tools /t /t\nFROM s0\n")
    found = graph(tmp_path, {"base": "FROM python:3\n", "a": text})
    assert found.bases("a") == ("base",)
    assert found.foreign("a") == ("docker.io/library/tools:1",)
    assert found.image_bases("a") == ("base",)
    assert found.test_bases("a") == ("docker.io/library/tools:1",)


def test_a_component_of_the_name_of_an_image_is_not_taken_for_it(tmp_path: Path) -> None:
    found = graph(tmp_path, {"alpine": "FROM alpine\n"})
    assert found.bases("alpine") == ()
    assert found.image_bases("alpine") == ("docker.io/library/alpine:latest",)


def refused(folder: Path, dockerfiles: dict[str, str]) -> str:
    with pytest.raises(UsageError) as raised:
        graph(folder, dockerfiles)
    assert raised.value.exit_code == 2
    return raised.value.message


def test_a_cycle_of_bases_is_refused_with_its_way(tmp_path: Path) -> None:
    message = refused(tmp_path, {"above": on("b"), "b": on("c"), "c": on("d"), "d": on("b"), "fine": "FROM a\n"})
    assert message == f"{tmp_path}/b/Dockerfile: a cycle of bases: b → c → d → b"


def test_a_component_on_itself_is_a_cycle(tmp_path: Path) -> None:
    assert refused(tmp_path, {"a": on("a")}) == f"{tmp_path}/a/Dockerfile: a cycle of bases: a → a"


@pytest.mark.parametrize("arg", ["", "ARG BASE\n", "ARG BASE=\n"])
def test_an_own_base_without_default_is_refused_because_a_plain_build_would_fail(tmp_path: Path, arg: str) -> None:
    message = refused(tmp_path, {"base": "FROM python:3\n", "a": f"{arg}FROM ${{BASE}}\n"})
    assert message.startswith(f"{tmp_path}/a/Dockerfile:{2 if arg else 1}: the own base 'base' needs a default")
    assert "ARG BASE=<registry>/base:latest" in message


def test_a_default_that_is_no_reference_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, {"base": "FROM python:3\n", "a": "ARG BASE=Not/One\nFROM ${BASE}\n"})
    assert message == f"{tmp_path}/a/Dockerfile:2: 'Not/One' is not an image reference"


def test_a_reserved_reference_in_a_dockerfile_is_refused_and_the_argument_is_shown(tmp_path: Path) -> None:
    message = refused(tmp_path, {"base-x": "FROM python:3\n", "a": "FROM component.invalid/base-x:unstamped\n"})
    assert message.startswith(f"{tmp_path}/a/Dockerfile:1: component.invalid/base-x:unstamped stands for a component in templates only")
    assert "ARG BASE_X=… and FROM ${BASE_X}" in message


def test_all_problems_come_at_once_and_once_each(tmp_path: Path) -> None:
    message = refused(tmp_path, {"a": "FROM ${NONE}\n", "b": on("c"), "c": on("b")})
    assert [line.split(": ")[0] for line in message.splitlines()] == [f"{tmp_path}/a/Dockerfile:1", f"{tmp_path}/b/Dockerfile"]


def test_a_long_chain_of_diamonds_is_read_in_good_time(tmp_path: Path) -> None:
    dockerfiles = {"l0": "FROM python:3\n", "r0": "FROM python:3\n"}
    for number in range(1, 25):
        below = (f"l{number - 1}", f"r{number - 1}")
        dockerfiles |= {f"l{number}": on(*below), f"r{number}": on(*below)}
    found = graph(tmp_path, dockerfiles)
    assert len(found.ancestors("l24")) == 48
    assert len(found.waves(dockerfiles)) == 25
