"""Scan one image and judge what was found."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import RemoteError
from trainshed.findings.model import NO_FIX, Finding, from_trivy
from trainshed.findings.policy import Judgement, judge
from trainshed.findings.waivers import Waiver
from trainshed.images.components import Component
from trainshed.stages.context import Context
from trainshed.tools.trivy import Trivy

SBOM = "sbom"
"""The kind under which the ledger keeps a CycloneDX SBOM."""

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """The outcome of a scan.

    ``findings`` are documents with the fields of `Finding`; a waived one has the reason as ``waiver``, one that would fail
    but for `scan.unfixed` has ``tolerated``. ``notes`` must be shown with
    the outcome; ``database`` is the moment (ISO) at which the makers of the vulnerability database updated it, None without one;
    ``used`` are the waivers that matched.
    """

    green: bool
    message: str
    findings: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    sbom: bytes
    database: str | None
    used: frozenset[Waiver]


def scan_image(  # noqa: PLR0913 - what a scan needs
    context: Context, component: Component, reference: str, *, trivy: Trivy, waivers: Sequence[Waiver], log: Path
) -> Scanned:
    """Scan an image of the registry by the policy of the environment.

    Raises:
        RemoteError: there is no fresh vulnerability database and the policy does not allow that; or the scan could not be made.
        WorkFailed: Trivy failed.
    """
    policy = context.config.scan
    wanted = "vulnerability" in policy.scanners
    database = trivy.available() if wanted else None
    notes = []
    if wanted and database is None:
        problem = trivy.database.problem
        if policy.without_db == "fail":
            step = "Name a mirror in scan.trivy-db, or allow it with scan.without-db."
            raise RemoteError(f"{component.name}: no verdict without a vulnerability database: {problem}", next_step=step)
        notes.append(f"vulnerabilities were NOT looked for: {problem}")
    document = trivy.scan(reference, scanners=policy.scanners, log=log)
    found = from_trivy(document)
    today = dt.datetime.now(dt.UTC).date()
    judgement = judge(found, fail_on=policy.fail_on, unfixed=policy.unfixed, waivers=waivers, today=today, component=component.name)
    notes += [f"the waiver for {finding.id} ran out" for finding in judgement.expired]
    _write(log, judgement, notes)
    return Scanned(
        green=judgement.green,
        message=_message(judgement, policy.fail_on),
        findings=tuple(_documents(judgement, found)),
        notes=tuple(dict.fromkeys(notes)),
        sbom=trivy.sbom(document),
        database=database.updated.isoformat() if database is not None else None,
        used=judgement.used,
    )


def _message(judgement: Judgement, fail_on: str) -> str:
    if judgement.green:
        return ""
    count = len(judgement.failing)
    shown = "; ".join(str(finding) for finding in judgement.failing[:_SHOWN])
    more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    return f"{count} finding{'s' if count > 1 else ''} of severity {fail_on} or worse: {shown}{more}"


def _documents(judgement: Judgement, found: Iterable[Finding]) -> Iterable[dict[str, Any]]:
    waived, unfixed = set(judgement.waived), set(judgement.unfixed)
    for finding in found:
        document = finding.document()
        if finding in waived:
            document["waiver"] = next(waiver.reason for waiver in judgement.used if _covers(waiver, finding))
        if finding in unfixed:
            document["tolerated"] = NO_FIX
        yield document


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return waiver.id == finding.id and waiver.package in {"", finding.package}


def _write(log: Path, judgement: Judgement, notes: Iterable[str]) -> None:
    """Put the outcome below what Trivy said: the log's tail is what people are shown."""
    groups = (("waived", judgement.waived), ("tolerated", (*judgement.tolerated, *judgement.unfixed)), ("FAILING", judgement.failing))
    lines = [f"{name}: {finding}" for name, findings in groups for finding in findings]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in (*lines, *notes))
