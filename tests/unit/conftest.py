"""Unit tests cannot hurt: no socket unless the mark ``sockets`` asks for loopback, HOME nowhere, a clean environment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_socket

from trainshed.ledger import migrations
from trainshed.tools import http, process

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LEAKING = ("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_", "DOCKER_", "AWS_", "KF_", "KUBEFLOW_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_harm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(_LEAKING) or name.upper() in _PROXIES or name in {"CI", "NO_COLOR", "TAG_NAME"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "no-home"))
    monkeypatch.setenv("TRAINSHED_SLOTS", str(tmp_path_factory.getbasetemp() / "slots"))  # not those that this machine's commands share
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.02)  # retries are tried, not waited for
    process.stopping.clear()
    if request.node.get_closest_marker("sockets") is None:
        pytest_socket.disable_socket(allow_unix_socket=True)
    else:
        pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _quick_ledgers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make new ledgers by the statements that the real steps came to: those take longer than most tests, and have tests of their own."""
    if "ledger" not in request.path.relative_to(Path(__file__).parent).parts:
        monkeypatch.setattr(migrations, "upgrade", _upgrade)


_real_upgrade = migrations.upgrade


def _upgrade(connection: Connection) -> None:
    if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
        _real_upgrade(connection)
        return
    for statement in _statements():
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (migrations.HEAD,))


@cache
def _statements() -> tuple[str, ...]:
    """Return what makes a ledger as it is now, as SQLite tells of one that the real steps made."""
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        _real_upgrade(connection)
        told = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").scalars().all()
    engine.dispose()
    return tuple(told)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return an empty project: a folder with the smallest ``trainshed.toml``."""
    (tmp_path / "trainshed.toml").write_text('[project]\nname = "small"\n')
    (tmp_path / "components").mkdir()
    (tmp_path / "pipeline_templates").mkdir()
    return tmp_path
