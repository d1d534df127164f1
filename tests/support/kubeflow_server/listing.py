"""Lists: filters as JSON, sorting by the keys that the server knows, pages behind opaque tokens."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.support.kubeflow_server.records import INVALID, Document, Record, Refused

_PAGE, _LARGEST = 20, 200
_COMMON = {"id", "name", "display_name", "created_at", "description"}
FIELDS = {
    "pipelines": _COMMON | {"pipeline_id", "namespace"},
    "pipeline_versions": _COMMON | {"pipeline_version_id", "status", "pipeline_spec"},
    "experiments": _COMMON | {"experiment_id", "last_run_created_at", "namespace", "storage_state"},
    "runs": _COMMON
    | {"run_id", "finished_at", "scheduled_at", "storage_state", "status", "namespace", "experiment_id", "state", "state_history"}
    | {"runtime_details", "recurring_run_id", "pipeline_id"},
    "recurringRuns": _COMMON | {"recurring_run_id", "updated_at"},
}
_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda has, wants: _folded(has) == _folded(wants),
    "NOT_EQUALS": lambda has, wants: _folded(has) != _folded(wants),
    "GREATER_THAN": lambda has, wants: bool(has > wants),
    "GREATER_THAN_EQUALS": lambda has, wants: bool(has >= wants),
    "LESS_THAN": lambda has, wants: bool(has < wants),
    "LESS_THAN_EQUALS": lambda has, wants: bool(has <= wants),
    "IN": lambda has, wants: _folded(has) in [_folded(each) for each in wants],
    "IS_SUBSTRING": lambda has, wants: _like(str(wants)).search(str(has)) is not None,
}
_NUMBERED = {1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS", 6: "LESS_THAN", 7: "LESS_THAN_EQUALS"}
_NUMBERED |= {8: "IN", 9: "IS_SUBSTRING"}
_SCALARS = ("int_value", "long_value", "string_value", "timestamp_value")
_LISTS = ("int_values", "long_values", "string_values")


def page(kind: str, rows: Iterable[Record], query: Mapping[str, str], show: Callable[[Record], Document]) -> Document:
    """Return a page of rows as the list endpoints of a kind do; rows are shown only once they are picked."""
    size = _size(query.get("page_size", ""))
    order, falling = _order(kind, query.get("sort_by", ""))
    keeps = _filter(kind, query.get("filter", ""))
    asked = {"sort": [order, falling], "filter": json.loads(query.get("filter") or "null"), "kind": kind}
    token = _token(query.get("page_token", ""))
    if token is not None:
        if (query.get("sort_by") or query.get("filter")) and token["asked"] != asked:
            raise Refused(INVALID, "page token does not match the supplied sort by and/or filtering criteria.")
        asked = token["asked"]
        (order, falling), keeps = asked["sort"], _filter(kind, json.dumps(asked["filter"]) if asked["filter"] else "")
    kept = sorted((row for row in rows if keeps(row)), key=lambda row: (value(row, order), row.id), reverse=falling)
    start = 0
    if token is not None:  # rows may have come and gone between the pages: go on at the one that was next
        start = next((place for place, row in enumerate(kept) if row.id == token["next"]), len(kept))
    shown = [show(row) for row in kept[start : start + size]]
    following = kept[start + size : start + size + 1]
    told: Document = {kind: shown} if shown else {}
    told |= {"total_size": len(kept)} if kept else {}
    return told | ({"next_page_token": _pack({"asked": asked, "next": following[0].id})} if following else {})


def value(row: Record, key: str) -> Any:
    """Return what a row is sorted and filtered by."""
    if key in {"name", "display_name"}:
        return row.document.get("display_name", row.name) if key == "display_name" else row.name
    if key == "created_at":
        return row.created
    if key == "namespace":
        return row.namespace
    if key == "id" or (key.endswith("_id") and key not in row.document):
        return row.id
    return row.document.get(key, "")


def _folded(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


def _like(wanted: str) -> re.Pattern[str]:
    """Return SQL's LIKE: per cent and underscore stand for others."""
    parts = [{"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in wanted]
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def _size(asked: str) -> int:
    try:
        size = int(asked or 0)
    except ValueError:
        raise Refused(INVALID, f'type mismatch, parameter: page_size, error: strconv.ParseInt: parsing "{asked}"') from None
    if size < 0:
        raise Refused(INVALID, f"The page size should be greater than 0. Got {size}")
    return min(size, _LARGEST) or _PAGE


def _order(kind: str, asked: str) -> tuple[str, bool]:
    words = asked.lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in {"asc", "desc"}):
        raise Refused(INVALID, f'Received invalid sort by format "{asked}".')
    key = words[0] if words else "created_at"
    if key not in FIELDS[kind]:
        raise Refused(INVALID, f'Invalid sorting field: "{key}" on listable type {kind}')
    return key, len(words) == 2 and words[1] == "desc"


def _filter(kind: str, asked: str) -> Callable[[Record], bool]:
    if not asked:
        return lambda _: True
    try:
        predicates = json.loads(asked).get("predicates", [])
        checks = [_predicate(kind, predicate) for predicate in predicates]
    except (ValueError, AttributeError, TypeError) as error:
        raise Refused(INVALID, f'failed to parse valid filter from "{asked}": {error}') from error
    return lambda row: all(check(row) for check in checks)


def _predicate(kind: str, given_so: Mapping[str, Any]) -> Callable[[Record], bool]:
    predicate = {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name): value for name, value in given_so.items()}
    predicate["operation"] = _NUMBERED.get(predicate.get("operation", ""), predicate.get("operation", ""))
    unknown = set(predicate) - {"operation", "key", *_SCALARS, *_LISTS}
    operation, key = predicate.get("operation", ""), predicate.get("key", "")
    given = [name for name in (*_SCALARS, *_LISTS) if name in predicate]
    if unknown or operation not in _OPERATIONS or len(given) != 1:
        raise Refused(INVALID, f"failed to parse valid filter: {json.dumps(predicate)}")
    if (operation == "IN") != (given[0] in _LISTS) or (operation == "IS_SUBSTRING" and given[0] != "string_value"):
        raise Refused(INVALID, f"cannot use operator {operation} on {given[0]}")
    wants = predicate[given[0]]["values"] if given[0] in _LISTS else predicate[given[0]]
    if key.startswith("tags.") and kind in {"pipelines", "pipeline_versions"}:
        return lambda row: bool(row.document.get("tags", {}).get(key.removeprefix("tags.")) == wants)
    if key not in FIELDS[kind]:
        raise Refused(INVALID, f'no support for filtering on unrecognized field "{key}"')
    return lambda row: _OPERATIONS[operation](value(row, key), wants)


def _token(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise Refused(INVALID, "Invalid package token") from error


def _pack(document: Document) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()
