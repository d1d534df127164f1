"""Leases: one holder at a time per key, over all processes and machines that share the ledger.

A holder renews its lease in the background. A lease is free again when it is given back, when it ran out by the database's clock
(its holder's machine is gone, or was asleep), or at once when its holder was a process of this machine that no longer lives.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa

from trainshed import owner, settings
from trainshed.errors import TrainshedError, WorkFailed
from trainshed.ledger.database import Database
from trainshed.ledger.tables import leases
from trainshed.tools import process

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


_TELL_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease that is held. ``taken_over`` names, for people, the holder it was taken from, empty when it was free."""

    key: str
    taken_over: str = ""
    _lost: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def lost(self) -> bool:
        """Tell whether another holder took the lease over, as after a sleep of this machine."""
        return self._lost.is_set()


class Held(WorkFailed):
    """The lease was not given back in time; ``holder`` says who holds it."""

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message, next_step="Wait for the other build, or end it.")
        self.holder = holder


@contextmanager
def held(database: Database, key: str, *, ttl: float, deadline: float | None, on_wait: Callable[[str], None] | None) -> Iterator[Lease]:
    """Wait for the lease, hold it during the block, give it back. See `store.Ledger.lease`."""
    token = uuid.uuid4().hex
    lease = Lease(key=key, taken_over=_wait(database, key, token, ttl, deadline, on_wait))
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(database, lease, token, ttl, ended), name=f"lease {key}", daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        ended.set()
        beat.join(ttl)  # it may hang on a dead connection, and the work is done
        _give_back(database, key, token)


def _wait(  # noqa: PLR0913 - what `held` was given
    database: Database, key: str, token: str, ttl: float, deadline: float | None, on_wait: Callable[[str], None] | None
) -> str:
    """Take the lease as soon as it is free; return the holder it was taken over from, empty for none."""
    started, wait, told = time.monotonic(), _FIRST_PAUSE, -math.inf
    while True:
        holder, taken = _take(database, key, token, ttl)
        if taken:
            return holder
        if deadline is not None and time.monotonic() - started >= deadline:
            message = f"{key} is still held by {holder} after {deadline:g} s"
            raise Held(message, holder=holder)
        if on_wait is not None and time.monotonic() - told >= _TELL_SECONDS:
            on_wait(holder)
            told = time.monotonic()
        process.pause(wait if deadline is None else min(wait, max(0.0, deadline - (time.monotonic() - started))))
        wait = min(wait * 2, _LONGEST_PAUSE)


def _take(database: Database, key: str, token: str, ttl: float) -> tuple[str, bool]:
    """Try once; return the former or present holder (empty for none) and whether the lease is ours now."""
    mine = {"owner": _mark(), "token": token, "expires": database.clock + ttl}
    with database.write() as connection:
        connection.execute(database.insert_new(leases, {"key": key, **mine}))
        free = (leases.c.expires < database.clock).label("free")
        row = connection.execute(sa.select(leases, free).where(leases.c.key == key).with_for_update()).one_or_none()
        if row is None:  # given back between the two statements
            return "", False
        if row.token == token:
            return "", True
        if not row.free and owner.alive(row.owner.partition(" ")[0]) is not False:
            return _shown(row.owner), False
        connection.execute(leases.update().where(leases.c.key == key).values(mine))
        return _shown(row.owner), True


def _mark() -> str:
    """Return our mark, with the address of the Jenkins build that this is part of."""
    return " ".join(filter(None, (owner.mark(), settings.build_url())))


def _shown(holder: str) -> str:
    """Say who holds a lease: the build where there is one, else the process and its host."""
    mark, _, build = holder.partition(" ")
    place, _, process_id = mark.partition(":")
    host = place.partition("/")[0]
    return f"{build} on {host}" if build else f"process {process_id.partition(':')[0]} on {host}"


def _renew(database: Database, lease: Lease, token: str, ttl: float, ended: threading.Event) -> None:
    """Move the end of the lease on, three times per its length; a database that is away for a moment costs nothing."""
    pause = ttl / 3
    while not ended.wait(pause):
        pause = min(1.0, ttl / 3)  # a renewal that failed is tried again soon: the next one may be too late
        try:
            with database.write(patience=0) as connection:
                held_still = leases.update().where(leases.c.key == lease.key, leases.c.token == token)
                if connection.execute(held_still.values(expires=database.clock + ttl)).rowcount == 0:
                    lease._lost.set()  # noqa: SLF001 - one module
                    return
        except TrainshedError:
            continue
        pause = ttl / 3


def _give_back(database: Database, key: str, token: str) -> None:
    try:
        with database.write(patience=0) as connection:
            connection.execute(leases.delete().where(leases.c.key == key, leases.c.token == token))
    except TrainshedError:
        return  # it runs out by itself, and the work it guarded is done
