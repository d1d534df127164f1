"""The way of a service to a revision that served well: verified before anything is touched, then gone, followed and proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainshed.pipelines.lock import LockedImage
from trainshed.results import Result, Status
from trainshed.services import difference, unit
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.services.unit import Unit
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, returning, starting, verification
from trainshed.stages.deploying.records import Story
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.registry import keeping
from trainshed.tools.ecs import ServiceState, short

STAGE = "rollback"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a service goes.

    ``revision`` is the ARN of one that is registered, empty where ``definition`` has to be registered again; ``name`` is what people call
    it; ``golden`` the digest of the golden requests that it was proven with; ``good`` tells that it is known to serve well; ``release`` is
    the name of the release that it is of, empty for none.
    """

    name: str
    revision: str
    definition: Mapping[str, Any]
    golden: str = ""
    good: bool = False
    release: str = ""


@dataclass(frozen=True, kw_only=True)
class Way:
    """From the revision that serves to the one that shall: checked before anything is touched.

    ``left`` is the revision that is gone back from; ``serves`` tells that the target serves already, and was proven to.
    """

    component: str
    service: Service
    running: ServiceState
    left: str
    serves: bool
    target: Target
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cause(self) -> str:
        """Say from which revision to which it goes."""
        anew = "" if self.target.revision else ", which is registered again"
        return f"back from {short(self.left)} to {self.target.name}{anew}"

    @property
    def unit(self) -> Unit:
        """Return what is gone back to."""
        return unit.unit_of(self.target.definition)


def verified(  # noqa: PLR0913 - from where to where
    context: Context, name: str, service: Service, running: ServiceState, target: Target, *, left: str = ""
) -> Way:
    """Verify what a service goes back to as a deploy would; ``left`` is what an earlier call began to go back from, empty for none.

    Raises:
        UsageError: with all problems.
    """
    settled = running.primary is not None and running.primary.complete
    there = bool(target.revision) and running.revision == target.revision
    found = unit.unit_of(target.definition)
    image = LockedImage(reference=found.image, digest=found.digest, input_digest=found.digest)
    checked = verification.verify(context, of_then(service, target.definition), image, model=model_of(found))
    for note in checked.notes:
        context.console.line(f"  {service.name}: {note}")
    return Way(
        component=name,
        service=service,
        running=running,
        left=left if left and there else running.revision,
        serves=there and settled and target.good and not left,
        target=target,
        changes=tuple(difference.changes(context.prediction.task_definition(running.revision), target.definition)),
        notes=checked.notes,
    )


def gone(own: Turn, way: Way, *, wait: bool) -> Result:
    """Go a way: with one call, followed to its end and proven."""
    context, running = own.context, way.running
    if way.serves:
        return result(way, Status.CACHED, cause=f"{way.target.name} is deployed already")
    context.console.start(way.component, STAGE, way.cause)
    own.seen.update(event.id for event in running.events)
    own.require_time()
    target = way.target.revision or _registered(own, way)
    way = replace(way, target=replace(way.target, revision=target, name=short(target)))
    if records.known(context, way.service.name, target) is None:  # else it could not be proven as it was then
        records.begun(context, _story(way))
    left = records.known(context, way.service.name, running.revision)
    if left is not None and running.revision != target:  # before the call: whoever comes after a kill must not come back to it
        records.left(context, way.service.name, left, to=target)
    returned = returning.return_to(own, running, target, {}, ends=own.ends, wait=wait)
    if not wait:
        own.note(f"{short(target)} is asked for, and its rollout is not followed: {own.again}")
        return result(way, Status.DONE, cause=way.cause, deployment=returned.deployment)
    problem = f"{returned.problem}\n{returning.serves(own)}" if returned.problem else ""
    records.ended(context, _story(way), deployment=returned.deployment, problem=problem)
    status = Status.FAILED if problem else Status.DONE
    return result(way, status, cause=way.cause, message=problem, deployment=returned.deployment)


def of_then(service: Service, definition: Mapping[str, Any]) -> Service:
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


def shown(way: Way) -> Result:
    """Tell what a way would change, without going it."""
    told = "; ".join(way.changes) or "the same image, model and settings"
    return result(way, Status.SKIPPED, cause=f"dry run: {way.cause}: {told}")


def result(way: Way, status: Status, *, cause: str, message: str = "", deployment: str | None = None) -> Result:
    """Tell how a way ended, or why it was not gone."""
    found = way.unit
    details: dict[str, Any] = {
        "service": way.service.name,
        "revision": way.target.name,
        "previous": short(way.left),
        "digest": found.digest,
        "model": preparing.model_document(model_of(found)),
        "unit": found.document(),
        "changes": list(way.changes),
        "notes": list(way.notes),
        "deployment": deployment,
    }
    return Result(name=way.component, stage=STAGE, status=status, cause=cause, message=message, details=details)


def _registered(own: Turn, way: Way) -> str:
    """Register again what is gone back to; whoever comes after a kill finds it."""
    keeping.keep_deployed(own.context, way.unit.image)
    revision = starting.registered(own, way.target.definition)
    own.note(f"{way.target.name} is gone; its content is registered as {short(revision)}")
    return revision


def model_of(found: Unit) -> Model | None:
    """Return the model of a unit, as a deploy would be handed it."""
    if found.model is None:
        return None
    return Model(uri=found.model.uri, run_id=found.model.run_id, sha256=found.model.sha256)


def _story(way: Way) -> Story:
    found = way.unit
    return Story(
        component=way.component,
        service=way.service.name,
        revision=way.target.revision,
        image=found.image,
        digest=found.digest,
        model=preparing.model_document(model_of(found)),
        unit=found.document(),
        golden=way.target.golden,
        previous=way.left,
        release=way.target.release,
    )
