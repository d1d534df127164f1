"""What people are told of the tasks of a run while it is followed: each state with the time it took, and the logs of those that fail."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from trainshed import files
from trainshed.console import counted, spoken
from trainshed.errors import Interrupted, TrainshedError
from trainshed.stages.context import Context
from trainshed.tools.kubeflow_records import Run, Task

_LOGS = 10
_RETRIED = "-retry-"
"""Part of the name of a pod whose task is tried again when it fails; each attempt has a pod of its own."""
_TAIL = 10
_NAME_LIMIT = 120
_WAITING = frozenset({"PENDING", ""})
_OVER = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})


@dataclass
class _Seen:
    """A task as it was last told. ``wanted`` is the task whose log is still to be had."""

    state: str = ""
    node: str = ""
    attempt: int = 1
    cached: bool = False
    wanted: Task | None = None


class TasksTold:
    """The tasks of one run.

    Args:
        context: the command's room.
        name: of the pipeline.
        logs: where the logs of failed tasks are put, by task.
    """

    def __init__(self, context: Context, name: str, logs: dict[str, Path]) -> None:
        self._context, self._name, self._logs = context, name, logs
        self._seen: dict[str, _Seen] = {}
        self._shown: set[str] = set()
        self._asked: set[str] = set()
        self._unasked = 0
        self._pods: tuple[Run | None, dict[str, str]] = (None, {})

    @property
    def running(self) -> list[str]:
        """Return the tasks that run."""
        return [key for key, seen in self._seen.items() if seen.state == "RUNNING"]

    def tell(self, run: Run) -> bool:
        """Tell what changed since the last time; return whether anything did."""
        changed = False
        inner = {id(task) for task in failed_tasks(run)}
        for key, task in _keyed(run):
            seen = self._seen.setdefault(key, _Seen())
            retried = self._retried(run, key, task, seen)
            if task.state == seen.state or (task.state in _WAITING and seen.state in _WAITING):
                changed = changed or retried
                continue
            changed = True
            self._tell(key, task, seen)
            if task.state == "FAILED" and id(task) in inner:
                self._log(run, key, task, seen)
        return changed

    def finish(self, run: Run) -> None:
        """Tell what is known at the end only: cache hits, and logs that were not there before."""
        cached = [key for key, task in _keyed(run) if task.cached and not self._seen.setdefault(key, _Seen()).cached]
        if cached:
            self._line(f"{counted(cached, 'step')} from the cache: {', '.join(cached)}")
        self._pods = (run, {task.name: task.node for task in run.tasks})
        for key, seen in self._seen.items():
            if seen.wanted is not None and not self._keep(run, key, seen.wanted, seen):
                self._line(f"no log of {key}: Kubeflow has none (any more); its pod is gone, or it never had one")
        if self._unasked:
            self._line(f"{self._unasked} more tasks failed; the logs of the first {_LOGS} were asked for")
        self.close()

    def close(self) -> None:
        """Take the tasks off the table of what runs."""
        for key in list(self._shown):
            self._hide(key)

    def _retried(self, run: Run, key: str, task: Task, seen: _Seen) -> bool:
        """Tell of another attempt, which has another pod, or comes after an end; the log of the former one is kept."""
        before, seen.node = seen.node, task.node
        another = before != task.node and _RETRIED in before and _RETRIED in task.node
        if not another and not (seen.state in _OVER and task.state not in _OVER):
            return False
        if another and seen.state not in _OVER:
            self._log(run, key, replace(task, node=before, state=""), seen)
        seen.attempt, seen.wanted = seen.attempt + 1, None
        self._line(f"{key} is tried again (attempt {seen.attempt})")
        return True

    def _tell(self, key: str, task: Task, seen: _Seen) -> None:
        seen.state, seen.cached = task.state, task.cached
        if task.state == "RUNNING":
            self._show(key, seen)
            return
        self._hide(key)
        if task.state not in _WAITING:
            self._line(f"{key} {task.state}{_took(task)}" + (f": {task.error}" if task.error else ""))

    def _show(self, key: str, seen: _Seen) -> None:
        again = f"attempt {seen.attempt}" if seen.attempt > 1 else ""
        self._shown.add(key)
        if not self._context.console.show(f"{self._name}: {key}", "task", again):
            self._line(f"{key} RUNNING")

    def _hide(self, key: str) -> None:
        if key in self._shown:
            self._shown.discard(key)
            self._context.console.hide(f"{self._name}: {key}", "task")

    def _log(self, run: Run, key: str, task: Task, seen: _Seen) -> None:
        """Keep the log of a task that has just failed, and show its end: the run may go on for hours beside it."""
        if len(self._asked) >= _LOGS and key not in self._asked:
            self._unasked += 1
            return
        self._asked.add(key)
        if not self._keep(run, key, task, seen):
            seen.wanted = task

    def _keep(self, run: Run, key: str, task: Task, seen: _Seen) -> bool:
        client = self._context.kubeflow
        try:
            text = client.task_log(run.id, task.node) if task.node else None
            pod = "" if text else self._pod(run, task)
            text = text or (client.task_log(run.id, pod) if pod not in {"", task.node} else None)
        except Interrupted:
            raise
        except TrainshedError as error:
            self._line(f"the log of {key} could not be read: {error.message}")
            return False
        if not text:
            return False
        seen.wanted = None
        project = self._context.config.project
        log = project.work_dir / "logs" / f"{self._name}.{_file_name(key, seen.attempt)}.log"
        files.write_text(log, self._context.console.mask(text))
        self._logs[key] = log
        self._context.console.tail(project.shown(log), lines=_TAIL)
        return True

    def _pod(self, run: Run, task: Task) -> str:
        """Return the pod of a task that failed as the metadata store knows it: pods with labels of their own have other names."""
        if task.state != "FAILED":  # an attempt that another has followed, of which alone the store knows
            return ""
        if self._pods[0] is not run:
            self._pods = (run, {})  # a store that is away is not asked for each of them
            self._pods = (run, {each.name: each.node for each in self._context.kubeflow.with_outputs(run).tasks})
        return self._pods[1].get(task.name, "")

    def _line(self, text: str) -> None:
        self._context.console.line(f"launch {self._name}: {text}")


def failed_tasks(run: Run) -> list[Task]:
    """Return the tasks that failed by themselves: those around them (nested pipelines, loops) fail with them."""
    wrong = [task for task in run.tasks if task.state == "FAILED"]
    around = {name[:index] for name in (task.name for task in wrong) for index, letter in enumerate(name) if letter == "."}
    return [task for task in wrong if task.name not in around]


def seconds_of(task: Task) -> float | None:
    """Return how long a task took; None while it runs, and when the server's clock went backwards."""
    try:
        taken = (datetime.fromisoformat(task.ended) - datetime.fromisoformat(task.started)).total_seconds()
    except (ValueError, TypeError):
        return None
    return taken if taken >= 0 else None


def _took(task: Task) -> str:
    seconds = seconds_of(task)
    return (f" in {spoken(seconds)}" if seconds is not None else "") + (" (cache hit)" if task.cached else "")


def _keyed(run: Run) -> Iterator[tuple[str, Task]]:
    """Walk the tasks under names of their own: where two have one name (iterations, to some servers) the later are numbered."""
    counted: Counter[str] = Counter()
    for task in run.tasks:
        counted[task.name] += 1
        yield (task.name if counted[task.name] == 1 else f"{task.name} #{counted[task.name]}"), task


def _file_name(key: str, attempt: int) -> str:
    name = re.sub(r"[^\w.-]+", "-", key)[:_NAME_LIMIT]
    return name if attempt == 1 else f"{name}.{attempt}"
