"""Who may write what, by PostgreSQL's own rights: `ci/jenkins/ledger-roles.sql` on a real server."""

# ruff: noqa: S608 - the names of tables are those of this file

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support import postgres
from tests.support.ledger_contract import ONE, verdict
from trainshed.errors import UsageError
from trainshed.ledger import graph
from trainshed.ledger.lineage import Edge, Node
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier

ROLES = Path(__file__).resolve().parents[2] / "ci" / "jenkins" / "ledger-roles.sql"
LOGINS = {Tier.LAPTOP: "laptop", Tier.PULL_REQUEST: "pull_request", Tier.MAIN: "main"}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


class Site:
    """One ledger with its owner's address and that of each login."""

    def __init__(self, server: postgres.Server) -> None:
        self.number = next(_numbers)
        self.owner = server.create(f"site{self.number}")
        self._server = server

    def prepare(self, *, schema: bool = True) -> None:
        """Make the tables, as the owner, and the roles with a login each."""
        if schema:
            Ledger.open(self.owner, tier=Tier.MAIN).close()
            self.apply()
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            for tier, name in LOGINS.items():
                member = f" IN ROLE trainshed_{name}" if schema else ""
                connection.execute(f"CREATE ROLE {self.login(tier)} LOGIN PASSWORD 'geheim'{member}".encode())
                if not schema:
                    connection.execute(f"GRANT USAGE ON SCHEMA site{self.number} TO {self.login(tier)}".encode())

    def apply(self) -> None:
        with psycopg.connect(self.owner, autocommit=True) as connection:
            connection.execute(ROLES.read_bytes())

    def login(self, tier: Tier) -> str:
        return f"{LOGINS[tier]}{self.number}"

    def url(self, tier: Tier) -> str:
        """Return the address with the login of a tier."""
        parts = urlsplit(self.owner)
        return parts._replace(netloc=f"{self.login(tier)}:geheim@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def site(server: postgres.Server) -> Site:
    made = Site(server)
    made.prepare()
    return made


def record_all(ledger: Ledger) -> None:
    ledger.record_verdict(verdict())
    ledger.record_image(component="train", repository="r", input_digest=ONE, digest=ONE, manifest={}, seconds=1)
    ledger.attach(ONE, "sbom", b"{}")
    ledger.attach(ONE, "sbom", b"{}")
    ledger.record_lock(ONE, "c", "b", {})
    ledger.record_event("run", "dev", "n", "k", {})
    ledger.record_event("deployment", "dev", "n", "k", {"component": "train", "state": "good"})  # of which the lineage tells


WRITES: dict[str, Callable[[Ledger], None]] = {
    "verdicts": lambda ledger: ledger.record_verdict(verdict()),
    "images": lambda ledger: ledger.record_image(component="c", repository="r", input_digest=ONE, digest=ONE, manifest={}, seconds=1),
    "attachments": lambda ledger: ledger.attach(ONE, "sbom", b"forged"),
    "locks": lambda ledger: ledger.record_lock(ONE, "c", "b", {}),
    "events": lambda ledger: ledger.record_event("run", "dev", "n", "k", {}),
}
TABLES = (*WRITES, "nodes", "edges")


@pytest.mark.parametrize("tier", LOGINS)
def test_each_login_records_its_own_tier_reads_all_and_holds_leases(site: Site, tier: Tier) -> None:
    for each in LOGINS:
        with Ledger.open(site.url(each), tier=each) as ledger:
            record_all(ledger)
    with Ledger.open(site.url(tier), tier=tier) as ledger, ledger.lease("build", deadline=0):
        found = ledger.verdict(ONE, "scan", "v1")
        assert found is not None
        assert found.tier == Tier.MAIN  # the newest of the own tier or above
        assert ledger.attachment(ONE, "sbom") == b"{}"
        assert {event.tier for event in ledger.events("run", "dev")} == {each for each in Tier if each >= tier}
        assert ledger.lock(commit="c") == {}
        assert ledger.durations() == {("train", "scan"): 1.0}


@pytest.mark.parametrize("tier", [Tier.LAPTOP, Tier.PULL_REQUEST])
@pytest.mark.parametrize("table", WRITES)
def test_a_forged_tier_is_refused_by_the_database(site: Site, table: str, tier: Tier) -> None:
    with (
        Ledger.open(site.url(tier), tier=Tier.MAIN) as forger,
        pytest.raises(UsageError, match=rf'violates row-level security policy for table "{table}"') as raised,
    ):
        WRITES[table](forger)
    assert "ledger-roles.sql" in raised.value.next_step
    assert "geheim" not in raised.value.told
    with psycopg.connect(site.owner) as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


def _write(forger: Ledger, forged: list[Edge]) -> None:
    with forger._database.write() as connection:
        graph.write(connection, forged, tier=int(Tier.MAIN), created=1.0)


@pytest.mark.parametrize("tier", [Tier.LAPTOP, Tier.PULL_REQUEST])
def test_forged_lineage_is_refused_by_the_database(site: Site, tier: Tier) -> None:
    told = {"component": "train", "state": "good"}
    forged = [Edge(Node("image", ONE), Node("revision", "arn"), "runs")]
    with Ledger.open(site.url(Tier.MAIN), tier=Tier.MAIN) as ledger:
        ledger.record_event("deployment", "prod", "train", "arn", {**told, "digest": ONE})
    with psycopg.connect(site.owner) as connection:
        before = connection.execute("SELECT * FROM edges ORDER BY source, target").fetchall()
    assert before
    with Ledger.open(site.url(tier), tier=tier) as ledger:
        ledger.record_event("deployment", "prod", "train", "arn", {**told, "state": "bad"})
    with (
        Ledger.open(site.url(tier), tier=Tier.MAIN) as forger,
        pytest.raises(UsageError, match='violates row-level security policy for table "nodes"'),
    ):
        _write(forger, forged)
    with psycopg.connect(site.owner) as connection:
        assert connection.execute("SELECT * FROM edges WHERE tier = 2 ORDER BY source, target").fetchall() == before
    with Ledger.open(site.url(Tier.MAIN), tier=Tier.MAIN) as ledger:
        (revision,) = ledger.nodes("arn")
        (edge,) = ledger.lineage([revision], up=False).edges
        assert edge.facts == {"state": "good"}


@pytest.mark.parametrize("table", TABLES)
def test_a_pull_request_can_neither_change_nor_remove_nor_number_a_record(site: Site, table: str) -> None:
    with Ledger.open(site.url(Tier.MAIN), tier=Tier.MAIN) as ledger:
        record_all(ledger)
    with psycopg.connect(site.owner) as connection:
        before = connection.execute(f"SELECT * FROM {table}".encode()).fetchall()
    statements = [f"DELETE FROM {table}", f"UPDATE {table} SET tier = 1", f"TRUNCATE {table}", f"DROP TABLE {table}"]
    statements += [f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY", f"CREATE TABLE own_{table} (id int)"]
    if table in {"nodes", "edges"}:
        statements += [f"INSERT INTO {table} SELECT * FROM {table}", f"UPDATE {table} SET tier = tier"]
    elif table != "attachments":
        statements += [f"SELECT setval('{table}_id_seq', 1)", f"INSERT INTO {table} (id) VALUES (1)"]
    with psycopg.connect(site.url(Tier.PULL_REQUEST), autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        if table == "attachments":
            assert connection.execute("UPDATE attachments SET content = 'forged'").rowcount == 0
        if table == "edges":
            assert connection.execute("UPDATE edges SET present = false").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET ROLE trainshed_main")
    with psycopg.connect(site.owner) as connection:
        assert connection.execute(f"SELECT * FROM {table}".encode()).fetchall() == before


def test_the_roles_may_be_laid_down_again(site: Site) -> None:
    site.apply()
    with Ledger.open(site.url(Tier.PULL_REQUEST), tier=Tier.PULL_REQUEST) as ledger:
        record_all(ledger)
        assert ledger.attachment(ONE, "sbom") == b"{}"


def test_without_a_schema_a_login_that_may_not_make_it_is_told_who_may(server: postgres.Server) -> None:
    site = Site(server)
    site.prepare(schema=False)
    with pytest.raises(UsageError, match="no schema yet, or an older one, and this login may not change that") as raised:
        Ledger.open(site.url(Tier.PULL_REQUEST), tier=Tier.PULL_REQUEST)
    assert "with the owner's login" in raised.value.next_step
    with psycopg.connect(site.owner) as connection, pytest.raises(psycopg.errors.RaiseException, match="no ledger in schema"):
        connection.execute(ROLES.read_bytes())


def test_a_login_without_any_role_is_told_where_the_rights_are(site: Site, server: postgres.Server) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"REVOKE trainshed_main FROM {site.login(Tier.MAIN)}".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA site{site.number} TO {site.login(Tier.MAIN)}".encode())
    with pytest.raises(UsageError, match="permission denied for table alembic_version") as raised:
        Ledger.open(site.url(Tier.MAIN), tier=Tier.MAIN)
    assert "ledger-roles.sql" in raised.value.next_step
