"""One list out of several sources: what is the same is counted once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from trainshed.findings.merging import merged
from trainshed.findings.model import Finding, from_trivy
from trainshed.findings.policy import judge, warnings
from trainshed.findings.waivers import Waiver

SYSTEM = "127.0.0.1:5000/ml/train@sha256:abc (debian 12.5)"


def trivy(**told: Any) -> Finding:
    fields = {
        "id": "CVE-2026-1000",
        "severity": "high",
        "kind": "vulnerability",
        "package": "zlib1g",
        "installed": "1:1.2-1",
        "target": SYSTEM,
    }
    return Finding(**{**fields, **told})


def ecr(**told: Any) -> Finding:
    return trivy(**{"target": "", "sources": ("ecr",), **told})


def test_one_finding_of_two_sources_is_counted_once_and_both_are_named() -> None:
    (one,) = merged([[trivy()], [ecr()]])
    assert one == trivy(sources=("ecr", "trivy"))
    assert str(one).endswith("(seen by ecr and trivy)")


def test_what_one_source_alone_saw_stays_and_is_said_to_be_its_own() -> None:
    found = merged([[trivy()], [ecr(id="CVE-2026-2000", severity="critical")]])
    assert [(finding.id, finding.sources) for finding in found] == [("CVE-2026-2000", ("ecr",)), ("CVE-2026-1000", ("trivy",))]


def test_one_source_alone_stays_as_it_was() -> None:
    alone = [trivy(), trivy(package="zlib1g-dev"), trivy(id="github-pat", kind="secret", package="", target="/a:3")]
    assert merged([alone]) == sorted(alone, key=lambda finding: (finding.kind, finding.id, finding.package))
    assert merged([[], alone]) == merged([alone]) == merged([alone, []])
    assert merged([]) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"installed": "1:1.2-1"}, {"installed": "1.2-1"}),  # the epoch left out
        ({"installed": "1.2-1+b2"}, {"installed": "1.2-1"}),  # a rebuild of the same source
        ({"installed": "2:1.02.185-2"}, {"installed": "2.03.16-2"}),  # a binary package's version, and its source's
        ({"installed": "1.2"}, {"installed": ""}),
        ({"package": "PyYAML", "target": "a/METADATA"}, {"package": "pyyaml", "target": "/a/METADATA"}),
        ({"package": "zope.interface"}, {"package": "zope-interface"}),
        ({"origin": "zlib"}, {"package": "zlib"}),
        ({"aliases": ("GHSA-aaaa-bbbb-cccc",)}, {"id": "GHSA-aaaa-bbbb-cccc"}),
        ({"id": "GHSA-aaaa-bbbb-cccc"}, {"aliases": ("GHSA-aaaa-bbbb-cccc",)}),
        ({"id": "PYSEC-2026-1", "aliases": ("CVE-2026-1000",)}, {}),
    ],
)
def test_other_words_for_the_same_are_the_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    (one,) = merged([[trivy(**ours)], [ecr(**theirs)]])
    assert one.sources == ("ecr", "trivy")
    assert one.id == trivy(**ours).id
    assert ecr(**theirs).id in {one.id, *one.aliases}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"package": "bzip2"}),
        ({}, {"id": "CVE-2026-1001"}),
        ({"installed": "1.0", "target": "a/METADATA"}, {"installed": "2.0", "target": "b/METADATA"}),
    ],
)
def test_what_is_not_the_same_stays_two(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert len(merged([[trivy(**ours)], [ecr(**theirs)]])) == 2


def test_a_source_package_is_each_of_the_packages_built_from_it() -> None:
    binaries = [trivy(package=name, origin="openssl") for name in ("libssl3", "libcrypto3")] + [trivy(package="openssl")]
    found = merged([binaries, [ecr(package="openssl", installed="1.2-1")]])
    assert [(finding.package, finding.sources) for finding in found] == [
        (name, ("ecr", "trivy")) for name in ("libcrypto3", "libssl3", "openssl")
    ]


def test_two_versions_of_one_package_are_told_apart() -> None:
    ours = [trivy(installed=version, package="requests", target=f"{version}/METADATA") for version in ("1.0", "2.0")]
    found = {finding.installed: finding.sources for finding in merged([ours, [ecr(package="requests", installed="2.0")]])}
    assert found == {"1.0": ("trivy",), "2.0": ("ecr", "trivy")}


@pytest.mark.parametrize(
    ("ours", "theirs", "counts"),
    [("low", "critical", "critical"), ("critical", "low", "critical"), ("unknown", "low", "low"), ("low", "unknown", "low")],
)
def test_the_worse_severity_counts(ours: str, theirs: str, counts: str) -> None:
    (one,) = merged([[trivy(severity=ours)], [ecr(severity=theirs)]])
    assert one.severity == counts


def test_what_one_source_alone_would_refuse_the_two_refuse() -> None:
    (one,) = merged([[trivy(severity="medium", fixed="1.3")], [ecr(severity="high", fix_told=False)]])
    rules: dict[str, Any] = {"fail_on": "high", "unfixed": "tolerate", "waivers": (), "component": "train"}
    assert judge([one], **rules, today=dt.date(2026, 1, 1)).failing == (one,)


def test_a_fix_that_one_source_knows_is_known() -> None:
    (one,) = merged([[trivy(fixed="")], [ecr(fixed="1.3")]])
    assert (one.fixed, one.unfixed) == ("1.3", False)
    (none,) = merged([[trivy(fixed="")], [ecr(fixed="", fix_told=False)]])
    assert none.unfixed  # Trivy tells, and knows of none


def test_one_waiver_covers_a_finding_by_any_of_its_names() -> None:
    (one,) = merged([[trivy(id="CVE-2026-1000", aliases=("GHSA-aaaa-bbbb-cccc",), origin="zlib")], [ecr(id="GHSA-aaaa-bbbb-cccc")]])
    today = dt.date(2026, 1, 1)
    for name, package in (("CVE-2026-1000", ""), ("GHSA-aaaa-bbbb-cccc", "zlib1g"), ("CVE-2026-1000", "zlib")):
        waiver = Waiver(id=name, package=package, owner="me", reason="why", expires=today)
        judged = judge([one], fail_on="low", unfixed="fail", waivers=[waiver], today=today, component="train")
        assert (judged.waived, judged.failing) == ((one,), ())
        assert not any("unused" in text for text in warnings([waiver], used=judged.used, today=today, complete=True))
    other = Waiver(id="CVE-2026-1000", package="bzip2", owner="me", reason="why", expires=today)
    assert judge([one], fail_on="low", unfixed="fail", waivers=[other], today=today, component="train").failing == (one,)


def test_trivy_tells_source_packages_and_other_names() -> None:
    entry = {
        "VulnerabilityID": "CVE-2023-32681",
        "VendorIDs": ["GHSA-j8r2-6x86-q33q", "DSA-5417-1"],
        "PkgID": "libssl3@3.0",
        "PkgName": "libssl3",
        "Severity": "HIGH",
        "References": ["https://nvd.nist.gov/vuln/detail/CVE-2000-9999", "https://osv.dev/vulnerability/PYSEC-2023-74"],
    }
    result = {"Target": SYSTEM, "Packages": [{"ID": "libssl3@3.0", "Name": "libssl3", "SrcName": "openssl"}], "Vulnerabilities": [entry]}
    (finding,) = from_trivy({"SchemaVersion": 2, "Results": [result]})
    assert (finding.origin, finding.aliases) == ("openssl", ("GHSA-j8r2-6x86-q33q", "PYSEC-2023-74"))
