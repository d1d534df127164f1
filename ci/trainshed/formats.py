"""The published formats: which kind and version a document is of, and whether it has that version's shape.

Every version that was ever published stands in ``schemas/`` as a JSON schema (2020-12) and is read for ever; the files are the only
place that tells a shape. A version only ever gains optional fields, which is why no schema forbids fields that it does not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from trainshed.errors import UsageError

Json: TypeAlias = Any
"""What JSON can hold; all of it is checked here."""
FOLDER = Path(__file__).parent / "schemas"
KINDS: Mapping[str, str] = {"lock": "a lock", "manifest": "a build's manifest", "release-manifest": "a release's manifest"}
"""What each kind is to people."""
VERSIONS: Mapping[str, tuple[int, ...]] = {"lock": (1,), "manifest": (1,), "release-manifest": (1,)}
"""The versions of each kind that are read; the last one is written."""
_IDENTIFIER = re.compile(r"trainshed/([a-z-]+)/v([1-9][0-9]{0,5})", re.ASCII)
_SHOWN = 3


def identifier(kind: str, version: int | None = None) -> str:
    """Return what a document of a kind says in ``schema``: ``trainshed/lock/v1``; of the version that is written by default."""
    return f"trainshed/{kind}/v{VERSIONS[kind][-1] if version is None else version}"


def version_of(document: Json, kind: str, *, place: str, next_step: str = "") -> int:
    """Return the version of a document, of a kind that is expected; nothing else of it is looked at.

    Raises:
        UsageError: it is something else, and the message says what; or a newer Trainshed wrote it.
    """
    said = document.get("schema") if isinstance(document, dict) else None
    match = _IDENTIFIER.fullmatch(said) if isinstance(said, str) else None
    if match is None or match[1] != kind:
        raise UsageError(f"{place}: not {KINDS[kind]}: {_is(said, match)}", next_step=next_step)
    version = int(match[2])
    if version > VERSIONS[kind][-1]:
        message = f"{place}: {said}, written by a newer Trainshed than this one, which reads up to v{VERSIONS[kind][-1]}"
        raise UsageError(message, next_step="Update Trainshed.")
    return version


def require(document: Json, kind: str, *, place: str, next_step: str = "") -> int:
    """Return the version of a document that has its shape; a reader goes on by it.

    Raises:
        UsageError: see `version_of`; or it has not the shape of its version.
    """
    version = version_of(document, kind, place=place, next_step=next_step)
    wrong = [each for _, each in zip(range(_SHOWN), problems(document, schema(kind, version)), strict=False)]
    if wrong:
        raise UsageError(f"{place}: not {KINDS[kind]}: {'; '.join(wrong)}", next_step=next_step)
    return version


@cache
def schema(kind: str, version: int) -> Mapping[str, Json]:
    """Return the JSON schema of a version."""
    loaded: dict[str, Json] = json.loads((FOLDER / f"{kind}-v{version}.json").read_text(encoding="utf-8"))
    return loaded


def _is(said: Json, match: re.Match[str] | None) -> str:
    if match is not None and match[1] in KINDS:
        return f"it is {KINDS[match[1]]} ({said})"
    return f"its schema is {json.dumps(said)[:80]}" if said is not None else "it names no schema"


# --- JSON schema, as much of it as the published files use ---------------------------------------------------------------------------

Check = Callable[[Json, Json, Mapping[str, Json], Mapping[str, Json], str], Iterator[str]]
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
}


def problems(value: Json, wanted: Mapping[str, Json], *, root: Mapping[str, Json] | None = None, place: str = "") -> Iterator[str]:
    """Yield what of a value is not as a schema says, each with its place; `KeyError` for a keyword that is not known here."""
    for keyword, told in wanted.items():
        if keyword not in _NOTES:
            yield from _CHECKS[keyword](value, told, wanted, wanted if root is None else root, place)


def _type(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    names = [told] if isinstance(told, str) else told
    if not any(isinstance(value, _TYPES[name]) and not (name == "number" and isinstance(value, bool)) for name in names):
        yield f"{place or 'it'}: expected {' or '.join(names)}"


def _const(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if value != told:
        yield f"{place}: expected {told!r}"


def _enum(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if value not in told:
        yield f"{place}: expected one of {', '.join(map(repr, told))}"


def _pattern(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", told), value):  # for Python a `$` is before a last line feed too
        yield f"{place}: {value[:80]!r} has not the form that is asked for"


def _min_length(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if isinstance(value, str) and len(value) < told:
        yield f"{place}: expected a text"


def _min_items(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if isinstance(value, list) and len(value) < told:
        yield f"{place}: expected {told} or more"


def _required(value: Json, told: Json, _wanted: Json, _root: Json, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{_below(place, name)}: missing" for name in told if name not in value)


def _properties(value: Json, told: Json, _wanted: Json, root: Json, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, schema_of in told.items():
            if name in value:
                yield from problems(value[name], schema_of, root=root, place=_below(place, name))


def _additional(value: Json, told: Json, wanted: Json, root: Json, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in value.keys() - wanted.get("properties", {}).keys():
            yield from problems(value[name], told, root=root, place=_below(place, name))


def _items(value: Json, told: Json, _wanted: Json, root: Json, place: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, held in enumerate(value):
            yield from problems(held, told, root=root, place=f"{place}[{number}]")


def _ref(value: Json, told: Json, _wanted: Json, root: Json, place: str) -> Iterator[str]:
    yield from problems(value, root["$defs"][told.removeprefix("#/$defs/")], root=root, place=place)


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


_NOTES = frozenset(("$schema", "$id", "$defs", "title", "description"))
_CHECKS: Mapping[str, Check] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "pattern": _pattern,
    "minLength": _min_length,
    "minItems": _min_items,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "$ref": _ref,
}
