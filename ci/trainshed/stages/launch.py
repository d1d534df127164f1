"""Launch: training runs of uploaded pipelines, with checked parameters, followed when asked, and held to their gates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainshed import files, owner
from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.pipelines import gates as gates_of
from trainshed.pipelines import parameters as parameters_of
from trainshed.results import Case, Report, Result, Status, failed
from trainshed.stages import upload
from trainshed.stages.context import Context
from trainshed.stages.following import Followed, follow, terminate
from trainshed.stages.references import References
from trainshed.tools import git
from trainshed.tools.kubeflow_records import NotFound, Run, Version


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that can be started: everything about it is checked. ``source`` says why it is this version."""

    name: str
    version: Version
    parameters: Mapping[str, Any]
    source: str


@dataclass
class _Launched:
    """A run that was started, or taken up again."""

    prepared: Prepared
    followed: Followed
    started: float = field(default_factory=time.monotonic)


def launch(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    params_file: Path | None = None,
    wait: bool | None = None,
    deadline: float | None = None,
    gates: Sequence[str] = (),
) -> Report:
    """Start a run of each pipeline.

    The version is that of the stamped file when the lock is of this tree; else the one that CI uploaded for this commit or branch,
    see `references.References`. SIGTERM and SIGINT end the runs that are followed, and the report says so.

    Args:
        context: the command's room.
        names: pipelines; empty: all.
        parameters: by name; texts are read as the pipeline's types. They win over ``params_file``.
        params_file: a YAML or JSON mapping of parameters.
        wait: follow the runs to their ends; by default only when there are gates.
        deadline: seconds until a followed run is terminated.
        gates: such as ``auc >= 0.80``, one or more lines each; a followed run that misses one is a failure.

    Raises:
        UsageError: before any run: an unknown pipeline or parameter, a value of a wrong type, a wrong gate, nothing uploaded.
    """
    wanted, from_file = options(gates=gates, wait=wait, params_file=params_file)
    ends = None if deadline is None else time.monotonic() + deadline
    given = {**from_file, **(parameters or {})}
    references = References(context)
    prepared = [_prepare(references, template.name, given) for template in upload.selected(context, names)]
    stage = _Launch(context, wanted)
    return stage.run(prepared, follow_them=bool(wanted) if wait is None else wait, ends=ends)


def options(*, gates: Sequence[str], wait: bool | None, params_file: Path | None) -> tuple[list[gates_of.Gate], dict[str, Any]]:
    """Return the gates, and the parameters of the file.

    Raises:
        UsageError: a wrong gate, gates on a run that nobody follows, or a file that holds no parameters.
    """
    wanted = [gates_of.parse(line) for gate in gates for line in gate.splitlines() if line.strip()]
    if wanted and wait is False:
        raise UsageError("a gate is judged at the end of a run", next_step="Leave out --no-wait, or the gates.")
    if params_file is None:
        return wanted, {}
    text = files.read_text(params_file, what="the file of parameters")
    return wanted, parameters_of.read_file(text, place=str(params_file))


def _prepare(references: References, name: str, given: Mapping[str, Any]) -> Prepared:
    version, source = references.version(name)
    specification = version.spec.get("pipeline_spec", version.spec)
    values = parameters_of.check(parameters_of.definitions(dict(specification)), given, pipeline=name)
    return Prepared(name=name, version=version, parameters=values, source=source)


class _Launch:
    """The runs of one command."""

    def __init__(self, context: Context, gates: Sequence[gates_of.Gate]) -> None:
        self._context, self._gates = context, gates
        self._head = git.head(context.config.project.root)
        self._results: dict[str, Result] = {}

    def run(self, prepared: Sequence[Prepared], *, follow_them: bool, ends: float | None) -> Report:
        launched: dict[str, _Launched] = {}
        try:
            for each in prepared:
                self._start(each, launched, follow_them=follow_them)
            if follow_them:
                runs = [one.followed for one in launched.values()]
                follow(self._context, runs, ends=ends, on_end=lambda ended: self._end(launched[ended.name]))
        except Interrupted:
            for one in launched.values():
                self._cancel(one)
            told = tuple(self._results[each.name] for each in prepared if each.name in self._results)
            return Report(stage="launch", results=told, interrupted=True)
        return Report(stage="launch", results=tuple(self._results[each.name] for each in prepared))

    def _start(self, prepared: Prepared, launched: dict[str, _Launched], *, follow_them: bool) -> None:
        self._context.console.start(prepared.name, "launch", prepared.source)
        started = time.monotonic()
        try:
            run = (self._left_behind(prepared) if follow_them else None) or self._create(prepared)
        except Interrupted:
            raise
        except TrainshedError as error:
            self._finish(failed(prepared.name, "launch", error, seconds=time.monotonic() - started))
            return
        one = launched[prepared.name] = _Launched(prepared=prepared, followed=Followed(name=prepared.name, run=run), started=started)
        self._record(one, followed=follow_them)
        self._context.console.line(f"launch {prepared.name}: run {run.id}")
        if not follow_them:
            self._finish(self._result(one, Status.DONE, cause=f"{prepared.source}; not followed"))

    def _cancel(self, one: _Launched) -> None:
        if one.followed.open:
            terminate(self._context, one.followed)
            self._record(one, state="CANCELED")
            self._finish(self._result(one, Status.ABORTED, message="interrupted: its run was told to end", state="CANCELED"))

    def _create(self, prepared: Prepared) -> Run:
        client, wanted = self._context.kubeflow, self._context.config.environment.kubeflow
        return client.create_run(
            prepared.version,
            prepared.parameters,
            name=f"{prepared.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            experiment=client.experiment(self._context.config.project.name),
            service_account=wanted.service_account,
        )

    def _left_behind(self, prepared: Prepared) -> Run | None:
        """Return the run that a killed command was following, if it was the same and has not failed since."""
        events = self._context.ledger.events("run", self._context.config.environment.name, prepared.name, limit=1)
        told = events[0].document if events else {}
        same = told.get("version_id") == prepared.version.id and told.get("parameters") == dict(prepared.parameters)
        if not same or not told.get("followed") or told.get("state") != "STARTED" or owner.alive(told.get("owner", "")) is not False:
            return None
        try:
            run = self._context.kubeflow.run(told["run_id"])
        except NotFound:
            return None
        if run.state not in {"PENDING", "RUNNING", "SUCCEEDED"}:
            return None
        self._context.console.line(f"launch {prepared.name}: taking up run {run.id}, whose command was killed")
        return run

    def _end(self, one: _Launched) -> None:
        """Judge a run that ended, record it and show it."""
        run, followed = one.followed.run, one.followed
        judged = gates_of.evaluate(self._gates, run.metrics) if run.state == "SUCCEEDED" else []
        missed = [each.message for each in judged if not each.passed]
        if followed.error is not None:
            self._record(one, state="CANCELED", good=False)
            self._finish(self._failed(one, followed.error.message, followed.error.exit_code))
            return
        told = [{"gate": str(each.gate), "passed": each.passed, "value": each.value, "message": each.message} for each in judged]
        self._record(one, state=run.state, good=run.state == "SUCCEEDED" and not missed, gates=told)
        if run.state != "SUCCEEDED":
            self._finish(self._failed(one, f"run {run.id} {run.state}" + (f": {run.error}" if run.error else "")))
        elif missed:
            self._finish(self._failed(one, "\n".join(missed), gates=told))
        else:
            self._finish(self._result(one, Status.DONE, cause=one.prepared.source, gates=told))

    def _failed(self, one: _Launched, message: str, exit_code: int = WorkFailed.exit_code, **more: Any) -> Result:  # noqa: ANN401
        return self._result(one, Status.FAILED, message=message, exit_code=exit_code, **more)

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
        run, log = one.followed.run, one.followed.log
        return Result(
            name=one.prepared.name,
            stage="launch",
            status=status,
            cause=cause,
            message=message,
            seconds=time.monotonic() - one.started,
            log=self._context.config.project.shown(log) if log else None,
            details={**self._facts(one), "tasks": [{"name": task.name, "state": task.state} for task in run.tasks], **more},
            cases=(*_cases(one.prepared.name, run), *_gate_cases(one.prepared.name, more.get("gates", ()))) if run.finished else (),
            exit_code=exit_code,
        )

    def _facts(self, one: _Launched) -> dict[str, Any]:
        run, version = one.followed.run, one.prepared.version
        return {
            "run_id": run.id,
            "state": run.state,
            "version": version.name,
            "version_id": version.id,
            "parameters": dict(one.prepared.parameters),
            "metrics": run.metrics,
        }

    def _record(self, one: _Launched, *, state: str = "STARTED", good: bool = False, **more: Any) -> None:  # noqa: ANN401 - any JSON value
        """Keep the run. ``good`` is true for one that succeeded and passed its gates: what a service may take its model from."""
        run = one.followed.run
        outputs = {
            f"{task.name}.{name}": {"uri": artifact.uri, "type": artifact.type}
            for task in run.tasks
            for name, artifact in task.artifacts.items()
        }
        document = {
            **self._facts(one),
            "state": state,
            "good": good,
            "artifacts": outputs,
            "pipeline_id": one.prepared.version.pipeline_id,
            "commit": self._head.commit,
            "branch": self._head.branch,
            "build_url": self._context.build_url,
            "owner": owner.mark(),
            **more,
        }
        self._context.ledger.record_event("run", self._context.config.environment.name, one.prepared.name, run.id, document)

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
            seconds=_seconds(task.started, task.ended),
            failure=(task.error or "failed") if task.state == "FAILED" else "",
            skipped=task.state.lower() if task.state in skipped else "",
        )
        for task in run.tasks
    )


def _gate_cases(name: str, told: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Return the gates as test cases."""
    return [Case(name=f"gate {gate['gate']}", suite=name, failure="" if gate["passed"] else gate["message"]) for gate in told]


def _seconds(started: str, ended: str) -> float:
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    except ValueError:
        return 0.0
