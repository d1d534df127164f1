"""``images``, and its three checks alone: one schedule, no barrier between components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from trainshed.errors import UsageError
from trainshed.images.planning import CHECKS, Plan
from trainshed.results import Report, Result, Status
from trainshed.scheduling import scheduler
from trainshed.scheduling.scheduler import Node
from trainshed.stages import budgets, locking
from trainshed.stages.context import Context
from trainshed.stages.plan import planned
from trainshed.stages.survey import survey
from trainshed.stages.work import Work, aborted, failed_case
from trainshed.tools import process

_USUAL_SECONDS = {"build": 30.0, "scan": 5.0, "test": 10.0}
_COMPILE_SECONDS = 5.0


def build(context: Context, names: Sequence[str] = (), *, fail_fast: bool = False) -> Report:
    """Build and push the images of the named components (all when none is named) and their own bases."""
    return _checked(context, "build", names, ("build",), fail_fast=fail_fast)


def scan(context: Context, names: Sequence[str] = (), *, fail_fast: bool = False) -> Report:
    """Scan images that are built already."""
    return _checked(context, "scan", names, ("scan",), fail_fast=fail_fast)


def test(context: Context, names: Sequence[str] = (), *, fail_fast: bool = False) -> Report:  # noqa: PT028 - the stage is named so
    """Test images that are built already."""
    return _checked(context, "test", names, ("test",), fail_fast=fail_fast)


def images(context: Context, names: Sequence[str] = (), *, fail_fast: bool = False, alone: bool = False) -> Report:
    """Build, scan and test; write the lock when every selected component is green.

    Args:
        context: the command's room.
        names: components, with their own bases; all when none is named.
        fail_fast: stop all work at the first failure.
        alone: make the named components and nothing else: a base that has no image is not made, and no lock is written. For one
            branch of a driver that makes the bases in others.

    Raises:
        UsageError: ``alone`` without names.
    """
    if not alone:
        return made(context, names, fail_fast=fail_fast)
    if not names:
        raise UsageError("--alone: no component is named", next_step="Name components, or leave --alone out.")
    return _checked(context, "images", names, CHECKS, fail_fast=fail_fast, alone=True)


def made(
    context: Context, names: Sequence[str] = (), *, fail_fast: bool = False, beside: Mapping[str, Callable[[], Result]] | None = None
) -> Report:
    """Do what `images` does; ``beside`` is other work by key that shares the schedule (templates that compile meanwhile)."""
    work = Work(context, survey(context, names))
    plan = planned(context, work)
    _require_builder(context, plan, CHECKS)
    results = _scheduled(context, work, plan, CHECKS, fail_fast=fail_fast, made_here=frozenset(work.survey.selected), beside=beside)
    report = Report(stage="images", results=results, extra={"waves": [list(wave) for wave in plan.waves], "plan_digest": plan.plan_digest})
    locking.settle(context, work, report)
    show(context, report)
    return report


def _checked(  # noqa: PLR0913 - the options of the stages
    context: Context, stage: str, names: Sequence[str], checks: Sequence[str], *, fail_fast: bool, alone: bool = False
) -> Report:
    work = Work(context, survey(context, names))
    plan = planned(context, work)
    made_here = frozenset(names if alone else work.survey.selected)
    _require_builder(context, plan, checks)
    results = _scheduled(context, work, plan, checks, fail_fast=fail_fast, made_here=made_here)
    report = Report(stage=stage, results=tuple(result for result in results if result.stage in checks or not result.good))
    show(context, report)
    return report


def _require_builder(context: Context, plan: Plan, checks: Sequence[str]) -> None:
    """Find engine and build client before the work when it needs them: one error then, instead of one for each component."""
    if "build" in checks and any("build" in entry.needed for entry in plan.components):
        _ = context.builder


def _scheduled(  # noqa: PLR0913 - all by keyword but the first
    context: Context,
    work: Work,
    plan: Plan,
    checks: Sequence[str],
    *,
    fail_fast: bool,
    made_here: Collection[str],
    beside: Mapping[str, Callable[[], Result]] | None = None,
) -> tuple[Result, ...]:
    seconds = context.ledger.durations()
    nodes: list[Node[Result]] = []
    for name in work.survey.selected:
        bases = tuple(f"{base}/build" for base in work.survey.graph.bases(name))
        have = (work.build if "build" in checks else work.located) if name in made_here else partial(_there, work)
        nodes.append(
            Node(key=f"{name}/build", work=partial(have, name), budget="build", needs=bases, weight=_weight(plan, seconds, name, "build"))
        )
        for check, do in (("scan", work.scan), ("test", work.test)):
            if check in checks and name in made_here:
                weight = _weight(plan, seconds, name, check)
                nodes.append(Node(key=f"{name}/{check}", work=partial(do, name), budget=check, needs=(f"{name}/build",), weight=weight))
    nodes += [Node(key=key, work=do, budget="compile", weight=_COMPILE_SECONDS) for key, do in (beside or {}).items()]
    outcomes = scheduler.run(
        nodes,
        budgets=budgets.scheduled(context, images=len(work.survey.selected)),
        aborted=aborted,
        fail_fast=fail_fast,
        stop=process.stopping,
        on_end=lambda _node, result: None if result.status in {Status.CACHED, Status.SKIPPED} else context.console.end(result),
    )
    work.survey.hashes.save()
    if "scan" in checks:
        for warning in work.scan_warnings():
            context.console.warning(warning)
        for warning in work.waiver_warnings():
            context.console.warning(f"{context.config.waivers_place}: {warning}")
    return tuple(failed_case(outcome) for outcome in outcomes.values())


def _there(work: Work, name: str) -> Result:
    """Have the image that another branch makes; where that one failed, this is no failure of its own."""
    found = work.located(name)
    return found if found.good else replace(found, status=Status.ABORTED, message="has no image, and is not made here")


def _weight(plan: Plan, seconds: Mapping[tuple[str, str], float], name: str, check: str) -> float:
    if check not in plan.of(name).needed:
        return 0.0
    return seconds.get((name, check), _USUAL_SECONDS[check])


def show(context: Context, report: Report) -> None:
    """Print the table of images: digest, verdicts, cause and time."""
    by_component: dict[str, dict[str, Result]] = {}
    for result in report.results:
        if result.stage in CHECKS:
            by_component.setdefault(result.name, {})[result.stage] = result
    rows = []
    for name, results in by_component.items():
        digest = next((str(result.details["digest"]) for result in results.values() if result.details.get("digest")), "")
        cause = next(
            (result.cause for result in results.values() if result.status not in {Status.CACHED, Status.SKIPPED} and result.cause), ""
        )
        seconds = sum(result.seconds for result in results.values())
        verdicts = [str(results[check].status) if check in results else "" for check in CHECKS]
        rows.append((name, digest[:19], *verdicts, cause, f"{seconds:.1f}"))
    context.console.table(report.stage, ("component", "digest", *CHECKS, "cause", "seconds"), rows)
