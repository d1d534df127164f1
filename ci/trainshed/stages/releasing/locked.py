"""The lock that a release is of: that of a green build, as the ledger keeps it; what the workspace holds may only agree with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainshed.errors import TrainshedError, UsageError, problems
from trainshed.images.components import discover
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock
from trainshed.settings import Tier
from trainshed.stages import locking, trust
from trainshed.stages.context import Context
from trainshed.stages.releasing.room import Room
from trainshed.tools import git, worktree
from trainshed.tools.git import Head
from trainshed.values import TIERS

_SHOWN = 5
_BUILD = "Have the main build run for this commit; then release again."
_OWN = "Take the lock of the main build's workspace, or none: without the file the ledger's is taken."


def lock(room: Room) -> Lock:
    """Return the lock that is released: that of the workspace, else the ledger's, as the ledger keeps it for this commit.

    Raises:
        UsageError: with all that is wrong: the run is trusted too little, the tree is changed or no commit; the lock was edited, is of
            another tree, commit or environment, of some components only, dirty, or not what the ledger has of a run that production
            trusts.
        RemoteError: a registry could not be asked.
    """
    head, wrong = git.head(room.here.config.project.root), list[TrainshedError]()
    wrong += [*_trust(room), *_tree(room.here, head)]
    taken: Lock | None = None
    if head.commit is not None:
        try:
            taken = _Search(room.here, head.commit, least(room)).lock()
        except UsageError as error:
            wrong.append(error)
    if taken is None or wrong:
        raise wrong[0] if len(wrong) == 1 else problems([each.told for each in wrong], next_step="Nothing was released.")
    return taken


def least(room: Room) -> Tier:
    """Return who must at least have made what is released: whom production admits; main's runs alone where others share its registry."""
    admitted = Tier(TIERS.index(room.there.config.environment.trust))
    return admitted if room.there.config.environment.registry is None else max(admitted, Tier.MAIN)


def _trust(room: Room) -> Iterable[TrainshedError]:
    own, asked = room.here.tier, least(room)
    if own < asked:
        where = room.there.config.environment.name
        message = f"a release to environment {where} is made by {trust.RUNS[asked]} alone, and this is {trust.RUNS[own]}"
        yield UsageError(message, next_step="Merge, and let the main build release it.")


def _tree(context: Context, head: Head) -> Iterable[TrainshedError]:
    root = context.config.project.root
    if head.commit is None:
        yield UsageError(f"{root}: no commit is checked out, and a release is of one", next_step="Commit the tree to git.")
    elif head.dirty:
        changed = [line.strip() for line in worktree.changes(root).splitlines()]
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        told = f": {', '.join(changed[:_SHOWN])}{more}" if changed else ""
        message = f"{root}: the tree is not as commit {git.short(head.commit)} has it{told}"
        yield UsageError(message, next_step="Commit it or take it away (.gitignore what a build leaves), and have it built green.")


@dataclass(frozen=True)
class _Search:
    """Looks for the lock of a commit that runs trusted enough have written."""

    context: Context
    commit: str
    least: Tier

    def lock(self) -> Lock:
        """Return the ledger's lock that is the workspace's; the newest of this environment where the workspace has none."""
        file = locking.path(self.context)
        place = self.context.config.project.shown(file)
        if not file.exists():
            return self._newest()
        given = locks.read(file)
        wrong = [*self._wrong(given, place)]
        try:
            locking.require_current(self.context, given, place=place)
        except UsageError as error:
            wrong.append(error)
        if not wrong:
            known = self._known()
            same = next((each for each in known if _facts(each) == _facts(given)), None)
            if same is not None:
                return same
            wrong = [self._differs(given, known, place)]
        raise wrong[0] if len(wrong) == 1 else problems([each.told for each in wrong])

    def _newest(self) -> Lock:
        place = f"the ledger's lock of commit {git.short(self.commit)}"
        known = self._known()
        if not known:
            raise self._none()
        taken = next((each for each in known if not [*self._elsewhere(each, place)]), known[0])
        wrong = [*self._wrong(taken, place)]
        if wrong:
            raise wrong[0] if len(wrong) == 1 else problems([each.told for each in wrong])
        locking.require_current(self.context, taken, place=place)
        return taken

    def _known(self) -> list[Lock]:
        place = f"the ledger's lock of commit {git.short(self.commit)}"
        return [locks.parse(document, place=place) for document in self._documents(self.least)]

    def _documents(self, tier: Tier) -> Sequence[Mapping[str, Any]]:
        return self.context.ledger.locks(least=tier, commit=self.commit)

    def _none(self) -> UsageError:
        """Say that nobody trusted enough locked this commit, and who did."""
        commit = git.short(self.commit)
        lower = [tier for tier in sorted(Tier, reverse=True) if tier < self.least and self._documents(tier)]
        if lower:
            message = f"commit {commit} was locked by {trust.RUNS[lower[0]]} only; what is released, {trust.RUNS[self.least]} has built"
        else:
            message = f"the ledger has no lock of commit {commit}: nobody has built, scanned and tested all of it green"
        return UsageError(message, next_step=_BUILD)

    def _wrong(self, lock: Lock, place: str) -> Iterable[TrainshedError]:
        project = self.context.config.project
        if lock.project != project.name:
            yield UsageError(f"{place}: of project {lock.project}, and this is {project.name}", next_step=_OWN)
        if lock.commit != self.commit:
            of = "of no commit" if lock.commit is None else f"of commit {git.short(lock.commit)}"
            yield UsageError(f"{place}: {of}, and {git.short(self.commit)} is checked out", next_step=_OWN)
        if lock.dirty:
            yield UsageError(f"{place}: written when the tree was changed, which no commit stands for", next_step=_BUILD)
        missing = sorted(set(discover(project.components)) - set(lock.images))
        if missing:
            yield UsageError(
                f"{place}: of some components only; it lacks {', '.join(missing)}", next_step="Run `trainshed images` for all."
            )
        yield from self._elsewhere(lock, place)

    def _elsewhere(self, lock: Lock, place: str) -> Iterable[TrainshedError]:
        own = self.context.config.environment.name
        others = {name: image.origin.get("environment") for name, image in lock.images.items() if image.origin.get("environment") != own}
        if others:
            told = ", ".join(f"{name} in {environment or 'none that is told'}" for name, environment in sorted(others.items()))
            message = f"{place}: its images were made in another environment than {own}: {told}"
            yield UsageError(message, next_step="Release from the environment of the build, with --env.")

    def _differs(self, given: Lock, known: Sequence[Lock], place: str) -> UsageError:
        """Say where the workspace's lock is not what the ledger has of this commit: whoever sealed it, it was no build."""
        if not known:
            none = self._none()
            return UsageError(f"{place}: {none.message}", next_step=none.next_step)
        newest, told = known[0], list[str]()
        for name in sorted({*given.images, *newest.images}):
            one, other = given.images.get(name), newest.images.get(name)
            if one is None or other is None or _image(one) != _image(other):
                told.append(f"{name} is {_said(one)} in it, and {_said(other)} in the ledger")
        message = f"{place}: not what the ledger has of commit {git.short(self.commit)}: {'; '.join(told) or 'it is of another tree'}"
        return UsageError(message, next_step=_OWN)


def _facts(lock: Lock) -> Any:  # noqa: ANN401 - to be compared, nothing else
    return lock.project, lock.plan_digest, {name: _image(image) for name, image in lock.images.items()}


def _image(image: locks.LockedImage) -> tuple[str, str, Mapping[str, str], object]:
    return image.reference, image.input_digest, dict(image.base), image.origin.get("environment")


def _said(image: locks.LockedImage | None) -> str:
    return "missing" if image is None else f"{image.reference} of inputs {image.input_digest[:19]}"
