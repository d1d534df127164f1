from __future__ import annotations

from typing import Any

import pytest

from tests.support.pipelines import COMPILED
from trainshed.errors import UsageError
from trainshed.pipelines import documents, parameters
from trainshed.pipelines.parameters import Parameter

DEFINED = {
    name: Parameter(name=name, type=kind, optional=True)
    for name, kind in {"count": "int", "share": "float", "title": "str", "fast": "bool", "names": "list", "extra": "dict"}.items()
}


def test_definitions_come_from_the_root_with_whole_numbers_as_int() -> None:
    found = parameters.definitions(documents.load(COMPILED, place="x")[0])
    assert found == {"seed": Parameter(name="seed", type="int", default=7, optional=True, description="Seed of the split.")}
    assert isinstance(found["seed"].default, int)


def test_a_pipeline_without_parameters_defines_none() -> None:
    assert parameters.definitions({"root": {}}) == {}


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("count", "7", 7),
        ("count", 7.0, 7),
        ("count", 10**400, 10**400),
        ("share", "0.5", 0.5),
        ("share", 1, 1.0),
        ("title", "7", "7"),
        ("fast", "True", True),
        ("fast", False, False),
        ("names", '["a"]', ["a"]),
        ("names", ["a"], ["a"]),
        ("extra", '{"a": 1}', {"a": 1}),
    ],
)
def test_texts_are_read_as_the_type_and_values_keep_theirs(name: str, given: Any, value: Any) -> None:
    checked = parameters.check(DEFINED, {name: given}, pipeline="p")
    assert checked == {name: value}
    assert type(checked[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("count", "7.5", "a whole number (int)"),
        ("count", 7.5, "a whole number (int)"),
        ("count", True, "a whole number (int)"),
        ("count", float("inf"), "a whole number (int)"),
        ("count", None, "a whole number (int)"),
        ("share", "much", "a number (float)"),
        ("share", "nan", "a number (float)"),
        ("share", 10**400, "a number (float)"),
        ("share", True, "a number (float)"),
        ("title", 7, "a text (str)"),
        ("fast", "yes", "true or false (bool)"),
        ("fast", 1, "true or false (bool)"),
        ("names", "a,b", "a JSON array (list)"),
        ("names", {"a": 1}, "a JSON array (list)"),
        ("extra", "[]", "a JSON object (dict)"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, given: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parameters.check(DEFINED, {name: given}, pipeline="p")
    assert caught.value.message == f"pipeline p: parameter '{name}': expected {expected}, not {given!r}"


def test_all_problems_are_told_at_once_with_suggestions() -> None:
    defined = {**DEFINED, "must": Parameter(name="must", type="str")}
    with pytest.raises(UsageError) as caught:
        parameters.check(defined, {"cuont": "1", "share": "x"}, pipeline="p")
    assert caught.value.message.splitlines() == [
        "pipeline p has no parameter 'cuont'; perhaps you meant 'count'",
        "pipeline p: parameter 'share': expected a number (float), not 'x'",
        "pipeline p: parameter 'must' (str) has no default and is not given",
    ]
    assert "count (int)" in caught.value.next_step


def test_a_parameter_with_literals_takes_only_these() -> None:
    table = {"root": {"inputDefinitions": {"parameters": {"kind": {"parameterType": "STRING", "literals": ["a", "b"]}}}}}
    defined = parameters.definitions(table)
    assert parameters.check(defined, {"kind": "a"}, pipeline="p") == {"kind": "a"}
    with pytest.raises(UsageError, match="expected one of a, b, not 'c'"):
        parameters.check(defined, {"kind": "c"}, pipeline="p")


def test_a_file_of_parameters_is_json_or_yaml() -> None:
    assert parameters.read_file('{"seed": 1}', place="f") == {"seed": 1}
    assert parameters.read_file("seed: 1\nshare: 0.5\n", place="f") == {"seed": 1, "share": 0.5}
    assert parameters.read_file("", place="f") == {}


@pytest.mark.parametrize("text", ["- a", "1: 2", "a: [", "a: !!python/name:os.system", "a: 2024-99-99"])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^f: "):
        parameters.read_file(text, place="f")
