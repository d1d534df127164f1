"""Who owns a half-written file, a lease or a container: a process, by its number and its start, so that a reused number fools nobody."""

from __future__ import annotations

import os
import pwd
import socket
from functools import cache
from pathlib import Path


def start_time(pid: int) -> str | None:
    """Return the start of a process in clock ticks since boot (field 22 of ``/proc/PID/stat``); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name, in brackets, may hold blanks and brackets
    if fields[0] in {"Z", "X"}:
        return None
    return fields[19]


@cache
def machine() -> str:
    """Name the machine *and* its process namespace: two containers of one host do not see each other's processes."""
    namespace = "".join(character for character in str(Path("/proc/self/ns/pid").readlink()) if character.isdigit())
    return f"{socket.gethostname()}/{namespace}"


@cache
def _boot() -> str:
    """Name this start of the kernel: two machines made from one template share their host's name, and the number of the namespace."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")[:12]


def host() -> str:
    """Name where the number of a process means anything: the machine, its process namespace and its boot."""
    return f"{machine()}/{_boot()}"


def mark() -> str:
    """Return the mark of this process: ``HOST:PID:START``, for leases and for labels on containers."""
    pid = os.getpid()
    return f"{host()}:{pid}:{start_time(pid) or 0}"


def person() -> str:
    """Name who runs this, for people: ``USER@HOST``."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # a container's number may have no name
        name = str(number)
    return f"{name}@{socket.gethostname()}"


def alive(owner: str) -> bool | None:
    """Tell whether the owner lives; None when it is of another machine, or of one's earlier boot, and cannot be asked."""
    place, _, process = owner.partition(":")
    pid, _, start = process.partition(":")
    if place != host() or not pid.isdigit():
        return None
    return start_time(int(pid)) == start


def left_behind(owner: str) -> bool:
    """Tell whether the owner is dead, for what lies on this very machine: an earlier boot of the machine's name is dead there."""
    place = owner.partition(":")[0]
    return alive(owner) is False or (place != host() and place.rpartition("/")[0] == machine())
