"""What a ledger promises, whatever its database: inherited by the tests on SQLite and by those on PostgreSQL.

The inheriting class gives two fixtures: ``url``, the address of a ledger of this test's own, and ``empty_url``, that of a database
with nothing in it yet.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy as sa

from trainshed import owner
from trainshed.errors import Interrupted, RemoteError, WorkFailed
from trainshed.ledger import filling, graph, leases, lineage, tables
from trainshed.ledger.database import Database
from trainshed.ledger.records import Verdict, details
from trainshed.ledger.store import Ledger
from trainshed.results import Case
from trainshed.settings import Tier
from trainshed.tools import process

DEADLINE = 60.0
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
DEAD = owner.mark().rpartition(":")[0] + ":1"  # this process's number with another start
ELSEWHERE = "another-machine/1/1:1:1"
TWIN = f"{owner.machine()}/000000000000:1:1"  # a machine made from the same template
HERE = f"process {os.getpid()} on {socket.gethostname()}"


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail after a minute."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def verdict(digest: str = ONE, check: str = "scan", version: str = "v1", **more: Any) -> Verdict:
    return Verdict(**{"digest": digest, "check": check, "version": version, "component": "train", "green": True, "seconds": 1.0, **more})


ARN = "arn:aws:ecs:eu-central-1:123456789012:task-definition/predictor:7"


def locked() -> dict[str, Any]:
    """Return the images of a lock: of two components, with their inputs."""
    return {
        "train": {"reference": f"r/train@{ONE}", "digest": ONE, "input_digest": TWO, "base": {"docker.io/python:3": "sha256:" + "9" * 64}},
        "predictor": {"reference": f"r/predictor@{TWO}", "digest": TWO, "input_digest": ONE},
    }


def record_story(ledger: Ledger) -> None:
    """Record one build with all that came of it, from the commit to the service."""
    lock = {"project": "p", "commit": "c" * 40, "dirty": False, "images": locked()}
    ledger.record_lock(ONE, "c" * 40, "main", lock)
    found = {"id": "CVE-1", "severity": "high", "package": "zlib", "installed": "1.2", "aliases": ["GHSA-1"], "waiver": "known"}
    ledger.record_verdict(verdict(digest=TWO, component="predictor", details=details(findings=[found])))
    upload = {"version_id": "v-1", "version": "v1", "commit": "c" * 40, "dirty": False, "lock_digest": lineage.lock_digest(lock)}
    ledger.record_event("upload", "dev", "training", "k", {**upload, "images": {"train": f"r/train@{ONE}"}})
    artifacts = {
        "load.table": {"uri": "s3://d/1", "type": "system.Dataset"},
        "train.model": {"uri": "s3://m/1", "type": "system.Model"},
        "train.metrics": {"uri": "s3://x/1", "type": "system.Metrics"},
    }
    run = {"run_id": "r-1", "name": "training-1", "version_id": "v-1", "version": "v1", "artifacts": artifacts}
    ledger.record_event("run", "dev", "training", "r-1", {**run, "build_url": "https://ci/7/"})
    model = {"uri": "s3://m/1", "run_id": "r-1", "sha256": "5" * 64}
    ledger.record_event("model", "dev", "training", "s3://m/1", model)
    deployment = {"component": "predictor", "digest": TWO, "model": model, "state": "begun"}
    ledger.record_event("deployment", "prod", "predictor-service", ARN, deployment)
    ledger.record_event("deployment", "prod", "predictor-service", ARN, {**deployment, "state": "good"})


def up_label(found: lineage.Graph, kind: str) -> str:
    """Return the label of the only node of a kind."""
    (label,) = [node.label for node in found.nodes if node.kind == kind]
    return label


def shown_lineage(connection: sa.Connection) -> list[Any]:
    """Return the edges, without their times."""
    rows = connection.execute(sa.select(tables.edges)).all()
    return sorted((row.source, row.target, row.relation, row.tier, row.present, str(row.facts)) for row in rows)


class LedgerContract:
    """The tests; see the module."""

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        with Ledger.open(url, tier=Tier.PULL_REQUEST) as ledger:
            yield ledger

    @pytest.fixture
    def database(self, url: str, ledger: Ledger) -> Iterator[Database]:  # noqa: ARG002 - the ledger makes the tables
        database = Database(url)
        yield database
        database.close()

    def test_the_steps_lead_to_the_tables_as_they_are_now(self, database: Database) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []

    def test_many_that_open_a_new_ledger_at_once_all_succeed(self, empty_url: str) -> None:
        opened: list[Ledger] = []
        start = threading.Barrier(6)

        def open_it() -> None:
            start.wait(DEADLINE)
            opened.append(Ledger.open(empty_url, tier=Tier.LAPTOP))

        _together(open_it, 6)
        for ledger in opened:
            ledger.record_verdict(verdict())
            ledger.close()
        assert len(opened) == 6

    def test_a_verdict_comes_back_with_its_findings_and_test_cases(self, ledger: Ledger) -> None:
        case = Case(name="test_auc", suite="tests", seconds=0.5, failure="0.5 < 0.8")
        finding = {"id": "CVE-1", "severity": "high"}
        ledger.record_verdict(verdict(green=False, details=details(cases=[case], findings=[finding], scanner="trivy")))
        found = ledger.verdict(ONE, "scan", "v1")
        assert found is not None
        assert (found.component, found.green, found.seconds, found.tier) == ("train", False, 1.0, Tier.PULL_REQUEST)
        assert found.cases == (case,)
        assert found.findings == [finding]
        assert found.details["scanner"] == "trivy"
        assert 0 <= found.age < DEADLINE

    def test_the_newest_verdict_counts(self, ledger: Ledger) -> None:
        ledger.record_verdict(verdict(green=True))
        ledger.record_verdict(verdict(green=False))
        found = ledger.verdict(ONE, "scan", "v1")
        assert found is not None
        assert not found.green
        assert not ledger.verdicts([ONE])[ONE, "scan", "v1"].green

    @pytest.mark.parametrize("asked", [(TWO, "scan", "v1"), (ONE, "test", "v1"), (ONE, "scan", "v2")])
    def test_a_verdict_counts_for_its_digest_check_and_version_only(self, ledger: Ledger, asked: tuple[str, str, str]) -> None:
        ledger.record_verdict(verdict())
        assert ledger.verdict(*asked) is None

    def test_a_verdict_that_is_too_old_does_not_count(self, ledger: Ledger, database: Database) -> None:
        ledger.record_verdict(verdict())
        with database.write() as connection:
            connection.execute(tables.verdicts.update().values(created=tables.verdicts.c.created - 7200))
        assert ledger.verdict(ONE, "scan", "v1", max_age=3600) is None
        assert ledger.verdict(ONE, "scan", "v1", max_age=7200 + DEADLINE) is not None
        assert 7200 <= ledger.verdicts([ONE])[ONE, "scan", "v1"].age < 7200 + DEADLINE

    def test_many_digests_are_looked_up_at_once(self, ledger: Ledger) -> None:
        ledger.record_verdict(verdict(green=False))
        ledger.record_verdict(verdict())
        ledger.record_verdict(verdict(check="test"))
        ledger.record_verdict(verdict(digest=TWO))
        found = ledger.verdicts([ONE, ONE, *(f"sha256:{number:064}" for number in range(1200)), TWO])
        assert set(found) == {(ONE, "scan", "v1"), (ONE, "test", "v1"), (TWO, "scan", "v1")}
        assert found[ONE, "scan", "v1"].green
        assert ledger.verdicts([]) == {}

    def test_a_look_up_takes_its_own_tier_or_above(self, url: str) -> None:
        with (
            Ledger.open(url, tier=Tier.LAPTOP) as laptop,
            Ledger.open(url, tier=Tier.PULL_REQUEST) as pull_request,
            Ledger.open(url, tier=Tier.MAIN) as main,
        ):
            pull_request.record_verdict(verdict())
            pull_request.record_lock(ONE, "c", "b", {"made": "by a pull request"})
            pull_request.attach(ONE, "sbom", b"{}")
            pull_request.record_event("run", "dev", "training", "run-1", {"good": True})
            for above in (laptop, pull_request):
                assert above.verdict(ONE, "scan", "v1") is not None
                assert above.verdicts([ONE])
                assert above.lock(commit="c") is not None
                assert above.attachment(ONE, "sbom") == b"{}"
                assert [event.key for event in above.events("run", "dev")] == ["run-1"]
            assert main.verdict(ONE, "scan", "v1") is None
            assert main.verdicts([ONE]) == {}
            assert main.lock(commit="c") is None
            assert main.attachment(ONE, "sbom") is None
            assert main.events("run", "dev") == []

    def test_the_last_image_of_a_component_tells_what_went_in(self, ledger: Ledger) -> None:
        assert ledger.last_image("train", "r/train") is None
        for digest in (ONE, TWO):
            ledger.record_image(
                component="train", repository="r/train", input_digest=ONE, digest=digest, manifest={"files": {"a": "644"}}, seconds=9
            )
        found = ledger.last_image("train", "r/train")
        assert found is not None
        assert (found.digest, found.input_digest, found.seconds, found.tier) == (TWO, ONE, 9.0, Tier.PULL_REQUEST)
        assert found.manifest == {"files": {"a": "644"}}
        assert ledger.last_image("train", "elsewhere/train") is None

    def test_an_attachment_takes_the_place_of_the_former_one(self, ledger: Ledger) -> None:
        assert ledger.attachment(ONE, "sbom") is None
        ledger.attach(ONE, "sbom", b"old")
        ledger.attach(ONE, "sbom", b"new" * 10_000)
        ledger.attach(ONE, "log", b"")
        assert ledger.attachment(ONE, "sbom") == b"new" * 10_000
        assert ledger.attachment(ONE, "log") == b""

    def test_a_duration_is_the_median_of_the_last_five_green_times(self, ledger: Ledger) -> None:
        assert ledger.durations() == {}
        for seconds in (100, 100, 5, 1, 4, 2, 3):
            ledger.record_verdict(verdict(seconds=seconds))
        ledger.record_verdict(verdict(seconds=1000, green=False))
        ledger.record_verdict(verdict(seconds=0))
        ledger.record_verdict(verdict(check="test", seconds=7))
        assert ledger.durations() == {("train", "scan"): 3.0, ("train", "test"): 7.0}

    def test_a_lock_is_found_by_commit_and_by_branch_the_newest_first(self, ledger: Ledger) -> None:
        assert ledger.lock() is None
        for number, (commit, branch) in enumerate([("c1", "main"), ("c2", "main"), ("c3", "topic")]):
            ledger.record_lock(ONE, commit, branch, {"number": number})
        assert ledger.lock() == {"number": 2}
        assert ledger.lock(commit="c1") == {"number": 0}
        assert ledger.lock(branch="main") == {"number": 1}
        assert ledger.lock(commit="c1", branch="topic") is None

    def test_the_locks_of_a_tier_and_above_are_all_there(self, ledger: Ledger, database: Database) -> None:
        main = Ledger(database, Tier.MAIN)
        for number in range(2):
            main.record_lock(ONE, "c", "main", {"number": number})
        Ledger(database, Tier.LAPTOP).record_lock(ONE, "c", "main", {"number": 2})
        assert ledger.locks(least=Tier.MAIN) == [{"number": 1}, {"number": 0}]
        assert len(ledger.locks(least=Tier.LAPTOP)) == 3

    def test_the_locks_of_one_commit_are_found_by_tier(self, ledger: Ledger, database: Database) -> None:
        for number, (tier, commit) in enumerate([(Tier.MAIN, "c1"), (Tier.MAIN, "c2"), (Tier.PULL_REQUEST, "c1"), (Tier.MAIN, "c1")]):
            Ledger(database, tier).record_lock(ONE, commit, "main", {"number": number})
        assert ledger.locks(least=Tier.MAIN, commit="c1") == [{"number": 3}, {"number": 0}]
        assert ledger.locks(least=Tier.PULL_REQUEST, commit="c1") == [{"number": 3}, {"number": 2}, {"number": 0}]
        assert ledger.locks(least=Tier.MAIN, commit="c3") == []

    def test_how_each_key_stands_is_told_by_its_newest_event(self, ledger: Ledger, url: str) -> None:
        for name, key, state in (("a", "1", "open"), ("a", "2", "open"), ("a", "1", "done"), ("b", "3", "open")):
            ledger.record_event("release", "prod", name, key, {"state": state})
        with Ledger.open(url, tier=Tier.LAPTOP) as laptop:
            laptop.record_event("release", "prod", "a", "2", {"state": "forged"})
        assert [(event.key, event.document["state"]) for event in ledger.latest_events("release", "prod", "a")] == [
            ("1", "done"),
            ("2", "open"),
        ]
        assert ledger.latest_events("release", "dev", "a") == []

    def test_a_dry_run_reads_and_keeps_nothing(self, ledger: Ledger, url: str) -> None:
        ledger.record_verdict(verdict())
        with Ledger.open(url, tier=Tier.LAPTOP, keeps=False) as dry:
            assert dry.verdict(ONE, "scan", "v1") is not None
            dry.record_verdict(verdict(TWO))
            dry.record_event("release", "prod", "a", "1", {})
            dry.record_lock("sha256:1", "c" * 40, "main", {"images": {}})
            dry.attach(TWO, "sbom", b"{}")
            assert (dry.verdict(TWO, "scan", "v1"), dry.attachment(TWO, "sbom")) == (None, None)
            assert (dry.events("release", "prod"), dry.locks(least=Tier.LAPTOP)) == ([], [])

    def test_events_come_newest_first_by_kind_environment_name_and_key(self, ledger: Ledger) -> None:
        for number, (kind, environment, name, key) in enumerate(
            [
                ("upload", "dev", "training", "k1"),
                ("upload", "dev", "training", "k2"),
                ("upload", "dev", "other", "k1"),
                ("run", "dev", "training", "k1"),
            ]
        ):
            ledger.record_event(kind, environment, name, key, {"number": number})
        assert [event.document["number"] for event in ledger.events("upload", "dev")] == [2, 1, 0]
        assert [event.document["number"] for event in ledger.events("upload", "dev", "training")] == [1, 0]
        assert [event.document["number"] for event in ledger.events("upload", "dev", key="k1")] == [2, 0]
        assert [event.document["number"] for event in ledger.events("upload", "dev", limit=1)] == [2]
        assert ledger.events("upload", "prod") == []
        newest = ledger.events("run", "dev", "training", "k1")[0]
        assert (newest.kind, newest.environment, newest.name, newest.key) == ("run", "dev", "training", "k1")
        assert abs(newest.created - time.time()) < 3600

    def test_any_document_that_json_can_hold_survives(self, ledger: Ledger) -> None:
        odd = "é \u0000 \ud800 '\" \U0001f600"
        document = {odd: [1, 2.5, None, True, {"deep": odd}], "map": MappingProxyType({"path": PurePosixPath("a/b")}), "pair": (1, 2)}
        ledger.record_event("run", "dev", "n", "k", document)
        found = ledger.events("run", "dev")[0].document
        assert found == {odd: [1, 2.5, None, True, {"deep": odd}], "map": {"path": "a/b"}, "pair": [1, 2]}

    def test_numbers_that_json_cannot_hold_become_text(self, ledger: Ledger) -> None:
        ledger.record_event("run", "dev", "n", "k", {"metrics": [{"auc": math.nan}, (math.inf, 0.5)]})
        assert ledger.events("run", "dev")[0].document == {"metrics": [{"auc": "nan"}, ["inf", 0.5]]}

    def test_what_is_no_document_is_refused_and_nothing_is_written(self, ledger: Ledger) -> None:
        with pytest.raises(TypeError, match="object cannot be kept in the ledger"):
            ledger.record_event("run", "dev", "n", "k", {"thing": object()})
        assert ledger.events("run", "dev") == []

    def test_threads_that_write_at_once_lose_nothing(self, ledger: Ledger) -> None:
        def write() -> None:
            for number in range(10):
                ledger.record_event("run", "dev", threading.current_thread().name, str(number), {})

        _together(write, 8)
        assert len({(event.name, event.key) for event in ledger.events("run", "dev")}) == 80

    def test_a_revision_leads_back_to_its_commit_and_data_and_a_finding_to_its_service(self, ledger: Ledger) -> None:
        record_story(ledger)
        (revision,) = ledger.nodes("predictor:7")
        up = ledger.lineage([revision], up=True)
        assert {(node.kind, node.label) for node in up.nodes} == {
            ("revision", "predictor:7"),
            ("image", "predictor"),
            ("image", "train"),
            ("image", "docker.io/python:3"),
            ("input", "predictor"),
            ("input", "train"),
            ("model", "s3://m/1"),
            ("run", "training-1"),
            ("version", "training v1"),
            ("data", "load.table"),
            ("lock", up_label(up, "lock")),
            ("commit", "c" * 12),
            ("build", "https://ci/7/"),
        }
        (finding,) = ledger.nodes("GHSA-1")
        assert (finding.label, finding.aliases) == ("CVE-1", ("GHSA-1",))
        down = ledger.lineage([finding], up=False)
        assert {node.label for node in down.nodes if node.kind in {"service", "revision"}} == {"predictor-service", "predictor:7"}
        facts = {edge.relation: edge.facts for edge in down.edges if edge.facts}
        assert facts["found"] == {"severity": "high", "packages": ["zlib 1.2"], "waived": True}
        assert facts["serves"] == {"state": "good"}

    def test_a_finding_that_a_later_whole_scan_lacks_is_taken_back(self, ledger: Ledger) -> None:
        both = [{"id": "CVE-1", "severity": "low"}, {"id": "CVE-2", "severity": "low"}]
        ledger.record_verdict(verdict(details=details(findings=both)))
        ledger.record_verdict(verdict(details=details(notes=["ECR did not answer"])))
        assert all(ledger.lineage(ledger.nodes(name), up=False).edges for name in ("CVE-1", "CVE-2"))
        ledger.record_verdict(verdict(details=details(findings=both[:1])))
        assert ledger.lineage(ledger.nodes("cve-1"), up=False).edges
        assert not ledger.lineage(ledger.nodes("CVE-2"), up=False).edges
        ledger.record_verdict(verdict(details=details(findings=both)))
        assert ledger.lineage(ledger.nodes("CVE-2"), up=False).edges

    def test_the_first_commit_that_was_green_with_an_input_made_it(self, ledger: Ledger) -> None:
        for commit in ("a" * 40, "b" * 40):
            ledger.record_lock(ONE, commit, "main", {"project": "p", "commit": commit, "dirty": False, "images": locked()})
        (found,) = [node for node in ledger.nodes(TWO) if node.kind == "input"]
        assert [node.id for node in ledger.lineage([found], up=True).nodes if node.kind == "commit"] == ["a" * 40]
        (lock,) = [node for node in ledger.lineage(ledger.nodes("b" * 7), up=False).nodes if node.kind == "lock"]
        assert len([node for node in ledger.lineage([lock], up=True).nodes if node.kind == "commit"]) == 2

    def test_the_lineage_that_is_seen_is_of_the_own_tier_or_above(self, url: str) -> None:
        with Ledger.open(url, tier=Tier.PULL_REQUEST) as low, Ledger.open(url, tier=Tier.MAIN) as main:
            record_story(low)
            assert main.nodes("predictor:7") == []
            main.record_event("deployment", "prod", "predictor-service", ARN, {"component": "predictor", "digest": TWO, "state": "good"})
            (revision,) = main.nodes("predictor:7")
            assert {node.kind for node in main.lineage([revision], up=True).nodes} == {"revision", "image"}
            assert len(low.lineage([revision], up=True).nodes) > 5

    def test_of_too_many_nodes_those_that_serve_are_told_of_with_the_way_to_them(self, ledger: Ledger) -> None:
        record_story(ledger)
        for number in range(30):
            told = {"version_id": f"other-{number}", "images": {"predictor": f"r@{TWO}"}}
            ledger.record_event("upload", "prod", "other", f"k{number}", told)
        image = [node for node in ledger.nodes(TWO) if node.kind == "image"]
        found = ledger.lineage(image, up=False, limit=5)
        assert {"image", "revision", "service"} <= {node.kind for node in found.nodes}
        assert len(found.nodes) == 5
        assert found.left_out[image[0]] >= 28

    def test_a_service_is_found_by_its_name_after_years_of_images_that_bear_it(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger.record_event("deployment", "prod", "predictor", ARN, {"component": "predictor", "digest": TWO, "state": "good"})
        monkeypatch.setattr(graph, "_FOUND_AT_MOST", 3)
        for number in range(4):
            made = {"input_digest": f"sha256:{number:064}", "digest": f"sha256:{number + 9:064}"}
            ledger.record_image(component="predictor", repository="r", manifest={}, seconds=1, **made)
        assert "prod/predictor" in {node.id for node in ledger.nodes("predictor")}
        assert {node.kind for node in ledger.nodes("predictor", kind="input")} == {"input"}

    def test_a_record_of_any_shape_is_kept_whatever_its_lineage(self, ledger: Ledger) -> None:
        fields = ("images", "run_id", "version_id", "artifacts", "model", "digest", "done", "tags", "commit", "sha256", "uri", "component")
        odds: list[Any] = [None, 7, "text", ["list"], {"deep": {}}, "\u0000", "\ud800", "long" * 5000, [{"id": 7}]]
        for number, odd in enumerate(odds, 1):
            document = {"bases": odd, "findings": odd, "dirty": False, **dict.fromkeys(fields, odd)}
            for kind in ("upload", "run", "model", "deployment", "release"):
                ledger.record_event(kind, "dev", "n", "k", document)
                assert len(ledger.events(kind, "dev")) == number
            ledger.record_lock(ONE, "c", "b", {**document, "images": {"train": odd, "other": {"digest": odd, "base": odd, "origin": odd}}})
            ledger.record_image(component="train", repository="r", input_digest=ONE, digest=ONE, manifest=document, seconds=1)
            ledger.record_verdict(verdict(details={"findings": odd, "notes": odd}))
        assert ledger.nodes("train")

    def test_what_stood_before_the_lineage_is_projected_by_the_step_to_it(self, ledger: Ledger, database: Database) -> None:
        record_story(ledger)
        ledger.record_verdict(verdict(digest=TWO, details=details(findings=[{"id": "CVE-2", "severity": "low"}])))
        with database.read() as connection:
            before = shown_lineage(connection)
        with database.write() as connection:
            connection.execute(tables.nodes.delete())
            connection.execute(tables.edges.delete())
            filling.fill(connection)
        with database.read() as connection:
            after = shown_lineage(connection)
        assert before == after
        assert len(after) > 20

    def test_a_failing_database_is_a_remote_error_without_the_data(self, ledger: Ledger, database: Database) -> None:
        with database.write() as connection:
            connection.execute(sa.text("DROP TABLE events"))
        with pytest.raises(RemoteError, match="events") as raised:
            ledger.record_event("run", "dev", "n", "k", {"password": "geheim"})
        assert "geheim" not in raised.value.message
        assert "INSERT" not in raised.value.message

    def test_one_at_a_time_holds_a_lease(self, ledger: Ledger) -> None:
        inside: list[int] = []
        most: list[int] = []

        def hold() -> None:
            for _ in range(3):
                with ledger.lease("build"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()

        _together(hold, 4)
        assert most == [1] * 12

    def test_leases_of_two_keys_do_not_meet(self, ledger: Ledger) -> None:
        with ledger.lease("one"), ledger.lease("two", deadline=0) as lease:
            assert lease.key == "two"

    def test_who_waits_for_a_lease_is_told_again_and_again_who_holds_it_and_gets_it_after(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "_TELL_SECONDS", 0.05)
        told: list[str] = []
        got = threading.Event()

        def wait() -> None:
            with ledger.lease("build", on_wait=told.append) as lease:
                assert lease.taken_over == ""
                got.set()

        with ledger.lease("build"):
            waiting = threading.Thread(target=wait, daemon=True)
            waiting.start()
            wait_for(lambda: len(told) >= 2)
            assert not got.is_set()
        assert got.wait(DEADLINE)
        waiting.join(DEADLINE)
        assert set(told) == {HERE}

    def test_who_waits_within_a_minute_is_told_once_and_by_the_build_where_there_is_one(
        self, ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BUILD_URL", "https://jenkins.example.org/job/diagnosis/7/")
        told: list[str] = []
        with ledger.lease("build"):
            monkeypatch.delenv("BUILD_URL")
            with pytest.raises(WorkFailed), ledger.lease("build", deadline=0.3, on_wait=told.append):
                pytest.fail("two hold it")
            with database.read() as connection:
                assert owner.alive(connection.execute(sa.select(tables.leases.c.owner)).scalar_one().partition(" ")[0])
        assert told == [f"https://jenkins.example.org/job/diagnosis/7/ on {socket.gethostname()}"]

    def test_a_wait_ends_at_its_deadline_with_the_holder_named(self, ledger: Ledger) -> None:
        with (
            ledger.lease("build"),
            pytest.raises(WorkFailed, match="build is still held by") as raised,
            ledger.lease("build", deadline=0.1),
        ):
            pytest.fail("two hold it")
        assert HERE in raised.value.message

    def test_a_wait_ends_when_the_command_is_interrupted(self, ledger: Ledger) -> None:
        def stop(_: str) -> None:
            process.stopping.set()

        try:
            with ledger.lease("build"), pytest.raises(Interrupted), ledger.lease("build", on_wait=stop):
                pytest.fail("two hold it")
        finally:
            process.stopping.clear()

    def test_a_lease_is_given_back_when_its_block_fails(self, ledger: Ledger) -> None:
        with pytest.raises(WorkFailed, match="build failed"), ledger.lease("build"):
            raise WorkFailed("build failed")
        with ledger.lease("build", deadline=0) as lease:
            assert lease.taken_over == ""

    @pytest.mark.parametrize(
        ("holder", "left"), [(DEAD, 3600.0), (ELSEWHERE, -1.0), (owner.mark(), -1.0)], ids=["dead", "silent", "asleep"]
    )
    def test_the_lease_of_a_dead_or_silent_holder_is_taken_over(self, ledger: Ledger, database: Database, holder: str, left: float) -> None:
        _plant(database, holder, left)
        with ledger.lease("build", deadline=0) as lease:
            assert lease.taken_over == f"process {holder.split(':')[1]} on {holder.split('/', maxsplit=1)[0]}"

    @pytest.mark.parametrize("holder", [ELSEWHERE, TWIN], ids=["another", "twin"])
    def test_the_lease_of_another_machine_stands_until_it_runs_out(self, ledger: Ledger, database: Database, holder: str) -> None:
        _plant(database, holder, 3600.0)
        with pytest.raises(WorkFailed, match=f"process 1 on {holder.split('/', maxsplit=1)[0]}"), ledger.lease("build", deadline=0):
            pytest.fail("two hold it")

    def test_a_holder_renews_its_lease(self, ledger: Ledger, database: Database) -> None:
        with ledger.lease("build", ttl=600) as lease:
            first = _expiry(database)
        with ledger.lease("build", ttl=0.3):
            first = _expiry(database)
            wait_for(lambda: _expiry(database) > first)
        assert not lease.lost

    def test_a_holder_learns_that_its_lease_was_taken_over_and_leaves_the_new_holder_alone(
        self, ledger: Ledger, database: Database
    ) -> None:
        with ledger.lease("build", ttl=0.1) as lease:
            with database.write() as connection:
                connection.execute(tables.leases.update().values({"token": "another", "expires": database.clock + 3600}))
            wait_for(lambda: lease.lost)
        with database.read() as connection:
            assert connection.execute(sa.select(tables.leases.c.token)).scalars().all() == ["another"]

    def test_a_database_that_goes_away_while_a_lease_is_held_does_not_fail_the_work(self, ledger: Ledger, database: Database) -> None:
        failures: list[object] = []
        sa.event.listen(ledger._database._engine, "handle_error", failures.append)
        with ledger.lease("build", ttl=0.1) as lease:
            with database.write() as connection:
                connection.execute(sa.text("ALTER TABLE leases RENAME TO away"))
            wait_for(lambda: len(failures) >= 2)
        assert not lease.lost


def _together(work: Callable[[], None], count: int) -> None:
    """Run work in threads and raise what any of them raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def _plant(database: Database, holder: str, left: float) -> None:
    with database.write() as connection:
        connection.execute(tables.leases.insert().values({"key": "build", "owner": holder, "token": "t", "expires": database.clock + left}))


def _expiry(database: Database) -> float:
    with database.read() as connection:
        return float(connection.execute(sa.select(tables.leases.c.expires)).scalar_one())
