"""Registries by the OCI distribution protocol: which digest a reference has now. An error is an error, never "missing"."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode, urljoin, urlsplit

from trainshed import values
from trainshed.errors import RemoteError, UsageError
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
_BAD, _NOT_AUTHENTICATED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _BROKEN = 400, 401, 403, 404, 429, 500
_TOKEN_SECONDS, _TOKEN_MARGIN = 60.0, 10.0
_TAKEN = "already exists"  # ECR, of an immutable tag: 400, TAG_INVALID
ENSURE = "Make its repository: on ECR, run `trainshed registry ensure`; then run again."
"""The next step where a push finds no repository: most registries make one then, ECR does not."""


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

    def drop(self, key: tuple[str, str, str], value: str) -> None:
        with self.lock:
            if self.held.get(key, ("", 0.0))[0] == value:
                del self.held[key]


class NoRepository(RemoteError):
    """The registry has no such repository, and makes none at a push; to ask again does not help."""

    permanent = True


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

    def digest(self, reference: str, *, fetch: bool = False) -> str | None:
        """Return the digest that a reference has now; None only when the registry itself says that there is no such image.

        Args:
            reference: what to look up.
            fetch: ask for the manifest itself, so that a cache in front of another registry takes it over.

        Raises:
            UsageError: the reference is malformed.
            RemoteError: the registry could not be asked, refused, or gave no sense.
        """
        target = _Target.of(reference)
        response = self._manifest(target, "GET" if fetch else "HEAD")
        if response.status == _NOT_FOUND:
            # An answer to HEAD has no body: only the registry's own words tell its "missing" from any proxy's 404.
            response = self._manifest(target, "GET")
            if response.status == _NOT_FOUND:
                _confirm_missing(response)
                return None
        require_ok(response)
        named = response.headers.get("docker-content-digest", "") or _digest_of(response)
        if not _DIGEST.fullmatch(named):
            raise RemoteError(f"{response.place}: gave no digest of the image", next_step="Check that the address is a registry's.")
        return named

    def has_repository(self, repository: str) -> bool:
        """Tell whether a registry has a repository (``host/path``); most make one at the first push, and say no until then.

        Raises:
            RemoteError: as `digest`.
        """
        response = self._manifest(_Target.of(repository), "GET")
        if response.status != _NOT_FOUND:
            require_ok(response)
            return True
        _confirm_missing(response)
        return not _lacks_repository(response)

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
        require_ok(response)
        told = response.headers.get("docker-content-digest") or _digest_of(response)  # ECR tells it in its answers to HEAD only
        asked = target.selector if _DIGEST.fullmatch(target.selector) else told
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
        require_ok(response)
        return _verified(response, digest)

    def tag(self, reference: str, new_tag: str) -> str:
        """Give an image one more tag in its repository; return its digest.

        Raises:
            RemoteError: as `manifest`.
            UsageError: the tag is immutable, and names another image.
        """
        content, kind = self.manifest(reference)
        target = _Target.of(reference)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = f"{self._base(target.host)}/v2/{target.repository}/manifests/{new_tag}"
        response = self._request("PUT", url, target, action="pull,push", headers={"Content-Type": kind}, body=content)
        if is_taken(response):
            found = self.digest(f"{target.host}/{target.repository}:{new_tag}")
            if found is not None:
                return same_image(f"{target.host}/{target.repository}:{new_tag}", found, digest)
        require_ok(response)
        return digest

    def tags(self, repository: str) -> set[str]:
        """Return all tags of a repository (``host/path``), none when the registry does not know it.

        Raises:
            RemoteError: as `digest`.
        """
        found: set[str] = set()
        path = "tags/list"
        while path:
            response = self.ask("GET", repository, path)
            if response.status == _NOT_FOUND:
                _confirm_missing(response)
                return found
            require_ok(response)
            found.update(response.json().get("tags") or ())
            path = following(response)
        return found

    def ask(  # noqa: PLR0913 - what a request is made of
        self,
        method: str,
        repository: str,
        path: str,
        *,
        action: str = "pull",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """Ask the registry of a repository (``host/path``) for what is below it, such as ``blobs/sha256:…``; return any answer.

        Args:
            method: of HTTP.
            repository: whose log-in is used.
            path: below the repository; or an address that the registry gave: another host is sent no log-in.
            action: ``pull`` or ``pull,push``.
            headers: more of them.
            body: to send.
        """
        target, url, own = self._addressed(repository, path)
        if not own:
            return self._http.request(method, url, headers=headers, body=body)
        return self._request(method, url, target, action=action, headers=headers, body=body)

    @contextmanager
    def stream(self, repository: str, path: str, *, start: int = 0) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Yield the answer to GET below a repository, and its content in pieces, from an offset on where the registry can do that."""
        target, url, _ = self._addressed(repository, path)
        asked = self._request("HEAD", url, target, action="pull")  # a challenge is answered here; where it leads to is for GET alone
        if asked.status >= _BAD:
            require_ok(asked)
        known = self._passes.get((target.host, target.repository, "pull"))
        headers = {**({"Range": f"bytes={start}-"} if start else {}), **({"Authorization": known} if known else {})}
        with self._http.stream(url, headers=headers) as answer:
            yield answer

    def _addressed(self, repository: str, path: str) -> tuple[_Target, str, bool]:
        """Return the target, the address, and whether that is the registry's own."""
        target = _Target.of(repository)
        base = self._base(target.host)
        url = urljoin(f"{base}/v2/{target.repository}/", path if path.startswith(("/", "http://", "https://")) else f"./{path}")
        return target, url, urlsplit(url)[:2] == urlsplit(base)[:2]

    def ping(self, address: str) -> None:
        """Check that a registry answers at ``host[:port]`` and takes the log-in.

        Raises:
            RemoteError: it does not.
        """
        target = _Target(address.partition("/")[0], "", "")
        response = self._request("GET", f"{self._base(target.host)}/v2/", target, action="")
        require_ok(response)

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
        if known and response.status == _FORBIDDEN:  # so ECR answers to a log-in that has ended: asked for anew, without
            self._passes.drop(key, known)
            again = self._http.request(method, url, headers=headers or {}, body=body, redirects=redirects)
            response = again if again.status == _NOT_AUTHENTICATED else response
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
        require_ok(response)
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


def is_taken(response: Response) -> bool:
    """Tell whether a registry refused to give a tag anew because its tags are immutable; also one that names the same image already."""
    said = " ".join(str(error.get("message") or "") for error in _errors(response))
    return response.status in {400, 409} and "immutable" in said and _TAKEN in said


def same_image(reference: str, found: str, wanted: str) -> str:
    """Return the digest of a tag that was there already: it must be the one that was wanted.

    Raises:
        UsageError: it is another.
    """
    if found != wanted:
        message = f"{reference}: its tag is immutable and stands for {found}, not for {wanted}"
        raise UsageError(message, next_step="Choose another tag; an immutable one never moves.")
    return found


def _refused(where: str, host: str) -> RemoteError:
    step = f"Run `docker login {host}` as the user who runs this."
    if values.ecr_place(host.partition("/")[0]) is not None:
        step = "Check that the identity which runs this may work on this registry, and run again."
    return RemoteError(f"{where}: refused the log-in of {host} (401)", next_step=step)


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


def following(response: Response) -> str:
    """Return the address of the next page of a list, empty after the last one."""
    found = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', response.headers.get("link", ""))
    return found[1] if found else ""


def require_ok(response: Response) -> None:
    """Raise `RemoteError`, with the registry's own words, unless the answer is a good one."""
    if response.ok:
        return
    if response.status == _NOT_AUTHENTICATED:
        raise _refused(response.place, urlsplit(response.place).netloc)
    said = "; ".join(str(error.get("message") or error.get("code")) for error in _errors(response))
    if response.status == _FORBIDDEN:  # ECR answers so to a full repository too: its words tell which it is
        message = f"{response.place}: forbidden for this log-in (403)" + (f": {said[:200]}" if said else "")
        raise RemoteError(message, next_step="Ask for the permission, or log in anew.")
    if response.status == _TOO_MANY:
        raise RemoteError(f"{response.place}: too many requests (429), also after pauses", next_step="Wait, then run again.")
    if _lacks_repository(response):
        raise NoRepository(f"{response.place}: there is no such repository ({said[:200]})", next_step=ENSURE)
    raise RemoteError(f"{response.place}: answered {response.status}" + (f" ({said[:200]})" if said else ""), next_step="Run again.")


def _lacks_repository(response: Response) -> bool:
    return any(error.get("code") == "NAME_UNKNOWN" for error in _errors(response))


def _digest_of(response: Response) -> str:
    """Return the digest of a manifest that came; empty when what came is none."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    return f"sha256:{hashlib.sha256(response.body).hexdigest()}" if response.body and kind in _MANIFESTS else ""


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
