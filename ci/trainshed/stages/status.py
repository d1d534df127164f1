"""``trainshed status``: what serves, and how it differs from the ledger, the lock and service.yaml. Looks only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trainshed.errors import Interrupted, TrainshedError, UsageError
from trainshed.local.services import PREDICTION
from trainshed.pipelines.lock import Lock
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import deploy, locking
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records
from trainshed.stages.deploying.records import Known
from trainshed.stages.deploying.standing import Standing
from trainshed.tools.ecs import short

STAGE = "status"
_DIGEST_SHOWN = 19
_COLUMNS = ("service", "revision", "tasks", "state", "image", "model", "deployed", "address", "drift")


def status(context: Context, names: Sequence[str] = ()) -> Report:
    """Tell how the named services stand in this environment, or all.

    Raises:
        NothingSelected: there is no service.
        UsageError: an unknown name.
    """
    chosen = deploy.services(context, names)
    lock, note = _lock(context)
    stopped = _stopped(context)
    results = [_result(context, name, lock, stopped=stopped) for name in chosen]
    context.console.table(f"services of {context.config.environment.name}", _COLUMNS, [_row(result) for result in results])
    for result in results:
        for line in result.message.splitlines():
            context.console.line(f"  {result.name}: {line}")
    if note:
        context.console.line(note)
    return Report(stage=STAGE, results=tuple(results), extra={"lock": None if lock is None else lock.commit or "", "note": note})


def _lock(context: Context) -> tuple[Lock | None, str]:
    """Return the lock of this tree, or why images are not compared with it."""
    try:
        return locking.current(context), ""
    except UsageError as error:
        return None, f"images are not compared: {error.message}"


def _stopped(context: Context) -> bool:
    """Tell whether this machine's own Prediction Service answers, and does not run: to look starts nothing."""
    if context.config.environment.prediction_service.cluster is not None:
        return False
    return any(one.name == PREDICTION and one.state == "stopped" for one in context.embedded.status())


def _result(context: Context, component: str, lock: Lock | None, *, stopped: bool) -> Result:
    try:
        standing = _standing(context, component, lock, stopped=stopped)
        details = _details(context, standing)
    except Interrupted:
        raise
    except TrainshedError as error:
        return failed(component, STAGE, error)
    if stopped and standing.believed is not None:
        message = "the embedded Prediction Service does not run. Start it with `trainshed local up`."
        return Result(name=component, stage=STAGE, status=Status.FAILED, cause="stopped", message=message, details=details)
    if standing.state is None and standing.believed is None:
        return Result(name=component, stage=STAGE, status=Status.SKIPPED, cause="never deployed", details=details)
    drift = details["drift"]
    if drift:
        step = f"See the difference with `trainshed deploy {component} --dry-run`; `trainshed deploy {component}` brings it back."
        message = "\n".join([*drift, step])
        return Result(name=component, stage=STAGE, status=Status.FAILED, cause="drifted", message=message, details=details)
    return Result(name=component, stage=STAGE, status=Status.DONE, cause="serves as the ledger says", details=details)


def _standing(context: Context, component: str, lock: Lock | None, *, stopped: bool) -> Standing:
    """Ask for what runs: four requests for a service."""
    service = preparing.read(context, component)
    ecs = None if stopped else context.prediction
    state = ecs.service(service.name) if ecs is not None else None
    return Standing(
        service=service,
        state=state,
        definition=ecs.task_definition(state.revision) if ecs is not None and state is not None else {},
        tasks=ecs.tasks(service.name) if ecs is not None and state is not None else (),
        believed=_believed(context, service.name),
        image=lock.images.get(component) if lock is not None else None,
        region=ecs.region if ecs is not None else "",
    )


def _believed(context: Context, service: str) -> Known | None:
    """Return what the ledger believes serves: the newest revision that served well."""
    return next(iter(records.proven(context, service)), None) if context.has_ledger else None


def _details(context: Context, standing: Standing) -> dict[str, Any]:
    state, service, known, model = standing.state, standing.service, standing.believed, standing.model
    return {
        "service": service.name,
        "desired": state.desired if state is not None else 0,
        "running": state.running if state is not None else 0,
        "pending": int(state.document.get("pendingCount", 0)) if state is not None else 0,
        "rollout": standing.rollout,
        "revision": short(state.revision) if state is not None else None,
        "digests": list(standing.digests),
        "model": preparing.model_document(model),
        "deployed": {"revision": short(known.revision), "at": _moment(known.at), "by": known.by} if known is not None else None,
        "url": (service.address or context.prediction.address(service.name) or None) if state is not None else None,
        "drift": standing.drift(),
    }


def _row(result: Result) -> tuple[str, ...]:
    told: Mapping[str, Any] = result.details
    if not told:
        return (result.name, "", "", "not known", "", "", "", "", "")
    model, deployed = told["model"] or {}, told["deployed"] or {}
    pending = f" ({told['pending']} pending)" if told["pending"] else ""
    return (
        result.name,
        told["revision"] or "",
        f"{told['running']}/{told['desired']}{pending}" if told["revision"] else "",
        told["rollout"] or result.cause,
        ", ".join(digest[:_DIGEST_SHOWN] for digest in told["digests"]),
        model.get("run_id") or model.get("uri", ""),
        " by ".join(filter(None, (deployed.get("at", ""), deployed.get("by", "")))),
        told["url"] or "",
        str(len(told["drift"])) if told["drift"] else "none" if told["revision"] else "",
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
