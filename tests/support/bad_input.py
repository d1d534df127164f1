"""A small sound project to be broken, and the real command in this process, held to what every refusal promises."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow import specification, step, text
from trainshed import cli, config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.pipelines.stamp import stamp
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.survey import survey

NOBODY = "127.0.0.1:9"
CONFIGURATION = f"""[project]
name = "small"
[environments.local]
registry = "{NOBODY}/ml"
kubeflow.host = "http://{NOBODY}"
prediction-service = {{ cluster = "c", region = "us-east-1", endpoint-url = "http://{NOBODY}" }}
"""
STEP = """name: train
implementation:
  container:
    image: component.invalid/train:unstamped
    command: [python3, /main.py]
"""
SERVICE = """name: answer
port: 8080
count: 1
health: {path: /healthz}
"""
WAIVER = '[[waiver]]\nid = "CVE-2026-0001"\nowner = "a@example.org"\nreason = "no input from outside"\nexpires = 2999-12-31\n'
PARAMETERS = {"rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5}, "rows": {"parameterType": "NUMBER_INTEGER"}}
UNREADABLE = b"caf\xe9\n"


class Trial:
    """The project in a folder."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        self.write("trainshed.toml", CONFIGURATION)
        self.write("waivers.toml", WAIVER)
        self.write("components/base/Dockerfile", "FROM scratch\nCOPY base.txt /\n")
        self.write("components/base/base.txt", "ground\n")
        self.write("components/train/Dockerfile", "ARG BASE=127.0.0.1:5000/small/base:latest\nFROM ${BASE}\nCOPY main.py /\n")
        self.write("components/train/main.py", "print('training')\n")
        self.write("components/train/component.yaml", STEP)
        self.write("components/answer/Dockerfile", "FROM scratch\nCOPY main.py /\n")
        self.write("components/answer/.dockerignore", "service.yaml\n")
        self.write("components/answer/main.py", "print('answering')\n")
        self.write("components/answer/service.yaml", SERVICE)
        self.template("component.invalid/train:unstamped")

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file of the project."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def template(self, image: str, name: str = "flow") -> None:
        """Write a pipeline template of one step."""
        self.write(f"pipeline_templates/{name}.yaml", text(specification(name, {"train": step("pass", image=image)}, PARAMETERS)))

    def settle(self) -> None:
        """Write the lock and the stamped pipeline, as if the stages before had run."""
        digest = f"sha256:{'1' * 64}"
        reference = f"{NOBODY}/ml/small"
        images = {
            name: locks.LockedImage(reference=f"{reference}/{name}@{digest}", digest=digest, input_digest=digest)
            for name in ("answer", "base", "train")
        }
        loaded = config.load(self.root / "trainshed.toml", environment="local")
        context = Context(config=loaded, console=Console(), tier=Tier.LAPTOP)
        lock = locks.of(project="small", commit=None, dirty=False, plan_digest=survey(context).plan_digest(), images=images)
        locks.write(locking.path(context), lock)
        context.close()
        template = (self.root / "pipeline_templates" / "flow.yaml").read_text()
        self.write("build/pipelines/flow.template.yaml", template)
        self.write("build/pipelines/flow.yaml", stamp(template, lock.references, place="flow"))

    def refused(self, *words: str, code: int = 2) -> str:
        """Run a command that must be refused before any work; return the message.

        Promised of each refusal: its exit code, error lines and one next step and nothing else on stderr, nothing on stdout, or with
        ``--json`` a document that says the same; and the project is the same, byte for byte.
        """
        before = self.tree()
        told = self._run(*words)
        assert told[:2] == (code, ""), told
        lines = told[2].splitlines()
        assert lines, told
        assert all(line.startswith("error: ") for line in lines[:-1]), told[2]
        assert lines[-1].startswith("next: "), told[2]
        got, out, _ = self._run("--json", *words)
        document = json.loads(out)
        assert (got, document["exit_code"], document["results"]) == (code, code, [])
        message = "\n".join(line.removeprefix("error: ") for line in lines[:-1])
        assert (document["error"]["message"], document["error"]["next"]) == (message, lines[-1].removeprefix("next: "))
        assert self.tree() == before
        return message

    def failed(self, *words: str, code: int) -> list[dict[str, Any]]:
        """Run a command whose items all fail before anything is written; return their results.

        Promised: the exit code, one block for each item that says what its result says, and a project with nothing new but the
        record, and the ledger that was asked for the turn to deploy.
        """
        before = self.tree()
        got, out, err = self._run("--json", *words)
        document = json.loads(out)
        results: list[dict[str, Any]] = document["results"]
        assert (got, document["exit_code"], document["status"]) == (code, code, "red")
        for result in results:
            assert result["status"] == "failed"
            assert err.count(f"── {result['stage']} {result['name']} failed ") == 1
            assert all(line in err for line in result["message"].splitlines())
        own = ("build/records", ".trainshed")
        after = {path: found for path, found in self.tree().items() if not path.startswith(own)}
        assert after == before, after.keys() ^ before.keys()
        return results

    def _run(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = cli.main(["--config", str(self.root / "trainshed.toml"), *words])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return every path of the project with its mode and content."""
        return {str(path.relative_to(self.root)): (path.lstat().st_mode, _content(path)) for path in sorted(self.root.rglob("*"))}


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return str(path.readlink()).encode()
    return path.read_bytes() if path.is_file() else b""


def commit(root: Path) -> None:
    """Make a repository of a folder with one commit."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "work"]):
        subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)
