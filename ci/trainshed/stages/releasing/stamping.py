"""Stamp: the very templates that the green build compiled get production's references and overlays."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trainshed.config import Project
from trainshed.errors import TrainshedError, WorkFailed
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import compile as compiling
from trainshed.stages import stamp as stamps
from trainshed.stages import verify as verifies
from trainshed.stages.releasing.room import Room

STAGE = "release-stamp"


def stamp(room: Room, plan: Plan) -> Report:
    """Stamp the plan's pipelines in production's room, and verify them there.

    What the build compiled is not compiled anew; a template that is (another agent has no record of it) must come out as the build's,
    where the build's is here. Results tell the template's digest beside what `stages.stamp` tells.

    Raises:
        UsageError: production's lock is missing or of another tree; a wrong settings file.
    """
    started = time.monotonic()
    built = {name: _digest(compiling.template_file(room.here.config.project, name)) for name in plan.pipelines}
    compiled = compiling.compile_templates(room.there, plan.pipelines)
    results = {each.name: _compared(room.there.config.project, each, built[each.name]) for each in compiled}
    good = [name for name, each in results.items() if each.good]
    if len(good) == len(results):
        for report in (stamps.stamp(room.there, good), verifies.verify(room.there, good)):
            _take(results, report.results)
    told = tuple(_told(room, each, built[each.name], time.monotonic() - started) for each in results.values())
    return Report(stage=STAGE, results=told)


def _compared(project: Project, compiled: Result, built: str) -> Result:
    """Fail a template that is another one than the build's."""
    now = _digest(compiling.template_file(project, compiled.name))
    if not compiled.good or built in {"", now}:
        return compiled
    message = f"{compiled.name}: its template compiles to {now[:19]}… here, and the green build has {built[:19]}…"
    error: TrainshedError = WorkFailed(message, next_step="Release with the versions of Python and kfp that built it, or build again.")
    return failed(compiled.name, STAGE, error)


def _take(results: dict[str, Result], later: Iterable[Result]) -> None:
    """Let the results of a later stage follow those before, the first bad one staying."""
    for each in later:
        before = results[each.name]
        if not each.good:
            results[each.name] = each if before.good else before
        elif before.good:
            status = Status.DONE if Status.DONE in {before.status, each.status} else each.status
            results[each.name] = replace(before, status=status, details={**before.details, **each.details})


def _told(room: Room, result: Result, built: str, seconds: float) -> Result:
    if not result.good:
        return replace(result, stage=STAGE)
    digest = _digest(compiling.template_file(room.there.config.project, result.name))
    cause = "the build's template" if built else "compiled from the same commit: the build's template is not here"
    return replace(result, stage=STAGE, seconds=seconds, cause=cause, details={**result.details, "template_digest": digest})


def _digest(file: Path) -> str:
    """Return the digest of a file's content; empty where there is none."""
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" if file.is_file() else ""
