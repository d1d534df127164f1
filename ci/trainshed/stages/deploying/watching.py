"""One deployment that is watched: what is new is told once, as it happens: events, stopped tasks with their reasons and logs, progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from trainshed.console import Console, spoken
from trainshed.errors import UsageError
from trainshed.services.spec import Service
from trainshed.tools.ecs import Deployment, Ecs, ServiceState, Task, short

_TASKS_SHOWN = 3
_EVENTS_SHOWN = 3
_QUIET_SECONDS = 30.0
_MANY = 3
_BROKEN = frozenset({"TaskFailedToStart", "EssentialContainerExited"})
_BROKEN_REASONS = ("CannotPullContainerError", "ResourceInitializationError")


@dataclass(kw_only=True)
class Watch:
    """One deployment of one service.

    ``ends`` is on the monotonic clock; ``log`` takes all that is seen; ``again`` says how to take the deployment up;
    ``created`` is when ECS says that the deployment began;
    ``seen`` are the events that were told of, ``stopped`` the deployment's tasks that were; ``state`` is what the last look saw.
    """

    ecs: Ecs
    console: Console
    service: Service
    deployment: str
    revision: str
    log: Path
    again: str
    created: datetime | None = None
    ends: float | None = None
    seen: set[str] = field(default_factory=set)
    stopped: dict[str, Task] = field(default_factory=dict)
    state: ServiceState | None = None
    _began: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)
    _failed: int = 0
    _unread: set[str] = field(default_factory=set)
    _blind: bool = False
    _stopping: bool = False
    _warned: bool = False

    def note(self, text: str) -> None:
        """Show a line, and keep it in the log."""
        self._told = time.monotonic()
        self.console.line(f"  {self.service.name}: {text}")
        self.keep(text)

    def keep(self, text: str) -> None:
        """Keep a line in the log only."""
        write_line(self.log, text)

    def tell(self, state: ServiceState | None) -> None:
        """Tell what is new since the last look."""
        self.state = state
        news = self.tell_events(state)
        own = state.deployment(self.deployment) if state is not None else None
        if news or self._stopping or (own is not None and own.failed != self._failed):
            self.look_at_stopped()
            self._failed = own.failed if own is not None else self._failed
        if own is not None and time.monotonic() - self._told >= _QUIET_SECONDS:
            self.note(_progress(own, time.monotonic() - self._began))

    def look_at_stopped(self, *, all_of_them: bool = False) -> None:
        """Tell of the deployment's tasks that stopped since the last look, with the ends of their logs.

        One that is about to stop is told of once its exit code is known, or with ``all_of_them``. Who may not list tasks learns it once,
        and is told no reasons.
        """
        if self._blind:
            return
        try:
            found = self.ecs.tasks(self.service.name, stopped=True)
        except UsageError as error:
            self._blind = True
            self.note(f"why tasks stop cannot be told: {error.message}")
            return
        fresh = [task for task in found if task.started_by == self.deployment and task.id not in self.stopped]
        told = [task for task in fresh if all_of_them or _over(task)]
        self._stopping = len(told) < len(fresh)
        for task in told:
            self.stopped[task.id] = task
            self.note(f"task {task.id[:8]} stopped: {task.why}")
            self._keep_logs(task)
        if len(self.broken()) >= _MANY and not self._warned:
            self._warned = True
            self.note("its tasks end again and again; as long as they start well ECS may go on for ever: a deadline or fail-early ends it")

    def reasons(self) -> str:
        """Return why the last tasks stopped, each on a line of its own, after a line break."""
        self.look_at_stopped(all_of_them=True)
        for name in list(self._unread):  # CloudWatch is late by seconds
            self._keep_logs(self.stopped[name])
        shown = list(self.stopped.values())[-_TASKS_SHOWN:]
        return "".join(f"\ntask {task.id[:8]} stopped: {task.why}" for task in shown)

    def broken(self) -> list[Task]:
        """Return the stopped tasks that could not start, or whose essential container ended: a new one will hardly do better."""
        return [task for task in self.stopped.values() if task.stop_code in _BROKEN or task.stopped_reason.startswith(_BROKEN_REASONS)]

    def tell_events(self, state: ServiceState | None) -> bool:
        """Tell of the events that are new; return whether there were any."""
        fresh = [event for event in reversed(state.events if state is not None else ()) if event.id not in self.seen]
        for event in fresh:
            self.seen.add(event.id)
            self.note(event.message)
        return bool(fresh)

    def _keep_logs(self, task: Task) -> None:
        """Keep the end of each container's log; one that is still empty is asked for again at the end."""
        read = False
        for container in task.containers:
            lines = self.ecs.log_tail(task, container.name, self.service.log_group)
            if lines:
                read = True
                self.keep(f"task {task.id} {container.name}: its last lines:")
                self.keep("\n".join(f"  {line}" for line in lines))
        (self._unread.discard if read else self._unread.add)(task.id)


def last_events(state: ServiceState | None) -> str:
    """Return the last events, the oldest first, each on a line of its own, after a line break."""
    events = state.events[:_EVENTS_SHOWN] if state is not None else ()
    return "".join(f"\n{event.message}" for event in reversed(events))


def _over(task: Task) -> bool:
    return task.status == "STOPPED" or any(container.exit_code is not None for container in task.containers)


def _progress(own: Deployment, seconds: float) -> str:
    parts = [f"{own.running} of {own.desired} tasks run"]
    parts += [f"{own.pending} start"] if own.pending else []
    parts += [f"{own.failed} failed"] if own.failed else []
    return f"{short(own.revision)}: {', '.join(parts)}, for {spoken(seconds)}"


def write_line(log: Path, text: str) -> None:
    """Add a line to a log, which begins with its first one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")
