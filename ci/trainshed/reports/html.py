"""One HTML file that can be archived and opened anywhere: no script, nothing loaded, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from trainshed.reports import rows
from trainshed.results import Report, Result
from trainshed.values import SEVERITIES

# The policy holds even if an escape were forgotten. Jenkins' own policy drops the style too: the page is plain tables without it.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24; }}
table {{ border-collapse: collapse; width: 100%; margin: 0 0 1.5rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #d6dade; overflow-wrap: anywhere; }}
pre {{ background: #f4f5f7; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }}
.done, .cached, .green {{ color: #11663a; }} .failed, .red, .critical, .high {{ color: #a61b1b; }}
.aborted, .interrupted, .medium {{ color: #8a5300; }} .skipped, .low, .waived {{ color: #59636e; }}
</style>
</head>
<body>
"""


def render(reports: Sequence[Report], *, title: str = "Trainshed report") -> str:
    """Return the page: each stage's results, what failed with its tests, and all findings."""
    parts = [_HEAD.format(title=_text(title)), f"<h1>{_text(title)}</h1>\n"]
    for report in reports:
        parts.append(f'<h2>{_text(report.stage)}: <span class="{_text(report.status)}">{_text(report.status)}</span></h2>\n')
        if report.results:
            parts.append(_table(rows.COLUMNS, ((str(result.status), rows.row(result)) for result in report.results)))
    parts += [_failure(result) for result in rows.failures(reports)]
    parts.append(_findings([result for report in reports for result in report.results]))
    return "".join([*parts, "</body>\n</html>\n"])


def _failure(result: Result) -> str:
    """Return one failure: its message, its failing tests, its log."""
    parts = [f"<h2>{_text(result.stage)} {_text(result.name)} failed</h2>\n<pre>{_text(result.message or 'no message')}</pre>\n"]
    for case in result.cases:
        if case.failure:
            name = _text(f"{case.suite} {case.name}".strip())
            parts.append(f"<details><summary>{name}</summary><pre>{_text(case.failure)}</pre></details>\n")
    if result.log:
        parts.append(f"<p>Log: <code>{_text(result.log)}</code></p>\n")
    return "".join(parts)


def _findings(results: Sequence[Result]) -> str:
    found = rows.findings(results)
    if not found:
        return ""
    rank = {name: number for number, name in enumerate(reversed(SEVERITIES))}
    found.sort(key=lambda pair: (bool(pair[1].get("waiver")), rank.get(str(pair[1].get("severity")), len(rank))))
    seen = ("seen by",) if rows.tally_of_sources(finding for _, finding in found) else ()
    columns = ("severity", "id", "component", "package", "installed", "fixed", "title", "waiver", *seen)
    lines = []
    for result, finding in found:
        shown = {**finding, "component": result.name, "seen by": rows.seen_by(finding) or "trivy"}
        kind = "waived" if finding.get("waiver") else str(finding.get("severity", ""))
        lines.append((kind, [str(shown.get(column, "")) for column in columns]))
    return f"<h2>Findings: {_text(rows.tally(finding for _, finding in found))}</h2>\n{_table(columns, lines)}"


def _table(columns: Sequence[str], lines: Iterable[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f'<tr class="{_text(kind)}">{"".join(f"<td>{_text(cell)}</td>" for cell in line)}</tr>\n' for kind, line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _text(text: str) -> str:
    return html.escape(text)
