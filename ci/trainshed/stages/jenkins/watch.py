"""``trainshed jenkins watch``: follow one build live, and say at its end what failed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trainshed.errors import Interrupted, UsageError, WorkFailed
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.jenkins import failures, finding
from trainshed.stages.jenkins.narration import Narrator
from trainshed.tools import process
from trainshed.tools.jenkins_records import Unavailable

if TYPE_CHECKING:
    from trainshed.tools.jenkins import Build, Job

STAGE = "jenkins-watch"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 3.0
_PATIENCE_SECONDS = 900.0  # a controller that is updated and loads its jobs again

T = TypeVar("T")


def watch(
    context: Context, *, branch: str | None = None, build: str | None = None, queue: int | None = None, deadline: float | None = None
) -> Report:
    """Follow a build to its end.

    Args:
        context: the command's room.
        branch: as the job names it; the one checked out by default.
        build: number or address of the build; the last by default.
        queue: the item of the queue that the build came, or will come, of; no other build is taken.
        deadline: seconds until following is given up; the build goes on.

    Raises:
        UsageError: no such branch or build.
        WorkFailed: the deadline passed, or the item of the queue was cancelled.
        RemoteError: the controller has been away for a quarter of an hour.
        Interrupted: SIGTERM or SIGINT arrived; the build goes on.
    """
    if queue is not None and build is not None:
        raise UsageError("--queue and --build both name a build", next_step="Leave one of them out.")
    ends = _ends(deadline)
    context.jenkins.end_at(ends)
    if queue is not None:
        named = finding.own_branch(context, branch)
        results = follow_queue(context, finding.job(context, named), branch=named, queue=queue, deadline=deadline)
    else:
        named, found = finding.locate(context, branch=branch, build=build)
        results = _Watch(context, finding.job(context, named), named, ends).follow(found)
    return Report(stage=STAGE, results=results)


def follow_queue(context: Context, job: Job, *, branch: str, queue: int, deadline: float | None) -> tuple[Result, ...]:
    """Wait for the build of an item of the queue, then follow it."""
    ends = _ends(deadline)
    context.jenkins.end_at(ends)
    try:
        build = context.jenkins.build_of(job, queue, deadline=deadline, on_wait=context.console.line)
    except Interrupted as stop:
        raise _left(f"item {queue} of the queue stays there", follow_command(branch, queue=queue)) from stop
    return _Watch(context, job, branch, ends).follow(build)


def follow_command(branch: str, *, queue: int | None = None, build: int | None = None) -> str:
    """Return the command that follows a build."""
    which = ["--queue", str(queue)] if queue is not None else ["--build", str(build)]
    return shlex.join(["trainshed", "jenkins", "watch", *which, "--branch", branch])


class _Watch:
    """One build, from where its console begins to its result."""

    def __init__(self, context: Context, job: Job, branch: str, ends: float | None) -> None:
        self._context, self._client, self._job, self._branch, self._ends = context, context.jenkins, job, branch, ends
        self._narrator = Narrator()
        self._read = 0
        self._away: float | None = None

    def follow(self, build: Build) -> tuple[Result, ...]:
        started = time.monotonic()
        self._line(f"{build.url} of commit {finding.short(build.commit)}" if build.commit else build.url, build)
        again = follow_command(self._branch, build=build.number)
        try:
            ended = self._until_ended(build, again)
        except Interrupted as stop:
            raise _left(f"build #{build.number} goes on", again) from stop
        return self._judged(ended, time.monotonic() - started)

    def _until_ended(self, build: Build, again: str) -> Build:
        """Read the console as it grows; return the build as it ended. The console is read once more after the end."""
        pause, ended = _FIRST_PAUSE, False
        while True:
            before, last = self._read, ended
            piece = self._answer(partial(self._client.console, build, before))
            more = None if piece is None else self._take(piece, build)
            if more is False and last:
                self._tell(self._narrator.finish(), build)
                return build
            if more is False:
                build = self._answer(partial(self._client.build, self._job, build.number)) or build
                ended = not build.building and build.result is not None
            if ended and more is False:
                continue
            if self._ends is not None and time.monotonic() > self._ends:
                raise WorkFailed(f"the deadline passed; build #{build.number} goes on", next_step=f"Follow it again: {again}")
            pause = _FIRST_PAUSE if self._read > before else min(_LONGEST_PAUSE, pause * 1.5)
            process.pause(pause)

    def _take(self, piece: tuple[str, int, bool], build: Build) -> bool:
        """Tell what a piece of the console says; tell whether there may be more."""
        text, end, more = piece
        if end < self._read:
            self._from_the_start()
            return True
        self._read = end
        self._tell(self._narrator.feed(text), build)
        return more

    def _from_the_start(self) -> None:
        """Read all of the console again; only what is new is told."""
        self._narrator.rewind()
        self._read = 0

    def _answer(self, ask: Callable[[], T]) -> T | None:
        """Ask; None while the controller is away for a while, such as for a restart."""
        try:
            answer = ask()
        except Unavailable as error:
            now = time.monotonic()
            self._from_the_start()  # killed, a controller loses the end of a log, which then grows on past where it was read
            if self._away is None:
                self._context.console.warning(f"{error.message}; waiting for it")
                self._away = now
            elif now - self._away > _PATIENCE_SECONDS:
                raise
            return None
        if self._away is not None:
            self._context.console.line("the controller answers again")
            self._away = None
        return answer

    def _tell(self, events: list[str], build: Build) -> None:
        for event in events:
            self._line(event, build)

    def _line(self, text: str, build: Build) -> None:
        self._context.console.line(f"#{build.number} {text}")

    def _judged(self, build: Build, seconds: float) -> tuple[Result, ...]:
        result = build.result or "unknown"
        details = {
            "branch": self._branch,
            "build": build.number,
            "url": build.url,
            "result": result,
            "commit": build.commit,
            "queue_id": build.queue_id,
        }
        name = f"{self._branch} #{build.number}"
        self._told_description(build)
        if result == finding.GREEN:
            judged = Result(name=name, stage=STAGE, status=Status.DONE, cause=result, seconds=seconds, details=details)
            self._context.console.end(judged)
            return (judged,)
        told = failures.of(self._context, build, tail=list(self._narrator.tail))
        for failed in told:
            self._context.console.end(failed)
        status, message = _meaning(result)
        judged = Result(name=name, stage=STAGE, status=status, message=f"{message}: {build.url}", seconds=seconds, details=details)
        self._context.console.end(judged)
        return (judged, *told)

    def _told_description(self, build: Build) -> None:
        for line in build.description.splitlines():
            if line.strip():
                self._line(line.strip(), build)


def _meaning(result: str) -> tuple[Status, str]:
    """Return the status of a build that is not green, and its result in words."""
    words = {"ABORTED": "aborted", "UNSTABLE": "unstable: something in it failed", "NOT_BUILT": "not built: a newer build took its place"}
    return Status.ABORTED if result == "ABORTED" else Status.FAILED, words.get(result, result.lower())


def _ends(deadline: float | None) -> float | None:
    return None if deadline is None else time.monotonic() + deadline


def _left(what: str, again: str) -> Interrupted:
    return Interrupted(f"interrupted; {what}", next_step=f"Follow it again: {again}")
