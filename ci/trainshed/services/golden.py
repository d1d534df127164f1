"""Golden predictions: requests with the answers that a good revision gives.

The file is JSON::

    {"tolerance": 1e-6,
     "requests": [{"name": "a benign case", "path": "/predict", "body": {…}, "status": 200, "answer": {…}}]}

``method`` is POST with a body and GET without; ``status`` is 200 when left out. An answer is compared field by field: what the file
does not name is free, numbers may differ by ``tolerance`` (absolute), and lists have the same length.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import UsageError, problems, suggestion
from trainshed.files import read_text

_KEYS = ("name", "method", "path", "body", "status", "answer")
_METHODS = ("GET", "POST", "PUT")


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


def load(path: Path) -> tuple[Golden, ...]:
    """Read a file of golden predictions.

    Raises:
        UsageError: with all problems, a line each.
    """
    try:
        document = json.loads(read_text(path, what="the golden predictions"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}", next_step="Mend the line that is named.") from error
    if not isinstance(document, dict) or not isinstance(document.get("requests"), list) or not document["requests"]:
        message = f'{path}: expected {{"requests": [{{"path": …, "body": …, "answer": …}}]}} with one request or more'
        raise UsageError(message, next_step="Write the requests, each with the answer that a good revision gives.")
    tolerance = document.get("tolerance", 0.0)
    found = [f"{path}: unknown key {key}{suggestion(key, ('tolerance', 'requests'))}" for key in set(document) - {"tolerance", "requests"}]
    if not isinstance(tolerance, (int, float)) or isinstance(tolerance, bool) or not 0 <= tolerance < math.inf:
        found.append(f"{path}: tolerance: expected a number, 0 or more, not {tolerance!r}")
    for index, item in enumerate(document["requests"]):
        found += [f"{path}: requests[{index}]: {problem}" for problem in _problems(item)]
    if found:
        raise problems(found, next_step="Mend the requests that are named.")
    return tuple(_golden(index, item, float(tolerance)) for index, item in enumerate(document["requests"]))


def compare(golden: Golden, status: int, answer: Any) -> list[str]:  # noqa: ANN401 - any JSON document
    """List what is wrong with an answer, each with its place; nothing when it is good."""
    if status != golden.status:
        return [f"{golden.name}: status {status} instead of {golden.status}"]
    return [f"{golden.name}: {difference}" for difference in _differences(golden.answer, answer, golden.tolerance, "answer")]


def _problems(item: Any) -> list[str]:  # noqa: ANN401 - any JSON document
    if not isinstance(item, dict):
        return ["expected an object"]
    found = [f"unknown key {key}{suggestion(key, _KEYS)}" for key in item if key not in _KEYS]
    if not isinstance(item.get("path"), str) or not item["path"].startswith("/"):
        found.append("path: expected text such as /predict")
    if item.get("method", "GET") not in _METHODS:
        found.append(f"method: expected one of {', '.join(_METHODS)}")
    status = item.get("status", 200)
    if not isinstance(status, int) or isinstance(status, bool):
        found.append("status: expected a number such as 200")
    if "answer" not in item:
        found.append("answer: is missing")
    return found


def _golden(index: int, item: dict[str, Any], tolerance: float) -> Golden:
    return Golden(
        name=str(item.get("name") or f"request {index + 1}"),
        method=item.get("method", "POST" if "body" in item else "GET"),
        path=item["path"],
        body=item.get("body"),
        status=item.get("status", 200),
        answer=item["answer"],
        tolerance=tolerance,
    )


def _differences(wanted: Any, given: Any, tolerance: float, place: str) -> list[str]:  # noqa: ANN401 - any JSON document
    if isinstance(wanted, dict) and isinstance(given, dict):
        found = []
        for key, value in wanted.items():
            found += _differences(value, given[key], tolerance, f"{place}.{key}") if key in given else [f"{place}.{key} is missing"]
        return found
    if isinstance(wanted, list) and isinstance(given, list):
        if len(wanted) != len(given):
            return [f"{place} has {len(given)} items instead of {len(wanted)}"]
        pairs = enumerate(zip(wanted, given, strict=True))
        return [text for index, (one, other) in pairs for text in _differences(one, other, tolerance, f"{place}[{index}]")]
    same = math.isclose(wanted, given, rel_tol=0, abs_tol=tolerance) if _number(wanted) and _number(given) else _equal(wanted, given)
    return [] if same else [f"{place} is {given!r} instead of {wanted!r}"]


def _number(value: Any) -> bool:  # noqa: ANN401 - any JSON document
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON document
    return type(one) is type(other) and bool(one == other)  # 1 is not true
