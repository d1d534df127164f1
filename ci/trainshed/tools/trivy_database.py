"""Trivy's vulnerability database: fetched when it is missing or stale, put in place whole, and never called fresh when it is not."""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.tools import process

_DOWNLOAD_SECONDS = 900.0
_RETRY_SECONDS = 900.0
_FILE, _METADATA = "trivy.db", "metadata.json"


@dataclass(frozen=True, kw_only=True)
class Available:
    """A database that is fresh enough: when its makers updated it, and which it is (``sha256:…``)."""

    updated: dt.datetime
    digest: str


class Database:
    """The database under ``folder/db``, shared by all processes of this machine.

    Args:
        folder: where it is kept.
        program: the path of Trivy.
        repository: an OCI reference to fetch it from; empty for Trivy's own.
        max_age: seconds since its makers' update from which it is stale.
        insecure: fetch it without checking certificates.
        login: gives the variables with the repository's log-in, when it is fetched.
    """

    def __init__(  # noqa: PLR0913 - what a database is
        self,
        folder: Path,
        *,
        program: str,
        repository: str = "",
        max_age: float = 86_400.0,
        insecure: bool = False,
        login: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._folder, self._program, self._repository = folder, program, repository
        self._max_age, self._insecure, self._login = max_age, insecure, login
        self._failure = folder / "database-failure.json"
        self.problem = ""
        """Why there is none, once `available` has returned None."""

    @property
    def path(self) -> Path:
        """Return the folder that a cache of Trivy's links to as its ``db``."""
        return self._folder / "db"

    def available(self) -> Available | None:
        """Return the database, fetched anew when it is missing or stale; None (see `problem`) when there is none that is fresh.

        A fetch that failed is not tried again within a quarter of an hour, so that a machine without a network is not slowed down
        by every command.
        """
        found = self._present()
        if found is not None:
            return found
        with self._locked():
            found = self._present()  # another process may have fetched it while we waited
            if found is None and self._may_try():
                self._fetch()
                found = self._present()
        return found

    def _present(self) -> Available | None:
        try:
            content = (self.path / _METADATA).read_bytes()
            size = (self.path / _FILE).stat().st_size
            updated = dt.datetime.fromisoformat(str(json.loads(content)["UpdatedAt"]))
        except (OSError, ValueError, KeyError, TypeError):
            self.problem = self.problem or "there is no vulnerability database"
            return None
        age = time.time() - updated.timestamp()
        if age > self._max_age:
            self.problem = f"the vulnerability database is of {updated:%Y-%m-%d %H:%M} UTC, older than {self._max_age / 3600:g} h"
            return None
        self.problem = ""
        return Available(updated=updated, digest=f"sha256:{hashlib.sha256(f'{updated.isoformat()} {size}'.encode()).hexdigest()}")

    def _may_try(self) -> bool:
        failure = _read(self._failure)
        recent = time.time() - float(failure.get("at", 0.0)) < _RETRY_SECONDS
        if recent and failure.get("repository") == self._repository:
            self.problem = str(failure.get("problem"))
            return False
        return True

    def _fetch(self) -> None:
        with files.scratch(self._folder, "database") as scratch:
            command = [self._program, "image", "--download-db-only", "--cache-dir", str(scratch), "--no-progress", "--skip-version-check"]
            command += ["--config", "", "--disable-telemetry"]
            command += ["--db-repository", self._repository] if self._repository else []
            command += ["--insecure"] if self._insecure else []
            outcome = process.run(command, timeout=_DOWNLOAD_SECONDS, check=False, cwd=scratch, environment=self._login())
            if outcome.code != 0 or not (scratch / "db" / _FILE).is_file():
                self.problem = f"the vulnerability database could not be fetched: {_reason(outcome.errors)}"
                files.write_json(self._failure, {"at": time.time(), "repository": self._repository, "problem": self.problem})
                return
            # Servers of other processes keep the old file open: it lives on until they end.
            if self.path.exists():
                self.path.rename(scratch / "old")
            (scratch / "db").rename(self.path)
            self._failure.unlink(missing_ok=True)
            shutil.rmtree(scratch / "old", ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "database.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    process.pause(process.POLL_SECONDS)
                else:
                    break
            yield


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _reason(said: str) -> str:
    """Return the innermost cause of Trivy's long chains."""
    lines = [line.strip(" \t*") for line in said.splitlines() if line.strip()]
    return lines[-1].rpartition("error: ")[2][:300] if lines else "no reason given"
