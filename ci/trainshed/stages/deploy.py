"""``trainshed deploy``: hand the locked image, and the model, to the Prediction Service; success only when that very revision serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainshed.errors import NothingSelected, RemoteError, UsageError
from trainshed.images import components
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.deploying import cleaning, preparing, proving, records, returning, rollout, scaling, starting, turn
from trainshed.stages.deploying.preparing import Handed, Wanted, require_sound
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.deploying.watching import Watch
from trainshed.stages.registry import keeping
from trainshed.tools.ecs import short

STAGE = "deploy"


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What was asked for one service. ``ends`` is on the monotonic clock."""

    component: str
    image: LockedImage
    commit: str | None
    from_run: str | None
    dry_run: bool
    wait: bool
    ends: float | None
    handed: Handed | None


def deploy(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    from_run: str | None = None,
    dry_run: bool = False,
    wait: bool | None = None,
    deadline: float | None = None,
    handed: Handed | None = None,
) -> Report:
    """Deploy the named services, or all.

    Args:
        context: the command's room.
        names: components that have a ``service.yaml``.
        from_run: the run whose model is taken; None: the last that passed its gates.
        dry_run: show the difference, change nothing.
        wait: follow the rollout, read back the image and check golden predictions; None: yes.
        deadline: seconds for all of it.
        handed: what a release decided on; its models are taken, and none is looked for.

    Raises:
        NothingSelected: there is no service.
        UsageError: before any deployment: an unknown name; a service.yaml or golden file that is wrong; no lock, or a stale one.
    """
    chosen = services(context, names)
    require_sound(context, chosen)
    lock = locking.current(context)
    place = context.config.project.shown(locking.path(context))
    ends = None if deadline is None else time.monotonic() + deadline

    def one(name: str) -> Result:
        order = _Order(
            component=name,
            image=locking.here(context, name, lock.image(name, place=place)),
            commit=lock.commit,
            from_run=from_run,
            dry_run=dry_run,
            wait=wait is not False,
            ends=ends,
            handed=handed,
        )
        return _one(context, order)

    return turn.each(context, chosen, STAGE, one)


def services(context: Context, names: Sequence[str]) -> list[str]:
    """Return the named components that are services, or all of them."""
    found = components.discover(context.config.project.components)
    known = [name for name, component in found.items() if component.service]
    if not known:
        message = f"{context.config.project.components}: there is no service"
        raise NothingSelected(message, next_step="Add one with `trainshed init --component NAME --kind service`.")
    return list(components.select(known, names, what="service"))


def _one(context: Context, order: _Order) -> Result:
    if order.dry_run:
        wanted = _wanted(context, order)
        revision = wanted.running.revision if wanted.running is not None else ""
        if wanted.holds and not wanted.changes:
            return _cached(context, wanted, revision)
        return _result(context, wanted, Status.SKIPPED, revision, cause=f"dry run: {'; '.join(wanted.changes) or wanted.cause}")
    service = preparing.read(context, order.component)

    def work(own: Turn) -> Result:
        if order.handed is not None:
            own = replace(own, again="`trainshed release` goes on with it, or undoes it.")
        return _deployed(own, _wanted(context, order), wait=order.wait)

    return turn.in_turn(context, order.component, service, stage=STAGE, ends=order.ends, work=work)


def _wanted(context: Context, order: _Order) -> Wanted:
    wanted = preparing.prepared(context, order.component, order.image, from_run=order.from_run, commit=order.commit, handed=order.handed)
    for note in wanted.notes:
        context.console.line(f"  {wanted.service.name}: {note}")
    return wanted


def _deployed(own: Turn, wanted: Wanted, *, wait: bool) -> Result:
    context, running = own.context, wanted.running
    if running is not None and wanted.holds:
        if not wanted.scaling.changes:
            return _cached(context, wanted, running.revision)
        own.require_time()
        own.require_alone()
        scaling.apply(own.ecs, wanted.scaling)
        return _result(context, wanted, Status.DONE, running.revision, cause=wanted.cause)
    context.console.start(wanted.component, STAGE, wanted.cause)
    own.seen.update(event.id for event in (running.events if running is not None else ()))
    watch = _begun(own, wanted)
    if not wait:
        own.note(f"{short(watch.revision)} is asked for, and its rollout is not followed: {own.again}")
        return _result(context, wanted, Status.DONE, watch.revision, cause=wanted.cause, deployment=watch.deployment)
    problem = _ended(own, wanted, watch)
    if not problem:
        scaling.apply(own.ecs, wanted.scaling)
        for note in cleaning.clean(own):
            own.note(note)
    status = Status.FAILED if problem else Status.DONE
    return _result(context, wanted, status, watch.revision, cause=wanted.cause, message=problem, deployment=watch.deployment)


def _begun(own: Turn, wanted: Wanted) -> Watch:
    """Change the service with one call, or take up a deployment that already wants what we want."""
    context, running = own.context, wanted.running
    primary = running.primary if running is not None else None
    broken = primary is not None and primary.rollout == "FAILED"
    same = running is not None and primary is not None and not broken and not wanted.definition_changes
    if running is not None and primary is not None and same and not wanted.service_changes:
        records.begun(context, wanted.story(running.revision), deployment=primary.id)
        own.note(f"taking up the deployment of {short(running.revision)}")
        return own.watch(primary, running.revision, ends=own.ends)
    own.require_time()
    starting.require_ours(own, running)
    if running is not None and same:
        revision = running.revision
    else:
        keeping.keep_deployed(context, wanted.image.reference)
        revision = starting.registered(own, wanted.definition, broken=running.revision if running is not None and broken else "")
    records.begun(context, wanted.story(revision))  # before the call: whoever comes after a kill knows whose deployment it is
    if running is None:
        deployment = starting.create(own, revision, wanted.parameters)
    else:
        deployment = starting.update(own, running, revision, wanted.parameters)
    records.begun(context, wanted.story(revision), deployment=deployment.id)
    return own.watch(deployment, revision, ends=own.ends)


def _ended(own: Turn, wanted: Wanted, watch: Watch) -> str:
    """Follow a deployment to its end, prove what serves, and go back where it must not; return what went wrong."""
    context, story = own.context, wanted.story(watch.revision)
    verdict = rollout.follow(watch)
    problem = verdict.problem or _unproven(own, wanted, watch)
    if not problem:
        if wanted.golden_file:
            records.keep_golden(context, wanted.golden_file, wanted.golden_digest)
        records.ended(context, story, deployment=watch.deployment)
        return ""
    watch.keep(problem.partition("\n")[0])  # the reasons of tasks stand in the log already
    records.ended(context, story, deployment=watch.deployment, problem=problem)  # a kill on the way back leaves the verdict
    if verdict.problem:
        outcome = returning.after_failure(own, watch, verdict, wanted.before)
    else:
        outcome = returning.go_back(own, watch, wanted.before)
    problem = "\n".join(filter(None, [problem, outcome.said]))
    if outcome.well == watch.revision:  # only settings of the service changed, and are as before
        records.ended(context, story, deployment="")
    else:
        records.ended(context, story, deployment=watch.deployment, problem=problem)
    return problem


def _unproven(own: Turn, wanted: Wanted, watch: Watch) -> str:
    """Return what is wrong with what serves, empty for nothing."""
    try:
        wrong = proving.wrong_images(watch, {wanted.service.name: wanted.image.digest})
        return "\n".join(wrong or proving.wrong_answers(own.ecs, wanted.service, wanted.golden))
    except (RemoteError, UsageError) as error:
        raise rollout.unknown(watch, error, f"{short(watch.revision)} is deployed, and was not proven") from error


def _cached(context: Context, wanted: Wanted, revision: str) -> Result:
    return _result(context, wanted, Status.CACHED, revision, cause="the same image, model and settings serve already")


def _result(  # noqa: PLR0913 - what a result says
    context: Context, wanted: Wanted, status: Status, revision: str, *, cause: str, message: str = "", deployment: str | None = None
) -> Result:
    previous = wanted.previous if deployment is not None else None
    return Result(
        name=wanted.component,
        stage=STAGE,
        status=status,
        cause=cause,
        message=message,
        details={
            "service": wanted.service.name,
            "revision": short(revision),
            "digest": wanted.image.digest,
            "model": preparing.model_document(wanted.model),
            "unit": wanted.story(revision).unit,
            "url": wanted.service.address or context.prediction.address(wanted.service.name) or None,
            "changes": list(wanted.changes),
            "notes": list(wanted.notes),
            "deployment": deployment,
            "previous": short(previous) if previous else None,
            "golden": len(wanted.golden),
        },
    )
