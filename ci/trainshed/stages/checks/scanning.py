"""Ask the sources for one image's findings, and judge what they found."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import Interrupted, RemoteError, TrainshedError, WorkFailed
from trainshed.findings.ecr import from_ecr
from trainshed.findings.merging import merged
from trainshed.findings.model import NO_FIX, Finding, from_trivy
from trainshed.findings.policy import Judgement, covers, judge
from trainshed.findings.waivers import Waiver
from trainshed.images import references
from trainshed.images.components import Component
from trainshed.stages.checks import sources
from trainshed.stages.context import Context
from trainshed.tools import process
from trainshed.tools.ecr_scans import EcrScans, NoAnswer, Wanted
from trainshed.tools.trivy import Trivy

SBOM = "sbom"
"""The kind under which the ledger keeps a CycloneDX SBOM."""

_SHOWN = 3
_NAMES = {sources.TRIVY: "Trivy", sources.ECR: "ECR"}
_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one source said: its findings, or the ``error`` for which it has none.

    ``made`` is the moment (ISO) of its data, None without any; ``notes`` must be shown with the outcome.
    """

    source: str
    findings: Sequence[Finding] = ()
    made: str | None = None
    notes: Sequence[str] = ()
    sbom: bytes = b""
    error: TrainshedError | None = None


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """The outcome of a scan.

    ``findings`` are documents with the fields of `Finding`; a waived one has the reason as ``waiver``, one that would fail
    but for `scan.unfixed` has ``tolerated``. ``notes`` must be shown with the outcome; ``database`` is the moment (ISO) of the
    oldest data that a source used, None without any; ``used`` are the waivers that matched.
    """

    green: bool
    message: str
    findings: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    sbom: bytes
    database: str | None
    used: frozenset[Waiver]


def ask_trivy(context: Context, component: Component, reference: str, *, trivy: Trivy, log: Path) -> Answer:
    """Have an image of the registry scanned by Trivy."""
    try:
        return _by_trivy(context, component, reference, trivy=trivy, log=log)
    except (RemoteError, WorkFailed) as error:
        return Answer(source=sources.TRIVY, error=error)


def _by_trivy(context: Context, component: Component, reference: str, *, trivy: Trivy, log: Path) -> Answer:
    policy, notes = context.config.scan, []
    wanted = "vulnerability" in policy.scanners
    database = trivy.available() if wanted else None
    if wanted and database is None:
        problem = trivy.database.problem
        if policy.without_db == "fail":
            step = "Name a mirror in scan.trivy-db, or allow it with scan.without-db."
            raise RemoteError(f"{component.name}: no verdict without a vulnerability database: {problem}", next_step=step)
        whose = "" if sources.asked(context.config) == (sources.TRIVY,) else " by Trivy"
        notes.append(f"vulnerabilities were NOT looked for{whose}: {problem}")
    document = trivy.scan(reference, scanners=policy.scanners, log=log)
    return Answer(
        source=sources.TRIVY,
        findings=from_trivy(document),
        made=database.updated.isoformat() if database is not None else None,
        notes=notes,
        sbom=trivy.sbom(document),
    )


@contextmanager
def asking_ecr(context: Context, component: Component, reference: str, *, scans: EcrScans) -> Iterator[Callable[[], Answer]]:
    """Ask ECR for its findings beside what the block does; what is yielded waits for the answer. At the end of the block nobody waits."""
    answered: Future[Answer] = Future()
    left = threading.Event()

    def ask() -> None:
        try:
            answered.set_result(_by_ecr(context, component, reference, scans=scans, left=left))
        except BaseException as error:  # noqa: BLE001 - raised again where the answer is waited for
            answered.set_exception(error)

    threading.Thread(target=ask, name=f"{component.name}/ecr", daemon=True).start()
    try:
        yield lambda: process.interruptible(answered.result)
    finally:
        left.set()


def _by_ecr(context: Context, component: Component, reference: str, *, scans: EcrScans, left: threading.Event) -> Answer:
    def pause(seconds: float) -> None:
        until = scans.clock() + seconds
        while (rest := until - scans.clock()) > 0:
            process.pause(min(rest, _POLL_SECONDS))
            if left.is_set():
                raise Interrupted("nobody waits for ECR any more")

    def tell(text: str) -> None:
        context.console.line(f"{component.name}: {text}")

    policy = context.config.scan
    try:
        repository, digest = references.parse(reference).path, _scanned_digest(context, reference)
        wanted = Wanted(repository=repository, digest=digest, max_age=policy.max_db_age, timeout=policy.ecr_timeout)
        scan = scans.await_findings(wanted, on_progress=tell, pause=pause)
        return Answer(source=sources.ECR, findings=from_ecr(scan.kind, scan.entries), made=scan.made.isoformat())
    except Interrupted:
        raise
    except TrainshedError as error:
        return Answer(source=sources.ECR, error=error)


def _scanned_digest(context: Context, reference: str) -> str:
    """Return the digest of what ECR scans: of an index that of our platform's image in it."""
    document = json.loads(context.registry.manifest(reference)[0])
    if "manifests" not in document:
        return references.parse(reference).digest
    wanted = context.config.build.platforms[0]
    for entry in document["manifests"]:
        platform = entry.get("platform") or {}
        if "/".join(str(platform[part]) for part in ("os", "architecture", "variant") if platform.get(part)) == wanted:
            return str(entry["digest"])
    raise RemoteError(f"{reference}: holds no image for {wanted}", next_step="Check build.platforms.")


def judged(context: Context, component: Component, answers: Sequence[Answer], *, waivers: Sequence[Waiver], log: Path) -> Scanned:
    """Judge the answers of all sources that were asked, as one list, by the policy of the environment.

    Raises:
        RemoteError: a source that must have answered did not; Trivy's own error is raised as it is.
    """
    policy, notes = context.config.scan, _notes(context, component, answers)
    found = merged([answer.findings for answer in answers])
    today = dt.datetime.now(dt.UTC).date()
    judgement = judge(found, fail_on=policy.fail_on, unfixed=policy.unfixed, waivers=waivers, today=today, component=component.name)
    notes += [f"the waiver for {finding.id} ran out" for finding in judgement.expired]
    _write(log, judgement, notes)
    return Scanned(
        green=judgement.green,
        message=_message(judgement, policy.fail_on),
        findings=tuple(_documents(judgement, found, component)),
        notes=tuple(dict.fromkeys(notes)),
        sbom=b"".join(answer.sbom for answer in answers),
        database=min((answer.made for answer in answers if answer.made), key=dt.datetime.fromisoformat, default=None),
        used=judgement.used,
    )


def _notes(context: Context, component: Component, answers: Sequence[Answer]) -> list[str]:
    """Return what must be said of the answers; raise where there can be no verdict."""
    required = sources.required(context.config)
    notes = [note for answer in answers for note in answer.notes]
    for answer in answers:
        error = answer.error
        if error is None:
            continue
        if answer.source not in required:
            reason = error.reason if isinstance(error, NoAnswer) else error.message  # the same note for all images is told once
            notes.append(f"{_NAMES[answer.source]} did not answer: {reason}")
        elif answer.source == sources.TRIVY:
            raise error
        else:
            raise RemoteError(f"{component.name}: no verdict without ECR's findings: {error.message}", next_step=error.next_step) from error
    blind = [kind for kind in context.config.scan.scanners if kind != sources.VULNERABILITY]
    if blind and all(answer.source != sources.TRIVY for answer in answers):
        notes.append(f"not looked for, as scan.sources leaves Trivy out: {', '.join(blind)}")
    return notes


def _message(judgement: Judgement, fail_on: str) -> str:
    if judgement.green:
        return ""
    count = len(judgement.failing)
    shown = "; ".join(str(finding) for finding in judgement.failing[:_SHOWN])
    more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    return f"{count} finding{'s' if count > 1 else ''} of severity {fail_on} or worse: {shown}{more}"


def _documents(judgement: Judgement, found: Iterable[Finding], component: Component) -> Iterable[dict[str, Any]]:
    waived, unfixed = set(judgement.waived), set(judgement.unfixed)
    for finding in found:
        document = finding.document()
        if finding in waived:
            document["waiver"] = next(waiver.reason for waiver in judgement.used if covers(waiver, finding, component.name))
        if finding in unfixed:
            document["tolerated"] = NO_FIX
        yield document


def _write(log: Path, judgement: Judgement, notes: Iterable[str]) -> None:
    """Put the outcome below what Trivy said: the log's tail is what people are shown."""
    groups = (("waived", judgement.waived), ("tolerated", (*judgement.tolerated, *judgement.unfixed)), ("FAILING", judgement.failing))
    lines = [f"{name}: {finding}" for name, findings in groups for finding in findings]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in (*lines, *notes))
