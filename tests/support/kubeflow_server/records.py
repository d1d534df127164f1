"""What the server holds, its clock and its ids, and how it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

NEVER = "1970-01-01T00:00:00Z"
_COLUMN = 255
INVALID, NOT_FOUND, EXISTS, INTERNAL, UNIMPLEMENTED, DENIED = (400, 3), (404, 5), (409, 6), (500, 13), (501, 12), (403, 7)


class Refused(Exception):
    """An answer that is an error: the HTTP status, the gRPC code and the message."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind


class PlainRefused(Refused):
    """A refusal that the server writes as plain text: lengths of names on the upload endpoints."""


class Clock:
    """Seconds since 1970, whole ones: that is all the real server keeps. A test may stop it."""

    def __init__(self) -> None:
        self._stopped = 0

    def now(self) -> int:
        """Return the time."""
        return self._stopped or int(time.time())

    def stop(self) -> None:
        """Let no more time pass: all that is made from now on is made in the same second."""
        self._stopped = self.now()


def fits(body: Mapping[str, Any]) -> None:
    """Refuse what the columns of runs and recurring runs do not hold, as the database does: it counts characters."""
    for key, column in (("display_name", "DisplayName"), ("description", "Description")):
        if len(body.get(key) or "") > _COLUMN:
            raise Refused(
                INTERNAL, f"InternalServerError: Failed to add to table: Error 1406: Data too long for column '{column}' at row 1"
            )


def timestamp(seconds: int) -> str:
    """Return a time as proto JSON has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def shown(document: Mapping[str, Any]) -> Document:
    """Leave out what is not set, as proto JSON does: empty texts, lists, maps, zeros and false."""
    return {key: value for key, value in document.items() if value not in ("", None, 0, [], {}) and value is not False}


@dataclass
class Record:
    """A row. ``parent`` is the namespace, the pipeline or the experiment; ``document`` is what more it has."""

    id: str
    name: str
    parent: str
    created: int
    namespace: str = ""
    document: Document = field(default_factory=dict)


class Table:
    """The rows of one kind, in the order in which they were made."""

    def __init__(self) -> None:
        self._rows: dict[str, Record] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def all(self, parent: str | None = None) -> list[Record]:
        """Return all rows, or those of a parent."""
        return [row for row in self._rows.values() if parent is None or row.parent == parent]

    def get(self, identifier: str) -> Record | None:
        """Return a row by its id."""
        return self._rows.get(identifier)

    def named(self, name: str, parent: str | None = None) -> Record | None:
        """Return a row by its name."""
        return next((row for row in self.all(parent) if row.name == name), None)

    def add(self, row: Record) -> Record:
        """Keep a row."""
        self._rows[row.id] = row
        return row

    def remove(self, row: Record) -> None:
        """Forget a row."""
        del self._rows[row.id]


class State:
    """All tables of a server.

    Ids fall as time goes on: what was made in one second is listed the oldest first even by ``created_at desc``, as may happen with
    the random ids of a real server. A client that takes the first for the newest is found out.
    """

    def __init__(self, *, multi_user: bool, version: str, clock: Clock) -> None:
        self.multi_user, self.version, self.clock = multi_user, version, clock
        self.pipelines, self.versions, self.experiments, self.runs, self.schedules = (Table() for _ in range(5))
        self.lock = threading.RLock()
        self._made = 0

    def at_least(self, *version: int) -> bool:
        """Tell whether the server is of a version or newer."""
        return tuple(int(part) for part in self.version.split(".")[: len(version)]) >= version

    def add(self, table: Table, name: str, *, parent: str = "", namespace: str = "", document: Document | None = None) -> Record:
        """Make a row with an id of its own."""
        with self.lock:
            self._made += 1
            identifier = f"{0xFFFFFFFF - self._made:08x}-0000-4000-8000-{self._made:012x}"
            row = Record(identifier, name, parent, self.clock.now(), namespace=namespace, document=document or {})
            return table.add(row)

    def need(self, table: Table, kind: str, identifier: str) -> Record:
        """Return a row, or refuse as the server does."""
        found = table.get(identifier)
        if found is None:
            raise Refused(NOT_FOUND, f"Failed to get {kind} {identifier}: ResourceNotFoundError: {kind} {identifier} not found.")
        return found

    def namespace(self, asked: str) -> str:
        """Return the namespace that counts: the single-user server takes none, whatever it is told."""
        return asked if self.multi_user else ""
