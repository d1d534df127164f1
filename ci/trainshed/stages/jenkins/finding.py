"""Which builds are meant: one by number or address, the last, or the green ones of a commit or branch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainshed.errors import NothingSelected, RemoteError, UsageError
from trainshed.stages.context import Context
from trainshed.stages.jenkins import naming
from trainshed.tools import git

if TYPE_CHECKING:
    from trainshed.tools.jenkins import Build, Job

GREEN = "SUCCESS"
_SHORT = 8
_SHORTEST = 7
_BRANCH_HELP = "Name it with --branch, as the job names it (PR-7 for a pull request)."


@dataclass(frozen=True, kw_only=True)
class Green:
    """A green build, and what of it fits: ``told`` is such as `build #12 of branch main, of commit 1a2b3c4d`."""

    build: Build
    of_commit: bool
    told: str


def own_branch(context: Context, branch: str | None) -> str:
    """Return the branch that is asked for, else the one that is checked out.

    Raises:
        UsageError: none is asked for, and none is checked out.
    """
    found = branch or git.head(context.config.project.root).branch
    if not found:
        raise UsageError("no branch is checked out here", next_step=_BRANCH_HELP)
    return found


def job(context: Context, branch: str) -> Job:
    """Return the job of a branch."""
    return context.jenkins.job(context.config.jenkins.job, branch)


def locate(context: Context, *, branch: str | None, build: str | None) -> tuple[str, Build]:
    """Return the branch, and the build of a number or address on it; the last build where none is named.

    Raises:
        UsageError: no such branch or build, or the address of another job's build.
    """
    client, wanted = context.jenkins, context.config.jenkins
    told, number = naming.parse_build(build, url=wanted.url or "", job=wanted.job)
    if told is not None and branch is not None and told != branch:
        raise UsageError(f"{build}: a build of branch {told}, not of {branch}", next_step="Leave out --branch.")
    named = told or own_branch(context, branch)
    return named, client.build(job(context, named), "lastBuild" if number is None else number)


def greens(context: Context, *, commit: str | None, branch: str, fallback: bool = True) -> list[Green]:
    """Return the green builds of a branch: those of the commit first, then (with ``fallback``) the others; the newest first of each."""
    found = [build for build in context.jenkins.builds(job(context, branch)) if build.result == GREEN and not build.building]
    of_commit = [build for build in found if commit and same_commit(build.commit, commit)]
    others = [build for build in found if build not in of_commit] if fallback else []
    return [_green(build, branch, of_commit=True) for build in of_commit] + [_green(build, branch, of_commit=False) for build in others]


def none_green(context: Context, *, commit: str | None, branch: str) -> NothingSelected:
    """Make the error that says that there is no green build to take something from."""
    of = f"commit {short(commit)} on branch {branch}" if commit else f"branch {branch}"
    message = f"{context.config.jenkins.url}: job {context.config.jenkins.job} has no green build of {of}"
    return NothingSelected(message, next_step="See what failed: `trainshed jenkins watch`; or name another --branch.")


def same_commit(found: str | None, wanted: str) -> bool:
    """Tell whether a commit is the one that an id, or the start of one, names."""
    return found is not None and len(wanted) >= _SHORTEST and found.lower().startswith(wanted.lower())


def short(commit: str | None) -> str:
    """Return a commit's id as people read it."""
    return (commit or "unknown")[:_SHORT]


def document(content: bytes, *, place: str) -> Any:  # noqa: ANN401 - any JSON document
    """Read an archived JSON document.

    Raises:
        RemoteError: it is not JSON, as when it was cut off.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"{place}: not whole: {error}", next_step="Run again; look at the file on the page of the build.") from error


def _green(build: Build, branch: str, *, of_commit: bool) -> Green:
    return Green(build=build, of_commit=of_commit, told=f"build #{build.number} of branch {branch}, of commit {short(build.commit)}")
