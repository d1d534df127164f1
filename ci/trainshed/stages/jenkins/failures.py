"""What failed in a build: from the records that it archived, else from the end of its console."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from trainshed import files
from trainshed.errors import Interrupted, TrainshedError
from trainshed.reports import records
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context

if TYPE_CHECKING:
    from trainshed.tools.jenkins import Build

_FOLDER = "build"
_TAIL_LINES = 40


def of(context: Context, build: Build, *, tail: list[str]) -> tuple[Result, ...]:
    """Return the failed results of a build, each with the end of its archived log in its message.

    Args:
        context: the command's room.
        build: one that is not green.
        tail: the end of its console, told where the build archived nothing that failed.
    """
    try:
        failed = [result for report in _recorded(context, build) for result in report.results if result.status is Status.FAILED]
        found = tuple(_with_log(context, build, result) for result in failed)
    except Interrupted:
        raise
    except TrainshedError as error:
        context.console.warning(f"what build #{build.number} archived could not be read: {error.message}")
        found = ()
    if not found and tail:
        context.console.line("\n".join(["the end of the console:", *(f"   │ {line}" for line in tail)]))
    return found


def _recorded(context: Context, build: Build) -> list[Report]:
    """Fetch the records that the build archived, and join them as its report did."""
    paths = [path for path in context.jenkins.artifacts(build) if re.fullmatch(rf"{_FOLDER}/records/[^/]+\.json", path)]
    with files.scratch(context.config.project.state, "records") as folder:
        for number, path in enumerate(sorted(paths)):  # under names of our own: theirs are a stranger's
            content = context.jenkins.artifact(build, path)
            if content is not None:
                files.write_bytes(folder / "records" / f"{number:05}.json", content)
        return records.join(records.read(folder))


def _with_log(context: Context, build: Build, result: Result) -> Result:
    """Put the end of the archived log into the message; the log is not here, so no path of it is kept."""
    details = {**result.details, "archived_log": result.log}
    content = context.jenkins.artifact(build, result.log) if result.log else None
    lines = (content or b"").decode(errors="replace").rstrip().splitlines()[-_TAIL_LINES:]
    shown = [f"the end of {result.log}:", *(f"│ {line.rpartition(chr(13))[2].rstrip()}" for line in lines)] if lines else []
    return replace(result, message="\n".join(filter(None, [result.message, *shown])), log=None, details=details)
