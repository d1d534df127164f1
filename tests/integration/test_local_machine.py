"""A machine from nothing: an engine of our own beside any other, the embedded services, and their end without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import tiny
from trainshed import owner
from trainshed.local import debian, ports, state
from trainshed.local.engine import PrivateEngine
from trainshed.local.prediction.records import Store
from trainshed.local.services import Embedded

PATIENCE_SECONDS = 120.0


def docker(host: str, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", "--host", host, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:g} s"
        time.sleep(0.05)


def traces(place: Path) -> list[str]:
    """Return what this machine still has of a folder: processes that name it, mounts below it."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(place) in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and owner.start_time(int(entry.name)) is not None:
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(place).encode() in text:
                found.append(f"process {entry.name}: {text[:200]!r}")
    return found


def rules() -> str:
    """Return all rules of the firewall."""
    iptables = debian.find("iptables") or "iptables"
    return "".join(
        subprocess.run([iptables, "--wait", "-t", table, "-S"], capture_output=True, text=True, check=True).stdout
        for table in ("nat", "filter")
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """Return a running engine of our own, in a folder whose path leaves no room for a socket."""
    folder = Path(tmp_path_factory.mktemp("machine"), *["a-long-name"] * 10, "engine")
    private = PrivateEngine(folder)
    private.ensure()
    tiny.load(private.host, tmp_path_factory.mktemp("tiny"))
    yield private
    private.end()


def test_an_engine_is_found_again_while_it_runs(engine: PrivateEngine) -> None:
    running = engine.daemon.running()
    assert running is not None
    assert PrivateEngine(engine.folder).ensure() == engine.host
    assert engine.daemon.running() == running


def test_an_engine_runs_containers_beside_another_one(engine: PrivateEngine, docker_host: str) -> None:
    assert engine.host != docker_host
    assert docker(engine.host, "run", "--rm", tiny.IMAGE, "sh", "-c", "echo from inside") == "from inside"
    assert docker(engine.host, "info", "--format", "{{.DockerRootDir}}") == str(engine.folder / "data")


def test_an_engines_containers_reach_each_other_over_its_own_bridge(engine: PrivateEngine) -> None:
    inspected = json.loads(docker(engine.host, "network", "inspect", "bridge"))[0]
    assert inspected["Options"]["com.docker.network.bridge.name"] == engine.bridge
    address = Path("/sys/class/net", engine.bridge, "address").read_text().strip()
    name = f"one-{os.getpid()}"
    docker(engine.host, "run", "--detach", "--name", name, tiny.IMAGE, "sleep", "600")
    try:
        assert Path("/sys/class/net", engine.bridge, "address").read_text().strip() == address
    finally:
        docker(engine.host, "rm", "--force", name)
    assert address.startswith("02:42:")


def test_a_killed_engine_is_started_anew_without_what_ran_on_it(engine: PrivateEngine) -> None:
    name = f"orphan-{os.getpid()}"
    docker(engine.host, "run", "--detach", "--name", name, tiny.IMAGE, "sleep", "600")
    inside = int(docker(engine.host, "inspect", "--format", "{{.State.Pid}}", name))
    start = owner.start_time(inside)
    killed = engine.daemon.running()
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: engine.daemon.running() is None, "the end of the engine")
    engine.ensure()
    assert owner.start_time(inside) != start
    assert docker(engine.host, "inspect", "--format", "{{.State.Running}}", name) == "false"
    assert docker(engine.host, "run", "--rm", tiny.IMAGE, "echo", "again") == "again"
    docker(engine.host, "rm", "--force", name)


def test_the_end_of_an_engine_leaves_no_container_process_mount_bridge_or_rule(tmp_path: Path) -> None:
    private = PrivateEngine(tmp_path / "engine")
    private.ensure()
    tiny.load(private.host, tmp_path)
    docker(private.host, "run", "--detach", tiny.IMAGE, "sleep", "600")
    assert private.bridge in rules()
    assert private.end()
    assert traces(private.folder) == []
    assert traces(private.run_folder) == []
    assert not private.run_folder.exists()
    assert not Path("/sys/class/net", private.bridge).exists()
    assert private.bridge not in rules()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "trainshed.toml").write_text('[project]\nname = "machine"\n')
    for folder in ("components", "pipeline_templates"):
        (tmp_path / folder).mkdir()
    return tmp_path


def trainshed(project: Path, *words: str) -> tuple[int, dict[str, dict[str, object]], str]:
    """Run the command; return its exit code, its results by name, and what it told people."""
    command = [sys.executable, "-m", "trainshed", *words, "--json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=600)
    results = json.loads(done.stdout)["results"]
    return done.returncode, {result["name"]: result for result in results}, done.stderr


def test_the_services_come_up_by_command_survive_it_and_go_down_without_a_trace(project: Path) -> None:
    code, up, told = trainshed(project, "local", "up")
    assert code == 0, told
    try:
        assert {name: result["status"] for name, result in up.items()} == dict.fromkeys(
            ("engine", "registry", "kubeflow", "prediction"), "done"
        )
        for url in (f"http://{up['registry']['address']}/v2/", f"{up['kubeflow']['address']}/apis/v2beta1/healthz"):
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - an address of loopback
                assert answer.status == 200
        _, again, _ = trainshed(project, "local", "up")
        assert {name: result["address"] for name, result in again.items()} == {name: result["address"] for name, result in up.items()}
        _, status, _ = trainshed(project, "local", "status")
        assert {name: result["state"] for name, result in status.items()} == {
            "engine": "external",
            "registry": "running",
            "kubeflow": "running",
            "prediction": "running",
        }
        _, logs, told = trainshed(project, "local", "logs", "registry")
        assert logs["registry"]["log"] == ".trainshed/registry/registry.log"
        assert "registry: .trainshed/registry/registry.log" in told
    finally:
        code, down, told = trainshed(project, "local", "down")
    assert code == 0, told
    assert {name for name, result in down.items() if result["status"] == "done"} == {"registry", "kubeflow", "prediction"}
    assert traces(project / ".trainshed") == []


def test_a_killed_service_is_there_again_at_the_next_command_on_its_port(project: Path) -> None:
    embedded = Embedded(project / ".trainshed")
    file = project / ".trainshed" / "registry" / "port"
    file.parent.mkdir(parents=True)
    file.write_text(f"{ports.choose((), key=state.digest(project))}\n")  # the preferred one may be another project's next moment
    try:
        address = embedded.registry_address()
        pid = next(one.pid for one in embedded.status() if one.name == "registry")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: owner.start_time(pid) is None, "the end of the registry")
        assert embedded.registry_address() == address
    finally:
        embedded.down()


def test_down_removes_the_containers_of_a_killed_prediction_service(project: Path, docker_host: str) -> None:
    tiny.load(docker_host, project)
    embedded = Embedded(project / ".trainshed")
    embedded.prediction_address()
    label = f"io.trainshed.prediction={Store(project / '.trainshed' / 'prediction' / 'state.json').identity}"
    left = docker(docker_host, "run", "--detach", "--label", label, tiny.IMAGE, "sleep", "600")
    other = docker(docker_host, "run", "--detach", "--label", "io.trainshed.prediction=another", tiny.IMAGE, "sleep", "600")
    try:
        pid = next(one.pid for one in embedded.status() if one.name == "prediction")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: owner.start_time(pid) is None, "the end of the Prediction Service")
        embedded.down()
        running = docker(docker_host, "ps", "--no-trunc", "--quiet").splitlines()
        assert left not in running
        assert other in running
    finally:
        docker(docker_host, "rm", "--force", left, other, check=False)


def test_doctor_finds_all_that_this_machine_has(project: Path) -> None:
    code, checks, told = trainshed(project, "doctor")
    assert code == 0, told
    assert {name for name, check in checks.items() if check["status"] != "done"} == set()
    assert "BuildKit" in str(checks["build client"]["cause"])
    assert checks["git"]["warning"] == "the project has no commit yet: records will not name one"


def test_doctor_says_what_is_missing_and_exits_with_4(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    code, checks, told = trainshed(project, "doctor")
    assert code == 4
    assert checks["engine"]["status"] == "failed"
    assert f"no container engine answers at unix://{project}/no.sock" in str(checks["engine"]["message"])
    assert checks["trivy"]["status"] == "done"
    assert "engine: " in told
