"""The ledger on a real PostgreSQL server, and between processes on both databases."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.support import postgres
from tests.support.ledger_contract import LedgerContract
from trainshed.errors import RemoteError, WorkFailed
from trainshed.ledger import database as database_of
from trainshed.ledger.database import Database
from trainshed.ledger.store import Ledger
from trainshed.ledger.tables import leases
from trainshed.settings import Tier

ROOT = Path(__file__).resolve().parents[2]
LONG = 600
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


class TestPostgresql(LedgerContract):
    """All that a ledger promises, on PostgreSQL."""

    @pytest.fixture
    def empty_url(self, server: postgres.Server) -> str:
        return server.create(f"empty{next(_numbers)}")

    @pytest.fixture
    def url(self, empty_url: str) -> str:
        return empty_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    server: postgres.Server = request.getfixturevalue("server")
    return server.create(f"empty{next(_numbers)}")


class Workers:
    """Processes that run `tests.support.ledger_worker`, in a group of their own."""

    def __init__(self, url: str, count: int, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ledger_worker", url, str(count), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> list[str]:
        """Close their stdin, wait for their end and return the lines that they still said."""
        output, _ = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0
        return output.split()


@pytest.fixture
def run(url: str) -> Iterator[Callable[..., Workers]]:
    """Return what starts workers on the ledger; they are ended after the test, whatever happened."""
    with ExitStack() as closing:

        def start(count: int, *arguments: str) -> Workers:
            workers = Workers(url, count, *arguments)
            closing.enter_context(workers.process)
            closing.callback(lambda: _kill(workers.process.pid))
            return workers

        yield start


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def test_sixteen_processes_that_open_and_write_at_once_lose_nothing(url: str, run: Callable[..., Workers]) -> None:
    names = run(16, "write", "5").end()
    assert len(set(names)) == 80
    with Ledger.open(url, tier=Tier.LAPTOP) as ledger:
        assert {event.name for event in ledger.events("run", "dev")} == set(names)
        verdicts = ledger.verdicts(f"sha256:{name}" for name in names)
        assert {verdict.details["name"] for verdict in verdicts.values()} == set(names)
        for name in names:
            image = ledger.last_image(name, "r")
            assert image is not None
            assert image.manifest == {"name": name}
            assert ledger.attachment(f"sha256:{name}", "sbom") == name.encode()
            assert ledger.lock(commit=name) == {"name": name}


def test_of_many_builders_one_at_a_time_holds_the_lease(url: str, run: Callable[..., Workers], tmp_path: Path) -> None:
    assert run(4, "build", str(tmp_path / "inside"), "5").end() == ["done"] * 4
    with Ledger.open(url, tier=Tier.LAPTOP) as ledger:
        assert len(ledger.events("run", "dev")) == 20


def test_the_lease_of_a_killed_builder_is_taken_over_long_before_it_runs_out(url: str, run: Callable[..., Workers]) -> None:
    workers = run(1, "hold", str(LONG))
    holder = workers.line()
    os.kill(int(holder), signal.SIGKILL)
    workers.process.wait(LONG)
    with Ledger.open(url, tier=Tier.LAPTOP) as ledger, ledger.lease("build", deadline=LONG / 2) as lease:
        assert lease.taken_over.startswith(f"process {holder} on ")


def test_the_lease_of_a_builder_killed_on_another_host_runs_out_and_not_before(url: str, run: Callable[..., Workers]) -> None:
    workers = run(1, "elsewhere", "3")
    holder = workers.line()
    os.kill(int(holder), signal.SIGKILL)
    workers.process.wait(LONG)
    database = Database(url)
    with contextlib.closing(database), Ledger.open(url, tier=Tier.LAPTOP) as ledger:
        expires = clock(database, leases.c.expires)
        with ledger.lease("build", deadline=LONG) as lease:
            assert clock(database, database.clock) >= expires
            assert lease.taken_over == f"process {holder} on another-agent"


def test_a_holder_on_another_host_that_renews_keeps_its_lease(url: str, run: Callable[..., Workers]) -> None:
    workers = run(1, "elsewhere", "9")
    holder = workers.line()
    with (
        Ledger.open(url, tier=Tier.LAPTOP) as ledger,
        pytest.raises(WorkFailed, match=f"process {holder} on another-agent"),
        ledger.lease("build", deadline=11),
    ):
        pytest.fail("two hold it")


def clock(database: Database, value: sa.ColumnElement[float]) -> float:
    with database.read() as connection:
        return float(connection.execute(sa.select(value)).scalar_one())


def test_a_builder_that_is_stopped_for_long_loses_its_lease_and_learns_it(url: str, run: Callable[..., Workers]) -> None:
    workers = run(1, "hold", "1")
    holder = workers.line()
    os.kill(int(holder), signal.SIGSTOP)
    with Ledger.open(url, tier=Tier.LAPTOP) as ledger, ledger.lease("build", deadline=LONG) as lease:
        assert lease.taken_over.startswith(f"process {holder} on ")
        os.kill(int(holder), signal.SIGCONT)
        assert workers.line() == "lost"
    assert workers.end() == []


def test_a_wrong_password_is_a_remote_error_that_does_not_show_it(server: postgres.Server) -> None:
    wrong = server.url.replace(server.password, "geheim")
    with pytest.raises(RemoteError, match="password authentication failed") as raised:
        Ledger.open(wrong, tier=Tier.LAPTOP)
    assert "geheim" not in raised.value.message


def test_a_server_that_restarts_costs_a_running_command_nothing(server: postgres.Server) -> None:
    with Ledger.open(server.create("restarted"), tier=Tier.LAPTOP) as ledger:
        ledger.record_event("run", "dev", "before", "k", {})
        server.drop_connections()
        ledger.record_event("run", "dev", "after", "k", {})
        assert [event.name for event in ledger.events("run", "dev")] == ["after", "before"]


def test_a_server_that_is_away_for_a_moment_is_waited_for_and_no_lease_is_lost(server: postgres.Server) -> None:
    with Ledger.open(server.create("away"), tier=Tier.LAPTOP) as ledger, ledger.lease("build", ttl=60) as lease:
        server.stop()
        try:
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(ledger.record_event, "run", "dev", "meanwhile", "k", {})
                with pytest.raises(TimeoutError):
                    writing.result(1)
                server.start()
                writing.result(LONG)
        finally:
            if not running(server):
                server.start()
        assert [event.name for event in ledger.events("run", "dev")] == ["meanwhile"]
        assert not lease.lost


def test_a_server_that_stays_away_is_a_remote_error(server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_of, "_PATIENCE_SECONDS", 0.5)
    with Ledger.open(server.create("gone"), tier=Tier.LAPTOP) as ledger:
        server.stop()
        try:
            with pytest.raises(RemoteError, match="failed: connection"):
                ledger.verdicts(["sha256:1"])
            with pytest.raises(RemoteError, match="failed: connection"):
                ledger.record_event("run", "dev", "n", "k", {})
        finally:
            server.start()


def test_a_server_without_room_for_another_login_is_waited_for(server: postgres.Server) -> None:
    url = server.create("crowd")
    Ledger.open(url, tier=Tier.LAPTOP).close()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE crowded LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
        connection.execute("GRANT USAGE ON SCHEMA crowd TO crowded")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA crowd TO crowded")
    crowded = url.replace(f"{postgres.USER}:{server.password}", "crowded:x")
    with psycopg.connect(crowded), ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Ledger.open, crowded, tier=Tier.LAPTOP)
        with pytest.raises(TimeoutError):
            opening.result(1)
        server.drop_connections()
        opening.result(LONG).close()


def test_sixteen_processes_need_few_connections(server: postgres.Server) -> None:
    url = server.create("few")
    with ExitStack() as closing:
        for _ in range(16):
            ledger = closing.enter_context(Ledger.open(url, tier=Tier.LAPTOP))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number, ledger=ledger: ledger.verdicts([f"sha256:{number}"]), range(8)))
        with psycopg.connect(server.url) as connection:
            kept = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trainshed'").fetchone()
    assert kept == (16,)


def running(server: postgres.Server) -> bool:
    try:
        psycopg.connect(server.url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
