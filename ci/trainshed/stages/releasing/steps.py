"""The steps of a release in their order: what does each, and what undoes it. Each may be done, and undone, any number of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainshed.releases import notes
from trainshed.results import Report
from trainshed.stages.releasing import composing, promoting, recording, scheduling, serving, stamping, tagging, uploading
from trainshed.stages.releasing.journal import DECIDED, STEPS, Entry
from trainshed.stages.releasing.room import Room


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    ``undo`` returns lines that say what was undone, None where nothing of production changes; ``needed`` tells whether this release
    has anything for it; ``again``: it leaves files in the work folder, so whoever goes on, perhaps elsewhere, does it again.
    """

    name: str
    do: Callable[[Room, Entry], Report]
    undo: Callable[[Room, Entry], list[str]] | None = None
    needed: Callable[[Entry], bool] = lambda _: True
    again: bool = False


def stage(step: str) -> str:
    """Return what the results of a step are called: never as those of a build's own stages."""
    return f"release-{step}"


def _upload(room: Room, entry: Entry) -> Report:
    report = uploading.upload(room, entry.plan)
    if not report.exit_code:
        scheduling.check(room, entry.plan, [result.document() for result in report.results])
    return report


def _schedule(room: Room, entry: Entry) -> Report:
    return scheduling.schedule(room, entry.plan, entry.done["upload"])


def _tag(room: Room, entry: Entry) -> Report:
    told = notes.notes(composing.of(room.there, entry.manifest))
    return tagging.tag(room, entry.plan, notes=told, manifest=entry.manifest)


def _record(room: Room, entry: Entry) -> Report:
    return recording.record(room, entry.plan, composing.of(room.there, entry.manifest))


_TABLE = (
    Step(name="promote", do=lambda room, entry: promoting.promote(room, entry.plan), again=True),
    Step(
        name="stamp",
        do=lambda room, entry: stamping.stamp(room, entry.plan),
        needed=lambda entry: bool(entry.plan.pipelines),
        again=True,
    ),
    Step(
        name="upload",
        do=_upload,
        undo=lambda room, entry: uploading.undo(room, entry.plan),
        needed=lambda entry: bool(entry.plan.pipelines),
    ),
    Step(
        name="deploy",
        do=lambda room, entry: serving.deploy(room, entry.plan),
        undo=lambda room, entry: serving.undo(room, entry.plan),
        needed=lambda entry: bool(entry.plan.services),
    ),
    Step(name=DECIDED, do=_tag, undo=lambda room, entry: tagging.undo(room, entry.plan, entry.manifest)),
    Step(name="record", do=_record),
    Step(name="schedule", do=_schedule, needed=lambda entry: bool(entry.plan.pipelines)),
)
ALL: tuple[Step, ...] = tuple(sorted(_TABLE, key=lambda step: STEPS.index(step.name)))
COMPOSED_AFTER = "deploy"
"""The step after which all is known that the manifest tells."""
