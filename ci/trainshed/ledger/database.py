"""Opens a database, brings its schema up to date, and says what SQLite and PostgreSQL do differently: locks, clocks, errors."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from trainshed.errors import RemoteError, UsageError
from trainshed.ledger import migrations
from trainshed.tools import process

BUSY_SECONDS = 60.0
_CONNECT_SECONDS = 10
_PATIENCE_SECONDS = 30.0
"""So long a server that restarts costs a running command nothing."""
_RETRY_SECONDS = 0.2
_BUSY = re.compile(r"starting up|not yet accepting|shutting down|recovery mode|too many (clients|connections)|connection slots")
_AWAY = re.compile(r"refused|closed the connection|terminating connection|reset by peer|No such file|timeout|resolve|translate host")
_FORBIDDEN = "42501"
_ROLES = "ci/jenkins/ledger-roles.sql"
_WRITES = "trainshed_writes"
_MIGRATION_LOCK = 7_241_926_073  # any number: PostgreSQL's advisory lock that lets one process migrate
_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class _RefusedError(UsageError):
    """The database's own rights forbid what was asked."""


class Database:
    """An engine whose schema is up to date. ``shown`` is the address without password and query."""

    def __init__(self, url: str) -> None:
        address = _address(url)
        self.shown = address.set(query={}).render_as_string(hide_password=True)
        self.sqlite = address.drivername == "sqlite"
        if self.sqlite:
            _use_wal(Path(str(address.database)), self.shown)
        self._engine = _sqlite(address) if self.sqlite else _postgresql(address)
        self._reached = False
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
        with self._translated(), self._connected(_PATIENCE_SECONDS) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, patience: float | None = None) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that writes; it is committed at the end of the block.

        Args:
            patience: seconds to wait for a server that restarts or is full; as long as for everything, where it is not given.

        Raises:
            RemoteError: the database failed; nothing was written.
            UsageError: this login may not do it.
        """
        patience = _PATIENCE_SECONDS if patience is None else patience
        with self._translated(), self._connected(patience).execution_options(**{_WRITES: True}) as connection, connection.begin():
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

    def _connected(self, patience: float) -> sa.Connection:
        """Connect; wait for a server that was there before, or that says itself that it will be."""
        ends = time.monotonic() + patience
        while True:
            try:
                connection = self._engine.connect()
            except OperationalError as error:
                said = str(error.orig)
                if self.sqlite or time.monotonic() > ends or not (_BUSY.search(said) or (self._reached and _AWAY.search(said))):
                    raise
                process.pause(_RETRY_SECONDS)
            else:
                self._reached = True
                return connection

    def _prepare(self) -> None:
        if self._version_at_head():
            return
        try:
            self._upgrade()
        except _RefusedError as error:
            message = f"{error.message}: it has no schema yet, or an older one, and this login may not change that"
            raise UsageError(message, next_step=f"Run `trainshed doctor` once with the owner's login, then {_ROLES}.") from error

    def _upgrade(self) -> None:
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
            if getattr(cause, "sqlstate", None) == _FORBIDDEN:
                step = f"Use the login of this kind of build; the rights of each are in {_ROLES}."
                raise _RefusedError(f"the ledger {self.shown} refused: {_first_line(cause)}", next_step=step) from error
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
    # A server that vanishes without a word is noticed within a minute; the system's own limit is a quarter of an hour.
    lost = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "trainshed", **lost}
    engine = sa.create_engine(
        address,
        connect_args={name: value for name, value in arguments.items() if name not in address.query},
        isolation_level="READ COMMITTED",  # whatever the server's default is: after a wait for a lock the newest rows are to be seen
        pool_size=1,  # twenty branches on each of many agents: what is kept idle counts against the server's max_connections
        max_overflow=3,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        json_serializer=_json,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _limits(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        # A process that is stopped within a transaction must not hold up all the others.
        for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {name} = '{BUSY_SECONDS:g}s'")
        connection.commit()

    return engine


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
