"""The HTTP side of the embedded Prediction Service: ECS's JSON protocol, and three addresses of its own.

``GET /_embedded/health``; ``GET /_embedded/services/NAME`` → ``{"url", "healthy"}``; ``GET /_embedded/tasks/ID/log`` → text.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainshed.local.prediction.api import Api, RefusedError
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.records import Store

_OWN = "/_embedded/"
_BODY_LIMIT = 8 * 1024 * 1024
_LOOPBACK = {"127.0.0.1", "localhost"}
_IDLE_SECONDS = 120


class Server(ThreadingHTTPServer):
    """Listens on loopback only."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, store: Store, controller: Controller) -> None:
        self.store, self.controller, self.api = store, controller, Api(store, controller)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the library's signature
        """Say nothing: a client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = _IDLE_SECONDS
    server: Server

    def log_message(self, *_: object) -> None:
        """Write no access log."""

    def do_POST(self) -> None:
        """Answer one ECS action."""
        length = self.headers.get("Content-Length", "")
        action = self.headers.get("X-Amz-Target", "")
        if not self._local() or not length.isdigit() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            self._error(400, "ClientException", "not a request of this machine with a body of known length")
            return
        body = self.rfile.read(int(length))
        try:
            answer = self.server.api.answer(action, json.loads(body or b"{}"))
        except RefusedError as error:
            self._error(400, error.kind, error.message)
        except ValueError:
            self._error(400, "SerializationException", "the body is not JSON")
        except Exception as error:  # noqa: BLE001 - the server stands whatever a request holds
            self._error(500, "ServerException", f"{type(error).__name__}: {error}")
        else:
            self._send(200, "application/x-amz-json-1.1", json.dumps(answer).encode())

    def do_GET(self) -> None:
        """Answer what ECS has no action for."""
        parts = self.path.removeprefix(_OWN).split("/")
        if not self._local():
            self._error(403, "ClientException", "not a request of this machine")
        elif self.path == "/_embedded/health":
            self._send(200, "application/json", b'{"status": "ok"}')
        elif self.path.startswith(_OWN) and parts[0] == "services":
            self._service(parts[-1])
        elif self.path.startswith(_OWN) and parts[0] == "tasks" and parts[-1] == "log":
            self._log(parts[1])
        else:
            self._error(404, "ClientException", f"nothing at {self.path}")

    def _service(self, name: str) -> None:
        with self.server.store.reading():
            named = [one for one in self.server.store.services.values() if one.name == name and one.status != "INACTIVE"]
        if not named:
            self._error(404, "ServiceNotFoundException", f"no service '{name}'")
            return
        found = next((one for one in named if one.cluster == "embedded"), named[0])
        document = {"url": f"http://127.0.0.1:{found.port}", "healthy": self.server.controller.serving(found)}
        self._send(200, "application/json", json.dumps(document).encode())

    def _log(self, identity: str) -> None:
        with self.server.store.reading():
            task = self.server.store.tasks.get(identity)
        if task is None:
            self._error(404, "InvalidParameterException", f"no task '{identity}'")
            return
        self._send(200, "text/plain; charset=utf-8", self.server.controller.runner.log(task))

    def _local(self) -> bool:
        """Refuse what a web page sent here under another name."""
        return self.headers.get("Host", "").partition(":")[0] in _LOOPBACK and "Origin" not in self.headers

    def _error(self, status: int, kind: str, message: str) -> None:
        self._send(status, "application/x-amz-json-1.1", json.dumps({"__type": kind, "message": message}).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
