"""A release is whole or not there: killed at any point of any step, whoever comes next finishes it, goes on with it or undoes it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainshed.console import Console
from trainshed.errors import Interrupted, RemoteError, UsageError, WorkFailed
from trainshed.ledger.leases import Held, Lease
from trainshed.ledger.records import Event
from trainshed.pipelines.lock import Lock
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages import release as releasing
from trainshed.stages.releasing import admission, composing, journal, planning, recording, steps, tagging
from trainshed.stages.releasing import room as rooms
from trainshed.stages.releasing.journal import STEPS
from trainshed.stages.releasing.planning import Planned, Wanted
from trainshed.stages.releasing.room import Room
from trainshed.stages.releasing.steps import Step
from trainshed.tools import git, process

WHEN = ("before", "during", "after")
UNDOABLE = ("upload", "deploy", "tag")
AFTER = ("record", "schedule")
FIRST, SECOND = "1" * 40, "2" * 40
COMMITTED = Lock(project="small", commit=FIRST, dirty=False, plan_digest="sha256:0", created="2026-01-01T00:00:00Z", images={})


class Killed(BaseException):
    """Stands in for SIGKILL: nobody catches it."""


class FakeLedger:
    """What a release asks of the ledger, in memory."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.holder = ""
        self.taken: Lease | None = None

    def record_event(self, kind: str, environment: str, name: str, key: str, document: Mapping[str, Any]) -> None:
        moment = float(len(self.kept))
        event = Event(kind=kind, environment=environment, name=name, key=key, document=dict(document), tier=Tier.MAIN, created=moment)
        self.kept.append(event)

    def events(self, kind: str, environment: str, name: str, *, limit: int | None = None) -> list[Event]:
        found = [event for event in reversed(self.kept) if (event.kind, event.environment, event.name) == (kind, environment, name)]
        return found[:limit]

    def latest_events(self, kind: str, environment: str, name: str) -> list[Event]:
        keys = dict.fromkeys(event.key for event in self.events(kind, environment, name))
        return [next(event for event in self.events(kind, environment, name) if event.key == key) for key in keys]

    def attach(self, digest: str, kind: str, content: bytes) -> None:
        self.files[digest, kind] = content

    def attachment(self, digest: str, kind: str) -> bytes | None:
        return self.files.get((digest, kind))

    @contextmanager
    def lease(self, key: str, *, deadline: float | None = None) -> Iterator[Lease]:
        assert (key, deadline) == ("release:prod:small", 0.0)
        if self.holder:
            raise Held("held", holder=self.holder)
        self.taken = Lease(key=key)
        yield self.taken


@dataclass
class World:
    """Production as the fake steps change it: ``has`` maps each step to the release whose work it holds, ``half`` is what was begun."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    has: dict[str, str] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    strikes: dict[tuple[str, str], BaseException | Callable[[], None]] = field(default_factory=dict)
    commit: str = FIRST
    bump: str = "minor"
    plans: list[Plan] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    ends: float | None = None
    build_url: str | None = None
    by: str = "a test"
    console: Console = field(default_factory=lambda: Console(stream=io.StringIO()))

    def strike(self, step: str, when: str) -> None:
        planned = self.strikes.pop((step, when), None)
        if isinstance(planned, BaseException):
            raise planned
        if planned is not None:
            planned()

    def call(self, **options: Any) -> Report:
        return releasing.release(cast("Any", self.room.here), **options)

    @property
    def room(self) -> Room:
        def context(environment: str) -> Any:
            release = SimpleNamespace(environment="prod", remote="origin")
            found = SimpleNamespace(name=environment, registry=None)
            project = SimpleNamespace(name="small", root=None)
            config = SimpleNamespace(environment=found, project=project, release=release)
            return SimpleNamespace(
                config=config, ledger=self.ledger, console=self.console, build_url=self.build_url, by=self.by, has_ledger=True
            )

        return Room(here=context("dev"), there=context("prod"), ends=self.ends)

    def wanted(self) -> Wanted:
        lock = replace(COMMITTED, commit=self.commit)
        return Wanted(lock=lock, commit=self.commit, branch="main", pipelines=("train",), services=("answer",), components=())

    def planned(self) -> Planned:
        if self.refused:
            bad = Result(name="train", stage="release-scan", status=Status.FAILED, message=self.refused[0])
            return Planned(plan=None, why="it is not admitted", admitted=Report(stage="release-admission", results=(bad,)))
        asked, number = self.wanted(), len(self.plans) + 1
        version = UnitVersion(unit="", version=f"1.{number}.0", tag=f"v1.{number}.0", previous="", bump=self.bump)
        plan = Plan(
            id=f"plan-{number}",
            project="small",
            versions=(version,),
            commit=self.commit,
            branch="main",
            source="dev",
            target="prod",
            lock=asked.lock.document(),
            lock_digest=asked.digest,
            components=(),
            pipelines=asked.pipelines,
            services=asked.services,
            models={},
            before=Before(),
            created="2026-01-01T00:00:00Z",
            by="me",
        )
        self.plans.append(plan)
        return Planned(plan=plan, why="", admitted=Report(stage="release-admission"))

    def state(self) -> str:
        entry = journal.newest(self.room.there)
        return "" if entry is None else entry.state

    def said(self) -> str:
        return cast("io.StringIO", self.console.stream).getvalue()

    def step(self, real: Step) -> Step:
        """Return a step that does to this world what the real one does to production."""

        def do(_room: Room, entry: journal.Entry) -> Report:
            self.strike(real.name, "before")
            self.half.add(real.name)
            self.strike(real.name, "during")
            self.half.discard(real.name)
            self.has[real.name] = entry.plan.id
            self.strike(real.name, "after")
            done = Result(name="thing", stage=steps.stage(real.name), status=Status.DONE)
            return Report(stage=steps.stage(real.name), results=(done,))

        def undo(_room: Room, _entry: journal.Entry) -> list[str]:
            self.strike(f"undo {real.name}", "before")
            self.half.discard(real.name)
            self.strike(f"undo {real.name}", "during")
            self.has.pop(real.name, None)
            self.strike(f"undo {real.name}", "after")
            return [f"{real.name} is as before"]

        return replace(real, do=do, undo=undo if real.undo is not None else None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @contextmanager
    def opened(_context: object, *, to: str | None, ends: float | None, keeps: bool) -> Iterator[Room]:
        assert (to, keeps) == (None, True)
        yield replace(made.room, ends=ends)

    def admitted(*_: object) -> Report:
        bad = tuple(Result(name="train", stage="release-scan", status=Status.FAILED, message=text) for text in made.refused)
        return Report(stage="release-admission", results=bad)

    monkeypatch.setattr(rooms, "opened", opened)
    monkeypatch.setattr(planning, "wanted", lambda *_: made.wanted())
    monkeypatch.setattr(planning, "planned", lambda *_, **__: made.planned())
    monkeypatch.setattr(admission, "require", admitted)
    monkeypatch.setattr(steps, "ALL", tuple(made.step(each) for each in steps.ALL))
    monkeypatch.setattr(tagging, "pushed", lambda _room, plan, _manifest: made.has.get("tag") == plan.id)
    monkeypatch.setattr(composing, "manifest", lambda _, plan, __: plan.id)
    monkeypatch.setattr(composing, "keep", lambda _, told: f"sha256:{told}")
    monkeypatch.setattr(composing, "of", lambda _, digest: digest)
    monkeypatch.setattr(recording, "record", lambda *_: Report(stage="release-record"))
    monkeypatch.setattr(git, "descends", lambda _, commit, ancestor: (commit, ancestor) == (SECOND, FIRST))
    return made


def released(world: World, number: int) -> bool:
    """Tell whether a release, and nothing else, is in production."""
    return world.state() == journal.RELEASED and not world.half and world.has == dict.fromkeys(STEPS, f"plan-{number}")


def nothing_left(world: World) -> bool:
    """Tell whether production is as it was before any release."""
    return not {*world.half, *world.has} & {*UNDOABLE, *AFTER}


def killed(world: World, step: str, when: str) -> None:
    world.strikes[step, when] = Killed()
    with pytest.raises(Killed):
        world.call()


def decided(step: str, when: str) -> bool:
    return step in AFTER or (step, when) == ("tag", "after")


def test_a_release_does_all_steps_in_their_order_and_tells_what_it_is(world: World) -> None:
    report = world.call()
    assert [result.stage for result in report.results] == [f"release-{step}" for step in STEPS]
    told = {key: report.extra[key] for key in ("release", "versions", "manifest", "state", "tags")}
    assert told == {"release": "1.1.0", "versions": {"": "1.1.0"}, "manifest": "sha256:plan-1", "state": "released", "tags": ["v1.1.0"]}
    assert released(world, 1)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", STEPS)
class TestKilled:
    """Killed at a step, and called again."""

    def test_the_same_command_ends_what_was_begun(self, world: World, step: str, when: str) -> None:
        killed(world, step, when)
        report = world.call()
        assert (report.exit_code, len(world.plans)) == (0, 1)
        assert released(world, 1)

    def test_a_newer_commit_finds_it_undone_or_finished_and_is_released_itself(self, world: World, step: str, when: str) -> None:
        killed(world, step, when)
        world.commit = SECOND
        report = world.call()
        assert report.exit_code == 0
        states = {entry.plan.id: entry.state for entry in journal.entries(world.room.there)}
        assert states == {"plan-1": "released" if decided(step, when) else "undone", "plan-2": "released"}
        assert released(world, 2)

    def test_undo_takes_it_back_unless_its_tag_is_given(self, world: World, step: str, when: str) -> None:
        killed(world, step, when)
        report = world.call(undo=True)
        assert report.exit_code == 0
        if decided(step, when):
            assert released(world, 1)
        else:
            assert (world.state(), nothing_left(world)) == (journal.UNDONE, True)

    def test_a_failure_is_undone_at_once_unless_the_tag_is_given(self, world: World, step: str, when: str) -> None:
        world.strikes[step, when] = WorkFailed("it broke")
        report = world.call()
        if (step, when) == ("tag", "after"):  # the push arrived, its answer was lost
            assert (report.exit_code, released(world, 1)) == (0, True)
        elif step in AFTER:
            assert (report.exit_code, world.state()) == (1, journal.OPEN)
            assert (world.call().exit_code, released(world, 1)) == (0, True)
        else:
            assert (report.exit_code, world.state(), nothing_left(world)) == (1, journal.UNDONE, True)
            assert report.extra["reason"] == f"{step}: it broke"

    def test_a_bug_leaves_nothing_half_done_either(self, world: World, step: str, when: str) -> None:
        world.strikes[step, when] = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            world.call()
        assert (world.call().exit_code, world.state(), len({*world.has.values()})) == (0, journal.RELEASED, 1)

    def test_an_interruption_leaves_it_open_and_the_next_command_goes_on(self, world: World, step: str, when: str) -> None:
        world.strikes[step, when] = process.stopping.set
        with pytest.raises(Interrupted, match=f"release 1.1.0 stays open .step {step}.") as stop:
            world.call()
        assert "goes on" in stop.value.next_step or decided(step, "before")
        process.stopping.clear()
        world.call()
        assert (len(world.plans), released(world, 1)) == (1, True)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", UNDOABLE)
class TestUndoing:
    """What goes wrong while a release is undone."""

    def begin(self, world: World, undo: BaseException, step: str, when: str) -> None:
        world.strikes["tag", "during"] = WorkFailed("the remote says no")
        world.strikes[f"undo {step}", when] = undo

    def test_killed_while_it_is_undone_it_is_undone_by_the_next_which_then_releases(self, world: World, step: str, when: str) -> None:
        self.begin(world, Killed(), step, when)
        with pytest.raises(Killed):
            world.call()
        assert world.state() == journal.UNDOING
        assert world.call().exit_code == 0
        assert [entry.state for entry in journal.entries(world.room.there)] == ["released", "undone"]
        assert released(world, 2)

    def test_what_cannot_be_undone_stays_to_be_undone_and_the_rest_is(self, world: World, step: str, when: str) -> None:
        self.begin(world, RemoteError("nobody answers"), step, when)
        with pytest.raises(WorkFailed, match=rf"release 1\.1\.0 could not be undone wholly: {step}: nobody answers") as wrong:
            world.call()
        assert "trainshed release --undo" in wrong.value.next_step
        assert (world.state(), {*world.has} & {*UNDOABLE} <= {step}) == (journal.UNDOING, True)
        assert world.call(undo=True).exit_code == 0
        assert (world.state(), nothing_left(world)) == (journal.UNDONE, True)


def test_two_at_once_the_second_is_told_who_and_how_far(world: World) -> None:
    killed(world, "deploy", "during")
    world.ledger.holder = "https://jenkins.example.org/job/7/ on agent-1"
    told = r"release 1\.1\.0 of 1111111 is being made by https://jenkins.example.org/job/7/ on agent-1 \(step deploy, since 1970-"
    with pytest.raises(WorkFailed, match=told):
        world.call()
    assert world.state() == journal.OPEN


def test_whose_lease_was_taken_changes_nothing_more(world: World) -> None:
    def lose() -> None:
        assert world.ledger.taken is not None
        world.ledger.taken._lost.set()  # what another holder does

    world.strikes["upload", "during"] = lose
    before = len(world.ledger.kept)
    with pytest.raises(WorkFailed, match="another release took over meanwhile"):
        world.call()
    newest = world.ledger.kept[-1].document
    assert (newest["state"], newest["doing"], len(world.ledger.kept) - before) == ("open", "upload", 6)
    assert "deploy" not in world.has


def test_a_commit_that_is_released_is_told_so_and_nothing_is_done(world: World) -> None:
    world.call()
    world.has.clear()
    report = world.call()
    (result,) = report.results
    assert (result.status, result.cause, report.exit_code) == (Status.CACHED, "is released as 1.1.0", 0)
    assert (world.has, len(world.plans)) == ({}, 1)


def test_an_old_build_is_refused_after_a_newer_release(world: World) -> None:
    world.commit = SECOND
    world.call()
    world.commit = FIRST
    with pytest.raises(UsageError, match="1111111 is older than 2222222, which is released as") as refused:
        world.call()
    assert "rollback --release" in refused.value.next_step
    assert len(world.plans) == 1


def test_another_growth_than_that_of_the_open_release_is_refused(world: World) -> None:
    killed(world, "upload", "after")
    with pytest.raises(UsageError, match=r"release 1\.1\.0 of 1111111 is open, a minor release, and --bump major asks for another"):
        world.call(bump="major")
    assert world.call(bump="minor").exit_code == 0
    assert released(world, 1)


def test_who_may_not_release_any_more_when_it_goes_on_is_undone(world: World) -> None:
    killed(world, "deploy", "during")
    world.refused.append("the waiver for CVE-1 expired")
    report = world.call()
    assert (report.exit_code, world.state(), nothing_left(world)) == (1, journal.UNDONE, True)
    assert report.extra["reason"] == "train: the waiver for CVE-1 expired"


def test_what_is_refused_before_it_begins_leaves_no_trace(world: World) -> None:
    world.refused.append("the waiver for CVE-1 expired")
    report = world.call()
    assert (report.exit_code, world.state(), world.has) == (1, "", {})


def test_nothing_open_is_nothing_to_undo(world: World) -> None:
    report = world.call(undo=True)
    assert (report.exit_code, report.results[0].status, world.state()) == (0, Status.SKIPPED, "")


def test_a_deadline_that_passes_before_the_tag_undoes_the_release(world: World) -> None:
    report = world.call(deadline=-1.0)
    assert (report.exit_code, world.state(), report.extra["reason"]) == (1, journal.UNDONE, "the deadline passed")


def test_whether_the_tag_arrived_must_be_known_before_anything_is_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> bool:
        raise RemoteError("the remote cannot be reached")

    pushed = tagging.pushed
    monkeypatch.setattr(tagging, "pushed", nobody)
    world.strikes["tag", "after"] = WorkFailed("the connection broke")
    with pytest.raises(WorkFailed, match="whether its tag arrived cannot be known: the remote cannot be reached"):
        world.call()
    with pytest.raises(RemoteError):
        world.call(undo=True)
    assert world.state() == journal.OPEN
    monkeypatch.setattr(tagging, "pushed", pushed)
    assert (world.call().exit_code, released(world, 1)) == (0, True)


def test_files_of_a_dead_process_are_written_anew_by_who_goes_on(world: World) -> None:
    killed(world, "upload", "before")
    world.has.pop("stamp")  # another agent's workspace
    world.call()
    assert released(world, 1)


def test_a_build_without_a_production_releases_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "_is_nobodys", lambda _: True)
    assert world.call().extra["state"] == "released"
    world.build_url, world.commit = "https://jenkins.example.org/job/8/", SECOND
    report = world.call()
    assert (report.exit_code, report.results[0].status) == (0, Status.SKIPPED)
    assert report.results[0].cause.startswith("nothing was released")
