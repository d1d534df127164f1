"""Findings of ECR's basic and enhanced scans."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.support.ecr_answers import BASIC_FINDING, PYTHON_PACKAGE, SYSTEM_PACKAGE, enhanced_finding
from trainshed.errors import RemoteError
from trainshed.findings.ecr import BASIC, ENHANCED, from_ecr
from trainshed.findings.model import Finding, from_document
from trainshed.findings.policy import judge


def test_a_basic_finding_is_of_the_package_of_its_attributes() -> None:
    assert from_ecr(BASIC, [BASIC_FINDING]) == [
        Finding(
            id="CVE-2024-5535",
            severity="high",
            kind="vulnerability",
            package="openssl",
            installed="3.0.14-1~deb12u1",
            title="Issue summary: Calling the function SSL_select_next_proto with an empty buffer may cause a crash.",
            url="https://security-tracker.debian.org/tracker/CVE-2024-5535",
            sources=("ecr",),
            fix_told=False,
        )
    ]


def test_an_enhanced_finding_is_one_for_each_of_its_packages() -> None:
    system, python = from_ecr(ENHANCED, [enhanced_finding("CVE-2023-1", SYSTEM_PACKAGE, PYTHON_PACKAGE, fix="PARTIAL")])[::-1]
    assert (system.package, system.installed, system.fixed, system.target) == ("zlib1g", "1:1.2.13.dfsg-1", "", "")
    assert (python.package, python.installed, python.fixed, python.target) == (
        "requests",
        "2.30.0",
        "2.31.0",
        "usr/lib/python3/site-packages/requests-2.30.0.dist-info/METADATA",
    )
    assert system.unfixed
    assert not python.unfixed
    assert system.title == "zlib1g"
    assert system.url == "https://security-tracker.debian.org/tracker/CVE-2023-1"


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("CRITICAL", "critical"),
        ("HIGH", "high"),
        ("MEDIUM", "medium"),
        ("LOW", "low"),
        ("INFORMATIONAL", "low"),
        ("UNDEFINED", "unknown"),
        ("UNTRIAGED", "unknown"),
    ],
)
def test_every_severity_has_its_word(told: str, read: str) -> None:
    assert from_ecr(BASIC, [{**BASIC_FINDING, "severity": told}])[0].severity == read
    assert from_ecr(ENHANCED, [enhanced_finding(severity=told)])[0].severity == read


def test_what_inspector_has_not_rated_takes_the_vendors_rating() -> None:
    finding = enhanced_finding(severity="UNTRIAGED")
    finding["packageVulnerabilityDetails"]["vendorSeverity"] = "High"
    assert from_ecr(ENHANCED, [finding])[0].severity == "high"


@pytest.mark.parametrize(
    ("version", "available", "fixed", "unfixed"),
    [
        ("NotAvailable", "NO", "", True),
        ("", "PARTIAL", "", True),
        ("0:3.0.15-1", "YES", "3.0.15-1", False),
        ("1:1.3-2", "YES", "1:1.3-2", False),
        ("NotAvailable", "YES", "", False),  # there is one, of a version that is not told
        (None, None, "", False),  # nobody says that there is none
    ],
)
def test_a_fix_is_known_missing_or_not_told(version: str | None, available: str | None, fixed: str, unfixed: bool) -> None:
    finding = enhanced_finding("CVE-1", {**SYSTEM_PACKAGE, "fixedInVersion": version}, fixAvailable=available)
    (read,) = from_ecr(ENHANCED, [finding])
    assert (read.fixed, read.unfixed) == (fixed, unfixed)


def test_a_finding_of_which_no_fix_is_told_is_not_tolerated_as_one_without_a_fix() -> None:
    rules: dict[str, Any] = {"fail_on": "high", "unfixed": "tolerate", "waivers": (), "component": "train"}
    judged = judge(from_ecr(BASIC, [BASIC_FINDING]), **rules, today=dt.date(2026, 1, 1))
    assert [finding.id for finding in judged.failing] == ["CVE-2024-5535"]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("pkg:deb/debian/zlib1g@1.2.13?arch=amd64&epoch=1", "zlib1g"),
        ("pkg:npm/%40babel/core@7.0.0", "@babel/core"),
        ("pkg:maven/org.apache.logging.log4j/log4j-core@2.14", "org.apache.logging.log4j:log4j-core"),
        ("pkg:pypi/requests", "requests"),
        ("pkg:golang/golang.org/x/net@v0.1#sub", "golang.org/x/net"),
        ("1:openssl-libs", "openssl-libs"),
        ("org.apache.logging.log4j:log4j-core", "org.apache.logging.log4j:log4j-core"),
    ],
)
def test_a_package_has_its_bare_name(told: str, name: str) -> None:
    (finding,) = from_ecr(ENHANCED, [enhanced_finding("CVE-1", {**PYTHON_PACKAGE, "name": told})])
    assert finding.package == name


def test_what_inspector_closed_is_over_and_what_it_suppresses_counts() -> None:
    assert from_ecr(ENHANCED, [enhanced_finding(status="CLOSED")]) == []
    assert len(from_ecr(ENHANCED, [enhanced_finding(status="SUPPRESSED")])) == 1


def test_another_name_of_an_advisory_is_kept_but_not_those_that_a_notice_gathers() -> None:
    pages = ["https://github.com/advisories/GHSA-j8r2-6x86-q33q", "https://example.org/news"]
    assert from_ecr(ENHANCED, [enhanced_finding("CVE-2023-32681", urls=pages)])[0].aliases == ("GHSA-j8r2-6x86-q33q",)
    assert from_ecr(ENHANCED, [enhanced_finding("GHSA-j8r2-6x86-q33q", related=["CVE-2023-32681"])])[0].aliases == ("CVE-2023-32681",)
    assert from_ecr(ENHANCED, [enhanced_finding("ALAS2023-2024-5", related=["CVE-2023-11111", "CVE-2023-22222"])])[0].aliases == ()


def test_a_finding_survives_its_document() -> None:
    for finding in [*from_ecr(BASIC, [BASIC_FINDING]), *from_ecr(ENHANCED, [enhanced_finding(related=["GHSA-j8r2-6x86-q33q"])])]:
        assert from_document(finding.document()) == finding


def test_a_finding_of_an_old_document_is_trivys() -> None:
    assert from_document({"id": "CVE-1", "severity": "low", "kind": "vulnerability"}).sources == ("trivy",)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        (BASIC, {}),
        (BASIC, {**BASIC_FINDING, "attributes": []}),
        (BASIC, {**BASIC_FINDING, "name": None}),
        (BASIC, {**BASIC_FINDING, "severity": "DREADFUL"}),
        (BASIC, "CVE-1"),
        (BASIC, enhanced_finding()),
        (ENHANCED, {}),
        (ENHANCED, BASIC_FINDING),
        (ENHANCED, enhanced_finding(severity="DREADFUL")),
        (ENHANCED, enhanced_finding(packageVulnerabilityDetails={"vulnerabilityId": "CVE-1", "vulnerablePackages": []})),
        (ENHANCED, enhanced_finding(packageVulnerabilityDetails=None)),
        (ENHANCED, enhanced_finding("CVE-1", {**SYSTEM_PACKAGE, "name": ""})),
    ],
)
def test_what_has_another_shape_is_an_error_and_never_clean(kind: str, entry: Any) -> None:
    with pytest.raises(RemoteError, match="another shape"):
        from_ecr(kind, [entry])
