"""The runs of the embedded Kubeflow: one child process each, which outlives the server and is found again by the next one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trainshed import files, owner, settings
from trainshed.local.kubeflow.store import now

FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED"})
GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.1
_GONE = "the run's files are gone"
_LONGEST_NAME = 180


def read_status(folder: Path) -> dict[str, Any]:
    """Return ``{"state", "error", "finished_at", "tasks": [...]}`` of a run's folder; FAILED when there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "status.json").read_bytes())
    except (OSError, ValueError):
        return {"state": "FAILED", "error": _GONE, "tasks": []}
    return found


def write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write the status of a run, whole."""
    files.write_json(folder / "status.json", status)


def left_over(folder: Path) -> list[str]:
    """Return the runs below a folder of runs that have not come to their end."""
    return [file.parent.name for file in sorted(folder.glob("*/status.json")) if read_status(file.parent)["state"] not in FINAL]


def log_of(folder: Path, task: str) -> Path:
    """Return the log of a task."""
    return folder / "logs" / f"{file_name(task)}.log"


def file_name(task: str) -> str:
    """Return the name that a task's files have: its path, or as much of a long one as a file system takes."""
    return task if len(task) <= _LONGEST_NAME else f"{task[: _LONGEST_NAME - 40]}-{hashlib.sha256(task.encode()).hexdigest()[:32]}"


def task_states(specification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tasks of a pipeline and of those nested in it by path, all PENDING, in an order in which they can run.

    A loop is one task with the tasks of its ``body``, until it is known how often it runs.
    """
    return _states(specification, specification["root"], "")


def _states(specification: Mapping[str, Any], component: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    tasks = (component.get("dag") or {}).get("tasks") or {}
    found: list[dict[str, Any]] = []
    for task in _ordered(tasks):
        reference = (tasks[task].get("componentRef") or {}).get("name", "")
        nested = (specification.get("components") or {}).get(reference, {})
        one = {"name": f"{prefix}{task}", "state": "PENDING"}
        if {"parameterIterator", "artifactIterator"} & set(tasks[task]):
            found.append({**one, "body": _states(specification, nested, "") if "dag" in nested else [{**one, "name": ""}]})
        else:
            found += _states(specification, nested, f"{prefix}{task}.") if "dag" in nested else [one]
    return found


def _ordered(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    done: dict[str, None] = {}

    def visit(name: str, above: frozenset[str]) -> None:
        for needed in sorted(tasks[name].get("dependentTasks") or ()):
            if needed in tasks and needed not in above:
                visit(needed, above | {name})
        done[name] = None

    for name in tasks:
        visit(name, frozenset())
    return list(done)


class Runs:
    """Starts, watches and ends the children.

    Args:
        folder: one folder per run lies in it.
        engine: address of the container engine; None is the client's own default.
        network: of the tasks' containers, ``none`` or ``bridge``.
    """

    def __init__(self, folder: Path, *, engine: str | None, network: str = "none") -> None:
        self._folder, self._engine, self._network = folder, engine, network
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watchers: dict[str, threading.Thread] = {}
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self._folder / run_id

    def start(self, run_id: str, specification: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Start a run in a child process of its own session."""
        folder = self.folder(run_id)
        request = {
            "run_id": run_id,
            "specification": specification,
            "parameters": parameters,
            "engine": self._engine,
            "network": self._network,
        }
        files.write_json(folder / "request.json", request)
        write_status(folder, {"state": "PENDING", "error": "", "tasks": task_states(specification)})
        (folder / "home").mkdir(exist_ok=True)
        # The mark of the daemon stays with the server: a run is not to be taken for a second server.
        inherited = {name: value for name, value in settings.child_environment().items() if not name.startswith("_TRAINSHED_")}
        environment = {**inherited, "HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
        if self._engine:
            environment["DOCKER_HOST"] = self._engine
        with (folder / "runner.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own module
                [settings.interpreter(), "-m", "trainshed.local.kubeflow.runner", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._children[run_id] = child
        self._watch(run_id, child.wait)

    def terminate(self, run_id: str) -> None:
        """Ask a run to end; its child ends its containers first."""
        folder = self.folder(run_id)
        if read_status(folder)["state"] in FINAL:
            return
        files.write_text(folder / "terminate", now())
        self._signal(run_id, signal.SIGTERM)
        threading.Thread(target=self._insist, args=(run_id,), daemon=True).start()

    def terminating(self, run_id: str) -> bool:
        """Tell whether the end of a run was asked for."""
        return (self.folder(run_id) / "terminate").exists()

    def adopt(self, run_ids: Iterable[str]) -> None:
        """Take over what an earlier server left: watch the children that live, and close the books of those that do not."""
        for run_id in run_ids:
            folder = self.folder(run_id)
            if read_status(folder)["state"] in FINAL:
                continue
            if self._adopted(folder) is None:
                self._finish(run_id, "the process of the run ended with the server that started it")
            else:
                self._watch(run_id, lambda folder=folder: self._until_gone(folder))  # type: ignore[misc]

    def close(self) -> None:
        """End every run, as the machine's owner asked for it."""
        watchers = dict(self._watchers)
        for run_id in watchers:
            self.terminate(run_id)
        for watcher in watchers.values():
            watcher.join(GRACE_SECONDS * 3)

    def _watch(self, run_id: str, until_ended: Callable[[], object]) -> None:
        def watch() -> None:
            until_ended()
            self._finish(run_id, "the process of the run ended without a result")
            self._children.pop(run_id, None)
            self._watchers.pop(run_id, None)

        self._watchers[run_id] = watcher = threading.Thread(target=watch, daemon=True, name=f"watch {run_id}")
        watcher.start()

    def _adopted(self, folder: Path) -> int | None:
        """Return the process that an earlier server started for a run, if it lives."""
        with contextlib.suppress(OSError):
            mark = (folder / "owner").read_text(encoding="utf-8")
            return int(mark.split(":")[1]) if owner.alive(mark) else None
        return None

    def _until_gone(self, folder: Path) -> None:
        while self._adopted(folder) is not None:
            time.sleep(_POLL_SECONDS)

    def _signal(self, run_id: str, number: signal.Signals) -> None:
        child = self._children.get(run_id)
        process_id = child.pid if child is not None and child.poll() is None else self._adopted(self.folder(run_id))
        if process_id is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process_id, number)

    def _insist(self, run_id: str) -> None:
        """Kill a child that does not end in time."""
        time.sleep(GRACE_SECONDS)
        self._signal(run_id, signal.SIGKILL)

    def _finish(self, run_id: str, reason: str) -> None:
        """Remove leftovers, and give the run a final state where its child could not."""
        folder = self.folder(run_id)
        status = read_status(folder)
        if status["state"] in FINAL:
            return
        with contextlib.suppress(Exception):  # an engine that cannot be reached has nothing running that could be removed
            from trainshed.local.kubeflow.containers import Containers

            Containers(self._engine, run_id=run_id, network=self._network).remove_all()
        canceled = self.terminating(run_id)
        state = "CANCELED" if canceled else "FAILED"
        write_status(folder, settled(status, state, "the run was terminated" if canceled else f"{reason}: {_tail(folder)}"))


def settled(status: Mapping[str, Any], state: str, error: str) -> dict[str, Any]:
    """Return a final status: a task that was running shares the fate of the run, one that never began is skipped."""
    ends = {"RUNNING": state, "PENDING": "SKIPPED"}
    tasks = [{**task, "state": ends.get(task["state"], task["state"])} for task in status["tasks"]]
    return {"state": state, "error": "" if state == "SUCCEEDED" else error, "finished_at": now(), "tasks": tasks}


def _tail(folder: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (folder / "runner.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
    return "it left no log"
