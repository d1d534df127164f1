"""Findings from Trivy's report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from trainshed.errors import RemoteError
from trainshed.findings.model import Finding, from_document, from_trivy, rank

VULNERABILITY = {
    "VulnerabilityID": "CVE-2026-1",
    "PkgName": "openssl",
    "InstalledVersion": "3.0.1",
    "FixedVersion": "3.0.2",
    "Severity": "HIGH",
    "Title": "a hole",
    "PrimaryURL": "https://example.org/1",
}
SECRET = {
    "RuleID": "aws-access-key-id",
    "Severity": "CRITICAL",
    "Title": "AWS Access Key ID",
    "StartLine": 3,
    "Match": "key = hunter2",
    "Code": {"Lines": [{"Content": "key = hunter2"}]},
}
MISCONFIGURATION = {"ID": "DS002", "Severity": "MEDIUM", "Title": "root", "Status": "FAIL", "PrimaryURL": "https://example.org/ds002"}


def report(*results: dict[str, Any]) -> dict[str, Any]:
    return {"SchemaVersion": 2, "Results": list(results)}


def test_all_kinds_come_in_one_list_worst_first() -> None:
    found = from_trivy(
        report(
            {"Target": "debian", "Vulnerabilities": [VULNERABILITY]},
            {"Target": "/app/keys.py", "Secrets": [SECRET]},
            {"Target": "Dockerfile", "Misconfigurations": [MISCONFIGURATION, {**MISCONFIGURATION, "ID": "DS001", "Status": "PASS"}]},
        )
    )
    assert found == [
        Finding(id="aws-access-key-id", severity="critical", kind="secret", title="AWS Access Key ID", target="/app/keys.py:3"),
        Finding(
            id="CVE-2026-1",
            severity="high",
            kind="vulnerability",
            package="openssl",
            installed="3.0.1",
            fixed="3.0.2",
            title="a hole",
            target="debian",
            url="https://example.org/1",
        ),
        Finding(id="DS002", severity="medium", kind="misconfiguration", title="root", target="Dockerfile", url="https://example.org/ds002"),
    ]


def test_the_text_of_a_secret_is_never_kept() -> None:
    found = from_trivy(report({"Target": "/app/keys.py", "Secrets": [SECRET]}))
    assert "hunter2" not in json.dumps([finding.document() for finding in found])
    assert "hunter2" not in repr(found)


def test_the_same_finding_twice_is_one() -> None:
    assert len(from_trivy(report({"Target": "a", "Vulnerabilities": [VULNERABILITY, VULNERABILITY]}))) == 1


def test_a_python_package_is_found_by_its_path() -> None:
    (finding,) = from_trivy(report({"Target": "Python", "Vulnerabilities": [{**VULNERABILITY, "PkgPath": "opt/venv/METADATA"}]}))
    assert finding.target == "opt/venv/METADATA"


def test_a_secret_without_line_is_placed_by_its_file() -> None:
    (finding,) = from_trivy(report({"Target": "/a", "Secrets": [{"RuleID": "r", "Severity": "LOW"}]}))
    assert finding.target == "/a"


@pytest.mark.parametrize("severity", ["UNKNOWN", "", "NEGLIGIBLE", None])
def test_a_severity_that_nobody_rated_counts_as_the_least(severity: str | None) -> None:
    (finding,) = from_trivy(report({"Target": "a", "Vulnerabilities": [{**VULNERABILITY, "Severity": severity}]}))
    assert finding.severity == "unknown"
    assert rank(finding.severity) == rank("low") < rank("medium") < rank("high") < rank("critical")


def test_an_image_without_findings_is_clean() -> None:
    assert from_trivy(report({"Target": "debian"})) == []
    assert from_trivy({"SchemaVersion": 2}) == []


@pytest.mark.parametrize(
    "document",
    [{}, {"SchemaVersion": 1}, {"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{}]}]}, {"SchemaVersion": 2, "Results": [1]}],
)
def test_what_is_no_report_is_an_error_and_never_clean(document: dict[str, Any]) -> None:
    with pytest.raises(RemoteError):
        from_trivy(document)


def test_a_finding_survives_its_document() -> None:
    (finding,) = from_trivy(report({"Target": "debian", "Vulnerabilities": [VULNERABILITY]}))
    assert from_document({**finding.document(), "later": "field"}) == finding


def test_a_finding_reads_as_one_line() -> None:
    (finding,) = from_trivy(report({"Target": "debian", "Vulnerabilities": [VULNERABILITY]}))
    assert str(finding) == "high CVE-2026-1 in openssl 3.0.1, fixed in 3.0.2: a hole"
    assert str(Finding(id="DS002", severity="low", kind="misconfiguration", target="Dockerfile")) == "low DS002 in Dockerfile"


def test_only_a_vulnerability_can_lack_a_fix() -> None:
    unfixed = Finding(id="CVE-1", severity="high", kind="vulnerability", package="ssl", installed="1")
    assert unfixed.unfixed
    assert str(unfixed) == "high CVE-1 in ssl 1, no fix yet"
    for finding in (replace(unfixed, fixed="2"), replace(unfixed, kind="secret"), replace(unfixed, kind="misconfiguration")):
        assert not finding.unfixed
        assert "no fix" not in str(finding)
