"""Requests to a Jenkins controller through jenkinsapi's requester: limited in time, repeated only where safe, errors in plain words.

This module imports jenkinsapi and requests: it is imported when a controller is spoken to, not before.
"""

from __future__ import annotations

import html
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from jenkinsapi.jenkins import Jenkins as Client
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError
from urllib3.exceptions import SSLError as Urllib3SSLError

from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.tools import http, process
from trainshed.tools.http import Http, Response, place
from trainshed.tools.jenkins_records import Denied, NotFound, Unavailable

RETRIES = 3
_AWAY = frozenset({500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_FOLLOWED = 5
_UNAUTHENTICATED, _FORBIDDEN, _MISSING, _CONFLICT = 401, 403, 404, 409
_STARTING = "getting ready to work"
_LOGIN = "Check jenkins.user, and renew the API token in the variable that jenkins.token-env names (Jenkins: your name, Security)."
_SHOWN = 200
_LAST_LOOK_SECONDS = 2.0

_local = threading.local()
logging.getLogger("jenkinsapi").addHandler(logging.NullHandler())  # else its warnings reach the terminal


class _Adapter(HTTPAdapter):
    """Trusts what all tools here trust, and ends a request when the caller's time is over."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as the library has it
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:  # noqa: ANN401 - as the library has it
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ANN401 - as the library has it
        """Leave the trust to the context: requests would add a list of authorities of its own."""

    def send(  # noqa: PLR0913 - as the library has it
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,  # noqa: ANN401 - as the library has it
        verify: bool | str = True,
        cert: Any = None,  # noqa: ANN401 - as the library has it
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request, for no longer than the caller has time."""
        left = max(0.05, _local.ends - time.monotonic())
        return super().send(request, stream, min(float(timeout), left), verify, cert, proxies)


class Controller:
    """One controller. ``name`` is its address without credentials, for messages.

    Args:
        url: the address that people use, with the context path if there is one.
        user: who asks; empty: nobody in particular.
        token: the API token (or password) of the user.
        timeout: seconds for one try.
    """

    def __init__(self, url: str, user: str, token: str, timeout: float) -> None:
        self.url, self.name, self.user = url.rstrip("/"), place(url).rstrip("/"), user
        self._timeout, self._posting = timeout, threading.Lock()
        self.ends: float | None = None
        login = (user.encode(), token.encode()) if user else ("", "")
        self._requester = Client(self.url, *login, lazy=True, timeout=timeout, use_crumb=True).requester
        self._session: requests.Session = self._requester.session
        self._session.trust_env = False  # the tools' own settings, and no password from ~/.netrc
        parts = urlsplit(self.url)
        proxy = http.proxy_for(parts)
        self._session.proxies = {"http": proxy, "https": proxy} if proxy else {}
        adapter = _Adapter(http.tls(verify=True))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        self._parts = parts

    def close(self) -> None:
        """Close all idle connections."""
        self._session.close()

    def document(self, address: str, tree: str = "", *, ends: float | None = None) -> dict[str, Any] | None:
        """Return what ``<address>/api/json`` tells (of a `tree`), None where there is no such thing.

        Raises:
            Unavailable: the controller is away, even after some tries.
            Denied: the log-in or a permission is missing.
        """
        found = self.get(f"{address}/api/json" if address else "api/json", {"tree": tree} if tree else {}, ends=ends)
        return None if found is None else _document(found)

    def get(self, address: str, query: Mapping[str, str] | None = None, *, ends: float | None = None) -> Response | None:
        """Ask for something below the controller's address, again when the controller is away; None for 404.

        Args:
            query: parameters.
            ends: time of `time.monotonic` after which nothing is tried again; by default that of this object.
        """
        url, ends = f"{self.url}/{address}", self.ends if ends is None else ends
        for attempt in range(RETRIES + 1):
            asked = 0.0  # seconds, by Retry-After
            try:
                answer = self._redirected(self._exchange("GET", url, query or {}, None, ends), ends)
                if answer.status not in _AWAY and answer.status != http.TOO_MANY:
                    return None if answer.status == _MISSING else self.checked(answer)
                error, asked = away(answer), http.retry_after(answer.headers)
            except (requests.RequestException, HTTPError) as cause:
                error = self._failed(url, cause)
            pause = asked or http.backoff(attempt)
            if attempt == RETRIES or (ends is not None and time.monotonic() + pause >= ends):
                raise error
            process.pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def post(self, address: str, query: Mapping[str, str], form: Mapping[str, str], *, look: str) -> Response:
        """Send a form once; it is sent again only where it cannot have been taken. Any answer below 500 is returned.

        Args:
            look: what to look at when nobody knows whether it was taken.

        Raises:
            Unavailable: it was certainly not taken.
            RemoteError: it may have been taken.
            Interrupted: likewise.
        """
        url = f"{self.url}/{address}"
        for attempt in range(RETRIES + 1):
            try:
                answer = self._exchange("POST", url, query, form, None)
            except Interrupted as stop:
                told = "interrupted; Jenkins may have taken it all the same"
                raise Interrupted(told, next_step=f"Look at {look} before you trigger again.") from stop
            except (requests.RequestException, HTTPError) as cause:
                error = self._failed(url, cause)
                if not _harmless(cause):
                    raise _unknown(error.message, look) from None
            except (RuntimeError, ValueError, SyntaxError, LookupError, TypeError):
                self._ask_crumb()
                error = Unavailable(f"{self.name}: gave no crumb", next_step="Run again.")
            else:
                if answer.status not in _AWAY and answer.status != http.TOO_MANY:
                    return answer
                error = away(answer)
                if answer.status != http.TOO_MANY and _STARTING not in answer.text:
                    raise _unknown(error.message, look)
            if attempt == RETRIES:
                raise error
            process.pause(http.backoff(attempt))
        raise AssertionError("the last attempt returns or raises")

    def checked(self, answer: Response) -> Response:
        """Return a good answer; raise what a bad one means."""
        if answer.ok:
            return answer
        if answer.status == _UNAUTHENTICATED:
            who = f"user '{self.user}' or the API token" if self.user else "nobody: it wants a log-in"
            raise Denied(f"{self.name}: Jenkins does not accept {who} (HTTP 401)", next_step=_LOGIN)
        if answer.status == _FORBIDDEN:
            raise self._forbidden(answer)
        if answer.status in _REDIRECTS:
            self._elsewhere(answer)
        if answer.status == _CONFLICT:
            raise UsageError(f"{answer.place}: Jenkins does not take it now: {said(answer)}", next_step="Enable the job.")
        if answer.status == _MISSING:
            raise NotFound(f"{answer.place}: no such thing", next_step="Check the names, and that the user may see them.")
        raise UsageError(f"{answer.place}: refused (HTTP {answer.status}): {said(answer)}", next_step="Mend what Jenkins names.")

    def _ask_crumb(self) -> None:
        """Ask for a crumb as for anything else: raises what is in the way, if it is still there."""
        found = self.get("crumbIssuer/api/json")
        if found is not None:
            _document(found)

    def _exchange(self, method: str, url: str, query: Mapping[str, str], form: Mapping[str, str] | None, ends: float | None) -> Response:
        def call() -> Response:
            with self._sent(method, url, query, form, ends) as answer:
                received = _read(answer, _local.ends) if method == "GET" else _words(answer, _local.ends)
                lowered = {name.lower(): value for name, value in answer.headers.items()}
                return Response(status=answer.status_code, headers=lowered, body=received, place=place(url))

        return process.interruptible(call)

    def _sent(
        self, method: str, url: str, query: Mapping[str, str], form: Mapping[str, str] | None, ends: float | None
    ) -> requests.Response:
        if method == "GET":
            _local.ends = self._end(ends)
            return self._requester.get_url(url, dict(query), allow_redirects=False, stream=True)  # type: ignore[no-any-return]
        with self._posting:  # a crumb belongs to a session: two threads that ask for their first ones would get two
            _local.ends = self._end(ends)
            return self._requester.post_url(url, dict(query), dict(form or {}), allow_redirects=False, stream=True)  # type: ignore[no-any-return]

    def _end(self, ends: float | None) -> float:
        """Return when a try that begins now is over: by the caller's end, but with some time for a last look."""
        now = time.monotonic()
        return now + self._timeout if ends is None else min(now + self._timeout, max(ends, now + _LAST_LOOK_SECONDS))

    def _redirected(self, answer: Response, ends: float | None) -> Response:
        """Follow redirects below the controller's address with the log-in, those of a file elsewhere without."""
        for _ in range(_REDIRECTS_FOLLOWED):
            if answer.status not in _REDIRECTS:
                break
            target = urljoin(answer.place, answer.headers.get("location", ""))
            if _origin(urlsplit(target)) != _origin(self._parts):
                return self._foreign(answer, target)
            if "/login" in urlsplit(target).path or "securityRealm" in target:
                break
            answer = self._exchange("GET", target, {}, None, ends)
        return answer

    def _foreign(self, answer: Response, target: str) -> Response:
        if "/artifact/" not in answer.place:
            return answer
        with Http(timeout=self._timeout) as client:  # a store of artifacts: its address carries the permission
            return client.request("GET", target, redirects=True)

    def _elsewhere(self, answer: Response) -> NoReturn:
        target = urlsplit(urljoin(answer.place, answer.headers.get("location", "")))
        where = place(target.geturl())
        if target.hostname == self._parts.hostname and target.scheme != self._parts.scheme:
            raise UsageError(f"{self.name}: the controller's address is another: it redirects to {where}", next_step="Correct jenkins.url.")
        raise Denied(f"{answer.place}: redirected to {where}: a log-in page, it seems", next_step=_LOGIN)

    def _forbidden(self, answer: Response) -> Denied:
        who = answer.headers.get("x-you-are-authenticated-as") or self.user or "anonymous"
        permission = answer.headers.get("x-required-permission", "")
        lacks = f"lacks the permission {_permission(permission)}" if permission else f"may not do this: {said(answer)}"
        step = _LOGIN if not self.user else f"Ask for the permission for '{who}' on the job, or check jenkins.user and the token."
        return Denied(f"{answer.place}: user '{who}' {lacks} (HTTP 403)", next_step=step)

    def _failed(self, url: str, cause: BaseException) -> Unavailable:
        """Return the error for an exchange without an answer; raise at once what no second try mends."""
        reason = _reason(cause)
        if reason is None:
            raise RemoteError(f"{place(url)}: {type(cause).__name__}", next_step="Check jenkins.url.") from None
        told = http.failure(url, reason)
        inner = reason.reason if isinstance(reason, MaxRetryError) else reason
        if isinstance(inner, Urllib3SSLError):
            step = "Name the CA bundle that signs this controller in SSL_CERT_FILE, or check the address."
            raise RemoteError(told.message, next_step=step) from None
        return Unavailable(told.message, next_step="Check jenkins.url, the network and the controller, then run again.")


def away(answer: Response) -> Unavailable:
    """Return the error for an answer that says: not now."""
    if _STARTING in answer.text:
        return Unavailable(f"{answer.place}: Jenkins is getting ready to work (HTTP {answer.status})", next_step="Run again in a while.")
    return Unavailable(
        f"{answer.place}: HTTP {answer.status}: {said(answer)}", next_step="Run again; ask who runs this Jenkins if it stays."
    )


def said(answer: Response) -> str:
    """Return an answer's own words: the title and first paragraph of a page, else its first characters."""
    text = answer.text
    if "<" in text:
        text = re.sub(r"(?is)<(script|style|svg)\b.*?</\1>|<!--.*?-->", " ", text)
        parts = re.findall(r"(?is)<(title|h1|h2|p)\b[^>]*>(.*?)</\1>", text)
        text = ". ".join(dict.fromkeys(re.sub(r"(?s)<[^>]*>", " ", part).strip() for _, part in parts))
    return " ".join(html.unescape(text).split())[:_SHOWN] or "no words"


def _document(answer: Response) -> dict[str, Any]:
    kind = answer.headers.get("content-type", "")
    try:
        document = json.loads(answer.body)
    except ValueError:
        if "json" in kind:
            raise Unavailable(f"{answer.place}: an answer that is cut off", next_step="Run again.") from None
        raise Denied(
            f"{answer.place}: expected Jenkins' JSON, got {kind.partition(';')[0] or 'something else'} ('{said(answer)}'): "
            "a log-in page, or not a Jenkins controller",
            next_step="Check jenkins.url, jenkins.user and the token.",
        ) from None
    if not isinstance(document, dict):
        raise RemoteError(f"{answer.place}: expected a JSON object: not a Jenkins controller", next_step="Check jenkins.url.")
    return document


def _read(answer: requests.Response, ends: float) -> bytes:
    received = bytearray()
    for chunk in answer.iter_content(65_536):
        received += chunk
        if len(received) > http.BODY_LIMIT:
            raise RemoteError(f"{place(answer.url)}: more than {http.BODY_LIMIT >> 20} MiB", next_step="Fetch it by hand.")
        if time.monotonic() > ends:
            raise requests.ReadTimeout(ReadTimeoutError(None, answer.url, "the answer came too slowly"))  # type: ignore[arg-type]
    return bytes(received)


def _words(answer: requests.Response, ends: float) -> bytes:
    """Return what a form was refused with; once Jenkins has answered, a body that does not come changes nothing."""
    if answer.ok:
        return b""
    try:
        return _read(answer, ends)
    except (requests.RequestException, HTTPError):
        return b""


def _reason(cause: BaseException) -> HTTPError | None:
    """Return the error of urllib3 that requests wraps, None for one of its own."""
    while not isinstance(cause, HTTPError):
        inner = cause.args[0] if cause.args else None
        if not isinstance(inner, BaseException):
            return None
        cause = inner
    return cause


def _harmless(cause: BaseException) -> bool:
    """Tell whether a form was certainly not taken: it was never sent, or what failed was the question for a crumb before it."""
    request = getattr(cause, "request", None)
    if request is None or getattr(request, "method", "") == "GET":
        return isinstance(cause, requests.RequestException)
    reason = _reason(cause)
    return reason is not None and http.never_sent(reason)


def _unknown(message: str, look: str) -> RemoteError:
    return RemoteError(f"{message}; Jenkins may have taken it all the same", next_step=f"Look at {look} before you trigger again.")


def _permission(header: str) -> str:
    """Return ``Job/Build`` for ``hudson.model.Item.Build``."""
    words = header.split(".")
    return f"{words[-2].replace('Item', 'Job').replace('Hudson', 'Overall')}/{words[-1]}" if len(words) > 1 else header


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
