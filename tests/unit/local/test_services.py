from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.local import debian, engine, services
from trainshed.local.daemons import Daemon, Running
from trainshed.local.prediction.records import Store
from trainshed.local.services import Embedded

pytestmark = pytest.mark.sockets

REGISTRY = f"""#!{sys.executable} -IS
import http.server, json, sys
address = json.load(open(sys.argv[2]))["http"]["addr"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
host, _, port = address.partition(":")
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> str:
    """Pretend that the machine offers an engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere/docker.sock")
    return "unix:///somewhere/docker.sock"


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> Iterator[Embedded]:
    """Return services whose registry is a stand-in program."""
    assert host
    program = tmp_path / "docker-registry"
    program.write_text(REGISTRY)
    program.chmod(0o755)
    monkeypatch.setattr(debian, "find", lambda name: str(tmp_path / name))
    monkeypatch.setitem(services._PREFERRED, services.REGISTRY, 0)
    monkeypatch.setitem(services._PREFERRED, services.KUBEFLOW, 0)
    found = Embedded(tmp_path / ".trainshed")
    yield found
    found.down()


def test_the_machines_engine_is_taken_when_there_is_one(embedded: Embedded, host: str) -> None:
    assert embedded.engine_host() == host
    assert embedded.found_engine() == host


def test_without_one_the_projects_own_is_started_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[str] = []

    def ensure(private: engine.PrivateEngine) -> str:
        starts.append(private.host)
        return private.host

    monkeypatch.setattr(engine, "reachable", lambda: None)
    monkeypatch.setattr(engine.PrivateEngine, "ensure", ensure)
    found = Embedded(tmp_path)
    assert found.found_engine() is None
    assert starts == []
    assert found.engine_host() == found.engine_host() == starts[0]
    assert len(starts) == 1


def test_the_registry_is_started_when_asked_for_and_keeps_its_address(embedded: Embedded) -> None:
    address = embedded.registry_address()
    assert address.startswith("127.0.0.1:")
    assert embedded.registry_address() == address
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/v2/")
    assert connection.getresponse().status == 200
    connection.close()
    assert embedded.down() == ["registry"]
    assert embedded.registry_address() == address


def test_the_registry_keeps_its_images_in_its_folder_and_listens_on_loopback(embedded: Embedded) -> None:
    port = embedded.registry_address().rpartition(":")[2]
    written = json.loads((embedded.state / "registry" / f"{port}.yaml").read_text())
    assert written["http"]["addr"] == f"127.0.0.1:{port}"
    assert written["storage"]["filesystem"]["rootdirectory"] == str(embedded.state / "registry" / "data")


def test_a_long_start_is_told_once(embedded: Embedded) -> None:
    told: list[str] = []
    embedded.notify = told.append
    embedded.registry_address()
    embedded.registry_address()
    assert told == ["starting the embedded registry"]


def test_the_status_tells_what_runs_and_starts_nothing(embedded: Embedded, host: str) -> None:
    before = {one.name: (one.state, one.address) for one in embedded.status()}
    assert before == {
        "engine": ("external", host),
        "registry": ("stopped", ""),
        "kubeflow": ("stopped", ""),
        "prediction": ("stopped", ""),
    }
    address = embedded.registry_address()
    running = next(one for one in embedded.status() if one.name == "registry")
    assert (running.state, running.address) == ("running", address)
    assert running.pid is not None


def test_down_ends_what_runs_and_nothing_else(embedded: Embedded) -> None:
    assert embedded.down() == []
    embedded.registry_address()
    assert embedded.down() == ["registry"]
    assert all(one.state != "running" for one in embedded.status())


def test_down_says_so_where_containers_may_be_left(embedded: Embedded) -> None:
    told: list[str] = []
    embedded.notify = told.append
    store = Store(embedded.state / "prediction" / "state.json")
    with store.changing():
        pass
    assert embedded.down() == []
    assert told == [f"the engine at {embedded.engine_host()} does not answer: containers of the Prediction Service may be left there"]


def test_each_service_has_its_log(embedded: Embedded) -> None:
    logs = {name: embedded.logs(name) for name in services.NAMES}
    assert {path.name for path in logs.values()} == {"engine.log", "registry.log", "kubeflow.log", "prediction.log"}


def test_an_unknown_service_is_refused_with_a_suggestion(embedded: Embedded) -> None:
    with pytest.raises(UsageError, match="no embedded service 'kubeflw'; perhaps you meant 'kubeflow'"):
        embedded.logs("kubeflw")


@pytest.mark.parametrize("address", [Embedded.kubeflow_address, Embedded.prediction_address])
def test_a_server_is_told_its_folder_port_and_engine(
    embedded: Embedded, host: str, address: Callable[[Embedded], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def ensure(daemon: Daemon, **_: object) -> Running:
        started.append(list(daemon.command(4711)))
        return Running(pid=1, start="1", port=4711, fingerprint="")

    monkeypatch.setattr(Daemon, "ensure", ensure)
    assert address(embedded) == "http://127.0.0.1:4711"
    name = started[0][2].rpartition(".")[2]
    assert started == [
        [
            sys.executable,
            "-m",
            f"trainshed.local.{name}",
            "--state",
            str(embedded.state / name),
            "--port",
            "4711",
            "--engine",
            host,
        ]
    ]


def test_a_prediction_service_of_an_older_trainshed_is_started_anew(embedded: Embedded, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host
    wanted: list[str] = []

    def ensure(daemon: Daemon, **_: object) -> Running:
        wanted.append(daemon._fingerprint(1))
        return Running(pid=1, start="1", port=1, fingerprint="")

    monkeypatch.setattr(Daemon, "ensure", ensure)
    embedded.prediction_address()
    embedded.prediction_address()
    monkeypatch.setattr(services, "_code", lambda name: f"another {name}")
    embedded.prediction_address()
    assert wanted[0] == wanted[1] != wanted[2]
