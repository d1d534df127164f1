"""The tags of a release: the step that decides it. A tag is written without a name, pushed, and named here only when the remote has it.

So a process that dies on the way leaves nothing behind: either the remote has the tags, and the release is decided, or nobody has them.
Where the repository has no remote, naming them here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from trainshed.errors import WorkFailed
from trainshed.releases.plan import Plan
from trainshed.results import Report, Result, Status
from trainshed.stages import versioning
from trainshed.stages.releasing.room import Room
from trainshed.tools import git, git_tags
from trainshed.tools.git_tags import Remote

STAGE = "release-tag"
_LINE = "manifest: {digest}"


def tag(room: Room, plan: Plan, *, notes: str, manifest: str) -> Report:
    """Give the commit its tags, all or none; done already, it is found done.

    Args:
        room: the two rooms of the release.
        plan: of the release.
        notes: what the message of the tags begins with.
        manifest: the digest of the release's manifest, which the message ends with.

    Raises:
        TagTaken: a tag is there for another commit, or another release; it says who made it.
        UsageError: the remote takes no tags from us, or git does not know who we are.
        PushUnknown: whether they arrived cannot be known now: neither undo nor go on before `pushed` answers.
        RemoteError: they did not arrive.
    """
    root, remote = _root(room), versioning.remote(room.there)
    given = _given(room, plan, manifest, remote)
    if not given:
        _require_free(room, plan, remote)
        time = int(datetime.fromisoformat(plan.created).timestamp())
        message = f"{notes.rstrip()}\n\n{_LINE.format(digest=manifest)}\n"
        objects = {each.tag: git_tags.make(root, each.tag, plan.commit, message, time=time) for each in plan.versions}
        if remote is None:
            git_tags.keep(root, objects, commit=plan.commit)
        else:
            given = not git_tags.push(root, remote, objects, plan.commit)
            if given and not _given(room, plan, manifest, remote):
                raise git_tags.taken_on(root, remote, dict.fromkeys(objects, plan.commit))
            _name_here(room, objects, plan.commit)
    if remote is None:
        room.there.console.line("this repository has no remote: the tags are only here")
    results = tuple(_result(room, plan, each.unit, each.tag, remote, given=given) for each in plan.versions)
    for result in results:
        room.there.console.end(result)
    return Report(stage=STAGE, results=results)


def undo(room: Room, plan: Plan, manifest: str) -> list[str]:
    """Undo what was done before the decision, which is nothing: a tag that nobody has needs no undoing.

    Raises:
        WorkFailed: the tags are given, so that the release is decided and cannot be undone.
        RemoteError: that cannot be known now.
    """
    if pushed(room, plan, manifest):
        tags = ", ".join(plan.tags)
        message = f"tag {tags} is on {_place(versioning.remote(room.there))}: release {plan.name} is decided"
        back = f"`trainshed --env {plan.target} rollback --release VERSION`"
        raise WorkFailed(message, next_step=f"Release anew: it is finished. To go back to an earlier one, {back}.")
    return []


def pushed(room: Room, plan: Plan, manifest: str) -> bool:
    """Tell whether the release is decided: the remote has its tags, whoever heard of it; without a remote, this repository.

    A tag of the same name and commit that names another manifest, or none, is somebody else's, and decides nothing here.

    Raises:
        UsageError: the remote lets us not in.
        RemoteError: it cannot be asked.
    """
    return _given(room, plan, manifest, versioning.remote(room.there))


def names(told: str, commit: str, manifest: str) -> bool:
    """Tell whether a tag, as `git_tags.told` returns it, is of a commit and names a manifest."""
    lines = told.splitlines()
    return f"object {commit}" in lines and _LINE.format(digest=manifest) in lines


def _given(room: Room, plan: Plan, manifest: str, remote: Remote | None) -> bool:
    there = _commits(room, remote)
    if any(there.get(name) != plan.commit for name in plan.tags):
        return False
    return all(names(git_tags.told(_root(room), remote, name), plan.commit, manifest) for name in plan.tags)


def _require_free(room: Room, plan: Plan, remote: Remote | None) -> None:
    """Refuse a tag that is here for another commit, before anybody gets one that differs."""
    local = git_tags.tags(_root(room))
    taken = {
        name: (local[name].commit, local[name].tagger)
        for name in plan.tags
        if name in local and (remote is None or local[name].commit != plan.commit)
    }
    if taken:
        raise git_tags.taken_by(taken, "here" if remote is None else f"here, and not on {remote.shown},")


def _name_here(room: Room, objects: Mapping[str, str], commit: str) -> None:
    """Show the tags here as well; the release is decided, so that nothing of this can end it."""
    try:
        git_tags.keep(_root(room), objects, commit=commit)
    except WorkFailed as error:
        room.there.console.warning(f"the tags are pushed, and not named here: {error.message}")


def _commits(room: Room, remote: Remote | None) -> dict[str, str]:
    if remote is not None:
        return git_tags.remote_tags(_root(room), remote)
    return {name: found.commit for name, found in git_tags.tags(_root(room)).items()}


def _result(room: Room, plan: Plan, unit: str, name: str, remote: Remote | None, *, given: bool) -> Result:  # noqa: PLR0913
    place = _place(remote)
    return Result(
        name=unit or room.there.config.project.name,
        stage=STAGE,
        status=Status.CACHED if given else Status.DONE,
        cause=f"{name} at {git.short(plan.commit)}, {'there already' if given else 'new'} on {place}",
        details={"tag": name, "commit": plan.commit, "remote": None if remote is None else remote.name},
    )


def _root(room: Room) -> Path:
    return room.here.config.project.root


def _place(remote: Remote | None) -> str:
    return "this repository alone" if remote is None else remote.name
