"""Golden predictions: requests with the answers that a good revision gives.

The file is JSON::

    {"tolerance": 1e-6, "relative-tolerance": 1e-3,
     "requests": [{"name": "a benign case", "path": "/predict", "body": {…}, "status": 200, "answer": {…}}]}

``method`` is POST with a body and GET without; ``status`` is 200 when left out. An answer is compared field by field: what the file
does not name is free, numbers may differ by ``tolerance`` (absolute) or by ``relative-tolerance`` (a part of the wanted number),
whichever is more, and lists have the same length. The ledger keeps the file under its digest, so that a revision that is gone back to
is asked what was asked of it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import UsageError, problems, suggestion
from trainshed.files import read_text

_KEYS = ("name", "method", "path", "body", "status", "answer")
_TOLERANCES = ("tolerance", "relative-tolerance")
_KNOWN = ("requests", *_TOLERANCES)
_METHODS = ("GET", "POST", "PUT")
_FIRST_STATUS, _LAST_STATUS = 100, 599


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One request and its answer. ``body`` None sends none."""

    name: str
    method: str
    path: str
    body: Any
    status: int
    answer: Any
    tolerance: float
    relative: float = 0.0


def load(path: Path) -> tuple[Golden, ...]:
    """Read a file of golden predictions. Errors are those of `parsed`."""
    return parsed(read_text(path, what="the golden predictions"), place=str(path))


def parsed(content: str, *, place: str) -> tuple[Golden, ...]:
    """Read golden predictions; ``place`` is named in errors.

    Raises:
        UsageError: with all problems, a line each.
    """
    try:
        document = json.loads(content, object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON: {error}", next_step="Mend the line that is named.") from error
    if not isinstance(document, dict) or not isinstance(document.get("requests"), list) or not document["requests"]:
        message = f'{place}: expected {{"requests": [{{"path": …, "body": …, "answer": …}}]}} with one request or more'
        raise UsageError(message, next_step="Write the requests, each with the answer that a good revision gives.")
    found = [f"{place}: unknown key {key}{suggestion(key, _KNOWN)}" for key in document if key not in _KNOWN]
    for name in _TOLERANCES:
        value = document.get(name, 0.0)
        if not _number(value) or not 0 <= value < math.inf:
            found.append(f"{place}: {name}: expected a number, 0 or more, not {value!r}")
    for index, item in enumerate(document["requests"]):
        found += [f"{place}: requests[{index}]: {problem}" for problem in _problems(item)]
    if found:
        raise problems(found, next_step="Mend the requests that are named.")
    absolute, relative = (float(document.get(name, 0.0)) for name in _TOLERANCES)
    return tuple(_golden(index, item, absolute, relative) for index, item in enumerate(document["requests"]))


def compare(golden: Golden, status: int, answer: Any) -> list[str]:  # noqa: ANN401 - any JSON document
    """List what is wrong with an answer, each with its place; nothing when it is good."""
    if status != golden.status:
        return [f"{golden.name}: status {status} instead of {golden.status}"]
    return [f"{golden.name}: {difference}" for difference in _differences(golden.answer, answer, golden, "answer")]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' is given twice")
        found[name] = value
    return found


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number that an answer could be compared with")


def _problems(item: Any) -> list[str]:  # noqa: ANN401 - any JSON document
    if not isinstance(item, dict):
        return ["expected an object"]
    found = [f"unknown key {key}{suggestion(key, _KEYS)}" for key in item if key not in _KEYS]
    path = item.get("path")
    if not isinstance(path, str) or not re.fullmatch(r"/[!-~]*", path):
        found.append("path: expected text such as /predict, quoted as in an address")
    if item.get("method", "GET") not in _METHODS:
        found.append(f"method: expected one of {', '.join(_METHODS)}")
    status = item.get("status", 200)
    if not isinstance(status, int) or isinstance(status, bool) or not _FIRST_STATUS <= status <= _LAST_STATUS:
        found.append("status: expected a number such as 200")
    if "answer" not in item:
        found.append("answer: is missing")
    return found


def _golden(index: int, item: dict[str, Any], tolerance: float, relative: float) -> Golden:
    return Golden(
        name=str(item.get("name") or f"request {index + 1}"),
        method=item.get("method", "POST" if "body" in item else "GET"),
        path=item["path"],
        body=item.get("body"),
        status=item.get("status", 200),
        answer=item["answer"],
        tolerance=tolerance,
        relative=relative,
    )


def _differences(wanted: Any, given: Any, within: Golden, place: str) -> list[str]:  # noqa: ANN401 - any JSON document
    if isinstance(wanted, dict) and isinstance(given, dict):
        found = []
        for key, value in wanted.items():
            found += _differences(value, given[key], within, f"{place}.{key}") if key in given else [f"{place}.{key} is missing"]
        return found
    if isinstance(wanted, list) and isinstance(given, list):
        if len(wanted) != len(given):
            return [f"{place} has {len(given)} items instead of {len(wanted)}"]
        pairs = enumerate(zip(wanted, given, strict=True))
        return [text for index, (one, other) in pairs for text in _differences(one, other, within, f"{place}[{index}]")]
    same = _near(wanted, given, within) if _number(wanted) and _number(given) else _equal(wanted, given)
    return [] if same else [f"{place} is {given!r} instead of {wanted!r}"]


def _near(wanted: float, given: float, within: Golden) -> bool:
    """Tell whether a number is the wanted one: the relative tolerance is of what is wanted, not of what was answered."""
    try:
        return wanted == given or abs(wanted - given) <= max(within.tolerance, within.relative * abs(wanted))
    except OverflowError:  # JSON's whole numbers have no end, and a fraction beside one of them does
        return False


def _number(value: Any) -> bool:  # noqa: ANN401 - any JSON document
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON document
    return type(one) is type(other) and bool(one == other)  # 1 is not true
