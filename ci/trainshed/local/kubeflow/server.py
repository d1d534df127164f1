"""HTTP for the embedded Kubeflow: routes, uploads and errors in the shapes of the real server, on loopback only."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from trainshed.local.kubeflow import packages
from trainshed.local.kubeflow.api import Api, ApiError
from trainshed.local.kubeflow.metadata import CONTENT_TYPE, Metadata
from trainshed.tools.metadata_messages import SERVICE

LOOPBACK = "127.0.0.1"
_API = "/apis/v2beta1"
_LOGS = "/apis/v1alpha1/runs/"
_LARGEST = packages.LARGEST + 1024 * 1024
_INVALID = (400, 3)


class Request:
    """What a route gets: the names in its path, the query and the body."""

    def __init__(self, names: dict[str, str], query: dict[str, str], kind: str, body: bytes) -> None:
        self.names, self.query, self._kind, self._body = names, query, kind, body

    def document(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        try:
            document = json.loads(self._body or b"{}")
        except ValueError as error:
            raise ApiError(_INVALID, f"the body is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ApiError(_INVALID, "the body is not a JSON object")
        return document

    def upload(self) -> bytes:
        """Return the part ``uploadfile`` of a form."""
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + self._kind.encode() + b"\r\n\r\n" + self._body)
        for part in message.iter_parts() if message.is_multipart() else ():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                content = part.get_payload(decode=True)
                return content if isinstance(content, bytes) else b""
        raise ApiError(_INVALID, "failed to get the uploaded file: no form part 'uploadfile'")


Answer = dict[str, Any] | bytes
Route = Callable[[Api, Request], Answer]

_ID = r"(?P<id>[^/:]+)"
_ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/healthz", lambda api, _: api.healthz()),
    ("POST", "/pipelines/upload", lambda api, asked: api.upload_pipeline(asked.query, asked.upload())),
    ("POST", "/pipelines/upload_version", lambda api, asked: api.upload_version(asked.query, asked.upload())),
    ("GET", "/pipelines", lambda api, asked: api.pipelines(asked.query)),
    ("POST", "/pipelines", lambda api, asked: api.create_pipeline(asked.document())),
    ("GET", r"/pipelines/names/(?P<id>[^/]+)", lambda api, asked: api.pipeline_by_name(asked.names["id"], asked.query)),
    ("GET", f"/pipelines/{_ID}", lambda api, asked: api.pipeline(asked.names["id"])),
    ("DELETE", f"/pipelines/{_ID}", lambda api, asked: api.delete_pipeline(asked.names["id"], asked.query)),
    ("GET", f"/pipelines/{_ID}/versions", lambda api, asked: api.versions(asked.names["id"], asked.query)),
    ("GET", f"/pipelines/{_ID}/versions/(?P<version>[^/]+)", lambda api, asked: api.version(asked.names["id"], asked.names["version"])),
    (
        "DELETE",
        f"/pipelines/{_ID}/versions/(?P<version>[^/]+)",
        lambda api, asked: api.delete_version(asked.names["id"], asked.names["version"]),
    ),
    ("GET", "/experiments", lambda api, asked: api.experiments(asked.query)),
    ("POST", "/experiments", lambda api, asked: api.create_experiment(asked.document())),
    ("GET", f"/experiments/{_ID}", lambda api, asked: api.experiment(asked.names["id"])),
    ("GET", "/runs", lambda api, asked: api.runs(asked.query)),
    ("POST", "/runs", lambda api, asked: api.create_run(asked.document())),
    ("GET", f"/runs/{_ID}", lambda api, asked: api.run(asked.names["id"])),
    ("DELETE", f"/runs/{_ID}", lambda api, asked: api.delete_run(asked.names["id"])),
    ("POST", f"/runs/{_ID}:terminate", lambda api, asked: api.terminate(asked.names["id"])),
    ("POST", f"/runs/{_ID}:archive", lambda api, asked: api.store_away(asked.names["id"], "ARCHIVED")),
    ("POST", f"/runs/{_ID}:unarchive", lambda api, asked: api.store_away(asked.names["id"], "AVAILABLE")),
    *((method, "/recurringruns(?:[/:].*)?", lambda api, _: api.recurring()) for method in ("GET", "POST", "DELETE")),
)


class Server(ThreadingHTTPServer):
    """The server; ``port`` 0 takes any free one, see ``server_port``."""

    daemon_threads = True

    def __init__(self, api: Api, metadata: Metadata, port: int) -> None:
        self.api, self.metadata = api, metadata
        super().__init__((LOOPBACK, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without the look-up of this host's name that the base class does: it can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = -1  # head and body in one packet: two would wait for each other (Nagle against delayed acknowledgements)
    server: Server

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815 - named by the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        """Log nothing: polling would fill the disk."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        try:
            body = self._body()
            self._check_local()
            if url.path.startswith(f"/{SERVICE}/"):
                self._send(200, self._metadata(url.path.rpartition("/")[2], body), CONTENT_TYPE)
            else:
                self._send(200, self._answer(url.path, dict(parse_qsl(url.query)), body))
        except ApiError as error:
            self._send(error.status, _shown(url.path, error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - the client is told, the log has the traceback
            traceback.print_exc(file=sys.stderr)
            self._send(500, {"code": 13, "message": f"internal error: {type(error).__name__}", "details": []})

    def _check_local(self) -> None:
        """Refuse what a web page could send here: a foreign Host (DNS rebinding) or Origin."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in {LOOPBACK, "localhost"} or self.headers.get("Origin"):
            raise ApiError((403, 7), "only this machine's own clients are served")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise ApiError((411, 3), "a Content-Length is needed")
        if int(length) > _LARGEST:
            self.close_connection = True
            raise ApiError((413, 3), f"the body is larger than {_LARGEST >> 20} MiB")
        return self.rfile.read(int(length))

    def _metadata(self, method: str, body: bytes) -> bytes:
        if self.command != "POST" or "grpc-web+proto" not in self.headers.get("Content-Type", ""):
            raise ApiError((415, 3), "expected a call of gRPC-web")
        return self.server.metadata.answer(method, body)

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        log = re.fullmatch(f"{_LOGS}(?P<id>[^/]+)/nodes/(?P<node>[^/]+)/log", path)
        if log and self.command == "GET":
            return self.server.api.node_log(unquote(log["id"]), unquote(log["node"]))
        inner = path[len(_API) :] if path.startswith(f"{_API}/") else ""
        for method, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, inner)
            if match and method == self.command:
                names = {name: unquote(value) for name, value in match.groupdict().items()}
                return route(self.server.api, Request(names, query, self.headers.get("Content-Type", ""), body))
        raise ApiError((404, 5), f"not found: {self.command} {path}")

    def _send(self, status: int, answer: Answer, kind: str = "text/plain; charset=utf-8") -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _shown(path: str, error: ApiError) -> dict[str, Any]:
    """Return an error in the server's two shapes: the upload endpoints and the logs have one of their own."""
    if path.startswith((f"{_API}/pipelines/upload", _LOGS)):
        return {"error_message": str(error), "error_details": str(error)}
    return {"code": error.code, "message": str(error), "details": []}
