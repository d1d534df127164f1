"""Requests over HTTP: pooled, limited in time and size, repeated only where that is safe, ended at once by SIGTERM."""

from __future__ import annotations

import email.utils
import functools
import json as json_library
import random
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ResponseError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from trainshed import settings
from trainshed.errors import Interrupted, RemoteError
from trainshed.tools import process

TOO_MANY = 429
BODY_LIMIT = 256 * 1024 * 1024
_BUSY = frozenset({TOO_MANY, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_CHUNK = 65_536
_PIECE = 1 << 20
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

Field = str | tuple[str, bytes, str]
"""A form's field: a text, or a file as (name, content, media type)."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer of any status. ``headers`` are in lower case; ``place`` is the address without query and credentials."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    place: str

    @property
    def ok(self) -> bool:
        """Tell whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of good statuses

    @property
    def text(self) -> str:
        """Return the body as UTF-8, with replacements."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:  # noqa: ANN401 - any JSON document
        """Return the body as JSON.

        Raises:
            RemoteError: it is not JSON; the message names the place.
        """
        try:
            return json_library.loads(self.body)
        except ValueError as error:
            shown = self.text.strip()[:120]
            raise RemoteError(f"{self.place}: expected JSON, got {shown!r}", next_step="Check the address and the log-in.") from error


class NoAnswer(RemoteError):
    """No whole answer came; ``sent`` tells whether the request may have reached the service."""

    sent = True


class _TooLargeError(HTTPError):
    """An answer went past `BODY_LIMIT`."""


class Http:
    """A client for any number of hosts and threads; a context manager that closes its connections.

    Args:
        timeout: seconds for one try, from the connection to the last byte.
        retries: repeats after the first try, of connections that failed, lost answers and 429/502/503/504.
        verify: check certificates (``False`` only for registries that the configuration calls insecure).
        busy: more statuses that are repeated like 503.
    """

    def __init__(self, *, timeout: float = 30.0, retries: int = 3, verify: bool = True, busy: Iterable[int] = ()) -> None:
        self._busy = _BUSY.union(busy)
        self._timeout, self._retries, self._verify = timeout, retries, verify
        self._pools: dict[tuple[str, str | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def request(  # noqa: PLR0913 - what a request is made of
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json: Any = None,  # noqa: ANN401 - any JSON document
        fields: Mapping[str, Field] | None = None,
        idempotent: bool | None = None,
        redirects: bool = False,
        timeout: float | None = None,
        surely: bool = False,
    ) -> Response:
        """Send a request and return the answer, whatever its status.

        Args:
            json: a document to send as the body; ``None`` sends none.
            fields: a multipart form to send as the body.
            idempotent: whether a repeat is safe; by default so for all methods but POST and PATCH. A connection that was never
                made and a 429 are repeated in any case.
            redirects: follow them (credentials are not sent on to another host).
            timeout: seconds for one try, instead of the client's.
            surely: not given up when SIGTERM arrives: for what has to be said even then, and just then.

        Raises:
            NoAnswer: no whole answer came; names host and cause, never a query or a credential.
            Interrupted: SIGTERM or SIGINT arrived.
        """
        content, kind = _content(body, json, fields)
        sent = {**({"Content-Type": kind} if kind else {}), **(headers or {})}
        safe = method.upper() in _IDEMPOTENT if idempotent is None else idempotent
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._once(method, url, sent, content, redirects=redirects, limit=timeout or self._timeout, surely=surely)
            except HTTPError as error:
                if last or not (safe or never_sent(error)):
                    raise failure(url, error) from None  # the library's text may hold a query
                process.pause(backoff(attempt))
            else:
                if last or response.status not in self._busy or not (safe or response.status == TOO_MANY):
                    return response
                process.pause(retry_after(response.headers) or backoff(attempt))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(self, url: str, *, headers: Mapping[str, str] | None = None) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Ask with GET, following redirects; yield the answer without its body, and the body in pieces as it comes, of any size.

        The limit on time is for each piece. Nothing is repeated: whoever asks knows how far it came.

        Raises:
            NoAnswer: no answer came, or it broke off.
            Interrupted: SIGTERM or SIGINT arrived.
        """
        if process.stopping.is_set():
            raise Interrupted("interrupted")
        pool, retries = self._pool(urlsplit(url)), urllib3.Retry(total=5, connect=0, read=0, status=0, other=0, redirect=5)
        sent = {"Accept-Encoding": "identity", **(headers or {})}

        def ask() -> urllib3.BaseHTTPResponse:
            return pool.request("GET", url, headers=sent, timeout=self._timeout, retries=retries, preload_content=False)

        try:
            answer = process.interruptible(ask)
        except HTTPError as error:
            raise failure(url, error) from None
        try:
            lowered = {name.lower(): value for name, value in answer.headers.itermerged()}
            yield Response(status=answer.status, headers=lowered, body=b"", place=place(url)), _pieces(answer, url)
        finally:
            answer.close()  # what was not read to its end is of no use to the next request

    def _once(  # noqa: PLR0913 - see request
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, *, redirects: bool, limit: float, surely: bool
    ) -> Response:
        if not surely and process.stopping.is_set():
            raise Interrupted("interrupted")
        pool = self._pool(urlsplit(url))
        retries = urllib3.Retry(total=5, connect=0, read=0, status=0, other=0, redirect=5) if redirects else False

        def exchange() -> Response:
            ends = time.monotonic() + limit
            answer = pool.request(
                method,
                url,
                body=content,
                headers=dict(headers),
                timeout=limit,
                retries=retries,
                redirect=redirects,
                preload_content=False,
            )
            try:
                received = _read(answer, ends)
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
            lowered = {name.lower(): value for name, value in answer.headers.itermerged()}
            return Response(status=answer.status, headers=lowered, body=received, place=place(url))

        return exchange() if surely else process.interruptible(exchange)

    def _pool(self, url: SplitResult) -> urllib3.PoolManager:
        proxy = proxy_for(url)
        with self._lock:
            found = self._pools.get((url.scheme, proxy))
            if found is None:
                found = self._pools[url.scheme, proxy] = self._new_pool(url.scheme, proxy)
            return found

    def _new_pool(self, scheme: str, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": 32, "num_pools": 32}
        if scheme == "https":
            options["ssl_context"] = tls(verify=self._verify)
        if proxy is None:
            return urllib3.PoolManager(**options)
        login = urlsplit(proxy)
        headers = None
        if login.username is not None:
            headers = urllib3.make_headers(proxy_basic_auth=f"{login.username}:{login.password or ''}")
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


def place(url: str) -> str:
    """Return an address for messages: scheme, host, port and path; no credentials, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _content(body: bytes | None, json: Any, fields: Mapping[str, Field] | None) -> tuple[bytes | None, str]:  # noqa: ANN401 - any JSON
    if fields is not None:
        return urllib3.encode_multipart_formdata(dict(fields))
    if json is not None:
        return json_library.dumps(json).encode(), "application/json"
    return body, ""


def _read(answer: urllib3.BaseHTTPResponse, ends: float) -> bytes:
    received = bytearray()
    while time.monotonic() <= ends:
        chunk = answer.read1(_CHUNK)  # what has come: whoever waits for so much waits for ever where it comes in drops
        if not chunk:
            return bytes(received)
        received += chunk
        if len(received) > BODY_LIMIT:
            raise _TooLargeError
    raise Urllib3TimeoutError("the answer came too slowly")


def _pieces(answer: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while piece := process.interruptible(lambda: answer.read(_PIECE)):
            if process.stopping.is_set():
                raise Interrupted("interrupted")
            yield piece
    except HTTPError as error:
        raise failure(url, error) from None


def tls(*, verify: bool) -> ssl.SSLContext:
    """Return what a connection trusts: the system's certificates and this machine's CA bundle."""
    return _trust(settings.ca_bundle(), verify)


@functools.cache  # a tenth of a second for every host and client otherwise
def _trust(bundle: Path | None, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle is not None:
        context.load_verify_locations(bundle)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_loopback(host: str) -> bool:
    """Tell whether a host (without port) is this machine's loopback."""
    return host in {"localhost", "::1", "[::1]"} or host.startswith("127.")


def proxy_for(url: SplitResult) -> str | None:
    """Return the proxy to use for an address, None where it is reached directly: always so for loopback."""
    host = url.hostname or ""
    if is_loopback(host):
        return None
    set_here = {name.lower(): value for name, value in settings.proxies().items()}
    proxy = set_here.get(f"{url.scheme}_proxy") or set_here.get("all_proxy")
    excluded = {"no": set_here.get("no_proxy", "")}
    if not proxy or urllib.request.proxy_bypass_environment(host, excluded):  # type: ignore[attr-defined]
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def never_sent(error: HTTPError) -> bool:
    """Tell whether a request failed before any of it left this machine."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    refused = isinstance(reason, SSLError) and any(isinstance(each, ssl.SSLCertVerificationError) for each in reason.args)
    return refused or isinstance(reason, (NewConnectionError, ConnectTimeoutError, ProxyError))


def backoff(attempt: int) -> float:
    """Return the seconds to wait before the next try: twice as long each time, spread, at most half a minute."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempt)
    return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that the server asks for (at most half a minute), 0 when it asks for none."""
    asked = headers.get("retry-after", "")
    if asked.isdigit():
        return min(_LONGEST_PAUSE, float(asked))
    try:
        until = email.utils.parsedate_to_datetime(asked).timestamp()
    except ValueError:
        return 0.0
    return min(_LONGEST_PAUSE, max(0.0, until - time.time()))


def failure(url: str, error: HTTPError) -> NoAnswer:
    """Return the error for a request without a whole answer; it names place and cause, never a query or a credential."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    told = NoAnswer(f"{place(url)}: {_cause(reason)}", next_step="Check the address, the network and the service, then run again.")
    told.sent = not never_sent(error)
    return told


def _cause(error: BaseException | None) -> str:  # noqa: PLR0911 - one line per cause
    match error:
        case ProxyError():
            return "the proxy could not be reached or refused"
        case NewConnectionError() | ConnectTimeoutError():
            return f"no connection ({_innermost(error)})"
        case SSLError():
            return f"no trusted connection ({_innermost(error)})"
        case Urllib3TimeoutError():
            return "no whole answer in time"
        case ProtocolError():
            return f"the connection broke ({_innermost(error)})"
        case _TooLargeError():
            return f"an answer of more than {BODY_LIMIT >> 20} MiB"
        case ResponseError():
            return "too many redirects"
        case _:
            return type(error).__name__


def _innermost(error: BaseException) -> str:
    """Return the operating system's own words: the last cause, which knows no address."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "timed out" if isinstance(error, (TimeoutError, Urllib3TimeoutError)) else type(error).__name__
