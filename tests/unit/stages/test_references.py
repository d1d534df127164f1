"""Which version a launch takes: CI's for this commit, else for this branch; the tree's own where it is asked for or built."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainshed.console import Console
from trainshed.errors import RemoteError, UsageError
from trainshed.ledger.records import Event
from trainshed.reports import manifest
from trainshed.settings import Tier
from trainshed.stages import locking, upload
from trainshed.stages import references as module
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding
from trainshed.stages.jenkins.finding import Green
from trainshed.stages.references import References
from trainshed.tools import git
from trainshed.tools.kubeflow_records import NotFound, Pipeline, Version

HERE, BEFORE = "a" * 40, "b" * 40


@dataclass
class World:
    """What the ledger, Jenkins, Kubeflow and the tree say."""

    events: list[Event] = field(default_factory=list)
    greens: list[Green] = field(default_factory=list)
    manifests: dict[int, Any] = field(default_factory=dict)
    fetched: list[int] = field(default_factory=list)
    jenkins_away: bool = False
    stamped: Callable[[], Any] = lambda: pytest.fail("the tree was asked")
    uploaded: bool = True
    said: io.StringIO = field(default_factory=io.StringIO)

    def put(self, version: str, tier: Tier, *, commit: str = HERE, branch: str = "main", **more: Any) -> None:
        """Have somebody upload a version; the newest comes first."""
        document = {"version": version, "version_id": version, "pipeline_id": "p", "commit": commit, "branch": branch, **more}
        document.setdefault("build_url", f"https://ci.example.org/{version}/")
        event = Event(kind="upload", environment="dev", name="training", key="k", document=document, tier=tier, created=0.0)
        self.events.insert(0, event)

    def green(self, number: int, *, commit: str, version: str = "", environment: str = "dev") -> None:
        """Have Jenkins build something."""
        url = f"https://jenkins.example.org/job/x/{number}/"
        build = SimpleNamespace(number=number, url=url, commit=commit)
        self.greens.append(Green(build=cast(Any, build), of_commit=commit == HERE, told=f"build #{number}"))
        pipelines = {"training": {"pipeline_id": "p", "version_id": version, "version": version}} if version else {}
        facts = dict.fromkeys(("commit", "branch", "build_url", "plan_digest", "lock_digest"))
        made = manifest.manifest([], images={}, project="flows", environment=environment, **facts)
        self.manifests[number] = {**made, "pipelines": pipelines}

    def reference(
        self, *, host: str | None = "https://kubeflow.example.org", build_url: str | None = None, **options: Any
    ) -> module.Reference:
        """Ask as a command does."""
        config = SimpleNamespace(
            environment=SimpleNamespace(name="dev", kubeflow=SimpleNamespace(host=host)),
            project=SimpleNamespace(name="flows", root="."),
            jenkins=SimpleNamespace(url="https://jenkins.example.org"),
        )
        console = Console(self.said, live=False, color=False)
        ledger = SimpleNamespace(events=lambda kind, *_: [event for event in self.events if event.kind == kind])
        clients = {"kubeflow": self, "ledger": ledger, "jenkins": self}
        context = SimpleNamespace(config=config, console=console, has_ledger=True, build_url=build_url, **clients)
        return References(cast(Context, context), **options).reference("training")

    def version(self, _: str, version_id: str) -> Version:
        if version_id == "gone":
            raise NotFound("no such version")
        return Version(id=version_id, pipeline_id="p", name=version_id)

    def pipeline_by_name(self, name: str) -> Pipeline:
        return Pipeline(id="p", name=name)

    def artifact(self, build: Any, _: str) -> bytes:
        import json

        if self.jenkins_away:
            raise RemoteError("away")
        self.fetched.append(build.number)
        return json.dumps(self.manifests[build.number]).encode()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(git, "head", lambda _: git.Head(commit=HERE, branch="main", dirty=False))
    monkeypatch.setattr(finding, "greens", lambda *_, **__: made.greens)
    monkeypatch.setattr(locking, "current", lambda _: None)
    monkeypatch.setattr(upload, "read_stamped", lambda *_: made.stamped())
    monkeypatch.setattr(upload, "version_of", lambda *_: Version(id="own", pipeline_id="p", name="own") if made.uploaded else None)
    return made


def stamped() -> Any:
    return SimpleNamespace(name="training", pipeline="training", digest="sha256:1")


def stale() -> Any:
    raise UsageError("the lock is of another tree", next_step="Run `trainshed images`.")


def test_a_laptop_runs_what_ci_uploaded_though_it_has_uploaded_its_own(world: World) -> None:
    world.put("ci", Tier.PULL_REQUEST)
    world.put("mine", Tier.LAPTOP)
    found = world.reference()
    assert (found.version.name, found.commit, found.build_url) == ("ci", HERE, "https://ci.example.org/ci/")
    assert found.source == "version ci, uploaded for commit aaaaaaaa by https://ci.example.org/ci/"
    assert world.said.getvalue() == ""


def test_a_build_of_a_pull_request_counts_for_the_branch_that_it_merges(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "head", lambda _: git.Head(commit=HERE, branch="quicker", dirty=False))
    world.put("main", Tier.MAIN, commit=BEFORE)
    world.put("pr", Tier.PULL_REQUEST, commit=BEFORE, branch="PR-7", change_branch="quicker")
    world.put("fork", Tier.LAPTOP, commit=BEFORE, branch="PR-8", change_branch="quicker")
    assert world.reference().source == "version pr, uploaded for branch quicker by https://ci.example.org/pr/"


def test_a_version_that_an_undone_release_took_away_is_nobodys(world: World) -> None:
    world.put("old", Tier.MAIN)
    world.put("v1.4.0", Tier.MAIN)
    assert world.reference().version.name == "v1.4.0"
    gone = Event(kind=upload.DELETED, environment="dev", name="training", key="v1.4.0", document={}, tier=Tier.MAIN, created=0.0)
    world.events.insert(0, gone)
    assert world.reference().version.name == "old"


def test_what_a_build_uploaded_of_a_changed_tree_counts_for_no_commit(world: World) -> None:
    world.put("clean", Tier.MAIN)
    world.put("dirty", Tier.MAIN, dirty=True)
    assert world.reference().version.name == "clean"


def test_the_commit_comes_before_the_branch_and_the_ledger_before_jenkins(world: World) -> None:
    world.green(1, commit=BEFORE, version="branch-in-jenkins")
    assert world.reference().version.name == "branch-in-jenkins"
    world.put("branch-in-ledger", Tier.MAIN, commit=BEFORE)
    assert world.reference().version.name == "branch-in-ledger"
    world.green(2, commit=HERE, version="commit-in-jenkins")
    found = world.reference()
    assert (found.version.name, found.build_url) == ("commit-in-jenkins", "https://jenkins.example.org/job/x/2/")
    assert found.source.endswith("uploaded by build #2 (this commit), https://jenkins.example.org/job/x/2/")
    world.put("commit-in-ledger", Tier.MAIN)
    world.fetched.clear()
    assert world.reference().version.name == "commit-in-ledger"
    assert world.fetched == []


def test_a_build_of_another_environment_or_without_the_pipeline_is_passed_over(world: World) -> None:
    world.green(1, commit=HERE, version="prod", environment="prod")
    world.green(2, commit=HERE)
    world.green(3, commit=HERE, version="wanted")
    assert world.reference().version.name == "wanted"


def test_a_controller_that_is_away_is_an_error_before_anything_of_the_branch_is_taken(world: World) -> None:
    world.put("branch", Tier.MAIN, commit=BEFORE)
    world.green(1, commit=HERE, version="commit")
    world.jenkins_away = True
    with pytest.raises(RemoteError, match="Jenkins cannot be asked for the last green build: away"):
        world.reference()


def test_what_the_tree_has_beside_the_version_is_warned_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("ci", Tier.MAIN, commit=BEFORE)
    world.reference()
    assert "training: version ci is not of this tree: the tree is at commit aaaaaaaa, it is of commit bbbbbbbb; see --local" in (
        world.said.getvalue()
    )
    world.put("new", Tier.MAIN)
    monkeypatch.setattr(git, "head", lambda _: git.Head(commit=HERE, branch="main", dirty=True))
    world.reference()
    assert "version new is not of this tree: the tree has changes that are not committed; see --local" in world.said.getvalue()
    world.reference(local_images=None)
    assert world.said.getvalue().endswith("not committed\n")


def test_a_command_without_local_images_does_not_name_them(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        world.reference(local_images=None)
    assert caught.value.next_step == "Push, and let CI build and upload it."


def test_nothing_of_ci_says_both_ways_on(world: World) -> None:
    world.put("mine", Tier.LAPTOP)
    with pytest.raises(UsageError) as caught:
        world.reference()
    assert caught.value.message.startswith("training: CI uploaded nothing for this commit or branch to dev; Jenkins was asked too")
    assert "let CI build and upload it" in caught.value.next_step
    assert "--local-images" in caught.value.next_step


def test_a_version_that_is_gone_from_kubeflow_is_said(world: World) -> None:
    world.put("gone", Tier.MAIN)
    with pytest.raises(UsageError, match="version gone of training is no longer in Kubeflow"):
        world.reference()


@pytest.mark.parametrize("where", [{"build_url": "https://ci.example.org/9/"}, {"host": None}, {"local_images": True}])
def test_a_build_the_embedded_kubeflow_and_local_images_take_the_trees_own(world: World, where: Any) -> None:
    world.put("ci", Tier.MAIN)
    world.stamped = stamped
    found = world.reference(**where)
    assert (found.version.name, found.source) == ("own", "version own of this tree (its own images)")
    assert (found.commit, found.changed) == (HERE, False)
    world.uploaded = False
    with pytest.raises(UsageError, match="the stamped pipeline of this tree was not uploaded") as caught:
        world.reference(**where)
    assert caught.value.next_step == "Run `trainshed upload`."


def test_a_stale_lock_is_passed_over_in_a_build_and_an_error_where_the_trees_own_was_asked_for(world: World) -> None:
    world.put("ci", Tier.MAIN)
    world.stamped = stale
    assert world.reference(build_url="https://ci.example.org/9/").version.name == "ci"
    with pytest.raises(UsageError, match="the lock is of another tree") as caught:
        world.reference(local_images=True)
    assert caught.value.next_step == "Run `trainshed images`."
    world.events.clear()
    with pytest.raises(UsageError, match="the lock is of another tree; and CI uploaded nothing"):
        world.reference(build_url="https://ci.example.org/9/")
