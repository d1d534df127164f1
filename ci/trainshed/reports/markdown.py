"""A summary in Markdown, for a pull request or a build's page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainshed.reports import rows
from trainshed.results import Report

_MAX_MESSAGE = 2_000


def summary(reports: Sequence[Report]) -> str:
    """Return the outcome of each stage as a table, then what failed and why, then the count of findings."""
    parts = []
    for report in reports:
        parts.append(f"## {report.stage}: {report.status}\n")
        if report.results:
            parts.append(table(rows.COLUMNS, [rows.row(result) for result in report.results]))
    for result in rows.failures(reports):
        parts.append(f"### {plain(f'{result.stage} {result.name}')} failed\n")
        parts.append(_block(result.message[:_MAX_MESSAGE] or "no message"))
        cases = [f"- {plain(f'{case.suite} {case.name}'.strip())}" for case in result.cases if case.failure]
        parts += ["\n".join(cases) + "\n"] if cases else []
        parts += [f"Log: {plain(result.log)}\n"] if result.log else []
    found = rows.findings(result for report in reports for result in report.results)
    if found:
        parts.append(f"Findings: {rows.tally(finding for _, finding in found)}.\n")
        seen = rows.tally_of_sources(finding for _, finding in found)
        parts += [f"Seen: {plain(seen)}.\n"] if seen else []
    return "\n".join(parts)


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table; the texts are made plain."""
    head = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(map(plain, line))} |" for line in lines)]) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: no table cell, list, link, emphasis or HTML may come of it."""
    line = "".join(each for each in " ".join(text.split()) if each.isprintable())  # no order to a terminal either
    escaped = re.sub(r"([\\`*_\[\]<>|#~!&])", r"\\\1", line)
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]+(?:\s|$)))", r"\1\\", escaped)


def _block(text: str) -> str:
    """Return text as a code block whose fence is longer than any that the text holds."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}\n"
