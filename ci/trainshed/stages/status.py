"""``trainshed status``: services, pipelines, images and the release in force, against what the ledger believes. Looks only."""

from __future__ import annotations

from collections.abc import Sequence

from trainshed.errors import NothingSelected, TrainshedError, UsageError
from trainshed.images import components
from trainshed.local.services import KUBEFLOW, PREDICTION, REGISTRY
from trainshed.pipelines import templates
from trainshed.pipelines.lock import Lock
from trainshed.releases.manifest import Manifest
from trainshed.results import Report, Result
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.standing import images, pipelines, releases, services, telling


def status(context: Context, names: Sequence[str] = ()) -> Report:
    """Tell how the named pipelines and services stand in this environment; without names all, their images and the release in force.

    Raises:
        NothingSelected: there is neither a pipeline nor a service.
        UsageError: an unknown name.
    """
    of_services, of_pipelines = _chosen(context, names)
    known = _in_force(context)
    lock, note = _lock(context, known) if of_services or not names else (None, "")
    stopped = telling.stopped(context)
    results = services.results(context, of_services, lock, stopped=PREDICTION in stopped)
    serving = list(results)
    results += pipelines.results(context, of_pipelines, known.pipelines if known is not None else {}, stopped=KUBEFLOW in stopped)
    if not names:
        results += images.results(context, _referring(known, lock, serving), stopped=REGISTRY in stopped)
        results += releases.results(context, serving)
    _tell(context, results, note)
    return Report(stage=telling.STAGE, results=tuple(results), extra={"lock": None if lock is None else lock.commit or "", "note": note})


def _chosen(context: Context, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the services and the pipelines that are meant: a name may be of one of each."""
    project = context.config.project
    of_services = [name for name, component in components.discover(project.components).items() if component.service]
    of_pipelines = list(templates.discover(project.pipelines))
    if not of_services and not of_pipelines:
        message = f"{project.components}: there is no service, and no pipeline in {project.shown(project.pipelines)}"
        raise NothingSelected(message, next_step="Add one with `trainshed init`.")
    meant = components.select(dict.fromkeys([*of_services, *of_pipelines]), names, what="pipeline or service")
    return [name for name in of_services if name in meant], [name for name in of_pipelines if name in meant]


def _lock(context: Context, known: Manifest | None) -> tuple[Lock | None, str]:
    """Return the lock of this tree, or why images are not compared with it: what another environment builds, a release brings."""
    if known is not None and known.source != known.target:
        return None, f"the lock is not compared: what {known.source} builds comes to {known.target} by a release"
    try:
        return locking.current(context), ""
    except UsageError as error:
        return None, f"images are not compared: {error.message}"


def _referring(known: Manifest | None, lock: Lock | None, serving: Sequence[Result]) -> dict[str, dict[str, str]]:
    """Return who refers to which images: who → component → reference."""
    found = {"the lock": lock.references if lock is not None else {}}
    if known is not None:
        found[f"release {known.release}"] = {name: told["reference"] for name, told in known.images.items()}
    running = {result.name: str(result.details["image"]) for result in serving if "@" in str(result.details.get("image", ""))}
    return {**found, "running services": running}


def _in_force(context: Context) -> Manifest | None:
    """Return the manifest of the release in force; one that cannot be read is told by the release's own result."""
    try:
        known = releases.in_force(context)
    except TrainshedError:
        return None
    return None if known is None else known[1]


def _tell(context: Context, results: Sequence[Result], note: str) -> None:
    for result in results:
        for line in (*result.message.splitlines(), *result.details.get("notes", ())):
            context.console.line(f"  {result.name}: {line}")
    if note:
        context.console.line(note)
