"""What was once published is read for ever: golden files and schemas that nothing may change, and readers that are as strict as these."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support import manifests as samples
from trainshed import formats, sealing
from trainshed.errors import UsageError
from trainshed.pipelines import lock as locks
from trainshed.releases import manifest as releases
from trainshed.reports import manifest as builds

GOLDEN = Path(__file__).resolve().parents[1] / "data/formats"
READ_FOR_EVER = {
    "lock-v1": "785c3ae70b6c25dd27b0da9b0ef31ef90d5722132240ff45739ce327455045e6",
    "manifest-v1": "8bc58ea36993381faa2d185a63363e419df55119efa4873c8c502436a8f33309",
    "release-manifest-v1": "e187dcb42b5ddf338f669930301cb1d000cb52b0d1cd1349d767c3b060b6ba5e",
}
"""Documents as some Trainshed wrote them. A new file may be added; none of these, nor its digest, is ever changed."""
PUBLISHED = {
    "lock-v1": "1cebbbff3a019f5aa38fbdf42ea221a4700e55d9fb16b12b04759bfc6cb10296",
    "manifest-v1": "36685465d8c142c620b1e9d99f196cbb2a96d3c5fd52e601cd461458aedc97b5",
    "release-manifest-v1": "37f62bf3cd96664685f9b2796babd7116ae73859281f7f3228e578763662d843",
}
"""The schemas. A change that only adds optional fields changes a digest here, and is told in docs/reference/schemas.md."""
PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "lock": lambda document: locks.parse(document, place="x"),
    "manifest": lambda document: builds.parse(document, place="x"),
    "release-manifest": lambda document: releases.parse(document, place="x"),
}
MUTATIONS = 40


def golden(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return document


def kind_of(name: str) -> str:
    return name.rpartition("-v")[0]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resealed(document: dict[str, Any]) -> dict[str, Any]:
    return sealing.sealed(document) if "seal" in document else document


def test_no_golden_file_and_no_published_schema_was_changed_or_left_out() -> None:
    assert {path.stem: digest(path) for path in GOLDEN.glob("*.json")} == READ_FOR_EVER
    assert {path.stem: digest(path) for path in formats.FOLDER.glob("*.json")} == PUBLISHED


def test_every_version_that_is_read_has_its_schema_and_a_golden_file() -> None:
    known = {f"{kind}-v{version}" for kind, versions in formats.VERSIONS.items() for version in versions}
    assert known == set(PUBLISHED) == set(READ_FOR_EVER)
    for name in known:
        kind, _, version = name.rpartition("-v")
        told = formats.schema(kind, int(version))
        assert told["$id"] == f"urn:trainshed:schema:{kind}:v{version}"
        assert told["properties"]["schema"] == {"const": formats.identifier(kind, int(version))}


@pytest.mark.parametrize("name", READ_FOR_EVER)
def test_an_old_document_is_read_and_is_as_its_schema_says(name: str) -> None:
    document, kind = golden(name), kind_of(name)
    Draft202012Validator.check_schema(formats.schema(kind, 1))
    assert list(Draft202012Validator(formats.schema(kind, 1)).iter_errors(document)) == []
    assert PARSERS[kind](document)


def test_what_is_read_says_what_was_written() -> None:
    assert locks.parse(golden("lock-v1"), place="x").document() == golden("lock-v1")
    assert locks.parse(golden("lock-v1"), place="x") == samples.lock()
    assert releases.parse(golden("release-manifest-v1"), place="x").document() == golden("release-manifest-v1")
    assert builds.parse(golden("manifest-v1"), place="x") == golden("manifest-v1")


def changed(document: Any, path: tuple[Any, ...], change: Any) -> dict[str, Any]:
    """Return a document with one thing in it missing, of another type, empty, or with a field that is not known."""
    made: dict[str, Any] = copy.deepcopy(document)
    holder: Any = made
    for step in path[:-1]:
        holder = holder[step]
    if change is _GONE:
        del holder[path[-1]]
    elif change is _NEW and isinstance(holder, dict):
        holder["a-later-field"] = {"told": ["by a later Trainshed"]}
    elif change is not _NEW:
        holder[path[-1]] = change
    return made


_GONE, _NEW = object(), object()
CHANGES: tuple[Any, ...] = (None, [], {}, "", 7, True, "x", [None], {"x": None}, "sha256:" + "g" * 64, _GONE, _NEW)


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield (*before, key)
        yield from paths(held, (*before, key))


@pytest.mark.parametrize("name", READ_FOR_EVER)
def test_the_reader_refuses_what_the_schema_refuses_and_judges_it_as_the_standard_does(name: str) -> None:
    kind, version = kind_of(name), 1
    told = formats.schema(kind, version)
    standard, chance = Draft202012Validator(told), random.Random(name)  # noqa: S311 - the same each time
    places, refused = list(paths(golden(name))), 0
    for _ in range(MUTATIONS):
        document = resealed(changed(golden(name), chance.choice(places), chance.choice(CHANGES)))
        valid = standard.is_valid(document)
        refused += not valid
        if not valid:
            with pytest.raises(UsageError):
                PARSERS[kind](document)
    assert 0 < refused < MUTATIONS


@pytest.mark.parametrize("name", READ_FOR_EVER)
def test_fields_of_a_later_trainshed_in_the_same_version_are_no_reason_to_refuse(name: str) -> None:
    document = golden(name) | {"a-later-field": {"told": 1}}
    for section in document.values():
        if isinstance(section, dict) and "seal" not in section and name != "manifest-v1":
            for entry in section.values():
                if isinstance(entry, dict):
                    entry["a-later-field"] = "told"
    assert PARSERS[kind_of(name)](resealed(document))


def test_a_later_field_of_a_release_is_kept_so_that_its_digest_stays() -> None:
    document = sealing.sealed({**golden("release-manifest-v1"), "a-later-field": ["told"]})
    document["images"]["train"]["signatures"] = 2
    document = sealing.sealed(document)
    assert releases.parse(document, place="x").document() == document


@pytest.mark.parametrize("kind", formats.KINDS)
def test_what_is_of_a_newer_trainshed_or_something_else_is_told_as_that(kind: str) -> None:
    document = golden(f"{kind}-v1")
    with pytest.raises(UsageError, match=rf"^x: trainshed/{kind}/v2, written by a newer Trainshed .* up to v1$") as caught:
        PARSERS[kind]({**document, "schema": f"trainshed/{kind}/v2"})
    assert caught.value.next_step == "Update Trainshed."
    other = next(name for name in formats.KINDS if name != kind)
    with pytest.raises(UsageError, match=rf"^x: not {formats.KINDS[kind]}: it is {formats.KINDS[other]} \(trainshed/{other}/v1\)$"):
        PARSERS[kind](golden(f"{other}-v1"))
    schemas: list[Any] = [None, [], 1, "trainshed/x/v1", f"trainshed/{kind}/v1\n", f"trainshed/{kind}/v0"]
    strange: list[Any] = [None, [], 1, "x", {}, *({"schema": schema} for schema in schemas)]
    for each in strange:
        with pytest.raises(UsageError, match=f"^x: not {formats.KINDS[kind]}: it"):
            PARSERS[kind](each)


@pytest.mark.parametrize("name", ["lock-v1", "release-manifest-v1"])
def test_an_edit_breaks_the_seal(name: str) -> None:
    for change in ({"project": "other"}, {"a-later-field": 1}, {"seal": "sha256:" + "0" * 64}, {"seal": None}):
        with pytest.raises(UsageError, match="x: edited after it was written"):
            PARSERS[kind_of(name)](golden(name) | change)


def test_a_seal_is_of_the_one_spelling_of_a_document() -> None:
    assert sealing.canonical({"b": ["ä", 1.0], "a": None}) == '{"a":null,"b":["ä",1.0]}'.encode()
    assert sealing.digest({"a": 1, "b": 2}) == sealing.digest({"b": 2, "a": 1})
    assert sealing.holds(sealing.sealed({"a": "\ud800"}))
    assert sealing.sealed(sealing.sealed({"a": 1})) == sealing.sealed({"a": 1})
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert not sealing.holds({"seal": "x", "deep": deep})
