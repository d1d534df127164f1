"""ECR's scan of an image, awaited to the end that its kind has.

A basic scan ends (COMPLETE). An enhanced one is Amazon Inspector's and stays ACTIVE, so that the SDK's waiter hangs
(aws/aws-sdk#288), and may say that it is complete before it has findings (aws/aws-sdk#289). So the kind is told by the shape of the
answer, an answer is believed when it says when the scan was completed and stays the same for a while, and our own deadline ends it all.
Of an image without findings an enhanced answer does not say it: then Inspector is asked whether the image was scanned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn

from trainshed.errors import RemoteError
from trainshed.findings.ecr import BASIC, ENHANCED
from trainshed.tools import inspector, process
from trainshed.tools.aws import Aws, Refused

WAIT, ANSWER = "wait", "answer"
_LATER = "Run it again later."
_WITHOUT = "Leave ecr out of scan.must-answer where such images are meant to pass."


class _Meaning(NamedTuple):
    """What a status means: `WAIT`, `ANSWER`, or the reason why there is no answer, with the next step."""

    what: str
    next_step: str = ""


STATUSES: Mapping[str, _Meaning] = {
    "PENDING": _Meaning(WAIT),
    "IN_PROGRESS": _Meaning(WAIT),
    "COMPLETE": _Meaning(ANSWER),
    "ACTIVE": _Meaning(ANSWER),
    "FAILED": _Meaning("its scan failed", f"See the image's page in ECR. {_WITHOUT}"),
    "UNSUPPORTED_IMAGE": _Meaning("it cannot scan such an image", _WITHOUT),
    "IMAGE_SIZE_EXCEEDED": _Meaning("the image is too large for its scans", f"Make it smaller. {_WITHOUT}"),
    "SCAN_ELIGIBILITY_EXPIRED": _Meaning(
        "the image is older than its scans go on for", f"Lengthen the re-scan duration of Amazon Inspector. {_WITHOUT}"
    ),
    "FINDINGS_UNAVAILABLE": _Meaning("it keeps no findings of the image", f"{_LATER} {_WITHOUT}"),
    "LIMIT_EXCEEDED": _Meaning("the account's quota of scans is used up", f"{_LATER} Or ask AWS for a larger quota."),
    "IMAGE_ARCHIVED": _Meaning("the image is archived", "Restore it in ECR."),
}
"""Each status of the API, with its one meaning."""


class NoAnswer(RemoteError):
    """ECR has no findings of an image to give: the scan failed, cannot be made, or did not end in time; ``reason`` leaves the image out."""

    def __init__(self, image: str, reason: str, *, next_step: str) -> None:
        super().__init__(f"ECR: {image}: {reason}", next_step=next_step)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How patiently a scan is awaited; in seconds.

    ``look`` is the pause between two looks, at first ``look / 10``. An answer must stay the same for ``settle``; for ``unsure`` when it
    does not say when the scan was completed. ``missing`` is how long an image may be missing after its push. ``tell`` is how often the
    wait is told. ``passing`` is how many errors of the network in a row are borne.
    """

    look: float = 10.0
    settle: float = 5.0
    unsure: float = 60.0
    missing: float = 120.0
    tell: float = 30.0
    passing: int = 3


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan's findings as ECR gave them, of all pages.

    ``kind`` is `BASIC` or `ENHANCED`; ``made`` the moment as of which they are true: of a scan that goes on, when it was asked.
    """

    kind: str
    entries: tuple[Mapping[str, Any], ...]
    made: datetime


@dataclass(frozen=True)
class Wanted:
    """Whose scan: an image by its digest. ``max_age`` in seconds: a basic scan that is older is made again, where ECR does that."""

    repository: str
    digest: str
    max_age: float
    timeout: float


class EcrScans:
    """The scans of one registry; thread-safe.

    Args:
        aws: the region, and as whom it is asked.
        account: whose registry it is.
        pace: how patiently.
        clock: seconds that only grow, as those of `pause`.
    """

    def __init__(self, aws: Aws, *, account: str, pace: Pace | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.aws, self.account, self.pace, self.clock = aws, account, pace or Pace(), clock
        self._expected: list[str | None] = []

    def await_findings(self, wanted: Wanted, *, on_progress: Callable[[str], None], pause: Callable[[float], None] = process.pause) -> Scan:
        """Return the findings; a basic scan that was never made, or is old, is started, once.

        Args:
            wanted: the image, and how long it is waited for.
            on_progress: told every half minute what is waited for.
            pause: sleeps; what it raises ends the wait.

        Raises:
            NoAnswer: there are none to be had; the message says why.
            Refused: the caller may not ask.
            RemoteError: ECR or the network failed several times in a row, or the credentials ran out for good.
            Interrupted: SIGTERM arrived.
        """
        return _Waiting(self, wanted, on_progress, pause).answer()

    def expected(self) -> str | None:
        """Return which kind of scan the registry makes by its configuration, asked once; None where we may not know."""
        if not self._expected:
            try:
                told = self.aws.call("ecr", "get_registry_scanning_configuration")
            except Refused:
                told = {}
            except RemoteError:  # nothing hangs on it; perhaps the next one is told
                return None
            # Only our own account can be asked: of another's registry this would be the wrong answer.
            own = told.get("registryId", self.account) == self.account
            configured = (told.get("scanningConfiguration") or {}).get("scanType") if own else None
            self._expected.append({"BASIC": BASIC, "ENHANCED": ENHANCED}.get(configured or ""))
        return self._expected[0]


@dataclass
class _Look:
    """What one look saw: ``kind`` None where the shape does not tell it."""

    status: str
    said: str = ""
    kind: str | None = None
    entries: list[Mapping[str, Any]] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    completed: datetime | None = None

    @property
    def whole(self) -> bool:
        """Tell whether there are as many findings as are counted."""
        return sum(self.counts.values()) <= len(self.entries)


class _Waiting:
    """One wait for one image's findings."""

    def __init__(self, scans: EcrScans, wanted: Wanted, on_progress: Callable[[str], None], pause: Callable[[float], None]) -> None:
        self.scans, self.wanted, self.on_progress, self.pause = scans, wanted, on_progress, pause
        self.pace, self.began = scans.pace, scans.clock()
        self.told = self.began
        self.state = "not asked yet"
        self.started = False  # asked for a scan of our own
        self.outdated: datetime | None = None  # when the scan was completed that a new one was started for
        self.failures = 0
        self.steady: tuple[_Look, float] | None = None
        self.silent: float | None = None  # since when it says neither findings nor when the scan was completed
        self.unasked = ""

    def answer(self) -> Scan:
        """Look until there is an answer, or cannot be one."""
        looks = 0
        while True:
            found = self._look()
            answer = self._judged(found) if found is not None else None
            if answer is not None:
                return answer
            if self._spent >= self.wanted.timeout:
                self._give_up(f"no findings within {self.wanted.timeout:g} s (scan.ecr-timeout): {self.state}", _LATER)
            self._tell()
            looks += 1
            # Short pauses at first: scan on push is often done when we come. Never beyond the deadline.
            pace = min(self.pace.look, self.pace.look / 10 * looks)
            self.pause(max(min(pace, self.wanted.timeout - self._spent), 0.0))

    @property
    def _spent(self) -> float:
        return self.scans.clock() - self.began

    def _tell(self) -> None:
        if self.scans.clock() - self.told >= self.pace.tell:
            self.told = self.scans.clock()
            self.on_progress(f"waiting for ECR's findings for {self._spent:.0f} s, at most {self.wanted.timeout:g} s: {self.state}")

    def _give_up(self, reason: str, next_step: str) -> NoReturn:
        raise NoAnswer(f"{self.wanted.repository}@{self.wanted.digest[:19]}", reason, next_step=next_step)

    # --- asking -----------------------------------------------------------------------------------------------------------------

    def _look(self) -> _Look | None:
        """Ask once, all pages; None when there is nothing to judge yet."""
        try:
            found = self._asked()
        except Refused as error:
            self._refused(error)
            return None
        except RemoteError as error:
            self._passing(error)
            return None
        self.failures = 0
        return found

    def _asked(self) -> _Look:
        looked: _Look | None = None
        lists: dict[str, list[Mapping[str, Any]]] = {}
        size = {"PageSize": 1000}
        for page in self.scans.aws.pages("ecr", "describe_image_scan_findings", **self._image, PaginationConfig=size):
            if looked is None:
                looked = _first(page)
            for kind in (BASIC, ENHANCED):
                listed = (page.get("imageScanFindings") or {}).get(kind)
                if listed is not None:
                    lists.setdefault(kind, []).extend(listed)
        if looked is None:
            raise RemoteError("ECR's answer about a scan has no page", next_step=_LATER)
        told = [kind for kind, entries in lists.items() if entries] or list(lists)
        looked.kind = told[0] if len(told) == 1 else None
        looked.entries = [entry for kind in told for entry in lists[kind]]
        return looked

    @property
    def _image(self) -> dict[str, Any]:
        name, digest = self.wanted.repository, self.wanted.digest
        return {"registryId": self.scans.account, "repositoryName": name, "imageId": {"imageDigest": digest}}

    def _passing(self, error: RemoteError) -> None:
        """Bear an error that may pass; `Aws` has repeated the question several times already."""
        self.failures += 1
        self.state = error.message
        if error.permanent or self.failures >= self.pace.passing:
            raise error

    def _refused(self, error: Refused) -> None:
        """Wait where the refusal ends by itself: the image comes, a scan begins."""
        self.failures, self.steady, self.silent = 0, None, None
        if error.code == "ImageNotFoundException":  # a moment after its push ECR may not know it everywhere
            if self._spent >= self.pace.missing:
                self._give_up("it has no such image", "Push it first, and check scan.sources.")
            self.state = "it does not know the image yet"
        elif error.code == "ScanNotFoundException":
            self.state = self.state if self.started else "it has not begun to scan the image"
            if self.scans.expected() != ENHANCED:
                self._start()
        elif error.code == "RepositoryNotFoundException":
            self._give_up("it has no such repository", "Make it with `trainshed registry ensure`.")
        else:
            raise error

    def _start(self) -> None:
        """Start a basic scan, once; why ECR does not is kept for who waits in vain."""
        if self.started:
            return
        self.started = True
        age = f"its scan of {self.outdated:%Y-%m-%d %H:%M} UTC is older than scan.max-db-age, and " if self.outdated else ""
        try:
            self.scans.aws.call("ecr", "start_image_scan", **self._image)
            self.state = "a scan was started"
        except Refused as error:
            if error.code == "UnsupportedImageTypeException":
                self._give_up(*STATUSES["UNSUPPORTED_IMAGE"])
            if error.code == "ImageArchivedException":
                self._give_up(*STATUSES["IMAGE_ARCHIVED"])
            if error.code == "LimitExceededException":  # one scan in 24 hours: what is there is the newest to be had
                self.outdated, self.state = None, "the scan of the last 24 hours has no findings yet"
                return
            self.state = f"{age}no scan could be started: {error.said}"
            if age:
                self._give_up(self.state, "Let the role start scans (ecr:StartImageScan), or have ECR scan by itself.")
        except RemoteError as error:  # it may have been taken: the next look shows it
            self.state = error.message

    # --- judging ----------------------------------------------------------------------------------------------------------------

    def _judged(self, look: _Look) -> Scan | None:
        meaning = STATUSES.get(look.status)
        said = f" ({look.said})" if look.said else ""
        if meaning is None:
            self._give_up(f"a scan's status that is not known: {look.status}{said}", "Update Trainshed.")
        if meaning.what not in {WAIT, ANSWER}:
            self._give_up(f"{meaning.what}: {look.status}{said}", meaning.next_step)
        if meaning.what == WAIT:
            self.state, self.steady, self.silent = f"{look.status}{said}", None, None
            return None
        return self._settled(self._dated(look))

    def _dated(self, look: _Look) -> _Look:
        """Have Inspector say of an image that stays without findings when it was scanned."""
        if look.completed is not None or look.entries or not look.whole:
            self.silent = None
            return look
        now = self.scans.clock()
        self.silent = now if self.silent is None else self.silent
        if now - self.silent < self.pace.unsure or self.scans.expected() == BASIC:
            return look
        scanned = self._inspected()
        return look if scanned is None else replace(look, kind=ENHANCED, completed=scanned)

    def _inspected(self) -> datetime | None:
        try:
            name, digest = self.wanted.repository, self.wanted.digest
            return inspector.scanned_at(self.scans.aws, account=self.scans.account, repository=name, digest=digest)
        except Refused as error:
            self.unasked = f"; nor may Amazon Inspector be asked (inspector2:ListCoverage): {error.said}"
        except RemoteError as error:
            self.unasked = f"; nor could Amazon Inspector be asked: {error.message}"
        return None

    def _settled(self, look: _Look) -> Scan | None:
        """Return the answer once it holds: whole, told when it was made, of a known kind, and the same for a while."""
        if self._outdated(look):
            self.steady = None
            return None
        if not look.whole:
            counted = sum(look.counts.values())
            self.state, self.steady = f"{look.status}, but of {counted} findings it gives {len(look.entries)}", None
            return None
        now = self.scans.clock()
        if self.steady is None or self.steady[0] != look:
            self.steady = (look, now)
        kind = look.kind or self._kind_of_nothing(look)
        self.state = f"{look.status}, but its findings may still change"
        if look.completed is None:
            needed = self.pace.unsure
            self.state = f"{look.status}, but it does not say when the scan was completed{self.unasked}"
        else:
            needed = 0.0 if kind == BASIC and look.entries else self.pace.settle  # nothing is written alike by both kinds
        never = look.completed is None and not look.entries  # may be no more than findings that are late
        if kind is None or never or now - self.steady[1] < needed:
            return None
        made = datetime.now(UTC) if look.status == "ACTIVE" else look.completed or datetime.now(UTC)
        return Scan(kind=kind, entries=tuple(look.entries), made=made)

    def _kind_of_nothing(self, look: _Look) -> str | None:
        """Tell the kind of an answer without any list: a clean image, if the scan is said to have been completed."""
        if look.completed is None or look.entries:
            return None
        return ENHANCED if look.status == "ACTIVE" else self.scans.expected() or ENHANCED  # of which the answer must settle

    def _outdated(self, look: _Look) -> bool:
        """Have an old basic scan made again; an enhanced one is made again by ECR alone."""
        if look.completed is None or look.status == "ACTIVE":
            return False
        if self.outdated is not None:
            return look.completed <= self.outdated
        if self.started or (datetime.now(UTC) - look.completed).total_seconds() <= self.wanted.max_age:
            return False
        self.outdated = look.completed
        if (look.kind or self.scans.expected()) == ENHANCED:
            reason = f"its scan of {look.completed:%Y-%m-%d %H:%M} UTC is older than scan.max-db-age"
            self._give_up(reason, "Have Amazon Inspector scan the repository continuously.")
        self._start()
        return self.outdated is not None


def _first(page: Mapping[str, Any]) -> _Look:
    """Read what is the same on all pages."""
    told, found = page.get("imageScanStatus") or {}, page.get("imageScanFindings") or {}
    return _Look(
        status=str(told.get("status") or "no status"),
        said=str(told.get("description") or ""),
        counts=found.get("findingSeverityCounts") or {},
        completed=found.get("imageScanCompletedAt"),
    )
