"""Look before the work: every tool, permission, version, room on disk and service that the environment needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from trainshed.errors import TrainshedError
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.doctoring import machine, services
from trainshed.stages.doctoring.finding import Finding

CHECKS: Mapping[str, Callable[[Context], Finding]] = {
    "python": machine.python,
    "folders": machine.folders,
    "disk": machine.disk,
    "git": machine.git,
    "engine": machine.engine,
    "build client": machine.build_client,
    "trivy": machine.trivy,
    "structure test": machine.structure_test,
    "network": machine.way_out,
    "ledger": machine.ledger,
    "aws": services.aws,
    "registry": services.registry,
    "scan sources": services.scan_sources,
    "kubeflow": services.kubeflow,
    "prediction service": services.prediction_service,
}


def doctor(context: Context) -> Report:
    """Run every check, also after one failed; start nothing and change nothing.

    The exit code is that of the worst failure: 4 for a missing tool, 5 for a service that does not answer.
    """
    results = tuple(_checked(context, name, check) for name, check in CHECKS.items())
    rows = [(result.name, _word(result), _line(result)) for result in results]
    context.console.table("doctor", ("check", "verdict", "finding"), rows)
    for result in results:
        if result.status is Status.FAILED and result.details["next"]:
            context.console.line(f"{result.name}: {result.details['next']}")
    return Report(stage="doctor", results=results)


def _checked(context: Context, name: str, check: Callable[[Context], Finding]) -> Result:
    began = time.monotonic()
    try:
        found = check(context)
    except TrainshedError as error:
        details = {"next": error.next_step}
        return Result(name=name, stage="doctor", status=Status.FAILED, message=error.message, details=details, exit_code=error.exit_code)
    details = {"warning": found.warning}
    seconds = time.monotonic() - began
    return Result(name=name, stage="doctor", status=Status.DONE, cause=found.text, message=found.warning, seconds=seconds, details=details)


def _word(result: Result) -> str:
    if result.status is Status.FAILED:
        return "missing"
    return "warning" if result.message else "good"


def _line(result: Result) -> str:
    if result.status is Status.FAILED:
        return " ".join(result.message.split())
    return "; ".join(filter(None, (result.cause, result.message)))
