"""``trainshed jenkins reproduce``: a build's commit, parameters and lock in a folder of its own, and whether the plan is the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed import config as configuration
from trainshed import files, settings
from trainshed.errors import UsageError
from trainshed.pipelines.lock import Lock
from trainshed.results import Report, Result, Status
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding, naming
from trainshed.stages.jenkins import lock as locks
from trainshed.tools import worktree

if TYPE_CHECKING:
    from trainshed.config import Config
    from trainshed.tools.jenkins import Build

STAGE = "jenkins-reproduce"
_FOLDER = "reproduce"
_PARAMETERS = "parameters.yaml"
_ALL_PARAMETERS = "jenkins-parameters.json"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The project as the build's commit has it."""

    folder: Path
    config: Config

    @property
    def work_dir(self) -> Path:
        return self.config.project.work_dir


def reproduce(context: Context, *, branch: str | None = None, build: str | None = None) -> Report:
    """Set a build up again, beside the tree; compare the plan digest there with that of the build's lock.

    Args:
        context: the command's room.
        branch: as the job names it; the one checked out by default.
        build: number or address of the build; the last by default.

    Raises:
        UsageError: no such build, one that still runs, a commit that cannot be had, a folder that is in use for something else.
    """
    named, found = finding.locate(context, branch=branch, build=build)
    if found.building or not found.commit:
        reason = "still runs" if found.building else "does not tell its commit"
        raise UsageError(f"{found.url}: the build {reason}", next_step=f"Follow it: `trainshed jenkins watch --build {found.number}`.")
    fetched = locks.fetch(context, found)  # before anything is written: a wrong lock leaves nothing behind
    place = _set_up(context, found, named)
    _write(place, found, None if fetched is None else fetched[1])
    context.console.line(f"build #{found.number} of branch {named}, of commit {finding.short(found.commit)}: {place.folder}")
    result = _compared(context, place, found, None if fetched is None else fetched[0])
    context.console.end(result)
    context.console.line("\n".join(["go on there:", *(f"  {command}" for command in commands(place.folder, place.config, found, fetched))]))
    return Report(stage=STAGE, results=(result,))


def _set_up(context: Context, build: Build, branch: str) -> _Place:
    """Make the working tree of the build's commit, and read the configuration that it holds."""
    project, commit = context.config.project, build.commit or ""
    top = worktree.top(project.root)
    worktree.fetch(top, commit)
    folder = project.state / _FOLDER / naming.folder(context.config.jenkins.job, branch, build.number)
    if not worktree.ensure(top, folder, commit):
        context.console.line(f"{project.shown(folder)}: there already, at this commit and unchanged")
    inside = context.config.file.resolve().relative_to(top.resolve())
    file = folder / inside
    wanted = build.parameters.get("ENVIRONMENT") or context.config.environment.name
    place = _Place(folder=file.parent, config=_loaded(file, wanted, context.config.environment.name))
    _require_inside(place)
    return place


def _require_inside(place: _Place) -> None:
    """Refuse a commit whose own folders lead elsewhere by a link: a build's files would be written over those of somebody else.

    Raises:
        UsageError: the work folder, or that of the state, is not in the working tree.
    """
    for own in (place.work_dir, place.config.project.state):
        if not own.resolve().is_relative_to(place.folder.resolve()):
            message = f"{own}: the commit has a link in this place, which leads to {own.resolve()}"
            raise UsageError(message, next_step="Look at the commit before you trust it; nothing was written there.")


def _loaded(file: Path, environment: str, otherwise: str) -> Config:
    """Read the configuration for the build's environment; a pull request of a fork is built in `local`, whatever is asked for."""
    try:
        return configuration.load(file, environment=environment, overrides=settings.own())
    except UsageError:
        if environment == otherwise:
            raise
        return configuration.load(file, environment=otherwise, overrides=settings.own())


def _write(place: _Place, build: Build, lock: bytes | None) -> None:
    files.write_text(place.work_dir / _PARAMETERS, build.parameters.get("LAUNCH_PARAMETERS", ""))
    files.write_json(place.work_dir / _ALL_PARAMETERS, dict(build.parameters))
    target = place.work_dir / "images.lock.json"
    if lock is None:
        target.unlink(missing_ok=True)
    else:
        files.write_bytes(target, lock)


def _compared(context: Context, place: _Place, build: Build, lock: Lock | None) -> Result:
    details = {
        "folder": str(place.folder),
        "build": build.number,
        "url": build.url,
        "commit": build.commit,
        "parameters": dict(build.parameters),
    }
    name = f"#{build.number}"
    if lock is None:
        cause = "set up; the build was not green, so it has no lock to compare with"
        return Result(name=name, stage=STAGE, status=Status.DONE, cause=cause, details={**details, "equal": None})
    there = Context(config=place.config, console=context.console, tier=context.tier)
    try:
        comparison = locking.compare(there, lock)
    finally:
        there.close()
    details |= {"plan_digest": comparison.plan_digest, "lock_plan_digest": lock.plan_digest, "differing": list(comparison.differing)}
    if comparison.plan_digest == lock.plan_digest:
        cause = f"the plan digest is equal: {lock.plan_digest}"
        return Result(name=name, stage=STAGE, status=Status.DONE, cause=cause, details={**details, "equal": True})
    differing = ", ".join(comparison.differing) or "the plan"
    message = f"the plan digest is {comparison.plan_digest}, that of the build's lock {lock.plan_digest}: {differing} differ"
    return Result(name=name, stage=STAGE, status=Status.FAILED, message=message, details={**details, "equal": False})


def commands(folder: Path, config: Config, build: Build, fetched: object | None) -> list[str]:
    """Return what one would run next in the folder: the stages of the build, with its parameters."""
    given = build.parameters
    stage = ["trainshed", "--env", config.environment.name]
    components, pipelines = given.get("COMPONENTS", "").split(), given.get("PIPELINES", "").split()
    words = [["cd", str(folder)]]
    if fetched is None:
        return [shlex.join(line) for line in [*words, [*stage, "images", *components]]]
    words.append([*stage, "stamp", *pipelines])
    gates = [part for gate in given.get("GATES", "").splitlines() if gate.strip() for part in ("--gate", gate.strip())]
    work = config.project.shown(config.project.work_dir / _PARAMETERS)
    words.append([*stage, "launch", "--params", work, *gates, *pipelines])
    return [shlex.join(line) for line in words]
