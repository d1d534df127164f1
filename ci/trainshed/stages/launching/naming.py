"""What a run is called in Kubeflow, and what is said of it there."""

from __future__ import annotations

import os
import platform
import pwd
import re
import secrets
from datetime import UTC, datetime

from trainshed.stages.context import Context
from trainshed.stages.launching.asking import Prepared
from trainshed.tools.kubeflow_records import DESCRIPTION_LIMIT

_SHORT = 12
_FIRST = re.compile(r"pipeline: (?P<name>[^\n]+)\nversion: (?P<version>\S+)")


def run_name(pipeline: str) -> str:
    """Return a name that no other run has: a run whose creation got no answer is looked for by it."""
    return f"{pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(4)}"


def description(context: Context, prepared: Prepared) -> tuple[str, list[str]]:
    """Say of a run which version it is of, from which commit and build, who started it, and its labels.

    Returns:
        The description, and the lines that there was no room for.
    """
    by = context.build_url or f"{_user()}@{platform.node()}"
    changed = "" if prepared.specification is None else f" (all caching {'on' if prepared.caching else 'off'})"
    lines = [
        f"pipeline: {prepared.name}",
        f"version: {prepared.version.name}{changed}",
        *([f"commit: {prepared.commit[:_SHORT]}{' (with changes)' if prepared.changed else ''}"] if prepared.commit else []),
        *(f"label {name}: {value}" for name, value in prepared.labels.items()),
        f"by: {by}",
        *([f"build: {prepared.build_url}"] if prepared.build_url and prepared.build_url != by else []),
    ]
    kept: list[str] = []
    left: list[str] = []
    for line in lines:
        fits = len("\n".join([*kept, line])) <= DESCRIPTION_LIMIT
        (kept if fits else left).append(line)
    return "\n".join(kept), left


def told_in(text: str) -> tuple[str, str] | None:
    """Return the pipeline and the version's name that a description tells; None for one of another make."""
    match = _FIRST.match(text)
    return (match["name"], match["version"]) if match else None


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user has no entry
        return f"uid {os.getuid()}"
