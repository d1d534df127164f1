"""The HTTP side of the embedded Prediction Service: AWS's JSON protocol, and some addresses of its own.

``GET /_embedded/health``; ``GET /_embedded/services/NAME`` → ``{"url", "healthy"}``; ``GET /_embedded/tasks/ID/log`` → text;
where faults are allowed ``GET``, ``PUT`` and ``DELETE /_embedded/faults`` (see `faults`).
"""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainshed.local.prediction.api import TARGET, Api, looks
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.protocol import RefusedError
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
        self.faults = controller.faults
        if self.faults.allowed:
            store.remember()
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
        status, answer = self._answered(action, body)
        if status:
            self._send(status, "application/x-amz-json-1.1", json.dumps(answer).encode())

    def _answered(self, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer an action, or with the fault that is on for it; 0 where the connection is to be cut."""
        fault = self.server.faults.strike(target.rpartition(".")[2])
        if fault is None:
            return self._done(self.server.api, target, body)
        if fault.kind == "slow":
            time.sleep(fault.seconds)
            return self._done(self.server.api, target, body)
        if fault.kind == "stale":
            old = Api(self.server.store.past(fault.seconds), self.server.controller) if looks(target) else self.server.api
            return self._done(old, target, body)
        if fault.after:
            self._done(self.server.api, target, body)
        refusal = fault.refusal(target.removeprefix(TARGET))
        if refusal is not None:
            return refusal.status, {"__type": refusal.kind, "message": refusal.message}
        self.close_connection = True
        return 0, {}

    @staticmethod
    def _done(api: Api, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            return 200, api.answer(target, json.loads(body or b"{}"))
        except RefusedError as error:
            return error.status, {"__type": error.kind, "message": error.message}
        except ValueError:
            return 400, {"__type": "SerializationException", "message": "the body is not JSON"}
        except Exception as error:  # noqa: BLE001 - the server stands whatever a request holds
            return 500, {"__type": "ServerException", "message": f"{type(error).__name__}: {error}"}

    def do_PUT(self) -> None:
        """Put faults on."""
        length = self.headers.get("Content-Length", "")
        if not self._own_faults() or not length.isdigit() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            self._error(403, "ClientException", f"nothing to put at {self.path}")
            return
        try:
            self.server.faults.put(json.loads(self.rfile.read(int(length))))
        except (RefusedError, ValueError) as error:
            self._error(400, "InvalidParameterException", str(error))
            return
        self._show_faults()

    def do_DELETE(self) -> None:
        """Take all faults away."""
        if not self._own_faults():
            self._error(403, "ClientException", f"nothing to delete at {self.path}")
            return
        self.server.faults.put([])
        self._show_faults()

    def _own_faults(self) -> bool:
        return self._local() and self.server.faults.allowed and self.path == "/_embedded/faults"

    def _show_faults(self) -> None:
        self.server.store.wake()
        self._send(200, "application/json", json.dumps(self.server.faults.shown()).encode())

    def do_GET(self) -> None:
        """Answer what ECS has no action for."""
        parts = self.path.removeprefix(_OWN).split("/")
        if not self._local():
            self._error(403, "ClientException", "not a request of this machine")
        elif self.path == "/_embedded/health":
            self._send(200, "application/json", b'{"status": "ok"}')
        elif self._own_faults():
            self._show_faults()
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
