"""What Markdown and HTML both show of a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trainshed.findings.model import NO_FIX, told_sources
from trainshed.results import Report, Result, Status
from trainshed.values import SEVERITIES

COLUMNS = ("stage", "name", "status", "why", "time", "what")
_NO_FIX = f"with {NO_FIX}"
_SHOWN = ("reference", "digest", "version", "run_id", "revision", "url", "metrics")


def row(result: Result) -> tuple[str, ...]:
    """Return one result as the texts of `COLUMNS`."""
    why = result.message if result.status is Status.ABORTED else result.cause
    took = f"{result.seconds:.1f} s" if result.seconds else ""
    return (result.stage, result.name, str(result.status), why, took, _what(result))


def findings(results: Iterable[Result]) -> list[tuple[Result, Mapping[str, Any]]]:
    """Return all findings, each with the result that has it, from ``details["findings"]``.

    A finding is a document with the fields of `findings.model.Finding`; ``waiver`` is the reason of the one that covers it, and
    ``tolerated`` why it stands though it is severe, if any.
    """
    return [(result, finding) for result in results for finding in result.details.get("findings", ())]


def tally(found: Iterable[Mapping[str, Any]]) -> str:
    """Count findings by severity, the worst first, with those that may stand apart: ``1 low, 2 with no fix yet, 3 waived``."""
    counts = Counter(_group(finding) for finding in found)
    order = (*reversed(SEVERITIES), "unknown", _NO_FIX, "waived")
    return ", ".join(f"{counts[name]} {name}" for name in order if counts[name])


def seen_by(finding: Mapping[str, Any]) -> str:
    """Say who saw a finding; empty for Trivy alone, also in a verdict from before there were others."""
    return told_sources(finding.get("sources", ("trivy",)))


def tally_of_sources(found: Iterable[Mapping[str, Any]]) -> str:
    """Count findings by who saw them; empty where all are Trivy's alone."""
    counts = Counter(seen_by(finding) for finding in found)
    if not any(counts.keys()):
        return ""
    names = {name: name if " and " in name else f"{name or 'trivy'} alone" for name in sorted(counts)}
    return ", ".join(f"{counts[name]} by {told}" for name, told in names.items())


def _group(finding: Mapping[str, Any]) -> str:
    if finding.get("waiver"):
        return "waived"
    return f"with {finding['tolerated']}" if finding.get("tolerated") else str(finding.get("severity", "unknown"))


def failures(reports: Iterable[Report]) -> list[Result]:
    """Return the results that failed."""
    return [result for report in reports for result in report.results if result.status is Status.FAILED]


def _what(result: Result) -> str:
    told = next((result.details[name] for name in _SHOWN if result.details.get(name)), "")
    if isinstance(told, Mapping):
        return ", ".join(f"{key} {value}" for key, value in told.items())
    parts = [str(told)] if told else []
    if result.cases:
        failed = sum(bool(case.failure) for case in result.cases)
        parts.append(f"{len(result.cases)} tests" + (f", {failed} failed" if failed else ""))
    if result.details.get("findings"):
        parts.append(tally(result.details["findings"]))
    return "; ".join(parts)
