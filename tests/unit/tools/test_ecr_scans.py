"""ECR's scans awaited, on a clock that only the waiting moves: each status, late findings, old scans, the deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.ecr_answers import (
    ACCOUNT,
    BASIC_FINDING,
    DIGEST,
    REPOSITORY,
    Answer,
    answer,
    basic,
    configuration,
    enhanced,
    enhanced_finding,
)
from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.findings.ecr import BASIC, ENHANCED
from trainshed.tools.aws import Aws, CredentialsExpired, Refused
from trainshed.tools.ecr_scans import STATUSES, EcrScans, NoAnswer, Scan, Wanted

DAY = 86_400.0
Said = Answer | Exception


def refused(code: str) -> Refused:
    return Refused(f"AWS ecr: {code}", code=code, said=f"because of {code}", next_step="Mend it.")


class Ecr(Aws):
    """Plays answers about scans one after the other, the last one for ever; time passes only while it is waited for."""

    def __init__(self, *script: Said, config: Said | None = None, start: Said | None = None, covered: Said | None = None) -> None:
        super().__init__(region="us-east-1")
        self.script, self.config, self.start = list(script), config or refused("AccessDeniedException"), start or {}
        self.covered = covered or refused("AccessDeniedException")
        self.now, self.asked, self.started, self.told = 0.0, 0, 0, list[str]()

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Answer about the configuration, or start a scan."""
        assert service == "ecr"
        if operation == "start_image_scan":
            assert parameters["imageId"] == {"imageDigest": DIGEST}
            self.started += 1
            return given(self.start)
        assert operation == "get_registry_scanning_configuration"
        return given(self.config)

    def pages(self, service: str, operation: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Answer about the scan; a list is of several pages. Inspector has an answer of its own."""
        if service == "inspector2":
            arn = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{REPOSITORY}/{DIGEST}"
            assert (operation, parameters) == (
                "list_coverage",
                {"filterCriteria": {"resourceId": [{"comparison": "EQUALS", "value": arn}]}},
            )
            yield given(self.covered)
            return
        assert (service, operation) == ("ecr", "describe_image_scan_findings")
        assert (parameters["registryId"], parameters["repositoryName"], parameters["imageId"]) == (
            ACCOUNT,
            REPOSITORY,
            {"imageDigest": DIGEST},
        )
        self.asked += 1
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        for page in said.get("pages", [said]) if isinstance(said, dict) else [said]:
            yield parsed(given(page))

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds > 0
        self.now += seconds

    def findings(self, *, timeout: float = 900.0, max_age: float = DAY) -> Scan:
        """Wait for the findings."""
        scans = EcrScans(self, account=ACCOUNT, clock=lambda: self.now)
        wanted = Wanted(repository=REPOSITORY, digest=DIGEST, max_age=max_age, timeout=timeout)
        return scans.await_findings(wanted, on_progress=self.told.append, pause=self.pause)


def given(said: Said) -> Answer:
    if isinstance(said, Exception):
        raise said
    return said


def parsed(said: Answer) -> Answer:
    """Return an answer as boto3 gives it."""
    found = dict(said.get("imageScanFindings") or {})
    if "imageScanCompletedAt" in found:
        found["imageScanCompletedAt"] = datetime.fromtimestamp(found["imageScanCompletedAt"], UTC)
    return {**said, "imageScanFindings": found} if found else said


def test_a_basic_scan_that_is_done_is_taken_at_once() -> None:
    ecr = Ecr(basic(BASIC_FINDING, completed=-60.0))
    scan = ecr.findings()
    assert (scan.kind, scan.entries) == (BASIC, (BASIC_FINDING,))
    assert 59 < (datetime.now(UTC) - scan.made).total_seconds() < 600
    assert (ecr.asked, ecr.started, ecr.now) == (1, 0, 0.0)


def test_an_enhanced_scan_is_never_done_and_its_answer_is_taken_once_it_holds() -> None:
    ecr = Ecr(enhanced(enhanced_finding(), completed=1_700_000_000.0))
    scan = ecr.findings()
    assert (scan.kind, scan.entries) == (ENHANCED, (enhanced_finding(),))
    assert (datetime.now(UTC) - scan.made).total_seconds() < 600  # it goes on, so that it is true now, whenever it began
    assert ecr.asked > 1
    assert 0 < ecr.now < 60
    assert ecr.started == 0


@pytest.mark.parametrize("kind", ["BASIC", "ENHANCED"])
def test_a_clean_image_is_clean_once_its_scan_is_said_to_be_completed(kind: str) -> None:
    clean = basic() if kind == "BASIC" else enhanced()
    assert Ecr(clean).findings().entries == ()


def test_an_answer_without_any_list_is_clean_only_if_the_scan_was_completed() -> None:
    bare = answer("ACTIVE", found={"imageScanCompletedAt": 1_700_000_000.0})
    scan = Ecr(bare).findings()
    assert (scan.kind, scan.entries) == (ENHANCED, ())
    for nothing in (answer("COMPLETE"), answer("ACTIVE", found={}), enhanced(completed=None), basic(completed=None)):
        with pytest.raises(NoAnswer, match="no findings within 900 s"):
            Ecr(nothing).findings()


def coverage(reason: str, *, ago: float = 60.0) -> Answer:
    """Return what Inspector says of the image, as boto3 gives it."""
    state = {"statusCode": "ACTIVE" if reason == "SUCCESSFUL" else "INACTIVE", "reason": reason}
    scanned = {} if reason.startswith("PENDING") else {"lastScannedAt": datetime.now(UTC) - timedelta(seconds=ago)}
    return {"coveredResources": [{"scanStatus": state, **scanned}]}


@pytest.mark.parametrize(("status", "reason"), [("ACTIVE", "SUCCESSFUL"), ("COMPLETE", "SCAN_FREQUENCY_SCAN_ON_PUSH")])
def test_a_clean_image_is_clean_once_inspector_says_that_it_was_scanned(status: str, reason: str) -> None:
    nothing = answer(status, found={"findings": []})  # as ECR writes it: of the other kind, without a moment
    ecr = Ecr(nothing, covered=coverage(reason))
    scan = ecr.findings()
    assert (scan.kind, scan.entries, ecr.started) == (ENHANCED, (), 0)
    assert (datetime.now(UTC) - scan.made).total_seconds() < 600
    assert 60 <= ecr.now < 120, "findings may come late"
    late = enhanced(enhanced_finding(), status=status)
    assert Ecr(*[nothing] * 6, late, covered=coverage(reason)).findings().entries == (enhanced_finding(),)


@pytest.mark.parametrize(
    ("ecr", "told"),
    [
        (Ecr(answer("ACTIVE", found={"findings": []}), covered=coverage("PENDING_INITIAL_SCAN")), "does not say when"),
        (Ecr(answer("ACTIVE", found={"findings": []}), covered={"coveredResources": []}), "does not say when"),
        (Ecr(answer("ACTIVE", found={"findings": []})), r"nor may Amazon Inspector be asked \(inspector2:ListCoverage\)"),
        (Ecr(answer("ACTIVE", found={"findings": []}), covered=RemoteError("gone", next_step="")), "nor could Amazon Inspector be asked"),
        (
            Ecr(answer("COMPLETE", found={"findings": []}), covered=coverage("SUCCESSFUL"), config=configuration("BASIC")),
            "does not say when",
        ),
        (
            Ecr(answer("COMPLETE", found={"findings": []}), covered=coverage("SCAN_FREQUENCY_SCAN_ON_PUSH", ago=2 * DAY)),
            r"older than scan\.max-db-age",
        ),
    ],
    ids=["pending", "unknown", "denied", "broken", "basic", "old"],
)
def test_an_image_without_findings_that_nobody_says_was_scanned_is_no_answer(ecr: Ecr, told: str) -> None:
    with pytest.raises(NoAnswer, match=told):
        ecr.findings()


@pytest.mark.parametrize("status", ["COMPLETE", "ACTIVE"])
def test_findings_that_come_late_are_waited_for(status: str) -> None:
    one, two = enhanced_finding("CVE-2026-1"), enhanced_finding("CVE-2026-2")
    early = enhanced(status=status, completed=None)
    counted = enhanced(one, status=status, counted=2)
    assert Ecr(basic(), enhanced(one, status=status)).findings().entries == (one,), "an empty list of the other kind is no answer at once"
    ecr = Ecr(early, early, enhanced(one, status=status), counted, counted, enhanced(one, two, status=status))
    assert ecr.findings().entries == (one, two)


def test_fewer_findings_than_are_counted_are_no_answer() -> None:
    with pytest.raises(NoAnswer, match="of 3 findings it gives 1"):
        Ecr(basic(BASIC_FINDING, counted=3)).findings()


def test_all_pages_are_read_and_the_kind_is_told_by_all_of_them() -> None:
    names = [f"CVE-2026-{number}" for number in range(1000, 1005)]
    parts = [enhanced_finding(name) for name in names]
    first = enhanced(parts[0], parts[1], counted=5)
    whole = {"pages": [first, enhanced(parts[2], parts[3], counted=5), enhanced(parts[4], counted=5)]}
    assert Ecr(whole).findings().entries == tuple(parts)


def test_the_kind_is_told_by_the_shape_and_not_by_the_status() -> None:
    assert Ecr(basic(BASIC_FINDING, status="ACTIVE")).findings().kind == BASIC
    assert Ecr(enhanced(enhanced_finding(), status="COMPLETE")).findings().kind == ENHANCED
    both = basic(BASIC_FINDING)
    both["imageScanFindings"]["enhancedFindings"] = []
    assert Ecr(both).findings().kind == BASIC
    both["imageScanFindings"]["enhancedFindings"] = [enhanced_finding()]
    with pytest.raises(NoAnswer):
        Ecr(both).findings()


@pytest.mark.parametrize("status", ["PENDING", "IN_PROGRESS"])
def test_a_scan_that_is_under_way_is_waited_for(status: str) -> None:
    ecr = Ecr(*[answer(status)] * 5, basic(BASIC_FINDING))
    assert len(ecr.findings().entries) == 1
    assert ecr.started == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("FAILED", "its scan failed: FAILED (odd)"),
        ("UNSUPPORTED_IMAGE", "it cannot scan such an image"),
        ("IMAGE_SIZE_EXCEEDED", "the image is too large"),
        ("SCAN_ELIGIBILITY_EXPIRED", "older than its scans go on for"),
        ("FINDINGS_UNAVAILABLE", "keeps no findings"),
        ("LIMIT_EXCEEDED", "quota of scans is used up"),
        ("IMAGE_ARCHIVED", "the image is archived"),
        ("BRAND_NEW", "not known: BRAND_NEW (odd)"),
    ],
)
def test_a_status_without_findings_ends_the_wait_with_its_reason_and_what_to_do(status: str, reason: str) -> None:
    ecr = Ecr(answer(status, said="odd", found={"findings": [], "findingSeverityCounts": {}}))
    with pytest.raises(NoAnswer) as caught:
        ecr.findings()
    assert reason in caught.value.message
    assert f"{REPOSITORY}@{DIGEST[:19]}" in caught.value.message
    assert caught.value.next_step
    assert (ecr.asked, ecr.now) == (1, 0.0)


def test_every_status_of_the_api_has_a_meaning() -> None:
    told = "IN_PROGRESS COMPLETE FAILED UNSUPPORTED_IMAGE ACTIVE PENDING SCAN_ELIGIBILITY_EXPIRED FINDINGS_UNAVAILABLE LIMIT_EXCEEDED"
    assert set(STATUSES) == {*told.split(), "IMAGE_ARCHIVED", "IMAGE_SIZE_EXCEEDED"}


@pytest.mark.parametrize("config", [configuration("BASIC"), refused("AccessDeniedException"), RemoteError("no network")])
def test_a_basic_scan_that_was_never_made_is_started_once(config: Said) -> None:
    none = refused("ScanNotFoundException")
    ecr = Ecr(none, none, answer("IN_PROGRESS"), basic(BASIC_FINDING), config=config)
    assert len(ecr.findings().entries) == 1
    assert ecr.started == 1


def test_an_enhanced_scan_is_awaited_and_never_started() -> None:
    ecr = Ecr(*[refused("ScanNotFoundException")] * 3, enhanced(enhanced_finding()), config=configuration("ENHANCED"))
    assert ecr.findings().kind == ENHANCED
    assert ecr.started == 0


def test_the_configuration_of_our_own_registry_says_nothing_of_another_accounts() -> None:
    elsewhere = {**configuration("ENHANCED"), "registryId": "999999999999"}
    ecr = Ecr(refused("ScanNotFoundException"), basic(), config=elsewhere)
    ecr.findings()
    assert ecr.started == 1


@pytest.mark.parametrize("code", ["LimitExceededException", "ValidationException", "AccessDeniedException"])
def test_a_scan_that_may_not_be_started_may_still_come(code: str) -> None:
    none = refused("ScanNotFoundException")
    ecr = Ecr(none, none, basic(BASIC_FINDING), start=refused(code))
    assert len(ecr.findings().entries) == 1
    assert ecr.started == 1
    with pytest.raises(NoAnswer, match="24 hours" if code.startswith("Limit") else f"no scan could be started: because of {code}"):
        Ecr(none, start=refused(code)).findings()


@pytest.mark.parametrize(("code", "reason"), [("UnsupportedImageTypeException", "such an image"), ("ImageArchivedException", "archived")])
def test_an_image_that_no_scan_can_be_started_of_has_no_answer(code: str, reason: str) -> None:
    with pytest.raises(NoAnswer, match=reason):
        Ecr(refused("ScanNotFoundException"), start=refused(code)).findings()


def test_an_old_basic_scan_is_made_again_and_the_new_one_waited_for() -> None:
    old, new = basic(BASIC_FINDING, completed=-3 * DAY), basic(completed=-1.0)
    ecr = Ecr(old, old, answer("IN_PROGRESS"), old, new)
    assert ecr.findings().entries == ()
    assert ecr.started == 1


def test_an_old_basic_scan_of_the_last_24_hours_is_the_newest_to_be_had() -> None:
    ecr = Ecr(basic(BASIC_FINDING, completed=-7200.0), start=refused("LimitExceededException"))
    scan = ecr.findings(max_age=3600.0)
    assert len(scan.entries) == 1
    assert (datetime.now(UTC) - scan.made).total_seconds() > 7000  # so that it is known to be stale
    assert ecr.started == 1


def test_an_old_scan_that_cannot_be_made_again_is_no_answer() -> None:
    old = basic(BASIC_FINDING, completed=-3 * DAY)
    with pytest.raises(NoAnswer, match=r"older than scan\.max-db-age, and no scan could be started: because of AccessDenied"):
        Ecr(old, start=refused("AccessDeniedException")).findings()
    with pytest.raises(NoAnswer, match=r"older than scan\.max-db-age"):
        Ecr(enhanced(enhanced_finding(), status="COMPLETE", completed=-3 * DAY)).findings()


def test_an_image_that_is_missing_right_after_its_push_is_waited_for_but_not_for_long() -> None:
    missing = refused("ImageNotFoundException")
    assert Ecr(missing, missing, basic()).findings().kind == BASIC
    ecr = Ecr(missing)
    with pytest.raises(NoAnswer, match="no such image"):
        ecr.findings()
    assert 100 < ecr.now < 200


def test_a_missing_repository_is_no_matter_of_waiting() -> None:
    ecr = Ecr(refused("RepositoryNotFoundException"))
    with pytest.raises(NoAnswer) as caught:
        ecr.findings()
    assert "registry ensure" in caught.value.next_step
    assert ecr.now == 0.0


def test_who_may_not_ask_is_told_at_once() -> None:
    with pytest.raises(Refused, match="AccessDeniedException"):
        Ecr(refused("AccessDeniedException")).findings()


def test_errors_that_pass_are_borne_and_those_that_stay_are_told() -> None:
    broken = RemoteError("AWS ecr: no answer", next_step="Run it again.")
    assert Ecr(broken, broken, answer("IN_PROGRESS"), broken, broken, basic()).findings().kind == BASIC
    ecr = Ecr(broken)
    with pytest.raises(RemoteError, match="no answer"):
        ecr.findings()
    assert ecr.asked == 3


def test_credentials_that_ran_out_for_good_are_told_at_once() -> None:
    ecr = Ecr(answer("IN_PROGRESS"), CredentialsExpired("the credentials ran out", next_step="Renew them."))
    with pytest.raises(CredentialsExpired):
        ecr.findings()
    assert ecr.asked == 2


@pytest.mark.parametrize("hanging", [answer("IN_PROGRESS", said="soon"), answer("ACTIVE"), answer("PENDING"), enhanced(counted=1)])
def test_a_scan_that_hangs_is_ended_at_the_deadline_and_its_progress_told_every_half_minute(hanging: Answer) -> None:
    ecr = Ecr(hanging)
    with pytest.raises(NoAnswer, match=r"no findings within 300 s \(scan\.ecr-timeout\)") as caught:
        ecr.findings(timeout=300.0)
    assert ecr.now == pytest.approx(300.0)
    assert 7 <= len(ecr.told) <= 10
    status = hanging["imageScanStatus"]["status"]
    assert all(status in line and "at most 300 s" in line for line in ecr.told)
    assert status in caught.value.message


def test_what_the_pause_raises_ends_the_wait() -> None:
    ecr = Ecr(answer("IN_PROGRESS"))

    def interrupted(_seconds: float) -> None:
        raise Interrupted("interrupted")

    scans = EcrScans(ecr, account=ACCOUNT)
    with pytest.raises(Interrupted):
        scans.await_findings(
            Wanted(repository=REPOSITORY, digest=DIGEST, max_age=DAY, timeout=900.0), on_progress=ecr.told.append, pause=interrupted
        )


def test_which_kind_is_expected_is_asked_once_and_need_not_be_known() -> None:
    asked: list[str] = []

    def counting(config: Said) -> EcrScans:
        ecr = Ecr(basic(), config=config)
        call: Callable[..., dict[str, Any]] = ecr.call

        def counted(service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
            asked.append(operation)
            return call(service, operation, **parameters)

        ecr.call = counted  # type: ignore[method-assign]
        return EcrScans(ecr, account=ACCOUNT)

    for config, kind in ((configuration("BASIC"), BASIC), (configuration("ENHANCED"), ENHANCED), (refused("AccessDeniedException"), None)):
        scans = counting(config)
        asked.clear()
        assert [scans.expected(), scans.expected()] == [kind, kind]
        assert len(asked) == 1
    with pytest.raises(UsageError, match="no credentials"):
        counting(UsageError("no credentials")).expected()
