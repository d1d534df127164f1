"""What git says of the working tree; a folder without git is no error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainshed import settings
from trainshed.errors import ToolMissing, UsageError, WorkFailed
from trainshed.tools import process

_LIMIT_SECONDS = 60.0
_SHORT = 7
_COMMIT = re.compile(r"[0-9a-f]{40}")
# A checkout of another user (a container's workspace) is read too, and nobody's index is locked by our looking. A folder of the tree
# that looks like a repository without a working tree is not taken for one: its configuration would run commands, its refs are the tree's.
# No hook of the user runs: what we do is not the work that it guards, and it may wait for somebody.
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
_OPTIONS = ("--no-optional-locks", "-c", "safe.directory=*", "-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false", *_NO_HOOKS)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The commit that is checked out (40 hex digits), its branch (None when detached) and whether tracked files differ from it."""

    commit: str | None
    branch: str | None
    dirty: bool


def head(root: Path) -> Head:
    """Ask git for the head of a folder; Jenkins checks out detached, so its own word for the branch wins.

    Raises:
        WorkFailed: git does not answer; that is never read as a tree without commit or changes.
    """
    commit = _said(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return Head(commit=None, branch=settings.branch(), dirty=True)
    branch = settings.branch() or _said(root, "symbolic-ref", "--short", "--quiet", "HEAD")
    return Head(commit=commit, branch=branch or None, dirty=bool(_said(root, "status", "--porcelain", "--untracked-files=normal")))


def commit_of(root: Path, revision: str) -> str | None:
    """Return the commit (40 hex digits) that a revision names, None when it is not there."""
    return _said(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") or None


def descends(root: Path, commit: str, ancestor: str) -> bool:
    """Tell whether a commit came after another one; False where this clone does not know both, or they are the same."""
    return commit != ancestor and run(root, "merge-base", "--is-ancestor", ancestor, commit).code == 0


def told(root: Path, commits: Iterable[str]) -> dict[str, str]:
    """Return subject and author of commits (40 hex digits) by id; those that this clone does not know are left out."""
    ids = [commit for commit in commits if _COMMIT.fullmatch(commit)]
    if not ids:
        return {}
    said = _said(root, "log", "--no-walk=unsorted", "--ignore-missing", "--format=%H %s (%an)", *ids, "--")
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def tags_of(root: Path, commit: str) -> tuple[str, ...]:
    """Return the tags of a commit; a build that Jenkins made of a tag knows it also where tags were not fetched."""
    told = _said(root, "tag", "--points-at", commit).split()
    return tuple(dict.fromkeys([*told, *filter(None, [settings.tag()])]))


def place_of(file: Path) -> str | None:
    """Return a file's path relative to the root of its repository, its own last link not followed; None outside of one."""
    said = _said(file.parent, "rev-parse", "--show-toplevel")
    if not said:
        return None
    path = Path(os.path.abspath(file))  # noqa: PTH100 - a resolved path would let the tree say which file it is, by a link
    top = next((folder for folder in path.parents if folder.samefile(said)), None)
    return None if top is None else path.relative_to(top).as_posix()


def content(root: Path, commit: str, path: str) -> str | None:
    """Return a file as a commit has it, ``path`` from the root of the repository; None when the commit has no such file.

    Raises:
        UsageError: it is no plain file there; a link would be read for its target.
        WorkFailed: git cannot read the commit; that is never read as a commit without the file.
    """
    entry = run(root, "ls-tree", "--full-tree", commit, "--", path, check=True).output.strip()
    if not entry:
        return None
    if not entry.startswith("100"):
        raise UsageError(f"{path} is no plain file in {commit[:_SHORT]}", next_step="Make it a file there, not a link or a folder.")
    return run(root, "cat-file", "blob", f"{commit}:{path}", check=True).output


def short(commit: str) -> str:
    """Return a commit as people read it."""
    return commit[:_SHORT]


def _said(root: Path, *arguments: str) -> str:
    try:
        return run(root, *arguments).output.strip()
    except ToolMissing:
        return ""


def run(  # noqa: PLR0913 - one door, so it has the handles
    root: Path,
    *arguments: str,
    check: bool = False,
    limit: float | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    secrets: Sequence[str] = (),
) -> process.Outcome:
    """Run git in a folder, so that it changes nothing by looking; ``limit`` in seconds, the rest as of `process.run`.

    Raises:
        WorkFailed: it takes too long; with ``check``, it fails.
    """
    words, limit = ["git", *_OPTIONS, "-C", str(root), *arguments], limit or _LIMIT_SECONDS
    outcome = process.run(words, check=check, timeout=limit, environment=environment, stdin=stdin, secrets=secrets)
    if outcome.timed_out:
        raise WorkFailed(f"git {arguments[0]} took longer than {limit:g} s in {root}", next_step="Try it by hand.")
    return outcome
