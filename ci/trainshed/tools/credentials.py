"""Log-ins of registries, from where ``docker login`` and credential helpers keep them: ``config.json``."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed import files, settings
from trainshed.errors import ToolMissing, UsageError
from trainshed.tools import process

HUB = "docker.io"
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # noqa: S105 - what a helper answers as the name when its secret is an identity token
_FILE = "config.json"
_HELPER_SECONDS = 30.0
_NONE_KEPT = "credentials not found"


@dataclass(frozen=True, kw_only=True)
class Login:
    """A name with its password; or, with an empty name, an identity token to be traded for an access token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def lookup(registry: str, *, folder: Path | None = None) -> Login | None:
    """Return the log-in for a registry (``host[:port]``), None when there is none.

    Args:
        folder: where ``config.json`` lies; by default ``DOCKER_CONFIG``, else ``~/.docker``.

    Raises:
        UsageError: ``config.json`` is broken.
        ToolMissing: a credential helper that it names is missing or fails.
    """
    file = (folder or _folder()) / _FILE
    document = _read(file)
    helpers = document.get("credHelpers") or {}
    for key in _keys(registry):
        if helpers.get(key):
            return _ask(str(helpers[key]), key)
    stored = document.get("auths") or {}
    for key in _keys(registry):
        entry = stored.get(key)
        if isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")):
            return _decoded(entry, f"{file}: auths.{key}")
    store = document.get("credsStore")
    if store and not any(key in helpers for key in _keys(registry)):  # an empty helper says: what stands in the file, and no store
        for key in _keys(registry):
            found = _ask(str(store), key)
            if found is not None:
                return found
    return None


@contextmanager
def lent(logins: Mapping[str, Login], *, within: Path, folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Yield the variables that tell a client of Docker's these log-ins by host, beside all that the user's own folder holds.

    The log-ins stand in a folder of this process alone, which is gone afterwards. All else there (plugins, contexts, builders) are
    links to the user's own, so that what the client keeps is kept. Without log-ins nothing is made, and no variable is needed.

    Args:
        within: where the folder is made; what a killed process left there is swept.
        folder: the user's own; by default ``DOCKER_CONFIG``, else ``~/.docker``.

    Raises:
        UsageError: the user's ``config.json`` is broken.
    """
    if not logins:
        yield {}
        return
    users = (folder or _folder()).absolute()
    document = dict(_read(users / _FILE))
    # Docker's clients ask the one store for every host, unless a helper is named for it: an empty one means this file.
    document["credHelpers"] = {**(document.get("credHelpers") or {}), **dict.fromkeys(logins, "")}
    document["auths"] = {**(document.get("auths") or {}), **{host: _encoded(login) for host, login in logins.items()}}
    with files.scratch(within, "docker") as own:
        for entry in users.iterdir() if users.is_dir() else ():
            if entry.name != _FILE:
                (own / entry.name).symlink_to(entry)
        files.write_bytes(own / _FILE, json.dumps(document).encode(), mode=0o600)
        # A client that keeps its first builder would make the folder for it in ours.
        yield {"DOCKER_CONFIG": str(own), "BUILDX_CONFIG": settings.variable("BUILDX_CONFIG") or str(users / "buildx")}


def _encoded(login: Login) -> dict[str, str]:
    if login.identity_token:
        return {"identitytoken": login.identity_token}
    return {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}


def _folder() -> Path:
    named = settings.variable("DOCKER_CONFIG")
    return Path(named) if named else settings.home() / ".docker"


def _keys(registry: str) -> tuple[str, ...]:
    if registry in _HUB_KEYS:
        return _HUB_KEYS
    return (registry, f"https://{registry}", f"https://{registry}/", f"https://{registry}/v2/", f"http://{registry}")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}", next_step="Let this user read it.") from error
    except ValueError:  # the parser's text may quote a password
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"{file}: not a JSON object", next_step="Mend it, or write it anew with `docker login`.")
    return document


def _decoded(entry: Mapping[str, Any], place: str) -> Login:
    if entry.get("identitytoken"):
        return Login(identity_token=str(entry["identitytoken"]))
    try:
        username, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise UsageError(f"{place}: not a log-in in base64", next_step="Write it anew with `docker login`.") from None
    return Login(username=username, password=password.rstrip("\0"))


def _ask(helper: str, registry: str) -> Login | None:
    program = f"docker-credential-{helper}"
    process.need(program, next_step=f"Install {program}, or take it out of Docker's config.json.")
    with tempfile.TemporaryFile() as question:
        question.write(registry.encode())
        question.seek(0)
        outcome = process.run([program, "get"], stdin=question, timeout=_HELPER_SECONDS, check=False)
    if outcome.code != 0:
        if _NONE_KEPT in (outcome.output + outcome.errors).lower():
            return None
        raise ToolMissing(
            f"{program} failed for {registry} with code {outcome.code}", next_step=f"Try `echo {registry} | {program} get` and mend it."
        )
    try:
        answer = json.loads(outcome.output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise ToolMissing(f"{program} gave no log-in for {registry}", next_step=f"Log in to {registry} again.") from None
    return Login(identity_token=secret) if username == _TOKEN_USER else Login(username=username, password=secret)
