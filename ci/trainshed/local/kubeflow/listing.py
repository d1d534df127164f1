"""Lists as the Kubeflow API gives them: filtered, sorted, page by page."""

from __future__ import annotations

import base64
import binascii
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

DEFAULT_PAGE = 20
LARGEST_PAGE = 200
_OPERATIONS = (  # by their numbers in filter.proto: the SDK sends numbers
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
    "EQUALS": operator.eq,
    "NOT_EQUALS": operator.ne,
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_EQUALS": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_EQUALS": operator.le,
    "IS_SUBSTRING": operator.contains,
}
_VALUES = ("string_value", "int_value", "long_value", "timestamp_value", "string_values", "int_values", "long_values")
_SORTABLE = frozenset({"created_at", "display_name", "name", "id", "state", "storage_state"})

Document = Mapping[str, Any]


class BadQuery(ValueError):
    """The filter, the sort order, the page size or the page token is wrong."""


def page(documents: Iterable[Document], query: Mapping[str, str]) -> tuple[list[Document], str, int]:
    """Return one page, the token of the next (empty at the end) and the number of all that match.

    Args:
        documents: in the order of their making; ties keep that order.
        query: ``filter``, ``sort_by``, ``page_size``, ``page_token`` of the request.

    Raises:
        BadQuery: one of these is wrong.
    """
    wanted, order = query.get("filter", ""), query.get("sort_by", "") or "created_at"
    predicates = _predicates(wanted)
    matching = [found for found in enumerate(documents) if _matches(found[1], predicates)]
    key, _, direction = order.partition(" ")
    if key not in _SORTABLE or direction not in {"", "asc", "desc"}:
        raise BadQuery(f"cannot sort by '{order}'")
    matching.sort(key=lambda found: (str(found[1].get(key, "")), found[0]), reverse=direction == "desc")
    size, start = _size(query.get("page_size", "")), _start(query.get("page_token", ""), wanted, order)
    shown = matching[start : start + size]
    token = _token(start + size, wanted, order) if start + size < len(matching) else ""
    return [document for _, document in shown], token, len(matching)


def _size(text: str) -> int:
    if text and not text.isdigit():
        raise BadQuery(f"page size '{text}' is not a number")
    return min(int(text or 0) or DEFAULT_PAGE, LARGEST_PAGE)


def _token(start: int, wanted: str, order: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, wanted, order]).encode()).decode()


def _start(token: str, wanted: str, order: str) -> int:
    if not token:
        return 0
    try:
        start, *made_for = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadQuery("the page token is not one of this server") from error
    if made_for != [wanted, order] or not isinstance(start, int):
        raise BadQuery("the page token was made for another filter or order")
    return start


def _predicates(text: str) -> list[tuple[str, str, Any]]:
    if not text:
        return []
    try:
        predicates = json.loads(text)["predicates"]
        return [_predicate({_snake(name): value for name, value in one.items()}) for one in predicates]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise BadQuery(f"the filter cannot be read: {error}") from error


def _predicate(one: Mapping[str, Any]) -> tuple[str, str, Any]:
    operation = one["operation"]
    operation = _OPERATIONS[operation] if isinstance(operation, int) else operation
    if operation not in _OPERATIONS[1:] or not operation:
        raise ValueError(f"operation {operation!r}")
    value = next(one[name] for name in (*_VALUES, "") if name in one or not name)
    return str(one["key"]), operation, value["values"] if isinstance(value, dict) else value


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _matches(document: Document, predicates: list[tuple[str, str, Any]]) -> bool:
    return all(_holds(str(document.get(key, "")), operation, value) for key, operation, value in predicates)


def _holds(have: str, operation: str, value: Any) -> bool:  # noqa: ANN401 - what JSON gives
    if operation == "IN":
        return have in map(str, value)
    return _COMPARISONS[operation](have, str(value))
