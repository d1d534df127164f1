"""``trainshed plan``: what would be done, in which order, and why. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trainshed.errors import problems
from trainshed.images import planning
from trainshed.images.planning import Plan, Planned
from trainshed.results import Report, Result, Status
from trainshed.stages import policy
from trainshed.stages.context import Context
from trainshed.stages.cost import Cost, costs, total
from trainshed.stages.survey import Survey, survey
from trainshed.stages.work import Work

_SHARED = "Name a registry and a PostgreSQL ledger.url, or leave the label of the agents empty."

_PIPELINE = "pipeline "


def plan(context: Context, names: Sequence[str] = (), *, branches: bool = False, distributed: bool = False) -> Report:
    """Print the plan as a tree of causes.

    Args:
        context: the command's room.
        names: components; all when none is named.
        branches: also print on stdout, a line for each wave, the components that need work.
        distributed: refuse what agents on several machines cannot share.
    """
    if distributed:
        _require_shared(context)
    if governed := policy.told(context.config):
        context.console.line(governed)
    work = Work(context, survey(context, names))
    made = planned(context, work)
    lost = costs(context, {entry.name: _pipelines(entry) for entry in made.components if "build" in entry.needed})
    _show(context, made)
    _show_cost(context, lost)
    if branches:
        context.console.data("\n".join(" ".join(names) for names in busy_waves(made)))
    extra = {**planning.document(made), "cost": total(lost.values()).document()}
    return Report(stage="plan", results=tuple(_result(entry, lost.get(entry.name)) for entry in made.components), extra=extra)


def busy_waves(made: Plan) -> list[list[str]]:
    """Return the components that need work, those that may run side by side in one list, bases first."""
    busy = {entry.name for entry in made.components if entry.needed}
    waves = [[name for name in wave if name in busy] for wave in made.waves]
    return [wave for wave in waves if wave]


def _require_shared(context: Context) -> None:
    """Refuse what only one machine sees.

    Raises:
        UsageError: the registry is the embedded one, or the ledger a file.
    """
    config = context.config
    alone = [f"environment {config.environment.name}: its registry is the embedded one"] if config.environment.registry is None else []
    if not config.ledger_url or config.ledger_url.startswith("sqlite"):
        alone.append(f"{config.file}: ledger.url: the ledger is a file")
    if alone:
        raise problems([f"{each}: agents on several machines cannot share it" for each in alone], next_step=_SHARED)


def planned(context: Context, work: Work) -> Plan:
    """Take the facts and decide; the causes are left with the work for its results.

    What is wrong in the repository is told first, before anything outside of it is asked or anything is written.
    """
    reaches = reached(context, work.survey)
    work.survey.plan_digest()  # reads the build contexts
    _ = work.waivers
    facts = work.facts()
    entries = tuple(planning.decide(facts[name], reaches.get(name, ())) for name in work.survey.selected)
    work.causes.update({entry.name: entry.action("build").cause for entry in entries})
    return Plan(
        components=entries,
        waves=tuple(tuple(wave) for wave in work.survey.graph.waves(work.survey.selected)),
        plan_digest=work.survey.plan_digest(),
    )


def reached(context: Context, survey: Survey) -> dict[str, list[str]]:
    """Tell, by component, the pipelines and services that take a new image of it."""
    from trainshed.pipelines import mentions, templates

    found: dict[str, list[str]] = {name: [] for name in survey.components}
    known = templates.discover(context.config.project.pipelines).values()
    for template, names in mentions.of_templates(known, survey.components).items():
        for name in names:
            found[name].append(f"{_PIPELINE}{template}")
    for name, component in survey.components.items():
        if component.service:
            found[name].append(f"service {name}")
    return found


def _pipelines(entry: Planned) -> list[str]:
    return [reach.removeprefix(_PIPELINE) for reach in entry.reaches if reach.startswith(_PIPELINE)]


def _result(entry: Planned, cost: Cost | None) -> Result:
    return Result(
        name=entry.name,
        stage="plan",
        status=Status.DONE if entry.needed else Status.CACHED,
        cause=entry.action(entry.needed[0]).cause if entry.needed else "all verdicts are green",
        details={
            "digest": entry.digest,
            "input_digest": entry.input_digest,
            "actions": [{"check": action.check, "needed": action.needed, "cause": action.cause} for action in entry.actions],
            "reaches": list(entry.reaches),
            "cost": None if cost is None else cost.document(),
        },
    )


def _show(context: Context, made: Plan) -> None:
    console, busy = context.console, [entry for entry in made.components if entry.needed]
    console.heading(f"plan for {context.config.environment.name}: {_counts(made.components)}")
    for wave in made.waves:
        for entry in (entry for entry in busy if entry.name in wave):
            console.line(entry.name)
            for line in _causes(entry):
                console.line(f"  {line}")
    if not busy:
        console.line("nothing to do: every image has its verdicts")


def _show_cost(context: Context, lost: Mapping[str, Cost]) -> None:
    """Tell what Kubeflow's step cache loses by the new images."""
    if not lost:
        return
    context.console.heading("what the step cache loses")
    for name, cost in lost.items():
        context.console.line(f"{name} moves: {cost}")
    if len(lost) > 1:
        context.console.line(f"in all: {total(lost.values())}")


def _causes(entry: Planned) -> Iterable[str]:
    new_image = [action.check for action in entry.actions if action.needed and action.cause == "new image"]
    for action in entry.actions:
        if action.needed and action.check not in new_image:
            yield f"{' '.join([action.check, *(f'+ {check}' for check in new_image if action.check == 'build')])}: {action.cause}"
    for reach in entry.reaches:
        if "build" in entry.needed:
            yield f"reaches {reach}"


def _counts(entries: Sequence[Planned]) -> str:
    counts: Mapping[str, int] = {check: sum(check in entry.needed for entry in entries) for check in planning.CHECKS}
    return ", ".join(f"{count} to {check}" for check, count in counts.items()) + f", of {len(entries)} components"
