"""Schedule: production's recurring runs run what was released, once it is decided; what would be wrong with them is found before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainshed.pipelines import templates
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status
from trainshed.stages import schedule as schedules
from trainshed.stages.releasing.room import Room
from trainshed.stages.schedule import VersionOf
from trainshed.tools import git
from trainshed.tools.kubeflow_records import Version

STAGE = "release-schedule"
Uploaded = Sequence[Mapping[str, Any]]
"""What the step ``upload`` told of each pipeline."""


def check(room: Room, plan: Plan, uploaded: Uploaded) -> None:
    """Make sure, while all can still be undone, that the schedules declared for production fit what was uploaded.

    Raises:
        TrainshedError: as `stages.schedule.schedule`, before it changes anything.
    """
    schedules.check(room.there, _names(room, plan), _versions(room, plan, uploaded))


def schedule(room: Room, plan: Plan, uploaded: Uploaded) -> Report:
    """Bring production's recurring runs to what is declared, with the versions of the release; any number of times.

    A tree of another commit may declare what these versions do not know: then they stay as they are, which is told.
    """
    head = git.head(room.here.config.project.root).commit
    if head != plan.commit:
        cause = f"the tree is at {git.short(head or '') or 'no commit'}, so schedules stay as they are until it is released"
        room.there.console.warning(f"release {plan.name}: {cause}")
        return Report(stage=STAGE, results=(Result(name="schedules", stage=STAGE, status=Status.SKIPPED, cause=cause),))
    report = schedules.schedule(room.there, _names(room, plan), version_of=_versions(room, plan, uploaded))
    return replace(report, stage=STAGE, results=tuple(replace(each, stage=STAGE) for each in report.results))


def _names(room: Room, plan: Plan) -> tuple[str, ...]:
    """Return the pipelines whose schedules count: none named, which takes in those that are gone, where the release is of all."""
    return () if set(templates.discover(room.there.config.project.pipelines)) == set(plan.pipelines) else plan.pipelines


def _versions(room: Room, plan: Plan, uploaded: Uploaded) -> VersionOf:
    told = {str(each["name"]): each for each in uploaded}

    def version_of(name: str) -> tuple[Version, str]:
        found = room.there.kubeflow.version(str(told[name]["pipeline_id"]), str(told[name]["version_id"]))
        return found, f"version {found.name} of release {plan.name}"

    return version_of
