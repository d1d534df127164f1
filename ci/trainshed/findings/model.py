"""One model for what scanners find."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainshed.errors import RemoteError
from trainshed.values import SEVERITIES

UNKNOWN = "unknown"
"""The severity of what nobody has rated yet; it counts as the lowest."""

NO_FIX = "no fix yet"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding.

    ``severity`` is of `values.SEVERITIES` or ``unknown``, ``kind`` of `values.SCANNERS`. ``target`` is the file or layer. The text of a
    secret is never kept. ``sources`` are those of `values.SOURCES` that saw it, sorted. ``aliases`` are other names of the same advisory,
    ``origin`` is the source package that ``package`` was built from, where it has another name. ``fix_told`` is False where nobody who
    saw it knows whether a mended version exists: that is not to say that there is none.
    """

    id: str
    severity: str
    kind: str
    package: str = ""
    installed: str = ""
    fixed: str = ""
    title: str = ""
    target: str = ""
    url: str = ""
    sources: tuple[str, ...] = ("trivy",)
    aliases: tuple[str, ...] = ()
    origin: str = ""
    fix_told: bool = True

    @property
    def unfixed(self) -> bool:
        """Tell whether it is a vulnerability of which no mended version exists; a secret or a wrong setting can always be mended."""
        return self.kind == "vulnerability" and not self.fixed and self.fix_told

    @property
    def seen_by(self) -> str:
        """Say who saw it, as `told_sources`."""
        return told_sources(self.sources)

    def document(self) -> dict[str, Any]:
        """Return the finding as JSON: the fields by name, those of `_RARE` only where they say something."""
        document = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in document.items() if name not in _RARE or value != _RARE[name]}

    def __str__(self) -> str:
        what = f"{self.package} {self.installed}".strip() or self.target
        fixed = f", fixed in {self.fixed}" if self.fixed else f", {NO_FIX}" if self.unfixed else ""
        seen = f" (seen by {self.seen_by})" if self.seen_by else ""
        return f"{self.severity} {self.id} in {what}{fixed}{f': {self.title}' if self.title else ''}{seen}"


_RARE: Mapping[str, Any] = {"aliases": [], "origin": "", "fix_told": True}


def told_sources(sources: Iterable[str]) -> str:
    """Say who saw a finding; empty for Trivy alone, as everywhere where nobody else is asked."""
    told = " and ".join(sources)
    return "" if told == "trivy" else told


def rank(severity: str) -> int:
    """Return how bad a severity is, 0 the least; what is not rated counts as the least."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of every list."""
    return sorted(findings, key=lambda found: (-rank(found.severity), found.kind, found.id, found.package, found.target, found.installed))


def from_document(document: Mapping[str, Any]) -> Finding:
    """Read what `Finding.document` gave; fields that this version does not know are left out, and an old one's source is Trivy."""
    known = Finding.__dataclass_fields__
    fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in document.items() if name in known}
    return Finding(**fields)


def aliases_of(name: str, told: Iterable[str]) -> tuple[str, ...]:
    """Return the other names of one advisory, sorted: of each other list of advisories the one name that is told.

    A notice over several (a DSA with its ten CVEs) is another name of none of them, and two CVEs are two holes.
    """
    own, others = name.partition("-")[0], sorted({found for text in told for found in _ADVISORY.findall(text)} - {name})
    lists = [other.partition("-")[0] for other in others]
    return tuple(other for other, of in zip(others, lists, strict=True) if of != own and lists.count(of) == 1)


_ADVISORY = re.compile(r"\b(?:CVE-\d{4}-\d{4,}|GHSA(?:-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+|RUSTSEC-\d{4}-\d+|GO-\d{4}-\d+)\b")
_ADVISORY_PAGE = re.compile(r"/(?:security/)?advisories/|//osv\.dev/")


def from_trivy(document: Mapping[str, Any]) -> list[Finding]:
    """Read Trivy's JSON report (schema version 2); worst first, no doubles.

    Raises:
        RemoteError: it is no report: silence must not read as clean.
    """
    if document.get("SchemaVersion") != 2:  # noqa: PLR2004 - the one that is known
        raise RemoteError(
            "Trivy's answer is no report of schema version 2", next_step="Check the version of Trivy with `trainshed doctor`."
        )
    try:
        found = {finding for result in document.get("Results") or () for finding in _of_result(result)}
    except (KeyError, TypeError, AttributeError) as error:
        raise RemoteError(f"Trivy's report has another shape than expected: {error!r}") from error
    return worst_first(found)


def _of_result(result: Mapping[str, Any]) -> Iterator[Finding]:
    target = result.get("Target", "")
    origins = {package.get("ID"): package.get("SrcName") or "" for package in result.get("Packages") or ()}
    for entry in result.get("Vulnerabilities") or ():
        origin = origins.get(entry.get("PkgID"), "")
        pages = [page for page in entry.get("References") or () if _ADVISORY_PAGE.search(page)]
        yield Finding(
            aliases=aliases_of(entry["VulnerabilityID"], [*(entry.get("VendorIDs") or ()), *pages]),
            origin=origin if origin != entry["PkgName"] else "",
            id=entry["VulnerabilityID"],
            severity=_severity(entry),
            kind="vulnerability",
            package=entry["PkgName"],
            installed=entry.get("InstalledVersion", ""),
            fixed=entry.get("FixedVersion", ""),
            title=entry.get("Title", ""),
            target=entry.get("PkgPath") or target,
            url=entry.get("PrimaryURL", ""),
        )
    for entry in result.get("Secrets") or ():
        # `Match` and `Code` hold the secret (or its neighbours): only the rule and the place are taken.
        place = f"{target}:{entry['StartLine']}" if entry.get("StartLine") else target
        yield Finding(id=entry["RuleID"], severity=_severity(entry), kind="secret", title=entry.get("Title", ""), target=place)
    for entry in result.get("Misconfigurations") or ():
        if entry.get("Status", "FAIL") == "FAIL":
            yield Finding(
                id=entry["ID"],
                severity=_severity(entry),
                kind="misconfiguration",
                title=entry.get("Title", ""),
                target=target,
                url=entry.get("PrimaryURL", ""),
            )


def _severity(entry: Mapping[str, Any]) -> str:
    severity = str(entry.get("Severity", "")).lower()
    return severity if severity in SEVERITIES else UNKNOWN
