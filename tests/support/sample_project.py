"""A small project of four components, a pipeline and a service: quick to build, and run by the real command as a user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed import owner

DATA = Path(__file__).parent.parent / "data"
BASE_IMAGE = "python:3.11-slim-bookworm"
PATIENCE_SECONDS = 300.0

CONFIGURATION = """[project]
name = "sample"

[build]
parallel = 2

[scan]
scanners = ["secret"]
"""

BASE = f"""FROM {BASE_IMAGE} AS program
COPY base.txt /base.txt
FROM program
USER 65534:65534
"""

CHILD = """ARG BASE=127.0.0.1:5000/sample/base:latest
FROM ${BASE} AS program
COPY src /app/
FROM program AS test
COPY tests /tests/
USER 65534:65534
CMD ["python3", "/tests/check.py"]
FROM program
USER 65534:65534
CMD ["python3", "/app/main.py"]
"""

CHECK = """import os, sys
sys.path.insert(0, "/app")
import main
with open(os.environ.get("TRAINSHED_JUNIT", "/reports/junit.xml"), "w") as out:
    out.write('<testsuites><testsuite name="check" tests="1">'
              '<testcase classname="check" name="imports" time="0.01"/></testsuite></testsuites>')
"""

FAILING_CHECK = """import os, sys
print("about to look at the answer")
with open(os.environ.get("TRAINSHED_JUNIT", "/reports/junit.xml"), "w") as out:
    out.write('<testsuites><testsuite name="check" tests="1" failures="1"><testcase classname="check" name="answer" time="0.01">'
              '<failure message="41 is not 42">41 is not 42</failure></testcase></testsuite></testsuites>')
sys.exit(1)
"""

PREPARE = """import argparse, pathlib
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("1\\n" * given.rows)
    print("prepared", given.rows)
"""

LEARN = """import argparse, json, pathlib
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("data", "model", "metrics"):
        parser.add_argument("--" + name, type=pathlib.Path)
    parser.add_argument("--rate", type=float)
    given = parser.parse_args()
    if given.rate > 1:
        raise SystemExit("the rate is above 1: nothing can be learned")
    rows = len(given.data.read_text().splitlines())
    given.model.parent.mkdir(parents=True, exist_ok=True)
    given.model.write_text(json.dumps({"rows": rows}))
    given.metrics.parent.mkdir(parents=True, exist_ok=True)
    given.metrics.write_text(json.dumps({"auc": given.rate}))
    print("learned from", rows)
"""

SERVE = """import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"} if self.path == "/healthz" else {"path": self.path})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"twice": 2 * body["x"]})
    def answer(self, document):
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""

SERVICE = """name: answer
port: 8080
cpu: 256
memory: 256
count: 1
health: {path: /healthz, interval: 1s, timeout: 2s, retries: 3, start: 30s}
"""

STEP = """name: {name}
implementation:
  container:
    image: component.invalid/{name}:unstamped
    command: [python3, /app/main.py]
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command did: exit code, the JSON document of stdout (None without ``--json``), and what people saw."""

    code: int
    document: Any
    told: str

    def statuses(self, stage: str) -> dict[str, str]:
        """Return the status of every result of a stage by name."""
        return {result["name"]: result["status"] for result in self.document["results"] if result["stage"] == stage}

    def causes(self, stage: str) -> dict[str, str]:
        """Return the cause of every result of a stage by name."""
        return {result["name"]: result["cause"] for result in self.document["results"] if result["stage"] == stage}

    def result(self, stage: str, name: str) -> dict[str, Any]:
        """Return one result."""
        found = [result for result in self.document["results"] if (result["stage"], result["name"]) == (stage, name)]
        assert found, f"no result of {stage} {name} in {self.document}\n{self.told}"
        return dict(found[0])


class Sample:
    """The project in a folder; ``engine`` is the address of the container engine."""

    def __init__(self, root: Path, engine: str, *, base: str = BASE_IMAGE) -> None:
        self.root, self.engine, self.base = root, engine, base
        self.environment: dict[str, str] = {}
        self._commands: set[str] = set()
        for path, text in _files().items():
            self.write(path, text.replace(BASE_IMAGE, base))

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def append(self, path: str, text: str) -> None:
        """Add to a file of the project."""
        self.write(path, (self.root / path).read_text() + text)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_"))}
        own = {"DOCKER_HOST": self.engine, "CI": "true", "TRAINSHED_SLOTS": str(self.root / ".trainshed" / "slots")}
        return {**kept, **own, **self.environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        child = subprocess.Popen(
            [sys.executable, "-m", "trainshed", *arguments],
            cwd=self.root,
            env=self._environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._commands.add(str(child.pid))
        return child

    def run(self, *arguments: str, as_json: bool = True) -> Done:
        """Run a command to its end."""
        child = self.start(*(["--json"] if as_json else []), *arguments)
        try:
            out, told = child.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, told = child.communicate()
            raise AssertionError(f"trainshed {' '.join(arguments)} did not end; it said:\n{told}\n{out}") from None
        return Done(code=child.returncode, document=json.loads(out) if as_json and out.strip() else None, told=told)

    def green(self, *arguments: str) -> Done:
        """Run a command that must succeed."""
        done = self.run(*arguments)
        assert done.code == 0, done.told + json.dumps(done.document, indent=1)
        return done

    def down(self) -> None:
        """Stop the embedded services."""
        self.run("local", "down", as_json=False)

    @property
    def lock(self) -> Path:
        """Return where the lock is."""
        return self.root / "build" / "images.lock.json"

    def locked(self) -> dict[str, str]:
        """Return component → digest of the lock."""
        return {name: image["digest"] for name, image in json.loads(self.lock.read_text())["images"].items()}

    def versions(self) -> int:
        """Return how many uploads the ledger knows."""
        import sqlite3

        with sqlite3.connect(self.root / ".trainshed" / "ledger.sqlite") as ledger:
            return int(ledger.execute("SELECT count(*) FROM events WHERE kind = 'upload'").fetchone()[0])

    def leftovers(self) -> dict[str, list[str]]:
        """Return what no command may leave: its processes, containers of dead owners, half-written files."""
        files = [str(path.relative_to(self.root)) for path in self.root.rglob(".trainshed-partial-*")]
        return {"processes": processes_in(self.root), "containers": self.orphans(), "files": files}

    def orphans(self) -> list[str]:
        """Return this project's containers whose owner is dead."""
        return [container for container, mark in self.containers() if owner.alive(mark) is False]

    def containers(self, *options: str) -> list[tuple[str, str]]:
        """Return the containers that this project's commands and runs own, with the owner's mark: the engine has those of others too."""
        shown = '{{.ID}} {{.Label "io.trainshed.owner"}}'
        lines = docker(self.engine, "ps", "-a", "--filter", "label=io.trainshed.owner", "--format", shown, *options).splitlines()
        runs = {file.read_text().strip() for file in (self.root / ".trainshed" / "kubeflow" / "runs").glob("*/owner")}
        marked = [(container, mark) for container, _, mark in (line.partition(" ") for line in lines)]
        return [(container, mark) for container, mark in marked if mark in runs or mark.split(":")[1] in self._commands]


def docker(engine: str, *arguments: str) -> str:
    """Run the engine's client."""
    return subprocess.run(
        [shutil.which("docker", path="/usr/bin") or "docker", "-H", engine, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def processes_in(root: Path) -> list[str]:
    """Return the living processes whose folder or arguments lie in the project, the embedded services left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            inside = str(root) in words or (entry / "cwd").readlink().is_relative_to(root)
        except OSError:
            continue
        if inside and words and not re.search(r"docker-registry|trainshed\.local|dockerd|containerd", words):
            found.append(f"{entry.name} {words}")
    return found


def until(condition: Any, what: str, seconds: float = 120.0) -> None:
    """Wait for a condition; fail with ``what`` when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def _files() -> Mapping[str, str]:
    files = {
        "trainshed.toml": CONFIGURATION,
        "waivers.toml": "",
        "pipeline_templates/sample_flow.yaml": (DATA / "sample_flow.yaml").read_text(),
        "components/base/Dockerfile": BASE,
        "components/base/base.txt": "ground\n",
        "components/answer/service.yaml": SERVICE,
    }
    for name, program in (("prepare", PREPARE), ("learn", LEARN), ("answer", SERVE)):
        files[f"components/{name}/Dockerfile"] = CHILD
        files[f"components/{name}/src/main.py"] = program
        files[f"components/{name}/tests/check.py"] = CHECK
        if name != "answer":
            files[f"components/{name}/component.yaml"] = STEP.format(name=name)
    return files
