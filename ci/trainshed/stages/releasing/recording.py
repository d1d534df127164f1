"""Record: the manifest and the notes of a release as files, for the build's page and for whoever keeps them."""

from __future__ import annotations

import time

from trainshed import files
from trainshed.releases import manifest as manifests
from trainshed.releases import notes
from trainshed.releases.manifest import Manifest
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status
from trainshed.stages.releasing.room import Room

STAGE = "release-record"


def record(room: Room, plan: Plan, manifest: Manifest) -> Report:
    """Write ``release.json`` and ``notes.md`` into production's work folder, each whole; the file has the manifest's digest."""
    project = room.there.config.project
    results = []
    contents = {manifests.FILE_NAME: manifest.content(), notes.FILE_NAME: notes.notes(manifest).encode()}
    for name, content in contents.items():
        started, path = time.monotonic(), project.work_dir / name
        files.write_bytes(path, content)
        shown, cause = project.shown(path), f"release {plan.name}"
        results.append(Result(name=shown, stage=STAGE, status=Status.DONE, cause=cause, seconds=time.monotonic() - started))
    told = {"manifest": manifest.digest, "tags": manifest.tags}
    return Report(stage=STAGE, results=tuple(results), extra=told)
