"""Following a run of Kubeflow to its end: each task's state as it changes, the log of one that fails, an end to it when we end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainshed import files
from trainshed.errors import Canceled, NothingSelected, RemoteError, TrainshedError, WorkFailed
from trainshed.stages.context import Context
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Run, Task

_FIRST_PAUSE, _LONGEST_PAUSE, _LOCAL_PAUSE = 0.2, 5.0, 0.5
_PATIENCE_SECONDS = 60.0
_QUIET = frozenset({"PENDING", ""})
_NAMED = 5


@dataclass
class Followed:
    """One run that is followed. ``log`` is that of the first task that failed; ``error`` says why the following ended early."""

    name: str
    run: Run
    log: Path | None = None
    error: TrainshedError | None = None
    seen: dict[str, str] = field(default_factory=dict)
    answered: float = field(default_factory=time.monotonic)

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
    client, pause = context.kubeflow, _FIRST_PAUSE
    slowest = _LOCAL_PAUSE if context.config.environment.kubeflow.host is None else _LONGEST_PAUSE
    waiting = list(runs)
    while waiting:
        for followed in waiting:
            _look(context, client, followed)
            if followed.open and ends is not None and time.monotonic() > ends:
                _give_up(client, followed)
            if not followed.open:
                on_end(followed)
        waiting = [followed for followed in waiting if followed.open]
        if waiting:
            process.pause(pause)
            pause = min(slowest, pause * 1.5)


def terminate(context: Context, followed: Followed) -> None:
    """Ask for the end of a run, and say so; a service that does not answer is said too, not raised."""
    try:
        context.kubeflow.terminate(followed.run.id)
    except TrainshedError as error:
        context.console.warning(f"run {followed.run.id} of {followed.name} may still be running: {error.message}")
    else:
        context.console.line(f"launch {followed.name}: run {followed.run.id} terminated")


def outcome(run: Run, *, link: str = "") -> TrainshedError | None:
    """Return the error that a run's end stands for, one class and exit code per state; None for a success.

    A state that is no end is an error too: nobody may take a run that was not seen to succeed for a good one.

    Args:
        run: as it was last seen.
        link: where people look at it, see `KubeflowClient.link`.
    """
    who = f"run {run.id}" + (f" '{run.name}'" if run.name else "")
    at = f"\n{link}" if link else ""
    match run.state:
        case "SUCCEEDED":
            return None
        case "FAILED":
            told = [f"{who} FAILED" + (f": {run.error}" if run.error else ""), *_failures(run)]
            return WorkFailed("\n".join(told) + at, next_step="Mend the step whose log tells why, then launch anew.")
        case "CANCELED":
            message = f"{who} was canceled in Kubeflow by somebody else" + (f": {run.error}" if run.error else "")
            return Canceled(f"{message}{at}", next_step="Ask who ended it, then launch anew.")
        case "SKIPPED":
            message = f"{who} was SKIPPED: Kubeflow ran nothing of it" + (f": {run.error}" if run.error else "")
            return NothingSelected(f"{message}{at}", next_step="See its conditions and parameters, then launch anew.")
        case state:
            return RemoteError(f"{who} is {state or 'in no known state'}; its end was not seen{at}", next_step=_resume(run))


def failed_tasks(run: Run) -> list[Task]:
    """Return the tasks that failed by themselves: those around them (nested pipelines, loops) fail with them."""
    wrong = [task for task in run.tasks if task.state == "FAILED"]
    inner = [f"{task.name}" for task in wrong]
    return [task for task in wrong if not any(name.startswith(f"{task.name}.") for name in inner)]


def _failures(run: Run) -> list[str]:
    wrong = failed_tasks(run)
    told = [f"task {task.name} failed" + (f": {task.error}" if task.error else "") for task in wrong[:_NAMED]]
    return [*told, *([f"and {len(wrong) - _NAMED} more tasks failed"] if len(wrong) > _NAMED else [])]


def _resume(run: Run) -> str:
    return f"Go on watching it: `trainshed launch --resume {run.id}`."


def _look(context: Context, client: KubeflowClient, followed: Followed) -> None:
    """Take the run's state; a service that is away for a moment (a restart) does not end the following."""
    try:
        followed.run = client.run(followed.run.id)
    except RemoteError as error:
        if time.monotonic() - followed.answered > _PATIENCE_SECONDS:
            followed.error = error
        return
    followed.answered = time.monotonic()
    for task in followed.run.tasks:
        if task.state in _QUIET or followed.seen.get(task.name) == task.state:
            continue
        followed.seen[task.name] = task.state
        context.console.line(f"launch {followed.name}: {task.name} {task.state}" + (f": {task.error}" if task.error else ""))
        if task.state == "FAILED" and followed.log is None:
            followed.log = _keep_log(context, client, followed, task.name)


def _keep_log(context: Context, client: KubeflowClient, followed: Followed, task: str) -> Path | None:
    try:
        text = client.task_log(followed.run.id, task)
    except RemoteError:
        return None
    if text is None:
        return None
    log = context.config.project.work_dir / "logs" / f"{followed.name}.{task}.log"
    files.write_text(log, text)
    return log


def _give_up(client: KubeflowClient, followed: Followed) -> None:
    running = ", ".join(task.name for task in followed.run.tasks if task.state == "RUNNING") or "no task"
    followed.error = WorkFailed(
        f"the deadline passed; {running} was running; the run was terminated", next_step="Give more time: --deadline."
    )
    try:
        client.terminate(followed.run.id)
    except RemoteError as error:
        followed.error = WorkFailed(f"the deadline passed; run {followed.run.id} may still be running: {error.message}")
