"""The runs of one command: started or taken up, followed, judged, recorded and shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trainshed.errors import Interrupted, RemoteError, TrainshedError, WorkFailed
from trainshed.pipelines import gates as gates_of
from trainshed.pipelines.gates import Judged
from trainshed.results import Case, Report, Result, Status, failed
from trainshed.stages import models
from trainshed.stages.context import Context
from trainshed.stages.following import Followed, follow, outcome, terminate
from trainshed.stages.launching import history, naming
from trainshed.stages.launching.asking import Prepared
from trainshed.stages.launching.history import STARTED, History
from trainshed.stages.tasks_told import seconds_of
from trainshed.tools import process
from trainshed.tools.kubeflow_records import Run

STAGE = "launch"
_ENDINGS = 16
"""So many runs are told to end at once: an aborted job has a few seconds."""


@dataclass
class _Launched:
    """A run that was started, or taken up again."""

    prepared: Prepared
    followed: Followed
    started: float = field(default_factory=time.monotonic)

    @property
    def run(self) -> Run:
        return self.followed.run


class Runs:
    """The runs of one command; ``follow_them`` tells whether it waits for their ends."""

    def __init__(self, context: Context, *, follow_them: bool, ends: float | None) -> None:
        self._context, self._follow_them, self._ends = context, follow_them, ends
        self._history = History(context)
        self._experiments: dict[str, str] = {}
        self._launched: dict[str, _Launched] = {}
        self._results: dict[str, Result] = {}

    def launch(self, prepared: Sequence[Prepared]) -> Report:
        """Start a run of each, and follow them when asked."""
        return self._report(prepared, lambda one: self._found(one) or self._create(one))

    def take_up(self, prepared: Prepared, run: Run) -> Report:
        """Follow a run that was started before; one that is finished is judged at once."""
        return self._report([prepared], lambda _: run)

    def _report(self, prepared: Sequence[Prepared], run_of: Callable[[Prepared], Run]) -> Report:
        interrupted = False
        try:
            for each in prepared:
                self._begin(each, run_of)
            process.pause(0)  # SIGTERM does not end the creation of a run, but this command
            if self._follow_them:
                runs = [one.followed for one in self._launched.values()]
                follow(self._context, runs, ends=self._ends, on_end=lambda ended: self._end(self._launched[ended.name]))
        except Interrupted:
            interrupted = True
            self._cancel_all()
        told = tuple(self._results[each.name] for each in prepared if each.name in self._results)
        return Report(stage=STAGE, results=told, interrupted=interrupted)

    def _begin(self, prepared: Prepared, run_of: Callable[[Prepared], Run]) -> None:
        self._context.console.start(prepared.name, STAGE, prepared.source)
        started = time.monotonic()
        try:
            one = _Launched(prepared=prepared, followed=Followed(name=prepared.name, run=run_of(prepared)), started=started)
            self._keep(one)
        except Interrupted:
            raise
        except TrainshedError as error:
            self._finish(failed(prepared.name, STAGE, error, seconds=time.monotonic() - started))
            return
        self._context.console.line(f"launch {prepared.name}: run {one.run.id}")
        if not self._follow_them:
            if link := self._context.kubeflow.link(one.run.id):
                self._context.console.line(f"launch {prepared.name}: {link}")
            self._finish(self._result(one, Status.DONE, cause=f"{prepared.source}; not followed"))

    def _keep(self, one: _Launched) -> None:
        """Record a run before it is followed, so that a command that is killed leaves a trace of it."""
        self._launched[one.prepared.name] = one
        try:
            self._record(one, followed=self._follow_them)
        except Interrupted:
            raise
        except TrainshedError as error:
            del self._launched[one.prepared.name]
            message = f"run {one.run.id} was started and goes on, but the ledger cannot keep it: {error.message}"
            raise RemoteError(message, next_step=_resume(one.run)) from error

    def _found(self, prepared: Prepared) -> Run | None:
        """Return the same run that a killed command has left behind."""
        run = self._history.left_behind(prepared) if self._follow_them else None
        if run is not None:
            self._context.console.line(f"launch {prepared.name}: taking up run {run.id}, whose command was killed")
        return run

    def _create(self, prepared: Prepared) -> Run:
        client, wanted = self._context.kubeflow, self._context.config.environment.kubeflow
        if prepared.experiment not in self._experiments:
            self._experiments[prepared.experiment] = client.experiment(prepared.experiment)
        name = naming.run_name(prepared.name)
        self._history.announce(prepared, name, followed=self._follow_them)
        description, left = naming.description(self._context, prepared)
        if left:
            self._context.console.warning(f"{prepared.name}: no room in the run's description for {'; '.join(left)}: the ledger keeps it")
        return client.create_run(
            prepared.version,
            prepared.parameters,
            name=name,
            experiment=self._experiments[prepared.experiment],
            pipeline_root=wanted.pipeline_root,
            service_account=wanted.service_account,
            description=description,
            specification=prepared.specification,
        )

    def _cancel_all(self) -> None:
        """End every run that is open; one that came to its end just before is told as not judged."""
        left = [one for one in self._launched.values() if one.followed.open]
        if left:
            with ThreadPoolExecutor(min(len(left), _ENDINGS)) as pool:
                feared = list(pool.map(lambda one: terminate(self._context, one.followed), left))
            for one, fear in zip(left, feared, strict=True):
                self._canceled(one, fear)
        for one in self._launched.values():
            if one.prepared.name not in self._results:
                self._finish(self._result(one, Status.ABORTED, message=_not_judged(one.run)))

    def _canceled(self, one: _Launched, fear: str) -> None:
        """Keep and tell what became of a run that was told to end; one that may go on is for the next command to take up."""
        ended = one.run.state == "SUCCEEDED"  # just before
        state = STARTED if fear else "SUCCEEDED" if ended else "CANCELED"
        try:
            self._record(one, state=state, followed=True)
        except TrainshedError as error:
            self._context.console.warning(f"the end of run {one.run.id} is not in the ledger: {error.message}")
        told = f"interrupted: {fear}" if fear else _not_judged(one.run) if ended else "interrupted: its run was told to end"
        self._finish(self._result(one, Status.ABORTED, message=told, state=one.run.state if fear else state))

    def _end(self, one: _Launched) -> None:
        """Judge a run that ended, record it and show it."""
        try:
            self._judge(one)
        except Interrupted:
            raise
        except TrainshedError as error:
            message = f"run {one.run.id} {one.run.state}, but that cannot be kept: {error.message}"
            self._fail(one, RemoteError(message, next_step=_resume(one.run)))

    def _judge(self, one: _Launched) -> None:
        run, followed = one.run, one.followed
        error = followed.error
        if error is not None:
            # Only a deadline ends the run; whoever comes next may take up one that could not be followed.
            ended = isinstance(error, WorkFailed)
            self._record(one, state="CANCELED" if ended else STARTED, followed=True)
            self._fail(one, error)
            return
        error = outcome(run, link=self._context.kubeflow.link(run.id))
        if error is None and followed.unread is not None and one.prepared.gates:
            message = f"run {run.id} SUCCEEDED, but its gates cannot be judged, for its outputs cannot be read: {followed.unread.message}"
            error = RemoteError(message, next_step=_resume(run))
        if error is not None:
            self._record(one, state=run.state)
            self._fail(one, error)
            return
        if followed.unread is not None:
            self._context.console.warning(f"{one.prepared.name}: the outputs of run {run.id} are not known: {followed.unread.message}")
        self._accept(one)

    def _accept(self, one: _Launched) -> None:
        """Hold a run that succeeded to its gates; of one that passes, the models that services take are known by their checksums."""
        run, prepared = one.run, one.prepared
        judged = self._judged(prepared, run)
        missed = [each.message for each in judged if not each.passed]
        told = [history.told(each) for each in judged]
        refused = self._keep_models(prepared, run) if prepared.known and not missed else None
        if refused is not None:
            self._record(one, state=run.state, gates=told, refused=refused.message)
            self._fail(one, refused, gates=told)
            return
        self._record(one, state=run.state, good=not missed and prepared.known, gates=told)
        if missed:
            self._fail(one, WorkFailed("\n".join(missed)), gates=told)
            return
        for each in judged:
            self._context.console.line(f"launch {prepared.name}: passed {each.message}")
        if not prepared.known:
            self._context.console.warning(f"{prepared.name}: run {run.id} is of an unknown version: its model is not taken for a service")
        self._finish(self._result(one, Status.DONE, cause=prepared.source, gates=told))

    def _keep_models(self, prepared: Prepared, run: Run) -> WorkFailed | None:
        """Return why a run cannot be accepted: its model is gone, or was changed."""
        try:
            for note in models.keep(self._context, prepared.name, run):
                self._context.console.warning(f"{prepared.name}: {note}")
        except WorkFailed as error:
            return error
        return None

    def _judged(self, prepared: Prepared, run: Run) -> list[Judged]:
        """Judge the gates; "there is no accepted run" is said only when all records were looked at."""
        judged: list[Judged] = []
        for limit in (history.LOOKED_AT, None):
            compared = any(gate.best for gate in prepared.gates)
            accepted = self._history.accepted(prepared.name, but=run.id, limit=limit) if compared else []
            judged = gates_of.evaluate(prepared.gates, run.metrics, accepted)
            if all(each.best_run or not each.gate.best for each in judged):
                break
        return judged

    def _fail(self, one: _Launched, error: TrainshedError, **more: Any) -> None:  # noqa: ANN401 - any JSON value
        self._finish(self._result(one, Status.FAILED, message=error.told, exit_code=error.exit_code, **more))

    def _result(
        self,
        one: _Launched,
        status: Status,
        *,
        cause: str = "",
        message: str = "",
        exit_code: int = WorkFailed.exit_code,
        **more: Any,  # noqa: ANN401 - any JSON value
    ) -> Result:
        run, log, name = one.run, one.followed.log, one.prepared.name
        tasks = [{"name": task.name, "state": task.state, "cached": task.cached} for task in run.tasks]
        return Result(
            name=name,
            stage=STAGE,
            status=status,
            cause=cause,
            message=message,
            seconds=time.monotonic() - one.started,
            log=self._context.config.project.shown(log) if log else None,
            details={**history.facts(self._context, one.prepared, run), "tasks": tasks, **more},
            cases=(*_cases(name, run), *_gate_cases(name, more.get("gates", ()))) if run.finished else (),
            exit_code=exit_code,
        )

    def _record(self, one: _Launched, *, state: str = STARTED, good: bool = False, **more: Any) -> None:  # noqa: ANN401 - any JSON value
        known = {} if one.prepared.known else {"known": False}
        self._history.record(one.prepared, one.run, state=state, good=good, **known, **more)

    def _finish(self, result: Result) -> None:
        self._results[result.name] = result
        self._context.console.end(result)


def _cases(name: str, run: Run) -> tuple[Case, ...]:
    """Return the tasks as test cases, for JUnit."""
    skipped = frozenset({"SKIPPED", "PENDING", "CANCELED"})
    return tuple(
        Case(
            name=task.name,
            suite=name,
            seconds=seconds_of(task) or 0.0,
            failure=(task.error or "failed") if task.state == "FAILED" else "",
            skipped=task.state.lower() if task.state in skipped else "",
        )
        for task in run.tasks
    )


def _gate_cases(name: str, told: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Return the gates as test cases; a gate that passed says against what."""
    return [
        Case(name=f"gate {gate['gate']}", suite=name, failure="" if gate["passed"] else gate["message"], output=gate["message"])
        for gate in told
    ]


def _not_judged(run: Run) -> str:
    return f"interrupted: run {run.id} {run.state}, and was not judged. {_resume(run)}"


def _resume(run: Run) -> str:
    return f"Judge it when that is mended: `trainshed launch --resume {run.id}`."
