"""The services of a release: the models that they get, deployed one after the other, and how all of it is taken back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status
from trainshed.services import difference, unit
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.stages import deploy as deploying
from trainshed.stages import models as handed_models
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, returning, scaling, turn, ways
from trainshed.stages.deploying.preparing import Handed
from trainshed.stages.deploying.records import Asked, Story
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.releasing.room import Room
from trainshed.tools import process
from trainshed.tools.ecs import Definition, ServiceState, registrable, short

STAGE = "release-deploy"
UNDONE = "release-undo"
_LONGEST_SECONDS = 900.0


def models(room: Room, services: Sequence[str], *, digests: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Decide on the model of each service that takes one.

    It is that of the newest run which production accepted. Where production has accepted none, it is the one that was proven with this very
    image in the environment of the build, else that of the newest run which was accepted there.

    Args:
        room: of the release.
        services: components.
        digests: component → digest of the image that is released.

    Returns:
        component → ``{uri, run_id, sha256, path, environment}``, where ``environment`` accepted the run.

    Raises:
        WorkFailed: neither environment has accepted a run, or a model is gone or was changed since.
        UsageError: a model may not be read, or production cannot reach it.
    """
    found = {}
    for name in services:
        service = preparing.read(room.there, name)
        source = service.model
        if source is None:
            continue
        place, run_id = room.there, None
        if not room.in_place and handed_models.newest(room.there, source.pipeline) is None:
            place, run_id = room.here, _proven(room.here, name, (digests or {}).get(name, ""))
        model = handed_models.model_of(place, source, run_id)
        if model.path and not room.there.prediction.embedded:
            message = f"{name}: the model of run {model.run_id} lies on this machine, where production cannot reach it: {model.uri}"
            raise UsageError(message, next_step="Train in an environment whose Kubeflow keeps its artifacts in S3.")
        told = {"uri": model.uri, "run_id": model.run_id, "sha256": model.sha256, "path": model.path}
        found[name] = {**told, "environment": place.config.environment.name}
        _warn_if_left(room.there, service.name, model.run_id)
    return found


def _warn_if_left(context: Context, service: str, run_id: str) -> None:
    """Say that somebody went back from the last revision with a model: whether for its sake, nobody wrote down."""
    last = next((one for one in records.history(context, service) if one.model and one.model.get("run_id") == run_id), None)
    if last is not None and last.state == records.ROLLED_BACK:
        told = f"{service}: the release takes the model of run {run_id}, and {short(last.revision)}, which had it, was {last.reason}"
        context.console.warning(f"{told}; where the model was the reason, launch a run that gives a better one first")


def before(room: Room, services: Sequence[str]) -> dict[str, str | None]:
    """Return the revision (ARN) that each service asks for in production now, None where there is no service."""
    found: dict[str, str | None] = {}
    for name in services:
        state = room.there.prediction.service(preparing.read(room.there, name).name)
        found[name] = state.revision if state is not None else None
    return found


def deploy(room: Room, plan: Plan) -> Report:
    """Deploy the services of a release in production, one after the other, once all of them are verified.

    The details are those of `stages.deploy`, with ``arn`` the revision, ``golden`` the digest of its golden requests (empty for none),
    and ``definition`` what registers the very same unit again.
    """
    if not plan.services:
        return Report(stage=STAGE)
    handed = Handed(release=plan.name, release_id=plan.id, models={name: _again(room, plan, name) for name in plan.models})
    looked = deploying.deploy(room.there, plan.services, dry_run=True, handed=handed)
    if looked.exit_code:  # before any other service is touched
        return _own(looked, looked.results)
    results: list[Result] = []
    for name in plan.services:
        bad = next((result.name for result in results if not result.good), "")
        results.append(_aborted(room.there, name, bad) if bad else _deployed(room, name, handed))
    report = Report(stage=STAGE, results=tuple(results))
    if not report.exit_code:
        for result in results:  # those before the last were left for as long as the others took
            _serving(room.there, result)
    return report


def undo(room: Room, plan: Plan) -> list[str]:
    """Bring every service that a release changed back to how it stood before, followed and proven; return what was done, in words.

    A service that was not there before is deleted. One that somebody else has changed meanwhile is left alone. The same again changes
    nothing, and goes on with what a killed one left.

    Raises:
        WorkFailed: a service could not be brought back; the others were.
    """
    told: list[str] = []
    wrong: list[TrainshedError] = []
    for name in reversed(plan.services):
        try:
            told += _undone(room.there, plan, name)
        except Interrupted:
            raise
        except TrainshedError as error:
            wrong.append(error)
    if wrong:
        for line in told:
            room.there.console.line(f"  {line}")
        message = "\n".join(error.message for error in wrong)
        raise WorkFailed(message, next_step=wrong[0].next_step or "Run `trainshed release` again: it goes on with it.")
    return told


def _proven(context: Context, component: str, digest: str) -> str | None:
    """Return the run whose model serves, or served, well with an image there."""
    if not digest:
        return None
    history = records.proven(context, preparing.read(context, component).name)
    return next((str(one.model["run_id"]) for one in history if one.digest == digest and one.model and one.model.get("run_id")), None)


def _again(room: Room, plan: Plan, name: str) -> Model:
    told = plan.models[name]
    model = Model(uri=told["uri"], run_id=told["run_id"], path=told["path"], sha256=told["sha256"])
    source = preparing.read(room.there, name).model
    if source is None:
        raise UsageError(f"{name}: service.yaml names no model any more, and the release has one", next_step="Begin the release anew.")
    accepted_here = told["environment"] == room.here.config.environment.name
    return handed_models.again(room.here if accepted_here else room.there, source, model)


def _deployed(room: Room, name: str, handed: Handed) -> Result:
    done = deploying.deploy(room.there, [name], handed=handed, deadline=room.left)
    (result,) = _own(done, done.results).results
    return _detailed(room.there, result) if result.good else result


def _aborted(context: Context, name: str, bad: str) -> Result:
    """Leave a service as it is: what came before it failed, and all of it will be undone."""
    result = Result(name=name, stage=STAGE, status=Status.ABORTED, cause=f"{bad} failed")
    context.console.end(result)
    return result


def _own(report: Report, results: Sequence[Result]) -> Report:
    return replace(report, stage=STAGE, results=tuple(replace(result, stage=STAGE) for result in results))


def _serving(context: Context, result: Result) -> str:
    """Return the revision (ARN) that a service has, which must be the one that it was given."""
    service = str(result.details["service"])
    state = context.prediction.service(service)
    revision = state.revision if state is not None else ""
    if short(revision) != result.details["revision"]:
        message = f"{service}: {short(revision) or 'nothing'} is deployed meanwhile, not {result.details['revision']}"
        raise WorkFailed(message, next_step="Find out who deployed it; `trainshed status` tells.")
    return revision


def _detailed(context: Context, result: Result) -> Result:
    service, revision = str(result.details["service"]), _serving(context, result)
    known = records.known(context, service, revision)
    more = {"arn": revision, "golden": known.golden if known is not None else "", "definition": _registrable(context, revision)}
    return replace(result, details={**result.details, **more})


def _registrable(context: Context, revision: str) -> dict[str, Any]:
    found = context.prediction.definition(revision)
    tags = [{"key": key, "value": value} for key, value in found.tags.items()]
    return {**registrable(found.document), **({"tags": tags} if tags else {})}


def _undone(context: Context, plan: Plan, component: str) -> list[str]:
    asked = records.of_release(context, plan.id, component)
    if asked is None:
        return []
    service = _service(context, plan, component, asked)
    with turn.taken(context, component, service, stage=UNDONE, ends=None) as taken:
        own = replace(taken, again="`trainshed release` goes on with it.")
        return [f"{service.name}: {line}" for line in _back(own, plan, asked)]


def _service(context: Context, plan: Plan, component: str, asked: Asked) -> Service:
    step = f"Check out {plan.commit[:12]}, and run `trainshed release` there."
    try:
        service = preparing.read(context, component)
    except UsageError as error:
        raise UsageError(f"{component}: it cannot be brought back: {error.message}", next_step=step) from error
    if service.name != asked.service:
        raise UsageError(f"{component}: its service is {service.name} here, and the release deployed {asked.service}", next_step=step)
    return service


def _back(own: Turn, plan: Plan, asked: Asked) -> list[str]:
    """Bring one service back."""
    revision = _before(plan, own.component, asked)
    ending = own.ecs.patiently(lambda: own.ecs.ending(own.service.name))
    if ending and revision is None:
        return [_gone(own)]
    running = own.look() if not ending else None
    if running is None:
        return [] if revision is None else [f"it was deleted meanwhile, and is left so; {short(revision)} served before"]
    now = running.primary.revision if running.primary is not None else running.revision
    if now not in {revision, *asked.revisions}:
        return [f"{short(now)} was deployed meanwhile, and is left alone"]
    if revision is None:
        return [_taken_away(own, asked)]
    return _returned(own, running, revision, asked)


def _before(plan: Plan, component: str, asked: Asked) -> str | None:
    """Return what served before the release: what its own deploy found, where somebody deployed another one after the plan was made."""
    planned = plan.before.services.get(component)
    if planned in asked.revisions or not asked.previous or asked.previous in asked.revisions:
        return planned
    return asked.previous


def _returned(own: Turn, running: ServiceState, revision: str, asked: Asked) -> list[str]:
    context, name = own.context, own.service.name
    settings = dict(asked.settings) if difference.service_changes(running.document, asked.settings) else {}
    primary = running.primary
    there = primary is not None and primary.complete and primary.revision == revision and not settings
    history = records.history(context, name)
    known = next((one for one in history if one.revision == revision), None)
    ended = not history or not history[0].to  # else somebody began to go back, and nobody saw how that ended
    if there and known is not None and known.good and ended:
        return [f"{short(revision)} serves, as before"]
    own.note(f"going back to {short(revision)}")
    for left in history:
        if left.revision in asked.revisions and left.revision != revision and left.state != records.ROLLED_BACK:
            records.left(context, name, left, to=revision)  # before the call: whoever comes after a kill must not come back to it
    ends = time.monotonic() + _LONGEST_SECONDS
    returned = returning.return_to(own, running, revision, settings, ends=ends)
    story = _story(own, own.ecs.definition(revision), golden=known.golden if known is not None else "", asked=asked)
    records.ended(context, story, deployment=returned.deployment, problem=returned.problem)
    if returned.problem:
        step = "Mend it, then run `trainshed release` again: it goes on with it."
        raise WorkFailed(f"{name}: going back to {short(revision)} failed: {returned.problem}\n{returning.serves(own)}", next_step=step)
    return [f"back to {short(revision)}"]


def _story(own: Turn, definition: Definition, *, golden: str, asked: Asked) -> Story:
    """Return what the ledger keeps of a revision that a release came back to; it is no part of that release."""
    found = unit.unit_of(definition.document)
    left = next((one for one in asked.revisions if one != definition.arn), None)
    return Story(
        component=own.component,
        service=own.service.name,
        revision=definition.arn,
        image=found.image,
        digest=found.digest,
        model=preparing.model_document(ways.model_of(found)),
        unit=found.document(),
        golden=golden,
        previous=left,
    )


def _taken_away(own: Turn, asked: Asked) -> str:
    """Delete a service that a release made."""
    own.note("it was not there before the release: deleting it")
    for left in records.history(own.context, own.service.name):
        if left.revision in asked.revisions and left.state != records.ROLLED_BACK:
            records.left(own.context, own.service.name, left, to="")
    own.require_alone()
    scaling.take_away(own.ecs, own.service)
    own.require_alone()
    own.ecs.delete_service(own.service.name)
    return _gone(own)


def _gone(own: Turn) -> str:
    """Wait until a service that was deleted is gone: until then none of its name can be made."""
    ends = time.monotonic() + _LONGEST_SECONDS
    while own.ecs.patiently(lambda: own.ecs.ending(own.service.name)):
        if time.monotonic() >= ends:
            message = f"{own.service.name}: it was deleted, and its last tasks have not ended for {_LONGEST_SECONDS:g} s"
            raise WorkFailed(message, next_step="Look at its tasks, then run `trainshed release` again.")
        process.pause(own.ecs.poll)
    return "deleted: it was not there before"
