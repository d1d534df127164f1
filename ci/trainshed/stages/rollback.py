"""``trainshed rollback``: bring a service back to the revision that served well before, image and model as the pair that they were."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainshed.errors import UsageError, WorkFailed
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status
from trainshed.services import difference, unit
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.services.unit import Unit
from trainshed.stages import deploy
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, returning, turn, verification
from trainshed.stages.deploying.records import Known, Story
from trainshed.stages.deploying.turn import Turn
from trainshed.tools.aws import Refused
from trainshed.tools.ecs import Definition, ServiceState, short

STAGE = "rollback"
_COMPLETE = "COMPLETED"


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked for. ``ends`` is on the monotonic clock."""

    to: str | None
    dry_run: bool
    wait: bool
    ends: float | None


@dataclass(frozen=True, kw_only=True)
class _Way:
    """From the revision that serves to the one that shall: checked before anything is touched.

    ``left`` is the revision that is gone back from; ``serves`` tells that the target serves already, and was proven to.
    """

    component: str
    service: Service
    running: ServiceState
    left: str
    serves: bool
    target: Known
    definition: Definition
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cause(self) -> str:
        """Say from which revision to which it goes."""
        return f"back from {short(self.left)} to {short(self.target.revision)}"

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
    way = _Asked(to=to, dry_run=dry_run, wait=wait is not False, ends=ends)
    return turn.each(context, chosen, STAGE, lambda name: _one(context, name, way))


def _one(context: Context, name: str, asked: _Asked) -> Result:
    service = preparing.read(context, name)
    if asked.dry_run:
        way = _way(context, name, service, asked.to)
        told = "; ".join(way.changes) or "the same image, model and settings"
        return _result(way, Status.SKIPPED, cause=f"dry run: {way.cause}: {told}")

    def work(own: Turn) -> Result:
        way = _way(context, name, service, asked.to)
        again = f"`trainshed rollback {name} --to {short(way.target.revision)}` takes it up."
        return _returned(replace(own, again=again), way, wait=asked.wait)

    return turn.in_turn(context, name, service, stage=STAGE, ends=asked.ends, work=work)


def _returned(own: Turn, way: _Way, *, wait: bool) -> Result:
    context, running, target = own.context, way.running, way.target.revision
    if way.serves:
        return _result(way, Status.CACHED, cause=f"{short(target)} is deployed already")
    context.console.start(way.component, STAGE, way.cause)
    own.seen.update(event.id for event in running.events)
    own.require_time()
    left = records.known(context, way.service.name, running.revision)
    if left is not None and running.revision != target:  # before the call: whoever comes after a kill must not come back to it
        records.left(context, way.service.name, left, to=target)
    returned = returning.return_to(own, running, target, {}, ends=own.ends, wait=wait)
    if not wait:
        own.note(f"{short(target)} is asked for, and its rollout is not followed: {own.again}")
        return _result(way, Status.DONE, cause=way.cause, deployment=returned.deployment)
    problem = f"{returned.problem}\n{returning.serves(own)}" if returned.problem else ""
    records.ended(context, _story(way), deployment=returned.deployment, problem=problem)
    status = Status.FAILED if problem else Status.DONE
    return _result(way, status, cause=way.cause, message=problem, deployment=returned.deployment)


def _way(context: Context, name: str, service: Service, to: str | None) -> _Way:
    """Choose the revision, and verify it as a deploy would."""
    ecs = context.prediction
    running = ecs.service(service.name)
    if running is None:
        raise UsageError(f"{name}: nothing is deployed, so there is nothing to go back from", next_step=f"Run `trainshed deploy {name}`.")
    history = records.history(context, service.name)
    begun = history[0] if history and history[0].to else None  # a way back whose end nobody saw: it comes first
    if to is not None:
        target = _named(to, service, history)
    else:
        target = _named(short(begun.to), service, history) if begun is not None else _before(running.revision, service, history)
    settled = running.primary is not None and running.primary.rollout == _COMPLETE
    definition = _definition(context, target)
    found = unit.unit_of(definition.document)
    image = LockedImage(reference=found.image, digest=found.digest, input_digest=found.digest)
    verified = verification.verify(context, _of_then(service, definition.document), image, model=_model(found))
    for note in verified.notes:
        context.console.line(f"  {service.name}: {note}")
    return _Way(
        component=name,
        service=service,
        running=running,
        left=begun.revision if begun is not None and running.revision == target.revision else running.revision,
        serves=running.revision == target.revision and settled and target.good and begun is None,
        target=target,
        definition=definition,
        changes=tuple(difference.changes(ecs.task_definition(running.revision), definition.document)),
        notes=verified.notes,
    )


def _of_then(service: Service, definition: Mapping[str, Any]) -> Service:
    """Return the service with what the revision itself names: today's settings may be what has to be gone back from."""
    container: Mapping[str, Any] = next((one for one in definition.get("containerDefinitions", []) if one.get("name") == service.name), {})
    return replace(
        service,
        secrets={pair["name"]: pair["valueFrom"] for pair in container.get("secrets") or []},
        execution_role=definition.get("executionRoleArn") or "",
        task_role=definition.get("taskRoleArn") or "",
        log_group=(container.get("logConfiguration") or {}).get("options", {}).get("awslogs-group", ""),
        cpu=int(definition.get("cpu") or service.cpu),
        memory=int(definition.get("memory") or service.memory),
        architecture=(definition.get("runtimePlatform") or {}).get("cpuArchitecture", service.architecture).lower(),
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
        previous=way.left,
    )


def _result(way: _Way, status: Status, *, cause: str, message: str = "", deployment: str | None = None) -> Result:
    found = way.unit
    details: dict[str, Any] = {
        "service": way.service.name,
        "revision": short(way.target.revision),
        "previous": short(way.left),
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
        details=details,
    )
