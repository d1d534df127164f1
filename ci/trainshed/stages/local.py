"""The embedded services by hand: start, look, read, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trainshed.errors import TrainshedError
from trainshed.local import engine
from trainshed.local.services import ENGINE, KUBEFLOW, NAMES, PREDICTION, REGISTRY, Embedded, ServiceStatus
from trainshed.results import Report, Result, Status, failed
from trainshed.stages.context import Context

_TAIL_BYTES = 32_768


def up(context: Context) -> Report:
    """Start the embedded services that the environment uses; one that fails leaves the others alone."""
    embedded = Embedded(context.config.project.state, notify=context.console.line)
    environment = context.config.environment
    starts: dict[str, Callable[[], str]] = {ENGINE: embedded.engine_host}
    if environment.registry is None:
        starts[REGISTRY] = embedded.registry_address
    if environment.kubeflow.host is None:
        starts[KUBEFLOW] = embedded.kubeflow_address
    if environment.prediction_service.cluster is None:
        starts[PREDICTION] = embedded.prediction_address
    results = [_started(name, start) for name, start in starts.items()]
    rows = [(result.name, result.status, result.details.get("address", ""), result.message) for result in results]
    context.console.table("embedded services", ("service", "status", "address", "problem"), rows)
    return Report(stage="local-up", results=tuple(results))


def status(context: Context) -> Report:
    """Tell which embedded services run, and where."""
    found = context.embedded.status()
    rows = [(one.name, one.state, one.address, one.pid or "") for one in found]
    context.console.table("embedded services", ("service", "state", "address", "process"), rows)
    return Report(stage="local-status", results=tuple(_result(context, one) for one in found))


def logs(context: Context, names: Sequence[str] = ()) -> Report:
    """Print the end of the logs of the named services, of all when none is named.

    Raises:
        UsageError: there is no service of that name.
    """
    results = []
    for name in names or NAMES:
        log = context.embedded.logs(name)
        shown = context.config.project.shown(log)
        written = log.is_file()
        context.console.heading(f"{name}: {shown}" if written else f"{name}: nothing written yet")
        if written:
            for line in log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines():
                context.console.line(line)
        results.append(Result(name=name, stage="local-logs", status=Status.DONE if written else Status.SKIPPED, log=shown))
    return Report(stage="local-logs", results=tuple(results))


def down(context: Context) -> Report:
    """Stop the embedded services, the engine last; what they hold on disk stays.

    On an engine of the machine's own, what killed commands left is removed too: it is the last that a build does.
    """
    host = context.embedded.found_engine()
    ended = context.embedded.down()
    if host is not None and host == context.embedded.found_engine() and engine.listens(host):
        from trainshed.tools.docker import Engine

        with Engine.connect(host) as found:
            found.sweep()
    context.console.line(f"stopped: {', '.join(ended)}" if ended else "nothing ran")
    states = [(name, Status.DONE if name in ended else Status.SKIPPED) for name in NAMES]
    return Report(stage="local-down", results=tuple(Result(name=name, stage="local-down", status=state) for name, state in states))


def _started(name: str, start: Callable[[], str]) -> Result:
    began = time.monotonic()
    try:
        address = start()
    except TrainshedError as error:
        return failed(name, "local-up", error)
    return Result(name=name, stage="local-up", status=Status.DONE, seconds=time.monotonic() - began, details={"address": address})


def _result(context: Context, found: ServiceStatus) -> Result:
    return Result(
        name=found.name,
        stage="local-status",
        status=Status.SKIPPED if found.state == "stopped" else Status.DONE,
        cause=found.state,
        log=context.config.project.shown(found.log) if found.log is not None else None,
        details={"state": found.state, "address": found.address, "pid": found.pid},
    )
