"""Lists as the Kubeflow API gives them: filtered, sorted, page by page."""

from __future__ import annotations

import base64
import binascii
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_PAGE = 20
LARGEST_PAGE = 200
_COMMON = frozenset({"id", "name", "display_name", "created_at", "description"})
_FIELDS: Mapping[str, frozenset[str]] = {
    "pipelines": _COMMON | {"pipeline_id", "namespace"},
    "pipeline_versions": _COMMON | {"pipeline_version_id", "pipeline_spec"},
    "experiments": _COMMON | {"experiment_id", "namespace", "storage_state"},
    "runs": _COMMON | {"run_id", "experiment_id", "pipeline_id", "state", "storage_state", "finished_at", "service_account"},
}
_TAGGED = frozenset({"pipelines", "pipeline_versions"})
_OPERATIONS = (  # by their numbers in filter.proto
    "UNKNOWN",
    "EQUALS",
    "NOT_EQUALS",
    "GREATER_THAN",
    "",
    "GREATER_THAN_EQUALS",
    "LESS_THAN",
    "LESS_THAN_EQUALS",
    "IN",
    "IS_SUBSTRING",
)
_COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    "EQUALS": lambda have, wanted: have.casefold() == wanted.casefold(),  # as the server's database compares
    "NOT_EQUALS": lambda have, wanted: have.casefold() != wanted.casefold(),
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_EQUALS": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_EQUALS": operator.le,
    "IS_SUBSTRING": lambda have, wanted: _like(wanted).search(have) is not None,
}
_VALUES = ("string_value", "int_value", "long_value", "timestamp_value")
_LISTS = ("string_values", "int_values", "long_values")

Document = Mapping[str, Any]
Query = Mapping[str, str]


class BadQuery(ValueError):
    """The filter, the sort order, the page size or the page token is wrong."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a page is asked for by: a page token repeats it, and must not contradict it."""

    wanted: str
    order: str
    start: int = 0


def page(kind: str, documents: Iterable[Document], query: Query) -> tuple[list[Document], str, int]:
    """Return one page, the token of the next (empty at the end) and the number of all that match.

    Args:
        kind: what is listed: pipelines, pipeline_versions, experiments or runs.
        documents: in the order of their making; ties keep that order.
        query: ``filter``, ``sort_by``, ``page_size``, ``page_token`` of the request.

    Raises:
        BadQuery: one of these is wrong.
    """
    asked, size = _asked(query), _size(query.get("page_size", ""))
    predicates = _predicates(kind, asked.wanted)
    matching = [found for found in enumerate(documents) if _matches(found[1], predicates)]
    key, _, direction = (asked.order or "created_at").partition(" ")
    if key not in _FIELDS[kind] or direction not in {"", "asc", "desc"}:
        raise BadQuery(f"invalid sort order '{asked.order}'")
    matching.sort(key=lambda found: (_told(found[1], key), found[0]), reverse=direction == "desc")
    ends = asked.start + size
    token = _token(asked, ends) if ends < len(matching) else ""
    return [document for _, document in matching[asked.start : ends]], token, len(matching)


def _asked(query: Query) -> _Asked:
    given = _Asked(wanted=query.get("filter", ""), order=" ".join(query.get("sort_by", "").lower().split()))
    text = query.get("page_token", "")
    if not text:
        return given
    try:
        start, wanted, order = json.loads(base64.urlsafe_b64decode(text))
        made_for = _Asked(wanted=str(wanted), order=str(order), start=int(start))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadQuery("the page token is not one of this server") from error
    if (given.wanted or given.order) and (given.wanted, given.order) != (made_for.wanted, made_for.order):
        raise BadQuery("the page token was made for another filter or order")
    return made_for


def _token(asked: _Asked, start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, asked.wanted, asked.order]).encode()).decode()


def _size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError as error:
        raise BadQuery(f"page size '{text}' is not a number") from error
    if size < 0:
        raise BadQuery(f"the page size should be greater than 0, not {size}")
    return min(size or DEFAULT_PAGE, LARGEST_PAGE)


def _predicates(kind: str, text: str) -> list[tuple[str, str, Any]]:
    if not text:
        return []
    try:
        predicates = json.loads(text).get("predicates") or []
        return [_predicate(kind, {_snake(name): value for name, value in one.items()}) for one in predicates]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise BadQuery(f"the filter cannot be read: {error}") from error


def _predicate(kind: str, one: Mapping[str, Any]) -> tuple[str, str, Any]:
    operation, key = one["operation"], str(one["key"])
    operation = _OPERATIONS[operation] if isinstance(operation, int) else operation
    given = [name for name in (*_VALUES, *_LISTS) if name in one]
    if operation not in _OPERATIONS[1:] or not operation or len(given) != 1 or (operation == "IN") != (given[0] in _LISTS):
        raise ValueError(f"operation {operation!r} with {' and '.join(given) or 'no value'}")
    if key not in _FIELDS[kind] and not (kind in _TAGGED and key.startswith("tags.")):
        raise ValueError(f"unrecognized field '{key}'")
    value = one[given[0]]
    return key, operation, value["values"] if given[0] in _LISTS else value


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _matches(document: Document, predicates: list[tuple[str, str, Any]]) -> bool:
    return all(_holds(_told(document, key), operation, value) for key, operation, value in predicates)


def _told(document: Document, key: str) -> str:
    if key.startswith("tags."):
        return str((document.get("tags") or {}).get(key.removeprefix("tags."), ""))
    if key == "id":
        return str(
            next((document[name] for name in ("pipeline_version_id", "run_id", "experiment_id", "pipeline_id") if name in document), "")
        )
    return str(document.get(key, ""))


def _holds(have: str, operation: str, value: Any) -> bool:  # noqa: ANN401 - what JSON gives
    if operation == "IN":
        return any(_COMPARISONS["EQUALS"](have, str(one)) for one in value)
    return _COMPARISONS[operation](have, str(value))


def _like(wanted: str) -> re.Pattern[str]:
    """Return SQL's LIKE: a per cent sign stands for any text, an underscore for any letter."""
    parts = [{"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in wanted]
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)
