"""A small project in a real repository, and the job of a controller that builds it; the real command is run on it as a user would."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.jenkins_server import KEY, FakeBuild, FakeJob, JenkinsServer, Parameter
from tests.support.repositories import Repository
from trainshed import config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.reports import records
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.survey import survey

FOREIGN = "registry.invalid/python:3"
PIN = "sha256:" + "b" * 64
LOCK = "build/images.lock.json"
PARAMETERS = (
    Parameter("ENVIRONMENT", "local"),
    Parameter("LAUNCH", default=False, kind="Boolean"),
    Parameter("RELEASE_BUMP", "auto", kind="Choice", choices=("auto", "patch", "none")),
    Parameter("LAUNCH_PARAMETERS", "", kind="Text"),
)
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Done:
    """How a command ended: its code, the JSON document on stdout, and what people saw."""

    code: int
    document: Any
    told: str


class Project:
    """A clone with two components, one on the other, and the multibranch job ``team/sample`` that builds it."""

    def __init__(self, folder: Path, server: JenkinsServer) -> None:
        self.server = server
        origin = Repository.new(folder / "origin")
        origin.write(".gitignore", "/build/\n/.trainshed/\n")
        origin.write("trainshed.toml", toml(server.url))
        origin.write("components/base/Dockerfile", f"FROM {FOREIGN}\nCOPY base.txt /\n")
        origin.write("components/base/base.txt", "ground\n")
        origin.write("components/learn/Dockerfile", "ARG BASE=x\nFROM ${BASE}\nCOPY learn.py /\n")
        origin.write("components/learn/learn.py", "print('learning')\n")
        self.first = origin.commit()
        self.origin, self.clone = origin, origin.clone(folder / "clone")
        self.root = self.clone.root
        self.multibranch = server.root.folder("team").multibranch("sample")
        self.main = self.branch("main")
        self.environment = {"JENKINS_TOKEN": KEY, "CI": "true"}

    def branch(self, name: str) -> FakeJob:
        """Add the job of a branch."""
        return self.multibranch.add_branch(name, PARAMETERS)

    def green(self, job: FakeJob | None = None, **fields: Any) -> FakeBuild:
        """Add a green build of the first commit with its lock."""
        given = {"commit": self.first, "artifacts": {LOCK: self.lock()}, **fields}
        return (job or self.main).add_build("SUCCESS", **given)

    def lock(self, *, project: str = "sample", tier: str = "main") -> bytes:
        """Return the lock of the tree as it is now."""
        context = Context(config=config.load(self.root / "trainshed.toml", environment="local"), console=_quiet(), tier=Tier.MAIN)
        taken = survey(context, pins={FOREIGN: PIN})
        images: dict[str, locks.LockedImage] = {}
        for name in taken.selected:
            inputs = taken.inputs(name, {base: images[base].digest for base in taken.own_bases(name)})
            images[name] = locks.LockedImage(
                reference=f"registry.invalid/sample/{name}@{inputs.digest}",
                digest=inputs.digest,
                input_digest=inputs.digest,
                base=dict(inputs.manifest["bases"]),
                verdicts={"scan": {"tier": tier}},
            )
        context.close()
        made = locks.of(project=project, commit=self.first, dirty=False, plan_digest=taken.plan_digest(), images=images)
        return json.dumps(made.document()).encode()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "trainshed", "--json", *words],
            cwd=self.root,
            env={**kept, **self.environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, code: int = 0) -> Done:
        """Run a command to its end, with the exit code that is expected."""
        return ended(self.start(*words), code=code)

    def git(self, *words: str) -> str:
        """Run git in the clone."""
        return self.clone.git(*words)


def toml(url: str, more: str = "") -> str:
    """Return a configuration with a controller."""
    return f'[project]\nname = "sample"\n[jenkins]\nurl = "{url}"\njob = "team/sample"\nuser = "ada"\n{more}'


def ended(child: subprocess.Popen[str], *, code: int = 0) -> Done:
    """Wait for the end of a command."""
    with child:
        try:
            out, told = child.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            _, told = child.communicate()
            raise AssertionError(f"did not end; it said:\n{told}") from None
    assert child.returncode == code, f"{child.returncode}: {told}"
    assert KEY not in out + told
    return Done(child.returncode, json.loads(out), told)


def record(folder: Path, *results: Result, stage: str = "images") -> dict[str, bytes]:
    """Return the archived record of a command, as a stage writes it."""
    path = records.write(folder / "build", Report(stage=stage, results=results))
    kept = {f"build/records/{path.name}": path.read_bytes()}
    shutil.rmtree(folder / "build")
    return kept


def failed(name: str, message: str, log: str | None = None) -> Result:
    """Return the result of a test that failed."""
    return Result(name=name, stage="test", status=Status.FAILED, message=message, log=log)


def _quiet() -> Console:
    return Console(io.StringIO())
