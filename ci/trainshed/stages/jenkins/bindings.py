"""``trainshed jenkins bindings``: which credentials Jenkins shall bind for the environment, by name only."""

from __future__ import annotations

from trainshed import settings
from trainshed.results import Report
from trainshed.stages.context import Context


def bindings(context: Context) -> Report:
    """Print what the environment asks for on stdout, a line each: ``KIND VARIABLE ID``.

    A build of a fork gets nothing, whatever the environment says. In a pull request the table is that of the target branch.
    """
    environment = context.config.environment
    asked = [] if settings.from_fork() else sorted(environment.credentials.items())
    found = [(kind, variable, name) for variable, told in asked for kind, _, name in [told.partition(":")]]
    context.console.data("\n".join(" ".join(binding) for binding in found))
    documents = [{"kind": kind, "variable": variable, "id": name} for kind, variable, name in found]
    return Report(stage="jenkins-bindings", extra={"environment": environment.name, "bindings": documents})
