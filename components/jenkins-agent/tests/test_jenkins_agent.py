"""The entrypoint says what is missing, takes nothing but a jar, and keeps the secret off the command line."""

from __future__ import annotations

import http.server
import importlib.machinery
import importlib.util
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path("/usr/local/bin/jenkins-agent")
WORD = "5ecre7-0f-7he-n0de"


def _jar(manifest: str = "Main-Class: hudson.remoting.Launcher\n") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as jar:
        jar.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), manifest)  # of no date: the same bytes in any second
    return content.getvalue()


@pytest.fixture
def agent() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("jenkins_agent", str(PROGRAM))
    spec = importlib.util.spec_from_loader("jenkins_agent", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.PAUSE_SECONDS = 0.01
    return module


class Controller(http.server.ThreadingHTTPServer):
    """Answers with what is next in its list, the last of it for ever; counts who asked for what."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes]] = [(200, _jar())]
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/ci"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Controller

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        code, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def controller() -> Iterator[Controller]:
    with Controller() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def variables(controller: Controller, tmp_path: Path) -> dict[str, str]:
    secret = tmp_path / "secret"
    secret.write_text(f"{WORD}\n")
    return {
        "JENKINS_URL": controller.url,
        "JENKINS_AGENT_NAME": "builder 1",
        "JENKINS_SECRET_FILE": str(secret),
        "JENKINS_AGENT_WORKDIR": str(tmp_path),
        "JENKINS_AGENT_WAIT": "30",
    }


def test_the_command_names_the_secret_s_file_and_never_the_secret(
    agent: ModuleType, controller: Controller, variables: dict[str, str], tmp_path: Path
) -> None:
    command = agent.prepare({**variables, "JENKINS_JAVA_OPTS": "-Xmx256m -Da='b c'"})
    assert command[:5] == ["java", "-Xmx256m", "-Da=b c", "-jar", f"{tmp_path}/agent.jar"]
    told = dict(zip(command[5::2], command[6::2], strict=False))
    assert told["-url"] == f"{controller.url}/"
    assert told["-name"] == "builder 1"
    assert told["-secret"] == f"@{tmp_path}/secret"
    assert "-webSocket" in command
    assert WORD not in " ".join(command)
    assert (tmp_path / "agent.jar").read_bytes() == _jar()
    assert controller.asked == ["/ci/jnlpJars/agent.jar"]


def test_a_secret_in_a_variable_goes_into_a_private_file(agent: ModuleType, variables: dict[str, str], tmp_path: Path) -> None:
    del variables["JENKINS_SECRET_FILE"]
    command = agent.prepare({**variables, "JENKINS_SECRET": WORD})
    file = Path(command[command.index("-secret") + 1].removeprefix("@"))
    assert file.read_text() == WORD
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert WORD not in " ".join(command)
    assert {path.name for path in tmp_path.iterdir()} == {"secret", file.name, "agent.jar"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JENKINS_URL": ""}, "not set: JENKINS_URL"),
        ({"JENKINS_URL": "", "JENKINS_AGENT_NAME": "", "JENKINS_SECRET_FILE": ""}, "JENKINS_URL, JENKINS_AGENT_NAME, JENKINS_SECRET_FILE"),
        ({"JENKINS_URL": "jenkins.example"}, "expected http:// or https://, not 'jenkins.example'"),
        ({"JENKINS_SECRET_FILE": "/nowhere/secret"}, "/nowhere/secret cannot be read"),
        ({"JENKINS_SECRET_FILE": "/dev/null"}, "/dev/null is empty"),
        ({"JENKINS_AGENT_WORKDIR": "/nowhere"}, "/nowhere is no folder"),
        ({"JENKINS_AGENT_WAIT": "long"}, "expected seconds, not 'long'"),
        ({"JENKINS_CA": "/nowhere/ca.pem"}, "/nowhere/ca.pem cannot be read"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    agent: ModuleType, controller: Controller, variables: dict[str, str], changed: dict[str, str], message: str
) -> None:
    with pytest.raises(agent.Failure, match=message) as raised:
        agent.prepare({**variables, **changed})
    assert raised.value.code == 2
    assert raised.value.next_step
    assert controller.asked == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, b"<html>Please log in</html>"), "is no agent.jar: 26 bytes that start with '<html>"),
        ((200, b""), "is no agent.jar: 0 bytes"),
        ((200, _jar()[:-30]), "is no agent.jar"),
        ((200, _jar("Name: a library\n")), "is no agent.jar"),
        ((404, b""), "HTTP 404"),
        ((403, b""), "HTTP 403"),
    ],
)
def test_anything_but_a_jar_is_refused_at_once(
    agent: ModuleType, controller: Controller, variables: dict[str, str], answer: tuple[int, bytes], message: str
) -> None:
    controller.answers = [answer]
    with pytest.raises(agent.Failure, match=message) as raised:
        agent.prepare(variables)
    assert raised.value.code == 1
    assert len(controller.asked) == 1
    assert not Path(variables["JENKINS_AGENT_WORKDIR"], "agent.jar").exists()


def test_a_controller_that_is_still_starting_is_waited_for(agent: ModuleType, controller: Controller, variables: dict[str, str]) -> None:
    controller.answers = [(503, b"Please wait"), (502, b""), (200, _jar())]
    assert agent.prepare(variables)
    assert len(controller.asked) == 3


def test_a_controller_that_never_answers_is_given_up(agent: ModuleType, variables: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(agent.Failure, match=r"did not answer within 0\.05 s: .*refused") as raised:
            agent.prepare({**variables, "JENKINS_URL": address, "JENKINS_AGENT_WAIT": "0.05"})
    assert raised.value.code == 5


def test_the_program_becomes_the_agent_and_hides_the_secret_from_its_builds(variables: dict[str, str], tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\necho "$$ $*"\nenv\n')
    java.chmod(0o755)
    del variables["JENKINS_SECRET_FILE"]
    told = {**variables, "JENKINS_SECRET": WORD, "PATH": f"{java.parent}:{os.environ['PATH']}"}
    running = subprocess.Popen(  # noqa: S603 - the program under test
        [sys.executable, PROGRAM], env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert out.startswith(f"{running.pid} -jar ")  # the same process: signals reach the agent
    assert WORD not in out + err


def test_the_tools_that_stages_need_are_there() -> None:
    assert os.getuid() == 1000
    assert all(shutil.which(program) for program in ("docker", "docker-registry", "git", "java", "tini"))
