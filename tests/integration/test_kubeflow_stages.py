from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support import tiny
from tests.support.kubeflow import SHELL, Process, wait_for
from tests.support.kubeflow_project import FlowProject
from tests.support.registry import running_registry
from trainshed.tools.docker import Engine

GOOD = "echo training; echo -n model > $0; echo -n 0.9 > $1"
FAILING = "echo epoch 1; echo the last words; exit 3"
ENDLESS = "echo begun; sleep 600"


@dataclass
class Lab:
    """A project, the command on it, and the Kubeflow and engine behind it."""

    flows: FlowProject
    server: Process
    engine: str

    def program(self, program: str) -> None:
        self.flows.template("training", program, language=SHELL)
        self.flows.settle()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "DOCKER_HOST": self.engine, "CI": "true"}
        command = [sys.executable, "-m", "trainshed", "--json", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.flows.root, env=environment, **pipes)

    def run(self, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
        """Run a command to its end; return the result of its one pipeline, and what people saw."""
        with self.start(*arguments) as child:
            out, err = child.communicate(timeout=180)
        assert child.returncode == code, err
        (result,) = json.loads(out)["results"]
        return result, err

    def containers(self) -> list[str]:
        return self.server.containers()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("stages")
    server = Process(folder / "kubeflow", docker_host)
    with running_registry(folder / "registry") as registry:
        repository = f"{registry}/flows/train"
        tiny.load(docker_host, folder, f"{repository}:1")
        with Engine.connect(docker_host) as engine:
            digest = engine.push(f"{repository}:1")
            engine.remove_image(f"{repository}:1")  # so that the run has to pull it, as on another machine
        server.start()
        yield Lab(FlowProject(folder / "project", server.address, reference=f"{repository}@{digest}"), server, docker_host)
        assert server.stop() == 0


def test_a_pipeline_is_uploaded_once_and_its_run_passes_its_gate(lab: Lab) -> None:
    lab.program(GOOD)
    first, _ = lab.run("upload")
    again, _ = lab.run("upload", "training")
    assert (first["status"], again["status"], again["version_id"]) == ("done", "cached", first["version_id"])
    result, told = lab.run("launch", "training", "--local-images", "--wait", "--gate", "auc >= 0.8", "-p", "rate=0.1")
    assert (result["state"], result["metrics"], result["version"]) == ("SUCCEEDED", {"train.auc": 0.9}, first["version"])
    assert "launch training: train SUCCEEDED" in told
    with lab.flows.open() as context:
        event = context.ledger.events("run", "local", "training")[0].document
        model = context.kubeflow.artifacts(result["run_id"])["train.model"]
    assert (event["good"], event["artifacts"]["train.model"]["uri"]) == (True, model.uri)
    assert Path(urlsplit(model.uri).path).read_text() == "model"
    again, told = lab.run("launch", "--resume", result["run_id"], "--gate", "auc >= best")
    assert (again["run_id"], [gate["passed"] for gate in again["gates"]]) == (result["run_id"], [True, True])
    assert "passed gate auc >= 0.8: auc is 0.9" in told


def test_a_missed_gate_is_exit_code_1(lab: Lab) -> None:
    lab.program(GOOD)
    lab.run("upload")
    result, told = lab.run("launch", "--local-images", "--gate", "auc >= 0.95", code=1)
    assert (result["status"], result["state"]) == ("failed", "SUCCEEDED")
    assert "auc is 0.9" in told


def test_a_failing_step_is_exit_code_1_with_the_end_of_its_log(lab: Lab) -> None:
    lab.program(FAILING)
    lab.run("upload")
    result, told = lab.run("launch", "--local-images", "--wait", code=1)
    assert "task train: exit code 3" in result["message"]
    assert "the last words" in told
    assert (lab.flows.root / result["log"]).read_text().startswith("epoch 1\nthe last words\n")


def test_sigterm_ends_the_run_and_its_container(lab: Lab) -> None:
    lab.program(ENDLESS)
    lab.run("upload")
    with lab.start("launch", "--local-images", "--wait") as child:
        wait_for(lab.containers, bool)
        child.send_signal(signal.SIGTERM)
        _, told = child.communicate(timeout=120)
    assert child.returncode == 130, told
    with lab.flows.open() as context:
        event = context.ledger.events("run", "local", "training")[0]
        wait_for(lambda: context.kubeflow.run(event.key), lambda run: run.state == "CANCELED")
    assert event.document["state"] == "CANCELED"
    assert lab.containers() == []


def test_the_run_of_a_killed_command_is_taken_up_by_the_next(lab: Lab) -> None:
    lab.program(ENDLESS.replace("sleep 600", "sleep 8; echo -n model > $0; echo -n 0.9 > $1"))
    lab.run("upload")
    with lab.start("launch", "--local-images", "--wait") as child:
        wait_for(lab.containers, bool)
        with lab.flows.open() as context:
            wait_for(lambda: context.ledger.events("run", "local", "training")[0].document["state"], lambda state: state == "STARTED")
        child.kill()
        child.communicate()
    result, told = lab.run("launch", "--local-images", "--wait")
    assert (result["state"], "taking up run" in told) == ("SUCCEEDED", True)


def test_a_deadline_ends_the_run(lab: Lab) -> None:
    lab.program(ENDLESS)
    lab.run("upload")
    result, _ = lab.run("launch", "--local-images", "--wait", "--deadline", "1s", code=1)
    assert "the deadline passed" in result["message"]
    wait_for(lab.containers, lambda found: found == [])
