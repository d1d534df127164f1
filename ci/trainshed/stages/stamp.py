"""``trainshed stamp``: write the lock's digests and the environment's overlays into the compiled pipelines."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainshed import files
from trainshed.errors import TrainshedError
from trainshed.pipelines import content, mentions
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines.lock import Lock
from trainshed.pipelines.overlays import InForce
from trainshed.pipelines.stamp import stamped
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import compile as compiling
from trainshed.stages import locking
from trainshed.stages.context import Context

STAGE = "stamp"


def stamp(context: Context, names: Sequence[str] = ()) -> Report:
    """Stamp the named pipelines, or all; write ``pipelines/<name>.yaml``. A template that changed is compiled first.

    Raises:
        NothingSelected: there is no template.
        UsageError: there is no lock, it was edited, or it is of another tree; a name that no template has; a wrong settings file.
    """
    chosen = compiling.selected(context, names)
    compiling.require_known(context, chosen)
    in_force = {template.name: compiling.overlays(context, template) for template in chosen}
    lock = locking.current(context)
    compiled = compiling.compile_templates(context, [template.name for template in chosen])
    results = [_stamped(context, lock, result, in_force[result.name]) for result in compiled]
    for result in results:
        context.console.end(result)
    shown = [result for result in compiled if result.status is not Status.CACHED]
    return Report(stage=STAGE, results=(*shown, *results))


def _stamped(context: Context, lock: Lock, compiled: Result, in_force: InForce) -> Result:
    name, project = compiled.name, context.config.project
    if not compiled.good:
        return Result(name=name, stage=STAGE, status=Status.ABORTED, message="its template does not compile")
    started = time.monotonic()
    target = compiling.stamped_file(project, name)
    before = target.read_text(encoding="utf-8", errors="replace") if target.is_file() else None
    try:
        source = files.read_text(compiling.template_file(project, name), what="the compiled template")
        made = stamped(source, lock.references, place=name, in_force=in_force)
    except TrainshedError as error:
        return failed(name, STAGE, error)
    text, cause = made.text, "stamped before with the same digests"
    if text != before:
        cause = _cause(lock, before, compiled)
        files.write_text(target, text)
    return Result(
        name=name,
        stage=STAGE,
        status=Status.CACHED if text == before else Status.DONE,
        cause=cause,
        seconds=time.monotonic() - started,
        details={
            "file": project.shown(target),
            "pipeline": compiled.details["pipeline"],
            "content_digest": content.content_digest(text, place=name),
            "environment": in_force.environment,
            "overlays": [str(change) for change in made.changes],
            "images": {component: lock.references[component] for component in compiled.details["components"]},
        },
    )


def _cause(lock: Lock, before: str | None, compiled: Result) -> str:
    """Say what is new since the last stamp."""
    if before is None:
        return "not stamped here before"
    try:
        held = {image.image for image in mentions.images(yaml_documents.load(before, place=compiled.name))}
    except TrainshedError:
        return "the stamped file was not whole"
    moved = [component for component in compiled.details["components"] if lock.references[component] not in held]
    if moved:
        return f"new image of {', '.join(moved)}"
    return "the template changed" if compiled.status is Status.DONE else "the template or its overlays changed"
