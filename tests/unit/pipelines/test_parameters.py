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
        ("count", "1e3", 1000),
        ("count", "010", 10),
        ("count", -(2**53), -(2**53)),
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
        ("count", "1_000", "a whole number (int)"),
        ("count", "nan", "a whole number (int)"),
        ("share", "much", "a number (float)"),
        ("share", "nan", "a number (float)"),
        ("share", "1e999", "a number (float)"),
        ("share", ".nan", "a number (float)"),
        ("share", True, "a number (float)"),
        ("title", ["a"], "a text (str)"),
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


@pytest.mark.parametrize("text", ["- a", "1: 2", "a: [", "a: !!python/name:os.system", "? [a]\n: 1", "a: 1\n---\nb: 2", "[" * 20_000])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^f(:\d+)?: "):
        parameters.read_file(text, place="f")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("title", False, "expected a text (str), not False; put it in quotes"),
        ("title", 1.1, "expected a text (str), not 1.1; put it in quotes"),
        ("count", 2**53 + 1, "is more than 2^53, and Kubeflow would round it"),
        ("count", 10**400, "is more than 2^53"),
        ("count", "9" * 5000, "99999999999999999999… is more than 2^53"),
        ("count", "9007199254740993.0", "9007199254740993.0 is more than 2^53"),
        ("count", "1e999999999", "1e999999999 is more than 2^53"),
        ("extra", '{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
        ("share", 10**400, "expected a number (float), not 1000"),
        ("names", [1, {"a": [float("nan")]}], "at [1].a[0]: nan is no number that JSON knows"),
        ("names", "[NaN]", "at [0]: nan is no number"),
        ("extra", {"a": {"b": 2**60}}, "at a.b: 1152921504606846976 is more than 2^53"),
        ("extra", {"a": {1: 2}}, "at a: a key must be a text, not 1"),
        ("extra", {"a": {1, 2}}, "at a: expected what JSON knows"),
        ("extra", "[" * 100_000, "expected a JSON object (dict), not '[["),
    ],
)
def test_what_would_reach_the_run_as_something_else_is_refused(name: str, given: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parameters.check(DEFINED, {name: given}, pipeline="p")
    assert expected in caught.value.message
    assert len(caught.value.message) < 400


def test_lists_and_structs_keep_what_is_in_them() -> None:
    nested: dict[str, Any] = {"names": [1, 2.5, None, True, "a", {"b": [[]]}], "extra": {"a": {"b": [1, None]}}}
    assert parameters.check(DEFINED, nested, pipeline="p") == nested


def test_null_leaves_out_what_is_optional_and_is_no_value_of_anything_else() -> None:
    defined = {
        "free": Parameter(name="free", type="int", optional=True),
        "seed": Parameter(name="seed", type="int", optional=True, default=7),
        "must": Parameter(name="must", type="str"),
    }
    assert parameters.check(defined, {"free": None, "must": "a"}, pipeline="p") == {"must": "a"}
    with pytest.raises(UsageError) as caught:
        parameters.check(defined, {"seed": None, "must": None}, pipeline="p")
    assert caught.value.message.splitlines() == [
        "pipeline p: parameter 'seed': expected a whole number (int), not null; leave it out for the default, 7",
        "pipeline p: parameter 'must': expected a text (str), not null",
    ]


def test_literals_of_whole_numbers_are_not_told_as_doubles() -> None:
    spec = {"parameterType": "NUMBER_INTEGER", "literals": [1.0, 2.0], "defaultValue": 1.0}
    defined = parameters.definitions({"root": {"inputDefinitions": {"parameters": {"n": spec}}}})
    assert parameters.check(defined, {"n": "2"}, pipeline="p") == {"n": 2}
    with pytest.raises(UsageError, match=r"expected one of 1, 2, not '3'"):
        parameters.check(defined, {"n": "3"}, pipeline="p")


def test_a_literal_with_a_typing_error_gets_a_suggestion() -> None:
    defined = {"kind": Parameter(name="kind", type="str", literals=("forest", "linear"))}
    with pytest.raises(UsageError, match="perhaps you meant 'forest'"):
        parameters.check(defined, {"kind": "forrest"}, pipeline="p")


def test_types_of_old_and_of_unknown_specifications() -> None:
    table = {"a": {"type": "INT"}, "b": {"type": "DOUBLE"}, "c": {"parameterType": "OF_TOMORROW"}}
    defined = parameters.definitions({"root": {"inputDefinitions": {"parameters": table}}})
    assert parameters.check(defined, {"a": "1", "b": "2", "c": [3]}, pipeline="p") == {"a": 1, "b": 2.0, "c": [3]}


def test_plain_words_of_a_file_mean_what_they_look_like() -> None:
    text = "a: no\nb: on\nc: 2024-01-31\nd: 12:30\ne: 010\nf: 1e3\ng: true\nh: null\ni: .nan\nj: -7\nk: '7'\nl: 1_000\nm: =\n"
    found = parameters.read_file(text, place="f")
    assert str(found.pop("i")) == "nan"
    assert found == {
        "a": "no",
        "b": "on",
        "c": "2024-01-31",
        "d": "12:30",
        "e": "010",
        "f": 1000.0,
        "g": True,
        "h": None,
        "j": -7,
        "k": "7",
        "l": "1_000",
        "m": "=",
    }


@pytest.mark.parametrize("text", ["seed: 1\nrows: 2\nseed: 3\n", '{"seed": 1,\n"rows": 2,\n"seed": 3}'])
def test_a_parameter_that_a_file_names_twice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"f: not YAML: line 3: 'seed' was given before, in line 1"):
        parameters.read_file(text, place="f")


def test_a_file_that_multiplies_itself_is_refused() -> None:
    with pytest.raises(UsageError, match="f:2: an alias") as caught:
        parameters.read_file("a: &a [1]\nb: *a\n", place="f")
    assert caught.value.next_step == "Write one `name: value` a line."
