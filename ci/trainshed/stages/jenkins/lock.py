"""``trainshed jenkins lock``: the references of the last green build of a commit or branch, proved, as the lock of this tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainshed import files
from trainshed.errors import TrainshedError, UsageError
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock
from trainshed.results import Report, Result, Status
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding, naming
from trainshed.stages.jenkins.finding import Green
from trainshed.tools import git, worktree

if TYPE_CHECKING:
    from trainshed.tools.jenkins import Build

STAGE = "jenkins-lock"
PATH = f"build/{locks.FILE_NAME}"
_PARTIAL = "COMPONENTS"


def lock(context: Context, *, commit: str | None = None, branch: str | None = None, dry_run: bool = False) -> Report:
    """Fetch the lock of the last green build of the commit that is checked out, else of its branch.

    Args:
        context: the command's room.
        commit: take only a build of this commit.
        branch: as the job names it; the one checked out by default.
        dry_run: show which lock it would be; write nothing.

    Raises:
        NothingSelected: no green build fits.
        UsageError: the lock was edited, or is another project's.
        RemoteError: what the build archived did not come whole.
    """
    named = finding.own_branch(context, branch)
    wanted = commit and (worktree.resolve(context.config.project.root, commit) or commit)
    sought = wanted or (None if branch else git.head(context.config.project.root).commit)
    found, fetched, content = _newest(context, commit=sought, branch=named, fallback=wanted is None)
    console = context.console
    console.line(found.told + _why(found, sought))
    for remark in _remarks(found, fetched, named):
        console.line(remark)
    matches, told = _compared(context, fetched)
    console.line(told)
    target = locking.path(context)
    if not dry_run:
        files.write_bytes(target, content)
    shown = context.config.project.shown(target)
    result = Result(
        name=shown,
        stage=STAGE,
        status=Status.SKIPPED if dry_run else Status.DONE,
        cause=f"{'dry run; ' if dry_run else ''}{found.told}",
        details={
            "build": found.build.number,
            "url": found.build.url,
            "branch": named,
            "commit": found.build.commit,
            "of_commit": found.of_commit,
            "plan_digest": fetched.plan_digest,
            "images": fetched.references,
            "of_this_tree": matches,
        },
    )
    console.end(result)
    return Report(stage=STAGE, results=(result,))


def fetch(context: Context, build: Build) -> tuple[Lock, bytes] | None:
    """Fetch and prove the lock of a build; None when it archived none.

    Raises:
        UsageError: it was edited, or is another project's.
        RemoteError: it did not come whole.
    """
    content = context.jenkins.artifact(build, PATH)
    if content is None:
        return None
    place = f"{build.url}artifact/{PATH}"
    fetched = locks.parse(finding.document(content, place=place), place=place)
    own = context.config.project.name
    if fetched.project != own:
        raise UsageError(f"{place}: the lock of project '{fetched.project}', not of '{own}'", next_step="Check `jenkins.job`.")
    return fetched, content


def _newest(context: Context, *, commit: str | None, branch: str, fallback: bool) -> tuple[Green, Lock, bytes]:
    """Return the newest green build with a lock; one that was asked for some components alone comes after those of all."""
    greens = finding.greens(context, commit=commit, branch=branch, fallback=fallback)
    whole_first = sorted(greens, key=lambda green: (not green.of_commit, bool(green.build.parameters.get(_PARTIAL))))
    for green in whole_first:
        fetched = fetch(context, green.build)
        if fetched is not None:
            return green, *fetched
        context.console.line(f"{green.told}: it archived no lock; looking further")
    raise finding.none_green(context, commit=None if fallback else commit, branch=branch)


def _why(found: Green, sought: str | None) -> str:
    if found.of_commit:
        return ": the last green build of this commit"
    return (
        f": the last green build of the branch; commit {finding.short(sought)} has none"
        if sought
        else ": the last green build of the branch"
    )


def _remarks(found: Green, fetched: Lock, branch: str) -> list[str]:
    """Say what one should know of the build: whose it is, and what its records may be used for."""
    tiers = sorted({str(verdict.get("tier")) for image in fetched.images.values() for verdict in image.verdicts.values()} - {"None"})
    remarks = [f"it is {naming.kind(branch)}" + (f"; its verdicts are of tier {', '.join(tiers)}" if tiers else "")]
    partial = found.build.parameters.get(_PARTIAL)
    if partial:
        remarks.append(f"it was asked for some components alone ({partial}); the lock holds no others than {', '.join(fetched.images)}")
    if fetched.dirty:
        remarks.append("its tree had changes that are in no commit")
    return remarks


def _compared(context: Context, fetched: Lock) -> tuple[bool | None, str]:
    """Tell whether the lock is of this tree; None when that cannot be said."""
    try:
        comparison = locking.compare(context, fetched)
    except TrainshedError as error:
        return None, f"this tree could not be compared with the lock: {error.message}"
    if comparison.plan_digest == fetched.plan_digest:
        return True, f"the lock is of this tree: plan digest {fetched.plan_digest}"
    differing = ", ".join(comparison.differing) or "the plan"
    return False, (
        f"the lock is of another tree than this one ({differing} differ): stamp will refuse it here; "
        f"plan digest {fetched.plan_digest}, here {comparison.plan_digest}"
    )
