"""Trivy's database: fetched when it is missing or stale, whole or not at all."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import pytest

from tests.support.trivy_db import write_database
from trainshed.tools.trivy_database import Database

ADVISORIES = {("zlib", "CVE-2099-0001"): {"severity": "LOW"}}
HOUR = dt.timedelta(hours=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def trivy(folder: Path, *, made: dt.datetime | None = None) -> str:
    """Make a program that fetches a database as Trivy does, or fails when there is none to fetch."""
    count = folder / "asked"
    copying = "exit 1"
    if made is not None:
        write_database(folder / "remote" / "db", ADVISORIES, updated=made)
        copying = f'while [ "$1" != --cache-dir ]; do shift; done; cp -r {folder}/remote/db "$2/"'
    program = folder / "trivy"
    program.write_text(f'#!/bin/sh\necho "$*" >> {count}\necho "FATAL error: outer error: no such host" >&2\n{copying}\n')
    program.chmod(0o755)
    return str(program)


def asked(folder: Path) -> list[str]:
    file = folder / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_a_fresh_database_is_taken_without_a_fetch(tmp_path: Path) -> None:
    write_database(tmp_path / "state" / "db", ADVISORIES, updated=now() - HOUR)
    found = Database(tmp_path / "state", program=trivy(tmp_path)).available()
    assert found is not None
    assert found.updated == now().replace(tzinfo=dt.UTC) - HOUR or now() - found.updated < 2 * HOUR
    assert found.digest.startswith("sha256:")
    assert asked(tmp_path) == []


@pytest.mark.parametrize("old", [None, dt.timedelta(days=3)])
def test_a_missing_or_stale_database_is_fetched_once(tmp_path: Path, old: dt.timedelta | None) -> None:
    if old is not None:
        write_database(tmp_path / "state" / "db", ADVISORIES, updated=now() - old)
    program = trivy(tmp_path, made=now())
    database = Database(tmp_path / "state", program=program, repository="mirror.example.org/db:2", insecure=True)
    found = database.available()
    assert found is not None
    assert now() - found.updated < HOUR
    assert database.available() == found
    assert len(asked(tmp_path)) == 1
    assert "--db-repository mirror.example.org/db:2 --insecure" in asked(tmp_path)[0]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["database.lock", "db"]


def test_two_databases_have_two_digests(tmp_path: Path) -> None:
    digests = set()
    for hours in (1, 2):
        write_database(tmp_path / str(hours) / "db", ADVISORIES, updated=now() - hours * HOUR)
        found = Database(tmp_path / str(hours), program="none").available()
        assert found is not None
        digests.add(found.digest)
    assert len(digests) == 2


def test_a_fetch_that_failed_is_told_and_not_tried_at_once_again(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "state", program=trivy(tmp_path))
        assert database.available() is None
        assert database.problem == "the vulnerability database could not be fetched: no such host"
    assert len(asked(tmp_path)) == 1


def test_another_mirror_or_a_quarter_of_an_hour_is_reason_to_try_again(tmp_path: Path) -> None:
    program = trivy(tmp_path)
    assert Database(tmp_path / "state", program=program).available() is None
    assert Database(tmp_path / "state", program=program, repository="mirror/db").available() is None
    failure = tmp_path / "state" / "database-failure.json"
    document = json.loads(failure.read_text())
    failure.write_text(json.dumps({**document, "at": time.time() - 1000}))
    assert Database(tmp_path / "state", program=program, repository="mirror/db").available() is None
    assert len(asked(tmp_path)) == 3


def test_a_stale_database_that_cannot_be_renewed_is_not_called_fresh(tmp_path: Path) -> None:
    write_database(tmp_path / "state" / "db", ADVISORIES, updated=now() - dt.timedelta(days=3))
    database = Database(tmp_path / "state", program=trivy(tmp_path))
    assert database.available() is None
    assert (tmp_path / "state" / "db" / "trivy.db").is_file()


def test_a_fetch_that_brings_an_old_database_is_no_success(tmp_path: Path) -> None:
    database = Database(tmp_path / "state", program=trivy(tmp_path, made=now() - dt.timedelta(days=9)), max_age=3600.0)
    assert database.available() is None
    assert "older than 1 h" in database.problem


def test_a_broken_database_counts_as_none(tmp_path: Path) -> None:
    write_database(tmp_path / "state" / "db", ADVISORIES)
    (tmp_path / "state" / "db" / "metadata.json").write_text("{")
    (tmp_path / "state" / "database-failure.json").write_text("[")
    assert Database(tmp_path / "state", program=trivy(tmp_path)).available() is None
