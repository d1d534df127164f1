"""How registries are logged in to, and what their odd answers mean."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

import pytest

from trainshed.errors import RemoteError
from trainshed.tools.credentials import Login
from trainshed.tools.registry import RegistryClient

DIGEST = "sha256:" + "a" * 64
Answer = tuple[int, Mapping[str, str], bytes]
SECRET, WRONG = "hush", "wrong"
ME, TOKEN = Login(username="me", password=SECRET), Login(identity_token=SECRET)


class Registry:
    """A registry of a few lines: ``answer`` takes (method, path, headers, body) and says what comes back."""

    def __init__(self, answer: Callable[[str, str, Mapping[str, str], bytes], Answer]) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str]] = []
        self.address = ""


@pytest.fixture
def serve() -> Iterator[Callable[[Registry], Registry]]:
    running: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(registry: Registry) -> Registry:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                registry.seen.append((self.command, self.path))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, more, content = registry.answer(self.command, self.path, headers, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = _serve  # noqa: N815 - the library's names

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        registry.address = f"127.0.0.1:{server.server_address[1]}"
        return registry

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def found(_headers: Mapping[str, str]) -> Answer:
    return 200, {"Docker-Content-Digest": DIGEST}, b""


def bearer(registry: Registry, *, expires: int = 300, realm: str = "") -> Callable[[str, str, Mapping[str, str], bytes], Answer]:
    def answer(_method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            given = parse_qs(urlsplit(path).query) if not body else parse_qs(body.decode())
            who = headers.get("authorization", "") or given.get("refresh_token", [""])[0]
            document = {"token": f"{given.get('scope', ['none'])[0]}|{who}", "expires_in": expires}
            return 200, {}, json.dumps(document).encode()
        if headers.get("authorization", "").startswith("Bearer "):
            return found(headers)
        where = realm or f"http://{registry.address}/token"
        return 401, {"WWW-Authenticate": f'Bearer realm="{where}",service="registry"'}, b""

    return answer


@pytest.mark.sockets
@pytest.mark.parametrize("login", [None, ME, TOKEN])
def test_a_token_is_fetched_once_and_used_again(serve: Callable[[Registry], Registry], login: Login | None) -> None:
    registry = Registry(lambda *_: (500, {}, b""))
    registry.answer = bearer(registry)
    serve(registry)
    with RegistryClient(login=lambda _host: login) as client:
        for _ in range(3):
            assert client.digest(f"{registry.address}/a/b:1") == DIGEST
        client.ping(registry.address)
    tokens = [path for _, path in registry.seen if path.startswith("/token")]
    assert len(tokens) == 2
    if login is None or not login.identity_token:
        assert "scope=repository%3Aa%2Fb%3Apull" in tokens[0]


@pytest.mark.sockets
def test_a_token_that_ran_out_is_fetched_anew(serve: Callable[[Registry], Registry]) -> None:
    registry = Registry(lambda *_: (500, {}, b""))
    registry.answer = bearer(registry, expires=0)
    serve(registry)
    with RegistryClient(login=lambda _host: None) as client:
        for _ in range(2):
            assert client.digest(f"{registry.address}/a/b:1") == DIGEST
    assert len([path for _, path in registry.seen if path.startswith("/token")]) == 2


@pytest.mark.sockets
def test_a_login_is_not_sent_in_plain_text_to_another_host(serve: Callable[[Registry], Registry]) -> None:
    registry = Registry(lambda *_: (500, {}, b""))
    registry.answer = bearer(registry, realm="http://elsewhere.example.org/token")
    serve(registry)
    with RegistryClient(login=lambda _host: ME) as client, pytest.raises(RemoteError, match="in plain text"):
        client.digest(f"{registry.address}/a/b:1")


@pytest.mark.sockets
def test_basic_login_is_sent_after_the_challenge_and_kept(serve: Callable[[Registry], Registry]) -> None:
    wanted = "Basic " + base64.b64encode(b"me:hush").decode()

    def answer(_method: str, _path: str, headers: Mapping[str, str], _body: bytes) -> Answer:
        return found(headers) if headers.get("authorization") == wanted else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")

    registry = serve(Registry(answer))
    with RegistryClient(login=lambda _host: ME) as client:
        assert client.digest(f"{registry.address}/a/b:1") == DIGEST
        assert client.digest(f"{registry.address}/a/b:2") == DIGEST
    assert len(registry.seen) == 3
    with RegistryClient(login=lambda _host: Login(username="me", password=WRONG)) as client:
        with pytest.raises(RemoteError, match="refused the log-in") as caught:
            client.digest(f"{registry.address}/a/b:1")
        assert "wrong" not in caught.value.message


@pytest.mark.sockets
@pytest.mark.parametrize("token", [(403, b""), (200, b'{"no": 1}'), (200, b"<html>"), (404, b'{"errors": [{"message": "off"}]}')])
def test_a_log_in_service_that_gives_no_token_is_an_error(serve: Callable[[Registry], Registry], token: tuple[int, bytes]) -> None:
    registry = Registry(lambda *_: (500, {}, b""))

    def answer(_method: str, path: str, _headers: Mapping[str, str], _body: bytes) -> Answer:
        if path.startswith("/token"):
            return token[0], {}, token[1]
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{registry.address}/token?x=1"'}, b""

    registry.answer = answer
    serve(registry)
    with RegistryClient(login=lambda _host: None) as client, pytest.raises(RemoteError):
        client.digest(f"{registry.address}/a/b:1")


@pytest.mark.sockets
@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
def test_only_the_registrys_own_words_mean_missing(serve: Callable[[Registry], Registry], code: str) -> None:
    body = json.dumps({"errors": [{"code": code}]}).encode()
    registry = serve(Registry(lambda *_: (404, {}, body)))
    with RegistryClient(login=lambda _host: None) as client:
        assert client.digest(f"{registry.address}/a/b:1") is None


@pytest.mark.sockets
@pytest.mark.parametrize("body", [b"", b"[]", b'{"errors": 1}', b'{"errors": [{"code": "UNSUPPORTED"}]}'])
def test_any_other_404_is_an_error(serve: Callable[[Registry], Registry], body: bytes) -> None:
    registry = serve(Registry(lambda *_: (404, {}, body)))
    with RegistryClient(login=lambda _host: None) as client, pytest.raises(RemoteError, match="not as a registry that lacks an image"):
        client.digest(f"{registry.address}/a/b:1")


@pytest.mark.sockets
def test_an_answer_without_digest_is_an_error(serve: Callable[[Registry], Registry]) -> None:
    registry = serve(Registry(lambda *_: (200, {"Content-Type": "text/html"}, b"<html>")))
    with RegistryClient(login=lambda _host: None) as client:
        with pytest.raises(RemoteError, match="gave no digest"):
            client.digest(f"{registry.address}/a/b:1")
        with pytest.raises(RemoteError, match="not the one named"):
            client.manifest(f"{registry.address}/a/b@{DIGEST}")


@pytest.mark.sockets
def test_the_configuration_of_one_platform_of_an_index_is_read(serve: Callable[[Registry], Registry]) -> None:
    def named(content: bytes) -> str:
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    config = b'{"os": "linux"}'
    image = json.dumps({"config": {"digest": named(config)}}).encode()
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = json.dumps({"manifests": [{"digest": named(image), "platform": platform}, {"digest": DIGEST}]}).encode()
    odd, listed = b'{"layers": []}', b"[]"
    by_name = {named(image): image, "index": index, named(config): config, "odd": odd, "list": listed}

    def answer(_method: str, path: str, _headers: Mapping[str, str], _body: bytes) -> Answer:
        content = by_name[path.rpartition("/")[2]]
        return 200, {"Docker-Content-Digest": named(content)}, content

    registry = serve(Registry(answer))
    with RegistryClient(login=lambda _host: None) as client:
        assert client.config(f"{registry.address}/a/b:index", platform="linux/arm64/v8") == config
        for tag, message in (("index", "holds no image for linux/amd64"), ("odd", "is not an image"), ("list", "not a JSON object")):
            with pytest.raises(RemoteError, match=message):
                client.config(f"{registry.address}/a/b:{tag}")


@pytest.mark.sockets
def test_a_log_in_that_ended_is_asked_for_anew_and_a_missing_permission_is_told(serve: Callable[[Registry], Registry]) -> None:
    given = [Login(username="AWS", password=SECRET), Login(username="AWS", password=WRONG)]
    good = [f"Basic {base64.b64encode(f'AWS:{login.password}'.encode()).decode()}" for login in given]
    denied = json.dumps({"errors": [{"code": "DENIED", "message": "Your authorization token has expired."}]}).encode()

    def answer(_method: str, _path: str, headers: Mapping[str, str], _body: bytes) -> Answer:
        if "authorization" not in headers:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return found(headers) if headers["authorization"] == good[0] else (403, {}, denied)

    registry = serve(Registry(answer))
    with RegistryClient(login=lambda _host: given[0]) as client:
        assert client.digest(f"{registry.address}/a:1") == DIGEST
        good.reverse()  # the first one has ended, and the second counts now
        given.reverse()
        assert client.digest(f"{registry.address}/a:1") == DIGEST
        good[0] = ""
        with pytest.raises(RemoteError, match=r"forbidden for this log-in \(403\): Your authorization token has expired"):
            client.manifest(f"{registry.address}/a:1")


@pytest.mark.sockets
def test_a_manifest_whose_digest_the_registry_does_not_tell_is_digested_here(serve: Callable[[Registry], Registry]) -> None:
    content = json.dumps({"schemaVersion": 2}).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    registry = serve(Registry(lambda *_: (200, kind, content)))
    with RegistryClient(login=lambda _host: None) as client:
        assert client.digest(f"{registry.address}/a:1", fetch=True) == digest
        assert client.manifest(f"{registry.address}/a:1") == (content, kind["Content-Type"])
        kind["Content-Type"] = "text/html"
        with pytest.raises(RemoteError, match="gave no digest"):
            client.digest(f"{registry.address}/a:1", fetch=True)
