"""What git says of the working tree; a folder without git is no error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainshed import settings
from trainshed.errors import ToolMissing, WorkFailed
from trainshed.tools import process

_LIMIT_SECONDS = 60.0
# A checkout of another user (a container's workspace) is read too, and nobody's index is locked by our looking.
_OPTIONS = ("--no-optional-locks", "-c", "safe.directory=*", "-c", "core.fsmonitor=false")


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


def _said(root: Path, *arguments: str) -> str:
    try:
        outcome = process.run(["git", *_OPTIONS, "-C", str(root), *arguments], check=False, timeout=_LIMIT_SECONDS)
    except ToolMissing:
        return ""
    if outcome.timed_out:
        raise WorkFailed(f"git {arguments[0]} took longer than {_LIMIT_SECONDS:g} s in {root}", next_step="Try it by hand.")
    return outcome.output.strip()
