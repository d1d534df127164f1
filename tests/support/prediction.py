"""The embedded Prediction Service as a process of its own, spoken to by boto3, and a program for its tasks that needs no build."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.sample_project import docker
from trainshed.services.rendering import HEALTH_LABEL

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

PATIENCE_SECONDS = 180.0

PROGRAM = """
import http.server, os, signal, sys, time
print("starting", os.environ["VERSION"], flush=True)
if os.environ.get("EXIT"):
    print("no model to serve", flush=True)
    sys.exit(int(os.environ["EXIT"]))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        status = 500 if self.path == "/healthz" and os.environ.get("SICK") else 200
        body = os.environ["VERSION"].encode()
        time.sleep(float(os.environ.get("SLOW", "0")))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer.request_queue_size = 128
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
server.daemon_threads = True
server.serve_forever()
"""


class Running:
    """A server and a client of it."""

    def __init__(self, state: Path, engine: str, *options: str) -> None:
        self.state, self.engine, self.options = state, engine, options
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int = 0) -> None:
        """Start the server, and wait until it says where it listens."""
        self.state.mkdir(parents=True, exist_ok=True)
        log = self.state / f"server-{time.monotonic_ns()}.log"
        with log.open("wb") as stream:
            arguments = ["--state", str(self.state), "--port", str(port), "--engine", self.engine, *self.options]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainshed.local.prediction", *arguments], stderr=stream, stdout=stream, start_new_session=True
            )

        def listening() -> re.Match[str] | None:
            assert self.process is not None
            assert self.process.poll() is None, log.read_text()
            return re.search(r"listening on (http://\S+)", log.read_text())

        self.url = until(listening, "the server's start")[1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def client(self) -> ECSClient:
        """Return boto3's own client."""
        made: ECSClient = self.aws("ecs")
        return made

    def aws(self, service: str) -> Any:
        """Return boto3's client of any service, asked at this server."""
        return client(service, self.url)

    def faults(self, *faults: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Put faults on instead of those that are; return what is on."""
        body = json.dumps(faults).encode()
        status, answer = ask(self.url.removeprefix("http://"), "PUT", "/_embedded/faults", body)
        assert status == 200, answer
        found: list[dict[str, Any]] = json.loads(answer)
        return found

    def address(self, service: str) -> str:
        """Return ``HOST:PORT`` of a service."""
        status, body = ask(self.url.removeprefix("http://"), "GET", f"/_embedded/services/{service}")
        assert status == 200
        return str(json.loads(body)["url"]).removeprefix("http://")

    def containers(self) -> list[str]:
        """Return the containers of this server's state."""
        identity = json.loads((self.state / "state.json").read_text())["identity"]
        return docker(self.engine, "ps", "-aq", "--filter", f"label=io.trainshed.prediction={identity}").split()


def client(service: str, url: str) -> Any:
    """Return boto3's client of a service at an address, which repeats nothing."""
    import boto3
    from botocore.config import Config

    return boto3.client(  # type: ignore[call-overload] # any service
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",  # noqa: S106 - nobody checks it
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


@contextmanager
def running(state: Path, engine: str, *options: str) -> Iterator[Running]:
    """Yield a started server; afterwards it is ended with its containers."""
    server = Running(state, engine, *options)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end()
        if server.process is not None and server.process.returncode != 0:  # killed by a test: its containers are still there
            for container in server.containers():
                docker(engine, "rm", "-f", container)


def until(look: Callable[[], Any], what: str) -> Any:
    """Return what a look finds as soon as it finds something."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, f"waited {PATIENCE_SECONDS:g} s in vain for {what}"
        time.sleep(0.05)


def ask(address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=90)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def definition(image: str, version: str, **environment: str) -> dict[str, Any]:
    """Return a task definition whose container answers with its version."""
    variables = {"VERSION": version, **environment}
    return {
        "family": "answer",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "128",
        "containerDefinitions": [
            {
                "name": "answer",
                "image": image,
                "essential": True,
                "command": ["python3", "-c", PROGRAM],
                "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
                "environment": [{"name": name, "value": value} for name, value in variables.items()],
                "dockerLabels": {HEALTH_LABEL: "/healthz"},
                "healthCheck": {"command": ["CMD", "true"], "interval": 1, "timeout": 30, "retries": 2, "startPeriod": 60},
            }
        ],
    }
