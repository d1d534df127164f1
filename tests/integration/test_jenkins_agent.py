"""The agent's image, made by the real command; its entrypoint against a controller that serves some jar, or something else."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support import groovy

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "tests" / "data" / "jenkins" / "agent.groovy"
WORD = "a-5ecre7-that-nobody-may-see"
PATIENCE = 300
COMPILE = """import org.codehaus.groovy.control.*
def unit = new CompilationUnit(new CompilerConfiguration(targetDirectory: new File(args[1])))
unit.addSource(new File(args[0]))
unit.compile()
"""


@dataclass
class Image:
    reference: str
    report: dict[str, Any]
    plan: dict[str, Any]


@pytest.fixture(scope="module")
def image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build, scan and test the component, alone in a project of its own, by the command that a person would type."""
    assert base_image
    root = tmp_path_factory.mktemp("agent")
    shutil.copytree(ROOT / "components" / "jenkins-agent", root / "components" / "jenkins-agent")
    (root / "trainshed.toml").write_text('[project]\nname = "agent"\n[scan]\nscanners = ["secret"]\n')

    def trainshed(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "trainshed", *words]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_logs(root)}"
        told: dict[str, Any] = json.loads(done.stdout) if "--json" in words else {}
        return told

    try:
        report = trainshed("--json", "images", "jenkins-agent")
        plan = trainshed("--json", "plan", "jenkins-agent")
        reference = json.loads((root / "build" / "images.lock.json").read_text())["images"]["jenkins-agent"]["reference"]
        yield Image(reference, report, plan)
    finally:
        trainshed("local", "down")


def _logs(root: Path) -> str:
    return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(root.glob("build/logs/*.log")))


class Controller(http.server.ThreadingHTTPServer):
    """Serves one answer for agent.jar, and counts who asked for what."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.code, self.body = 200, b""
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/ci"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Controller

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.code)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def controller() -> Iterator[Controller]:
    with Controller() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a jar that runs: the stand-in, compiled, beside Groovy's own classes."""
    folder = tmp_path_factory.mktemp("jar")
    (folder / "compile.groovy").write_text(COMPILE)
    done = groovy.run(folder / "compile.groovy", AGENT, folder)
    assert done.returncode == 0, done.stderr
    made = folder / "agent.jar"
    (library,) = sorted(Path("/usr/share/java").glob("groovy-all-2.4.*.jar"))
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as out, zipfile.ZipFile(library) as known:
        out.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nMain-Class: Agent\n")
        for name in known.namelist():
            if name != "META-INF/MANIFEST.MF" and not name.endswith("/"):
                out.writestr(name, known.read(name))
        for file in folder.glob("*.class"):
            out.write(file, file.name)
    return made.read_bytes()


@dataclass
class Runner:
    """Starts containers of the image on the machine's own network, and removes them."""

    client: Any
    image: str
    started: list[Any] = field(default_factory=list)

    def start(self, **environment: str) -> Any:
        container = self.client.containers.run(self.image, detach=True, network_mode="host", environment=environment)
        self.started.append(container)
        return container

    def end(self, **environment: str) -> tuple[int, str]:
        """Start one that ends by itself; return its exit code and what it said."""
        container = self.start(**environment)
        code: int = container.wait(timeout=PATIENCE)["StatusCode"]
        return code, container.logs().decode()


@pytest.fixture
def runner(image: Image, docker_host: str) -> Iterator[Runner]:
    client = docker.DockerClient(base_url=docker_host, timeout=PATIENCE)
    found = Runner(client, image.reference)
    yield found
    for container in found.started:
        container.remove(force=True)
    client.close()


def wait_for(holds: Callable[[], bool], told: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


def test_the_component_is_built_scanned_and_tested_and_then_known(image: Image) -> None:
    done = {(result["stage"], result["status"]) for result in image.report["results"]}
    assert done == {("build", "done"), ("scan", "done"), ("test", "done")}
    (planned,) = image.plan["results"]
    assert planned["status"] == "cached"
    assert [action["needed"] for action in planned["actions"]] == [False, False, False]


def test_without_variables_nothing_is_asked_and_all_of_them_are_named(runner: Runner) -> None:
    code, said = runner.end()
    assert code == 2
    assert "error: not set: JENKINS_URL, JENKINS_AGENT_NAME, JENKINS_SECRET_FILE (or JENKINS_SECRET)" in said
    assert "next: " in said


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, b"<html>Log in first</html>"), "is no agent.jar: 25 bytes that start with '<html>Log in"),
        ((404, b""), "answered with HTTP 404"),
    ],
)
def test_a_wrong_answer_ends_the_agent_with_a_clear_word(
    runner: Runner, controller: Controller, answer: tuple[int, bytes], message: str
) -> None:
    controller.code, controller.body = answer
    code, said = runner.end(JENKINS_URL=controller.url, JENKINS_AGENT_NAME="one", JENKINS_SECRET=WORD)
    assert code == 1
    assert message in said
    assert controller.asked == ["/ci/jnlpJars/agent.jar"]
    assert WORD not in said


def test_a_controller_that_is_not_there_is_given_up_in_time(runner: Runner, controller: Controller) -> None:
    controller.code = 503
    code, said = runner.end(JENKINS_URL=controller.url, JENKINS_AGENT_NAME="one", JENKINS_SECRET=WORD, JENKINS_AGENT_WAIT="0.5")
    assert code == 5
    assert "did not answer within 0.5 s: HTTP 503" in said


def test_the_agent_runs_with_its_secret_out_of_sight_and_ends_when_it_is_told_to(
    runner: Runner, controller: Controller, jar: bytes
) -> None:
    controller.body = jar
    container = runner.start(JENKINS_URL=controller.url, JENKINS_AGENT_NAME="one", JENKINS_SECRET=WORD, JENKINS_JAVA_OPTS="-Xmx128m")

    def said() -> str:
        text: str = container.logs().decode()
        return text

    wait_for(lambda: "environment: " in said(), said)
    assert (
        f"called: -url {controller.url}/ -name one -secret @/home/jenkins/agent/.agent-secret -webSocket -workDir /home/jenkins/agent"
        in said()
    )
    assert f"secret: {len(WORD)} characters" in said()
    assert "environment: []" in said()  # what builds inherit
    processes = [" ".join(process) for process in container.top(ps_args="axo pid,args")["Processes"]]
    assert any("java -Xmx128m -jar /home/jenkins/agent/agent.jar" in process for process in processes)
    assert not [process for process in processes if WORD in process]
    assert WORD not in said()
    container.stop(timeout=PATIENCE)
    container.reload()
    assert "told to end" in said()
    assert container.attrs["State"]["ExitCode"] == 143  # by SIGTERM, not killed


def test_the_agent_has_a_client_of_the_machine_s_engine_and_no_engine(runner: Runner, docker_host: str) -> None:
    place = docker_host.removeprefix("unix://")
    assert os.path.exists(place)  # noqa: PTH110 - a socket
    output = runner.client.containers.run(
        runner.image,
        ["-c", f"docker --host unix://{place} version --format '{{{{.Server.Version}}}}' && ! command -v dockerd containerd runc"],
        entrypoint="sh",
        remove=True,
        volumes=[f"{place}:{place}"],
        group_add=[Path(place).stat().st_gid],
    )
    assert output.decode().strip() == runner.client.version()["Version"]


def test_packages_come_from_the_mirrors_that_the_build_is_told(
    base_image: str, docker_host: str, controller: Controller, tmp_path: Path
) -> None:
    controller.code = 404
    mirrors = [f'Trainshed::Mirror::{name} "{controller.url}/{name}/";' for name in ("debian", "debian-security")]
    (tmp_path / "apt").write_text("\n".join([*mirrors, 'Acquire::http::Proxy "DIRECT";', 'Acquire::Retries "0";']))
    script = ROOT / "components" / "jenkins-agent" / "install-packages"
    client = docker.DockerClient(base_url=docker_host, timeout=PATIENCE)
    container = client.containers.create(base_image, ["sh", "/install-packages", "hello"], network_mode="host")
    try:
        container.put_archive("/", _archive({"install-packages": script.read_bytes(), "run/secrets/apt": (tmp_path / "apt").read_bytes()}))
        container.start()
        assert container.wait(timeout=PATIENCE)["StatusCode"] != 0
        said = container.logs().decode()
        listing = client.containers.run(
            base_image, ["sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true"], remove=True
        )
    finally:
        container.remove(force=True)
        client.close()
    assert any(path.startswith("/ci/debian/dists/bookworm/") for path in controller.asked), said
    assert all(path.startswith(("/ci/debian/", "/ci/debian-security/")) for path in controller.asked)
    assert "deb.debian.org" not in said
    assert "security" not in listing.decode() or any(path.startswith("/ci/debian-security/dists/") for path in controller.asked)


def _archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as out:
        for name, held in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(held)
            entry.mode = 0o644
            out.addfile(entry, io.BytesIO(held))
    return content.getvalue()
