"""A release goes on, or back: its steps in order with the journal written around each, and their undoing in reverse."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trainshed.errors import Interrupted, RemoteError, TrainshedError, WorkFailed
from trainshed.ledger.leases import Lease
from trainshed.results import Report, Result, Status, failed
from trainshed.stages.releasing import admission, composing, journal, steps, tagging
from trainshed.stages.releasing.journal import DECIDED, Entry
from trainshed.stages.releasing.room import Room
from trainshed.stages.releasing.steps import Step
from trainshed.tools import git, process

UNDO = "release-undo"
_AGAIN = "Run the same command again: it goes on where this one ended. Or undo it: `trainshed release --undo`."
_FINISH = "Its tag is given, so it cannot be undone: run `trainshed release` again, which finishes it."


@dataclass(kw_only=True)
class Making:
    """One command's work on the journal while it holds the lease; ``results`` are those of all steps, in their order."""

    room: Room
    lease: Lease
    results: list[Result] = field(default_factory=list)

    def decided(self, entry: Entry) -> bool:
        """Tell whether a release can only be finished: a push of its tags that nobody saw the end of may have arrived.

        Raises:
            RemoteError: that cannot be known now.
        """
        if entry.state == journal.UNDOING:  # never finished any more, whatever arrives
            return False
        return entry.decided or (DECIDED in entry.begun and tagging.pushed(self.room, entry.plan, entry.manifest))

    def go_on(self, entry: Entry) -> Entry:
        """Do what is left of a release; undo it when a step fails before it is decided.

        Raises:
            Interrupted: the journal stays as it is.
            WorkFailed: another release took over, or what failed could not be undone.
        """
        for step in steps.ALL:
            if step.name in entry.done and not (step.again and steps.COMPOSED_AFTER not in entry.done):
                continue
            entry, problem = self._done(entry, step)
            if problem:
                return self._failed(entry, step, problem)
        return journal.settled(self.room.there, entry)

    def admitted(self, entry: Entry) -> Entry | None:
        """Ask again whether a release that goes on may do so; undo it when it may not, and return how it stands then."""
        try:
            report = admission.require(self.room, entry.plan.locked, entry.plan.components)
        except (Interrupted, RemoteError):
            raise
        except TrainshedError as error:
            self.results.append(failed(entry.plan.name, "release", error))
            return self.undo(entry, error.message)
        if not report.exit_code:
            return None
        self.results += report.results
        return self.undo(entry, _told(report))

    def undo(self, entry: Entry, reason: str) -> Entry:
        """Undo what was begun, the last step first.

        Raises:
            WorkFailed: something could not be undone; the journal says so, and the next command goes on with it.
            Interrupted: as above.
        """
        self._require_ours()
        plan, console = entry.plan, self.room.there.console
        entry = journal.undoing(self.room.there, entry, reason)
        console.line(f"release {plan.name} of {git.short(plan.commit)} is undone: {entry.reason}")
        wrong = []
        for step in reversed(steps.ALL):
            if step.undo is not None and step.name in entry.begun and step.needed(entry):
                wrong += self._undone(entry, step, step.undo)
        if not wrong and DECIDED in entry.begun and tagging.pushed(self.room, plan, entry.manifest):
            wrong.append(f"its tag {', '.join(plan.tags)} came to {self._remote} while it was undone: take it away there")
        if wrong:
            raise WorkFailed(
                f"release {plan.name} could not be undone wholly: {'; '.join(wrong)}",
                next_step="Mend it, then run `trainshed release --undo`: it goes on with the rest.",
            )
        self._require_ours()
        return journal.settled(self.room.there, entry)

    @property
    def _remote(self) -> str:
        return self.room.here.config.release.remote

    def _undone(self, entry: Entry, step: Step, undo: Callable[[Room, Entry], list[str]]) -> list[str]:
        """Undo one step and tell it; return what is wrong, and let the other steps be undone all the same."""
        started, console = time.monotonic(), self.room.there.console
        try:
            told = undo(self.room, entry)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(step.name, UNDO, error, seconds=time.monotonic() - started)
            console.end(result)
            self.results.append(result)
            return [f"{step.name}: {error.message}"]
        for line in told:
            console.line(f"  {line}")
        seconds, details = time.monotonic() - started, {"undone": list(told)}
        self.results.append(Result(name=step.name, stage=UNDO, status=Status.DONE, cause=entry.reason, seconds=seconds, details=details))
        return []

    def _done(self, entry: Entry, step: Step) -> tuple[Entry, str]:
        """Do one step with the journal around it; return what is wrong, empty for nothing."""
        there = self.room.there
        self._require_ours()
        if process.stopping.is_set():
            raise self._left(entry)
        if self.room.ends is not None and time.monotonic() > self.room.ends and not entry.decided:
            self.results.append(failed(step.name, steps.stage(step.name), _LATE))
            return entry, _LATE.message
        entry = journal.doing(there, entry, step.name)
        there.console.line(f"release {entry.plan.name}: {step.name}")
        report, manifest = self._work(entry, step)
        if process.stopping.is_set():
            raise self._left(entry)
        self._require_ours()
        self.results += report.results
        if report.exit_code:
            return entry, f"{step.name}: {_told(report, step.name)}"
        documents = [result.document() for result in report.results]
        return journal.done(there, entry, step.name, documents, manifest=manifest), ""

    def _work(self, entry: Entry, step: Step) -> tuple[Report, str]:
        """Do a step's work; an error of it is its result. After the last step that changes production, the manifest is written."""
        stage, manifest = steps.stage(step.name), ""
        try:
            report = step.do(self.room, entry) if step.needed(entry) else Report(stage=stage)
            if step.name == steps.COMPOSED_AFTER and not report.exit_code:
                done = {**entry.done, step.name: [result.document() for result in report.results]}
                manifest = composing.keep(self.room.there, composing.manifest(self.room, entry.plan, done))
        except Interrupted as stop:
            raise self._left(entry) from stop
        except TrainshedError as error:
            if process.stopping.is_set():
                raise self._left(entry) from error
            result = failed(step.name, stage, error)
            self.room.there.console.end(result)
            report = Report(stage=stage, results=(result,))
        except Exception as bug:
            self._broken(entry, bug)
            raise
        return report, manifest

    def _broken(self, entry: Entry, bug: Exception) -> None:
        """Bring production back after a bug too, which is then told as what it is."""
        if entry.doing == DECIDED or entry.decided or self.lease.lost:
            return
        try:
            self.undo(entry, f"{entry.doing}: {bug if isinstance(bug, OSError) else type(bug).__name__}")
        except TrainshedError as error:
            self.room.there.console.error(error)

    def _failed(self, entry: Entry, step: Step, problem: str) -> Entry:
        """Undo a release whose step failed, unless it is decided: a push whose answer was lost may have arrived."""
        if entry.decided:
            return entry
        if step.name != DECIDED:
            return self.undo(entry, problem)
        try:
            arrived = self.decided(entry)
        except RemoteError as error:
            message = f"{problem}; and whether its tag arrived cannot be known: {error.message}"
            raise WorkFailed(message, next_step=_AGAIN) from error
        if not arrived:
            return self.undo(entry, problem)
        self.results = [result for result in self.results if result.stage != steps.stage(DECIDED)]
        self.room.there.console.line(f"release {entry.plan.name}: its tag arrived all the same")
        return self.go_on(journal.done(self.room.there, entry, DECIDED, []))

    def _require_ours(self) -> None:
        if self.lease.lost:
            raise WorkFailed(
                "another release took over meanwhile: this one stood still, and changes nothing more",
                next_step="Follow the other one; `trainshed release` tells how it stands.",
            )

    def _left(self, entry: Entry) -> Interrupted:
        what = f"step {entry.doing}" if entry.doing else "between two steps"
        return Interrupted(f"interrupted; release {entry.plan.name} stays open ({what})", next_step=_FINISH if entry.decided else _AGAIN)


_LATE = WorkFailed("the deadline passed", next_step="Give more time with --deadline.")


def _told(report: Report, step: str = "") -> str:
    """Say in one line what a red report is about: the first thing that is wrong, and how much more."""
    bad = [result for result in report.results if not result.good]
    if not bad:
        return report.status
    said = bad[0].message.partition("\n")[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"{said if bad[0].name == step else f'{bad[0].name}: {said}'}{more}"
