"""What findings mean: which fail, which are waived, and which waivers need a look."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainshed.findings.model import Finding, rank
from trainshed.findings.waivers import Waiver

SOON = dt.timedelta(days=14)
NEVER = "never"
TOLERATE = "tolerate"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict over one component's findings.

    ``failing`` are at or above the threshold; ``expired`` are those of them whose waiver ran out; ``tolerated`` are below the threshold;
    ``unfixed`` are at or above it, but nobody has mended them yet and the policy lets that stand; ``used`` are the waivers that matched
    a finding, whatever its severity, expired or not.
    """

    failing: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    tolerated: tuple[Finding, ...]
    expired: tuple[Finding, ...]
    unfixed: tuple[Finding, ...]
    used: frozenset[Waiver]

    @property
    def green(self) -> bool:
        """Tell whether nothing fails."""
        return not self.failing


def judge(  # noqa: PLR0913 - the whole policy, by keyword
    findings: Iterable[Finding], *, fail_on: str, unfixed: str, waivers: Sequence[Waiver], today: dt.date, component: str
) -> Judgement:
    """Judge one component's findings; ``fail_on`` is of `values.SEVERITIES` or ``never``, ``unfixed`` is ``fail`` or ``tolerate``."""
    groups: dict[str, list[Finding]] = {name: [] for name in ("failing", "waived", "tolerated", "expired", "unfixed")}
    used: set[Waiver] = set()
    for finding in findings:
        matching = [waiver for waiver in waivers if covers(waiver, finding, component)]
        used.update(matching)
        if any(waiver.expires >= today for waiver in matching):
            groups["waived"].append(finding)
        elif fail_on == NEVER or rank(finding.severity) < rank(fail_on):
            groups["tolerated"].append(finding)
        elif unfixed == TOLERATE and finding.unfixed:
            groups["unfixed"].append(finding)
        else:
            groups["failing"].append(finding)
            groups["expired"] += [finding] * bool(matching)
    return Judgement(used=frozenset(used), **{name: tuple(found) for name, found in groups.items()})


def warnings(
    waivers: Sequence[Waiver],
    *,
    used: Iterable[Waiver],
    today: dt.date,
    complete: bool,
    components: Iterable[str] | None = None,
) -> list[str]:
    """Say which waivers need a look, a sentence each: expired, expiring within 14 days, unused, for a component that is not there.

    Args:
        waivers: all of them.
        used: those that matched, of all judgements.
        today: the day to measure from.
        complete: whether every component was judged; only then a waiver can be called unused.
        components: the names of all components, to find waivers for ones that are gone.
    """
    found, used, known = [], set(used), None if components is None else set(components)
    for waiver in waivers:
        if waiver.expires < today:
            found.append(f"waiver {waiver}: expired on {waiver.expires}")
        elif waiver.expires - today <= SOON:
            found.append(f"waiver {waiver}: expires on {waiver.expires}, in {(waiver.expires - today).days} days")
        gone = [name for name in waiver.components if known is not None and name not in known]
        if gone:
            found.append(f"waiver {waiver}: no such component: {', '.join(gone)}")
        elif complete and waiver not in used:
            found.append(f"waiver {waiver}: unused: no such finding any more")
    return found


def covers(waiver: Waiver, finding: Finding, component: str) -> bool:
    """Tell whether a waiver is for a finding, by any of the names that the advisory and the package go by."""
    return (
        waiver.id in {finding.id, *finding.aliases}
        and (not waiver.components or component in waiver.components)
        and (not waiver.package or waiver.package in {finding.package, finding.origin})
    )
