"""Discovery: what a folder of components holds, and everything that may be wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.images import TESTED, component, write
from trainshed.errors import UsageError
from trainshed.images.components import ComponentSettings, discover, select

FROM = "FROM python:3.11\n"


def refused(folder: Path) -> str:
    with pytest.raises(UsageError) as raised:
        discover(folder)
    assert raised.value.exit_code == 2
    return raised.value.message


def test_components_come_sorted_with_their_kinds(tmp_path: Path) -> None:
    write(tmp_path, {"train/Dockerfile": TESTED, "train/component.yaml": "name: Train\n", "train/structure-test.yaml": ""})
    write(tmp_path, {"base/Dockerfile": FROM, "serve/Dockerfile": FROM, "serve/service.yaml": "name: serve\n", "serve/component.yaml": ""})
    found = discover(tmp_path)
    assert [(name, item.kind, item.has_tests) for name, item in found.items()] == [
        ("base", "base", False),
        ("serve", "service", False),
        ("train", "step", True),
    ]
    assert found["train"].structure_test == tmp_path / "train/structure-test.yaml"
    assert found["base"].structure_test is None
    assert found["serve"].step


def test_hidden_folders_caches_and_files_are_no_components(tmp_path: Path) -> None:
    write(tmp_path, {".cache/x": "", "__pycache__/x": "", "README.md": "", "a/Dockerfile": FROM})
    assert list(discover(tmp_path)) == ["a"]


def test_a_missing_folder_is_refused_and_init_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of components") as raised:
        discover(tmp_path / "none")
    assert "trainshed init" in raised.value.next_step


@pytest.mark.parametrize("name", ["Train", "a..b", "a_b", "-a", "a-", "a.b", "ä"])
def test_a_folder_whose_name_is_no_components_name_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, {"Dockerfile": FROM})
    assert refused(tmp_path) == f"{tmp_path}/{name}: '{name}' is no component's name: lower-case letters, digits and inner dashes only"


def test_a_name_that_is_not_utf_8_is_refused_in_printable_words(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102
    assert "'caf\\xe9' is no component's name" in refused(tmp_path)
    assert refused(tmp_path).isprintable()


def test_a_folder_without_dockerfile_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"train/train.py": ""})
    assert refused(tmp_path) == f"{tmp_path}/train: no Dockerfile: every folder of components has one"


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"components/a/Dockerfile": FROM, "elsewhere/Dockerfile": FROM})
    (tmp_path / "components/b").symlink_to(tmp_path / "elsewhere")
    assert refused(tmp_path / "components") == f"{tmp_path}/components/b: is a link: a component is a folder of its own"


def test_names_that_differ_by_case_only_are_two_components_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, {"train/Dockerfile": FROM, "TRAIN/Dockerfile": FROM})
    assert f"{tmp_path}: two components of one name: 'TRAIN' and 'train'" in refused(tmp_path).splitlines()


@pytest.mark.parametrize("file", ["component.yaml", "service.yaml"])
def test_two_files_of_one_name_are_two_components_of_one_name(tmp_path: Path, file: str) -> None:
    write(
        tmp_path,
        {
            "a/Dockerfile": FROM,
            f"a/{file}": "name: Train a model\n",
            "b/Dockerfile": FROM,
            f"b/{file}": 'name: "Train a model"  # copied\n',
        },
    )
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path}/b/{file}: two components of one name")
    assert str(tmp_path / "a" / file) in message


def test_a_copied_component_yaml_that_stands_for_another_component_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "name: B\nimplementation:\n  container:\n    image: component.invalid/a:unstamped\n"
    write(tmp_path, {"b/Dockerfile": FROM, "b/component.yaml": text})
    expected = "the image is component.invalid/a:unstamped, expected component.invalid/b:unstamped"
    assert refused(tmp_path) == f"{tmp_path}/b/component.yaml:4: {expected}"


def test_a_component_yaml_with_its_own_reserved_image_is_taken(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"b/Dockerfile": FROM, "b/component.yaml": "name: B\nimplementation: {container:\n  image: 'component.invalid/b:unstamped'}\n"},
    )
    assert discover(tmp_path)["b"].step


@pytest.mark.parametrize("file", ["Dockerfile", "component.yaml", "service.yaml", "trainshed.toml"])
def test_a_file_that_is_not_utf_8_is_refused_with_its_name(tmp_path: Path, file: str) -> None:
    write(tmp_path / "a", {"Dockerfile": FROM, file: b"\xff\xfe"})
    assert refused(tmp_path).startswith(f"{tmp_path}/a/{file}: ")
    assert "is not UTF-8 (byte 0)" in refused(tmp_path)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"a/x": "", "B/Dockerfile": FROM, "c/Dockerfile": "RUN x\n", "d/Dockerfile": FROM, "d/trainshed.toml": "[test]\nnetwrk = true\n"},
    )
    assert [line.removeprefix(f"{tmp_path}/").split(":")[0] for line in refused(tmp_path).splitlines()] == [
        "B",
        "a",
        "c/Dockerfile",
        "d/trainshed.toml",
    ]


def test_settings_have_defaults(tmp_path: Path) -> None:
    assert component(tmp_path).settings == ComponentSettings()


def test_settings_are_read_from_the_components_own_file(tmp_path: Path) -> None:
    text = '[build]\nargs = { FLAVOUR = "small" }\ntimeout = "10m"\n[test]\nnetwork = true\ntimeout = 90\nmemory = "512m"\n'
    settings = component(tmp_path, files={"trainshed.toml": text}).settings
    assert settings == ComponentSettings(args={"FLAVOUR": "small"}, build_timeout=600, network=True, test_timeout=90, memory="512m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[test]\nnetwrk = true", "unknown key test.netwrk; perhaps you meant 'test.network'"),
        ("tset = 1", "unknown key tset"),
        ("[test]\nnetwork = 'yes'", "test.network: expected true or false, not 'yes'"),
        ("[test]\ntimeout = 'soon'", "test.timeout: expected a duration"),
        ("[test]\nmemory = 'much'", "test.memory: expected a size"),
        ("[build]\nargs = { A = 1 }", "build.args: expected a table of texts"),
        ("[build", "not TOML"),
        pytest.param("a=" + "[" * 5000, "not TOML", id="nested without end"),
    ],
)
def test_broken_settings_are_refused_with_key_and_reason(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "a", {"Dockerfile": FROM, "trainshed.toml": text})
    assert f"{tmp_path}/a/trainshed.toml: {message}" in refused(tmp_path)


def test_two_broken_settings_are_both_named(tmp_path: Path) -> None:
    write(tmp_path / "a", {"Dockerfile": FROM, "trainshed.toml": "[test]\nnetwork = 1\nmemory = 1\n"})
    assert len(refused(tmp_path).splitlines()) == 2


def test_no_choice_is_all_and_a_choice_keeps_the_known_order() -> None:
    assert select(["a", "b", "c"], []) == ["a", "b", "c"]
    assert select(["a", "b", "c"], ["c", "a", "c"]) == ["a", "c"]


def test_unknown_names_are_refused_together_with_suggestions() -> None:
    with pytest.raises(UsageError) as raised:
        select(["train", "evaluate"], ["trian", "zzz", "evaluate"], what="pipeline")
    assert raised.value.message == "no pipeline 'trian'; perhaps you meant 'train'\nno pipeline 'zzz'"
    assert raised.value.next_step == "Known: train, evaluate."
