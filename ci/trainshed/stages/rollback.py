"""``trainshed rollback``: bring a service back to the revision that served well before, image and model as the pair that they were."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, failed
from trainshed.services import difference, unit
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.services.unit import Unit
from trainshed.stages import deploy
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, returning, turn, verification
from trainshed.stages.deploying.records import Known, Story
from trainshed.stages.deploying.standing import short
from trainshed.stages.deploying.turn import Turn
from trainshed.tools.aws import Refused
from trainshed.tools.ecs import Definition, ServiceState

STAGE = "rollback"


@dataclass(frozen=True, kw_only=True)
class _Way:
    """From the revision that serves to the one that shall: checked before anything is touched."""

    component: str
    service: Service
    running: ServiceState
    target: Known
    definition: Definition
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cause(self) -> str:
        """Say from which revision to which it goes."""
        return f"back from {short(self.running.revision)} to {short(self.target.revision)}"

    @property
    def unit(self) -> Unit:
        """Return what is gone back to."""
        return unit.unit_of(self.definition.document)


def rollback(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    to: str | None = None,
    dry_run: bool = False,
    wait: bool | None = None,
    deadline: float | None = None,
) -> Report:
    """Bring the named services back, or all.

    Args:
        context: the command's room.
        names: components that have a ``service.yaml``.
        to: the revision to go back to, such as ``predictor:17``; None: the last one that served well before the one that serves.
        dry_run: show the difference, change nothing.
        wait: follow the rollout, read back the image and check golden predictions; None: yes.
        deadline: seconds for all of it.

    Raises:
        NothingSelected: there is no service.
        UsageError: an unknown name, a service.yaml that is wrong, or one revision for several services.
    """
    chosen = deploy.services(context, names)
    preparing.require_sound(context, chosen)
    if to is not None and len(chosen) > 1:
        raise UsageError(f"--to {to}: one revision belongs to one service, not to {len(chosen)}", next_step="Name the service.")
    ends = None if deadline is None else time.monotonic() + deadline
    results = []
    for name in chosen:
        started = time.monotonic()
        turn.log_of(context, name, STAGE).unlink(missing_ok=True)
        try:
            result = _one(context, name, to=to, dry_run=dry_run, wait=wait is not False, ends=ends)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(name, STAGE, error, log=_log(context, name))
        results.append(replace(result, seconds=time.monotonic() - started))
        context.console.end(results[-1])
    return Report(stage=STAGE, results=tuple(results))


def _one(context: Context, name: str, *, to: str | None, dry_run: bool, wait: bool, ends: float | None) -> Result:  # noqa: PLR0913
    service = preparing.read(context, name)
    if dry_run:
        way = _way(context, name, service, to)
        told = "; ".join(way.changes) or "the same image, model and settings"
        return _result(context, way, Status.SKIPPED, cause=f"dry run: {way.cause}: {told}")
    with turn.taken(context, name, service, stage=STAGE, ends=ends) as own:
        way = _way(context, name, service, to)
        return _returned(own, way, wait=wait)


def _returned(own: Turn, way: _Way, *, wait: bool) -> Result:
    context, left = own.context, records.known(own.context, way.service.name, way.running.revision)
    cause = way.cause
    if way.running.revision == way.target.revision:
        return _result(context, way, Status.CACHED, cause=f"{short(way.target.revision)} is deployed already")
    context.console.start(way.component, STAGE, cause)
    own.seen.update(event.id for event in way.running.events)
    if left is not None:  # before the call: whoever comes after a kill must not come back to it
        records.left(context, way.service.name, left, to=short(way.target.revision))
    returned = returning.return_to(own, way.running, way.target.revision, ends=own.ends, wait=wait)
    if not wait:
        return _result(context, way, Status.DONE, cause=cause, deployment=returned.deployment)
    problem = f"{returned.problem}\n{returning.serves(own)}" if returned.problem else ""
    records.ended(context, _story(way), deployment=returned.deployment, problem=problem)
    status = Status.FAILED if problem else Status.DONE
    return _result(context, way, status, cause=cause, message=problem, deployment=returned.deployment)


def _way(context: Context, name: str, service: Service, to: str | None) -> _Way:
    """Choose the revision, and verify it as a deploy would."""
    ecs = context.prediction
    running = ecs.service(service.name)
    if running is None:
        raise UsageError(f"{name}: nothing is deployed, so there is nothing to go back from", next_step=f"Run `trainshed deploy {name}`.")
    history = records.history(context, service.name)
    target = _named(to, service, history) if to is not None else _before(running.revision, service, history)
    definition = _definition(context, target)
    found = unit.unit_of(definition.document)
    image = LockedImage(reference=found.image, digest=found.digest, input_digest=found.digest)
    verified = verification.verify(context, service, image, model=_model(found))
    for note in verified.notes:
        context.console.line(f"  {service.name}: {note}")
    return _Way(
        component=name,
        service=service,
        running=running,
        target=target,
        definition=definition,
        changes=tuple(difference.changes(ecs.task_definition(running.revision), definition.document)),
        notes=verified.notes,
    )


def _before(serving: str, service: Service, history: Sequence[Known]) -> Known:
    """Return the last revision that served well before the one that serves; one that was gone back from does not count."""
    good = [known.revision for known in history if known.good]
    older = good[good.index(serving) + 1 :] if serving in good else [found for found in good if found != serving]
    if not older:
        message = f"{service.name}: the ledger knows no revision that served well before {short(serving)}"
        raise WorkFailed(message, next_step="Deploy what shall serve; or name a revision that served well with --to.")
    return next(known for known in history if known.revision == older[0])


def _named(to: str, service: Service, history: Sequence[Known]) -> Known:
    """Return the revision that was named: one that served well at some time, also if it was gone back from since."""
    wanted = short(to)
    wanted = f"{service.name}:{wanted}" if wanted.isdigit() else wanted
    if wanted.rpartition(":")[0] != service.name:
        raise UsageError(f"--to {to}: not a revision of {service.name}", next_step=f"Name one such as {service.name}:17.")
    found = next((known for known in history if short(known.revision) == wanted), None)
    if found is None or not found.proven:
        known = ", ".join(short(each.revision) for each in history if each.proven) or "none"
        message = f"--to {to}: the ledger does not know that {wanted} ever served well; known: {known}"
        raise UsageError(message, next_step="Name one of these, or deploy the commit that it was made of.")
    return found


def _definition(context: Context, target: Known) -> Definition:
    try:
        found = context.prediction.definition(target.revision)
    except Refused as refusal:
        message = f"{short(target.revision)} cannot be gone back to: {refusal.message}"
        raise UsageError(message, next_step="Name another with --to, or deploy the commit that it was made of.") from refusal
    if not found.active:
        message = f"{short(target.revision)} cannot be gone back to: it was deregistered"
        raise UsageError(message, next_step="Name another with --to, or deploy the commit that it was made of.")
    return found


def _model(found: Unit) -> Model | None:
    if found.model is None:
        return None
    return Model(uri=found.model.uri, run_id=found.model.run_id, sha256=found.model.sha256)


def _story(way: _Way) -> Story:
    found = way.unit
    return Story(
        component=way.component,
        service=way.service.name,
        revision=way.target.revision,
        image=found.image,
        digest=found.digest,
        model=preparing.model_document(_model(found)),
        unit=found.document(),
        golden=way.target.golden,
        previous=way.running.revision,
    )


def _result(  # noqa: PLR0913 - what a result says
    context: Context, way: _Way, status: Status, *, cause: str, message: str = "", deployment: str | None = None
) -> Result:
    found = way.unit
    details: dict[str, Any] = {
        "service": way.service.name,
        "revision": short(way.target.revision),
        "previous": short(way.running.revision),
        "digest": found.digest,
        "model": preparing.model_document(_model(found)),
        "unit": found.document(),
        "changes": list(way.changes),
        "notes": list(way.notes),
        "deployment": deployment,
    }
    return Result(
        name=way.component,
        stage=STAGE,
        status=status,
        cause=cause,
        message=message,
        log=_log(context, way.component),
        details=details,
    )


def _log(context: Context, component: str) -> str | None:
    log = turn.log_of(context, component, STAGE)
    return context.config.project.shown(log) if log.exists() else None
