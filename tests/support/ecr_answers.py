"""What ECR answers about scans, by the shapes of its API: every status, both kinds, several pages. As on the wire: moments are numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

REPOSITORY, DIGEST, ACCOUNT = "ml/train", "sha256:" + "ab" * 32, "123456789012"
Answer = dict[str, Any]

BASIC_FINDING: Answer = {
    "name": "CVE-2024-5535",
    "description": "Issue summary: Calling the function SSL_select_next_proto with an empty buffer\nmay cause a crash.",
    "uri": "https://security-tracker.debian.org/tracker/CVE-2024-5535",
    "severity": "HIGH",
    "attributes": [
        {"key": "package_version", "value": "3.0.14-1~deb12u1"},
        {"key": "package_name", "value": "openssl"},
        {"key": "CVSS3_SCORE", "value": "9.1"},
    ],
}

SYSTEM_PACKAGE: Answer = {
    "arch": "AMD64",
    "epoch": 1,
    "name": "zlib1g",
    "packageManager": "OS",
    "release": "1",
    "version": "1.2.13.dfsg",
    "sourceLayerHash": "sha256:" + "cd" * 32,
    "fixedInVersion": "NotAvailable",
}

PYTHON_PACKAGE: Answer = {
    "epoch": 0,
    "name": "requests",
    "packageManager": "PYTHONPKG",
    "version": "2.30.0",
    "filePath": "usr/lib/python3/site-packages/requests-2.30.0.dist-info/METADATA",
    "fixedInVersion": "2.31.0",
}


def enhanced_finding(
    name: str = "CVE-2023-45853",
    *packages: Mapping[str, Any],
    severity: str = "CRITICAL",
    fix: str = "NO",
    related: Sequence[str] = (),
    urls: Sequence[str] = (),
    **more: Any,
) -> Answer:
    """Return a finding of Amazon Inspector."""
    details = {
        "cvss": [{"baseScore": 9.8, "scoringVector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "source": "NVD", "version": "3.1"}],
        "referenceUrls": list(urls),
        "relatedVulnerabilities": list(related),
        "source": "DEBIAN_CVE",
        "sourceUrl": f"https://security-tracker.debian.org/tracker/{name}",
        "vendorCreatedAt": 1697241600.0,
        "vendorSeverity": "unimportant",
        "vulnerabilityId": name,
        "vulnerablePackages": [dict(package) for package in packages or (SYSTEM_PACKAGE,)],
    }
    return {
        "awsAccountId": ACCOUNT,
        "description": "MiniZip in zlib has an integer overflow.",
        "findingArn": f"arn:aws:inspector2:us-east-1:{ACCOUNT}:finding/0123456789abcdef",
        "firstObservedAt": 1700000000.0,
        "lastObservedAt": 1700000000.0,
        "packageVulnerabilityDetails": details,
        "remediation": {"recommendation": {"text": "None Provided"}},
        "resources": [{"details": {"awsEcrContainerImage": {"imageHash": DIGEST, "repositoryName": REPOSITORY}}, "id": "x", "tags": {}}],
        "score": 9.8,
        "severity": severity,
        "status": "ACTIVE",
        "title": f"{name} - zlib1g",
        "type": "PACKAGE_VULNERABILITY",
        "updatedAt": 1700000000.0,
        "fixAvailable": fix,
        "exploitAvailable": "NO",
        **more,
    }


def answer(status: str, *, said: str = "", found: Mapping[str, Any] | None = None, token: str = "") -> Answer:
    """Return an answer about the image, of any status."""
    told = {"status": status, **({"description": said} if said else {})}
    whole: Answer = {
        "registryId": ACCOUNT,
        "repositoryName": REPOSITORY,
        "imageId": {"imageDigest": DIGEST},
        "imageScanStatus": told,
    }
    return whole | ({"imageScanFindings": dict(found)} if found is not None else {}) | ({"nextToken": token} if token else {})


def findings(kind: str, entries: Sequence[Mapping[str, Any]], *, counted: int | None = None, completed: float | None = -1.0) -> Answer:
    """Return the part with the findings; ``completed`` is a moment, or seconds before now when it is not positive."""
    severities: dict[str, int] = {}
    for entry in entries:
        severities[entry["severity"]] = severities.get(entry["severity"], 0) + 1
    counts = severities if counted is None else {"HIGH": counted} if counted else {}
    part: Answer = {kind: [dict(entry) for entry in entries], "findingSeverityCounts": counts}
    if completed is not None:
        moment = completed if completed > 0 else time.time() + completed
        part |= {"imageScanCompletedAt": moment, "vulnerabilitySourceUpdatedAt": moment}
    return part


def basic(*entries: Mapping[str, Any], status: str = "COMPLETE", completed: float | None = -1.0, counted: int | None = None) -> Answer:
    """Return the answer of a basic scan that is done."""
    return answer(
        status, said="The scan was completed successfully.", found=findings("findings", entries, completed=completed, counted=counted)
    )


def enhanced(*entries: Mapping[str, Any], status: str = "ACTIVE", completed: float | None = -1.0, counted: int | None = None) -> Answer:
    """Return the answer of an enhanced scan, which goes on."""
    said = "Continuous scan is selected for image."
    return answer(status, said=said, found=findings("enhancedFindings", entries, completed=completed, counted=counted))


def configuration(kind: str) -> Answer:
    """Return the registry's configuration of scans: BASIC or ENHANCED."""
    return {"registryId": ACCOUNT, "scanningConfiguration": {"scanType": kind, "rules": []}}
