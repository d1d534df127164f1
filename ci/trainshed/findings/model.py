"""One model for what scanners find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    secret is never kept.
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

    @property
    def unfixed(self) -> bool:
        """Tell whether it is a vulnerability of which no mended version exists; a secret or a wrong setting can always be mended."""
        return self.kind == "vulnerability" and not self.fixed

    def document(self) -> dict[str, str]:
        """Return the finding as JSON: the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        what = f"{self.package} {self.installed}".strip() or self.target
        fixed = f", fixed in {self.fixed}" if self.fixed else f", {NO_FIX}" if self.unfixed else ""
        return f"{self.severity} {self.id} in {what}{fixed}{f': {self.title}' if self.title else ''}"


def rank(severity: str) -> int:
    """Return how bad a severity is, 0 the least; what is not rated counts as the least."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def from_document(document: Mapping[str, str]) -> Finding:
    """Read what `Finding.document` gave; fields that this version does not know are left out."""
    known = Finding.__dataclass_fields__
    return Finding(**{name: value for name, value in document.items() if name in known})


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
    return sorted(found, key=lambda finding: (-rank(finding.severity), finding.kind, finding.id, finding.package, finding.target))


def _of_result(result: Mapping[str, Any]) -> Iterator[Finding]:
    target = result.get("Target", "")
    for entry in result.get("Vulnerabilities") or ():
        yield Finding(
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
