"""What git says of the working tree; a folder without git is no error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainshed import settings
from trainshed.errors import ToolMissing
from trainshed.tools import process

_LIMIT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Head:
    """The commit that is checked out (40 hex digits), its branch (None when detached) and whether tracked files differ from it."""

    commit: str | None
    branch: str | None
    dirty: bool


def head(root: Path) -> Head:
    """Ask git for the head of a folder; Jenkins checks out detached, so its own word for the branch wins."""
    commit = _said(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return Head(commit=None, branch=settings.branch(), dirty=True)
    branch = settings.branch() or _said(root, "symbolic-ref", "--short", "--quiet", "HEAD")
    return Head(commit=commit, branch=branch or None, dirty=bool(_said(root, "status", "--porcelain", "--untracked-files=normal")))


def _said(root: Path, *arguments: str) -> str:
    try:
        return process.run(["git", "-C", str(root), *arguments], check=False, timeout=_LIMIT_SECONDS).output.strip()
    except ToolMissing:
        return ""
