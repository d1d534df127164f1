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
from collections.abc import Iterator
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

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def create(self, name: str) -> str:
        """Make an empty schema and return the address that sees only it: a database of its own would be a copy of 7 MB."""
        with psycopg.connect(self.url, autocommit=True) as connection:
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
        found = Server(port=_free_port(), password=secrets.token_hex(16))
        _initialise(binaries, folder, user, found)
        arguments = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(found.port), "-c", "listen_addresses=127.0.0.1"]
        arguments += ["-k", str(folder), "-c", "fsync=off", "-c", "max_connections=100"]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(arguments, user=user, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(found, running, folder / "log")
            yield found
        finally:
            running.send_signal(signal.SIGQUIT)  # at once: what it wrote goes with its folder
            running.wait(DEADLINE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
