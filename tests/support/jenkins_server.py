"""A Jenkins controller on a real socket, as 2.516 with the usual Pipeline plugins speaks: strict, stateful, out of order on request."""

from __future__ import annotations

import contextlib
import http.server
import re
import secrets
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.jenkins_answers import ALL, BUILD, COOKIE, ITEM_READ, READ, Answer, Asked, Refusal, User, page_of, user_of
from tests.support.jenkins_model import FakeBuild, FakeController, FakeItem, FakeJob, Parameter

__all__ = [
    "ALL",
    "BUILD",
    "ITEM_READ",
    "KEY",
    "READ",
    "WORD",
    "FakeBuild",
    "FakeController",
    "FakeItem",
    "FakeJob",
    "JenkinsServer",
    "Parameter",
    "User",
    "running_jenkins",
]

WORD, KEY = "lovelace", "11aa"
STARTING = (
    "<!DOCTYPE html><html><head><title>Starting Jenkins</title></head><body><h1>Please wait while Jenkins is getting ready to work ...</h1>"
    "<p>Your browser will reload automatically when Jenkins is ready.</p></body></html>"
)
LOGIN = '<!DOCTYPE html><html><head><title>Sign in</title></head><body><form action="j_spring_security_check"></form></body></html>'


@dataclass(eq=False)
class Fault:
    """What goes wrong with the next requests whose ``METHOD path`` matches."""

    pattern: str
    act: Callable[[_Handler], None]
    times: int


@dataclass(eq=False)
class JenkinsServer:
    """The controller and its door. ``state`` and ``root`` are for the test to fill; ``requests`` is what was asked."""

    prefix: str = ""
    state: FakeController = field(default_factory=FakeController)
    users: dict[str, User] = field(default_factory=dict)
    anonymous: Collection[str] = frozenset()
    crumbs: bool = True
    starting: bool = False
    tls: ssl.SSLContext | None = None
    requests: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sessions: dict[str, str] = {}
        self._held = socket.socket()  # keeps the port while nothing listens
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = int(self._held.getsockname()[1])
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.prefix}"
        self.state.root_url = self.state.root_url or self.url
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def root(self) -> FakeJob:
        """The top: add folders and jobs to it."""
        return self.state.root

    def start(self, *, starting: bool = False) -> None:
        """Listen; ``starting``: answer 503 until `ready`."""
        self.starting = starting
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.controller = self
        if self.tls is not None:  # the handshake is the handler's thread's
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def ready(self) -> None:
        """End the starting up."""
        self.starting = False

    def stop(self) -> None:
        """Listen no more: connections are refused and what is open is cut. What left the queue is forgotten, and so are sessions."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = None
        server.shutdown()
        thread.join()
        server.server_close()
        server.cut()
        with self.state.lock:
            self.state.forget()
            self._sessions.clear()

    def close(self) -> None:
        """End it for good."""
        self.released.set()
        self.stop()
        self._held.close()

    def asked(self, pattern: str) -> list[Asked]:
        """Return the requests whose ``METHOD path`` matches."""
        return [each for each in list(self.requests) if re.search(pattern, f"{each.method} {each.path}")]

    def fail(self, pattern: str, status: int, *, times: int = 1, page: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Answer with a status and a page."""
        refusal = Refusal(status, page, headers)
        self._fault(pattern, lambda handler: handler.refuse(refusal), times)

    def start_up(self, pattern: str = "", *, times: int = 1) -> None:
        """Answer 503 with the page of a controller that starts."""
        self.fail(pattern, 503, times=times, page=STARTING)

    def log_in(self, pattern: str = "", *, times: int = 1) -> None:
        """Answer 200 with a log-in page, as a proxy before Jenkins does."""
        self._fault(pattern, lambda handler: handler.say(200, LOGIN.encode(), "text/html;charset=utf-8"), times)

    def cut_off(self, pattern: str, *, times: int = 1) -> None:
        """Send less than the length that is announced; what was asked is done all the same."""
        self._fault(pattern, lambda handler: handler.serve(cut=True), times)

    def drop(self, pattern: str, *, times: int = 1, do: bool = False) -> None:
        """Close the connection without an answer; ``do``: after having done what was asked."""
        self._fault(pattern, lambda handler: handler.drop(do=do), times)

    def stall(self, pattern: str, *, times: int = 1) -> None:
        """Answer nothing until `released` is set."""
        self._fault(pattern, lambda handler: handler.stall(), times)

    def _fault(self, pattern: str, act: Callable[[_Handler], None], times: int) -> None:
        self.faults.append(Fault(pattern, act, times))

    def next_fault(self, asked: Asked) -> Fault | None:
        with self.state.lock:
            for fault in self.faults:
                if re.search(fault.pattern, f"{asked.method} {asked.path}"):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def session(self, cookie: str) -> tuple[str, str]:
        """Return session and crumb for a cookie; a new session for one that is not known."""
        found = re.search(rf"{re.escape(COOKIE)}=(\w+)", cookie)
        name = found[1] if found is not None and found[1] in self._sessions else secrets.token_hex(8)
        return name, self._sessions.setdefault(name, secrets.token_hex(32))

    def crumb_fits(self, cookie: str, crumb: str) -> bool:
        """Tell whether a crumb is that of the cookie's session."""
        found = re.search(rf"{re.escape(COOKIE)}=(\w+)", cookie)
        return found is not None and bool(crumb) and self._sessions.get(found[1]) == crumb


@contextlib.contextmanager
def running_jenkins(*, prefix: str = "", **options: Any) -> Iterator[JenkinsServer]:
    """Run a controller with the user ``ada`` (password `WORD`, API token `KEY`); nobody may do anything without log-in."""
    server = JenkinsServer(prefix=prefix, users={"ada": User(WORD, {KEY})}, **options)
    server.start()
    try:
        yield server
    finally:
        server.close()
    if server.errors:
        raise server.errors[0]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    controller: JenkinsServer

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Cut what is open."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's shape
        """Keep what went wrong here, but for connections that break: tests break them."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.controller.errors.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait for the acknowledgement of the first
    server: _Server
    asked: Asked

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def _take(self) -> None:
        here = self.server.controller
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        form = dict(parse_qsl(body.decode(), keep_blank_values=True)) if "form-urlencoded" in self.headers.get("Content-Type", "") else {}
        inside = parts.path.startswith(f"{here.prefix}/")
        self.asked = Asked(
            method=self.command,
            path=parts.path.removeprefix(here.prefix) if inside else parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            form=form,
            headers={name.lower(): value for name, value in self.headers.items()},
            user=user_of(self.headers.get("Authorization", ""))[0],
        )
        here.requests.append(self.asked)
        fault = here.next_fault(self.asked)
        if fault is not None:
            fault.act(self)
        elif here.starting:
            self.refuse(Refusal(503, STARTING))
        elif not inside:
            self.refuse(Refusal(404))
        else:
            self.serve()

    def serve(self, *, cut: bool = False) -> None:
        """Do what was asked and answer."""
        with self.server.controller.state.lock:
            try:
                status, body, kind, headers = Answer(self.server.controller, self.asked).made()
            except Refusal as refusal:
                self.refuse(refusal)
                return
        self.say(status, body, kind, headers, cut=cut)

    def refuse(self, refusal: Refusal) -> None:
        page = refusal.page or page_of(refusal.status)
        self.say(refusal.status, page.encode(), "text/html;charset=utf-8", refusal.headers)

    def say(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + (100 if cut else 0)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def drop(self, *, do: bool) -> None:
        if do:
            with self.server.controller.state.lock:
                Answer(self.server.controller, self.asked).made()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        self.server.controller.released.wait(120)
        self.close_connection = True
