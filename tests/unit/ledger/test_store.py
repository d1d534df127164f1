"""The ledger on SQLite, and what is wrong with an address or a file."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ledger_contract import ONE, LedgerContract, verdict
from trainshed.errors import RemoteError, UsageError
from trainshed.ledger import migrations
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "50%" / "ledger.sqlite"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ledger that has its tables: the steps to them are taken once, not in every test."""
    file = tmp_path_factory.mktemp("made") / "ledger.sqlite"
    Ledger.open(f"sqlite:///{file}", tier=Tier.LAPTOP).close()
    return file


class TestSqlite(LedgerContract):
    """All that a ledger promises, on SQLite."""

    @pytest.fixture
    def empty_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/empty.sqlite"

    @pytest.fixture
    def url(self, file: Path, made: Path) -> str:
        file.parent.mkdir(parents=True)
        shutil.copy(made, file)
        return f"sqlite:///{file}"


def test_the_head_of_the_steps_is_the_one_that_the_code_names() -> None:
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert steps.get_current_head() == migrations.HEAD
    assert {step.revision for step in steps.walk_revisions()} == migrations.KNOWN


def test_a_ledger_that_is_up_to_date_opens_without_alembic(url: str) -> None:
    with Ledger.open(url, tier=Tier.LAPTOP) as ledger:
        ledger.record_verdict(verdict())
    program = (
        "import sys; from trainshed.ledger.store import Ledger; from trainshed.settings import Tier\n"
        f"with Ledger.open({url!r}, tier=Tier.LAPTOP) as ledger: assert ledger.verdict({ONE!r}, 'scan', 'v1') is not None\n"
        "print('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"


def test_the_records_need_no_sqlalchemy() -> None:
    program = "import sys, trainshed.ledger.records; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_newer_ledger_is_left_alone(url: str, file: Path) -> None:
    Ledger.open(url, tier=Tier.LAPTOP).close()
    connection = sqlite3.connect(file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match="has schema 9999, newer than the 0002") as raised:
        Ledger.open(url, tier=Tier.LAPTOP)
    assert raised.value.next_step.startswith("Update Trainshed")


def test_a_file_that_is_no_ledger_is_left_alone(url: str, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("these are somebody's notes, longer than the header of a database\n" * 20)
    with pytest.raises(UsageError, match=r"ledger\.sqlite is not a ledger: file is not a database"):
        Ledger.open(url, tier=Tier.LAPTOP)
    assert file.read_text().startswith("these are somebody's notes")


def test_a_ledger_that_cannot_be_opened_says_so(url: str, file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be opened: unable to open database file"):
        Ledger.open(url, tier=Tier.LAPTOP)


def test_a_ledger_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"the ledger's folder cannot be made: .*file/below"):
        Ledger.open(f"sqlite:///{tmp_path}/file/below/ledger.sqlite", tier=Tier.LAPTOP)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ledger.sqlite", "is not a URL"),
        ("postgresql://u:geheim@host:port/l", "is not a URL"),
        ("mysql://u:geheim@host/ledger", "a ledger on 'mysql' is not supported"),
        ("sqlite://", "names no database"),
        ("sqlite:///:memory:", "names no database"),
        ("postgresql://u:geheim@host", "names no database"),
    ],
)
def test_an_address_that_is_none_is_refused_with_an_example_and_without_the_password(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        Ledger.open(address, tier=Tier.LAPTOP)
    assert "geheim" not in raised.value.message
    assert raised.value.next_step.startswith("Write sqlite:///FILE or postgresql://")


@pytest.mark.sockets
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_server_that_does_not_answer_is_a_remote_error_without_the_password(scheme: str) -> None:
    with pytest.raises(RemoteError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/ledger failed") as raised:
        Ledger.open(f"{scheme}://me:geheim@127.0.0.1:1/ledger?password=geheim", tier=Tier.LAPTOP)
    assert "geheim" not in raised.value.message
