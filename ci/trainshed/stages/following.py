"""Following runs of Kubeflow to their ends: each task's state as it changes, the logs of those that fail, an end to it when we end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainshed.errors import Canceled, Interrupted, NothingSelected, RemoteError, TrainshedError, WorkFailed
from trainshed.stages.context import Context
from trainshed.stages.tasks_told import TasksTold, failed_tasks
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import MalformedAnswer, NotFound, Run
from trainshed.tools.kubeflow_requests import Unclear

_FIRST_PAUSE, _LONGEST_PAUSE, _LOCAL_PAUSE = 1.0, 15.0, 0.5
_GROWTH = 1.5
_TASKS_PER_SECOND = 100.0
"""A thousand tasks are asked for every ten seconds: the answer has all of them."""
_SHARE = 4.0
"""A server that takes a second for an answer, or makes us wait one (429), is left alone for four."""
_AGE_SHARE = 30.0
"""A run that has been followed for five minutes is asked for every ten seconds."""
_PATIENCE_SECONDS = 60.0
_CANCELING_SECONDS = 900.0
_LOOKS_AFTER_END, _LOOK_PAUSE = 3, 0.5
_NAMED = 5
_NEVER_ENDED = "1970-01-01"
_SAID = {
    "PAUSED": "the run is PAUSED in Kubeflow; it goes on when somebody resumes it there",
    "CANCELING": "the run is CANCELING: somebody ends it in Kubeflow",
}
_USUAL = frozenset({"PENDING", "RUNNING", ""})


def _now() -> float:
    return time.monotonic()


@dataclass
class Pace:
    """How often one run is asked for: less often while nothing happens, the more tasks it has, and the longer it takes."""

    first: float
    longest: float
    pause: float = 0.0
    due: float = 0.0
    began: float = field(default_factory=_now)

    def answered(self, *, changed: bool, tasks: int, took: float) -> None:
        """Set when to ask again after an answer."""
        now = time.monotonic()
        wanted = self.pause / 2 if changed else self.pause * _GROWTH
        self._wait(max(self.first, wanted, tasks / _TASKS_PER_SECOND, took * _SHARE, (now - self.began) / _AGE_SHARE))

    def unanswered(self) -> None:
        """Set when to ask again after a failure: 429, 503 and a server that is away are all left alone for longer."""
        self._wait(max(self.first, self.pause * 2))

    def _wait(self, pause: float) -> None:
        self.pause = min(self.longest, pause)
        self.due = time.monotonic() + self.pause * random.uniform(0.9, 1.1)  # noqa: S311 - spreads clients, hides nothing


@dataclass
class Followed:
    """One run that is followed.

    ``logs`` are those of the tasks that failed, ``log`` the first of them. ``error`` says why the following ended before the run did;
    ``unread`` why its outputs (parameters, artifacts, metrics, cache hits) are not known.
    """

    name: str
    run: Run
    log: Path | None = None
    error: TrainshedError | None = None
    unread: TrainshedError | None = None
    logs: dict[str, Path] = field(default_factory=dict)
    state: str = ""
    away_since: float | None = None
    canceling_since: float | None = None

    @property
    def open(self) -> bool:
        """Tell whether there is more to wait for."""
        return not self.run.finished and self.error is None


def follow(context: Context, runs: list[Followed], *, ends: float | None, on_end: Callable[[Followed], None]) -> None:
    """Wait until every run is finished; ``on_end`` is called with each as soon as it is.

    Args:
        context: the command's room.
        runs: what to follow; changed in place.
        ends: time of `time.monotonic` at which to give up: the runs are terminated and their ``error`` is `WorkFailed`.
        on_end: called once for each run.

    Raises:
        Interrupted: SIGTERM or SIGINT arrived; what is still open is for the caller to `terminate`.
    """
    waiting = [_Watch(context, followed) for followed in runs]
    try:
        while waiting:
            for watch in waiting:
                watch.turn(ends)
                if not watch.followed.open:
                    on_end(watch.followed)
            waiting = [watch for watch in waiting if watch.followed.open]
            if waiting:
                process.pause(_until(min(watch.pace.due for watch in waiting), ends))
    finally:
        for watch in waiting:
            watch.told.close()


def terminate(context: Context, followed: Followed) -> str:
    """Ask for the end of a run, look whether it was heard, and say so.

    Returns:
        What is to be feared, empty when its end is certain or near; nothing is raised.
    """
    left = _ended(context.kubeflow, followed)
    if left:
        context.console.warning(f"{followed.name}: {left}")
    else:
        context.console.line(f"launch {followed.name}: run {followed.run.id} terminated ({followed.run.state})")
    return left


def outcome(run: Run, *, link: str = "") -> TrainshedError | None:
    """Return the error that a run's end stands for, one class and exit code per state; None for a success.

    A state that is no end is an error too: nobody may take a run that was not seen to succeed for a good one.

    Args:
        run: as it was last seen.
        link: where people look at it, see `KubeflowClient.link`.
    """
    who = _who(run)
    at = f"\n{link}" if link else ""
    match run.state:
        case "SUCCEEDED":
            return None
        case "FAILED":
            told = [f"{who} FAILED" + (f": {run.error}" if run.error else ""), *_failures(run)]
            return WorkFailed("\n".join(told) + at, next_step="Mend the step whose log tells why, then launch anew.")
        case "CANCELED":
            message = f"{who} was canceled, and not by this command" + (f": {run.error}" if run.error else "")
            return Canceled(f"{message}{at}", next_step="If it was none of yours, ask who ended it; then launch anew.")
        case "SKIPPED":
            message = f"{who} was SKIPPED: Kubeflow ran nothing of it" + (f": {run.error}" if run.error else "")
            return NothingSelected(f"{message}{at}", next_step="See its conditions and parameters, then launch anew.")
        case state:
            return RemoteError(f"{who} is {state or 'in no known state'}; its end was not seen{at}", next_step=_resume(run))


def _who(run: Run) -> str:
    return f"run {run.id}" + (f" '{run.name}'" if run.name else "")


def _failures(run: Run) -> list[str]:
    wrong = failed_tasks(run)
    told = [f"task {task.name} failed" + (f": {task.error}" if task.error else "") for task in wrong[:_NAMED]]
    return [*told, *([f"and {len(wrong) - _NAMED} more tasks failed"] if len(wrong) > _NAMED else [])]


def _resume(run: Run) -> str:
    return f"The run was left as it is; go on watching it: `trainshed launch --resume {run.id}`."


def _until(due: float, ends: float | None) -> float:
    """Return the seconds to wait, never past the deadline."""
    return max(0.0, min(due, due if ends is None else ends + 0.001) - time.monotonic())


class _Watch:
    """One run, with what was told of it."""

    def __init__(self, context: Context, followed: Followed) -> None:
        self.context, self.followed, self._client = context, followed, context.kubeflow
        local = context.config.environment.kubeflow.host is None
        self.pace = Pace(first=_LOCAL_PAUSE, longest=_LOCAL_PAUSE) if local else Pace(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        self.told = TasksTold(context, followed.name, followed.logs)
        if link := self._client.link(followed.run.id):
            self._line(link)

    def turn(self, ends: float | None) -> None:
        """Ask when it is time to; give up when the deadline has passed."""
        if time.monotonic() >= self.pace.due:
            self._look()
        if self.followed.open and ends is not None and time.monotonic() > ends:
            self._give_up()
        if not self.followed.open:
            self._finish()

    def _look(self) -> None:
        """Take the run's state; a service that is away for a moment (a restart) does not end the following."""
        followed, began = self.followed, time.monotonic()
        try:
            run = self._client.run(followed.run.id)
        except Interrupted:
            raise
        except TrainshedError as error:
            self._missed(error)
            return
        followed.away_since = None
        followed.error = _stranger(followed.run, run)
        if followed.error is None:
            changed = self._take(run)
            self.pace.answered(changed=changed, tasks=len(run.tasks), took=time.monotonic() - began)

    def _missed(self, error: TrainshedError) -> None:
        """Bear with a service for a minute, counted from the first failure: this machine may have been asleep before it."""
        followed = self.followed
        if isinstance(error, NotFound):
            message = f"{_who(followed.run)} is gone: it was deleted in Kubeflow while it was followed ({error.message})"
            followed.error = NotFound(message, next_step="Ask who deleted it, then launch anew.")
            return
        passing = isinstance(error, (Unclear, MalformedAnswer))  # not so a login that expired, or a right that is missing
        if passing and followed.away_since is None:
            self._line(f"no answer, trying again: {error.message}")
        followed.away_since = time.monotonic() if followed.away_since is None else followed.away_since
        if not passing or time.monotonic() - followed.away_since > _PATIENCE_SECONDS:
            steps = [error.next_step, _resume(followed.run)]
            message = f"{_who(followed.run)} can no longer be followed: {error.message}"
            followed.error = RemoteError(message, next_step=" ".join(filter(None, steps)))
        self.pace.unanswered()

    def _take(self, run: Run) -> bool:
        """Tell what is new, and how that stands with the end of it; return whether anything is."""
        followed = self.followed
        changed = self.told.tell(run)
        if run.state != followed.state:
            followed.state, changed = run.state, True
            self._tell_state(run)
        if run.state == "CANCELING":
            followed.canceling_since = followed.canceling_since or time.monotonic()
            if time.monotonic() - followed.canceling_since > _CANCELING_SECONDS:
                followed.error = RemoteError(
                    f"{_who(run)} has been CANCELING for {_CANCELING_SECONDS / 60:.0f} minutes; it may still be running",
                    next_step=_resume(run),
                )
        elif run.state == "FAILED" and followed.canceling_since is not None:
            # Kubeflow ends a workflow that was told to end as a failed one.
            run = replace(run, state="CANCELED")
        followed.run = run
        if _ended_strangely(run):
            followed.error = outcome(run, link=self._client.link(run.id))
        return changed

    def _tell_state(self, run: Run) -> None:
        if run.state in _SAID:
            self._line(_SAID[run.state])
        elif run.state not in _USUAL and not run.finished:
            told = f"run {run.id} is {run.state}, which nobody here knows; waiting on"
            self.context.console.warning(f"{self.followed.name}: {told}")

    def _give_up(self) -> None:
        followed = self.followed
        running = self.told.running or ["no task"]
        named = ", ".join(running[:_NAMED]) + (f" and {len(running) - _NAMED} more" if len(running) > _NAMED else "")
        left = _ended(self._client, followed)
        if followed.run.state == "SUCCEEDED":  # just in time
            self._take(followed.run)
            return
        message = f"the deadline passed; {named} was running; {left or 'the run was terminated'}"
        followed.error = WorkFailed(message, next_step=_resume(followed.run) if left else "Give more time: --deadline.")

    def _finish(self) -> None:
        """Read what is known at the end only: outputs, cache hits, logs that were not to be had before."""
        followed = self.followed
        if followed.run.finished and followed.error is None:
            try:
                followed.run = self._client.with_outputs(followed.run)
            except Interrupted:
                raise
            except TrainshedError as error:
                followed.unread = error
        self.told.finish(followed.run)
        followed.log = next(iter(followed.logs.values()), None)

    def _line(self, text: str) -> None:
        self.context.console.line(f"launch {self.followed.name}: {text}")


def _stranger(asked: Run, answer: Run) -> RemoteError | None:
    """Return an error when the answer is of another run, or of a run of another pipeline."""
    if answer.id != asked.id:
        wrong = f"asked for run {asked.id}, Kubeflow answered with run {answer.id}"
    elif asked.pipeline_id and answer.pipeline_id and answer.pipeline_id != asked.pipeline_id:
        wrong = f"{_who(answer)} is of pipeline {answer.pipeline_id}, not {asked.pipeline_id}"
    else:
        return None
    return RemoteError(wrong, next_step="Check the host of the environment and the id of the run.")


def _ended_strangely(run: Run) -> bool:
    """Tell whether a run has an end, in a state that nobody here knows."""
    known = run.finished or run.state in _USUAL or run.state in _SAID
    return not known and bool(run.ended) and not run.ended.startswith(_NEVER_ENDED)


def _ended(client: KubeflowClient, followed: Followed) -> str:
    """Ask for the end of a run and look at it; return what is to be feared, empty when its end is certain or near."""
    refusal = ""
    try:
        client.terminate(followed.run.id)
    except TrainshedError as error:  # also when it ended by itself just before: Kubeflow refuses to end it twice
        refusal = error.message
    for look in range(_LOOKS_AFTER_END):
        try:
            run = client.run(followed.run.id, surely=True)
        except NotFound:
            return ""
        except TrainshedError as error:
            return f"run {followed.run.id} may still be running: {refusal or error.message}"
        if run.finished or (run.state == "CANCELING" and not refusal):
            followed.run = run
            return ""
        if refusal:
            break
        if look < _LOOKS_AFTER_END - 1:
            time.sleep(_LOOK_PAUSE)  # process.pause gives up at once when a signal has arrived
    return f"run {followed.run.id} may still be running: " + (refusal or f"it was told to end, but is {run.state or 'in no known state'}")
