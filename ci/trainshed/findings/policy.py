"""What findings mean: which fail, which are waived, and which waivers need a look."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainshed.findings.model import Finding
from trainshed.findings.waivers import Waiver


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict over one component's findings; ``expired`` are failing ones whose waiver ran out; ``used`` are the waivers that applied."""

    failing: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    tolerated: tuple[Finding, ...]
    expired: tuple[Finding, ...]
    used: frozenset[Waiver]

    @property
    def green(self) -> bool:
        """Tell whether nothing fails."""
        return not self.failing


def judge(findings: Iterable[Finding], *, fail_on: str, waivers: Sequence[Waiver], today: datetime.date, component: str) -> Judgement:
    """Judge one component's findings; ``fail_on`` is a severity or ``never``."""
    raise NotImplementedError


def warnings(waivers: Sequence[Waiver], *, used: Iterable[Waiver], today: datetime.date, complete: bool) -> list[str]:
    """Say which waivers are expired, expire within 14 days, or (when all components were judged) are used by nobody."""
    raise NotImplementedError
