"""``trainshed jenkins bindings``: which credentials Jenkins shall bind for the environment, by name only."""

from __future__ import annotations

from collections.abc import Mapping

from trainshed import settings
from trainshed.config import Environment
from trainshed.errors import problems
from trainshed.results import Report
from trainshed.stages.context import Context
from trainshed.stages.releasing import room as rooms


def bindings(context: Context, *, release: bool = False) -> Report:
    """Print what the environment asks for on stdout, a line each: ``KIND VARIABLE ID``.

    A build of a fork gets nothing, whatever the environment says. In a pull request the table is that of the target branch.

    Args:
        context: the command's room.
        release: add what production asks for; to this run it must be open.

    Raises:
        UsageError: production is closed to this run, or binds a variable to another credential than the environment does.
    """
    environment = context.config.environment
    asked: Mapping[str, str] = {}
    if not settings.from_fork():
        asked = _of_release(context) if release else environment.credentials
    found = [(kind, variable, name) for variable, told in sorted(asked.items()) for kind, _, name in [told.partition(":")]]
    context.console.data("\n".join(" ".join(binding) for binding in found))
    documents = [{"kind": kind, "variable": variable, "id": name} for kind, variable, name in found]
    return Report(stage="jenkins-bindings", extra={"environment": environment.name, "bindings": documents})


def _of_release(context: Context) -> dict[str, str]:
    with rooms.opened(context, to=None) as room:
        here, there = room.here.config.environment, room.there.config.environment
    both = sorted(here.credentials.keys() & there.credentials.keys())
    wrong = [_twice(variable, here, there) for variable in both if here.credentials[variable] != there.credentials[variable]]
    if wrong:
        step = "Name another variable for one of them (such as `kubeflow.auth.password-env`); AWS is one log-in with `aws.role` for each."
        raise problems(wrong, next_step=step)
    return {**here.credentials, **there.credentials}


def _twice(variable: str, here: Environment, there: Environment) -> str:
    one, other = here.credentials[variable], there.credentials[variable]
    return f"{variable} is bound to {one} for {here.name} and to {other} for {there.name}: a release works on both"
