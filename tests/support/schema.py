"""JSON schema, as much of it as the tests' schemas use; a keyword that is not known here is an error, never ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}
_NOTES = frozenset(("$schema", "$comment", "title", "description", "definitions"))


def problems(value: Any, schema: Mapping[str, Any], *, root: Mapping[str, Any] | None = None, place: str = "$") -> Iterator[str]:
    """Yield what of a value is not as the schema says, each with its place."""
    root = schema if root is None else root
    for keyword, wanted in schema.items():
        if keyword not in _NOTES:
            yield from _CHECKS[keyword](value, wanted, schema, root, place)


def _type(value: Any, wanted: Any, _schema: Any, _root: Any, place: str) -> Iterator[str]:
    fits = isinstance(value, _TYPES[wanted]) and not (wanted == "integer" and isinstance(value, bool))
    if not fits:
        yield f"{place}: expected {wanted}, not {value!r}"


def _ref(value: Any, wanted: Any, _schema: Any, root: Any, place: str) -> Iterator[str]:
    yield from problems(value, root["definitions"][wanted.removeprefix("#/definitions/")], root=root, place=place)


def _properties(value: Any, wanted: Any, _schema: Any, root: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, held in value.items():
            if name in wanted:
                yield from problems(held, wanted[name], root=root, place=f"{place}.{name}")


def _additional(value: Any, wanted: Any, schema: Any, root: Any, place: str) -> Iterator[str]:
    for name in sorted(set(value) - set(schema.get("properties", {}))) if isinstance(value, dict) else ():
        if wanted is False:
            yield f"{place}.{name}: no such attribute"
        else:
            yield from problems(value[name], wanted, root=root, place=f"{place}.{name}")


def _required(value: Any, wanted: Any, _schema: Any, _root: Any, place: str) -> Iterator[str]:
    yield from (f"{place}.{name}: missing" for name in wanted if isinstance(value, dict) and name not in value)


def _items(value: Any, wanted: Any, _schema: Any, root: Any, place: str) -> Iterator[str]:
    for number, held in enumerate(value if isinstance(value, list) else ()):
        yield from problems(held, wanted, root=root, place=f"{place}[{number}]")


def _one_of(value: Any, wanted: Any, _schema: Any, root: Any, place: str) -> Iterator[str]:
    tried = [list(problems(value, option, root=root, place=place)) for option in wanted]
    if sum(not found for found in tried) != 1:
        yield f"{place}: fits {sum(not found for found in tried)} of {len(wanted)} forms: {min(tried, key=len)}"


def _pattern(value: Any, wanted: Any, _schema: Any, _root: Any, place: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(wanted, value):
        yield f"{place}: {value!r} does not match {wanted}"


def _enum(value: Any, wanted: Any, _schema: Any, _root: Any, place: str) -> Iterator[str]:
    if value not in wanted:
        yield f"{place}: {value!r} is none of {wanted}"


def _limits(value: Any, wanted: Any, schema: Any, _root: Any, place: str) -> Iterator[str]:
    if isinstance(value, (dict, list)) and not schema.get("minItems", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        yield f"{place}: holds {len(value)}, wanted {wanted}"


_CHECKS = {
    "type": _type,
    "$ref": _ref,
    "properties": _properties,
    "additionalProperties": _additional,
    "required": _required,
    "items": _items,
    "oneOf": _one_of,
    "pattern": _pattern,
    "enum": _enum,
    "minItems": _limits,
    "maxProperties": _limits,
}
