"""Registries by the OCI distribution protocol: which digest a reference has now. An error is an error, never "missing"."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from trainshed.errors import RemoteError
from trainshed.images import references
from trainshed.tools import credentials
from trainshed.tools.credentials import HUB, Login
from trainshed.tools.http import Http, Response, is_loopback, place

_HUB_HOST = "registry-1.docker.io"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MISSING = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})  # the last is Harbor's
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NOT_AUTHENTICATED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _BROKEN = 401, 403, 404, 429, 500
_TOKEN_SECONDS, _TOKEN_MARGIN = 60.0, 10.0


@dataclass(frozen=True)
class _Target:
    """A reference taken apart; ``selector`` is the digest, else the tag."""

    host: str
    repository: str
    selector: str

    @staticmethod
    def of(reference: str) -> _Target:
        found = references.parse(reference)
        return _Target(found.host, found.path, found.digest or found.tag)


@dataclass
class _Passes:
    """Authorization headers by (host, repository, action), each with the moment until which it holds."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    held: dict[tuple[str, str, str], tuple[str, float]] = field(default_factory=dict)

    def get(self, key: tuple[str, str, str]) -> str | None:
        with self.lock:
            value, until = self.held.get(key, ("", 0.0))
        return value if value and time.monotonic() < until else None

    def put(self, key: tuple[str, str, str], value: str, seconds: float) -> None:
        with self.lock:
            self.held[key] = (value, time.monotonic() + seconds)


class RegistryClient:
    """A client of all registries; thread-safe, a context manager.

    Args:
        insecure: hosts (``host[:port]``) that are spoken to in plain HTTP; loopback always is.
        timeout: seconds for one try of a request.
        login: finds the log-in of a host; by default Docker's own.
    """

    def __init__(
        self, insecure: Iterable[str] = (), *, timeout: float = 30.0, login: Callable[[str], Login | None] = credentials.lookup
    ) -> None:
        self._insecure = frozenset(insecure)
        # Distribution answers 500 to whoever asks for a tag while its file is being written: a moment later it is there.
        self._http = Http(timeout=timeout, busy=[_BROKEN])
        self._login = login
        self._passes = _Passes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def digest(self, reference: str) -> str | None:
        """Return the digest that a reference has now; None only when the registry itself says that there is no such image.

        Raises:
            UsageError: the reference is malformed.
            RemoteError: the registry could not be asked, refused, or gave no sense.
        """
        target = _Target.of(reference)
        response = self._manifest(target, "HEAD")
        if response.status == _NOT_FOUND:
            # An answer to HEAD has no body: only the registry's own words tell its "missing" from any proxy's 404.
            response = self._manifest(target, "GET")
            if response.status == _NOT_FOUND:
                _confirm_missing(response)
                return None
        _check(response)
        named = response.headers.get("docker-content-digest", "")
        if not _DIGEST.fullmatch(named):
            raise RemoteError(f"{response.place}: gave no digest of the image", next_step="Check that the address is a registry's.")
        return named

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """Return the manifest (its content checked against the digest) and its media type.

        Raises:
            RemoteError: as `digest`; also when there is no such image.
        """
        target = _Target.of(reference)
        response = self._manifest(target, "GET")
        if response.status == _NOT_FOUND:
            _confirm_missing(response)
            raise RemoteError(f"{reference}: no such image", next_step="Build and push it first.")
        _check(response)
        asked = target.selector if _DIGEST.fullmatch(target.selector) else response.headers.get("docker-content-digest", "")
        return _verified(response, asked), response.headers.get("content-type", _MANIFESTS[-1]).partition(";")[0]

    def config(self, reference: str, *, platform: str = "linux/amd64") -> bytes:
        """Return the configuration (history, environment, user…) of an image as its registry holds it; of one platform of an index.

        Raises:
            RemoteError: as `manifest`; also when what is there is no image.
        """
        target = _Target.of(reference)
        document = _document(self.manifest(reference)[0], reference)
        if "manifests" in document:
            matching = [entry["digest"] for entry in document["manifests"] if _platform(entry.get("platform") or {}) == platform]
            if not matching:
                raise RemoteError(f"{reference}: holds no image for {platform}", next_step="Check build.platforms.")
            chosen = f"{target.host}/{target.repository}@{matching[0]}"
            document = _document(self.manifest(chosen)[0], chosen)
        digest = (document.get("config") or {}).get("digest", "")
        if not _DIGEST.fullmatch(digest):
            raise RemoteError(f"{reference}: is not an image", next_step="Check the reference.")
        url = f"{self._base(target.host)}/v2/{target.repository}/blobs/{digest}"
        response = self._request("GET", url, target, action="pull", redirects=True)
        _check(response)
        return _verified(response, digest)

    def tag(self, reference: str, new_tag: str) -> str:
        """Give an image one more tag in its repository; return its digest."""
        content, kind = self.manifest(reference)
        target = _Target.of(reference)
        url = f"{self._base(target.host)}/v2/{target.repository}/manifests/{new_tag}"
        response = self._request("PUT", url, target, action="pull,push", headers={"Content-Type": kind}, body=content)
        _check(response)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def ping(self, address: str) -> None:
        """Check that a registry answers at ``host[:port]`` and takes the log-in.

        Raises:
            RemoteError: it does not.
        """
        target = _Target(address.partition("/")[0], "", "")
        response = self._request("GET", f"{self._base(target.host)}/v2/", target, action="")
        _check(response)

    def _base(self, host: str) -> str:
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        plain = host in self._insecure or is_loopback(name)
        return f"{'http' if plain else 'https'}://{_HUB_HOST if host == HUB else host}"

    def _manifest(self, target: _Target, method: str) -> Response:
        url = f"{self._base(target.host)}/v2/{target.repository}/manifests/{target.selector}"
        return self._request(method, url, target, action="pull", headers={"Accept": ", ".join(_MANIFESTS)})

    def _request(  # noqa: PLR0913 - what a request is made of
        self,
        method: str,
        url: str,
        target: _Target,
        *,
        action: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        redirects: bool = False,
    ) -> Response:
        key = (target.host, target.repository, action)
        known = self._passes.get(key)
        sent = {**(headers or {}), **({"Authorization": known} if known else {})}
        response = self._http.request(method, url, headers=sent, body=body, redirects=redirects)
        if response.status != _NOT_AUTHENTICATED:
            return response
        granted, seconds = self._log_in(response, target, action)
        self._passes.put(key, granted, seconds)
        return self._http.request(method, url, headers={**(headers or {}), "Authorization": granted}, body=body, redirects=redirects)

    def _log_in(self, refused: Response, target: _Target, action: str) -> tuple[str, float]:
        """Answer a challenge: return the Authorization header and the seconds for which it holds."""
        scheme, given = _challenge(refused.headers.get("www-authenticate", ""))
        login = self._login(target.host)
        if scheme == "bearer" and "realm" in given:
            scope = f"repository:{target.repository}:{action}" if action else ""
            return self._token(given, scope, login, target.host)
        if scheme == "basic" and login is not None and login.username:
            return _basic(login), 3600.0
        raise _refused(refused.place, target.host)

    def _token(self, given: Mapping[str, str], scope: str, login: Login | None, host: str) -> tuple[str, float]:
        realm = given["realm"]
        parts = urlsplit(realm)
        if parts.scheme != "https" and not is_loopback(parts.hostname or "") and host not in self._insecure:
            raise RemoteError(f"{host}: sends the log-in to {place(realm)}, in plain text", next_step="Check the registry's address.")
        wanted = {name: value for name, value in (("service", given.get("service", "")), ("scope", scope)) if value}
        if login is not None and login.identity_token:
            form = {**wanted, "grant_type": "refresh_token", "client_id": "trainshed", "refresh_token": login.identity_token}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._http.request("POST", realm, headers=kind, body=urlencode(form).encode(), idempotent=True)
        else:
            headers = {"Authorization": _basic(login)} if login is not None else {}
            response = self._http.request("GET", f"{realm}{'&' if parts.query else '?'}{urlencode(wanted)}", headers=headers)
        if response.status in {_NOT_AUTHENTICATED, _FORBIDDEN}:
            raise _refused(response.place, host)
        _check(response)
        return _granted(response)


def _granted(response: Response) -> tuple[str, float]:
    document = response.json()
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(token, str):
        raise RemoteError(f"{response.place}: gave no token", next_step="Check the registry's log-in service.")
    seconds = document.get("expires_in", _TOKEN_SECONDS)
    return f"Bearer {token}", float(seconds if isinstance(seconds, (int, float)) else _TOKEN_SECONDS) - _TOKEN_MARGIN


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), {name.lower(): value for name, value in re.findall(r'(\w+)="([^"]*)"', rest)}


def _refused(where: str, host: str) -> RemoteError:
    return RemoteError(f"{where}: refused the log-in of {host} (401)", next_step=f"Run `docker login {host}` as the user who runs this.")


def _errors(response: Response) -> list[Mapping[str, Any]]:
    try:
        document = json.loads(response.body)
    except ValueError:
        return []
    listed = document.get("errors") if isinstance(document, dict) else None
    return [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []


def _confirm_missing(response: Response) -> None:
    """Raise unless the registry itself says that there is no such image: a 404 of anything else is an error."""
    if not any(error.get("code") in _MISSING for error in _errors(response)):
        message = f"{response.place}: answered 404, but not as a registry that lacks an image"
        raise RemoteError(message, next_step="Check the registry's address and the proxies before it.")


def _check(response: Response) -> None:
    if response.ok:
        return
    if response.status == _NOT_AUTHENTICATED:
        raise _refused(response.place, urlsplit(response.place).netloc)
    if response.status == _FORBIDDEN:
        raise RemoteError(f"{response.place}: forbidden for this log-in (403)", next_step="Ask for the permission, or log in anew.")
    if response.status == _TOO_MANY:
        raise RemoteError(f"{response.place}: too many requests (429), also after pauses", next_step="Wait, then run again.")
    said = "; ".join(str(error.get("message") or error.get("code")) for error in _errors(response))
    raise RemoteError(f"{response.place}: answered {response.status}" + (f" ({said[:200]})" if said else ""), next_step="Run again.")


def _verified(response: Response, digest: str) -> bytes:
    """Return the content; it must be the one that was asked for."""
    if f"sha256:{hashlib.sha256(response.body).hexdigest()}" != digest:
        raise RemoteError(f"{response.place}: the content that came is not the one named", next_step="Run again.")
    return response.body


def _platform(entry: Mapping[str, Any]) -> str:
    return "/".join(str(entry[part]) for part in ("os", "architecture", "variant") if entry.get(part))


def _document(manifest: bytes, reference: str) -> dict[str, Any]:
    try:
        document = json.loads(manifest)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RemoteError(f"{reference}: its manifest is not a JSON object", next_step="Check the registry.")
    return document
