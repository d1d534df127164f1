from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.prediction import ask, until
from trainshed.local.prediction.proxy import Front, Targets

pytestmark = pytest.mark.sockets


class Task(ThreadingHTTPServer):
    """A task that answers with its name; held requests wait until they are let go; ``broken`` hangs up before it answers."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.name, self.broken = name, False
        self.seen: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.peers: list[int] = []
        self.hung_up = threading.Event()
        self.go, self.arrived = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)
        self.port = int(self.server_address[1])

    def shutdown_request(self, request: Any) -> None:
        """Hang up, and tell the test."""
        super().shutdown_request(request)
        self.hung_up.set()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Task

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, body, {name.lower(): value for name, value in self.headers.items()}))
        self.server.peers.append(self.client_address[1])
        self.close_connection = self.path == "/bye"
        if self.server.broken:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path == "/hold":
            self.server.arrived.set()
            assert self.server.go.wait(60)
        text = self.server.name.encode()
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Task", self.server.name)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - the library's names


@contextmanager
def task(name: str) -> Iterator[Task]:
    server = Task(name)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front(0, Targets())
    made.start()
    yield made
    made.end()


def address(front: Front) -> str:
    return f"127.0.0.1:{front.port}"


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_request_reaches_the_task_whole_and_its_answer_comes_back_whole(front: Front) -> None:
    with task("one") as one:
        front.targets.add("one", one.port)
        connection = http.client.HTTPConnection(address(front), timeout=60)
        connection.request("POST", "/predict?x=1", b"body", {"Content-Type": "text/plain", "X-Forwarded-For": "forged"})
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.getheader("X-Task")) == (200, b"one", "one")
        connection.request("HEAD", "/teapot")  # on the same connection
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.getheader("Content-Length")) == (418, b"", "3")
        connection.close()
        method, path, body, headers = one.seen[0]
        assert (method, path, body) == ("POST", "/predict?x=1", b"body")
        assert (headers["content-type"], headers["x-forwarded-for"], headers["host"]) == ("text/plain", "127.0.0.1", address(front))


def test_a_chunked_body_is_passed_on(front: Front) -> None:
    with task("one") as one:
        front.targets.add("one", one.port)
        connection = http.client.HTTPConnection(address(front), timeout=60)
        connection.request("PUT", "/", iter([b"ab", b"cd"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert connection.getresponse().read() == b"one"
        connection.close()
        assert one.seen[0][2] == b"abcd"


def test_without_a_healthy_task_the_answer_is_503(front: Front) -> None:
    assert ask(address(front), "GET", "/") == (503, b'{"message": "no task of this service is healthy"}')


def test_a_task_that_cannot_be_reached_costs_no_request_of_any_method(front: Front) -> None:
    with task("one") as one:
        front.targets.add("gone", unused_port())
        front.targets.add("one", one.port)
        assert {ask(address(front), method, "/", b"{}")[1] for method in ("GET", "POST", "PUT", "GET", "POST")} == {b"one"}


def test_a_connection_to_a_task_is_used_again_unless_the_task_hung_up(front: Front) -> None:
    with task("one") as one:
        front.targets.add("one", one.port)
        for path in ("/", "/", "/bye", "/"):  # the one after /bye is a POST, which may be sent once only
            assert ask(address(front), "POST", path, b"{}") == (200, b"one")
            assert path != "/bye" or one.hung_up.wait(60)
        first, second, third, last = one.peers
        assert first == second == third
        assert last != first


def test_a_task_that_leaves_has_no_idle_connection_left(front: Front) -> None:
    with task("one") as one:
        front.targets.add("one", one.port)
        ask(address(front), "GET", "/")
        front.targets.remove("one")
        front.targets.add("one", one.port)
        ask(address(front), "GET", "/")
        assert one.peers[0] != one.peers[1]


def test_a_connection_that_breaks_before_an_answer_is_repeated_where_that_is_safe(front: Front) -> None:
    with task("broken") as broken, task("one") as one:
        broken.broken = True
        front.targets.add("broken", broken.port)
        front.targets.add("one", one.port)
        assert {ask(address(front), "GET", "/") for _ in range(4)} == {(200, b"one")}
        front.targets.remove("one")
        assert ask(address(front), "GET", "/")[0] == 502
        front.targets.add("one", one.port)
        seen = len(one.seen)
        assert ask(address(front), "POST", "/", b"{}")[0] == 502  # it may have been done: no second time
        assert len(one.seen) == seen


def test_requests_go_to_the_task_with_the_fewest_open_ones(front: Front) -> None:
    with task("busy") as busy, task("idle") as idle:
        front.targets.add("busy", busy.port)
        held = threading.Thread(target=ask, args=(address(front), "GET", "/hold"))
        held.start()
        assert busy.arrived.wait(60)
        front.targets.add("idle", idle.port)
        assert {ask(address(front), "GET", "/")[1] for _ in range(4)} == {b"idle"}
        busy.go.set()
        held.join()


def test_a_task_that_leaves_finishes_what_it_was_sent(front: Front) -> None:
    with task("old") as old, task("new") as new:
        front.targets.add("old", old.port)
        answers: list[tuple[int, bytes]] = []
        held = threading.Thread(target=lambda: answers.append(ask(address(front), "GET", "/hold")))
        held.start()
        assert old.arrived.wait(60)
        front.targets.add("new", new.port)
        front.targets.remove("old")
        assert not front.targets.drained("old", 0)
        assert ask(address(front), "GET", "/")[1] == b"new"
        old.go.set()
        assert front.targets.drained("old", 60)
        held.join()
        assert answers == [(200, b"old")]
        assert front.targets.count() == 1


@pytest.mark.parametrize("head", ["Content-Length: many", "Content-Length: 99999999999", "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFF"])
def test_a_body_without_a_sound_length_is_refused(front: Front, head: str) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=60) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/\u00fc", "/a\x01b"])
def test_a_path_that_no_task_could_be_asked_for_is_refused(front: Front, path: str) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_port_of_its_own_is_taken_and_given_back() -> None:
    front = Front(0, Targets())
    front.start()
    port = front.port
    front.end()
    again = Front(port, Targets())
    again.start()
    until(lambda: ask(f"127.0.0.1:{port}", "GET", "/")[0] == 503, "an answer")
    assert again.port == port
    again.end()
