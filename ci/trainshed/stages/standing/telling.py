"""What all parts of a status have in common: what does not run, and how a result is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainshed.errors import Interrupted, TrainshedError
from trainshed.local.services import KUBEFLOW, PREDICTION, REGISTRY
from trainshed.results import Result, Status, failed
from trainshed.stages.context import Context

STAGE = "status"
STOPPED = "stopped"
_NAMES = {PREDICTION: "Prediction Service", KUBEFLOW: "Kubeflow", REGISTRY: "registry"}


def stopped(context: Context) -> frozenset[str]:
    """Return what this environment needs of this machine's own services, and what does not run: to look starts nothing."""
    environment = context.config.environment
    own = {
        PREDICTION: environment.prediction_service.cluster is None,
        KUBEFLOW: environment.kubeflow.host is None,
        REGISTRY: environment.registry is None,
    }
    if not any(own.values()):
        return frozenset()
    return frozenset(one.name for one in context.embedded.status() if own.get(one.name) and one.state == "stopped")


def not_running(kind: str, name: str, service: str, details: Mapping[str, Any]) -> Result:
    """Return the result of what cannot be asked, for this machine's own service does not run."""
    message = f"the embedded {_NAMES[service]} does not run. Start it with `trainshed local up`."
    told = {"kind": kind, **details}
    return Result(name=name, stage=STAGE, status=Status.FAILED, cause=STOPPED, message=message, details=told)


def absent(kind: str, name: str, cause: str, details: Mapping[str, Any] | None = None) -> Result:
    """Return the result of what never was: that is no drift."""
    return Result(name=name, stage=STAGE, status=Status.SKIPPED, cause=cause, details={"kind": kind, **(details or {})})


def compared(kind: str, name: str, good: str, details: Mapping[str, Any], step: str) -> Result:
    """Return the result of a comparison: ``details["drift"]`` lists what differs, ``step`` says what to do about it."""
    drift: Sequence[str] = details["drift"]
    told = {"kind": kind, **details}
    if drift:
        message = "\n".join([*drift, step])
        return Result(name=name, stage=STAGE, status=Status.FAILED, cause="drifted", message=message, details=told)
    return Result(name=name, stage=STAGE, status=Status.DONE, cause=good, details=told)


def asked(kind: str, name: str, ask: Callable[[], Result]) -> Result:
    """Ask for one thing; that it cannot be asked is its own result, and hides no other."""
    try:
        return ask()
    except Interrupted:
        raise
    except TrainshedError as error:
        return replace(failed(name, STAGE, error, cause="not known"), details={"kind": kind})


def state(result: Result) -> str:
    """Return the last cell of a table: how many differences there are, or why there is nothing to compare."""
    drift = result.details.get("drift")
    return str(len(drift)) if drift else "none" if result.status is Status.DONE else result.cause
