"""Foreign base images: the engine's own copy, else pulled, else made from the distribution's own packages under the same name."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed import files
from trainshed.errors import RemoteError, ToolMissing
from trainshed.local import debian
from trainshed.local.state import locked, unmount
from trainshed.tools import process

if TYPE_CHECKING:
    from trainshed.console import Console
    from trainshed.tools.docker import Engine

_SUITES = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
"""Debian's suites and the Python that each carries."""
_DEBIAN_VERSIONS = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
_PYTHON_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
_BUILD_SECONDS = 1800.0
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "DPKG_FORCE": "unsafe-io"}  # a scratch folder needs no sync of each file
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make a base: a suite of Debian, its packages beside the smallest system, and the command of the image."""

    suite: str
    packages: str
    command: str
    links: dict[str, str]


def recipe(reference: str) -> Recipe | None:
    """Return how to make an image like the one of Docker Hub, None when it cannot be made from Debian's packages.

    ``python:3.11``, ``python:3.11-slim``, ``python:3.11-slim-bookworm``, ``debian:bookworm-slim``, ``debian:12`` and their long
    forms are known; a Python that no suite carries is not.
    """
    match = re.fullmatch(r"(?:docker\.io/)?(?:library/)?(python|debian):([\w.-]+)", reference)
    if match is None:
        return None
    words = match[2].removesuffix("-slim").replace("-slim-", "-").split("-")
    if match[1] == "debian":
        suite = _DEBIAN_VERSIONS.get(words[0], words[0])
        known = len(words) == 1 and suite in _SUITES
        return Recipe(suite=suite, packages="ca-certificates", command="bash", links={}) if known else None
    suite = words[1] if len(words) > 1 else next((name for name, version in _SUITES.items() if version == words[0]), "")
    if len(words) > 2 or _SUITES.get(suite) != words[0]:  # noqa: PLR2004 - version and suite
        return None
    links = {"usr/local/bin/python": "/usr/bin/python3", "usr/local/bin/python3": "/usr/bin/python3"}
    return Recipe(suite=suite, packages=_PYTHON_PACKAGES, command="python3", links=links)


def ensure_base(engine: Engine, reference: str, *, state: Path, console: Console, mirror: str | None = None) -> bool:
    """See to it that the engine has a base image under its name: its own copy, else pulled, else made.

    Args:
        state: the project's state folder; two commands that want the same base make it once.
        mirror: where it is pulled from instead; the engine has it under its own name all the same.

    Returns:
        False when it can neither be pulled nor made here at all.

    Raises:
        RemoteError: it cannot be pulled, and its making failed.
        ToolMissing: it cannot be pulled, and could be made, but not by this user on this machine.
    """
    with locked(state / "bases" / "lock", timeout=_BUILD_SECONDS):
        if engine.image(reference) is not None:
            return True
        try:
            pulled = engine.pull(mirror or reference)
            if mirror is not None and "@" not in reference:  # an engine gives no name with a digest: that one is resolved
                engine.tag(pulled.id, reference)
        except RemoteError as error:
            how = recipe(reference)
            if how is None:
                return False
            why = debian.obstacle()
            if why:
                message = f"{error.message}\n{reference} could be made from Debian's packages, but {why}"
                raise ToolMissing(message, next_step="Make its registry reachable, or load the image into the engine.") from error
            console.line(f"{reference} cannot be pulled: making it from Debian's packages, which takes a minute or two")
            _make(engine, reference, how, folder=state / "bases", notify=console.line)
    return True


def _make(engine: Engine, reference: str, how: Recipe, *, folder: Path, notify: Callable[[str], None]) -> None:
    log = folder / f"{re.sub(r'[^a-z0-9.]+', '-', reference)}.log"
    instead = "Install debootstrap."
    tool = debian.program("debootstrap", "debootstrap", log=log, notify=notify, instead=instead)
    unmount(folder)  # what a killed debootstrap had mounted
    files.sweep(folder)
    with files.scratch(folder, "root") as scratch:
        root, archive = scratch / "root", scratch / "base.tar"
        command = [tool, "--variant=minbase", f"--include={how.packages}", *_keyring(), how.suite, str(root)]
        try:
            process.run(command, log=log, timeout=_BUILD_SECONDS, environment=_ENVIRONMENT)
        except process.ProcessFailed as error:
            message = f"debootstrap could not make {reference}:\n{error.outcome.output.strip()[-2000:]}"
            raise RemoteError(message, next_step=f"Read {log}; see that Debian's packages can be reached.") from error
        finally:
            unmount(scratch)
        _finish(root, how)
        process.run(["tar", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", str(archive), "."], timeout=600)
        _import(engine, reference, how, archive)


def _keyring() -> list[str]:
    """Name the keys of Debian where the host is another distribution, whose debootstrap knows its own only."""
    ring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return [f"--keyring={ring}"] if ring.is_file() else []


def _finish(root: Path, how: Recipe) -> None:
    """Make the system behave as the image of Docker Hub: `python` and `pip install` work; nothing that was only fetched stays."""
    for link, target in how.links.items():
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(target)
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "var/log/*.log"):
        for found in root.glob(pattern):
            found.unlink()


def _import(engine: Engine, reference: str, how: Recipe, archive: Path) -> None:
    """Import a file system as an image, through the engine's API."""
    import docker

    changes = [f"ENV PATH={_PATH}", "ENV LANG=C.UTF-8", f'CMD ["{how.command}"]']
    repository, _, tag = reference.partition(":")
    client = docker.DockerClient(base_url=engine.host, timeout=600)
    try:
        process.interruptible(lambda: client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes))
    finally:
        client.close()
    if engine.image(reference) is None:
        raise RemoteError(f"the engine did not take {reference} ({platform.machine()})")
