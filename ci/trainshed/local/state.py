"""The folders of the embedded services: who may change one now, where its sockets fit, and what is still mounted below it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainshed import files
from trainshed.errors import RemoteError
from trainshed.tools import process

_SOCKET_ROOM = 60
"""Longest folder that still leaves room for ``/containerd/containerd.sock.ttrpc``: a socket's path has 107 characters at most."""
_SHORT_PARENTS = (Path("/run"), Path("/tmp"))  # noqa: S108 - the folder made there is private (0700)


@contextmanager
def locked(file: Path, *, timeout: float = 900.0) -> Iterator[None]:
    """Hold a file's lock; the kernel gives it back when the process dies, however that happens.

    Raises:
        RemoteError: another process held it for longer than ``timeout`` seconds.
        Interrupted: SIGTERM arrived meanwhile.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with file.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"{file}: another process has held this lock for {timeout:g} s"
                    raise RemoteError(message, next_step="See `trainshed local status`; end the process that hangs.") from None
                process.pause(process.POLL_SECONDS)
        yield


def make_foreign(folder: Path) -> None:
    """Make the folder of another program's data, which `files.sweep` then passes by: it may hold a million files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files.FOREIGN).touch()


def digest(folder: Path) -> str:
    """Return 8 hexadecimal digits that stand for a folder where its path is too long: in names of bridges, run folders, ports."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]


def run_folder(folder: Path) -> Path:
    """Return where the sockets of a service live: ``folder/run``, or a short private folder where that path is too long."""
    inside = folder.resolve() / "run"
    if len(str(inside)) <= _SOCKET_ROOM:
        return inside
    parent = next((path for path in _SHORT_PARENTS if _writable(path)), _SHORT_PARENTS[-1])
    return parent / f"trainshed-{digest(folder)}"


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def mounts(folder: Path) -> list[Path]:
    """Return what is mounted at or below a folder, the deepest first."""
    inside = str(folder.resolve())
    points = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        point = line.split(" ")[1].encode("latin-1", "backslashreplace").decode("unicode_escape")  # blanks are written as \040
        if point == inside or point.startswith(f"{inside}/"):
            points.append(point)
    return [Path(point) for point in reversed(points)]


def unmount(folder: Path) -> list[Path]:
    """Unmount everything at or below a folder; return what could not be unmounted."""
    for point in mounts(folder):
        process.run(["umount", str(point)], check=False, timeout=30)
    for point in mounts(folder):  # busy: taken out of the tree now, gone with its last user
        process.run(["umount", "--lazy", str(point)], check=False, timeout=30)
    return mounts(folder)
