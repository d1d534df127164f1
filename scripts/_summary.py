"""Print what `trainshed run --json` did, and what the service answered, as a table: the end of the demo."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_CHECKS = ("build", "scan", "test")


def main(arguments: Sequence[str]) -> int:
    """Print the tables of a report and of an answer, given as files."""
    report, prediction = (json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments)
    print(f"\n{summary(report, prediction)}")
    return 0


def summary(report: Mapping[str, Any], prediction: Mapping[str, Any]) -> str:
    """Return the tables: images, pipelines, runs, services, and the answer."""
    of = {stage: [result for result in report["results"] if result["stage"] == stage] for stage in (*_CHECKS, "upload", "launch", "deploy")}
    parts = [
        _table(("image", "digest", *_CHECKS, "cause", "seconds"), _images(of)),
        _table(("pipeline", "version", "status", "cause"), [(r["name"], r.get("version"), r["status"], r["cause"]) for r in of["upload"]]),
        *(_run(result) for result in of["launch"]),
        _table(
            ("service", "revision", "status", "address"), [(r["name"], r.get("revision"), r["status"], r.get("url")) for r in of["deploy"]]
        ),
        f"POST {prediction['url']}\n{prediction['status']} {json.dumps(prediction['answer'])}",
    ]
    return "\n\n".join(part for part in parts if part)


def _images(of: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[object, ...]]:
    checks = {check: {result["name"]: result for result in of[check]} for check in _CHECKS}
    rows = []
    for result in of["build"]:
        name = result["name"]
        verdicts = [checks[check].get(name, {}).get("status") for check in _CHECKS]
        seconds = sum(checks[check].get(name, {}).get("seconds", 0.0) for check in _CHECKS)
        rows.append((name, str(result.get("digest", ""))[:19], *verdicts, result["cause"], f"{seconds:.1f}"))
    return rows


def _run(result: Mapping[str, Any]) -> str:
    tasks = [("task", task["name"], task["state"]) for task in result.get("tasks", ())]
    metrics = [("metric", name, f"{value:.4f}") for name, value in result.get("metrics", {}).items()]
    head = ("run", f"{result.get('run_id', result['name'])} in {result['seconds']:.1f} s", result.get("state"))
    return _table(head, [*tasks, *metrics])


def _table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    cells = [["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    cells.insert(0, [str(column) for column in columns])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join((lines[0], "  ".join("─" * width for width in widths), *lines[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
