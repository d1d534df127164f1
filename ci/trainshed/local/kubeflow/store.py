"""What the embedded Kubeflow knows, in SQLite: pipelines, versions, experiments and runs outlive the server."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    parent TEXT NOT NULL,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (kind, parent, name)
)
"""


class Taken(Exception):
    """The name is taken."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One thing. ``number`` grows with every new one; ``parent`` is a namespace, a pipeline or an experiment."""

    number: int
    kind: str
    id: str
    parent: str
    name: str
    document: dict[str, Any]


def now() -> str:
    """Return the time as Kubeflow tells it: RFC 3339, whole seconds."""
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Records by kind, each with a unique name under its parent. Safe for threads."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # with WAL: a power cut may cost the last change, never the file
        self._connection.execute("PRAGMA busy_timeout=10000")
        self._connection.execute(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def add(self, kind: str, *, parent: str, name: str, document: Mapping[str, Any]) -> Record:
        """Add a record under a new id; an empty name stands for the id.

        Raises:
            Taken: the parent has one of that name.
        """
        identifier = str(uuid.uuid4())
        values = (kind, identifier, parent, name or identifier, json.dumps(document))
        with self._lock:
            try:
                self._connection.execute("INSERT INTO records (kind, id, parent, name, document) VALUES (?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as error:
                raise Taken(name) from error
            found = self.get(kind, identifier)
        assert found is not None  # noqa: S101 - just written, under the lock
        return found

    def get(self, kind: str, identifier: str) -> Record | None:
        """Return the record of an id."""
        return next(iter(self._select("kind = ? AND id = ?", kind, identifier)), None)

    def numbered(self, kind: str, number: int) -> Record | None:
        """Return the record of a number."""
        return next(iter(self._select("kind = ? AND number = ?", kind, number)), None)

    def by_name(self, kind: str, name: str, parent: str | None = None) -> Record | None:
        """Return the record of a name, under any parent when none is given (then the oldest)."""
        if parent is None:
            return next(iter(self._select("kind = ? AND name = ?", kind, name)), None)
        return next(iter(self._select("kind = ? AND name = ? AND parent = ?", kind, name, parent)), None)

    def all(self, kind: str, parent: str | None = None) -> list[Record]:
        """Return all records of a kind, the oldest first."""
        if parent is None:
            return self._select("kind = ?", kind)
        return self._select("kind = ? AND parent = ?", kind, parent)

    def change(self, record: Record, **changes: Any) -> None:  # noqa: ANN401 - any JSON value
        """Set keys of a record's document."""
        with self._lock:
            present = self.get(record.kind, record.id)
            if present is not None:
                text = json.dumps({**present.document, **changes})
                self._connection.execute("UPDATE records SET document = ? WHERE id = ?", (text, record.id))

    def remove(self, record: Record) -> None:
        """Remove a record."""
        with self._lock:
            self._connection.execute("DELETE FROM records WHERE id = ?", (record.id,))

    def _select(self, condition: str, *values: str | int) -> list[Record]:
        query = f"SELECT number, kind, id, parent, name, document FROM records WHERE {condition} ORDER BY number"  # noqa: S608 - constants
        with self._lock:
            rows = self._connection.execute(query, values).fetchall()
        return [Record(number=n, kind=k, id=i, parent=p, name=m, document=json.loads(d)) for n, k, i, p, m, d in rows]
