"""A second working tree of a repository, at a commit of its own: the user's tree, branches and index stay as they are."""

from __future__ import annotations

from pathlib import Path

from trainshed.errors import UsageError
from trainshed.tools import process
from trainshed.tools.process import Outcome, ProcessFailed

_LIMIT_SECONDS = 60.0
_FETCH_SECONDS = 900.0
_SETTINGS = (
    "safe.directory=*",
    "safe.bareRepository=explicit",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "advice.detachedHead=false",
)
_OPTIONS = tuple(word for setting in _SETTINGS for word in ("-c", setting))
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def top(root: Path) -> Path:
    """Return the top folder of the repository that a folder lies in.

    Raises:
        UsageError: it lies in none.
    """
    outcome = _git(root, "rev-parse", "--show-toplevel", check=False)
    if outcome.code != 0:
        raise UsageError(f"{root}: not in a git repository", next_step="Run this in a clone of the repository.")
    return Path(outcome.output.strip())


def resolve(root: Path, name: str) -> str | None:
    """Return the full id of the commit that a name (or the start of an id) means here, None when there is none."""
    outcome = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)
    return outcome.output.strip() or None if outcome.code == 0 else None


def fetch(root: Path, commit: str) -> None:
    """Bring a commit from origin when it is not here: by its id, else with all that origin shows.

    Raises:
        UsageError: origin does not have it, or there is no origin.
    """
    if resolve(root, commit):
        return
    words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", "origin")  # a name from outside is never an option
    said = ""
    for wanted in ((commit,), ()):
        outcome = _git(root, *words, *wanted, check=False, limit=_FETCH_SECONDS)
        said = outcome.errors.strip() or said
        if resolve(root, commit):
            return
    reason = said.splitlines()[-1] if said else "it is on none of its branches"
    raise UsageError(
        f"commit {commit} is not in this repository, and was not had from origin: {reason}",
        next_step="Fetch it by hand; a merge that Jenkins made of a pull request is nowhere but in its workspace.",
    )


def ensure(root: Path, folder: Path, commit: str) -> bool:
    """Make the working tree at a commit, detached; tell whether it is new. One that is there is used again when it is unchanged.

    Raises:
        UsageError: the folder is there, but is something else, at another commit, or changed.
    """
    if folder.exists():
        _require_unchanged(folder, commit)
        return False
    # With --force: the folder of an earlier one may have been deleted by hand, which git still remembers.
    _git(root, "worktree", "add", "--quiet", "--force", "--detach", str(folder), commit, limit=_FETCH_SECONDS)
    return True


def changes(folder: Path, ours: tuple[str, ...] = ()) -> str:
    """Return what git says is changed, but for the folders that are ours."""
    excluded = [f":(exclude){name}" for name in ours]
    return _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".", *excluded).output.strip()


def _require_unchanged(folder: Path, commit: str) -> None:
    remove = f"Keep what you need of it, then: git worktree remove --force {folder}"
    if not (folder / ".git").is_file():
        raise UsageError(f"{folder}: there, but no working tree of git", next_step="Move it away.")
    present = resolve(folder, "HEAD")
    if present != commit:
        raise UsageError(f"{folder}: at commit {present}, not at {commit}", next_step=remove)
    changed = changes(folder, ("build", ".trainshed"))
    if changed:
        raise UsageError(f"{folder}: changed since it was made:\n{changed}", next_step=remove)


def _git(root: Path, *arguments: str, check: bool = True, limit: float = _LIMIT_SECONDS) -> Outcome:
    words = ["git", *_OPTIONS, "-C", str(root), *arguments]
    try:
        return process.run(words, check=check, timeout=limit, environment=_QUIET)
    except ProcessFailed as error:
        said = (error.outcome.errors or error.outcome.output).strip()
        raise UsageError(f"git {arguments[0]} failed in {root}: {said}", next_step="Try it by hand.") from error
