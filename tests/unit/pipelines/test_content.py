from __future__ import annotations

import json
import re

import pytest

from tests.support.pipelines import COMPILED
from trainshed.errors import UsageError
from trainshed.pipelines import content, documents


def test_the_digest_is_sha256_and_repeats() -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", content.content_digest(COMPILED))
    assert content.content_digest(COMPILED) == content.content_digest(COMPILED)


def test_header_layout_and_whole_numbers_do_not_count() -> None:
    loaded = documents.load(COMPILED, place="x")
    as_a_server_tells = json.loads(json.dumps(loaded).replace(": 7.0", ": 7"))
    assert content.digest_of(as_a_server_tells) == content.content_digest(COMPILED)
    assert content.content_digest(documents.dump("", loaded)) == content.content_digest(COMPILED)


def test_an_empty_platform_document_counts_as_none() -> None:
    loaded = documents.load(COMPILED, place="x")
    assert content.digest_of([loaded[0], {}]) == content.digest_of([loaded[0]])
    assert content.digest_of(loaded) != content.digest_of([loaded[0]])


def test_fields_at_their_defaults_do_not_count_and_empty_values_do() -> None:
    def digest(task: dict[str, object], parameter: dict[str, object]) -> str:
        root = {"dag": {"tasks": {"train": {"taskInfo": {"name": "train"}, **task}}}, "inputDefinitions": {"parameters": {"p": parameter}}}
        return content.digest_of([{"pipelineInfo": {"name": "x"}, "deploymentSpec": {"executors": {}}, "root": root}])

    plain = digest({}, {"parameterType": "LIST"})
    assert digest({"cachingOptions": {"enableCache": False}, "dependentTasks": []}, {"parameterType": "LIST", "isOptional": False}) == plain
    empty: list[object] = [[], {}, "", 0, False, None]
    others = [digest({}, {"parameterType": "LIST", "defaultValue": value}) for value in empty]
    assert len({plain, *others}) == 7
    constants = [digest({"inputs": {"parameters": {"p": {"runtimeValue": {"constant": value}}}}}, {}) for value in empty]
    assert len({*constants}) == 6


def test_numbers_are_doubles_however_a_server_writes_them() -> None:
    for here, there in ((1.2345678901234567e19, 12345678901234567000), (2**53 + 1, 2**53), (1e300, int(1e300)), (-0.0, 0)):
        assert content.normalised({"x": [here]}) == content.normalised({"x": [there]})
    assert content.normalised(10**400) == 10**400


@pytest.mark.parametrize(("old", "new"), [("7.0\n        desc", "7.5\n        desc"), ("true", "1"), ("workload: training", "workload: x")])
def test_every_other_change_counts(old: str, new: str) -> None:
    assert old in COMPILED
    assert content.content_digest(COMPILED.replace(old, new)) != content.content_digest(COMPILED)


@pytest.mark.parametrize("value", ["2026-01-01", ".nan", "!!binary aGk="])
def test_a_value_that_no_server_keeps_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"^training\.yaml: .* JSON"):
        content.content_digest(COMPILED.replace("defaultValue: 7.0", f"defaultValue: {value}"), place="training.yaml")


def test_what_is_no_pipeline_has_no_digest() -> None:
    with pytest.raises(UsageError, match="the pipeline: 0 YAML documents"):
        content.content_digest("")
