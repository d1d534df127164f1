"""Writes all views of one set of results into the work folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.reports import html, junit, markdown, sarif
from trainshed.results import Case, Report, Result


def write_reports(
    work_dir: Path, reports: Sequence[Report], *, components: str = "components", mask: Callable[[str], str] = lambda text: text
) -> list[Path]:
    """Write ``junit.xml``, ``findings.sarif``, ``summary.md`` and ``report.html`` under ``work_dir/reports``; return their paths.

    ``components`` is the folder of the components, relative to the repository. ``mask`` removes secrets; it is put to every text
    of the results before any view escapes it.
    """
    safe = [masked(report, mask) for report in reports]
    views = {
        "junit.xml": junit.write(safe),
        "findings.sarif": sarif.write(safe, components=components),
        "summary.md": markdown.summary(safe).encode(errors="replace"),
        "report.html": html.render(safe).encode(errors="replace"),
    }
    folder = work_dir / "reports"
    for name, content in views.items():
        files.write_bytes(folder / name, content)
    return [folder / name for name in views]


def masked(report: Report, mask: Callable[[str], str]) -> Report:
    """Return a report whose texts hold no secret."""
    results = tuple(_masked_result(result, mask) for result in report.results)
    return dataclasses.replace(report, results=results, extra=_masked(report.extra, mask))


def _masked_result(result: Result, mask: Callable[[str], str]) -> Result:
    return dataclasses.replace(
        result,
        cause=mask(result.cause),
        message=mask(result.message),
        details=_masked(result.details, mask),
        cases=tuple(_masked_case(case, mask) for case in result.cases),
    )


def _masked_case(case: Case, mask: Callable[[str], str]) -> Case:
    return dataclasses.replace(case, name=mask(case.name), suite=mask(case.suite), failure=mask(case.failure), skipped=mask(case.skipped))


def _masked(value: Any, mask: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON document
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: _masked(item, mask) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item, mask) for item in value]
    return value
