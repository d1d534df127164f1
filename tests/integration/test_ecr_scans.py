"""ECR's scans through real boto3: moto's, and recorded answers of every status and kind that a small server plays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support import aws_door
from tests.support.aws_door import Door
from tests.support.ecr_answers import (
    ACCOUNT,
    BASIC_FINDING,
    DIGEST,
    PYTHON_PACKAGE,
    REPOSITORY,
    SYSTEM_PACKAGE,
    Answer,
    answer,
    basic,
    configuration,
    enhanced,
    enhanced_finding,
)
from tests.support.ecr_player import CONFIGURATION, FINDINGS, QUICK, START, WANTED, Player, error
from trainshed.errors import Interrupted
from trainshed.findings.ecr import BASIC, ENHANCED, from_ecr
from trainshed.tools import process
from trainshed.tools.aws import Aws, CredentialsExpired, Refused
from trainshed.tools.ecr_scans import EcrScans, NoAnswer, Wanted


@pytest.fixture(scope="module")
def opened() -> Iterator[Door]:
    with aws_door.opened() as door:
        yield door


@pytest.fixture
def door(opened: Door, monkeypatch: pytest.MonkeyPatch) -> Door:
    for name, value in aws_door.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.0)
    opened.reset()
    return opened


@pytest.fixture
def player(door: Door) -> Player:
    """Return answers that are all recorded: moto knows nothing of these images."""
    door.replaced[CONFIGURATION] = error("AccessDeniedException")
    door.replaced[START] = (200, {"imageScanStatus": {"status": "IN_PROGRESS"}})
    return Player(door)


def pushed(aws: Aws) -> Wanted:
    """Put an image into moto's ECR."""
    aws.call("ecr", "create_repository", repositoryName=REPOSITORY)
    manifest = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 2}, "layers": []}
    kind = "application/vnd.oci.image.manifest.v1+json"
    put = aws.call(
        "ecr", "put_image", repositoryName=REPOSITORY, imageManifest=json.dumps(manifest), imageManifestMediaType=kind, imageTag="a"
    )
    return replace(WANTED, digest=put["image"]["imageId"]["imageDigest"])


def test_motos_scan_is_started_once_and_its_finding_read(door: Door) -> None:
    wanted = pushed(door.aws)
    asking = Player(door)
    for _ in range(2):
        scan = asking.findings(wanted)
        (finding,) = from_ecr(scan.kind, scan.entries)
        assert (finding.id, finding.severity, finding.package, finding.installed) == ("CVE-9999-9999", "high", "moto_fake", "9.9.9")
    assert (scan.kind, asking.count(START)) == (BASIC, 1)


def test_a_second_scan_in_24_hours_is_refused_and_the_first_one_taken(door: Door) -> None:
    wanted = pushed(door.aws)
    player, script = Player(door), [error("ScanNotFoundException")]
    door.aws.call("ecr", "start_image_scan", repositoryName=REPOSITORY, imageId={"imageDigest": wanted.digest})

    def late(_asked: dict[str, Any]) -> tuple[int, Answer]:
        said = script.pop()
        del door.computed[FINDINGS]  # moto knows the scan by now
        return said

    door.computed[FINDINGS] = late
    assert [finding["name"] for finding in player.findings(wanted).entries] == ["CVE-9999-9999"]
    assert player.count(START) == 2  # ours, and the one that was refused


@pytest.mark.parametrize("code", ["RepositoryNotFoundException", "ImageNotFoundException"])
def test_what_moto_does_not_have_is_no_answer(door: Door, code: str) -> None:
    player = Player(door)
    wanted = WANTED if code.startswith("Repo") else replace(pushed(door.aws), digest=DIGEST)
    with pytest.raises(NoAnswer, match=r"it has no such (repository|image)"):
        player.findings(wanted)


@pytest.mark.parametrize(
    ("said", "kind", "names"),
    [
        (basic(BASIC_FINDING), BASIC, ["CVE-2024-5535"]),
        (basic(), BASIC, []),
        (enhanced(enhanced_finding()), ENHANCED, ["CVE-2023-45853"]),
        (
            enhanced(enhanced_finding("CVE-2026-1", SYSTEM_PACKAGE, PYTHON_PACKAGE), status="COMPLETE"),
            ENHANCED,
            ["CVE-2026-1", "CVE-2026-1"],
        ),
        (enhanced(), ENHANCED, []),
    ],
    ids=["basic", "basic clean", "enhanced", "enhanced complete", "enhanced clean"],
)
def test_each_kind_is_read_as_it_comes_over_the_wire(player: Player, said: Answer, kind: str, names: list[str]) -> None:
    player.play(said)
    scan = player.findings()
    assert scan.kind == kind
    assert [finding.id for finding in from_ecr(scan.kind, scan.entries)] == names
    (asked, *_) = player.asked
    assert (asked["registryId"], asked["repositoryName"], asked["imageId"]) == (ACCOUNT, REPOSITORY, {"imageDigest": DIGEST})


@pytest.mark.parametrize(
    "status",
    ["FAILED", "UNSUPPORTED_IMAGE", "SCAN_ELIGIBILITY_EXPIRED", "FINDINGS_UNAVAILABLE", "LIMIT_EXCEEDED", "IMAGE_ARCHIVED"],
)
def test_each_status_without_findings_is_no_answer(player: Player, status: str) -> None:
    player.play(answer("PENDING"), answer("IN_PROGRESS"), answer(status, said="odd"))
    with pytest.raises(NoAnswer, match=rf"{status} \(odd\)"):
        player.findings()
    assert len(player.asked) == 3


def test_all_pages_come_through_the_real_paginator(player: Player) -> None:
    parts = [enhanced_finding(f"CVE-2026-100{number}") for number in range(6)]
    pages = [enhanced(*parts[start : start + 2], counted=6) for start in (0, 2, 4)]
    for number, page in enumerate(pages[:2], 1):
        page["nextToken"] = f"page-{number}"

    def say(asked: dict[str, Any]) -> tuple[int, Answer]:
        player.asked.append(asked)
        return 200, pages[int(asked.get("nextToken", "page-0").removeprefix("page-"))]

    player.door.computed[FINDINGS] = say
    scan = player.findings()
    assert [finding["packageVulnerabilityDetails"]["vulnerabilityId"] for finding in scan.entries] == [f"CVE-2026-100{n}" for n in range(6)]
    assert player.asked[0]["maxResults"] == 1000


def test_findings_that_come_late_are_waited_for(player: Player) -> None:
    none, one = enhanced(status="COMPLETE", completed=None), enhanced(enhanced_finding(), status="COMPLETE")
    player.door.replaced[CONFIGURATION] = (200, configuration("ENHANCED"))
    player.play(error("ImageNotFoundException"), error("ScanNotFoundException"), none, none, one)
    assert len(player.findings(pace=replace(QUICK, missing=60.0)).entries) == 1
    assert player.count(START) == 0


def test_of_a_clean_image_inspector_is_asked_whether_it_was_scanned(player: Player) -> None:
    player.play(answer("ACTIVE", found={"findings": []}))
    covered = {"resourceType": "AWS_ECR_CONTAINER_IMAGE", "accountId": ACCOUNT, "scanType": "PACKAGE", "lastScannedAt": time.time()}
    state = {"statusCode": "ACTIVE", "reason": "SUCCESSFUL"}
    player.door.replaced["inspector2 POST"] = (200, {"coveredResources": [{**covered, "resourceId": "arn:x", "scanStatus": state}]})
    scan = player.findings()
    assert (scan.kind, scan.entries) == (ENHANCED, ())
    asked = next(one for one in player.door.asked if one.what == "inspector2 POST")
    arn = f"arn:aws:ecr:{aws_door.REGION}:{ACCOUNT}:repository/{REPOSITORY}/{DIGEST}"
    assert (asked.path, json.loads(asked.body)["filterCriteria"]["resourceId"][0]["value"]) == ("/coverage/list", arn)


def test_throttling_and_errors_in_the_middle_are_borne(player: Player) -> None:
    throttled, broken = error("ThrottlingException"), error("ServerException", 500)
    player.play(answer("IN_PROGRESS"), throttled, throttled, broken, answer("IN_PROGRESS"), *[throttled] * 6, basic(BASIC_FINDING))
    assert len(player.findings().entries) == 1


def test_credentials_that_expire_in_the_middle_are_read_anew_or_told(player: Player) -> None:
    player.play(answer("IN_PROGRESS"), error("ExpiredTokenException"), basic(BASIC_FINDING))
    assert len(player.findings().entries) == 1
    player.play(answer("IN_PROGRESS"), error("ExpiredTokenException"))
    with pytest.raises(CredentialsExpired):
        player.findings()


def test_who_may_not_ask_is_told_at_once(player: Player) -> None:
    player.play(error("AccessDeniedException", 400))
    with pytest.raises(Refused) as caught:
        player.findings()
    assert caught.value.denied


def test_a_scan_that_hangs_is_ended_at_its_deadline_with_its_progress_told(player: Player) -> None:
    player.play(answer("IN_PROGRESS", said="still at it"))
    told: list[str] = []
    scans = EcrScans(player.door.aws, account=ACCOUNT, pace=QUICK)
    with pytest.raises(NoAnswer, match=r"no findings within 1 s \(scan\.ecr-timeout\): IN_PROGRESS \(still at it\)"):
        scans.await_findings(replace(WANTED, timeout=1.0), on_progress=told.append)
    assert told
    assert all("waiting for ECR's findings" in line for line in told)


def test_sigterm_ends_the_wait(player: Player) -> None:
    player.play(answer("IN_PROGRESS"))
    scans = EcrScans(player.door.aws, account=ACCOUNT, pace=QUICK)
    try:
        with pytest.raises(Interrupted):
            scans.await_findings(replace(WANTED, timeout=3600.0), on_progress=lambda _: process.stopping.set())
    finally:
        process.stopping.clear()
