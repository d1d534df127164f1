"""What the ledger keeps of runs, and what is taken from it again: the runs that were accepted, and one whose command was killed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trainshed import owner
from trainshed.ledger.records import Event
from trainshed.pipelines.gates import Accepted, Judged
from trainshed.stages.context import Context
from trainshed.stages.launching.asking import Prepared
from trainshed.stages.tasks_told import seconds_of
from trainshed.tools import git
from trainshed.tools.kubeflow_records import NotFound, Run

EVENT = "run"
ASKED, STARTED = "ASKED", "STARTED"
LOOKED_AT = 200
_GOING_WELL = frozenset({"PENDING", "RUNNING", "SUCCEEDED"})


class History:
    """The runs of one environment, for one command."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._environment = context.config.environment.name
        self._head = git.head(context.config.project.root)

    def announce(self, prepared: Prepared, name: str, *, followed: bool) -> None:
        """Keep that a run of this name is about to be started: a command that is killed before it hears of it leaves a trace."""
        self.record(prepared, Run(id="", name=name, state=ASKED), state=ASKED, followed=followed)

    def record(self, prepared: Prepared, run: Run, *, state: str, good: bool = False, **more: Any) -> None:  # noqa: ANN401 - any JSON value
        """Keep a run as it stands. ``good`` is true for one that is accepted: what a service may take its model from."""
        outputs = {name: {"uri": artifact.uri, "type": artifact.type} for name, artifact in run.artifacts.items()}
        document = {
            **facts(self._context, prepared, run),
            "name": run.name,
            "created": run.created,
            "state": state,
            "good": good,
            "artifacts": outputs,
            "gates_wanted": [str(gate) for gate in prepared.gates if gate not in prepared.added],
            "pipeline_id": prepared.version.pipeline_id,
            "version_commit": prepared.commit,
            "version_build_url": prepared.build_url,
            "commit": self._head.commit,
            "branch": self._head.branch,
            "build_url": self._context.build_url,
            "owner": owner.mark(),
            **({"tasks": _tasks(run)} if run.finished else {}),
            **more,
        }
        self._context.ledger.record_event(EVENT, self._environment, prepared.name, run.id or run.name, document)

    def accepted(self, name: str, *, but: str, limit: int | None = LOOKED_AT) -> list[Accepted]:
        """Return the accepted runs of a pipeline, the newest first, by the own tier or above.

        Args:
            name: of the pipeline.
            but: the run that is judged.
            limit: how many records are looked at; None: all.
        """
        return [
            Accepted(run_id=run_id, metrics=_numbers(told.get("metrics")))
            for run_id, told in newest_first(self._context.ledger.events(EVENT, self._environment, name, limit=limit))
            if run_id != but and told.get("good") is True
        ]

    def known(self, run: Run) -> tuple[str, Mapping[str, Any]] | None:
        """Return the pipeline of a run, and the newest record of it; that it was about to be started is one too."""
        if not self._context.has_ledger:
            return None
        for key in filter(None, (run.id, run.name)):
            for event in self._context.ledger.events(EVENT, self._environment, key=key, limit=1):
                return event.name, event.document
        return None

    def uploaded(self, version_id: str) -> str | None:
        """Return the pipeline that a version was uploaded for, by the own tier or above."""
        if not self._context.has_ledger or not version_id:
            return None
        events = self._context.ledger.events("upload", self._environment)
        return next((event.name for event in events if event.document.get("version_id") == version_id), None)

    def left_behind(self, prepared: Prepared) -> Run | None:
        """Return the run that a killed command was following, if it was the same and has not failed since."""
        events = self._context.ledger.events(EVENT, self._environment, prepared.name, limit=1)
        told = events[0].document if events else {}
        wanted = {"version_id": prepared.version.id, "parameters": dict(prepared.parameters), "caching": prepared.caching}
        same = all(told.get(key) == value for key, value in wanted.items())
        same = same and told.get("experiment", prepared.experiment) == prepared.experiment
        left = told.get("state") in {ASKED, STARTED} and owner.alive(told.get("owner", "")) is False
        run = self._of(told) if same and left and told.get("followed") else None
        return run if run is not None and run.state in _GOING_WELL else None

    def _of(self, told: Mapping[str, Any]) -> Run | None:
        """Return the run of a record; of one that was about to be started nobody knows the id, nor whether it was."""
        if told["state"] == ASKED:
            return next(self._context.kubeflow.runs(name=told["name"]), None)
        try:
            return self._context.kubeflow.run(told["run_id"])
        except NotFound:
            return None


def newest_first(events: Iterable[Event]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the runs of records, the newest first, each with its last record: one that is taken up again is no newer run by it."""
    last: dict[str, Mapping[str, Any]] = {}
    for event in events:
        last.setdefault(event.key, event.document)
    return sorted(last.items(), key=lambda item: str(item[1].get("created") or ""), reverse=True)


def facts(context: Context, prepared: Prepared, run: Run) -> dict[str, Any]:
    """Return what is told of a run, in the ledger and in the report."""
    return {
        "run_id": run.id,
        "state": run.state,
        "link": context.kubeflow.link(run.id) if run.id else "",
        "version": prepared.version.name,
        "version_id": prepared.version.id,
        "experiment": prepared.experiment,
        "labels": dict(prepared.labels),
        "caching": prepared.caching,
        "parameters": dict(prepared.parameters),
        "metrics": {name: jsonable(value) for name, value in run.metrics.items()},
    }


def told(judged: Judged) -> dict[str, Any]:
    """Return a gate and what became of it."""
    against = {"best": judged.best, "best_run": judged.best_run} if judged.best_run else {}
    return {
        "gate": str(judged.gate),
        "passed": judged.passed,
        "value": None if judged.value is None else jsonable(judged.value),
        "message": judged.message,
        **against,
    }


def jsonable(number: float) -> float | str:
    """Return a number as JSON can hold it: PostgreSQL refuses NaN, and so do most readers."""
    return number if math.isfinite(number) else str(number)


def _tasks(run: Run) -> dict[str, Any]:
    return {task.name: {"seconds": seconds_of(task) or 0.0, "cached": task.cached, "state": task.state} for task in run.tasks}


def _numbers(metrics: object) -> dict[str, float]:
    """Return the numbers of a record, which another version of this program may have written."""
    if not isinstance(metrics, dict):
        return {}
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
