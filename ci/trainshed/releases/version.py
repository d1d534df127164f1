"""The version that comes next, by what changed; and versions of builds that are no release."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from semver import Version

from trainshed.releases.commits import Change

PATCH, MINOR, MAJOR = "patch", "minor", "major"
AUTO = "auto"
FIRST = "0.1.0"
LOWEST = Version(0)
_FIRST_MAJOR = "1.0.0"
_ASKS = {"feat": MINOR, "fix": PATCH, "perf": PATCH, "revert": PATCH}
_ORDER = (PATCH, MINOR, MAJOR)
_SHORT = 7
_LONGEST_SLUG = 40
_TAG = re.compile(r"(?:(?P<unit>[a-z0-9][a-z0-9_-]*)/)?v(?P<version>\d.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Next:
    """The next version of a unit.

    ``version`` is None, and ``bump`` empty, when nothing asks for one; ``asked`` holds the changes that ask, each with the growth it
    asks for; ``why`` is a sentence.
    """

    version: str | None
    bump: str
    asked: tuple[tuple[Change, str], ...]
    why: str


def tag_of(unit: str, version: str) -> str:
    """Return what git calls a version: ``v1.4.0``, or ``predictor/v1.4.0`` for a unit with versions of its own."""
    return f"{unit}/v{version}" if unit else f"v{version}"


def released(tag: str, unit: str) -> Version | None:
    """Return the version that a tag of a unit names; None for another unit's tag, one that is no version, and a pre-release."""
    parts = _TAG.fullmatch(tag)
    if parts is None or (parts["unit"] or "") != unit:
        return None
    try:
        version = Version.parse(parts["version"])
    except ValueError:
        return None
    return None if version.prerelease else version.replace(build=None)


def asks(change: Change, *, initial: bool = False) -> str | None:
    """Return the growth that a change asks for, None for nothing; ``initial``: below 1.0.0 what breaks is minor."""
    if change.breaking:
        return MINOR if initial else MAJOR
    return _ASKS.get(change.type)


def next_version(previous: str | None, changes: Sequence[Change], bump: str = AUTO, *, moved: Collection[str] = ()) -> Next:
    """Return the version that comes after a release.

    Args:
        previous: the last release, such as ``1.3.2``; None before the first.
        changes: what changed since then.
        bump: ``auto`` for what the changes ask for, or the growth that somebody asks for.
        moved: components whose images are others than the last release's; without a change that asks they make a patch.
    """
    last = None if previous is None else Version.parse(previous)
    initial = last is None or last.major == 0
    asked = tuple((change, growth) for change in changes if (growth := asks(change, initial=initial)) is not None)
    greatest = max((growth for _, growth in asked), key=_ORDER.index, default="")
    if last is None:
        chosen = MAJOR if bump == MAJOR else MINOR
        version = _FIRST_MAJOR if chosen == MAJOR else FIRST
        return Next(version=version, bump=chosen, asked=asked, why=f"There is no release yet: the first is {version}.")
    chosen = bump if bump != AUTO else greatest or (PATCH if moved else "")
    why = _why(previous or "", asked, greatest, bump, moved, initial=initial)
    return Next(version=str(last.next_version(chosen)) if chosen else None, bump=chosen, asked=asked, why=why)


def pre_release(previous: str | None, following: Next, label: str, *, commit: str, dirty: bool = False) -> str:
    """Return the version of a build that is no release: ``1.4.0-pr.123.7+g1a2b3c4``; the next patch where nothing asks for one.

    Args:
        previous: the last release, None before the first.
        following: what comes next.
        label: what the build is: ``pr.123.7``, ``branch.topic.7``, ``dev.12``.
        commit: the commit (40 hex digits).
        dirty: the tree has changes that were not committed.
    """
    base = following.version or (FIRST if previous is None else str(Version.parse(previous).bump_patch()))
    made = f"{base}-{label}+g{commit[:_SHORT]}" + (".dirty" if dirty else "")
    return str(Version.parse(made))


def slug(branch: str) -> str:
    """Return a branch as one part of a pre-release: letters, digits and inner dashes, never a number with leading zeros."""
    text = re.sub(r"[^0-9a-z]+", "-", branch.lower()).strip("-")[:_LONGEST_SLUG].strip("-")
    return f"b-{text}".strip("-") if not text or (text.isdigit() and text != str(int(text))) else text


def _why(  # noqa: PLR0913 - what the sentence is about
    previous: str, asked: Sequence[tuple[Change, str]], greatest: str, bump: str, moved: Collection[str], *, initial: bool
) -> str:
    if bump != AUTO:
        said = f"the commits since {previous} ask for {greatest}" if greatest else f"no commit since {previous} asks for a version"
        return f"A {bump} growth was asked for by hand; {said}."
    if not asked:
        if not moved:
            return f"No commit since {previous} asks for a version."
        return f"No commit since {previous} asks for a version, but images are others than its own ({', '.join(sorted(moved))}): a patch."
    first = next(change for change, growth in asked if growth == greatest)
    count = "1 commit asks" if len(asked) == 1 else f"{len(asked)} commits ask"
    title = f"{first.type}: {first.text}" if first.type else first.text
    why = f"{count} for a version since {previous}; the greatest growth is {greatest}, by {first.commit.id[:_SHORT]} ({title})."
    if initial and any(change.breaking for change, _ in asked):
        why += " Below 1.0.0 a breaking change is minor; --bump major leaves 0.x."
    return why
