"""``trainshed report``: one report and one manifest of what the commands of a build recorded."""

from __future__ import annotations

from typing import Any

from trainshed import files
from trainshed.errors import NothingSelected, UsageError
from trainshed.pipelines import lock as locks
from trainshed.reports import manifest, records
from trainshed.reports.records import Record
from trainshed.reports.writing import write_reports
from trainshed.results import Report, Result, Status
from trainshed.stages import locking, version
from trainshed.stages.context import Context
from trainshed.tools import git

STAGE = "report"


def report(context: Context) -> Report:
    """Join the records of the work folder into its reports and its manifest; print the description of the build on stdout.

    The records were masked when they were written. The exit code tells whether the report could be made, not what it says.

    Raises:
        NothingSelected: no command has recorded anything.
        UsageError: a file among the records is none.
    """
    project = context.config.project
    joined = [each for each in records.join(_recorded(context)) if not (each.stage == "plan" and each.status == "green")]
    if not joined:
        raise NothingSelected(
            f"{project.shown(project.work_dir)}: nothing is recorded there", next_step="Run a stage, such as `trainshed images`."
        )
    told = _manifest(context, joined)
    written = write_reports(project.work_dir, joined, components=project.shown(project.components))
    path = project.work_dir / manifest.FILE_NAME
    files.write_json(path, told)
    context.console.data("\n".join(manifest.description(joined, told)))
    results = [Result(name=project.shown(file), stage=STAGE, status=Status.DONE) for file in (*written, path)]
    return Report(stage=STAGE, results=tuple(results), extra={"manifest": told})


def _recorded(context: Context) -> list[Record]:
    """Return the records of this build: a workspace may hold those of another, when a build begins at a later stage."""
    found = records.read(context.config.project.work_dir)
    return [record for record in found if context.build_url in {None, record.build}]


def _manifest(context: Context, joined: list[Report]) -> dict[str, Any]:
    project, head = context.config.project, git.head(context.config.project.root)
    try:
        lock = locks.read(locking.path(context))
    except UsageError:  # not green, so there is none
        lock = None
    told = version.of_build(context)
    return manifest.manifest(
        joined,
        images=lock.references if lock else {},
        project=project.name,
        environment=context.config.environment.name,
        commit=head.commit,
        branch=head.branch,
        build_url=context.build_url,
        plan_digest=lock.plan_digest if lock else None,
        lock_digest=locks.lock_digest(lock) if lock else None,
        **({"version": told} if told else {}),
    )
