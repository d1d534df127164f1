"""Upload: a release's pipelines become versions of its name in production's Kubeflow, and go away again when it is undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from trainshed.errors import Interrupted, RemoteError, TrainshedError, WorkFailed
from trainshed.ledger.records import Event
from trainshed.releases.plan import Plan
from trainshed.results import Report
from trainshed.stages import compile as compiling
from trainshed.stages import locking, versions
from trainshed.stages import upload as uploads
from trainshed.stages.context import Context
from trainshed.stages.launching.history import EVENT as RUN
from trainshed.stages.releasing.room import Room
from trainshed.stages.survey import LOOKUPS
from trainshed.tools import process
from trainshed.tools.kubeflow_records import NotFound, Pipeline, Version

STAGE = "release-upload"
BEGUN = "release-upload"
"""What the ledger keeps before anything is uploaded, by the plan's id: an upload that was killed is found by it from any tree."""

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What was about to be uploaded of a pipeline: its name in Kubeflow, the version's name and the digest of its content."""

    name: str
    pipeline: str
    version: str
    content_digest: str


def version_name(version: str) -> str:
    """Return what a semantic version is called in Kubeflow, as a tag of git would be."""
    return f"v{version}"


def before(room: Room, pipelines: Sequence[str], asked: Mapping[str, str]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return how production's Kubeflow stands.

    Args:
        room: the two rooms.
        pipelines: templates.
        asked: the semantic version that each gets.

    Returns:
        By template the id of the version that has the wanted name already, None for none; and the templates whose pipeline is known.

    Raises:
        UsageError: Kubeflow does not fit the configuration; a template does not compile.
        RemoteError: it cannot be reached, or the login expired.
    """
    if not pipelines:
        return {}, ()
    there = room.there
    compiled = compiling.compile_templates(there, pipelines)
    wrong = [each.message for each in compiled if not each.good]
    if wrong:
        raise WorkFailed("\n".join(wrong), next_step="Mend the template; `trainshed compile` shows what is wrong.")
    uploads.ready(there, [])
    names = {each.name: str(each.details["pipeline"]) for each in compiled}

    def look(name: str) -> tuple[str | None, bool]:
        pipeline = there.kubeflow.pipeline_by_name(names[name])
        version = _named(there, pipeline, version_name(asked[name])) if pipeline else None
        return (version.id if version else None), pipeline is not None

    def work() -> list[tuple[str | None, bool]]:
        with ThreadPoolExecutor(LOOKUPS, initializer=process.abandonable) as pool:
            return list(pool.map(look, names))

    found = dict(zip(names, process.interruptible(work), strict=True))
    return {name: version for name, (version, _) in found.items()}, tuple(name for name, (_, known) in found.items() if known)


def upload(room: Room, plan: Plan) -> Report:
    """Upload the plan's stamped pipelines under the release's version; a content that is there under another name stays that version.

    Raises:
        UsageError: as `stages.upload.upload`.
        RemoteError: as `stages.upload.upload`.
    """
    there = room.there
    release = uploads.Release(
        id=plan.id, names={name: version_name(plan.version(name).version) for name in plan.pipelines}, lock_digest=plan.lock_digest
    )
    _begin(there, plan, release)
    report = uploads.upload(there, plan.pipelines, release=release, deadline=room.left)
    return replace(report, stage=STAGE, results=tuple(replace(each, stage=STAGE) for each in report.results))


def undo(room: Room, plan: Plan) -> list[str]:
    """Delete the versions that this release made, and the pipelines that it made for them; say what was deleted.

    What was there before, or is somebody else's, stays: a version is this release's when it says so itself. Any number of times.

    Raises:
        WorkFailed: a run, or a recurring run, uses a version: it stays, and the rest is deleted.
        RemoteError: Kubeflow could not be asked; what could be deleted is.
    """
    lines: list[str] = []
    errors: list[TrainshedError] = []
    for begun in _begun(room.there, plan):
        try:
            for line in _undone(room.there, plan, begun):
                lines.append(line)  # noqa: PERF402 - what was deleted before an error is told
        except Interrupted:
            raise
        except TrainshedError as error:
            errors.append(error)
    if not errors:
        return lines
    for line in lines:
        room.there.console.line(line)
    if len(errors) == 1:
        raise errors[0]
    kind = RemoteError if all(isinstance(error, RemoteError) for error in errors) else WorkFailed
    raise kind("\n".join(error.message for error in errors), next_step=errors[0].next_step)


def _begin(there: Context, plan: Plan, release: uploads.Release) -> None:
    """Keep what is about to be uploaded."""
    lock = locking.current(there)
    document = {}
    for name in plan.pipelines:
        stamped = uploads.read_stamped(there, lock, name)
        document[name] = {"pipeline": stamped.pipeline, "version": release.names[name], "content_digest": stamped.digest}
    known = _events(there, plan)
    if not known or dict(known[0].document) != {"pipelines": document}:
        there.ledger.record_event(BEGUN, plan.target, plan.project, plan.id, {"pipelines": document})


def _begun(there: Context, plan: Plan) -> Iterator[_Begun]:
    events = _events(there, plan)
    for name, told in events[0].document["pipelines"].items() if events else ():
        yield _Begun(name=name, **told)


def _events(there: Context, plan: Plan) -> list[Event]:
    return there.ledger.events(BEGUN, plan.target, plan.project, plan.id, limit=1)


def _undone(there: Context, plan: Plan, begun: _Begun) -> Iterator[str]:
    """Delete what the release made of one pipeline."""
    client = there.kubeflow
    with uploads.turn(there, begun.name, begun.pipeline):
        pipeline = client.pipeline_by_name(begun.pipeline)
        if pipeline is None:
            return
        version = _named(there, pipeline, begun.version)
        if version is not None and _made_by(plan, begun, version):
            _require_unused(there, begun, version)
            _forget(there, plan, begun, version)
            client.delete_version(pipeline.id, version.id)
            yield f"{begun.name}: version {version.name} is deleted in Kubeflow"
        if begun.name not in plan.before.pipelines and next(client.versions(pipeline.id), None) is None:
            client.delete_pipeline(pipeline.id)
            yield f"{begun.name}: pipeline {pipeline.name}, which the release made, is deleted in Kubeflow"


def _named(there: Context, pipeline: Pipeline, name: str) -> Version | None:
    """Return the version of a name, with its specification."""
    found = next(there.kubeflow.versions(pipeline.id, name=name), None)
    try:
        return None if found is None else there.kubeflow.version(pipeline.id, found.id)
    except NotFound:  # somebody deleted it meanwhile
        return None


def _made_by(plan: Plan, begun: _Begun, version: Version) -> bool:
    """Tell whether a version is the release's own: it says so, and it was not there before.

    Where a server keeps no descriptions, name and content tell.
    """
    if version.id == plan.before.versions.get(begun.name):
        return False
    return versions.told_release(version.description) == plan.id or (
        not version.description and uploads.digest_of(version) == begun.content_digest
    )


def _forget(there: Context, plan: Plan, begun: _Begun, version: Version) -> None:
    """Tell the ledger that a version is gone, before it is: from then on nobody is pointed at it."""
    if version.id not in uploads.deleted(there, begun.name):
        told = {"pipeline_id": version.pipeline_id, "version": version.name, "version_id": version.id}
        document = {**told, "release_id": plan.id, "build_url": there.build_url}
        there.ledger.record_event(uploads.DELETED, there.config.environment.name, begun.name, version.id, document)


def _require_unused(there: Context, begun: _Begun, version: Version) -> None:
    used = sorted({*_runs(there, begun, version), *_recurring(there, version)})
    if not used:
        return
    shown = ", ".join(used[:_SHOWN]) + (f" and {len(used) - _SHOWN} more" if len(used) > _SHOWN else "")
    message = f"{begun.name}: version {version.name} is not deleted: {shown} used it"
    step = "Delete these in Kubeflow, or let them end and delete them, then run the release again: it goes on undoing."
    raise WorkFailed(message, next_step=step)


def _runs(there: Context, begun: _Begun, version: Version) -> Iterator[str]:
    """Yield the runs of a version: those in Kubeflow, and those of the ledger, which may have been started with a changed specification."""
    of_ledger = there.ledger.events(RUN, there.config.environment.name, begun.name)
    ids = {str(event.document.get("run_id")) for event in of_ledger if event.document.get("version_id") == version.id}
    for run in there.kubeflow.runs():
        if run.created and version.created and run.created < version.created:
            return  # the newest come first
        if run.version_id == version.id or run.id in ids:
            yield f"run {run.name or run.id}"


def _recurring(there: Context, version: Version) -> Iterator[str]:
    if there.config.environment.kubeflow.host is not None:  # the embedded one has none
        yield from (f"recurring run {each.name or each.id}" for each in there.kubeflow.recurring_runs() if each.version_id == version.id)
