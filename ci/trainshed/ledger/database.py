"""Opens a database, brings its schema up to date, and says what SQLite and PostgreSQL do differently: locks, clocks, errors."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from trainshed.errors import RemoteError, UsageError
from trainshed.ledger import migrations

BUSY_SECONDS = 60.0
_CONNECT_SECONDS = 10
_WRITES = "trainshed_writes"
_MIGRATION_LOCK = 7_241_926_073  # any number: PostgreSQL's advisory lock that lets one process migrate
_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class Database:
    """An engine whose schema is up to date. ``shown`` is the address without password and query."""

    def __init__(self, url: str) -> None:
        address = _address(url)
        self.shown = address.set(query={}).render_as_string(hide_password=True)
        self.sqlite = address.drivername == "sqlite"
        if self.sqlite:
            _use_wal(Path(str(address.database)), self.shown)
        self._engine = _sqlite(address) if self.sqlite else _postgresql(address)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that reads.

        Raises:
            RemoteError: the database failed.
        """
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that writes; it is committed at the end of the block.

        Raises:
            RemoteError: the database failed; nothing was written.
        """
        with self._translated(), self._engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
            yield connection

    @property
    def clock(self) -> sa.ColumnElement[float]:
        """Return the database's own clock, in seconds since 1970: the agents' clocks may disagree."""
        text = "(julianday('now') - 2440587.5) * 86400.0" if self.sqlite else "extract(epoch FROM clock_timestamp())::double precision"
        return sa.literal_column(text, sa.Double())

    def insert_new(self, table: sa.Table, values: Mapping[str, Any]) -> sa.Insert:
        """Return the insertion of a row that does nothing when its primary key is there already."""
        if self.sqlite:
            return sqlite_insert(table).values(values).on_conflict_do_nothing()
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # slow to import, and SQLite is the default

        return postgresql_insert(table).values(values).on_conflict_do_nothing()

    def _prepare(self) -> None:
        if self._version_at_head():
            return
        with self.write() as connection:
            if not self.sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            found = _version(connection)
            if found != migrations.HEAD:
                self._check(found)
                migrations.upgrade(connection)

    def _version_at_head(self) -> bool:
        with self.read() as connection:
            found = _version(connection)
        self._check(found)
        return found == migrations.HEAD

    def _check(self, found: str | None) -> None:
        if found is not None and found not in migrations.KNOWN:
            message = f"the ledger {self.shown} has schema {found}, newer than the {migrations.HEAD} that this Trainshed knows"
            raise UsageError(message, next_step="Update Trainshed, or name another ledger with TRAINSHED_LEDGER_URL.")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise _error(self.shown, _first_line(cause), sqlite=self.sqlite) from error
        except StatementError as error:  # a value that cannot be sent: the caller's bug, named alike for both databases
            raise error.orig or error from None


def _error(shown: str, said: str, *, sqlite: bool) -> UsageError | RemoteError:
    """Name what the driver said; never the statement, whose parameters are others' data."""
    if sqlite and ("not a database" in said or "malformed" in said):
        return UsageError(f"{shown} is not a ledger: {said}", next_step="Move the file away; a new ledger is made in its place.")
    if sqlite and ("unable to open" in said or "readonly" in said):
        return UsageError(f"the ledger {shown} cannot be opened: {said}", next_step="Check the permissions of its folder.")
    step = "Try again." if sqlite else "Check that the server runs, and the user and password of ledger.url."
    return RemoteError(f"the ledger {shown} failed: {said}", next_step=step)


def _address(url: str) -> sa.URL:
    example = "Write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE."
    try:
        address = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError("ledger.url: the ledger's address is not a URL", next_step=example) from None
    if address.drivername not in _SCHEMES:
        raise UsageError(f"ledger.url: a ledger on '{address.drivername}' is not supported", next_step=example)
    if not address.database or address.database == ":memory:":
        raise UsageError("ledger.url: the ledger's address names no database", next_step=example)
    return address.set(drivername=_SCHEMES[address.drivername])


def _use_wal(file: Path, shown: str) -> None:
    """Let readers and one writer work side by side. The mode stays in the file.

    SQLite does not wait for its busy timeout when several processes change the mode at once, so the wait is here:
    https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
                if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise _error(shown, str(error), sqlite=True) from error
            time.sleep(0.02)
        except OSError as error:
            step = "Check the permissions of the folder above."
            raise UsageError(f"the ledger's folder cannot be made: {error.strerror}: {file.parent}", next_step=step) from error
        else:
            return


def _sqlite(address: sa.URL) -> sa.Engine:
    arguments = {"timeout": BUSY_SECONDS}
    engine = sa.create_engine(address, connect_args=arguments, max_overflow=-1, json_serializer=_json, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _own_transactions(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        # The driver would begin a transaction at the first write only, after the reads that it rests on; so it begins none.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=NORMAL")  # safe with WAL against kill -9; a power cut may cost the last records

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later would fail when another wrote in between, without waiting.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")

    return engine


def _postgresql(address: sa.URL) -> sa.Engine:
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "trainshed"}
    return sa.create_engine(
        address,
        connect_args={name: value for name, value in arguments.items() if name not in address.query},
        pool_size=2,
        max_overflow=8,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        json_serializer=_json,
        hide_parameters=True,
    )


def _version(connection: sa.Connection) -> str | None:
    """Return the schema's revision, None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _json(document: Any) -> str:  # noqa: ANN401 - any JSON document
    """Write JSON that PostgreSQL takes too: it refuses NaN and infinities, which metrics may well be; they become text."""
    try:
        return json.dumps(document, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(document), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON has no word for
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in the ledger")


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON document
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
