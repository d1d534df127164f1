"""What each command found, kept as a file under ``work-dir/records``, so that one report can be made of a build's many commands.

A Jenkins build calls one command for each stage, and one for each component on perhaps another agent: their records are brought
together in one folder, and joined.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.errors import UsageError
from trainshed.results import Case, Report, Result, Status

SCHEMA = "trainshed/record/v1"
_FOLDER = "records"
_LONGEST_NAME = 100
_NOTHING_DONE = frozenset({Status.CACHED, Status.SKIPPED})
_FIELDS = frozenset(field.name for field in fields(Result)) - {"status", "cases"}
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "seconds": (int, float),
    "exit_code": int,
    "log": (str, type(None)),
    "details": dict,
    "extra": dict,
    "interrupted": bool,
}
"""What a field of a record holds; text where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One command's report. ``made`` is seconds since 1970; ``build`` the address of the build that ran it, empty by hand."""

    made: float
    build: str
    report: Report


def write(work_dir: Path, report: Report, names: Sequence[str] = (), *, build: str = "") -> Path:
    """Keep a report, in place of the last one of the same command with the same names; return the file."""
    results = [{**asdict(result), "details": dict(result.details)} for result in report.results]
    told = {"stage": report.stage, "interrupted": report.interrupted, "extra": dict(report.extra), "results": results}
    path = work_dir / _FOLDER / f"{_file_name(report.stage, names)}.json"
    files.write_json(path, {"schema": SCHEMA, "made": time.time(), "build": build, **told})
    return path


def read(work_dir: Path) -> list[Record]:
    """Return all records, in the order in which they were made.

    Raises:
        UsageError: a file is no record.
    """
    found = [_read(path) for path in sorted((work_dir / _FOLDER).glob("*.json"))]
    return sorted(found, key=lambda record: record.made)


def join(records: Iterable[Record]) -> list[Report]:
    """Make one report for each stage, in the order of the stages' first records.

    Of several results of one thing the last one counts, unless it only found done what an earlier one did.
    """
    stages: dict[str, Report] = {}
    for record in records:
        new = record.report
        old = stages.get(new.stage, Report(stage=new.stage))
        stages[new.stage] = Report(
            stage=new.stage,
            results=_joined(old.results, new.results),
            extra={**old.extra, **new.extra},
            interrupted=old.interrupted or new.interrupted,
        )
    return list(stages.values())


def _joined(old: Iterable[Result], new: Iterable[Result]) -> tuple[Result, ...]:
    kept = {(result.stage, result.name): result for result in old}
    for result in new:
        before = kept.get((result.stage, result.name))
        if before is None or not _says_more(before, result):
            kept[result.stage, result.name] = result
    return tuple(kept.values())


def _says_more(before: Result, after: Result) -> bool:
    if after.status in _NOTHING_DONE:
        return before.status is Status.DONE
    return after.status is Status.ABORTED and before.status is not Status.ABORTED


def _file_name(stage: str, names: Sequence[str]) -> str:
    if not names:
        return stage
    told = "+".join(re.sub(r"[^\w.-]", "_", name) for name in names)
    if len(told) > _LONGEST_NAME:
        told = hashlib.sha256(told.encode()).hexdigest()[:16]
    return f"{stage}.{told}"


def _read(path: Path) -> Record:
    text = files.read_text(path, what="the record")
    try:
        told = json.loads(text)
        json.dumps(told, ensure_ascii=False).encode()  # JSON can write half a character, which nothing else can
        return _record(told)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a record of a command: {error}", next_step="Remove it, and run its command again.") from error


def _record(told: dict[str, Any]) -> Record:
    if told["schema"] != SCHEMA:
        raise ValueError(f"not of {SCHEMA}")
    results = tuple(_result(result) for result in told["results"])
    report = Report(**_checked({name: told[name] for name in ("stage", "extra", "interrupted")}), results=results)
    return Record(made=float(told["made"]), build=_checked({"build": told["build"]})["build"], report=report)


def _result(told: dict[str, Any]) -> Result:
    known = _checked({name: value for name, value in told.items() if name in _FIELDS})
    return Result(status=Status(told["status"]), cases=tuple(Case(**_checked(case)) for case in told["cases"]), **known)


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """Return the fields: a record comes from another agent, or out of an archive."""
    for name, value in told.items():
        if not isinstance(value, _KINDS.get(name, str)):
            raise TypeError(f"{name}: a {type(value).__name__}")
    return told
