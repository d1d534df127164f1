"""Whose policy holds: in a pull request that of its target branch, never that of its own tree."""

from __future__ import annotations

from pathlib import Path

from trainshed import config, files, settings
from trainshed.config import Config, Governed, Policy
from trainshed.errors import UsageError
from trainshed.findings import waivers
from trainshed.tools import git

_FETCH = "Let the job discover pull requests merged with their target, or fetch it: git fetch origin {0}:refs/remotes/origin/{0}."
_REMOTE = "refs/remotes/"


def in_force(file: Path) -> Policy | None:
    """Return the policy that holds instead of that of a ``trainshed.toml`` and its tree, None when the tree's own does.

    Raises:
        UsageError: its revision is not there, or its ``trainshed.toml`` is no TOML.
    """
    revision = settings.policy_revision()
    if revision is None:
        return None
    commit, place = git.commit_of(file.parent, revision), git.place_of(file)
    if commit is None or place is None:
        raise _missing(revision)
    shown = f"{revision.removeprefix(_REMOTE)} ({git.short(commit)})"
    folder = Path(place).parent
    root = file.resolve().parent

    def fetch(path: str) -> Path:
        text, copy = git.content(root, commit, (folder / path).as_posix()), root / config.STATE_FOLDER / "policy" / commit / path
        # Always anew: a file that was there already may be one of the tree.
        if text is None:
            copy.unlink(missing_ok=True)
        else:
            files.write_text(copy, text)
        return copy

    text = git.content(root, commit, place)
    document = None if text is None else config.parse(text, place=f"{shown}: {place}")
    return Policy(shown=shown, document=document, fetch=fetch)


def told(config: Config) -> str:
    """Say in a line whose policy holds and what of the tree's differs; empty when it is the tree's own.

    Raises:
        UsageError: the tree's waivers are wrong; they would count after the merge.
    """
    if config.governed is None:
        return ""
    policy = config.governed.policy
    absent = "" if policy.document is not None else f", which has no {place_of(config)}: the defaults"
    differs = [*config.governed.differs, *_waivers(config, config.governed)]
    if not differs:
        return f"policy of {policy.shown}{absent}; the tree's is the same"
    return f"policy of {policy.shown}{absent}; the tree's counts after the merge and differs in {', '.join(differs)}"


def place_of(config: Config) -> str:
    """Return the name of the configuration file, for messages."""
    return config.project.shown(config.file)


def _waivers(config: Config, governed: Governed) -> list[str]:
    in_force = waivers.load(config.scan.waivers, place=config.waivers_place)
    own = waivers.load(governed.waivers, place=config.project.shown(governed.waivers))
    if set(own) == set(in_force):
        return []
    return [f"the waivers ({len(in_force)} in force, {len(own)} after the merge)"]


def _missing(revision: str) -> UsageError:
    name = revision.removeprefix(f"{_REMOTE}origin/")
    if not revision.startswith(_REMOTE):
        step = "Fetch it, or name another revision with TRAINSHED_POLICY_FROM."
        return UsageError(f"TRAINSHED_POLICY_FROM: no revision {revision} in this repository", next_step=step)
    if not name:
        step = "Let a multibranch job set it, as it does for every pull request."
        return UsageError("CHANGE_TARGET is not set, so the policy of this pull request is unknown", next_step=step)
    message = f"the policy of a pull request is that of its target branch, and origin/{name} is not in this checkout"
    return UsageError(message, next_step=_FETCH.format(name))
