"""The server over HTTP: routes, both shapes of errors, faults, and a note of every request."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.kubeflow_server import metadata
from tests.support.kubeflow_server.faults import Fault, Faults
from tests.support.kubeflow_server.pipelines import Pipelines
from tests.support.kubeflow_server.records import INVALID, NOT_FOUND, UNIMPLEMENTED, Clock, Document, PlainRefused, Refused, State, Table
from tests.support.kubeflow_server.runs import Runs
from tests.support.kubeflow_server.schedules import Schedules

LOGIN_PAGE = b"<!DOCTYPE html><html><title>Log in</title><form method=post action=/dex/auth><input name=login></form></html>"
_JSON, _TEXT, _HTML = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
_SLOW_SECONDS = 120.0
_CODES = {401: 16, 403: 7, 409: 6, 429: 8, 500: 13, 502: 14, 503: 14, 504: 4}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that came: ``path`` has no query; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def document(self) -> Document:
        """Return the body as a JSON object."""
        try:
            document = json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refused(INVALID, f"proto: syntax error: {error}") from error
        if not isinstance(document, dict):
            raise Refused(INVALID, "proto: syntax error: expected an object")
        return document

    def upload(self) -> tuple[bytes, str]:
        """Return content and name of the form's file."""
        kind = self.headers.get("content-type", "")
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + self.body)
        for part in message.iter_parts() if message.is_multipart() else ():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                content = part.get_payload(decode=True)
                return (content if isinstance(content, bytes) else b""), part.get_filename() or ""
        raise Refused(INVALID, "Failed to read pipeline from file")


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    body: bytes = b""
    kind: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class StrictServer:
    """A Kubeflow of a version, single-user or multi-user.

    Args:
        allows: who may come in, by the request's headers; others are sent to the login page. Everybody by default.
        namespaces: of a multi-user Kubeflow, those that the caller may use; all when empty.
        prefix: the path under which it stands, such as ``/pipeline``.
    """

    def __init__(
        self,
        *,
        multi_user: bool = False,
        version: str = "2.17.0",
        allows: Callable[[Mapping[str, str]], bool] = lambda _: True,
        namespaces: tuple[str, ...] = (),
        prefix: str = "",
    ) -> None:
        self.clock = Clock()
        self.state = State(multi_user=multi_user, version=version, clock=self.clock)
        self.pipelines = Pipelines(self.state)
        self.runs = Runs(self.state, self.pipelines)
        self.schedules = Schedules(self.state, self.runs)
        self.metadata = metadata.Store(self.state, self.runs)
        self.faults = Faults()
        self.requests: list[Asked] = []
        self.address = ""
        self.allows, self._namespaces, self._prefix = allows, namespaces, prefix
        self._released = threading.Event()

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Yield the address."""
        self._released.clear()
        http = _Listener(("127.0.0.1", 0), _Handler)
        http.strict = self
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            self.address = f"http://127.0.0.1:{http.server_address[1]}{self._prefix}"
            yield self.address
        finally:
            self._released.set()
            http.shutdown()
            thread.join()
            http.server_close()

    def asked(self, method: str = "", path: str = ".*") -> list[Asked]:
        """Return the requests of a method to paths that a pattern matches as a whole."""
        return [each for each in list(self.requests) if method in {"", each.method} and re.fullmatch(path, each.path)]

    def kept(self) -> Any:
        """Return a copy of all that it holds, for `back_to`."""
        with self.state.lock:
            tables = {name: table for name, table in vars(self.state).items() if isinstance(table, Table)}
            return copy.deepcopy((tables, self.runs.plays))

    def back_to(self, kept: Any) -> None:
        """Hold what it held when the copy was made, and forget requests and faults."""
        with self.state.lock:
            tables, self.runs.plays = copy.deepcopy(kept)
            vars(self.state).update(tables)
        self.faults.clear()
        self.requests.clear()

    # what the handler uses

    def answer(self, asked: Asked) -> Said:
        """Return the answer to a request that meets no fault."""
        path = asked.path
        if path.startswith("/dex/") or not self.allows(asked.headers):
            return Said(200, LOGIN_PAGE, _HTML) if path.startswith("/dex/") else _sent_to_login()
        if path.startswith(metadata.SERVICE):
            return self._metadata(asked)
        if not path.startswith("/apis/"):
            return Said(404, b"404 page not found\n", _TEXT)
        try:
            with self.state.lock:
                self._permit(asked)
                return self._routed(asked)
        except PlainRefused as refusal:
            return Said(refusal.status, f"{refusal}\n".encode(), _TEXT)
        except Refused as refusal:
            return self.refusal(path, refusal.status, refusal.code, str(refusal))

    def _routed(self, asked: Asked) -> Said:
        met = [(method, call, found) for method, path, call in _ROUTES if (found := re.fullmatch(path, asked.path))]
        for method, call, found in met:
            if method == asked.method:
                names = [unquote(name) for name in found.groups()]
                answer = call(self, asked, *names)
                return Said(200, answer, "text/plain") if isinstance(answer, bytes) else Said(200, json.dumps(answer).encode())
        raise Refused(UNIMPLEMENTED, "Method Not Allowed") if met else Refused(NOT_FOUND, "Not Found")

    def _permit(self, asked: Asked) -> None:
        wanted = asked.query.get("namespace", "")
        if self.state.multi_user and self._namespaces and wanted and wanted not in self._namespaces:
            raise Refused((403, 7), f"User is not authorized with reason: (request: namespace {wanted})")

    def _metadata(self, asked: Asked) -> Said:
        if asked.method != "POST" or not asked.headers.get("content-type", "").startswith("application/grpc-web"):
            return Said(415, b"", _TEXT)
        with self.state.lock:
            body, headers = self.metadata.answer(asked.path, asked.headers["content-type"], asked.body)
        return Said(200, body, asked.headers["content-type"], headers)

    def refusal(self, path: str, status: int, code: int, message: str) -> Said:
        """Return an error in the shape that the endpoint has for errors."""
        if "/upload" in path or path.endswith("/log"):
            return Said(status, json.dumps({"error_message": message, "error_details": message}).encode())
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
        return Said(status, json.dumps({"error": message, "code": code, "message": message, "details": [detail]}).encode())

    def spoiled(self, fault: Fault, asked: Asked) -> Said | None:
        """Return the answer of a fault, None for one that gives no answer."""
        if fault.kind == "slow":
            self._released.wait(_SLOW_SECONDS)
        if fault.kind in {"slow", "reset"}:
            return None
        said = {
            "login": _sent_to_login(),
            "html": Said(200, LOGIN_PAGE, _HTML),
            "cut": Said(200, b'{"pipeline_id": "f'),
            "wrong-json": Said(200, b'{"unexpected": ["answer"]}'),
            "no-json": Said(200, b'{"pipeline_id": '),
            "empty": Said(200, b"{}"),
        }.get(fault.kind)
        if said is not None:
            return said
        status = int(fault.kind)
        retry = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        if status in {429, 502, 503, 504} and "/upload" not in asked.path:  # these come from a proxy before the server
            return Said(status, b"upstream connect error or disconnect/reset before headers", "text/plain", retry)
        refusal = self.refusal(asked.path, status, _CODES[status], f"fault {fault.kind}")
        return Said(refusal.status, refusal.body, refusal.kind, retry)

    def take(self, asked: Asked, path: str) -> tuple[Said | None, bool]:
        """Note a request and return its answer, None for none, and whether it is cut off."""
        self.requests.append(asked)
        fault = self.faults.take(asked.method, path)
        if fault is None:
            return self.answer(asked), False
        if fault.after:
            self.answer(asked)
        return self.spoiled(fault, asked), fault.kind == "cut"

    @property
    def prefix(self) -> str:
        """Return the path under which it stands."""
        return self._prefix


def _sent_to_login() -> Said:
    return Said(302, b"", _HTML, {"Location": "/dex/auth?client_id=kubeflow&response_type=code"})


Route = Callable[..., Document | bytes]
_API, _ID = "/apis/v2beta1", "([^/:]+)"
_ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", f"{_API}/healthz", lambda server, _: server_health(server)),
    ("POST", f"{_API}/pipelines/upload", lambda server, asked: server.pipelines.upload(asked.query, *asked.upload())),
    ("POST", f"{_API}/pipelines/upload_version", lambda server, asked: server.pipelines.upload_version(asked.query, *asked.upload())),
    ("GET", f"{_API}/pipelines", lambda server, asked: server.pipelines.pipelines(asked.query)),
    ("POST", f"{_API}/pipelines", lambda server, asked: server.pipelines.create(asked.document())),
    ("GET", f"{_API}/pipelines/names/([^/]+)", lambda server, asked, name: server.pipelines.by_name(name, asked.query)),
    ("GET", f"{_API}/pipelines/{_ID}", lambda server, _, one: server.pipelines.pipeline(one)),
    ("DELETE", f"{_API}/pipelines/{_ID}", lambda server, asked, one: server.pipelines.delete(one, asked.query)),
    ("GET", f"{_API}/pipelines/{_ID}/versions", lambda server, asked, one: server.pipelines.versions(one, asked.query)),
    ("GET", f"{_API}/pipelines/{_ID}/versions/{_ID}", lambda server, _, one, version: server.pipelines.version(one, version)),
    ("DELETE", f"{_API}/pipelines/{_ID}/versions/{_ID}", lambda server, _, one, version: server.pipelines.delete_version(one, version)),
    ("GET", f"{_API}/experiments", lambda server, asked: server.pipelines.experiments(asked.query)),
    ("POST", f"{_API}/experiments", lambda server, asked: server.pipelines.create_experiment(asked.document())),
    ("GET", f"{_API}/experiments/{_ID}", lambda server, _, one: server.pipelines.experiment(one)),
    ("GET", f"{_API}/runs", lambda server, asked: server.runs.listed(asked.query)),
    ("POST", f"{_API}/runs", lambda server, asked: server.runs.create(asked.document())),
    ("GET", f"{_API}/runs/{_ID}", lambda server, _, one: server.runs.get(one)),
    ("DELETE", f"{_API}/runs/{_ID}", lambda server, _, one: server.runs.delete(one)),
    ("POST", f"{_API}/runs/{_ID}:terminate", lambda server, _, one: server.runs.terminate(one)),
    ("POST", f"{_API}/runs/{_ID}:archive", lambda server, _, one: server.runs.store_away(one, "ARCHIVED")),
    ("POST", f"{_API}/runs/{_ID}:unarchive", lambda server, _, one: server.runs.store_away(one, "AVAILABLE")),
    ("GET", f"{_API}/recurringruns", lambda server, asked: server.schedules.listed(asked.query)),
    ("POST", f"{_API}/recurringruns", lambda server, asked: server.schedules.create(asked.document())),
    ("GET", f"{_API}/recurringruns/{_ID}", lambda server, _, one: server.schedules.get(one)),
    ("DELETE", f"{_API}/recurringruns/{_ID}", lambda server, _, one: server.schedules.delete(one)),
    ("POST", f"{_API}/recurringruns/{_ID}:enable", lambda server, _, one: server.schedules.enable(one, enabled=True)),
    ("POST", f"{_API}/recurringruns/{_ID}:disable", lambda server, _, one: server.schedules.enable(one, enabled=False)),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", lambda server, _, run, node: server.runs.log(run, node)),
)


def server_health(server: StrictServer) -> Document:
    """Return the health document."""
    told = {"commit_sha": "0" * 40, "tag_name": server.state.version}
    return {**told, "multi_user": server.state.multi_user, "pipeline_store": "database"}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    strict: StrictServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _serve(self) -> None:
        strict = self.server.strict
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = parts.path.removeprefix(strict.prefix)
        if strict.prefix and path != parts.path and path.startswith(metadata.SERVICE):
            path = parts.path  # Kubeflow's pages pass on the calls of ML Metadata at the root of their host alone
        said, cut = strict.take(Asked(method=self.command, path=path, query=query, headers=headers, body=body), path)
        self.close_connection = said is None or cut
        if said is None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(said.status)
        for name, value in {"Content-Type": said.kind, **said.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said.body) + (1000 if cut else 0)))
        self.end_headers()
        self.wfile.write(said.body)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 - the library's names
