"""The embedded services of one project, each started when its address is first asked for, and found again by the next command."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainshed import files, settings
from trainshed.errors import UsageError, suggestion
from trainshed.local import debian, engine, ports
from trainshed.local.daemons import Daemon
from trainshed.local.state import make_foreign

ENGINE, REGISTRY, KUBEFLOW, PREDICTION = "engine", "registry", "kubeflow", "prediction"
NAMES = (ENGINE, REGISTRY, KUBEFLOW, PREDICTION)
_PREFERRED = {REGISTRY: 5000, KUBEFLOW: 8888, PREDICTION: 8889}
_READY_PATH = {REGISTRY: "/v2/", KUBEFLOW: "/apis/v2beta1/healthz", PREDICTION: "/_embedded/health"}
_PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One embedded service: ``state`` is ``running``, ``stopped`` or ``external`` (an engine that is not ours)."""

    name: str
    state: str
    address: str = ""
    pid: int | None = None
    log: Path | None = None


class Embedded:
    """The services under one state folder. ``notify`` gets a line whenever something that takes long begins."""

    def __init__(self, state: Path, *, notify: Callable[[str], None] = lambda _line: None) -> None:
        self.state = state
        self.notify = notify
        self._engine_host: str | None = None

    @property
    def private_engine(self) -> engine.PrivateEngine:
        """Return the engine of this project's own; it may not run."""
        return engine.PrivateEngine(self.state / ENGINE, notify=self.notify)

    def engine_host(self) -> str:
        """Return the address of the engine: one that the machine offers, else the project's own, started when needed."""
        if self._engine_host is None:
            self._engine_host = engine.reachable() or self.private_engine.ensure()
        return self._engine_host

    def found_engine(self) -> str | None:
        """Return the address of an engine that is there already, None when `engine_host` would have to start one."""
        private = self.private_engine
        return engine.reachable() or (private.host if private.daemon.running() is not None else None)

    def registry_address(self) -> str:
        """Return ``127.0.0.1:PORT`` of the registry; the port stays the same as long as nobody else takes it."""
        instead = "Install docker-registry, or name a registry in environments.<name>.registry."
        log = self.state / REGISTRY / "install.log"
        debian.program("docker-registry", "docker-registry", log=log, notify=self.notify, instead=instead)
        return self._address(self._registry())

    def kubeflow_address(self) -> str:
        """Return ``http://127.0.0.1:PORT`` of the embedded Kubeflow."""
        return f"http://{self._address(self._server(KUBEFLOW, self.engine_host()))}"

    def prediction_address(self) -> str:
        """Return ``http://127.0.0.1:PORT`` of the embedded Prediction Service."""
        return f"http://{self._address(self._server(PREDICTION, self.engine_host()))}"

    def status(self) -> list[ServiceStatus]:
        """Tell what runs; starts nothing."""
        found = engine.reachable()
        first = ServiceStatus(name=ENGINE, state="external", address=found) if found is not None else self._status(ENGINE)
        return [first, *(self._status(name) for name in NAMES[1:])]

    def down(self) -> list[str]:
        """End everything that runs for this project, the engine last; return the names of what was ended."""
        ended = []
        for name in reversed(NAMES):
            done = self.private_engine.end() if name == ENGINE else self._daemon(name).end()
            ended += [name] if done else []
            if name == PREDICTION:
                self._remove_tasks()
            elif name == KUBEFLOW:
                self._end_runs()
        self._engine_host = None
        return ended

    def logs(self, name: str) -> Path:
        """Return the log file of a service.

        Raises:
            UsageError: there is no service of that name.
        """
        if name not in NAMES:
            message = f"no embedded service '{name}'{suggestion(name, NAMES)}"
            raise UsageError(message, next_step=f"Known: {', '.join(NAMES)}.")
        return self._daemon(name).log

    def _end_runs(self) -> None:
        """End the runs, and remove the containers, of a Kubeflow that was killed; one that ends by itself leaves none."""
        from trainshed.local.kubeflow.runs import Runs, left_over

        folder = self.state / KUBEFLOW / "runs"
        if left := left_over(folder):
            runs = Runs(folder, engine=self.found_engine())
            runs.adopt(left)
            runs.close()

    def _remove_tasks(self) -> None:
        """Remove the containers that a Prediction Service left because it was killed; one that ends by itself leaves none."""
        record, host = self.state / PREDICTION / "state.json", self.found_engine()
        if not record.is_file() or host is None:
            return
        from trainshed.local.prediction.containers import Containers
        from trainshed.local.prediction.records import Store

        if not engine.listens(host):
            self.notify(f"the engine at {host} does not answer: containers of the Prediction Service may be left there")
            return
        containers = Containers(host, Store(record).identity)
        for container in containers.ours():
            containers.remove(container)

    def _daemon(self, name: str) -> Daemon:
        if name == ENGINE:
            return self.private_engine.daemon
        return self._registry() if name == REGISTRY else self._server(name, "")

    def _status(self, name: str) -> ServiceStatus:
        daemon = self._daemon(name)
        running = daemon.running()
        if running is None:
            return ServiceStatus(name=name, state="stopped", log=daemon.log)
        address = self.private_engine.host if name == ENGINE else f"{'' if name == REGISTRY else 'http://'}{ports.LOOPBACK}:{running.port}"
        return ServiceStatus(name=name, state="running", address=address, pid=running.pid, log=daemon.log)

    def _address(self, daemon: Daemon) -> str:
        running = daemon.ensure(on_start=lambda: self.notify(f"starting the embedded {daemon.name}"))
        return f"{ports.LOOPBACK}:{running.port}"

    def _registry(self) -> Daemon:
        folder = self.state.resolve() / REGISTRY
        program = debian.find("docker-registry") or "docker-registry"
        return Daemon(
            name=REGISTRY,
            folder=folder,
            command=lambda port: [program, "serve", str(folder / f"{port}.yaml")],
            ready=lambda port: _answers(port, _READY_PATH[REGISTRY]),
            preferred=_PREFERRED[REGISTRY],
            prepare=lambda port: _configure_registry(folder, port),
        )

    def _server(self, name: str, host: str) -> Daemon:
        folder = self.state.resolve() / name
        module = [settings.interpreter(), "-m", f"trainshed.local.{name}"]
        # One of an older Trainshed would not know what is asked of it. Kubeflow's goes on: its runs would end with it.
        version = json.dumps([*module, str(folder), host, _code(name)]) if name == PREDICTION else ""
        return Daemon(
            name=name,
            folder=folder,
            command=lambda port: [*module, "--state", str(folder), "--port", str(port), "--engine", host],
            version=version,
            ready=lambda port: _answers(port, _READY_PATH[name]),
            preferred=_PREFERRED[name],
        )


def _code(name: str) -> str:
    """Return a digest of a server's own modules."""
    sources = sorted((Path(__file__).parent / name).glob("*.py"))
    return hashlib.sha256(b"\0".join(part for file in sources for part in (file.name.encode(), file.read_bytes()))).hexdigest()


def _configure_registry(folder: Path, port: int) -> None:
    make_foreign(folder / "data")
    document = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{ports.LOOPBACK}:{port}"},
    }
    files.write_json(folder / f"{port}.yaml", document)  # JSON is YAML


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(ports.LOOPBACK, port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
