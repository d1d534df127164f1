"""Requests over HTTP: what is repeated, what is told, what is ended."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from trainshed.errors import Interrupted, RemoteError
from trainshed.tools import process
from trainshed.tools.http import Http, NoAnswer, Response, is_loopback, place, proxy_for

Answer = Callable[["Handler"], None]


@dataclass
class Server:
    url: str
    answers: list[Answer] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def say(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        state: Server = self.server.state  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        answer = state.answers.pop(0) if state.answers else lambda handler: handler.say(200)
        answer(self)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names


def saying(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    return lambda handler: handler.say(status, body, **headers)


def cut_off(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def stalling(handler: Handler) -> None:
    handler.server.state.released.wait(60)  # type: ignore[attr-defined]
    handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    state = Server(url=f"http://127.0.0.1:{made.server_address[1]}")
    made.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of making them."""
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.2)
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    return made


@pytest.mark.sockets
def test_an_answer_of_any_status_comes_back_as_it_is(server: Server) -> None:
    server.answers = [saying(404, b'{"a": 1}', X_Kind="thing")]
    with Http() as client:
        answer = client.request("GET", f"{server.url}/x?token=hush")
    assert (answer.status, answer.ok, answer.json(), answer.text) == (404, False, {"a": 1}, '{"a": 1}')
    assert answer.headers["x-kind"] == "thing"
    assert answer.place == f"{server.url}/x"


@pytest.mark.sockets
def test_documents_and_forms_are_sent_as_such(server: Server) -> None:
    with Http() as client:
        client.request("POST", server.url, json={"a": 1})
        client.request("POST", server.url, fields={"name": "x", "file": ("a.yaml", b"a: 1", "text/plain")})
        client.request("PUT", server.url, body=b"raw", headers={"Content-Type": "text/x"})
    kinds = [headers["content-type"] for _, _, headers, _ in server.seen]
    assert kinds[0] == "application/json"
    assert kinds[1].startswith("multipart/form-data; boundary=")
    assert kinds[2] == "text/x"
    assert json.loads(server.seen[0][3]) == {"a": 1}
    assert b'filename="a.yaml"' in server.seen[1][3]
    assert server.seen[2][3] == b"raw"


@pytest.mark.sockets
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_growing_pauses(server: Server, pauses: list[float], status: int) -> None:
    server.answers = [saying(status), saying(status)]
    with Http() as client:
        assert client.request("GET", server.url).status == 200
    assert len(server.seen) == 3
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4


@pytest.mark.sockets
def test_the_last_answer_of_a_busy_server_comes_back(server: Server, pauses: list[float]) -> None:
    server.answers = [saying(503)] * 3
    with Http(retries=2) as client:
        assert client.request("GET", server.url).status == 503
    assert len(pauses) == 2


@pytest.mark.sockets
def test_an_error_of_the_server_is_not_asked_again(server: Server, pauses: list[float]) -> None:
    server.answers = [saying(500)]
    with Http() as client:
        assert client.request("GET", server.url).status == 500
    assert pauses == []


@pytest.mark.sockets
def test_what_may_not_be_done_twice_is_sent_once_unless_the_server_refused_it(server: Server, pauses: list[float]) -> None:
    server.answers = [saying(503), saying(429), saying(200), cut_off]
    with Http() as client:
        assert client.request("POST", server.url, json={}).status == 503
        assert client.request("POST", server.url, json={}).status == 200
        with pytest.raises(RemoteError, match="the connection broke"):
            client.request("POST", server.url, json={})
        assert client.request("POST", server.url, json={}, idempotent=True).status == 200
    assert len(server.seen) == 5
    assert len(pauses) == 1


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("7", 7, 7),
        ("9000", 30, 30),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 30, 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.1, 0.2),
        ("soon", 0.1, 0.2),
    ],
)
def test_the_pause_that_a_server_asks_for_is_made_within_reason(
    server: Server, pauses: list[float], asked: str, low: float, high: float
) -> None:
    server.answers = [saying(429, Retry_After=asked)]
    with Http() as client:
        client.request("GET", server.url)
    assert low <= pauses[0] <= high


@pytest.mark.sockets
def test_an_answer_that_is_cut_off_is_asked_for_again_and_then_told(server: Server, pauses: list[float]) -> None:
    server.answers = [cut_off, cut_off]
    with Http(retries=1) as client:
        with pytest.raises(NoAnswer, match=rf"{server.url}/x: the connection broke \(IncompleteRead\)") as caught:
            client.request("GET", f"{server.url}/x?token=hush")
        assert caught.value.sent
        server.answers = [cut_off]
        assert client.request("GET", server.url).status == 200
    assert len(pauses) == 2


@pytest.mark.sockets
def test_a_server_that_stalls_is_given_up(server: Server) -> None:
    server.answers = [stalling]
    with Http(retries=0) as client, pytest.raises(RemoteError, match="no whole answer in time"):
        client.request("GET", server.url, timeout=0.05)


@pytest.mark.sockets
def test_an_answer_that_comes_in_drops_is_given_up_too(server: Server) -> None:
    def dropping(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not server.released.wait(0.01):
            handler.wfile.write(b"x" * 70_000)

    server.answers = [dropping]
    with Http(retries=0) as client, pytest.raises(RemoteError, match=r"no whole answer in time|the connection broke"):
        client.request("GET", server.url, timeout=0.05)


@pytest.mark.sockets
def test_single_bytes_are_not_waited_for_until_there_are_many(server: Server) -> None:
    sent: list[int] = []

    def dropping(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "500")
        handler.end_headers()
        while len(sent) < 500 and not server.released.wait(0.01):
            sent.append(handler.wfile.write(b"x"))

    server.answers = [dropping]
    with Http(retries=0) as client, pytest.raises(RemoteError, match=r"no whole answer in time|the connection broke"):
        client.request("GET", server.url, timeout=0.05)
    assert len(sent) < 500


@pytest.mark.sockets
def test_an_endless_answer_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.http.BODY_LIMIT", 100)
    server.answers = [saying(200, b"x" * 200)]
    with Http(retries=0) as client, pytest.raises(RemoteError, match="an answer of more than"):
        client.request("GET", server.url)


@pytest.mark.sockets
def test_redirects_are_answers_unless_asked_to_be_followed(server: Server) -> None:
    with Http() as client:
        server.answers = [saying(302, Location="/there")]
        assert client.request("GET", server.url).status == 302
        server.answers = [saying(302, Location="/there")]
        assert client.request("GET", server.url, redirects=True).status == 200
        assert server.seen[-1][1] == "/there"
        server.answers = [saying(302, Location="/again")] * 20
        with pytest.raises(RemoteError, match="too many redirects"):
            client.request("GET", server.url, redirects=True, idempotent=False)


@pytest.mark.sockets
def test_a_refused_connection_is_told_without_credentials_and_query(pauses: list[float]) -> None:
    with Http(retries=1) as client, pytest.raises(NoAnswer) as caught:
        client.request("POST", "http://name:hush@127.0.0.1:1/x?token=hush", json={})
    assert not caught.value.sent
    assert caught.value.message == "http://127.0.0.1:1/x: no connection (Connection refused)"
    assert len(pauses) == 1


@pytest.mark.sockets
def test_sigterm_ends_a_request_that_is_under_way(server: Server) -> None:
    server.answers = [stalling]

    def stop() -> None:
        while not server.seen:
            time.sleep(0.005)
        process.stopping.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with Http() as client, pytest.raises(Interrupted):
        client.request("GET", server.url)
    thread.join()
    with Http() as client, pytest.raises(Interrupted):
        client.request("GET", server.url)


@pytest.mark.sockets
def test_what_must_be_said_last_is_said_after_sigterm(server: Server) -> None:
    process.stopping.set()
    with Http() as client:
        assert client.request("GET", server.url, surely=True).ok


@pytest.mark.sockets
def test_a_proxy_is_used_but_never_for_loopback(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://name:hush@"))
    monkeypatch.setenv("NO_PROXY", "direct.invalid")
    with Http(retries=0) as client:
        assert client.request("GET", "http://far.invalid/x").ok
        assert client.request("GET", server.url).ok
    assert proxy_for(urlsplit("http://direct.invalid/x")) is None
    assert proxy_for(urlsplit("https://far.invalid/x")) is None
    assert [seen[1] for seen in server.seen] == ["http://far.invalid/x", "/"]
    assert server.seen[0][2]["proxy-authorization"].startswith("Basic ")


@pytest.mark.sockets
def test_a_proxy_that_is_down_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:1")
    with Http(retries=0) as client, pytest.raises(NoAnswer, match="the proxy could not be reached") as caught:
        client.request("GET", "http://far.invalid/x")
    assert not caught.value.sent


@pytest.mark.sockets
@pytest.mark.parametrize("verify", [True, False])
def test_a_server_without_tls_is_no_trusted_connection(server: Server, verify: bool) -> None:
    with Http(retries=0, verify=verify) as client, pytest.raises(RemoteError, match="no trusted connection"):
        client.request("GET", server.url.replace("http:", "https:"))


def test_what_is_no_json_is_told_with_its_place() -> None:
    answer = Response(status=200, headers={}, body=b"<html>sign in</html>", place="https://x/y")
    with pytest.raises(RemoteError, match="https://x/y: expected JSON, got '<html>sign in</html>'"):
        answer.json()


def test_places_and_loopback() -> None:
    assert place("https://name:hush@host:1/a/b?c=d") == "https://host:1/a/b"
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "example.org")] == [True, True, True, False]
