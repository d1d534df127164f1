"""A real registry (Debian's docker-registry) on a free loopback port, and a proxy before one that fails on command."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.tools import process

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_START_SECONDS = 30.0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nobody() -> Iterator[str]:
    """Yield a loopback address where nobody listens, and nobody can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = _START_SECONDS) -> None:
    """Wait for a condition, generously: CI machines are slow."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def answers(address: str, path: str = "/v2/") -> bool:
    """Tell whether an HTTP server answers 200 there."""
    try:
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """Yield ``127.0.0.1:PORT`` of a fresh registry that keeps its data under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(5):  # another process may take the port between the probe and the start
        port = free_port()
        config = folder / "config.yml"
        config.write_text(_CONFIG.format(folder=folder / "data", port=port))
        with (folder / "log").open("ab") as log:
            child = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log, start_new_session=True)
        address = f"127.0.0.1:{port}"
        try:
            wait_until(lambda: child.poll() is not None or answers(address), what="the registry's start")  # noqa: B023 - called at once
            if child.poll() is None:
                yield address
                return
        finally:
            process.end_group(child)
    raise AssertionError((folder / "log").read_text())


@dataclass
class Fault:
    """What the proxy does instead of forwarding, to requests that ``applies`` picks; ``times`` left, None for ever."""

    kind: str
    times: int | None = None
    applies: Callable[[str, str], bool] = lambda _method, path: "/manifests/" in path
    seen: int = 0


@dataclass
class FaultyRegistry:
    """A registry behind a proxy. Kinds: a status (``"429"``), ``slow``, ``truncated``, ``reset``, ``html404``."""

    address: str
    fault: Fault | None = None
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """Note a request; return the kind of fault for it, empty for none."""
        with self.lock:
            self.requests.append((method, path, headers))
            fault = self.fault
            if fault is None or not fault.applies(method, path) or fault.times == 0:
                return ""
            fault.seen += 1
            if fault.times is not None:
                fault.times -= 1
            return fault.kind


@contextmanager
def faulty(upstream: str) -> Iterator[FaultyRegistry]:
    """Yield a proxy before the registry at ``upstream``."""
    state = FaultyRegistry(address="")
    with proxied(upstream, Proxy, state) as address:
        state.address = address
        try:
            yield state
        finally:
            state.released.set()


@contextmanager
def proxied(upstream: str, handler: type[http.server.BaseHTTPRequestHandler], state: object) -> Iterator[str]:
    """Yield the address of a proxy before the registry at ``upstream``; its handler finds both at its server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.upstream, server.state = upstream, state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Proxy(http.server.BaseHTTPRequestHandler):
    """Serves one request: hands it on to ``server.upstream``, unless `serve` does something else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def serve(self) -> None:
        """Do what the fault says, else hand on."""
        state: FaultyRegistry = self.server.state  # type: ignore[attr-defined]
        body = self.body()
        kind = state.take(self.command, self.path, dict(self.headers))
        if kind == "slow":
            state.released.wait(60)
            self.close_connection = True
        elif kind == "reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "truncated":
            self.answer(200, {"Content-Length": "1000", "Content-Type": "application/json"}, b"{")
            self.close_connection = True
        elif kind == "html404":
            self.answer(404, {"Content-Length": "9", "Content-Type": "text/html"}, b"<p>no</p>")
        elif kind:
            content = json.dumps({"errors": [{"code": "TOOMANYREQUESTS" if kind == "429" else "UNKNOWN", "message": "fault"}]}).encode()
            self.answer(int(kind), {"Content-Length": str(len(content)), "Content-Type": "application/json"}, content)
        else:
            self.forward(body)

    def body(self) -> bytes:
        """Read what was sent: of a known length, or in chunks as an engine sends layers."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def forward(self, body: bytes, leave_out: Collection[str] = ()) -> None:
        """Hand a request on, and its answer back without some of its headers (in lower case)."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)  # type: ignore[attr-defined]
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in {"connection", "transfer-encoding"}}
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            dropped = {"connection", "transfer-encoding", *leave_out}
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
            kept.setdefault("Content-Length", str(len(content)))
            self.answer(answer.status, kept, content)
        finally:
            connection.close()

    def answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815 - the library's names
