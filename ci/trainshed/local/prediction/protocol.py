"""What all actions share: how a request is refused, how names are read, how answers come in pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
Action = Callable[[Document], dict[str, Any]]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_PAGE = 100


class RefusedError(Exception):
    """A request that AWS would refuse: the name of its exception, what it says, and its HTTP status."""

    def __init__(self, kind: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status


def page(found: Sequence[Any], key: str, request: Document, *, following: str = "nextToken", size: str = "maxResults") -> dict[str, Any]:
    """Return one page of a list under ``key``, with the token of the next one where there is one.

    Raises:
        RefusedError: the token or the size is none.
    """
    try:
        start, length = int(request.get(following) or 0), int(request.get(size) or _PAGE)
    except (TypeError, ValueError) as error:
        raise RefusedError("InvalidParameterException", "Invalid token") from error
    if start < 0 or length < 1:
        raise RefusedError("InvalidParameterException", "Invalid token or size of a page")
    more = {following: str(start + length)} if start + length < len(found) else {}
    return {key: list(found[start : start + length]), **more}


def last(name: object) -> str:
    """Return the last part of an ARN, or the name itself."""
    return str(name).rpartition("/")[2]


def valid(name: Any, what: str) -> str:  # noqa: ANN401 - any JSON document
    """Return a name that ECS would take.

    Raises:
        RefusedError: it would not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RefusedError("InvalidParameterException", f"the name of a {what} has letters, digits, dashes and underscores, not {name!r}")
    return name


def count(value: Any, key: str = "desiredCount") -> int:  # noqa: ANN401 - any JSON document
    """Return a whole number that is not negative.

    Raises:
        RefusedError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RefusedError("InvalidParameterException", f"{key}: expected a whole number, not {value!r}")
    return value
