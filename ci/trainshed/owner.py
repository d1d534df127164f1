"""Who owns a half-written file, a lease or a container: a process, by its number and its start, so that a reused number fools nobody."""

from __future__ import annotations

import os
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
def _host() -> str:
    """Name the machine *and* its process namespace: two containers of one host do not see each other's processes."""
    namespace = "".join(character for character in str(Path("/proc/self/ns/pid").readlink()) if character.isdigit())
    return f"{socket.gethostname()}/{namespace}"


def mark() -> str:
    """Return the mark of this process: ``HOST:PID:START``, for leases and for labels on containers."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{start_time(pid) or 0}"


def alive(owner: str) -> bool | None:
    """Tell whether the owner lives; None when it is of another machine and cannot be asked."""
    host, _, process = owner.partition(":")
    pid, _, start = process.partition(":")
    if host != _host() or not pid.isdigit():
        return None
    return start_time(int(pid)) == start
