"""``trainshed jenkins trigger``: start a build, with parameters that were checked against the job's own definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainshed.errors import UsageError, problems, suggestion
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding
from trainshed.stages.jenkins.watch import follow_command, follow_queue

if TYPE_CHECKING:
    from trainshed.tools.jenkins import Definition

STAGE = "jenkins-trigger"
_BOOLEANS = ("true", "false")


def trigger(
    context: Context,
    *,
    branch: str | None = None,
    parameters: Mapping[str, str] | None = None,
    wait: bool | None = None,
    deadline: float | None = None,
) -> Report:
    """Start a build of a branch.

    Args:
        context: the command's room.
        branch: as the job names it; the one checked out by default.
        parameters: of the job, by name.
        wait: follow the build to its end, as ``jenkins watch`` does.
        deadline: seconds until following is given up; the build goes on.

    Raises:
        UsageError: before anything is sent: no such branch, an unknown parameter, a value that its parameter cannot have.
    """
    client, named, given = context.jenkins, finding.own_branch(context, branch), dict(parameters or {})
    job = finding.job(context, named)
    defined = client.parameters(job)
    if not defined and not client.builds(job, limit=1):
        _without_builds(context, named, given)
    values = checked(defined, given, branch=named)
    for definition in defined:
        if definition.kind == "password" and definition.name in values:
            context.console.add_secret(values[definition.name])
    queue_id = client.trigger(job, values)
    result = _told(context, named, queue_id)
    if not wait:
        return Report(stage=STAGE, results=(result,))
    followed = follow_queue(context, job, branch=named, queue=queue_id, deadline=deadline)
    return Report(stage=STAGE, results=(result, *followed))


def checked(defined: Sequence[Definition], given: Mapping[str, str], *, branch: str) -> dict[str, str]:
    """Return the values as Jenkins takes them.

    Raises:
        UsageError: with all problems at once.
    """
    by_name = {definition.name: definition for definition in defined}
    wrong: list[str] = []
    values = {}
    for name, value in given.items():
        if name not in by_name:
            wrong.append(f"the job of branch {branch} has no parameter '{name}'{suggestion(name, by_name)}")
            continue
        try:
            values[name] = _value(by_name[name], value)
        except ValueError as error:
            wrong.append(f"parameter '{name}': {error}")
    if wrong:
        raise problems(wrong, next_step=f"Known parameters: {_listed(defined)}.")
    return values


def _value(definition: Definition, value: str) -> str:
    if definition.kind == "boolean":
        if value.lower() not in _BOOLEANS:
            raise ValueError(f"expected true or false, not '{value}'")
        return value.lower()
    if definition.kind == "choice" and value not in definition.choices:
        raise ValueError(f"expected one of {', '.join(definition.choices)}, not '{value}'{suggestion(value, definition.choices)}")
    return value


def _listed(defined: Sequence[Definition]) -> str:
    return ", ".join(f"{definition.name} ({definition.kind})" for definition in defined) or "none"


def _without_builds(context: Context, branch: str, given: Mapping[str, str]) -> None:
    """Say that the job of a branch learns its parameters with its first build; refuse those that are given.

    Raises:
        UsageError: parameters are given.
    """
    if given:
        message = f"branch {branch} has no build yet, so its job knows no parameters: {', '.join(given)} cannot be checked"
        raise UsageError(message, next_step="Trigger it once without parameters: its first build declares them.")
    context.console.line(f"branch {branch} has no build yet: the first one runs with the defaults, and declares the parameters")


def _told(context: Context, branch: str, queue_id: int) -> Result:
    """Tell at once what was triggered: whoever ends this command now can still follow the build."""
    follow = follow_command(branch, queue=queue_id)
    context.console.line(f"branch {branch}: triggered, item {queue_id} of the queue; follow it: {follow}")
    details = {"branch": branch, "queue_id": queue_id, "follow": follow}
    return Result(name=branch, stage=STAGE, status=Status.DONE, cause=f"item {queue_id} of the queue", details=details)
