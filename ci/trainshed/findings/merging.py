"""One list out of what several sources found: the same advisory of the same package is one finding, with all who saw it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trainshed.findings.model import UNKNOWN, Finding, rank, worst_first

_EPOCH = re.compile(r"^\d+:")
_SYSTEM = re.compile(r" \([^()]+\)$")
"""How Trivy names the packages of the system: ``image (debian 12.5)``."""
_REBUILT = re.compile(r"\+b\d+$")


def merged(found: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Merge the lists of several sources, that which tells most first; worst first.

    What is equal keeps the names of the first list. The worse severity counts: an image that one source alone would refuse is not let
    through because another one was asked too. A fix that one of them knows is known.
    """
    taken: list[Finding] = []
    for findings in found:
        taken = _with(taken, findings)
    return worst_first(taken)


def _with(taken: list[Finding], added: Sequence[Finding]) -> list[Finding]:
    """Add one source's list. One of its findings may be several of ours: a source package and the packages built from it."""
    index: dict[tuple[str, str], list[int]] = {}
    for number, finding in enumerate(taken):
        for key in _keys(finding):
            index.setdefault(key, []).append(number)
    versions: dict[tuple[str, str], set[str]] = {}
    for finding in added:
        for key in _keys(finding):
            versions.setdefault(key, set()).add(_plain(finding.installed))
    result, new = list(taken), []
    for finding in added:
        known = list(dict.fromkeys(number for key in _keys(finding) for number in index.get(key, ())))
        alone = all(len(versions[key]) == 1 for key in _keys(finding))
        same = _same([(number, taken[number]) for number in known], finding, alone=alone)
        for number in same:
            result[number] = _joined(result[number], finding)
        if not same:
            new.append(finding)
    return result + new


def _same(known: Sequence[tuple[int, Finding]], finding: Finding, *, alone: bool) -> list[int]:
    """Return those of one advisory and package that are the same thing: of the same version, or the only ones there can be.

    Sources write versions differently (a binary package's, its source's), so that a single one on each side is one; but a package at
    two known places in two versions is two.
    """
    plain = _plain(finding.installed)
    exact = [number for number, other in known if not plain or not other.installed or _plain(other.installed) == plain]
    if exact or not alone or len({_plain(other.installed) for _, other in known}) != 1:
        return exact
    return [number for number, other in known if not (_place(other) and _place(finding))]


def _joined(one: Finding, other: Finding) -> Finding:
    names = {*one.aliases, other.id, *other.aliases} - {one.id}
    return replace(
        one,
        severity=max(one.severity, other.severity, key=lambda severity: (rank(severity), severity != UNKNOWN)),
        installed=one.installed or other.installed,
        fixed=one.fixed or other.fixed,
        fix_told=one.fix_told or other.fix_told,
        title=one.title or other.title,
        target=one.target or other.target,
        url=one.url or other.url,
        sources=tuple(sorted({*one.sources, *other.sources})),
        aliases=tuple(sorted(names)),
    )


def _keys(finding: Finding) -> Iterable[tuple[str, str]]:
    """Return all that a finding can be found by: each name of the advisory with each name of the package; by its place, if of none."""
    packages = {_name(package) for package in (finding.package, finding.origin) if package} or {finding.target}
    return {(name, f"{finding.kind} {package}") for name in (finding.id, *finding.aliases) for package in packages}


def _name(package: str) -> str:
    """Return a name as package managers compare them: PyYAML is pyyaml, and Debian has no capitals."""
    return re.sub(r"[-_.]+", "-", package.lower())


def _plain(version: str) -> str:
    """Return a version without what one source writes and another leaves out: the epoch, and the mark of a mere rebuild."""
    return _REBUILT.sub("", _EPOCH.sub("", version))


def _place(finding: Finding) -> str:
    """Return the path of a package that is at one; packages of the system are at none."""
    return "" if _SYSTEM.search(finding.target) else finding.target
