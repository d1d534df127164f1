"""Slots for heavy work that all commands of one machine and user share: twenty branches do not build twenty images at once.

A slot is a locked file: the kernel frees it when its process ends, however that happens. Who holds one never waits for a lease or for
another slot; who holds a lease may wait for a slot. So nobody waits in a circle.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from trainshed import settings
from trainshed.errors import UsageError
from trainshed.tools import process

VARIABLE = "TRAINSHED_SLOTS"
_PARENT = Path("/tmp")  # noqa: S108 - not TMPDIR, which Jenkins sets for each workspace; the folder is checked to be ours
_PAUSE_SECONDS = 0.1
_QUIET_SECONDS = 1.0
"""So long a wait is nothing to tell."""


def folder() -> Path:
    """Return the folder of the slots: the one that is named, else one for each user of this machine.

    Raises:
        UsageError: it belongs to another user.
    """
    named = settings.own().get(VARIABLE)
    found = Path(named) if named else _PARENT / f"trainshed-{os.geteuid()}"
    found.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
    status = found.stat() if named else found.lstat()
    if not stat.S_ISDIR(status.st_mode) or (status.st_uid != os.geteuid() and not named):
        raise UsageError(f"{found}: not a folder of this user", next_step=f"Name another one in {VARIABLE}.")
    return found


@contextlib.contextmanager
def held(kind: str, count: int, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold one of ``count`` slots of a kind during the block; wait until one is free.

    Who waits stands first at a turnstile, so that a command that frees a slot and asks at once for the next one passes nobody
    who waits already.

    Args:
        kind: what is counted, such as ``build``.
        count: as this project has it; one that allows more does not wait for one that allows less.
        on_wait: called once, when the wait is more than a moment.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived during the wait.
    """
    place = folder()
    wait = _Wait(on_wait)
    with _first([place / f"{kind}.turnstile-{count}"], wait):
        slot = _first([place / f"{kind}.{number}" for number in range(count)], wait)
    with slot:
        yield


class _Wait:
    """Pauses, and tells of the wait once it has lasted."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell
        self._since = time.monotonic()

    def __call__(self) -> None:
        if self._tell is not None and time.monotonic() - self._since > _QUIET_SECONDS:
            self._tell()
            self._tell = None
        process.pause(_PAUSE_SECONDS)


def _first(files: Sequence[Path], wait: Callable[[], None]) -> IO[bytes]:
    """Lock the first of the files that nobody holds; closing it frees it."""
    while True:
        for file in files:
            stream = file.open("ab")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
            else:
                return stream
        wait()
