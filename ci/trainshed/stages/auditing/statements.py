"""Policy documents of AWS, read as AWS reads them: one text stands for a list of one, names of actions know no case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ALLOW, DENY = "Allow", "Deny"
EVERYBODY = "*"


def of(document: Mapping[str, Any] | None, effect: str) -> list[Mapping[str, Any]]:
    """Return the statements of a document with this effect."""
    given = (document or {}).get("Statement", [])
    found = [given] if isinstance(given, Mapping) else given
    return [one for one in found if isinstance(one, Mapping) and one.get("Effect") == effect]


def texts(given: object) -> tuple[str, ...]:
    """Return one text or a list of them as a tuple."""
    if given is None:
        return ()
    found: Iterable[object] = given if isinstance(given, (list, tuple)) else (given,)
    return tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in found)


def principals(statement: Mapping[str, Any], key: str = "Principal") -> Iterator[tuple[str, str]]:
    """Return whom a statement is about, each with its kind: ``AWS``, ``Service``, ``Federated``…; ``*`` alone is everybody of AWS."""
    given = statement.get(key, {})
    if isinstance(given, str):
        yield "AWS", given
    elif isinstance(given, Mapping):
        yield from ((str(kind), value) for kind, below in given.items() for value in texts(below))


def matches(pattern: str, text: str, *, case: bool = True) -> bool:
    """Tell whether a pattern with ``*`` and ``?`` covers a text, which may be a pattern as well: its own wildcards are letters then."""
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), text, flags=re.DOTALL | (0 if case else re.IGNORECASE)) is not None


def covers(statement: Mapping[str, Any], action: str) -> bool:
    """Tell whether a statement is about an action; ``s3:*`` asks for all of S3."""
    return any(matches(pattern, action, case=False) for pattern in texts(statement.get("Action")))


def trusts(document: Mapping[str, Any], service: str) -> bool:
    """Tell whether a trust policy lets a service of AWS assume the role."""
    return any(("Service", service) in principals(one) and covers(one, "sts:AssumeRole") for one in of(document, ALLOW))
