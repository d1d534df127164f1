from __future__ import annotations

import pytest

from tests.support.pipelines import COMPILED
from trainshed.errors import UsageError
from trainshed.pipelines import documents

HEAD = "pipelineInfo: {name: x}\nroot: {}\ndeploymentSpec: {executors: {}}\n"


def test_what_is_loaded_and_dumped_unchanged_comes_back_byte_for_byte() -> None:
    header, rest = documents.split_header(COMPILED)
    assert header.endswith("[Default: 7.0]\n")
    assert rest.startswith("components:")
    assert documents.dump(header, documents.load(COMPILED, place="x")) == COMPILED


def test_a_text_of_comments_only_is_all_header() -> None:
    assert documents.split_header("# one\n# two\n") == ("# one\n# two\n", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x: 0 YAML documents"),
        (HEAD + "---\n{}\n---\n{}\n", "x: 3 YAML documents"),
        ("- a\n", "x: document 1 is not a mapping"),
        (HEAD + "---\n- a\n", "x: document 2 is not a mapping"),
        ("name: Train\nimplementation: {}\n", "pipelineInfo.name is missing"),
        ("pipelineInfo: {name: ''}\n", "pipelineInfo.name is missing"),
        ("pipelineInfo: {name: x}\nroot: []\n", "root is missing"),
        ("pipelineInfo: {name: x}\nroot: {}\n", "deploymentSpec.executors is missing"),
        ("pipelineInfo: {name: x}\nroot: {}\ndeploymentSpec: {executors: []}\n", "deploymentSpec.executors is missing"),
        ("a: b\nc: [\n", "x:3: not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "x:1: not YAML: could not determine a constructor"),
        ("a: 2024-99-99\n", "x: not YAML: month must be in"),
        ("a: &b [1]\nc: *b\n", "x:2: an alias"),
        ("a\0b", "x: not YAML"),
    ],
)
def test_what_is_no_compiled_pipeline_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        documents.load(text, place="x")
    assert message in caught.value.message
    assert caught.value.next_step


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_a_file_of_brackets_is_refused_before_it_is_built(bracket: str) -> None:
    with pytest.raises(UsageError, match="x:1: nested deeper than 100 levels"):
        documents.load(bracket * 20_000, place="x")


def test_a_file_of_more_than_eight_mebibytes_is_refused() -> None:
    with pytest.raises(UsageError, match="larger than 8 MiB"):
        documents.load("#" * (documents.MAX_BYTES + 1), place="x")
    with pytest.raises(UsageError, match="larger than 8 MiB"):
        documents.load("#" + "ü" * (documents.MAX_BYTES // 2), place="x")


def test_executors_without_a_container_are_left_out() -> None:
    text = "pipelineInfo: {name: x}\nroot: {}\ndeploymentSpec: {executors: {a: {importer: {}}, b: {container: {image: i}}, c: 1}}\n"
    loaded = documents.load(text, place="x")
    assert documents.containers(loaded) == {"b": {"image": "i"}}
    assert set(documents.executors(loaded)) == {"a", "b"}
    assert documents.pipeline_name(loaded) == "x"


def test_every_string_is_walked_with_its_path() -> None:
    assert list(documents.strings({"a": ["x", {"b": "y"}], "c": 1})) == [
        ("a", "a"),
        ("a[0]", "x"),
        ("a[1].b", "b"),
        ("a[1].b", "y"),
        ("c", "c"),
    ]
