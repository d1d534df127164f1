"""Schedule: Kubeflow's recurring runs become what is declared beside the pipelines, without a moment in which none is enabled.

A recurring run cannot be changed there. So the new one is created disabled, then enabled, and only then the old one is disabled and
deleted: whatever fails in between, one of them is enabled, and the next command goes on from what it finds. Only those are touched whose
description says that they are this project's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed, problems
from trainshed.ledger.leases import Lease
from trainshed.pipelines import parameters as parameters_of
from trainshed.pipelines import settings as settings_of
from trainshed.pipelines.settings import Profile, Schedule, Settings
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import recurring, upload
from trainshed.stages.context import Context
from trainshed.stages.recurring import Declared, Mark
from trainshed.stages.references import References
from trainshed.tools.kubeflow_records import Denied, NotFound, RecurringRun, Version

STAGE = "schedule"
_ELSEWHERE = "Name an environment with a Kubeflow of its own: --env NAME."


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One schedule's way: what is declared (None: nothing any more), and what of ours is there for it, the newest first."""

    mark: Mark
    declared: Declared | None
    kept: tuple[RecurringRun, ...]


VersionOf = Callable[[str], tuple[Version, str]]
"""Returns the version of a pipeline that its schedules run, and why it is this one."""


def schedule(
    context: Context,
    names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    deadline: float | None = None,
    version_of: VersionOf | None = None,
) -> Report:
    """Bring the recurring runs of the environment in force to what the settings files of the pipelines declare.

    Args:
        context: the command's room.
        names: pipelines; empty: all, and what was declared for pipelines that are gone is removed.
        dry_run: show what would be done and change nothing.
        deadline: seconds for all of it.
        version_of: of a release, which says what they run; None: what `trainshed launch` would take.

    Raises:
        UsageError: before anything is changed: a schedule for the embedded Kubeflow, a wrong settings file, an unknown parameter,
            nothing uploaded.
        RemoteError: before anything is changed: Kubeflow cannot be reached, or the login expired.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    environment, files = context.config.environment, _settings(context, names)
    if not _possible(context, files):
        context.console.line(f"no schedule is declared for environment {environment.name}, whose Kubeflow is the embedded one")
        return Report(stage=STAGE)
    context.kubeflow.require_ready()
    declared = _declared(context, files, version_of)
    upload.ready(context, [each.sdk for each in declared])
    stage, pipelines = _Reconciliation(context, dry_run=dry_run, ends=ends), tuple(files) if names else None
    results = stage.shown(declared, pipelines) if dry_run else stage.run(declared, pipelines)
    if not results:
        context.console.line(f"no schedule is declared for environment {environment.name}")
    return Report(stage=STAGE, results=tuple(results))


def check(context: Context, names: Sequence[str], version_of: VersionOf) -> None:
    """Raise what `schedule` would before it changes anything."""
    files = _settings(context, names)
    if _possible(context, files) and _declared(context, files, version_of):
        next(context.kubeflow.recurring_runs(), None)  # who may not see them could not bring them to anything


def _settings(context: Context, names: Sequence[str]) -> dict[str, Settings]:
    """Read the settings files of all pipelines, or of the named ones."""
    folder, environments = context.config.project.pipelines, context.config.environments
    if not names:
        return settings_of.check_all(folder, environments=environments)
    return {each.name: settings_of.load(folder, each, environments=environments) for each in upload.selected(context, names)}


def _possible(context: Context, files: Mapping[str, Settings]) -> bool:
    """Tell whether there can be schedules: the embedded Kubeflow runs none.

    Raises:
        UsageError: one is declared for it; or what tells this project's schedules from another's differs from checkout to checkout.
    """
    environment = context.config.environment
    wanted = any(environment.name in each.environments for told in files.values() for each in told.schedules.values())
    if wanted and environment.kubeflow.host is None:
        message = f"environment {environment.name}: the embedded Kubeflow runs no schedules"
        raise UsageError(message, next_step=_ELSEWHERE)
    if wanted and not context.config.values["project.name"]:
        message = "project.name is not set: by the name of the folder, another checkout would not find these schedules, and make its own"
        raise UsageError(message, next_step="Set project.name in trainshed.toml.")
    return environment.kubeflow.host is not None


def _declared(context: Context, files: Mapping[str, Settings], version_of: VersionOf | None) -> list[Declared]:
    """Return what is declared for the environment in force, checked against the versions that it takes.

    Raises:
        UsageError: with the problems of all schedules at once.
    """
    found: list[Declared] = []
    version_of = version_of or References(context, local_images=None).version
    wrong: dict[str, TrainshedError] = {}
    for name, told in files.items():
        wanted = [each for each in told.schedules.values() if context.config.environment.name in each.environments]
        try:
            found += [_one(context, version_of, name, told, each) for each in wanted]
        except UsageError as error:
            wrong[name] = error
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        raise problems(error.told for error in wrong.values())
    return found


def _one(context: Context, version_of: VersionOf, name: str, told: Settings, wanted: Schedule) -> Declared:
    version, source = version_of(name)
    profile = told.profiles.get(wanted.profile, Profile(name=""))
    specification = version.spec.get("pipeline_spec", version.spec)
    place = f"{told.place}: schedules.{wanted.name}"
    try:
        given = {**profile.parameters, **wanted.parameters}
        parameters = parameters_of.check(parameters_of.definitions(dict(specification)), given, pipeline=name)
    except UsageError as error:
        raise problems([f"{place}: {line}" for line in error.message.splitlines()], next_step=error.next_step) from error
    if profile.gates:
        context.console.warning(f"{place}: the gates of profile {profile.name} are judged by `trainshed launch`; nobody judges these runs")
    project, environment = context.config.project, context.config.environment
    declared = Declared(
        mark=Mark(project=project.name, environment=environment.name, pipeline=name, schedule=wanted.name),
        schedule=wanted,
        place=told.place,
        version=version,
        source=source,
        parameters=parameters,
        experiment=profile.experiment or environment.kubeflow.experiment or project.name,
        service_account=environment.kubeflow.service_account,
        pipeline_root=environment.kubeflow.pipeline_root,
        labels={**environment.kubeflow.labels, **profile.labels},
    )
    if not declared.fits:
        message = f"{place}: project, environment, pipeline and schedule have names too long for what Kubeflow keeps of a recurring run"
        raise UsageError(message, next_step="Shorten the schedule's name.")
    return declared


class _Reconciliation:
    """All schedules of one command."""

    def __init__(self, context: Context, *, dry_run: bool, ends: float | None) -> None:
        self._context, self._client, self._dry_run, self._ends = context, context.kubeflow, dry_run, ends
        self._experiments: dict[str, str] = {}
        self._lease: Lease | None = None
        self._failed = False

    def run(self, declared: Sequence[Declared], pipelines: Sequence[str] | None) -> list[Result]:
        """Act, alone: two at once would each create what the other has created already."""
        project, environment = self._context.config.project.name, self._context.config.environment.name
        deadline = None if self._ends is None else max(0.0, self._ends - time.monotonic())
        tell = self._context.console.line
        alone = self._context.ledger.lease(
            f"schedule {self._client.host} {self._client.namespace} {project} {environment}",
            deadline=deadline,
            on_wait=lambda holder: tell(f"waiting for the schedules by {holder}"),
        )
        with alone as self._lease:
            return [self._result(step) for step in self._steps(declared, pipelines)]

    def shown(self, declared: Sequence[Declared], pipelines: Sequence[str] | None) -> list[Result]:
        """Tell what would be done."""
        return [self._result(step) for step in self._steps(declared, pipelines)]

    def _steps(self, declared: Sequence[Declared], pipelines: Sequence[str] | None) -> list[_Step]:
        """Set what is declared against what is there and ours; ``pipelines`` None takes in those that are gone."""
        ours: dict[Mark, list[RecurringRun]] = {}
        for kept in self._there(declared):
            mark = recurring.mark_of(kept)
            if mark is not None and self._is_ours(mark) and (pipelines is None or mark.pipeline in pipelines):
                ours.setdefault(mark, []).append(kept)
        wanted = {each.mark: each for each in declared}
        marks = [*wanted, *sorted(ours.keys() - wanted, key=lambda mark: mark.name)]
        return [_Step(mark=mark, declared=wanted.get(mark), kept=tuple(ours.get(mark, ()))) for mark in marks]

    def _there(self, declared: Sequence[Declared]) -> list[RecurringRun]:
        """Return all recurring runs; none where we may not see them and declare none, for then we cannot have made any."""
        try:
            return list(self._client.recurring_runs())
        except Denied as error:
            if declared:
                raise
            self._context.console.warning(f"{error.message}: so it was not looked for schedules that are no longer declared")
            return []

    def _is_ours(self, mark: Mark) -> bool:
        return (mark.project, mark.environment) == (self._context.config.project.name, self._context.config.environment.name)

    def _result(self, step: _Step) -> Result:
        started = time.monotonic()
        self._context.console.start(step.mark.name, STAGE, step.declared.source if step.declared else "no longer declared")
        try:
            if self._ends is not None and started > self._ends:
                raise WorkFailed("the deadline passed", next_step="Give more time with --deadline; what is done stays done.")
            if step.declared is None and self._failed:  # it may be the old name of the one that failed
                raise WorkFailed("no longer declared, but kept: another schedule failed", next_step="Mend that, and run it again.")
            if self._lease is not None and self._lease.lost:
                raise WorkFailed("another command took the schedules over meanwhile: this one stood still", next_step="Run it again.")
            result = self._removed(step, started) if step.declared is None else self._brought(step, step.declared, started)
        except Interrupted:
            raise
        except TrainshedError as error:
            self._failed = True
            result = failed(step.mark.name, STAGE, error, seconds=time.monotonic() - started)
        self._context.console.end(result)
        return result

    def _removed(self, step: _Step, started: float) -> Result:
        if not self._dry_run:
            self._remove(step.kept)
            self._record(step.mark, "removed", None)
        return self._told(step, "removed", started, recurring_run_id=step.kept[0].id)

    def _brought(self, step: _Step, declared: Declared, started: float) -> Result:
        """Bring one schedule to what is declared; see the module on the order."""
        differing = {kept.id: self._differences(kept, declared) for kept in step.kept}
        fitting = [kept for kept in step.kept if not _fixed(differing[kept.id])]
        keep = next((kept for kept in fitting if kept.enabled), next(iter(fitting), None))
        others = [kept for kept in step.kept if keep is None or kept.id != keep.id]
        cause = self._cause(step, keep, differing)
        if not self._dry_run and cause != "unchanged":
            keep = self._enacted(declared, keep)
            self._remove(others)
            self._record(step.mark, cause, keep)
        return self._told(step, cause, started, recurring_run_id=keep.id if keep else "", version=declared.version.name)

    def _enacted(self, declared: Declared, keep: RecurringRun | None) -> RecurringRun:
        """Return the recurring run that is as declared, created where there is none, and enabled or disabled as declared."""
        if keep is None:
            keep = self._created(declared)
        if keep.enabled != declared.schedule.enabled:
            (self._client.enable_recurring_run if declared.schedule.enabled else self._client.disable_recurring_run)(keep.id)
        return replace(keep, enabled=declared.schedule.enabled)

    def _created(self, declared: Declared) -> RecurringRun:
        """Create it disabled; one that Kubeflow keeps otherwise is taken away again, and the old one stays."""
        created = self._client.create_recurring_run(
            name=declared.name,
            version=declared.version,
            trigger=declared.trigger,
            enabled=False,
            experiment=self._experiment(declared.experiment),
            parameters=declared.parameters,
            description=declared.description,
            pipeline_root=declared.pipeline_root,
            service_account=declared.service_account,
            max_concurrency=declared.schedule.max_concurrency,
            catch_up=declared.schedule.catch_up,
        )
        otherwise = _fixed(self._differences(created, declared))
        if otherwise:
            self._remove([created])
            message = f"Kubeflow keeps schedule {declared.mark.name} otherwise than it was declared: {', '.join(otherwise)}"
            raise WorkFailed(message, next_step="Tell who runs this Kubeflow; what was there before stays.")
        return created

    def _remove(self, kept: Sequence[RecurringRun]) -> None:
        """Disable and delete; one that somebody else deleted meanwhile is gone as well."""
        for each in kept:
            with suppress(NotFound):
                if each.enabled:
                    self._client.disable_recurring_run(each.id)
                self._client.delete_recurring_run(each.id)

    def _differences(self, kept: RecurringRun, declared: Declared) -> list[str]:
        known = self._experiments.get(declared.experiment) if self._dry_run else self._experiment(declared.experiment)
        return recurring.differences(kept, declared, experiment=known)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._client.experiment(name)
        return self._experiments[name]

    def _cause(self, step: _Step, keep: RecurringRun | None, differing: Mapping[str, Sequence[str]]) -> str:
        """Say why there is work: what was declared anew, or what somebody did in Kubeflow."""
        if not step.kept:
            return f"created{self._lost(step.mark)}"
        shown = keep or next((kept for kept in step.kept if kept.enabled), step.kept[0])
        told = list(differing[shown.id])
        edited = bool(_fixed(told))
        if len(step.kept) > 1:
            told.append(f"{len(step.kept) - 1} more of it")
        if not told:
            return "unchanged"
        declared = step.declared
        same = declared is not None and recurring.digest_of(shown) == declared.digest
        if same and not edited:  # nothing in Kubeflow says who switched or copied it, or whether a command of ours was killed
            last = self._last(step.mark)
            same = declared is not None and (last.get("recurring_run_id"), last.get("enabled")) == (shown.id, declared.schedule.enabled)
        return f"changed{' in Kubeflow since' if same else ''}: {', '.join(told)}"

    def _lost(self, mark: Mark) -> str:
        """Tell whether it was there before, as the ledger knows."""
        return ": it was deleted in Kubeflow" if self._last(mark).get("recurring_run_id") else ""

    def _last(self, mark: Mark) -> Mapping[str, Any]:
        """Return what was done last for a schedule, as the ledger knows."""
        if not self._context.has_ledger:
            return {}
        events = self._context.ledger.events(STAGE, mark.environment, mark.pipeline, mark.schedule, limit=1)
        return events[0].document if events else {}

    def _record(self, mark: Mark, cause: str, kept: RecurringRun | None) -> None:
        known = {"recurring_run_id": kept.id, "enabled": kept.enabled} if kept else {"recurring_run_id": ""}
        document = {"cause": cause, **known, "build_url": self._context.build_url}
        self._context.ledger.record_event(STAGE, mark.environment, mark.pipeline, mark.schedule, document)

    def _told(self, step: _Step, cause: str, started: float, **details: Any) -> Result:  # noqa: ANN401 - any JSON value
        status = Status.CACHED if cause == "unchanged" else Status.SKIPPED if self._dry_run else Status.DONE
        return Result(
            name=step.mark.name,
            stage=STAGE,
            status=status,
            cause=f"dry run: {cause}" if status is Status.SKIPPED else cause,
            seconds=time.monotonic() - started,
            details={"pipeline": step.mark.pipeline, "schedule": step.mark.schedule, **details},
        )


def _fixed(differing: Sequence[str]) -> list[str]:
    """Leave out what can be changed in place."""
    return [each for each in differing if each not in recurring.SWITCHED.values()]
