"""What Debian and Ubuntu can install: only as root, only what is missing, and without starting a service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from trainshed.errors import RemoteError, ToolMissing
from trainshed.tools import process

_RELEASE = Path("/etc/os-release")
_LOCK_SECONDS = 300
_LOCK_PAUSE_SECONDS = 2.0
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",
    "RUNLEVEL": "1",  # invoke-rc.d starts nothing then: a private engine is started by us, not a system-wide one by the package
}


def release(file: Path = _RELEASE) -> dict[str, str]:
    """Return the fields of ``os-release``; empty where there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip("'\"") for name, _, value in pairs}


def obstacle(file: Path = _RELEASE) -> str:
    """Say what keeps us from installing packages here: not Debian or Ubuntu, or not root. Empty when nothing does."""
    fields = release(file)
    family = {fields.get("ID", ""), *fields.get("ID_LIKE", "").split()}
    if family.isdisjoint({"debian", "ubuntu"}):
        return f"this is {fields.get('PRETTY_NAME', 'not Debian or Ubuntu')}"
    if os.geteuid() != 0:
        return "this user is not root"
    return ""


def program(name: str, package: str, *, log: Path, notify: Callable[[str], None], instead: str) -> str:
    """Return the path of a program, its Debian package installed when it is missing.

    Args:
        instead: the next step for a person where we cannot install: what to install, or what to configure.

    Raises:
        ToolMissing: the program is missing and cannot be installed here.
    """
    found = find(name)
    if found is None:
        why = obstacle()
        if why:
            raise ToolMissing(f"{name} was not found, and {why}, so it cannot be installed from here", next_step=instead)
        install([package], log=log, notify=notify)
        found = find(name)
    if found is None:
        raise ToolMissing(f"{name} was not found after {package} was installed", next_step=f"Read {log}.")
    return found


def find(name: str) -> str | None:
    """Return the path of a program: from PATH, or the folders of system programs, which are not on everyone's PATH."""
    for folder in ("/usr/sbin", "/sbin", "/usr/local/sbin"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    return process.find(name)


def install(packages: Iterable[str], *, log: Path, notify: Callable[[str], None]) -> None:
    """Install packages with apt-get: lists brought up to date first, a lock that another process holds is waited for.

    Raises:
        RemoteError: apt-get failed; the message has the end of what it said.
    """
    names = list(packages)
    notify(f"installing {', '.join(names)} with apt-get")
    wait = ["-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", "-o", "Acquire::Retries=3"]
    if not _updated(wait):
        notify("apt-get update failed; trying with the lists that are there")
    try:
        command = ["apt-get", *wait, "-qq", "-y", "--no-install-recommends", "install", *names]
        process.run(command, environment=_ENVIRONMENT, log=log, timeout=1800)
    except process.ProcessFailed as error:
        message = f"apt-get could not install {', '.join(names)}:\n{error.outcome.output.strip()[-2000:]}"
        raise RemoteError(message, next_step=f"Run `apt-get install {' '.join(names)}` and try again.") from error


def _updated(options: list[str]) -> bool:
    """Bring the lists of packages up to date; unlike dpkg's, their lock is not waited for by apt-get itself."""
    ends = time.monotonic() + _LOCK_SECONDS
    while True:
        done = process.run(["apt-get", *options, "-qq", "update"], environment=_ENVIRONMENT, timeout=600, check=False)
        if done.code == 0 or "Could not get lock" not in done.errors or time.monotonic() > ends:
            return done.code == 0
        process.pause(_LOCK_PAUSE_SECONDS)
