"""Pipelines: whether the version that was uploaded last is in Kubeflow as it was uploaded, and schedules run what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from trainshed.errors import RemoteError
from trainshed.ledger.records import moment
from trainshed.local.services import KUBEFLOW
from trainshed.releases.manifest import Pipeline
from trainshed.results import Result
from trainshed.stages import recurring, upload
from trainshed.stages.context import Context
from trainshed.stages.standing import telling
from trainshed.tools.kubeflow_records import Denied, MalformedAnswer, NotFound, RecurringRun, Version

KIND = "pipeline"
_COLUMNS = ("pipeline", "version", "uploaded", "schedules", "drift")
_COMMIT = 8


def results(context: Context, names: Sequence[str], released: Mapping[str, Pipeline], *, stopped: bool) -> list[Result]:
    """Tell how the pipelines of these templates stand; ``released`` are those of the release in force, as its manifest has them."""
    look = _Look(context, released, stopped=stopped)
    found = [telling.asked(KIND, name, partial(look.result, name)) for name in names]
    if found:
        context.console.table(f"pipelines of {context.config.environment.name}", _COLUMNS, [_row(result) for result in found])
    return found


class _Look:
    """Kubeflow, asked once for what all pipelines share; one that does not answer is not asked again for each of them."""

    def __init__(self, context: Context, released: Mapping[str, Pipeline], *, stopped: bool) -> None:
        self._context, self._released, self._stopped = context, released, stopped
        self._version = cache(self._asked)
        self._schedules_there: list[RecurringRun] | None = None
        self._away: RemoteError | None = None
        self._notes: list[str] = []

    def result(self, name: str) -> Result:
        event = next(iter(upload.recorded(self._context, name)), None)
        if event is None:
            return telling.absent(KIND, name, "never uploaded")
        told = event.document
        details: dict[str, Any] = {key: told.get(key) for key in ("version", "version_id", "pipeline_id", "content_digest", "commit")}
        details |= {"uploaded": {"at": moment(event.created), "by": told.get("build_url") or ""}, "schedules": 0, "drift": []}
        if self._stopped:
            return telling.not_running(KIND, name, KUBEFLOW, details)
        if self._away is not None:
            raise self._away
        try:
            schedules = self._schedules(name)
            details |= {"schedules": len(schedules), "notes": self._notes}
            self._notes = []  # told once
            behind = [line for each in schedules for line in self._behind(each)]
            details["drift"] = [*self._drift(told), *self._of_release(name, told), *behind]
        except RemoteError as error:
            self._away = None if isinstance(error, MalformedAnswer) else error
            raise
        step = f"`trainshed upload {name}` and `trainshed schedule {name}` bring it back, from the commit that it is of."
        return telling.compared(KIND, name, "is there as it was uploaded", details, step)

    def _of_release(self, name: str, uploaded: Mapping[str, Any]) -> list[str]:
        """Tell of the version of the release in force, where another one was uploaded since."""
        told = self._released.get(name)
        if told is None or told.get("version_id") == uploaded.get("version_id"):
            return []
        return [f"the release's {line}" for line in self._drift(told)]

    def _drift(self, told: Mapping[str, Any]) -> list[str]:
        found = self._version(str(told.get("pipeline_id")), str(told.get("version_id")))
        if found is None:
            return [f"version {told.get('version')} is gone from Kubeflow"]
        if upload.digest_of(found) != told.get("content_digest"):
            return [f"version {told.get('version')} has other content in Kubeflow than was uploaded"]
        return []

    def _behind(self, kept: RecurringRun) -> list[str]:
        """Tell of a schedule whose version is gone; without one it runs whatever is the latest."""
        if not kept.version_id or self._version(kept.pipeline_id, kept.version_id) is not None:
            return []
        return [f"schedule {kept.name} runs version {kept.version_id}, which is gone from Kubeflow"]

    def _asked(self, pipeline_id: str, version_id: str) -> Version | None:
        try:
            return self._context.kubeflow.version(pipeline_id, version_id)
        except NotFound:
            return None

    def _schedules(self, name: str) -> list[RecurringRun]:
        """Return this project's schedules of a pipeline; the embedded Kubeflow runs none."""
        if self._schedules_there is None:
            hosted = self._context.config.environment.kubeflow.host is not None
            try:
                self._schedules_there = list(self._context.kubeflow.recurring_runs()) if hosted else []
            except Denied as error:
                self._schedules_there = []
                self._notes.append(f"schedules are not known: {error.message}")
        own = (self._context.config.project.name, self._context.config.environment.name, name)
        marks = ((kept, recurring.mark_of(kept)) for kept in self._schedules_there)
        return [kept for kept, mark in marks if mark is not None and (mark.project, mark.environment, mark.pipeline) == own]


def _row(result: Result) -> tuple[str, ...]:
    told = result.details
    uploaded, commit = told.get("uploaded") or {}, str(told.get("commit") or "")[:_COMMIT]
    when = " ".join(
        filter(None, (uploaded.get("at", ""), f"of {commit}" if commit else "", f"by {uploaded['by']}" if uploaded.get("by") else ""))
    )
    return (result.name, told.get("version") or "", when, str(told.get("schedules") or ""), telling.state(result))
