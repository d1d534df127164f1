"""Runs a Jenkinsfile on real Groovy: the pipeline steps are `tests/support/jenkins`, `sh` is the shell's own.

Nothing here is Jenkins: what its steps, its declarative parser and its agents promise is written again, as strictly as they are,
so that a file that would fail there fails here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "jenkins"
PATIENCE_SECONDS = 900.0
URL = "http://jenkins.invalid/job"
MAIN: Mapping[str, str] = {"BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"}
PULL_REQUEST: Mapping[str, str] = {
    "BRANCH_NAME": "PR-7",
    "CHANGE_ID": "7",
    "CHANGE_TARGET": "main",
    "CHANGE_BRANCH": "better",
    "CHANGE_URL": "http://git.invalid/7",
}
FORK: Mapping[str, str] = {**PULL_REQUEST, "CHANGE_FORK": "stranger/sample"}
PUSH = {"_class": "jenkins.branch.BranchEventCause", "shortDescription": "Push event"}
TIMER = {"_class": "hudson.triggers.TimerTrigger$TimerTriggerCause", "shortDescription": "Started by timer"}
_GROOVY_RUNS_ON = (17, 11, 21, 8)
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"


@dataclass(frozen=True)
class Events:
    """What a build did, in order."""

    all: tuple[Mapping[str, Any], ...]
    home: Path

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the events of one kind."""
        return [event for event in self.all if event["kind"] == kind]

    def one(self, kind: str) -> Mapping[str, Any]:
        """Return the only event of a kind."""
        found = self.of(kind)
        assert len(found) == 1, f"{len(found)} events of the kind {kind}\n{self}"
        return found[0]

    @property
    def result(self) -> str:
        """Return the result of the build."""
        return str(self.one("end")["result"])

    @property
    def description(self) -> str | None:
        """Return what the script set as the build's description."""
        return None if self.one("end")["description"] is None else str(self.one("end")["description"])

    @property
    def errors(self) -> list[str]:
        """Return why the file was not taken, or with what the script failed."""
        return [error for event in self.of("refused") for error in event["errors"]] + [str(event["error"]) for event in self.of("failed")]

    @property
    def stages(self) -> dict[str, str]:
        """Return the results of the declared stages by name: SUCCESS, SKIPPED (by its condition), FAILURE, ABORTED, or `not reached`."""
        ended = {event["name"]: event["result"] for event in self.of("stage end")}
        skipped = {event["name"]: "not reached" for event in self.of("stage skipped")}
        return {name: result for name, result in {**ended, **skipped}.items() if not name.startswith("Declarative: ")}

    @property
    def branches(self) -> dict[str, str]:
        """Return the results of the parallel branches by name."""
        return {event["name"]: event["result"] for event in self.of("branch end")}

    def shell(self, label: str) -> list[Mapping[str, Any]]:
        """Return the ended `sh` steps of a label."""
        return [event for event in self.of("sh end") if event["label"] == label]

    @property
    def labels(self) -> list[str]:
        """Return the labels of all `sh` steps in the order of their beginning."""
        return [event["label"] for event in self.of("sh")]

    @property
    def bound(self) -> set[str]:
        """Return the ids of all credentials that were bound."""
        return {event["id"] for event in self.of("bind")}

    @property
    def archived(self) -> set[str]:
        """Return the paths of all archived files."""
        return {file for event in self.of("archive") for file in event["files"]}

    @property
    def archive(self) -> Path:
        """Return the folder of the archived files."""
        return self.home / "archive"

    @property
    def console(self) -> str:
        """Return the build's log."""
        return (self.home / "console.txt").read_text()

    @property
    def left_running(self) -> list[str]:
        """Return the command lines of what Jenkins had to end after the build."""
        return [process["command"] for event in self.of("node end") for process in event["left_running"]]

    def __str__(self) -> str:
        """Return all that a person needs who looks for the cause."""
        return "\n".join([*(json.dumps(event) for event in self.all), self.console if (self.home / "console.txt").exists() else ""])


@dataclass
class Controller:
    """A controller with agents, credentials and one job; builds are numbered as they come.

    ``environment`` is that of the agents' processes; ``files`` are on every agent before a workspace is first used.
    """

    home: Path
    classes: Path
    repository: Path
    environment: Mapping[str, str]
    agents: Sequence[Mapping[str, Any]] = ({"name": "built-in", "labels": [], "executors": 2},)
    credentials: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    libraries: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    job: str = "team/sample/main"
    builds: int = 0

    def workspace(self, agent: str = "built-in") -> Path:
        """Return the job's workspace on an agent."""
        return self.home / "agents" / agent / "workspace" / self._folder

    @property
    def _folder(self) -> str:
        return re.sub(r"[^A-Za-z0-9.-]", "_", self.job)

    def build(
        self,
        branch: Mapping[str, str],
        *,
        commit: str = "HEAD",
        jenkinsfile: Path | None = None,
        parameters: Mapping[str, object] | None = None,
        cause: Mapping[str, str] = PUSH,
        **scenario: object,
    ) -> Events:
        """Build a commit and return what happened. Further keys: `Main.groovy` and `Build.groovy` read them."""
        self.builds += 1
        home = self.home / "builds" / self._folder / str(self.builds)
        home.mkdir(parents=True)
        sha = git(self.repository, "rev-parse", commit)
        number = str(self.builds)
        file = jenkinsfile or home / "Jenkinsfile"
        if jenkinsfile is None:
            file.write_text(git(self.repository, "show", f"{sha}:Jenkinsfile") + "\n")
        document = {
            "jenkinsfile": str(file),
            "home": str(home),
            "agents_home": str(self.home / "agents"),
            "agents": [{**agent, "environment": {**self.environment, **agent.get("environment", {})}} for agent in self.agents],
            "environment": {
                "JENKINS_URL": "http://jenkins.invalid/",
                "JOB_NAME": self.job,
                "BUILD_NUMBER": number,
                "BUILD_ID": number,
                "BUILD_TAG": f"jenkins-sample-{number}",
                "BUILD_URL": f"{URL}/{self.job.replace('/', '/job/')}/{number}/",
                "CI": "true",
                **branch,
            },
            "scm": {"repository": str(self.repository), "commit": sha},
            "credentials": self.credentials,
            "libraries": {name: str(path) for name, path in self.libraries.items()},
            "workspace_files": self.files,
            "parameters": dict(parameters or {}),
            "causes": [cause],
            "missing_plugins": [],
            "first_build": False,
            "grace": 60,
            **scenario,
        }
        (home / "scenario.json").write_text(json.dumps(document))
        try:
            _run(self.classes, "run", home / "scenario.json", home / "events.jsonl")
        except BaseException:
            _end(f"WORKSPACE={self.home / 'agents'}")
            raise
        return Events(tuple(_read(home / "events.jsonl")), home)


def compiled(folder: Path) -> Path:
    """Compile the steps into a folder and return it; Groovy and a Java are installed where they are missing."""
    if not (shutil.which("groovyc") and shutil.which("java")):
        subprocess.run([ROOT / "scripts" / "_packages", "groovy", "default-jre-headless"], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    _finished(["groovyc", "-d", str(folder), *map(str, sorted(SOURCES.glob("*.groovy")))])
    return folder


def uses(classes: Path, folder: Path, *files: Path) -> list[Mapping[str, Any]]:
    """Return what files use of Groovy and Java, and what the declarative parser has against them (kind ``error``)."""
    _run(classes, "uses", folder / "uses.jsonl", *files)
    return list(_read(folder / "uses.jsonl"))


def git(repository: Path, *arguments: str) -> str:
    """Run git and return what it says."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *who, *arguments], cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


def java_home() -> str:
    """Return the folder of a Java that Groovy 2.4 runs on; Debian's launcher looks only where another package would put a link."""
    found = {_release(file): file.parent for file in Path("/usr/lib/jvm").glob("*/release")}
    named = os.environ.get("JAVA_HOME")
    if named and (Path(named) / "bin" / "java").exists() and _release(Path(named) / "release") in _GROOVY_RUNS_ON:
        return named
    for version in (*_GROOVY_RUNS_ON, *sorted(found)):
        if version in found and (found[version] / "bin" / "java").exists():
            return str(found[version])
    java = shutil.which("java")
    assert java, "Java is missing: install default-jre-headless"
    return str(Path(java).resolve().parents[1])


def _release(file: Path) -> int:
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', file.read_text() if file.exists() else "")
    return int(match[1]) if match else 0


def _run(classes: Path, *arguments: object) -> None:
    _finished(["groovy", "-cp", str(classes), "-e", "Main.main(args)", *map(str, arguments)])


def _finished(command: Sequence[str]) -> None:
    environment = {**os.environ, "JAVA_HOME": java_home(), "JAVA_OPTS": _QUICK}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said, _ = child.communicate(timeout=PATIENCE_SECONDS)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    assert child.returncode == 0, f"{command} ended with {child.returncode}:\n{said[-5000:]}"


def _end(entry: str) -> None:
    """End the processes whose environment has an entry that begins so: steps of a build that did not come to its end."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"\0{entry}".encode() in b"\0" + environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _read(file: Path) -> Iterator[Mapping[str, Any]]:
    return (json.loads(line) for line in file.read_text().splitlines())
