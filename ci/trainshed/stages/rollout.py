"""Following a deployment to its end: its own id, never whether the service looks stable, which it also does after a rollback."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.console import Console
from trainshed.errors import RemoteError, WorkFailed
from trainshed.services.spec import Service
from trainshed.tools import process
from trainshed.tools.ecs import Ecs, ServiceState, Task

_LOST_ANSWERS = 5
_TASKS_SHOWN = 3
_ROLLBACK_SECONDS = 900.0


@dataclass(kw_only=True)
class Watch:
    """One deployment of one service. ``ends`` is on the monotonic clock; ``log`` takes all that is seen."""

    ecs: Ecs
    console: Console
    service: Service
    deployment: str
    revision: str
    log: Path
    ends: float | None = None
    seen: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Show a line, and keep it in the log."""
        self.console.line(f"  {self.service.name}: {text}")
        self.keep(text)

    def keep(self, text: str) -> None:
        """Keep a line in the log only."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def judge(  # noqa: PLR0911 - one line per way to end
    state: ServiceState | None, deployment: str, revision: str, *, owns_count: bool
) -> str | None:
    """Tell how a deployment stands: None while it goes on, an empty text when it is done, else what is wrong.

    ``owns_count`` is False where autoscaling moves the count meanwhile.
    """
    if state is None:
        return "the service was deleted meanwhile"
    own, primary = state.deployment(deployment), state.primary
    if own is None:
        runs = primary.revision if primary is not None else "nothing"
        return f"ECS gave the deployment up: {short(runs)} runs instead"
    if own.rollout == "FAILED":
        return own.reason or "the deployment failed"
    if primary is not own:
        return f"another deployment took its place: {short(primary.revision) if primary is not None else 'nothing'}"
    if own.rollout != "COMPLETED":
        return None
    if own.revision != revision:
        return f"{short(own.revision)} runs, not {short(revision)}"
    return None if owns_count and state.running < state.desired else ""


def follow(watch: Watch) -> str:
    """Follow a deployment to its end; return an empty text, or what went wrong with the reasons of stopped tasks.

    Raises:
        WorkFailed: the deadline passed; the deployment goes on.
        RemoteError: ECS gave no answer several times in a row.
    """
    lost = 0
    while True:
        try:
            state = watch.ecs.service(watch.service.name)
            lost = 0
        except RemoteError as error:
            lost += 1
            if lost >= _LOST_ANSWERS:
                raise
            watch.keep(error.message)
        else:
            _show_events(watch, state)
            verdict = judge(state, watch.deployment, watch.revision, owns_count=watch.service.autoscaling is None)
            if verdict is not None:
                return verdict and _explained(watch, verdict, state)
        if watch.ends is not None and time.monotonic() > watch.ends:
            stopped = _stopped(watch)
            raise WorkFailed(
                f"{watch.service.name}: the deadline passed before {short(watch.revision)} was rolled out{stopped}; ECS goes on",
                next_step=f"Look at the service's events, or run `trainshed deploy {watch.service.file.parent.name}` again to follow on.",
            )
        process.pause(watch.ecs.poll)


def roll_back(watch: Watch, previous: str | None) -> str:
    """Go back to the previous revision, image and model as the pair that it is; tell how that ended."""
    name = watch.service.name
    if previous is None:
        watch.ecs.update_service(name, watch.revision, {"desiredCount": 0})
        return "there is no revision to go back to: the service was scaled to 0"
    state = watch.ecs.update_service(name, previous, {})
    own = state.primary
    if own is None:
        return f"going back to {short(previous)}"
    watch.note(f"going back to {short(previous)}")
    back = Watch(
        ecs=watch.ecs,
        console=watch.console,
        service=watch.service,
        deployment=own.id,
        revision=previous,
        log=watch.log,
        ends=time.monotonic() + _ROLLBACK_SECONDS,
        seen=watch.seen,
        shown=watch.shown,
    )
    problem = follow(back)
    return f"going back to {short(previous)} failed: {problem}" if problem else f"rolled back to {short(previous)}"


def wrong_images(watch: Watch, digest: str) -> list[str]:
    """Read back which images the deployment's tasks run; list those that are not the locked one."""
    tasks = [task for task in watch.ecs.tasks(watch.service.name) if task.revision == watch.revision and task.status == "RUNNING"]
    running = [(task, container) for task in tasks for container in task.containers if container.name == watch.service.name]
    return [
        f"task {task.id} runs {container.digest or 'an image that ECS does not name'}, not {digest}"
        for task, container in running
        if container.digest != digest
    ]


def short(revision: str) -> str:
    """Return ``family:revision`` of a task definition's ARN."""
    return revision.rpartition("/")[2]


def _show_events(watch: Watch, state: ServiceState | None) -> None:
    for event in reversed(state.events if state is not None else ()):
        if event.id not in watch.seen:
            watch.seen.add(event.id)
            watch.note(event.message)


def _explained(watch: Watch, verdict: str, state: ServiceState | None) -> str:
    """Add why tasks stopped, and what the service falls back on."""
    text = verdict + _stopped(watch)
    primary = state.primary if state is not None else None
    if primary is not None and primary.id != watch.deployment:
        text += f"\nECS rolled back to {short(primary.revision)}, which keeps the traffic"
        _await(watch, primary.id)
    return text


def _await(watch: Watch, deployment: str) -> None:
    """Wait until ECS's own rollback is over, so that the next command finds a settled service; not past the deadline."""
    ends = watch.ends if watch.ends is not None else time.monotonic() + _ROLLBACK_SECONDS
    while time.monotonic() < ends:
        state = watch.ecs.service(watch.service.name)
        _show_events(watch, state)
        found = state.deployment(deployment) if state is not None else None
        if found is None or found.rollout != "IN_PROGRESS":
            return
        process.pause(watch.ecs.poll)


def _stopped(watch: Watch) -> str:
    """Return why the deployment's tasks stopped, a line each; the last lines of their logs go to the log file."""
    tasks = [task for task in watch.ecs.tasks(watch.service.name, stopped=True) if task.started_by == watch.deployment]
    lines = []
    for task in tasks[-_TASKS_SHOWN:]:
        lines.append(f"\ntask {task.id[:8]} stopped: {task.why}")
        _keep_log(watch, task)
    return "".join(lines)


def _keep_log(watch: Watch, task: Task) -> None:
    if task.id in watch.shown:
        return
    watch.shown.add(task.id)
    watch.keep(f"task {task.id} stopped: {task.why}; its last lines:")
    for line in watch.ecs.log_tail(task, watch.service.name, watch.service.log_group):
        watch.keep(f"  {line}")
