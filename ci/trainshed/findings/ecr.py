"""Findings of ECR's two kinds of scan: basic, by package, and enhanced, which are those of Amazon Inspector.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImageScanFindings.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from trainshed.errors import RemoteError
from trainshed.findings.model import UNKNOWN, Finding, aliases_of, worst_first

BASIC, ENHANCED = "findings", "enhancedFindings"
"""The two kinds, by the name of the list that an answer holds."""

_SOURCES = ("ecr",)
_SEVERITIES = {
    "CRITICAL": "critical",
    "HIGH": "high",
    "MEDIUM": "medium",
    "LOW": "low",
    "INFORMATIONAL": "low",  # it was rated, and nothing is less
    "UNDEFINED": UNKNOWN,
    "UNTRIAGED": UNKNOWN,
}
_NO_FIX = frozenset({"", "notavailable", "none"})
_CLOSED = "CLOSED"


def from_ecr(kind: str, entries: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Read the findings of all pages of one scan; worst first, no doubles.

    One that Inspector closed is over; one that a rule of Inspector suppresses counts: what may stand is said by our waivers alone.

    Args:
        kind: `BASIC` or `ENHANCED`.
        entries: as ECR gave them.

    Raises:
        RemoteError: they have another shape: silence must not read as clean.
    """
    read = _basic if kind == BASIC else _enhanced
    try:
        return worst_first({finding for entry in entries for finding in read(entry)})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"ECR's {kind} have another shape than expected: {error!r}"
        raise RemoteError(message, next_step="Report it; until then leave ecr out of scan.sources.") from error


def _basic(entry: Mapping[str, Any]) -> Iterator[Finding]:
    told = {str(attribute["key"]): str(attribute.get("value") or "") for attribute in entry.get("attributes") or ()}
    yield Finding(
        id=_text(entry["name"]),
        severity=_severity(entry.get("severity")),
        kind="vulnerability",
        package=_package(told["package_name"]),
        installed=told.get("package_version", ""),
        title=_line(entry.get("description") or ""),
        url=entry.get("uri") or "",
        sources=_SOURCES,
        aliases=aliases_of(entry["name"], ()),
        fix_told=False,  # a basic scan never tells
    )


def _enhanced(entry: Mapping[str, Any]) -> Iterator[Finding]:
    if entry.get("status") == _CLOSED:
        return
    details = entry["packageVulnerabilityDetails"]
    name, packages = _text(details["vulnerabilityId"]), details["vulnerablePackages"]
    if not packages:
        raise ValueError(f"{name} is of no package")
    severity = _severity(entry.get("severity"))
    for package in packages:
        fixed = _fixed(package.get("fixedInVersion") or "")
        yield Finding(
            id=name,
            severity=severity if severity != UNKNOWN else _severity(details.get("vendorSeverity"), strict=False),
            kind="vulnerability",
            package=_package(package["name"]),
            installed=_version(package),
            fixed=fixed,
            title=_title(entry, name),
            target=(package.get("filePath") or "") if package.get("packageManager") != "OS" else "",
            url=details.get("sourceUrl") or "",
            sources=_SOURCES,
            aliases=aliases_of(name, [*(details.get("relatedVulnerabilities") or ()), *(details.get("referenceUrls") or ())]),
            fix_told=bool(fixed) or entry.get("fixAvailable") in {"NO", "PARTIAL"},
        )


def _severity(word: str | None, *, strict: bool = True) -> str:
    """Return our word for a severity; one that nobody knows is no "unknown", which would let it pass."""
    found = _SEVERITIES.get((word or "UNDEFINED").upper())
    if found is None and strict:
        raise ValueError(f"severity {word}")
    return found or UNKNOWN


def _text(value: Any) -> str:  # noqa: ANN401 - what AWS gives
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a name, not {value!r}")
    return value


def _package(name: str) -> str:
    """Return the bare name: of ``pkg:deb/debian/zlib1g@1.2?arch=amd64``, of ``1:openssl-libs``."""
    _text(name)
    if name.startswith("pkg:"):
        kind, _, rest = name.removeprefix("pkg:").partition("/")
        path, _, version = rest.partition("?")[0].partition("#")[0].rpartition("@")
        parts = unquote(path or version).split("/")
        if kind == "maven":
            return ":".join(parts)
        return "/".join(parts) if kind in {"npm", "golang"} else parts[-1]
    return re.sub(r"^\d+:", "", name)


def _version(package: Mapping[str, Any]) -> str:
    """Put a version together as the package manager writes it: ``epoch:version-release``."""
    version, release, epoch = package.get("version") or "", package.get("release") or "", package.get("epoch") or 0
    return f"{f'{epoch}:' if epoch and ':' not in version else ''}{version}{f'-{release}' if release else ''}"


def _fixed(version: str) -> str:
    return "" if version.replace(" ", "").lower() in _NO_FIX else version.removeprefix("0:")


def _title(entry: Mapping[str, Any], name: str) -> str:
    """Return the title without the advisory's name, with which Inspector begins it; else the description."""
    title = (entry.get("title") or "").removeprefix(name).strip(" -:")
    return _line(title or entry.get("description") or "")


def _line(text: str) -> str:
    """Return the first sentence or so of a description on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1].rstrip()}…"


_LONGEST = 200
