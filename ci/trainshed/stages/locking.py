"""The lock's life: written when all is green, taken away when it is not, believed only for the tree that it is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock, LockedImage
from trainshed.results import Report
from trainshed.stages.context import Context
from trainshed.stages.registry.keeping import keep_locked
from trainshed.stages.survey import Survey, survey
from trainshed.stages.work import Work
from trainshed.tools import git

EVENT = "lock"
"""What the ledger keeps of a lock of some components."""
_UNKNOWN = "not known to the lock"


def path(context: Context) -> Path:
    """Return where the lock is."""
    return context.config.project.work_dir / locks.FILE_NAME


def settle(context: Context, work: Work, report: Report) -> Lock | None:
    """Write the lock for a green report; take an old one away after any other.

    The lock of the whole tree alone is what a commit or a branch stands for; of one of some components the ledger keeps where its
    images come from.
    """
    if report.exit_code or report.status != "green":
        path(context).unlink(missing_ok=True)
        return None
    images = {name: LockedImage(**entry) for name, entry in work.lock_entries(work.survey.selected).items()}
    head = git.head(context.config.project.root)
    lock = locks.of(
        project=context.config.project.name, commit=head.commit, dirty=head.dirty, plan_digest=work.survey.plan_digest(), images=images
    )
    whole = set(images) == set(work.survey.components)
    if whole:
        keep_locked(context, lock.references)
    written = locks.write(path(context), lock)
    if whole and (written or not _recorded(context, lock, head)):
        context.ledger.record_lock(lock.plan_digest, head.commit or "", head.branch or "", lock.document())
    if not whole and (written or not _part_recorded(context, lock)):
        context.ledger.record_event(EVENT, context.config.environment.name, lock.project, locks.lock_digest(lock), lock.document())
    return lock


def _recorded(context: Context, lock: Lock, head: git.Head) -> bool:
    """Tell whether the ledger has this lock: it may have been lost, or the file was written for the named components first."""
    known = context.ledger.lock(commit=head.commit or "", branch=head.branch or "")
    return known is not None and known.get("plan_digest") == lock.plan_digest and set(known.get("images", ())) == set(lock.images)


def _part_recorded(context: Context, lock: Lock) -> bool:
    events = context.ledger.events(EVENT, context.config.environment.name, lock.project, locks.lock_digest(lock))
    return any((event.document.get("commit"), event.document.get("dirty")) == (lock.commit, lock.dirty) for event in events)


def current(context: Context) -> Lock:
    """Read the lock and prove that it is of the tree as it is now; bases from outside count as the lock knows them.

    Raises:
        UsageError: there is no lock, it was edited, or the tree has changed since.
    """
    lock = locks.read(path(context))
    require_current(context, lock, place=context.config.project.shown(path(context)))
    return lock


def require_current(context: Context, lock: Lock, *, place: str) -> None:
    """Prove that a lock is of the tree as it is now; ``place`` names it in messages.

    Raises:
        UsageError: it is of another tree.
    """
    taken = survey(context, sorted(lock.images), pins=pins(lock))
    lock.require_current(taken.plan_digest(lock.images), place=place)


def here(context: Context, component: str, image: LockedImage) -> LockedImage:
    """Return a locked image as the environment's own registry has it, where `registry copy` brought it there; else as it is locked."""
    own = f"{context.repository_prefix}/{component}@{image.digest}" if context.config.environment.registry is not None else image.reference
    if own == image.reference or context.registry.digest(own) != image.digest:
        return image
    return replace(image, reference=own)


def part(context: Context, lock: Lock, names: Iterable[str]) -> Lock:
    """Return the lock of some of its components, with the own bases that they stand on.

    Raises:
        UsageError: the lock is of another tree, or has no such component.
    """
    place = context.config.project.shown(path(context))
    chosen: dict[str, LockedImage] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen[name] = lock.image(name, place=place)
            waiting += [base for base in chosen[name].base if base in lock.images]
    if chosen.keys() == lock.images.keys():
        return lock
    taken = survey(context, sorted(lock.images), pins=pins(lock))
    lock.require_current(taken.plan_digest(lock.images), place=place)
    return replace(lock, images={name: chosen[name] for name in sorted(chosen)}, plan_digest=taken.plan_digest(chosen))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the tree's plan digest is for the components of a lock, and which of them differ from it; none when it is of this tree."""

    plan_digest: str
    differing: tuple[str, ...]


def compare(context: Context, lock: Lock) -> Comparison:
    """Compare the tree with a lock that may be of another one; no registry is asked: a base that the lock does not know differs.

    Raises:
        UsageError: the tree is wrong.
        NothingSelected: there is no component.
    """
    components = discover(context.config.project.components)
    graph = Graph.of(components, context.config.build.args)
    foreign = {reference for name in components for reference in graph.foreign(name)}
    present = sorted(name for name in lock.images if name in components)
    taken = survey(context, present, pins={**dict.fromkeys(foreign, _UNKNOWN), **pins(lock)})
    digest = taken.plan_digest(present)
    if digest == lock.plan_digest:
        return Comparison(plan_digest=digest, differing=())
    differing = [name for name in sorted(lock.images) if name not in components or not _same(taken, lock, name)]
    return Comparison(plan_digest=digest, differing=tuple(differing))


def pins(lock: Lock) -> Mapping[str, str]:
    """Return the digests of the bases from outside, as the lock knows them."""
    return {base: digest for image in lock.images.values() for base, digest in image.base.items() if base not in lock.images}


def _same(taken: Survey, lock: Lock, name: str) -> bool:
    own = {base: lock.images[base].digest for base in taken.own_bases(name) if base in lock.images}
    return len(own) == len(taken.own_bases(name)) and taken.inputs(name, own).digest == lock.images[name].input_digest
