"""What a release will do: decided once, before anything of production changes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from trainshed.errors import UsageError
from trainshed.images.components import discover
from trainshed.pipelines import templates
from trainshed.pipelines.lock import Lock, lock_digest
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.results import Report
from trainshed.stages import run, versioning
from trainshed.stages.releasing import admission, journal, locked, serving, uploading
from trainshed.stages.releasing.journal import Entry
from trainshed.stages.releasing.room import Room
from trainshed.stages.run import Selection
from trainshed.tools import git


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for: the lock of the green build, its commit and branch, and what of the repository is released."""

    lock: Lock
    commit: str
    branch: str
    pipelines: tuple[str, ...]
    services: tuple[str, ...]
    components: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the digest of the lock's images."""
        return lock_digest(self.lock)

    def is_of(self, plan: Plan) -> bool:
        """Tell whether a plan was made of just this; of units with versions of their own it may hold fewer: those that got one."""
        if (plan.commit, plan.lock_digest, plan.components) != (self.commit, self.digest, self.components):
            return False
        own, its = {*self.pipelines, *self.services}, {*plan.pipelines, *plan.services}
        return its == own if any(not each.unit for each in plan.versions) else its <= own

    def is_in(self, plan: Plan) -> bool:
        """Tell whether a plan brings all of this to production."""
        own, its = {*self.pipelines, *self.services}, {*plan.pipelines, *plan.services}
        return (plan.commit, plan.lock_digest) == (self.commit, self.digest) and own <= its


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The decision: ``plan`` is None when nothing asks for a release, and ``why`` says so; ``admitted`` is what let it in."""

    plan: Plan | None
    why: str
    admitted: Report


def wanted(room: Room, names: Sequence[str]) -> Wanted:
    """Read what is asked for; nothing is asked of production.

    Raises:
        UsageError: an unknown name; no lock of this commit, or one that was edited or is of another tree; no commit.
    """
    selection = run.select(room.here, names)
    lock = locked.lock(room)
    head = git.head(room.here.config.project.root)
    commit = lock.commit or head.commit
    if not commit:
        raise UsageError("there is no commit: a release is of one", next_step="Commit, and let it be built green.")
    return Wanted(
        lock=lock,
        commit=commit,
        branch=head.branch or "",
        pipelines=tuple(selection.pipelines),
        services=tuple(selection.services),
        components=_components(selection, lock),
    )


def planned(room: Room, names: Sequence[str] = (), bump: str | None = None, *, asked: Wanted | None = None) -> Planned:
    """Decide what is released: admitted, its versions and models, and how production stands.

    Args:
        room: the two rooms.
        names: pipelines and services; empty: all.
        bump: what the version grows by; None: what the commits ask for.
        asked: what `wanted` returned for these names, where that was asked before.

    Raises:
        TrainshedError: it is refused, or somebody who has to be asked cannot be.
    """
    asked = asked or wanted(room, names)
    admitted = admission.require(room, asked.lock, asked.components)
    if admitted.exit_code:
        return Planned(plan=None, why="it is not admitted", admitted=admitted)
    last = journal.last_released(room.there, (*asked.pipelines, *asked.services))
    units = versioning.planned(room.here, names, bump=bump or "auto", moved=_moved(room, asked))
    versions = tuple(version for version in (unit.unit_version() for unit in units) if version is not None)
    if not versions:
        return Planned(plan=None, why=_nothing(last), admitted=admitted)
    pipelines, services = _of_units(asked, versions)
    _warn_of_gone(room, last)
    return Planned(plan=_plan(room, asked, versions, pipelines, services), why="", admitted=admitted)


def _plan(room: Room, asked: Wanted, versions: tuple[UnitVersion, ...], pipelines: tuple[str, ...], services: tuple[str, ...]) -> Plan:
    here, there = room.here, room.there
    own = {each.unit: each.version for each in versions}
    by_pipeline = {name: own[name] if name in own else own[""] for name in pipelines}
    uploaded, known = uploading.before(room, pipelines, by_pipeline)
    return Plan(
        id=f"{asked.commit[:12]}-{uuid.uuid4().hex[:12]}",
        project=there.config.project.name,
        versions=versions,
        commit=asked.commit,
        branch=asked.branch,
        source=here.config.environment.name,
        target=there.config.environment.name,
        lock=asked.lock.document(),
        lock_digest=asked.digest,
        components=asked.components,
        pipelines=pipelines,
        services=services,
        models=serving.models(room, services, digests={name: asked.lock.images[name].digest for name in services}),
        before=Before(services=serving.before(room, services), versions=uploaded, pipelines=tuple(known)),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        by=there.by,
    )


def _of_units(asked: Wanted, versions: Sequence[UnitVersion]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the pipelines and services that get a version; those that nothing asks one for stay as they are."""
    units = {each.unit for each in versions}
    if "" in units:
        return asked.pipelines, asked.services
    pipelines, services = (tuple(name for name in names if name in units) for names in (asked.pipelines, asked.services))
    return pipelines, services


def _warn_of_gone(room: Room, last: Entry | None) -> None:
    """Say what the last release brought and the tree no longer has: a release takes nothing away that serves."""
    if last is None:
        return
    project = room.here.config.project
    services = {name for name, each in discover(project.components).items() if each.service}
    gone = {*last.plan.pipelines, *last.plan.services} - services - templates.discover(project.pipelines).keys()
    for name in sorted(gone):
        place = room.there.config.environment.name
        told = f"{name}: release {last.plan.name} brought it to {place}, and this tree has it no more"
        room.there.console.warning(f"{told}: what serves of it there stays until somebody deletes it")


def _components(selection: Selection, lock: Lock) -> tuple[str, ...]:
    """Return the components whose images go to production: those that were named for, else all of the lock."""
    return tuple(sorted(selection.components or lock.images))


def _moved(room: Room, asked: Wanted) -> dict[str, tuple[str, ...]]:
    """Return the components whose images are others than production has, as when a base moved: by pipeline and service, "" for all.

    What was not in the newest release, or in none to this production, is behind: for all together every image counts then.
    """
    names = (*asked.pipelines, *asked.services)
    last = journal.last_of_each(room.there, names)
    own = {name: _others(asked, last.get(name)) for name in names}
    ids = {last[name].plan.id if name in last else "" for name in names}
    return {**own, "": asked.components if len(ids) > 1 else next(iter(own.values()), _others(asked, journal.last_released(room.there)))}


def _others(asked: Wanted, last: Entry | None) -> tuple[str, ...]:
    images = {} if last is None else last.plan.lock["images"]
    return tuple(name for name in asked.components if asked.lock.images[name].digest != images.get(name, {}).get("digest"))


def _nothing(last: Entry | None) -> str:
    if last is None:
        return "no commit asks for a version"
    return f"no commit asks for a version, and the images are those of {last.plan.name}"
