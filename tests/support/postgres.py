"""A real PostgreSQL server of Debian's package, in a folder of its own, on a free port of loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

_PACKAGES = Path(__file__).parents[2] / "scripts" / "_packages"
DEADLINE = 60.0
USER = "ledger"


@dataclass(frozen=True)
class Server:
    """A running server. ``password`` is random: it must never be seen in a message."""

    port: int
    password: str
    start: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def create(self, name: str) -> str:
        """Make an empty schema and return the address that sees only it: a database of its own would be a copy of 7 MB.

        A test that is tried again finds it empty again.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url}?options=-csearch_path%3D{name}"

    def drop_connections(self) -> None:
        """End all connections, as a restart of the server does."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Run a server as the user postgres (it refuses root), or as ourselves when we are nobody special."""
    binaries = _binaries()
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="trainshed-postgres-"))
    try:
        shutil.chown(folder, user)
        control = _Control(binaries, folder, user, _free_port())
        found = Server(port=control.port, password=secrets.token_hex(16), start=lambda: control.start(found), stop=control.stop)
        _initialise(binaries, folder, user, found)
        try:
            found.start()
            yield found
        finally:
            found.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Control:
    """Starts and stops the server's process."""

    def __init__(self, binaries: Path, folder: Path, user: str, port: int) -> None:
        self.port = port
        self._folder, self._user = folder, user
        self._command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        self._command += ["-k", str(folder), "-c", "fsync=off", "-c", "max_connections=100"]
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, server: Server) -> None:
        with (self._folder / "log").open("ab") as log:
            self._running = subprocess.Popen(
                self._command, user=self._user, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        _wait(server, self._running, self._folder / "log")

    def stop(self) -> None:
        """End it at once; what was committed is there again at the next start."""
        if self._running is not None:
            self._running.send_signal(signal.SIGQUIT)
            self._running.wait(DEADLINE)
            self._running = None


def _binaries() -> Path:
    """Return the folder of the newest installed server; on a bare Debian or Ubuntu, as root, install it first."""
    if not _installed() and os.geteuid() == 0 and shutil.which("apt-get"):
        # Without this file the package would make a cluster and start it; this server is all that is wanted.
        settings = Path("/etc/postgresql-common/createcluster.d/trainshed.conf")
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("create_main_cluster = false\n")
        subprocess.run([_PACKAGES, "postgresql"], check=True, capture_output=True, timeout=1800)
    found = _installed()
    assert found, "PostgreSQL's server is missing: install the package postgresql"
    return found[-1]


def _installed() -> list[Path]:
    return sorted((file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/initdb")), key=lambda folder: int(folder.parent.name))


def _initialise(binaries: Path, folder: Path, user: str, found: Server) -> None:
    password = folder / "password"
    password.write_text(found.password)
    password.chmod(0o600)
    shutil.chown(password, user)
    arguments: list[str | Path] = [binaries / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", password]
    subprocess.run([*arguments, "-E", "UTF8", "--locale=C", "--no-sync"], user=user, cwd=folder, check=True, capture_output=True)


def _wait(found: Server, running: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            psycopg.connect(found.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
