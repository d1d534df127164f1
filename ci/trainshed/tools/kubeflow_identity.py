"""Who a credential, and who a server, says that we are, and until when."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from trainshed.console import spoken
from trainshed.errors import RemoteError
from trainshed.tools.http import Http, Response

_LEEWAY_SECONDS = 60.0  # two clocks are never the same: within it the server decides
_NAMES = ("email", "preferred_username", "sub")
_NOBODY = "anonymous@kubeflow.org"  # what the dashboard says where no identity reaches it
_PLACES = ("/api/workgroup/env-info", "/oauth2/userinfo")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a credential says by itself; ``user`` is empty, and ``until`` None, where it does not say.

    ``source`` names what says so; ``renews`` tells that its end is no end of the work: it is made anew without a person.
    """

    user: str = ""
    until: datetime | None = None
    source: str = ""
    audience: tuple[str, ...] = ()
    renews: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who the server says that we are: ``user`` is empty where it does not say; ``namespaces`` are ours, with our role in each."""

    user: str = ""
    source: str = ""
    namespaces: Mapping[str, str] = field(default_factory=dict)


def claims(text: str) -> Mapping[str, Any] | None:
    """Return the claims of a JSON web token, its signature not looked at; None for what is none."""
    parts = text.split(".")
    if len(parts) != 3 or _part(parts[0]) is None:  # noqa: PLR2004 - header, claims, signature
        return None
    return _part(parts[1])


def user_of(told: Mapping[str, Any]) -> str:
    """Return the name that people know a user by; empty where the claims have none."""
    found = (told.get(name) for name in _NAMES)
    return next((name for name in found if isinstance(name, str) and name), "")


def end_of(told: Mapping[str, Any]) -> datetime | None:
    """Return when the claims end; None where they do not say."""
    end = told.get("exp")
    if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
        return None
    return moment(end)


def audience_of(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Return whom the claims are meant for."""
    named = told.get("aud")
    return tuple(each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str))


def moment(seconds: float) -> datetime | None:
    """Return a time since 1970; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def seconds_left(until: datetime) -> float:
    """Return how long it is to a moment; below zero when it has passed."""
    return until.timestamp() - time.time()


def over(until: datetime | None) -> bool:
    """Tell whether a moment has passed for certain, whatever the clocks say."""
    return until is not None and seconds_left(until) < -_LEEWAY_SECONDS


def refuse_expired(until: datetime | None, what: str, *, next_step: str) -> None:
    """Say that a credential is of no use before a request is made with it.

    Raises:
        RemoteError: it has expired; the message has the time in UTC and how long ago that was.
    """
    if until is not None and over(until):
        raise RemoteError(f"{what} expired at {shown(until)}, {spoken(-seconds_left(until))} ago", next_step=next_step)


def shown(until: datetime) -> str:
    """Return a moment as people read it: ``2026-11-22 10:00 UTC``."""
    return until.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def account(host: str, http: Http, headers: Mapping[str, str]) -> Account:
    """Ask the dashboard, then the proxy, at the root of a host who we are. Not all have them: no answer is no error."""
    parts = urlsplit(host)
    for path in _PLACES:
        try:
            answer = http.request("GET", f"{parts.scheme}://{parts.netloc}{path}", headers={**headers, "Accept": "application/json"})
        except RemoteError:
            continue
        found = _account(path, answer)
        if found.user:
            return found
    return Account()


def _account(path: str, answer: Response) -> Account:
    """Read ``{user, namespaces: [{namespace, role}]}`` of the dashboard, or ``{user, email, preferredUsername}`` of oauth2-proxy."""
    try:
        told = json.loads(answer.body) if answer.ok else None
    except ValueError:
        return Account()
    if not isinstance(told, dict):
        return Account()
    if path == _PLACES[0]:
        user, source = _text(told, "user"), "Kubeflow's dashboard"
        listed = [each for each in told.get("namespaces") or () if isinstance(each, dict)]
        namespaces = {_text(each, "namespace"): _text(each, "role") for each in listed if _text(each, "namespace")}
        return Account() if user == _NOBODY else Account(user=user, source=source, namespaces=namespaces)
    names = (_text(told, name) for name in ("email", "preferredUsername", "user"))
    return Account(user=next(filter(None, names), ""), source="oauth2-proxy")


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _part(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
