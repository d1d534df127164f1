"""``trainshed run``: the pull-request flow in one command, each stage the same function as when it is run alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed.console import Console
from trainshed.errors import Interrupted, NothingSelected, TrainshedError, UsageError, WorkFailed, problems, suggestion
from trainshed.images.components import discover
from trainshed.pipelines import mentions, templates
from trainshed.results import Report, failed
from trainshed.stages.context import Context


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a run is about: pipelines and services by name, and the components whose images they need (empty: all)."""

    pipelines: tuple[str, ...]
    services: tuple[str, ...]
    components: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """What is asked of the training runs."""

    parameters: Mapping[str, str]
    params_file: Path | None
    profile: str | None
    gates: Sequence[str]
    wait: bool | None


@dataclass
class _Flow:
    """The reports so far; a stage that is not green ends the flow."""

    console: Console
    deadline: float | None
    started: float = field(default_factory=time.monotonic)
    reports: list[Report] = field(default_factory=list)

    def go(self, stage: str, do: Callable[[], Report]) -> None:
        """Run a stage unless an earlier one was not green.

        An error of a later stage as a whole becomes its result, so that what the earlier ones found is reported; the first stage's
        is raised, for there is nothing else to tell.
        """
        if any(report.exit_code or report.status != "green" for report in self.reports):
            return
        try:
            self._check_time(stage)
            self.reports.append(do())
        except Interrupted:
            if not self.reports:
                raise
            self.reports.append(Report(stage=stage, interrupted=True))
        except TrainshedError as error:
            if not self.reports:
                raise
            result = failed(stage, stage, error)
            self.console.end(result)
            self.reports.append(Report(stage=stage, results=(result,)))

    def _check_time(self, stage: str) -> None:
        """Begin nothing that would have to be ended at once, such as a training run."""
        if self.reports and self.deadline is not None and time.monotonic() - self.started >= self.deadline:
            raise WorkFailed(f"the deadline passed before {stage}, which was not begun.", next_step="Give more time with --deadline.")

    def left(self) -> float | None:
        """Return the seconds that are left until the deadline."""
        return None if self.deadline is None else max(0.1, self.deadline - (time.monotonic() - self.started))

    def report(self) -> Report:
        """Join what the stages reported."""
        extra: dict[str, Any] = {key: value for report in self.reports for key, value in report.extra.items()}
        extra["stages"] = [{"stage": report.stage, "status": report.status} for report in self.reports]
        results = tuple(result for report in self.reports for result in report.results)
        return Report(stage="run", results=results, extra=extra, interrupted=any(report.interrupted for report in self.reports))


def run(  # noqa: PLR0913 - the options of all its stages
    context: Context,
    names: Sequence[str] = (),
    *,
    launch: bool = False,
    deploy: bool = False,
    parameters: Mapping[str, str] | None = None,
    params_file: Path | None = None,
    profile: str | None = None,
    gates: Sequence[str] = (),
    wait: bool | None = None,
    fail_fast: bool = False,
    deadline: float | None = None,
) -> Report:
    """Make images, stamp, verify and upload; launch and deploy when asked.

    Args:
        context: the command's room.
        names: pipelines and services; their components are made, and nothing else. Empty: everything.
        launch: start a run of each uploaded pipeline.
        deploy: deploy the services.
        parameters: parameters of the runs.
        params_file: a file with parameters.
        profile: a set of parameters and gates from the file beside each pipeline.
        gates: expressions over the metrics of the runs.
        wait: follow runs and rollouts to their end; a run whose model a service takes is always followed.
        fail_fast: stop all work at the first failure.
        deadline: seconds for the whole flow; work on images that has begun is finished, and no stage begins after it.

    Raises:
        UsageError: before any work: an unknown name, a wrong gate, profile or file of parameters, options that say nothing without
            ``--launch``, a service that is described wrongly.
    """
    selection = select(context, names)
    _check_options(launch=launch, given=bool(parameters or params_file or profile or gates))
    wanted = _Runs(parameters=parameters or {}, params_file=params_file, profile=profile, gates=gates, wait=True if deploy else wait)
    _check_ahead(context, selection, launch=launch, deploy=deploy, wanted=wanted)
    from trainshed.stages import compile as compiling
    from trainshed.stages import images, stamp, verify

    flow = _Flow(context.console, deadline)
    beside = compiling.nodes(context, selection.pipelines) if selection.pipelines else {}
    flow.go("images", lambda: images.made(context, selection.components, fail_fast=fail_fast, beside=beside))
    if selection.pipelines:
        flow.go("stamp", lambda: stamp.stamp(context, selection.pipelines))
        flow.go("verify", lambda: verify.verify(context, selection.pipelines))
        flow.go("upload", lambda: _upload(context, selection.pipelines, flow))
    if launch and selection.pipelines:
        flow.go("launch", lambda: _launch(context, selection.pipelines, flow, wanted))
    if deploy and selection.services:
        flow.go("deploy", lambda: _deploy(context, selection.services, flow, wait))
    return flow.report()


def _upload(context: Context, names: Sequence[str], flow: _Flow) -> Report:
    from trainshed.stages import upload

    return upload.upload(context, names, deadline=flow.left())


def _launch(context: Context, names: Sequence[str], flow: _Flow, wanted: _Runs) -> Report:
    """Launch what this very command has built: CI knows nothing of it yet."""
    from trainshed.stages import launch

    return launch.launch(
        context,
        names,
        parameters=wanted.parameters,
        params_file=wanted.params_file,
        profile=wanted.profile,
        gates=wanted.gates,
        wait=wanted.wait,
        local_images=True,
        deadline=flow.left(),
    )


def _deploy(context: Context, names: Sequence[str], flow: _Flow, wait: bool | None) -> Report:
    from trainshed.stages import deploy

    return deploy.deploy(context, names, wait=wait, deadline=flow.left())


def select(context: Context, names: Sequence[str]) -> Selection:
    """Tell pipelines from services among the names, and find the components that they need."""
    project = context.config.project
    components = discover(project.components)
    known_templates = templates.discover(project.pipelines)
    services = [name for name, component in components.items() if component.service]
    if not names:
        return Selection(pipelines=tuple(known_templates), services=tuple(services))
    known = [*known_templates, *services]
    if not known:
        raise NothingSelected(f"{project.root}: there is no pipeline and no service", next_step="Name components with `trainshed images`.")
    unknown = [f"no pipeline or service '{name}'{suggestion(name, known)}" for name in names if name not in known]
    if unknown:
        raise problems(unknown, next_step=f"Known: {', '.join(known)}.")
    pipelines = tuple(name for name in known_templates if name in names)
    chosen = tuple(name for name in services if name in names)
    mentioned = set[str]().union(*mentions.of_templates([known_templates[name] for name in pipelines], components).values())
    return Selection(pipelines=pipelines, services=chosen, components=tuple(sorted({*mentioned, *chosen})))


def _check_ahead(context: Context, selection: Selection, *, launch: bool, deploy: bool, wanted: _Runs) -> None:
    """Have the later stages read their files and options now: nobody wants to learn of a typing error after the builds."""
    if launch:
        from trainshed.stages import launch as launching
        from trainshed.stages.launching import asking

        asked = asking.read(params_file=wanted.params_file, profile=wanted.profile, gates=wanted.gates, wait=wanted.wait)
        known = templates.discover(context.config.project.pipelines)
        launching.profiles(context, [known[name] for name in selection.pipelines], asked, wait=wanted.wait)
    if deploy:
        from trainshed.stages.deploying import preparing

        preparing.require_sound(context, selection.services)


def _check_options(*, launch: bool, given: bool) -> None:
    if given and not launch:
        raise UsageError("parameters, profiles and gates say nothing without a run", next_step="Add --launch, or leave them out.")
