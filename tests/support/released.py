"""Plans of releases as tests of their parts need them: what `planning` decides, said in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainshed.pipelines import lock as locks
from trainshed.releases.manifest import Image, Manifest, Service
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.releasing import composing, journal
from trainshed.stages.releasing.room import Room

COMMIT = "1a2b3c4" + "0" * 33


def plan(
    room: Room,
    version: str,
    services: Sequence[str],
    before: Mapping[str, str | None],
    models: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    """Return the plan of a release of what production's room has locked."""
    lock = locks.read(locking.path(room.there))
    return Plan(
        id=f"id-{version}",
        project=room.there.config.project.name,
        versions=(UnitVersion(unit="", version=version, tag=f"v{version}", previous="", bump="minor"),),
        commit=COMMIT,
        branch="main",
        source=room.here.config.environment.name,
        target=room.there.config.environment.name,
        lock=lock.document(),
        lock_digest=locks.lock_digest(lock),
        components=tuple(lock.images),
        pipelines=(),
        services=tuple(services),
        models=models or {},
        before=Before(services=before),
        created="2026-01-01T00:00:00Z",
        by="a test",
    )


def manifest(context: Context, made: Plan, results: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return the manifest of a release whose services tell these results."""
    lock = locks.read(locking.path(context))
    told = {key: getattr(made, key) for key in ("versions", "project", "commit", "branch", "source", "target", "created", "by")}
    services = {str(one["name"]): {key: one[key] for key in Service.__annotations__} for one in results}
    return Manifest(
        **told,
        release=made.name,
        build_url=None,
        lock_digest=made.lock_digest,
        lock=lock.document(),
        images={
            name: Image(reference=image.reference, digest=image.digest, input_digest=image.input_digest, before="")
            for name, image in lock.images.items()
        },
        pipelines={},
        services=services,  # type: ignore[arg-type] # one that lacks a key was refused above
        runs={},
        waivers=[],
        changes={},
        previous=None,
    )


def recorded(context: Context, made: Plan, results: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write the journal of a release whose steps are all done, and keep its manifest; return it."""
    composed = manifest(context, made, results)
    digest = composing.keep(context, composed)
    entry = journal.begin(context, made)
    for step in journal.STEPS:
        entry = journal.done(context, entry, step, results if step == "deploy" else [], manifest=digest)
    journal.settled(context, entry)
    return composed
