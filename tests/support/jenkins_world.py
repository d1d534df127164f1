"""A small project on a controller with agents: its Jenkinsfile and scripts are this repository's own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import jenkinsfile
from tests.support.jenkinsfile import Controller, git
from tests.support.sample_project import CONFIGURATION, PREPARE, Sample, docker

ROOT = jenkinsfile.ROOT
CREDENTIALS: Mapping[str, Mapping[str, str]] = {
    "shared-text": {"kind": "string", "secret": "text-of-the-team"},
    "shared-file": {"kind": "file", "secret": "file-of-the-team\n"},
    "shared-login": {"kind": "username-password", "username": "team", "secret": "password-of-the-team"},
    "production": {"kind": "string", "secret": "key-of-production"},
}
SECRETS = tuple(stored["secret"].strip() for stored in CREDENTIALS.values())
ENVIRONMENTS = """
[environments.shared]
registry = {{ url = "{registry}", insecure = true }}

[environments.shared.credentials]
SHARED_TEXT = "string:shared-text"
SHARED_FILE = "file:shared-file"
SHARED_LOGIN = "username-password:shared-login"
TRAINSHED_LEDGER_URL = "string:ledger"

[environments.shared.scan]
without-db = "warn"

[environments.production]
registry = {{ url = "{registry}/production", insecure = true }}
trust = "main"
credentials = {{ PRODUCTION = "string:production" }}
"""
_LEAKING = ("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_", "AWS_", "KF_", "KUBEFLOW_", "JENKINS_", "JOB_")
_PROGRAM = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m trainshed "$@"\n'


@dataclass
class World:
    """The repository with its branches, and the controller. A job of its own has workspaces of its own."""

    project: str
    sample: Sample
    controller: Controller
    jobs: dict[str, Controller] = field(default_factory=dict)

    def job(self, name: str) -> Controller:
        """Return the job of a branch of the multibranch job."""
        return self.jobs.setdefault(name, dataclasses.replace(self.controller, job=f"team/sample/{name}"))

    def commit(self, files: Mapping[str, str], *, on: str, without: str = "") -> None:
        """Make a branch of main with these files, and without a folder."""
        root = self.sample.root
        git(root, "checkout", "--quiet", "-b", on, "main")
        for path, text in files.items():
            self.sample.write(path, text)
        if without:
            shutil.rmtree(root / without)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", f"make {on}")
        git(root, "checkout", "--quiet", "main")

    def text(self, path: str) -> str:
        """Return a file of main."""
        return git(self.sample.root, "show", f"main:{path}") + "\n"

    def revision(self, branch: str) -> str:
        """Return the commit of a branch."""
        return git(self.sample.root, "rev-parse", branch)

    def containers(self) -> list[str]:
        """Return the containers of this project's images, as nothing but its builds makes them."""
        lines = docker(self.sample.engine, "ps", "-a", "--format", "{{.Image}} {{.Command}} {{.Status}}").splitlines()
        return [line for line in lines if f"/{self.project}/" in line]

    def processes(self) -> list[str]:
        """Return the living processes that stand in a workspace or name one: embedded services too."""
        agents = self.controller.home / "agents"
        found = []
        for entry in (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
                if words and (str(agents) in words or (entry / "cwd").readlink().is_relative_to(agents)):
                    found.append(f"{entry.name} {words}")
        return found

    def down(self) -> None:
        """End what a failed test may have left."""
        for state in (self.controller.home / "agents").glob("*/workspace/*/.trainshed"):
            environment = {**self.controller.environment, "TRAINSHED_CONFIG": str(state.parent / "trainshed.toml")}
            subprocess.run([sys.executable, "-m", "trainshed", "local", "down"], env=environment, check=False, capture_output=True)


def make(root: Path, classes: Path, *, engine: str, base: str, registry: str, ledger: str) -> World:
    """Make the repository and the controller; nothing is built yet."""
    sample = Sample(root / "repository", engine, base=base)
    project = f"sample-{secrets.token_hex(3)}"
    sample.write("trainshed.toml", CONFIGURATION.replace('"sample"', f'"{project}"'))
    sample.append("trainshed.toml", ENVIRONMENTS.format(registry=registry))
    sample.write(".gitignore", "/.venv/\n/.trainshed/\n/build/\n__pycache__/\n")
    # As many rows as nobody asks for by accident: then the task goes on until it is stopped.
    patient = PREPARE.replace("given.out.parent", "__import__('time').sleep(given.rows // 4711 * 600)\n    given.out.parent", 1)
    sample.write("components/prepare/src/main.py", patient)
    shutil.copytree(ROOT / "scripts", sample.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (sample.root / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "runtime.lock", sample.root / "requirements")
    shutil.copy(ROOT / "Jenkinsfile", sample.root)
    git(sample.root, "init")
    git(sample.root, "add", "--all")
    git(sample.root, "commit", "--quiet", "--message", "first")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEAKING)}
    controller = Controller(
        home=root / "jenkins",
        classes=classes,
        repository=sample.root,
        environment={**kept, "DOCKER_HOST": engine},
        agents=[
            {"name": "built-in", "labels": [], "executors": 4},
            *({"name": f"agent-{number}", "labels": ["docker"], "executors": 1} for number in (1, 2, 3)),
        ],
        credentials={**CREDENTIALS, "ledger": {"kind": "string", "secret": ledger}},
        # scripts/_install leaves an environment alone that it did not make.
        files={".venv/bin/trainshed": _PROGRAM},
    )
    return World(project, sample, controller)
