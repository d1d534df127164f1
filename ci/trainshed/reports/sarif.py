"""SARIF 2.1.0, the form in which code hosts and Jenkins' Warnings plugin take findings.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from trainshed.findings.model import NO_FIX
from trainshed.reports import rows
from trainshed.results import Report, Result

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"critical": "error", "high": "error", "medium": "warning"}
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}


def write(reports: Iterable[Report], *, components: str = "components") -> bytes:
    """Write all findings as one SARIF run; a waived one is there, marked as suppressed with the reason.

    ``components`` is the folder of the components, relative to the repository: a finding is placed at the component's Dockerfile.
    """
    found = rows.findings(result for report in reports for result in report.results)
    by_rule = {str(finding["id"]): finding for _, finding in reversed(found)}
    numbers = {name: number for number, name in enumerate(sorted(by_rule))}
    driver = {"name": "Trainshed", "version": version("trainshed"), "rules": [_rule(name, by_rule[name]) for name in numbers]}
    results = [_result(result, finding, numbers, components) for result, finding in found]
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return (json.dumps(document, indent=2) + "\n").encode()


def _rule(name: str, finding: Mapping[str, Any]) -> dict[str, Any]:
    severity = finding.get("severity", "unknown")
    rule: dict[str, Any] = {
        "id": name,
        "shortDescription": {"text": finding.get("title") or name},
        "defaultConfiguration": {"level": _LEVELS.get(severity, "note")},
        "properties": {"tags": ["security", finding.get("kind", "")], "security-severity": _SCORES.get(severity, "0.0")},
    }
    return rule | ({"helpUri": finding["url"]} if finding.get("url") else {})


def _result(result: Result, finding: Mapping[str, Any], numbers: Mapping[str, int], components: str) -> dict[str, Any]:
    name = str(finding["id"])
    where = {
        "physicalLocation": {"artifactLocation": {"uri": f"{components}/{result.name}/Dockerfile"}, "region": {"startLine": 1}},
        "logicalLocations": [{"name": result.name, "fullyQualifiedName": "/".join(_place(result, finding))}],
    }
    document: dict[str, Any] = {
        "ruleId": name,
        "ruleIndex": numbers[name],
        "level": _LEVELS.get(finding.get("severity", ""), "note"),
        "message": {"text": _message(result, finding)},
        "locations": [where],
        "partialFingerprints": {"finding/v1": hashlib.sha256("\0".join((name, *_place(result, finding))).encode()).hexdigest()},
    }
    if rows.seen_by(finding):
        document["properties"] = {"sources": list(finding["sources"])}
    if finding.get("waiver"):
        document["suppressions"] = [{"kind": "external", "status": "accepted", "justification": str(finding["waiver"])}]
    return document


def _place(result: Result, finding: Mapping[str, Any]) -> list[str]:
    """Return what tells two findings of one rule apart, and stays when only the version of a package changes."""
    return [part for part in (result.name, finding.get("target"), finding.get("package")) if part]


def _message(result: Result, finding: Mapping[str, Any]) -> str:
    title = f": {finding['title']}" if finding.get("title") else ""
    package = f" in {finding['package']} {finding.get('installed', '')}".rstrip() if finding.get("package") else ""
    mended = f", fixed in {finding['fixed']}" if finding.get("fixed") else ""
    unfixed = finding.get("kind") == "vulnerability" and finding.get("fix_told", True)
    fixed = mended or (f", {NO_FIX}" if unfixed else "")
    seen = f" (seen by {rows.seen_by(finding)})" if rows.seen_by(finding) else ""
    return f"{finding['id']} ({finding.get('severity', 'unknown')}){package}{fixed} of {result.name}{title}{seen}"
