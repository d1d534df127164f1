"""``trainshed deploy``: hand the locked image, and the model, to the Prediction Service; success only when that very revision serves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainshed.errors import Interrupted, NothingSelected, TrainshedError, UsageError, WorkFailed, problems
from trainshed.images import components
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, failed
from trainshed.services import difference, golden, rendering, spec
from trainshed.services.golden import Golden
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.stages import locking, models, rollout
from trainshed.stages.context import Context
from trainshed.stages.rollout import Watch, short
from trainshed.tools.ecs import Ecs, ServiceState
from trainshed.tools.http import Http

STAGE = "deploy"
EVENT = "deployment"
_GOLDEN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What shall run, checked before anything is touched, and how it differs from what runs."""

    component: str
    service: Service
    image: LockedImage
    model: Model | None
    golden: tuple[Golden, ...]
    definition: Mapping[str, Any]
    running: ServiceState | None
    definition_changes: tuple[str, ...]
    service_changes: tuple[str, ...]

    @property
    def changes(self) -> tuple[str, ...]:
        return self.definition_changes + self.service_changes


def deploy(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    from_run: str | None = None,
    dry_run: bool = False,
    wait: bool | None = None,
    deadline: float | None = None,
) -> Report:
    """Deploy the named services, or all.

    Args:
        context: the command's room.
        names: components that have a ``service.yaml``.
        from_run: the run whose model is taken; None: the last that passed its gates.
        dry_run: show the difference, change nothing.
        wait: follow the rollout, read back the image and check golden predictions; None: yes.
        deadline: seconds for all of it.

    Raises:
        NothingSelected: there is no service.
        UsageError: before any deployment: an unknown name; a service.yaml or golden file that is wrong; no lock, or a stale one.
    """
    found = components.discover(context.config.project.components)
    services = [name for name, component in found.items() if component.service]
    if not services:
        message = f"{context.config.project.components}: there is no service"
        raise NothingSelected(message, next_step="Add one with `trainshed init --component NAME --kind service`.")
    chosen = components.select(services, names, what="service")
    require_sound(context, chosen)
    lock = locking.current(context)
    place = context.config.project.shown(locking.path(context))
    ends = None if deadline is None else time.monotonic() + deadline
    results = []
    for name in chosen:
        started = time.monotonic()
        _log(context, name).unlink(missing_ok=True)
        try:
            wanted = _prepared(context, name, lock.image(name, place=place), from_run)
            result = _deployed(context, wanted, dry_run=dry_run, wait=wait is not False, ends=ends)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = _failed(context, name, error)
        results.append(_timed(result, time.monotonic() - started))
        context.console.end(results[-1])
        if result.good and result.details.get("url"):
            context.console.line(f"  {result.details['service']}: address {result.details['url']}")
    return Report(stage=STAGE, results=tuple(results))


def require_sound(context: Context, names: Sequence[str]) -> None:
    """Read what describes the services.

    Raises:
        UsageError: with all problems of all their files at once.
    """
    wrong: list[UsageError] = []
    for name in names:
        try:
            service = _read(context, name)
            if service.golden is not None:
                golden.load(service.golden)
        except UsageError as error:
            wrong.append(error)
    if wrong:
        raise problems([error.message for error in wrong], next_step=wrong[0].next_step)


def _read(context: Context, component: str) -> Service:
    file = context.config.project.components / component / spec.FILE_NAME
    return spec.load(file, environment=context.config.environment.name)


def _prepared(context: Context, component: str, image: LockedImage, from_run: str | None) -> _Wanted:
    """Verify all that can be verified, then say what differs."""
    ecs, service = context.prediction, _read(context, component)
    requests = golden.load(service.golden) if service.golden is not None else ()
    _check(ecs, service, requests)
    ecs.check_cluster()
    if context.registry.digest(image.reference) is None:
        raise WorkFailed(f"{component}: {image.reference} is not in the registry", next_step="Run `trainshed images` again.")
    secrets = {variable: ecs.secret(reference) for variable, reference in service.secrets.items()}
    model = models.model_of(context, service.model, from_run) if service.model is not None else None
    definition = rendering.task_definition(service, image.reference, model=model, secrets=secrets, region=ecs.region)
    running = ecs.service(service.name)
    return _Wanted(
        component=component,
        service=service,
        image=image,
        model=model,
        golden=requests,
        definition=definition,
        running=running,
        definition_changes=tuple(difference.changes(ecs.task_definition(running.revision) if running else None, definition)),
        service_changes=tuple(
            difference.service_changes(running.document, rendering.service_parameters(service, exists=True)) if running else ()
        ),
    )


def _cause(changes: Sequence[str]) -> str:
    """Say in a few words what is new; the changes themselves are in the result's details."""
    places = [change.partition(": ")[0] for change in changes]
    image = [place for place in places if place.endswith(".image")]
    model = [place for place in places if ".MODEL_" in place or place.startswith("volumes.model")]
    others = [place for place in places if place not in {*image, *model}]
    return ", ".join([*["new image"] * bool(image), *["new model"] * bool(model), *others])


def _check(ecs: Ecs, service: Service, requests: Sequence[Golden]) -> None:
    """Refuse what this kind of Prediction Service cannot run, all problems at once."""
    if ecs.embedded:
        if service.secrets:
            names = ", ".join(service.secrets)
            message = f"{service.file}: secrets: the embedded Prediction Service has no secret store for {names}"
            raise UsageError(message, next_step="Overlay them under environments.local: null, and a value under environment.")
        return
    found = spec.fargate_problems(service)
    if requests and not service.address:
        found.append(f"{service.file}: load-balancer.address: needed to check the golden predictions")
    if found:
        raise problems(found, next_step="Mend the file, or overlay it for this environment.")


def _deployed(context: Context, wanted: _Wanted, *, dry_run: bool, wait: bool, ends: float | None) -> Result:
    running, primary = wanted.running, wanted.running.primary if wanted.running is not None else None
    settled = primary is not None and primary.rollout == "COMPLETED"
    proven = _proven(context, wanted.service.name)
    if running is not None and not wanted.changes and settled and running.revision in proven:
        return _result(context, wanted, Status.CACHED, running.revision, cause="the same image, model and settings serve already")
    cause = _cause(wanted.changes) or "its last rollout was not followed to a good end"
    if dry_run:
        revision = running.revision if running is not None else ""
        return _result(context, wanted, Status.SKIPPED, revision, cause=f"dry run: {'; '.join(wanted.changes) or cause}")
    context.console.start(wanted.component, STAGE, cause)
    watch = _begun(context, wanted, ends)
    previous = _previous(running, watch.revision, proven)
    if not wait:
        return _result(context, wanted, Status.DONE, watch.revision, cause=cause, deployment=watch.deployment)
    return _followed(context, wanted, watch, previous=previous, cause=cause)


def _begun(context: Context, wanted: _Wanted, ends: float | None) -> Watch:
    """Change the service with one call, or take up a deployment that already wants what we want."""
    ecs, service, running = context.prediction, wanted.service, wanted.running
    primary = running.primary if running is not None else None
    broken = primary is None or primary.rollout == "FAILED"
    reusable = running is not None and not broken and not wanted.definition_changes
    log = _log(context, wanted.component)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    seen = {event.id for event in running.events} if running is not None else set()
    parameters = rendering.service_parameters(service, exists=running is not None)
    revision = running.revision if running is not None and reusable else ecs.register(wanted.definition)
    if running is None:
        state = ecs.create_service(service.name, revision, parameters)
    elif reusable and not wanted.service_changes:
        state = running
    else:
        state = ecs.update_service(service.name, revision, parameters)
    own = state.primary
    if own is None:
        raise WorkFailed(f"{service.name}: ECS started no deployment", next_step="Look at the service in the cluster.")
    return Watch(ecs=ecs, console=context.console, service=service, deployment=own.id, revision=revision, log=log, ends=ends, seen=seen)


def _followed(context: Context, wanted: _Wanted, watch: Watch, *, previous: str | None, cause: str) -> Result:
    problem = rollout.follow(watch)
    if not problem:
        wrong = rollout.wrong_images(watch, wanted.image.digest) or _wrong_answers(watch.ecs, wanted)
        if wrong:
            watch.keep("\n".join(wrong))
            problem = "\n".join([*wrong, rollout.roll_back(watch, previous)])
    good = not problem
    document = {
        "good": good,
        "reason": problem,
        "component": wanted.component,
        "image": wanted.image.reference,
        "digest": wanted.image.digest,
        "model": _model(wanted.model),
        "previous": previous,
        "deployment": watch.deployment,
        "build_url": context.build_url,
    }
    context.ledger.record_event(EVENT, context.config.environment.name, wanted.service.name, watch.revision, document)
    status = Status.DONE if good else Status.FAILED
    return _result(context, wanted, status, watch.revision, cause=cause, message=problem, deployment=watch.deployment, previous=previous)


def _wrong_answers(ecs: Ecs, wanted: _Wanted) -> list[str]:
    """Send the golden requests; list what is wrong with the answers."""
    address = _address(ecs, wanted.service)
    found: list[str] = []
    if not address:
        return found
    with Http(timeout=_GOLDEN_SECONDS) as http:
        for request in wanted.golden:
            try:
                answer = http.request(request.method, address + request.path, json=request.body, idempotent=True)
                document = answer.json() if answer.status == request.status else None
            except Interrupted:
                raise
            except TrainshedError as error:
                found.append(f"golden prediction {request.name}: {error.message}")
                continue
            found += [f"golden prediction {text}" for text in golden.compare(request, answer.status, document)]
    return found


def _proven(context: Context, service: str) -> list[str]:
    """Return the revisions that served well, the newest first."""
    events = context.ledger.events(EVENT, context.config.environment.name, service)
    return [event.key for event in events if event.document.get("good")]


def _previous(running: ServiceState | None, revision: str, proven: Sequence[str]) -> str | None:
    """Return the revision to go back to: the one that ran, else the last one that is known to be good."""
    if running is not None and running.revision != revision:
        return running.revision
    return next((known for known in proven if known != revision), None) if running is not None else None


def _address(ecs: Ecs, service: Service) -> str:
    return service.address or ecs.address(service.name) or ""


def _model(model: Model | None) -> dict[str, str] | None:
    return {"uri": model.uri, "run_id": model.run_id} if model is not None else None


def _result(  # noqa: PLR0913 - what a result says
    context: Context,
    wanted: _Wanted,
    status: Status,
    revision: str,
    *,
    cause: str,
    message: str = "",
    deployment: str | None = None,
    previous: str | None = None,
) -> Result:
    return Result(
        name=wanted.component,
        stage=STAGE,
        status=status,
        cause=cause,
        message=message,
        log=_shown_log(context, wanted.component),
        details={
            "service": wanted.service.name,
            "revision": short(revision),
            "digest": wanted.image.digest,
            "model": _model(wanted.model),
            "url": _address(context.prediction, wanted.service) or None,
            "changes": list(wanted.changes),
            "deployment": deployment,
            "previous": short(previous) if previous else None,
            "golden": len(wanted.golden),
        },
    )


def _failed(context: Context, component: str, error: TrainshedError) -> Result:
    return failed(component, STAGE, error, log=_shown_log(context, component))


def _log(context: Context, component: str) -> Path:
    return context.config.project.work_dir / "logs" / f"{component}.{STAGE}.log"


def _shown_log(context: Context, component: str) -> str | None:
    log = _log(context, component)
    return context.config.project.shown(log) if log.exists() else None


def _timed(result: Result, seconds: float) -> Result:
    return replace(result, seconds=seconds)
