"""Pipelines as small documents, the embedded Kubeflow in this process or as a process, and a server that answers what it is told."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.support.registry import free_port, wait_until
from tests.support.sample_project import docker
from trainshed.local.kubeflow.api import Api
from trainshed.local.kubeflow.metadata import Metadata
from trainshed.local.kubeflow.runs import Runs
from trainshed.local.kubeflow.server import Server
from trainshed.local.kubeflow.store import Store

IMAGE = "python:3.11-slim-bookworm"
OUTPUTS = {"artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}}}


PYTHON, SHELL = ("python3", "-c"), ("sh", "-c")


def step(
    program: str,
    *,
    needs: Sequence[str] = (),
    image: str = IMAGE,
    outputs: Mapping[str, Any] | None = None,
    language: tuple[str, str] = PYTHON,
) -> dict[str, Any]:
    """Describe a task that runs a program; its arguments are the paths of its outputs (for the shell ``$0``, ``$1``…)."""
    return {"command": [*language, program], "needs": list(needs), "image": image, "outputs": dict(outputs or {})}


def specification(name: str, steps: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the IR of a pipeline of container tasks."""
    tasks, components, executors = {}, {}, {}
    for task, told in steps.items():
        paths = [f"{{{{$.outputs.artifacts['{output}'].path}}}}" for output in told["outputs"].get("artifacts", {})]
        paths += [f"{{{{$.outputs.parameters['{output}'].output_file}}}}" for output in told["outputs"].get("parameters", {})]
        tasks[task] = {"componentRef": {"name": f"comp-{task}"}, "taskInfo": {"name": task}, "dependentTasks": told["needs"]}
        components[f"comp-{task}"] = {"executorLabel": f"exec-{task}", "outputDefinitions": told["outputs"]}
        executors[f"exec-{task}"] = {"container": {"image": told["image"], "command": told["command"], "args": paths}}
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
        "root": {"dag": {"tasks": tasks}, "inputDefinitions": {"parameters": dict(parameters or {})}},
        "components": components,
        "deploymentSpec": {"executors": executors},
    }


def text(document: Mapping[str, Any], *more: Mapping[str, Any]) -> str:
    """Write documents as kfp does."""
    apart = json.loads(json.dumps([document, *more]))  # what two places share would become an alias
    return yaml.safe_dump_all(apart, sort_keys=True)


class QuietRuns(Runs):
    """Runs whose child is never started: their states are what the test writes."""

    def start(self, run_id: str, specification: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Write the first status only."""
        from trainshed.local.kubeflow.runs import task_states, write_status

        assert isinstance(parameters, dict)
        write_status(self.folder(run_id), {"state": "RUNNING", "error": "", "tasks": task_states(specification)})


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[str, Runs]]:
    """Serve the API in this process, with runs that do not run; yield its address and the runs."""
    store, runs = Store(folder / "kubeflow.sqlite"), QuietRuns(folder / "runs", engine=None)
    with serving(Server(Api(store, runs), Metadata(store, runs), 0)) as address:
        yield address, runs
    store.close()


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Asked:
    """One request that a `Scripted` server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Said = tuple[int, Mapping[str, str], bytes]


@dataclass
class Scripted:
    """A server whose answers are a function of the request; it keeps what it was asked."""

    answer: Callable[[Asked], Said]
    asked: list[Asked] = field(default_factory=list)

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None = None) -> Iterator[str]:
        """Serve on a free port, over HTTPS with a context; yield the address."""
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = Asked(self.command, self.path, dict(self.headers.items()), body)
                script.asked.append(request)
                status, headers, content = script.answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    for one in value.split("\n"):
                        self.send_header(name, one)
                if "Content-Length" not in headers:  # else the answer is cut off
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_GET  # noqa: N815 - named by the base class

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        with serving(server) as address:
            yield address if tls is None else address.replace("http", "https", 1)


def said(document: Any, status: int = 200) -> Said:
    """Make a JSON answer."""
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


class Process:
    """The embedded Kubeflow as a process of its own, as the toolkit starts it."""

    def __init__(self, state: Path, engine: str) -> None:
        self.state, self._engine, self.port = state, engine, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import urllib3

        self.state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "trainshed.local.kubeflow", "--state", str(self.state), "--port", str(self.port)]
        with (self.state / "server.log").open("ab") as log:
            child = self._child = subprocess.Popen([*command, "--engine", self._engine], stdout=log, stderr=log)
        with urllib3.PoolManager(retries=False) as pool:

            def ready() -> bool:
                assert child.poll() is None, (self.state / "server.log").read_text()
                try:
                    return pool.request("GET", f"{self.address}/apis/v2beta1/healthz").status == 200
                except urllib3.exceptions.HTTPError:
                    return False

            wait_until(ready, what="the embedded Kubeflow", seconds=60)

    def containers(self) -> list[str]:
        """Return the containers of this server's runs, ended ones too: the engine has those of others as well."""
        shown = '{{.ID}} {{.Label "io.trainshed.run"}}'
        lines = docker(self._engine, "ps", "-a", "--filter", "label=io.trainshed.run", "--format", shown).splitlines()
        return [container for container, _, run in (line.partition(" ") for line in lines) if (self.state / "runs" / run).is_dir()]

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """End it as `trainshed local down` does; return its exit code."""
        assert self._child is not None
        self._child.terminate()
        return self._child.wait(timeout=60)


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool], *, seconds: float = 90.0) -> Any:
    """Look until what is seen is good; fail with what was seen last."""
    ends = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < ends, f"still {seen}"
        time.sleep(0.05)
    return seen
