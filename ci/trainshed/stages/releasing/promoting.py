"""Promote: the images of the green build come to production's registry, the same digests, and its lock says so once all are there."""

from __future__ import annotations

from dataclasses import replace

from trainshed.errors import UsageError
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock
from trainshed.releases.plan import Plan
from trainshed.results import Report
from trainshed.stages import locking
from trainshed.stages.registry import copy
from trainshed.stages.releasing.room import Room

STAGE = "release-promote"


def promote(room: Room, plan: Plan) -> Report:
    """Bring the plan's images, and all that refers to them, to production's registry; write production's lock when all are there.

    Any number of times: what is there is not sent again, and what came to refer to an image meanwhile is brought. The lock is that of
    the green build, verdicts and origins kept; only the references are production's.

    Raises:
        UsageError: the plan's lock is of another tree, or production has this machine's own registry and the build has not.
    """
    _require_reachable(room)
    lock = locking.part(room.here, plan.locked, plan.components)
    target = locking.path(room.there)
    results = copy.transfer(room.here, room.there, lock.images, stage=STAGE)
    report = Report(stage=STAGE, results=tuple(results), extra={"to": plan.target})
    if report.exit_code:
        target.unlink(missing_ok=True)
        return report
    moved = moved_to(lock, room.there.repository_prefix)
    locks.write(target, moved)
    extra = {**report.extra, "lock": room.there.config.project.shown(target), "lock_digest": locks.lock_digest(moved)}
    return replace(report, extra=extra)


def moved_to(lock: Lock, prefix: str) -> Lock:
    """Return a lock whose images are referred to in another registry, by the same digests."""
    images = {name: replace(image, reference=f"{prefix}/{name}@{image.digest}") for name, image in lock.images.items()}
    return replace(lock, images=images)


def _require_reachable(room: Room) -> None:
    own, theirs = room.here.config.environment, room.there.config.environment
    if theirs.registry is None and own.registry is not None:
        message = f"environment {theirs.name} has this machine's own registry: nothing can be released to it from {own.name}'s"
        raise UsageError(message, next_step=f"Set environments.{theirs.name}.registry.")
