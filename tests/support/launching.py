"""A Kubeflow that answers from memory, and a project to launch from: what `launch` asks and keeps, without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tests.support.kubeflow import specification, step
from tests.support.kubeflow_project import RATE, FlowProject, told
from trainshed.errors import RemoteError, TrainshedError
from trainshed.ledger.store import Ledger
from trainshed.results import Report, Result
from trainshed.settings import Tier
from trainshed.stages import launch as launching
from trainshed.stages.launch import launch
from trainshed.stages.references import Reference, References
from trainshed.tools import git
from trainshed.tools.kubeflow_records import Artifact, NotFound, Run, Task, Version

SPEC = specification("training", {"train": step("pass", outputs={})}, RATE)
VERSION = Version(id="v1", pipeline_id="p1", name="main-1a2b3c4d-5e6f7a8b", spec=SPEC)


def trained(auc: float, *, cached: bool = False) -> Task:
    """Return a task that trained a model so well."""
    times: dict[str, Any] = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:07Z"}
    model = Artifact(name="model", uri="s3://models/1", type="system.Model", metadata={"rows": 3})
    outputs: dict[str, Any] = {"parameters": {"auc": auc}, "artifacts": {"model": model}}
    return Task(id="t", name="train", state="SUCCEEDED", cached=cached, **times, **outputs)


@dataclass
class FakeKubeflow:
    """The part of the client that launch uses. ``ends`` is the state of a run as soon as it is looked at, with ``tasks``."""

    ends: str = "SUCCEEDED"
    tasks: tuple[Task, ...] = ()
    unread: TrainshedError | None = None
    not_ready: TrainshedError | None = None
    known: dict[str, Run] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def require_ready(self, *, sdk: str = "") -> list[str]:
        """Answer, or not."""
        self.asked.append(f"ready {sdk}".strip())
        if self.not_ready is not None:
            raise self.not_ready
        return [f"older than {sdk}"] if sdk else []

    def experiment(self, name: str) -> str:
        """Return an id that tells the name."""
        self.asked.append(f"experiment {name}")
        return f"id of {name}"

    def version(self, pipeline_id: str, version_id: str) -> Version:
        """Return the one version."""
        if (pipeline_id, version_id) != (VERSION.pipeline_id, VERSION.id):
            raise NotFound(f"version {version_id}: not found")
        return VERSION

    def create_run(self, version: Version, parameters: Mapping[str, Any], **given: Any) -> Run:
        """Start a run."""
        self.created.append({"version": version, "parameters": dict(parameters), **given})
        inline = given["specification"] is not None
        reference: dict[str, Any] = {} if inline else {"pipeline_id": version.pipeline_id, "version_id": version.id}
        told: dict[str, Any] = {"name": given["name"], "description": given["description"], "parameters": dict(parameters)}
        told["created"] = f"2026-01-01T00:00:{len(self.known):02d}Z"
        run = Run(id=f"run-{len(self.known) + 1}", state="PENDING", **reference, **told)
        self.known[run.id] = run
        return run

    def runs(self, *, name: str) -> Iterator[Run]:
        """Yield the runs of a name."""
        return (self.run(run.id) for run in list(self.known.values()) if run.name == name)

    def run(self, run_id: str, *, surely: bool = False) -> Run:
        """Return a run, which has come to its end."""
        del surely
        if run_id not in self.known:
            raise NotFound(f"run {run_id}: not found")
        return replace(self.known[run_id], state=self.ends, tasks=tuple(replace(task, parameters={}, artifacts={}) for task in self.tasks))

    def with_outputs(self, run: Run) -> Run:
        """Return what the tasks gave, unless the store is away."""
        if self.unread is not None:
            raise self.unread
        return replace(run, tasks=self.tasks)

    def task_log(self, *_: str) -> None:
        """Have no logs."""

    def terminate(self, run_id: str) -> None:
        """Keep that it was asked for."""
        self.asked.append(f"terminate {run_id}")

    def link(self, run_id: str) -> str:
        """Return where people look."""
        return f"https://kubeflow.example.org/#/runs/details/{run_id}"


class _WithoutGit(FlowProject):
    """A project in no repository: starting git takes longer than launching."""

    def git(self, *arguments: str) -> None:
        """Do nothing."""


class Lab:
    """A project with one pipeline, whose version is found without asking, and its Kubeflow."""

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.flows, self.kubeflow = _WithoutGit(root, "http://127.0.0.1:9"), FakeKubeflow()
        found = Reference(version=VERSION, source="version of a test", commit="c" * 40, build_url="https://ci.example.org/job/7/")
        monkeypatch.setattr(launching, "References", lambda *_, **__: cast(References, _Known(found)))
        monkeypatch.setattr(git, "head", lambda _: git.Head(commit="c" * 40, branch="main", dirty=False))
        self.said = ""
        self.forget()

    def settings(self, text: str, name: str = "training") -> None:
        """Write the settings of the pipeline."""
        (self.flows.root / "pipeline_templates" / f"{name}.toml").write_text(text)

    def config(self, text: str) -> None:
        """Add to the configuration."""
        file = self.flows.root / "trainshed.toml"
        file.write_text(file.read_text() + text)

    def report(self, tier: Tier = Tier.LAPTOP, **options: Any) -> Report:
        """Launch; what people saw is in ``said``."""
        with self.flows.open(tier) as context:
            context.__dict__["kubeflow"] = self.kubeflow
            try:
                return launch(context, (), **options)
            finally:
                self.said = told(context)

    def launch(self, tier: Tier = Tier.LAPTOP, **options: Any) -> Result:
        """Launch, and return the one result."""
        (result,) = self.report(tier, **options).results
        return result

    def records(self, tier: Tier = Tier.LAPTOP) -> list[Mapping[str, Any]]:
        """Return the records of runs, the newest first."""
        with self.flows.open(tier) as context:
            events = context.ledger.events("run", "local", "training")
        return [event.document for event in events if event.document["state"] != "ASKED"]

    def record_upload(self, tier: Tier) -> None:
        """Have somebody of a tier upload the version."""
        with self.flows.open(tier) as context:
            context.ledger.record_event("upload", "local", "training", "k", {"version_id": VERSION.id})

    def forget(self) -> None:
        """Have a ledger with nothing in it."""
        folder = self.flows.root / ".trainshed"
        folder.mkdir(exist_ok=True)
        for file in folder.glob("ledger.sqlite*"):
            file.unlink()
        (folder / "ledger.sqlite").write_bytes(_empty_ledger())


@cache
def _empty_ledger() -> bytes:
    """Make a ledger once: its migrations take longer than most tests here."""
    with TemporaryDirectory() as folder:
        Ledger.open(f"sqlite:///{folder}/ledger.sqlite", tier=Tier.LAPTOP).close()
        return Path(folder, "ledger.sqlite").read_bytes()


@dataclass
class _Known:
    found: Reference

    def check_ahead(self, names: Iterable[str]) -> None:
        assert list(names) == ["training"]

    def reference(self, name: str) -> Reference:
        if name != "training":
            raise RemoteError(f"{name} is not known")
        return self.found
