"""When a lock is written, and which lock the ledger keeps for a commit."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import DIGEST, write
from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, UsageError
from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.images.hashes import HashCache
from trainshed.ledger.store import Ledger
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.lookup import Found
from trainshed.stages.survey import Survey, survey
from trainshed.stages.work import Work
from trainshed.tools import git

GREEN = Report(stage="images")
RED = Report(stage="images", results=(Result(name="one", stage="test", status=Status.FAILED),))


@pytest.fixture
def context(project: Path) -> Iterator[Context]:
    for name in ("one", "two"):
        write(project / "components" / name, {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": name})
    (project / ".gitignore").write_text(".trainshed/\nbuild/\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q", "-b", "topic"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    loaded = config.load(project / "trainshed.toml", environment="local")
    made = Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.PULL_REQUEST)
    yield made
    made.close()


def settle(context: Context, names: Sequence[str], report: Report = GREEN) -> None:
    """Do what a command does at its end that looked after the named components."""
    components = discover(context.config.project.components)
    graph, hashes = Graph.of(components, {}), HashCache(context.config.project.state / "hashes.json")
    survey = Survey(config=context.config, components=components, graph=graph, selected=tuple(names), pins={}, hashes=hashes)
    work = Work(context, survey)
    work.found.update({name: Found(digest=DIGEST, reference=f"127.0.0.1:1/small/{name}@{DIGEST}") for name in names})
    work.inputs.update({name: survey.source(name) for name in names})
    locking.settle(context, work, report)


def recorded(context: Context) -> set[str] | None:
    """Return the components of the lock that the ledger has for the commit, None when it has none."""
    lock = context.ledger.lock(commit=git.head(context.config.project.root).commit)
    return None if lock is None else set(lock["images"])


def test_the_lock_of_some_components_is_a_file_but_never_the_lock_of_the_commit(context: Context) -> None:
    settle(context, ["one"])
    assert locking.path(context).is_file()
    assert recorded(context) is None


def test_what_is_locked_of_some_components_leads_to_its_commit_and_is_recorded_once(context: Context) -> None:
    for _ in range(2):
        settle(context, ["one"])
    assert len(context.ledger.events(locking.EVENT, "local")) == 1
    (image,) = [node for node in context.ledger.nodes(DIGEST) if node.kind == "image"]
    commit = git.head(context.config.project.root).commit
    assert commit in {node.id for node in context.ledger.lineage([image], up=True).nodes}


def test_a_branch_that_comes_after_the_whole_leaves_the_lock_of_the_commit_alone(context: Context) -> None:
    settle(context, ["one", "two"])
    settle(context, ["two"])
    assert recorded(context) == {"one", "two"}


def test_a_ledger_that_was_lost_gets_the_lock_again_though_its_file_still_says_the_same(context: Context) -> None:
    settle(context, ["one", "two"])
    context.close()
    del context.ledger
    (context.config.project.state / "ledger.sqlite").unlink()
    assert recorded(context) is None
    settle(context, ["one", "two"])
    assert recorded(context) == {"one", "two"}


def test_the_same_lock_is_recorded_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    record = Ledger.record_lock

    def noted(ledger: Ledger, *told: Any) -> None:
        kept.append(told)
        record(ledger, *told)

    monkeypatch.setattr(Ledger, "record_lock", noted)
    for _ in range(2):
        settle(context, ["one", "two"])
    assert len(kept) == 1


def test_a_red_report_takes_the_file_away_and_records_nothing(context: Context) -> None:
    settle(context, ["one"])
    settle(context, ["one", "two"], RED)
    assert not locking.path(context).exists()
    assert recorded(context) is None


def test_what_is_locked_is_kept_before_and_only_for_the_whole_tree(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Mapping[str, str]] = []

    def keep(_context: Context, images: Mapping[str, str]) -> None:
        assert not locking.path(context).exists(), "a lock without its images kept may hold what expires"
        kept.append(images)

    monkeypatch.setattr(locking, "keep_locked", keep)
    settle(context, ["one"])
    assert kept == []
    locking.path(context).unlink()
    settle(context, ["one", "two"])
    assert kept == [{name: f"127.0.0.1:1/small/{name}@{DIGEST}" for name in ("one", "two")}]


def test_a_lock_whose_images_cannot_be_kept_is_not_written(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_context: Context, _images: Mapping[str, str]) -> None:
        raise RemoteError("forbidden")

    monkeypatch.setattr(locking, "keep_locked", refuse)
    with pytest.raises(RemoteError, match="forbidden"):
        settle(context, ["one", "two"])
    assert not locking.path(context).exists()
    assert recorded(context) is None


def test_a_part_of_a_lock_has_the_own_bases_of_its_components_and_is_of_the_tree(context: Context) -> None:
    folder = context.config.project.components / "three"
    write(folder.parent / "base-one", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "base"})
    write(folder, {"Dockerfile": "ARG BASE_ONE=127.0.0.1:1/small/base-one:latest\nFROM ${BASE_ONE}\nCOPY a /\n", "a": "three"})
    images = {
        name: LockedImage(reference=f"127.0.0.1:1/small/{name}@{DIGEST}", digest=DIGEST, input_digest=DIGEST, base=base)
        for name, base in (("base-one", {}), ("one", {}), ("two", {}), ("three", {"base-one": DIGEST}))
    }
    plan_digest = survey(context).plan_digest()
    lock = locks.of(project="small", commit=None, dirty=False, plan_digest=plan_digest, images=images)
    part = locking.part(context, lock, ["three"])
    assert (set(part.images), part.created) == ({"base-one", "three"}, lock.created)
    locking.require_current(context, part, place="part")
    assert locking.part(context, lock, ["one", "two", "three"]) is lock
    with pytest.raises(UsageError, match="no image of 'tow'; perhaps you meant 'two'"):
        locking.part(context, lock, ["tow"])
    (folder / "a").write_text("changed")
    with pytest.raises(UsageError, match="stale"):
        locking.part(context, lock, ["three"])
