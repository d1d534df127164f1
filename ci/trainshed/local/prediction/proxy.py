"""The front door of a service: one stable loopback address that forwards to healthy tasks and lets old ones finish.

As a load balancer does: each request goes to the healthy task with the fewest open requests; one whose connection fails before an
answer is tried again on another task where a repeat is safe; a task that leaves gets no new request and is waited for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainshed.local.prediction.upstream import Connections

_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
)
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_BODY_LIMIT = 64 * 1024 * 1024
_CHUNK_LINE = 1024
_UPSTREAM_SECONDS = 60.0
_CLIENT_SECONDS = 75.0


class _UnsentError(Exception):
    """The connection to a task was never made: no task has seen the request."""


class Targets:
    """The tasks that a service's requests may reach, and how many requests each is answering."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[str, int] = {}
        self._ports: dict[str, int] = {}
        self.connections = Connections(_UPSTREAM_SECONDS)

    def add(self, task: str, port: int) -> None:
        """Let requests reach a task."""
        with self._changed:
            self._ports[task] = port
        self.connections.know(task)

    def remove(self, task: str) -> None:
        """Send no further request to a task."""
        with self._changed:
            self._ports.pop(task, None)
        self.connections.forget(task)

    def drained(self, task: str, timeout: float) -> bool:
        """Wait until a task has answered what it was sent; False when that takes longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open.get(task), timeout)

    def count(self) -> int:
        """Return how many tasks serve."""
        with self._changed:
            return len(self._ports)

    @contextlib.contextmanager
    def chosen(self, without: set[str]) -> Iterator[tuple[str, int] | None]:
        """Yield the task with the fewest open requests, as (id, port); None when there is no other one."""
        with self._changed:
            free = [task for task in self._ports if task not in without]
            task = min(free, key=lambda one: self._open.get(one, 0), default=None)
            if task is None:
                port = 0
            else:
                port = self._ports[task]
                self._open[task] = self._open.get(task, 0) + 1
        if task is None:
            yield None
            return
        try:
            yield task, port
        finally:
            with self._changed:
                self._open[task] -= 1
                if not self._open[task]:
                    del self._open[task]
                self._changed.notify_all()


class Front(ThreadingHTTPServer):
    """The listener of one service. ``port`` 0 takes a free one."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, targets: Targets) -> None:
        self.targets = targets
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def end(self) -> None:
        """Answer no longer."""
        self.shutdown()
        self.server_close()
        self._thread.join()
        self.targets.connections.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the library's signature
        """Say nothing: a client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece: two small ones would wait for each other's acknowledgement
    disable_nagle_algorithm = True
    timeout = _CLIENT_SECONDS
    server: Front

    def log_message(self, *_: object) -> None:
        """Write no access log."""

    def _forward(self) -> None:
        try:
            body = self._asked()
        except ValueError as error:
            self.close_connection = True
            self._say(400, str(error))
            return
        answered = self._answered(body)
        if answered is not None:
            self._relay(*answered)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _forward  # noqa: N815 - the library's names

    def _answered(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes] | None:
        tried: set[str] = set()
        ends = time.monotonic() + _UPSTREAM_SECONDS
        while time.monotonic() < ends:
            with self.server.targets.chosen(tried) as target:
                if target is None:
                    break
                try:
                    return self._ask(*target, body)
                except _UnsentError:
                    tried.add(target[0])
                except (OSError, http.client.HTTPException):
                    tried.add(target[0])
                    if self.command not in _REPEATABLE:
                        break
        if tried:
            self._say(502, "the task gave no answer")
        else:
            self._say(503, "no task of this service is healthy")
        return None

    def _ask(self, task: str, port: int, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Send the request to a task; return its answer, read to the end so that a half one can be asked for again."""
        connections = self.server.targets.connections
        try:
            connection = connections.take(task, port)
        except OSError as error:
            raise _UnsentError from error
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._headers():
                connection.putheader(name, value)
            if body or self.command in {"POST", "PUT", "PATCH"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            answer = response, response.read()
        except BaseException:
            connection.close()
            raise
        connections.give(task, connection)
        return answer

    def _headers(self) -> Iterator[tuple[str, str]]:
        named = {name.strip().lower() for name in self.headers.get("Connection", "").split(",")}
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP | named | {"content-length", "x-forwarded-for", "x-forwarded-proto", "expect"}:
                yield name, value
        yield "X-Forwarded-For", str(self.client_address[0])
        yield "X-Forwarded-Proto", "http"

    def _relay(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length":
                self.send_header(name, value)
        bodiless = response.status in {204, 304}
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        if length is not None and not bodiless:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _say(self, status: int, message: str) -> None:
        body = json.dumps({"message": message}).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _asked(self) -> bytes:
        """Return the body of a request that a task can be asked."""
        if not (self.path.isascii() and self.path.isprintable()):
            raise ValueError("the path has characters that are to be encoded")
        return self._body()

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _BODY_LIMIT:
            raise ValueError("the body has no length, or is too long")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise ValueError("the body ended early")
        return body

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while True:
            size = int(self.rfile.readline(_CHUNK_LINE).partition(b";")[0].strip(), 16)
            total += size
            if size < 0 or total > _BODY_LIMIT:
                raise ValueError("the body is too long")
            yield self.rfile.read(size)
            if not size:
                while self.rfile.readline(_CHUNK_LINE).strip():
                    pass
                return
            self.rfile.readline(_CHUNK_LINE)
