"""Ports on loopback: one that is free, one that stays the same, and whether it is really ours that listens."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainshed.errors import RemoteError

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000
"""Below the range from which the kernel takes ports for outgoing connections, so that a stopped service finds its port free again."""
_LISTEN = "0A"


def free(port: int) -> bool:
    """Tell whether a server could bind the port on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def choose(preferred: Iterable[int], *, key: str) -> int:
    """Return the first free port: a preferred one, else one that depends on ``key`` alone as long as it is free."""
    for port in (*preferred, *_candidates(key)):
        if port and free(port):
            return port
    raise RemoteError(f"no free port between {_FIRST} and {_LAST} on {LOOPBACK}", next_step="End a server on this machine.")


def _candidates(key: str) -> Iterator[int]:
    size = _LAST - _FIRST
    start = int(key, 16) % size
    return (_FIRST + (start + offset) % size for offset in range(size))


def listens(pid: int, port: int) -> bool:
    """Tell whether this very process listens on the port on loopback, and not a stranger who took it first."""
    local = f"{int.from_bytes(socket.inet_aton(LOOPBACK), 'little'):08X}:{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == local and fields[3] == _LISTEN:
            inodes.add(f"socket:[{fields[9]}]")
    return bool(inodes) and not inodes.isdisjoint(_descriptors(pid))


def _descriptors(pid: int) -> Iterator[str]:
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                yield str(descriptor.readlink())
            except OSError:
                continue
    except OSError:
        return
