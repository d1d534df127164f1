"""Services: what serves, and how it differs from the ledger, the lock and service.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from trainshed.ledger.records import moment
from trainshed.local.services import PREDICTION
from trainshed.pipelines.lock import Lock
from trainshed.results import Result
from trainshed.services.unit import unit_of
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records
from trainshed.stages.deploying.records import Known
from trainshed.stages.deploying.standing import Standing
from trainshed.stages.standing import telling
from trainshed.tools.ecs import short

KIND = "service"
_DIGEST_SHOWN = 19
_COLUMNS = ("service", "revision", "tasks", "state", "image", "model", "deployed", "address", "drift")


def results(context: Context, names: Sequence[str], lock: Lock | None, *, stopped: bool) -> list[Result]:
    """Tell how the services of these components stand; ``lock`` is the one of this tree."""
    found = [telling.asked(KIND, name, partial(_result, context, name, lock, stopped=stopped)) for name in names]
    if found:
        context.console.table(f"services of {context.config.environment.name}", _COLUMNS, [_row(result) for result in found])
    return found


def _result(context: Context, component: str, lock: Lock | None, *, stopped: bool) -> Result:
    standing = _standing(context, component, lock, stopped=stopped)
    details = _details(context, standing)
    if stopped and standing.believed is not None:
        return telling.not_running(KIND, component, PREDICTION, details)
    if standing.state is None and standing.believed is None:
        return telling.absent(KIND, component, "never deployed", details)
    step = f"See the difference with `trainshed deploy {component} --dry-run`; `trainshed deploy {component}` brings it back."
    return telling.compared(KIND, component, "serves as the ledger says", details, step)


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
        "image": str(standing.container.get("image", "")),
        "unit": unit_of(standing.definition).key if standing.definition else "",
        "model": preparing.model_document(model),
        "deployed": {"revision": short(known.revision), "at": moment(known.at), "by": known.by} if known is not None else None,
        "url": (service.address or context.prediction.address(service.name) or None) if state is not None else None,
        "drift": standing.drift(),
    }


def _row(result: Result) -> tuple[str, ...]:
    told: Mapping[str, Any] = result.details
    if "revision" not in told:
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
