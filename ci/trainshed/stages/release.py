"""``trainshed release``: bring the green main build to production, the same digests, all or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from trainshed.console import counted
from trainshed.errors import UsageError, WorkFailed
from trainshed.ledger.leases import Held, Lease
from trainshed.releases import notes as release_notes
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.releasing import composing, current, journal, planning, recording, steps
from trainshed.stages.releasing import room as rooms
from trainshed.stages.releasing.journal import Entry
from trainshed.stages.releasing.making import UNDO, Making
from trainshed.stages.releasing.planning import Wanted
from trainshed.stages.releasing.room import Room
from trainshed.tools import git

STAGE = "release"
_QUIET = {Status.CACHED, Status.SKIPPED}
_STAGES = {UNDO, *map(steps.stage, journal.STEPS)}


def release(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    to: str | None = None,
    bump: str | None = None,
    undo: bool = False,
    dry_run: bool = False,
    deadline: float | None = None,
) -> Report:
    """Release the lock of this commit's green build; first finish or undo what an earlier release left.

    Args:
        context: the command's room.
        names: pipelines and services; empty: all.
        to: production; ``release.environment`` by default, else the environment in force.
        bump: what the version grows by; None: what the commits ask for.
        undo: undo what was begun and not ended, and make no release.
        dry_run: show what a release would do; nothing is changed, and what has to be scanned or tested anew for it is not kept.
        deadline: seconds for all of it; a release that is not decided by then is undone.

    Raises:
        UsageError: before anything is changed: what is refused (see `admission`), an old commit, options that do not fit.
        WorkFailed: another release is being made, or one could not be undone.
        RemoteError: somebody who has to be asked cannot be.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    with rooms.opened(context, to=to, ends=ends, keeps=not dry_run) as room:
        if context.build_url and not to and _is_nobodys(room):
            result = _nothing(room, f"nothing was released: environment {room.there.config.environment.name} ends with this build")
            context.console.end(result)
            context.console.line("  production is named with release.environment; see docs/how-to/release-to-production.md")
            return Report(stage=STAGE, results=(result,), extra={"state": str(result.status)})
        if dry_run:
            return _shown(room, names, bump, undo=undo)
        with _alone(room) as lease:
            making = Making(room=room, lease=lease)
            left = _settled_before(making, names, bump, undo=undo)
            if undo:
                return _told(making, left or _nothing(room, "no release is open: nothing is to be undone"))
            return _told(making, left or _made(making, names, bump))


def _is_nobodys(room: Room) -> bool:
    """Tell whether no production is named, and what is embedded in a build's agent would stand for it."""
    return room.in_place and not room.here.config.release.environment and room.there.config.environment.registry is None


# --- one at a time --------------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(room: Room) -> Iterator[Lease]:
    """Hold the release of this project in production; whoever finds it held is told by whom, and how far it is.

    Raises:
        WorkFailed: another release is being made.
    """
    with ExitStack() as held:
        try:
            lease = held.enter_context(journal.alone(room.there))
        except Held as error:
            raise WorkFailed(_busy(room, error.holder), next_step="Wait for its end, and run this again if it is still needed.") from error
        if lease.taken_over:
            room.there.console.line(f"the release by {lease.taken_over} has ended without a word, or is heard of no more; taking over")
        yield lease


def _busy(room: Room, holder: str) -> str:
    entry = journal.newest(room.there)
    if entry is None or entry.settled:
        return f"a release to {room.there.config.environment.name} is being made by {holder}; it has not begun to change anything"
    return f"{_named(entry)} is being made by {holder} ({_standing(entry)})"


def _named(entry: Entry) -> str:
    return f"release {entry.plan.name} of {git.short(entry.plan.commit)}"


def _standing(entry: Entry) -> str:
    """Say how far an open release is."""
    since = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if entry.state == journal.UNDOING:
        return f"it is undone, since {since}: {entry.reason}"
    return (
        f"step {entry.doing}, since {since}" if entry.doing else f"after step {[*entry.done][-1] if entry.done else 'none'}, since {since}"
    )


# --- what an earlier release left -----------------------------------------------------------------------------------------------


def _settled_before(making: Making, names: Sequence[str], bump: str | None, *, undo: bool) -> Entry | None:
    """Finish, go on with, or undo the release that is open; return how it ended where that is all that was asked for."""
    room = making.room
    entry = journal.newest(room.there)
    if entry is None or entry.settled:
        return None
    room.there.console.line(f"{_named(entry)} was begun by {entry.by} and not ended ({_standing(entry)})")
    if making.decided(entry):
        return _finished(making, entry, names, undo=undo)
    if undo:
        return making.undo(entry, "it was asked for")
    if entry.state == journal.UNDOING:
        making.undo(entry, entry.reason)
        return None
    asked = planning.wanted(room, names)
    if not asked.is_of(entry.plan):
        making.undo(entry, f"{git.short(asked.commit)} is released in its place")
        return None
    _require_same_bump(entry, bump)
    room.there.console.line("going on with it")
    return making.admitted(entry) or making.go_on(entry)


def _finished(making: Making, entry: Entry, names: Sequence[str], *, undo: bool) -> Entry | None:
    """Finish a release whose tag is given; None when another one is to be made after it."""
    if undo:
        making.room.there.console.warning(f"{_named(entry)} has its tag, so it is finished, not undone. {_back(making.room)}")
    entry = making.go_on(entry)
    if undo or not entry.settled or planning.wanted(making.room, names).is_of(entry.plan):
        return entry
    return None


def _require_same_bump(entry: Entry, bump: str | None) -> None:
    other = [each for each in entry.plan.versions if each.bump != bump]
    if bump not in {None, "auto"} and other:
        message = f"{_named(entry)} is open, a {other[0].bump} release, and --bump {bump} asks for another"
        raise UsageError(message, next_step="Finish it without --bump, or undo it first: `trainshed release --undo`.")


# --- a release ------------------------------------------------------------------------------------------------------------------


def _made(making: Making, names: Sequence[str], bump: str | None) -> Entry | Result:
    """Plan a release and make it; a result where there is nothing to make."""
    room, there = making.room, making.room.there
    asked = planning.wanted(room, names)
    last = journal.last_released(there, (*asked.pipelines, *asked.services))
    if last is not None and asked.is_in(last.plan):
        return _again(making, last)
    _require_newer(room, asked, last)
    decided = planning.planned(room, names, bump, asked=asked)
    making.results += decided.admitted.results
    if decided.plan is None:
        return _nothing(room, decided.why)
    plan = decided.plan
    there.console.heading(f"release {plan.name} of {git.short(plan.commit)}: {plan.source} → {plan.target}")
    _tell_plan(there, plan)
    return making.go_on(journal.begin(there, plan))


def _again(making: Making, last: Entry) -> Result:
    """Write the files of a release that is whole already."""
    room = making.room
    written = recording.record(room, last.plan, composing.of(room.there, last.manifest))
    making.results += written.results
    told = _told_entry(last)
    cause = f"is released as {last.plan.name}{current.since(room.there, last.plan.name)}"
    return Result(name=last.plan.project, stage=STAGE, status=Status.CACHED, cause=cause, details=told)


def _require_newer(room: Room, asked: Wanted, last: Entry | None) -> None:
    """Refuse the commit of an old build: what production has is newer.

    Raises:
        UsageError: the released commit descends from this one.
    """
    if last is None or last.plan.commit == asked.commit:
        return
    if git.descends(room.here.config.project.root, last.plan.commit, asked.commit):
        message = f"{git.short(asked.commit)} is older than {git.short(last.plan.commit)}, which is released as {last.plan.name}"
        raise UsageError(message, next_step=_back(room))


def _back(room: Room) -> str:
    where = room.there.config.environment.name
    return f"Go back to an earlier release with `trainshed --env {where} rollback --release VERSION`, not by an old build."


def _nothing(room: Room, why: str) -> Result:
    return Result(name=room.there.config.project.name, stage=STAGE, status=Status.SKIPPED, cause=why)


def _tell_plan(context: Context, plan: Plan) -> None:
    for each in plan.versions:
        grown = f" ({each.bump} after {each.previous})" if each.previous else ""
        context.console.line(f"  {each.tag}{grown}")
    parts = (counted(plan.components, "image"), counted(plan.pipelines, "pipeline"), counted(plan.services, "service"))
    context.console.line(f"  {', '.join(parts)}")


# --- a dry run ------------------------------------------------------------------------------------------------------------------


def _shown(room: Room, names: Sequence[str], bump: str | None, *, undo: bool) -> Report:
    """Show what a release would do: its plan and its notes; production and the ledger stay as they are."""
    console = room.there.console
    entry = journal.newest(room.there) if room.there.has_ledger else None
    if entry is not None and not entry.settled:
        console.line(f"{_named(entry)} was begun by {entry.by} and not ended ({_standing(entry)}): it would be dealt with first")
    if undo:
        open_now = entry is not None and not entry.settled
        return _foretold(room, "it would be undone, or finished where its tag is given" if open_now else "no release is open")
    asked = planning.wanted(room, names)
    _require_newer(room, asked, journal.last_released(room.there, (*asked.pipelines, *asked.services)))
    decided = planning.planned(room, names, bump, asked=asked)
    if decided.plan is None:
        return _foretold(room, decided.why, decided.admitted.results)
    plan = decided.plan
    console.heading(f"dry run: release {plan.name} of {git.short(plan.commit)}: {plan.source} → {plan.target}")
    _tell_plan(room.there, plan)
    notes = release_notes.notes(composing.foreseen(room, plan))
    console.line(notes.rstrip())
    result = Result(name=plan.project, stage=STAGE, status=Status.SKIPPED, cause="dry run", details={**_facts(plan), "notes": notes})
    return Report(stage=STAGE, results=(*decided.admitted.results, result), extra=_facts(plan))


def _foretold(room: Room, why: str, admitted: Sequence[Result] = ()) -> Report:
    """Say why no release would be made."""
    result = _nothing(room, f"dry run: {why}")
    room.there.console.end(result)
    return Report(stage=STAGE, results=(*admitted, result))


# --- the end --------------------------------------------------------------------------------------------------------------------


def _told(making: Making, ended: Entry | Result) -> Report:
    """Return all that was done as the command's report, and show it."""
    console = making.room.there.console
    if isinstance(ended, Result):
        console.end(ended)
        return Report(stage=STAGE, results=(*making.results, ended), extra={"state": str(ended.status), **ended.details})
    told = _told_entry(ended)
    results = making.results
    if ended.state == journal.UNDONE and not any(result.stage == UNDO for result in results):
        results = [*results, Result(name=ended.plan.name, stage=UNDO, status=Status.DONE, cause=ended.reason)]
    _table(making, ended, results)
    return Report(stage=STAGE, results=tuple(results), extra=told)


def _table(making: Making, ended: Entry, results: Sequence[Result]) -> None:
    told = [result for result in results if result.status not in _QUIET or result.stage in _STAGES]
    rows = [(each.stage.removeprefix("release-"), each.name, each.status, _why(each)) for each in told]
    console = making.room.there.console
    console.table(f"{_named(ended)}: {ended.state}", ("step", "what", "status", "why"), rows)
    if ended.state == journal.RELEASED:
        console.line(f"released as {', '.join(ended.plan.tags)}; manifest {ended.manifest}")
    elif not ended.settled:
        console.line("its tag is given, so it is only finished: run `trainshed release` again")


def _why(result: Result) -> str:
    return result.message.partition("\n")[0] or "; ".join(result.details.get("undone", ())) or result.cause


def _told_entry(entry: Entry) -> dict[str, object]:
    return {**_facts(entry.plan), "manifest": entry.manifest, "state": entry.state, "reason": entry.reason}


def _facts(plan: Plan) -> dict[str, object]:
    return {
        "release": plan.name,
        "versions": {each.unit: each.version for each in plan.versions},
        "tags": plan.tags,
        "commit": plan.commit,
        "source": plan.source,
        "target": plan.target,
    }
