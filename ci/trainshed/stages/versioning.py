"""Which version each unit of the repository gets next: what its tags, its remote, the ledger and its commits say."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed import settings
from trainshed.errors import NothingSelected, TrainshedError, UsageError, problems
from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.pipelines import mentions, templates
from trainshed.releases import commits, version
from trainshed.releases.commits import Change, Commit
from trainshed.releases.plan import UnitVersion
from trainshed.releases.version import Next
from trainshed.stages import run
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal
from trainshed.tools import git, git_tags
from trainshed.tools.git_tags import Remote, Tag

if TYPE_CHECKING:
    from trainshed.images.components import Component

EACH = "each"
_ADVICE = "A tag of a release is never moved: put it back where it was, or delete the copy that is wrong."


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What has a version: the repository (no name), a pipeline or a service.

    ``paths`` are the files and folders whose commits count, absolute, empty for all; ``components`` those whose images it takes.
    """

    name: str
    paths: tuple[Path, ...] = ()
    components: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """The version that a unit gets next.

    ``previous`` is the tag of the last release and ``previous_commit`` its commit, empty and None before the first; ``changes`` are
    those since then, ``commits`` all commits since then; ``head`` is the commit that gets the version; ``in_the_way`` says which tag has
    the next version already, empty for none.
    """

    unit: str
    next: Next
    changes: tuple[Change, ...]
    commits: tuple[Commit, ...]
    previous: str
    previous_commit: str | None
    head: str
    in_the_way: str = ""

    @property
    def previous_version(self) -> str | None:
        """Return the last release's version, None before the first."""
        found = version.released(self.previous, self.unit)
        return None if found is None else str(found)

    def unit_version(self) -> UnitVersion | None:
        """Return what a release of it is called, None when nothing asks for one."""
        if self.next.version is None:
            return None
        return UnitVersion(
            unit=self.unit,
            version=self.next.version,
            tag=version.tag_of(self.unit, self.next.version),
            previous=self.previous,
            bump=self.next.bump,
        )

    def require_free(self) -> None:
        """Refuse a version that exists: to pass it over would release something that lacks what it has.

        Raises:
            UsageError: see above.
        """
        if self.in_the_way:
            step = (
                "Merge its commit into this branch, or ask for another version with --bump minor; a tag that is only here can be deleted."
            )
            raise UsageError(self.in_the_way, next_step=step)


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The tags of releases, as three places tell them, each by name; ``remote`` is None when it was not asked.

    ``recorded`` maps a tag that the ledger knows as released to its commit and who made it.
    """

    local: Mapping[str, Tag]
    remote: Mapping[str, str] | None
    recorded: Mapping[str, tuple[str, str]]
    place: str = ""

    def commits(self) -> dict[str, str]:
        """Return the commit of every tag that is anywhere; what the remote has counts more than what is only here."""
        local = {name: tag.commit for name, tag in self.local.items()}
        return {**local, **{name: commit for name, (commit, _) in self.recorded.items()}, **(self.remote or {})}

    def releases(self) -> dict[str, str]:
        """Return the commits of the tags that count as releases: where the remote was asked, a tag that is only here is none."""
        return {name: commit for name, commit in self.commits().items() if self._counts(name)}

    def _counts(self, name: str) -> bool:
        return self.remote is None or name in self.remote or name in self.recorded

    def where(self, name: str) -> str:
        """Say where a tag is and who made it, as far as that is known."""
        if name in self.recorded:
            return f"released by {self.recorded[name][1]}"
        tagger = self.local[name].tagger if name in self.local else ""
        place = f"on {self.place}" if name in (self.remote or {}) else "only here" if self.remote is not None else "here"
        return place + (f", made by {tagger}" if tagger else "")

    def wrong(self, ours: Iterable[str]) -> list[str]:
        """Return what does not agree among these tags: one that was moved, deleted, or never pushed."""
        return [problem for name in sorted(ours) if (problem := self._wrong(name))]

    def _wrong(self, name: str) -> str:
        told: dict[str, str] = {}
        if name in self.local:
            tag = self.local[name]
            told["here"] = tag.commit
        if self.remote is not None and name in self.remote:
            told[f"on {self.place}"] = self.remote[name]
        maker = self.recorded.get(name)
        if maker is not None:
            told[f"in the ledger (released by {maker[1]})"] = maker[0]
        if len(set(told.values())) > 1:
            by = f"; the one here was made by {self.local[name].tagger}" if name in self.local and self.local[name].tagger else ""
            said = ", ".join(f"{git.short(commit) or 'no commit'} {place}" for place, commit in told.items())
            return f"tag {name} was moved: it is {said}{by}"
        if maker is not None and self.remote is not None and name not in self.remote:
            return f"tag {name} was deleted on {self.place}: the ledger has it for {git.short(maker[0])} (released by {maker[1]})"
        return ""


def planned(
    context: Context,
    names: Sequence[str] = (),
    *,
    bump: str = version.AUTO,
    moved: Mapping[str, Collection[str]] | None = None,
    strict: bool = True,
) -> list[UnitPlan]:
    """Decide the next version of each unit.

    Args:
        context: the command's room.
        names: pipelines and services; all when empty. They change nothing where the repository has one version.
        bump: what it grows by; ``auto`` for what the commits ask for.
        moved: unit → components whose images are others than those of its last release; the repository's own has no name.
        strict: for a release: the remote and the ledger have to answer, and the new tags have to be such as can be pushed.

    Raises:
        UsageError: a shallow clone; no commit; a tag that was moved or deleted; the version that comes next was given to a commit that
            is not in this history; nobody may push tags.
        RemoteError: the remote cannot be asked, and ``strict``.
    """
    root = context.config.project.root
    found = units(context, names)
    head = git.commit_of(root, "HEAD")
    if head is None:
        raise UsageError(f"{root}: there is no commit, and a version is told from commits", next_step="Commit what is there.")
    git_tags.require_whole(root)
    place = _remote(context, strict=strict)
    seen = _tags(context, place, strict=strict)
    ours = {unit.name: {name for name in seen.releases() if version.released(name, unit.name)} for unit in found}
    wrong = seen.wrong(set[str]().union(*ours.values()))
    if wrong:
        raise problems(wrong, next_step=_ADVICE)
    history = git_tags.ancestors(root, head) if any(ours.values()) else set[str]()
    plans = [_plan(root, unit, seen, ours[unit.name], history, head, bump, (moved or {}).get(unit.name, ())) for unit in found]
    if strict:
        _require_taggable(context, place, plans)
    return plans


def remote(context: Context) -> Remote | None:
    """Return where tags are pushed to, with its token; None when the repository has no remote at all.

    Raises:
        UsageError: there are remotes, and none is called as `release.remote` says.
    """
    wanted = context.config.release
    return git_tags.remote(context.config.project.root, wanted.remote, token=settings.variable(wanted.token_env) or "")


def units(context: Context, names: Sequence[str] = ()) -> list[Unit]:
    """Return what has a version of its own among the named pipelines and services, or the one repository.

    Raises:
        UsageError: an unknown name; a pipeline and a service of one name.
        NothingSelected: there is no pipeline and no service to have a version.
    """
    project = context.config.project
    if context.config.release.versions != EACH:
        if names:
            run.select(context, names)  # refuses a name that nobody has
        return [Unit(name="")]
    selection = run.select(context, names)
    both = sorted(set(selection.pipelines).intersection(selection.services))
    if both:
        wrong = [f"{project.pipelines}: pipeline '{name}' and the service of that name would have one tag" for name in both]
        raise problems(wrong, next_step='Rename one of each pair, or set release.versions = "repository".')
    if not selection.pipelines and not selection.services:
        message = f"{project.root}: there is no pipeline and no service that could have a version"
        raise NothingSelected(message, next_step='Set release.versions = "repository", or add one.')
    components = discover(project.components)
    graph = Graph.of(components, context.config.build.args)
    known = templates.discover(project.pipelines)
    uses = mentions.of_templates([known[name] for name in selection.pipelines], components)
    found = [_unit(name, _own_files(project.pipelines, known[name]), uses[name], components, graph) for name in selection.pipelines]
    return [*found, *(_unit(name, (), {name}, components, graph) for name in selection.services)]


def _unit(name: str, files: Iterable[Path], uses: Iterable[str], components: Mapping[str, Component], graph: Graph) -> Unit:
    needed = frozenset(uses).union(*(graph.ancestors(each) for each in uses))
    return Unit(name=name, paths=(*files, *(components[each].folder for each in sorted(needed))), components=needed)


def _own_files(folder: Path, template: templates.Template) -> tuple[Path, ...]:
    return (*mentions.files_of(template), folder / f"{template.name}.toml")


def _plan(  # noqa: PLR0913 - all that a version is decided from
    root: Path, unit: Unit, seen: Tags, ours: Collection[str], history: Collection[str], head: str, bump: str, moved: Collection[str]
) -> UnitPlan:
    commit_of = seen.releases()
    reached = [name for name in ours if commit_of[name] in history]
    previous = max(reached, key=lambda name: version.released(name, unit.name) or version.LOWEST, default="")
    since = commit_of[previous] if previous else None
    told = git_tags.history(root, since, head, [os.path.relpath(path, root) for path in unit.paths])
    changes = commits.changes(told)
    last = version.released(previous, unit.name)
    touched = set(moved).intersection(unit.components) if unit.name else moved
    following = version.next_version(None if last is None else str(last), changes, bump, moved=touched)
    return UnitPlan(
        unit=unit.name,
        next=following,
        changes=tuple(changes),
        commits=tuple(told),
        previous=previous,
        previous_commit=since,
        head=head,
        in_the_way=_in_the_way(version.tag_of(unit.name, following.version), seen, head) if following.version else "",
    )


def _in_the_way(tag: str, seen: Tags, head: str) -> str:
    """Say which tag is in the way of a new one: of its name, but for one only here and at the same commit; or of its folder's name."""
    folder = tag.rpartition("/")[0]
    if folder in seen.commits():
        return f"tag {folder} is in the way: git keeps no tag {tag} beside it ({seen.where(folder)})"
    commit, counts = seen.commits().get(tag), tag in seen.releases()
    if commit is None or (commit == head and not counts):
        return ""
    why = "which is not in this history" if counts else "and was never pushed"
    return f"tag {tag} is in the way: it is at {git.short(commit) or 'no commit'}, {why} ({seen.where(tag)})"


def _remote(context: Context, *, strict: bool) -> Remote | None:
    try:
        return remote(context)
    except UsageError as error:
        if strict:
            raise
        context.console.warning(error.told)
        return None


def _tags(context: Context, place: Remote | None, *, strict: bool) -> Tags:
    local = git_tags.tags(context.config.project.root)
    there = _asked(context, place, strict=strict) if place is not None and (strict or settings.in_ci()) else None
    return Tags(local=local, remote=there, recorded=_recorded(context, strict=strict), place=place.name if place else "")


def _asked(context: Context, place: Remote, *, strict: bool) -> dict[str, str] | None:
    try:
        return git_tags.remote_tags(context.config.project.root, place)
    except TrainshedError as error:
        if strict:
            raise
        context.console.warning(f"the version is told from the tags that are here: {error.told}")
        return None


def _recorded(context: Context, *, strict: bool) -> dict[str, tuple[str, str]]:
    """Return the tags that the ledger knows as released, in whichever environment, with commit and who."""
    if not context.has_ledger:
        return {}
    found: dict[str, tuple[str, str]] = {}
    try:
        for environment in context.config.environments:
            for told in _released(context, environment):
                found.update(dict.fromkeys(told["tags"], (str(told["commit"]), str(told["by"]))))
    except TrainshedError as error:
        if strict:
            raise
        context.console.warning(f"the version is told without the ledger's releases: {error.told}")
    return found


def _released(context: Context, environment: str) -> Iterator[Mapping[str, Any]]:
    """Walk the releases of an environment whose tags are given, the oldest first; the plans are not needed for that."""
    for event in reversed(context.ledger.latest_events(journal.EVENT, environment, context.config.project.name)):
        told = event.document
        if told["state"] == journal.RELEASED or (told["state"] == journal.OPEN and journal.DECIDED in told["done"]):
            yield told


def _require_taggable(context: Context, place: Remote | None, plans: Sequence[UnitPlan]) -> None:
    """Find out now what would end the release at its last step."""
    root = context.config.project.root
    for plan in plans:
        plan.require_free()
    names = [unit.tag for plan in plans if (unit := plan.unit_version()) is not None]
    if not names:
        return
    git_tags.tagger(root)
    if git_tags.signs(root):
        git_tags.make(root, names[0], plans[0].head, "Can it be signed?", time=0)
    if place is not None:
        git_tags.require_pushable(root, place, names, plans[0].head)
