"""Two accounts and a green main build: real registries and git, a strict Kubeflow, a scripted ECS; no engine.

`world` makes them, with release 0.1.0 in production and two more commits built green; `World.restore` brings all of it back to that
moment. `World.release` runs the real command in a process of its own, which can be killed at any point.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.green_build import debian, opened
from tests.support.kubeflow import specification, step, text
from tests.support.kubeflow_server.server import StrictServer
from tests.support.oci import MANIFEST, Store
from tests.support.registry import running_registry
from tests.support.repositories import Repository
from tests.support.scripted_ecs import ScriptedEcs, complete, end, scripted, trip
from trainshed.settings import Tier
from trainshed.stages import lookup
from trainshed.stages.compile import compile_templates
from trainshed.stages.context import Context
from trainshed.stages.images import images
from trainshed.stages.releasing import journal
from trainshed.stages.survey import survey
from trainshed.tools.copying import INDEX

ROOT = Path(__file__).parents[2]
_REGISTRY = "target/data"
_PLACES = ("project", "remote.git", _REGISTRY)
COMPONENTS, PIPELINE, STEP, SERVICE = ("answer", "base", "train"), "training", "train", "answer"
BUILD = {"BUILD_URL": "https://jenkins.example.org/job/small/job/main/7/", "BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"}
_CONFIGURATION = """[project]
name = "small"

[scan]
scanners = ["secret"]

[release]
environment = "prod"

[environments.dev]
registry = {{ url = "{source}/dev", insecure = true }}

[environments.prod]
registry = {{ url = "{target}/prod", insecure = true }}
kubeflow.host = "{kubeflow}"
trust = "main"
"""
_SERVICE = """name: answer
port: 8080
count: 1
health: {path: /healthz, interval: 5s, timeout: 2s, retries: 3, start: 30s}
"""
_SCHEDULES = '[schedules.nightly]\nenvironments = ["prod"]\ncron = "0 0 3 * * *"\n'


class _Always(list[Any]):
    """Steps of a script that never end: whatever was begun comes to its end at the next look."""

    def __init__(self, step: Any, *first: Any) -> None:
        super().__init__([*first, step])

    def pop(self, _index: Any = -1) -> Any:
        return super().pop(0) if len(self) > 1 else self[0]


def _settle(ecs: ScriptedEcs) -> None:
    assert ecs.service is not None
    (end if ecs.service["status"] == "DRAINING" else complete)(ecs)


@dataclass
class Ended:
    """How a command ended: ``code`` is negative for a signal; ``said`` is all that it printed."""

    code: int
    said: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the document that ``--json`` printed after everything else."""
        found: dict[str, Any] = json.loads(self.said[self.said.index("\n{\n") if "\n{\n" in self.said else 0 :])
        return found


@dataclass
class World:
    """The whole of it, below one folder."""

    folder: Path
    source: str
    target: str
    ecs: ScriptedEcs
    kubeflow: StrictServer
    child: subprocess.Popen[str]
    beside: subprocess.Popen[str]
    saved: dict[str, Any] = field(default_factory=dict)
    second: str = ""
    third: str = ""

    @property
    def root(self) -> Path:
        """Return the workspace."""
        return self.folder / "now" / "project"

    @property
    def sides(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return the two registries, each with the path that images have there."""
        return (self.source, "dev"), (self.target, "prod")

    @property
    def git(self) -> Repository:
        """Return the repository of the workspace."""
        return Repository(self.root)

    @property
    def remote(self) -> Repository:
        """Return where it is published."""
        return Repository(self.folder / "now" / "remote.git")

    # --- making it ------------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the two builds and the first release, and keep this moment."""
        address = self.source
        Store(address, "bases/small").image(b"a layer", tag="1")
        repository = Repository.new(self.root)
        repository.write("trainshed.toml", _CONFIGURATION.format(source=self.source, target=self.target, kubeflow=self.kubeflow.address))
        repository.write(".gitignore", "build/\n.trainshed/\n")
        repository.write("components/base/Dockerfile", f"FROM {address}/bases/small:1\nUSER 1000\n")
        for name in ("train", "answer"):
            repository.write(
                f"components/{name}/Dockerfile", f"ARG BASE=127.0.0.1:5000/small/base:latest\nFROM ${{BASE}}\nCOPY {name}.py /\n"
            )
            repository.write(f"components/{name}/{name}.py", "print('one')\n")
        repository.write("components/answer/.dockerignore", "service.yaml\n")
        repository.write("components/answer/service.yaml", _SERVICE)
        task = step("print('trained')", image="component.invalid/train:unstamped")
        repository.write(f"pipeline_templates/{PIPELINE}.yaml", text(specification(PIPELINE, {"train": task})))
        repository.write(f"pipeline_templates/{PIPELINE}.toml", _SCHEDULES)
        repository.git("init", "--quiet", "--bare", str(self.remote.root))
        repository.git("remote", "add", "origin", str(self.remote.root))
        repository.git("config", "user.name", "t")
        repository.git("config", "user.email", "t@example.org")
        self.ecs.steps = _Always(_settle)
        self.green("feat: the first of it")
        first = self.release()
        assert first.code == 0, first.said
        commits = []
        for number, subject in ((2, "feat: better answers"), (3, "fix: an answer")):
            self.change("answer", f"number {number}")
            self.change("train", f"number {number}")
            commits.append(self.green(subject))
        self.second, self.third = commits
        self.checkout(self.second)
        self.keep()
        second = self.release()  # what kfp accepted is known from now on: it is slow to ask
        assert second.code == 0, second.said
        shutil.copytree(self.root / ".trainshed/pipelines", self.folder / "kept/project/.trainshed/pipelines", dirs_exist_ok=True)
        self.restore()

    def change(self, name: str, marker: str) -> None:
        """Change a component."""
        self.git.write(f"components/{name}/{name}.py", f"print('{marker}')\n")

    def green(self, subject: str) -> str:
        """Commit all there is, publish it, and have it built green by main; return the commit."""
        self.git.git("add", "--all")
        self.git.git("commit", "--quiet", "--allow-empty", "--message", subject)
        self.git.git("push", "--quiet", "origin", "main")
        with self.context() as context:
            taken, own = survey(context), dict[str, str]()
            for name in taken.selected:
                inputs = taken.inputs(name, own).digest
                store = Store(self.source, f"dev/small/{name}")
                own[name] = debian(store, (), f"{name} {inputs}", tag=lookup.own_tag(context, inputs))
                _signed(store, own[name])
            report = images(context)
            assert report.status == "green", context.console.stream.getvalue()  # type: ignore[attr-defined]
            compile_templates(context)
        return self.git.git("rev-parse", "HEAD")

    def keep(self, moment: str = "kept") -> None:
        """Keep this moment; `restore` comes back to it."""
        for place in _PLACES:
            shutil.rmtree(self.folder / moment / place, ignore_errors=True)
            shutil.copytree(self.folder / "now" / place, self.folder / moment / place, symlinks=True)
        self.saved[moment] = (copy.deepcopy({**self.ecs.__dict__, "steps": []}), self.kubeflow.kept())

    def restore(self, moment: str = "kept") -> None:
        """Bring all back to a moment that was kept; what a test left running ends."""
        if kill_children(self.beside):
            self._ended(self.beside)
        for place in _PLACES:
            shutil.rmtree(self.folder / "now" / place)
            shutil.copytree(self.folder / moment / place, self.folder / "now" / place, symlinks=True)
        ecs, kubeflow = self.saved[moment]
        self.ecs.__dict__.update({**copy.deepcopy(ecs), "steps": _Always(_settle)})
        self.kubeflow.back_to(kubeflow)

    def checkout(self, commit: str) -> None:
        """Check out a commit as another build of main does: in a workspace that has nothing of it."""
        self.git.git("checkout", "--quiet", commit)
        shutil.rmtree(self.root / "build", ignore_errors=True)

    # --- using it -------------------------------------------------------------------------------------------------------------

    @contextmanager
    def context(self, environment: str = "dev", tier: Tier = Tier.MAIN) -> Iterator[Context]:
        """Open a command's room in this process; what it says is in ``context.console.stream``."""
        with opened(self.root, environment, tier) as context:
            yield context

    def release(self, *words: str, kill: str = "") -> Ended:
        """Run ``trainshed release`` in a process of its own; ``kill`` says where it is killed (see `release_child`)."""
        return self.command("release", *words, kill=kill)

    def command(self, *words: str, kill: str = "") -> Ended:
        """Run a command of a main build in a process of its own."""
        return self._ended(self._asked(self.child, "said", kill, *words))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command beside the others; return the process that forked it, for `ended`."""
        return self._asked(self.beside, "beside", "", *words)

    def ended(self, child: subprocess.Popen[str]) -> Ended:
        """Wait for the end of what was begun."""
        return self._ended(child)

    def goes_on(self) -> None:
        """Let every rollout come to a good end."""
        self.ecs.steps = _Always(_settle)

    def fails(self) -> None:
        """Let the next rollout fail, and those after it come to a good end."""
        self.ecs.steps = _Always(_settle, trip)

    def _asked(self, child: subprocess.Popen[str], out: str, kill: str, *words: str) -> subprocess.Popen[str]:
        asked = {"words": ["--env", "dev", *words], "environment": BUILD, "folder": str(self.root), "out": str(self.folder / out)}
        assert child.stdin is not None
        child.stdin.write(json.dumps({**asked, "ecs": self.ecs.url, "kill": kill}) + "\n")
        child.stdin.flush()
        return child

    def _ended(self, child: subprocess.Popen[str]) -> Ended:
        assert child.stdout is not None
        code = child.stdout.readline()
        assert code, "the process that forks them has ended"
        return Ended(code=int(code), said=(self.folder / ("said" if child is self.child else "beside")).read_text())

    # --- looking at it --------------------------------------------------------------------------------------------------------

    def production(self) -> dict[str, Any]:
        """Return what is in production, and what git and the ledger say of it; equal when nothing has changed."""
        with self.context("prod") as context:
            digests = {name: self.digests(name) for name in COMPONENTS}
            newest = journal.newest(context)
        return {
            "images": digests,
            "versions": self.versions(),
            "serves": self.serves(),
            "tags": self.remote.git("tag", "--list").split(),
            "release": None if newest is None else (newest.plan.name, newest.state),
        }

    def digests(self, name: str) -> set[str]:
        """Return the digests of the images that production's registry has of a component."""
        links = (self.folder / "now" / _REGISTRY).glob(f"docker/registry/v2/repositories/prod/small/{name}/_manifests/revisions/sha256/*")
        return {f"sha256:{link.name}" for link in links}

    def versions(self) -> dict[str, str]:
        """Return production's pipeline versions and the image that each runs."""
        with self.context("prod") as context:
            found = context.kubeflow.pipeline_by_name(PIPELINE)
            versions = (
                [] if found is None else [context.kubeflow.version(found.id, each.id) for each in context.kubeflow.versions(found.id)]
            )
        return {each.name: _image(each.spec).partition("@")[2] for each in versions}

    def scheduled(self) -> list[str]:
        """Return the names of the versions that production's enabled recurring runs run."""
        with self.context("prod") as context:
            versions = {each.id: each.name for each in context.kubeflow.versions(_pipeline_id(context))}
            return [versions[each.version_id] for each in context.kubeflow.recurring_runs() if each.enabled]

    def serves(self) -> tuple[str, str] | None:
        """Return the revision that serves in production, and its image's digest; None for no service."""
        service = self.ecs.service
        if service is None or service["status"] != "ACTIVE":
            return None
        revision = service["taskDefinition"]
        return revision.rpartition("/")[2], self.ecs.definitions[revision]["containerDefinitions"][0]["image"].partition("@")[2]

    def locked(self, commit: str = "") -> dict[str, str]:
        """Return the digests of a commit's green build; of the second by default."""
        with self.context() as context:
            (document,) = context.ledger.locks(least=Tier.MAIN, commit=commit or self.second)
        return {name: image["digest"] for name, image in document["images"].items()}


def _pipeline_id(context: Context) -> str:
    found = context.kubeflow.pipeline_by_name(PIPELINE)
    assert found is not None
    return found.id


def _signed(store: Store, digest: str) -> None:
    """Attach something to an image, as clients do where a registry keeps no list of what refers to what: by a tag."""
    described = store.image(f"what is in {digest}".encode(), subject={"mediaType": MANIFEST, "digest": digest, "size": 1})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**described, "artifactType": "application/spdx+json"}]}
    store.manifest(index, tag=digest.replace(":", "-"))


def _image(spec: Any) -> str:
    executors = (spec.get("pipeline_spec") or spec)["deploymentSpec"]["executors"]
    (executor,) = executors.values()
    return str(executor["container"]["image"])


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Yield a world: built, with 0.1.0 in production, and its second commit, which is green, checked out; so is the third."""
    now, server = folder / "now", StrictServer()
    with (
        _forking() as child,
        _forking() as beside,
        running_registry(now / "source") as source,
        running_registry(now / "target") as target,
        scripted() as ecs,
        server.serve(),
    ):
        made = World(folder=folder, source=source, target=target, ecs=ecs, kubeflow=server, child=child, beside=beside)
        made.build()
        yield made


@contextmanager
def _forking() -> Iterator[subprocess.Popen[str]]:
    """Yield a process that forks commands; see `release_child`."""
    command = [sys.executable, "-m", "tests.support.release_child"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        try:
            yield child
        finally:
            kill_children(child)
            child.stdin.close()


def children(child: subprocess.Popen[str]) -> list[int]:
    """Return the commands that a forking process has running."""
    return [int(each) for each in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]


def kill_children(child: subprocess.Popen[str]) -> bool:
    """End what a test left running; tell whether there was something."""
    found = children(child)
    for each in found:
        os.kill(each, signal.SIGKILL)
    return bool(found)
