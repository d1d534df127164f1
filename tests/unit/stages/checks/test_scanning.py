"""Several sources asked about one image: who is asked, who must answer, and what is judged."""

from __future__ import annotations

import datetime as dt
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.ecr_answers import BASIC_FINDING
from tests.support.images import DIGEST, OTHER_DIGEST, PYTHON, write
from tests.support.ledger_contract import wait_for
from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, ToolMissing, UsageError, WorkFailed
from trainshed.findings.ecr import BASIC
from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.images.hashes import HashCache
from trainshed.results import Result, Status
from trainshed.settings import Tier
from trainshed.stages import budgets
from trainshed.stages.checks import sources
from trainshed.stages.context import Context
from trainshed.stages.doctoring import services
from trainshed.stages.lookup import Found
from trainshed.stages.survey import Pin, Survey
from trainshed.stages.work import Work
from trainshed.tools import slots
from trainshed.tools.ecr_scans import NoAnswer, Scan, Wanted

ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
NOW = dt.datetime.now(dt.UTC)
VULNERABILITY = {"VulnerabilityID": "CVE-2024-5535", "PkgName": "openssl", "Severity": "MEDIUM", "FixedVersion": "3.0.15"}
WAIVER = '[[waiver]]\nid = "CVE-2024-5535"\nowner = "risk"\nreason = "not reachable"\nexpires = 2099-01-01\n'


@dataclass
class FakeTrivy:
    """A Trivy that finds what it is told to."""

    version: str = "1"
    error: Exception | None = None
    updated: dt.datetime = NOW
    scans: int = 0
    found: list[dict[str, str]] = field(default_factory=lambda: [VULNERABILITY])

    def available(self) -> Any:
        return SimpleNamespace(updated=self.updated)

    def scan(self, _reference: str, *, scanners: Any, log: Path) -> dict[str, Any]:
        assert scanners
        self.scans += 1
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("Trivy's own words\n")
        if self.error is not None:
            raise self.error
        return {"SchemaVersion": 2, "Results": [{"Target": "image (debian 12)", "Vulnerabilities": self.found}]}

    def sbom(self, _document: Any) -> bytes:
        return b"{}"


@dataclass
class FakeScans:
    """ECR's scans, each as long as it is told to take."""

    answer: Callable[[Wanted, Callable[[float], None]], Scan]
    clock: Callable[[], float] = lambda: 0.0
    asked: list[Wanted] = field(default_factory=list)

    def await_findings(self, wanted: Wanted, *, on_progress: Callable[[str], None], pause: Callable[[float], None]) -> Scan:
        self.asked.append(wanted)
        on_progress("waiting for ECR's findings")
        return self.answer(wanted, pause)

    def expected(self) -> str | None:
        return BASIC


def found(*_: object, made: dt.datetime = NOW) -> Scan:
    return Scan(kind=BASIC, entries=(BASIC_FINDING,), made=made)


def silent(*_: object) -> Scan:
    raise NoAnswer("ml/small/train@sha256:1", "it cannot scan such an image", next_step="Leave it.")


class FakeRegistry:
    """A registry in which every image is a plain one, or an index."""

    content = b'{"config": {}}'

    def manifest(self, _reference: str) -> tuple[bytes, str]:
        return self.content, "application/json"


@dataclass
class Room:
    """A project with two images in ECR."""

    root: Path
    opened: list[Context] = field(default_factory=list)

    def context(self, scan: str = "", *, registry: str = f"{ECR_HOST}/ml") -> Context:
        text = f'[project]\nname = "small"\n[environments.ci]\nregistry = "{registry}"\n[environments.ci.scan]\nunfixed = "fail"\n{scan}\n'
        (self.root / "trainshed.toml").write_text(text)
        loaded = config.load(self.root / "trainshed.toml", environment="ci")
        context = Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)
        context.__dict__["registry"] = FakeRegistry()
        self.opened.append(context)
        return context

    def work(self, scans: FakeScans | None, *, trivy: FakeTrivy | None = None, scan: str = "") -> Work:
        context = self.context(scan)
        components = discover(self.root / "components")
        survey = Survey(
            config=context.config,
            components=components,
            graph=Graph.of(components, {}),
            selected=("other", "train"),
            pins={PYTHON: Pin(reference=PYTHON, digest=DIGEST, pinned=PYTHON)},
            hashes=HashCache(self.root / "hashes.json"),
        )
        work = Work(context, survey)
        for name, digest in (("other", OTHER_DIGEST), ("train", DIGEST)):
            work.found[name] = Found(digest=digest, reference=f"{ECR_HOST}/ml/small/{name}@{digest}")
        vars(work.scanners).update(trivy=trivy or FakeTrivy(), ecr=scans)
        return work

    def said(self) -> str:
        return cast("io.StringIO", self.opened[-1].console.stream).getvalue()


@pytest.fixture
def room(project: Path) -> Iterator[Room]:
    for name in ("train", "other"):
        write(project / "components" / name, {"Dockerfile": "FROM python:3.11\n"})
    made = Room(root=project)
    yield made
    for context in made.opened:
        context.close()


def ids(result: Result) -> list[tuple[str, str, list[str]]]:
    return [(finding["id"], finding["severity"], finding["sources"]) for finding in result.details["findings"]]


def test_a_finding_of_both_is_one_and_judged_by_the_worse(room: Room) -> None:
    scans = FakeScans(found)
    result = room.work(scans).scan("train")
    assert result.status is Status.FAILED
    assert ids(result) == [("CVE-2024-5535", "high", ["ecr", "trivy"])]
    assert result.message.startswith("1 finding of severity high or worse: high CVE-2024-5535 in openssl")
    (wanted,) = scans.asked
    assert (wanted.repository, wanted.digest, wanted.timeout, wanted.max_age) == ("ml/small/train", DIGEST, 900.0, 86_400.0)
    assert "train: waiting for ECR's findings" in room.said()


def test_a_waiver_covers_what_both_saw(room: Room) -> None:
    (room.root / "waivers.toml").write_text(WAIVER)
    work = room.work(FakeScans(found))
    result = work.scan("train")
    assert result.status is Status.DONE
    assert result.details["findings"][0]["waiver"] == "not reachable"
    work.scan("other")
    assert work.waiver_warnings() == []


def test_of_an_index_the_image_of_our_platform_is_asked_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "sha256:" + "12" * 32
    entries = [
        f'{{"digest": "{OTHER_DIGEST}", "platform": {{"os": "unknown", "architecture": "unknown"}}}}',
        f'{{"digest": "{child}", "platform": {{"os": "linux", "architecture": "amd64"}}}}',
    ]
    monkeypatch.setattr(FakeRegistry, "content", f'{{"manifests": [{", ".join(entries)}]}}'.encode())
    scans = FakeScans(found)
    room.work(scans).scan("train")
    assert [wanted.digest for wanted in scans.asked] == [child]
    monkeypatch.setattr(FakeRegistry, "content", b'{"manifests": []}')
    result = room.work(scans, scan='fail-on = "low"').scan("train")
    assert "holds no image for linux/amd64" in result.message


def test_a_source_that_must_answer_and_does_not_gives_no_verdict(room: Room) -> None:
    result = room.work(FakeScans(silent)).scan("train")
    assert (result.status, result.exit_code) == (Status.FAILED, RemoteError.exit_code)
    assert (
        result.message == "train: no verdict without ECR's findings: ECR: ml/small/train@sha256:1: it cannot scan such an image. Leave it."
    )
    assert room.opened[-1].ledger.verdicts([DIGEST]) == {}


def test_who_may_not_ask_ecr_has_no_verdict_either(room: Room) -> None:
    def denied(*_: object) -> Scan:
        raise UsageError("AccessDenied", next_step="Ask for it.")

    result = room.work(FakeScans(denied)).scan("train")
    assert (result.status, result.exit_code) == (Status.FAILED, RemoteError.exit_code)
    assert "AccessDenied" in result.message


def test_findings_of_another_shape_are_no_answer(room: Room) -> None:
    broken = FakeScans(lambda *_: Scan(kind=BASIC, entries=({},), made=NOW))
    assert "another shape" in room.work(broken).scan("train").message


def test_a_source_that_need_not_answer_is_noted_with_the_verdict_for_as_long_as_it_stands(room: Room) -> None:
    scan = 'must-answer = ["trivy"]'
    note = "ECR did not answer: it cannot scan such an image"
    result = room.work(FakeScans(silent), scan=scan).scan("train")
    assert result.status is Status.DONE
    assert ids(result) == [("CVE-2024-5535", "medium", ["trivy"])]
    assert result.details["notes"] == [note]
    log = room.root / "build" / "logs" / "train.scan.log"
    tolerated = "tolerated: medium CVE-2024-5535 in openssl, fixed in 3.0.15"
    assert log.read_text().splitlines() == ["Trivy's own words", tolerated, note]
    again = room.work(FakeScans(found), scan=scan)
    cached = again.scan("train")
    assert (cached.status, cached.details["notes"]) == (Status.CACHED, [note])
    again.scan("other")
    assert again.scan_warnings() == [f"scan of train: {note}"]
    silenced = room.work(FakeScans(silent), scan=f'{scan}\nfail-on = "never"')
    assert {silenced.scan(name).status for name in ("other", "train")} == {Status.DONE}
    assert silenced.scan_warnings() == [f"scan of other, train: {note}"]


@pytest.mark.parametrize("error", [WorkFailed("Trivy broke"), RemoteError("no registry")])
def test_trivy_too_may_be_the_one_that_need_not_answer(room: Room, error: Exception) -> None:
    trivy = FakeTrivy(error=error)
    result = room.work(FakeScans(found), trivy=trivy, scan='must-answer = ["ecr"]').scan("train")
    assert ids(result) == [("CVE-2024-5535", "high", ["ecr"])]
    assert result.details["notes"] == [f"Trivy did not answer: {error}"]


def test_nobody_waits_for_ecr_once_there_can_be_no_verdict(room: Room) -> None:
    ended = threading.Event()

    def hanging(_wanted: Wanted, pause: Callable[[float], None]) -> Scan:
        try:
            while True:
                pause(0.01)
        finally:
            ended.set()

    scans = FakeScans(hanging, clock=time.monotonic)
    result = room.work(scans, trivy=FakeTrivy(error=WorkFailed("Trivy broke"))).scan("train")
    assert (result.message, result.exit_code) == ("Trivy broke", WorkFailed.exit_code)
    assert ended.wait(60)


def test_ecr_alone_needs_no_trivy_and_says_what_is_not_looked_for(room: Room) -> None:
    trivy = FakeTrivy()
    work = room.work(FakeScans(found), trivy=trivy, scan='sources = ["ecr"]\nfail-on = "never"')
    result = work.scan("train")
    assert (result.status, trivy.scans) == (Status.DONE, 0)
    assert result.details["notes"] == ["not looked for, as scan.sources leaves Trivy out: secret, misconfiguration"]
    assert "CVE-2024-5535" in (room.root / "build" / "logs" / "train.scan.log").read_text()


def test_a_verdict_is_cached_until_the_older_of_the_sources_data_is_stale(room: Room) -> None:
    old = NOW - dt.timedelta(hours=23)
    scans = FakeScans(lambda *_: found(made=old))
    policy = 'fail-on = "never"'
    assert room.work(scans, scan=policy).scan("train").status is Status.DONE
    assert room.work(scans, scan=policy).scan("train").status is Status.CACHED
    stale = room.work(scans, scan=policy + '\nmax-db-age = "22h"')
    assert stale.standing("train", "scan").reason == "the database of the scan is older than scan.max-db-age"
    assert stale.scan("train").status is Status.DONE
    assert len(scans.asked) == 2


def test_the_version_of_the_scan_tells_who_is_asked_and_who_must_answer(room: Room) -> None:
    policies = ("", 'sources = ["trivy"]', 'must-answer = ["trivy"]', 'must-answer = ["ecr"]', 'sources = ["ecr"]')
    assert len({room.work(None, scan=policy).version("train", "scan") for policy in policies}) == len(policies)
    both = 'sources = ["ecr", "trivy"]\nmust-answer = ["trivy", "ecr"]'
    assert room.work(None, scan=both).version("train", "scan") == room.work(None).version("train", "scan")


def test_while_ecr_is_waited_for_no_slot_is_held_and_other_images_are_scanned(room: Room) -> None:
    both, results = threading.Barrier(2, timeout=60), []

    def waiting(*_: object) -> Scan:
        both.wait()  # each needs the other to be asked meanwhile
        return found()

    work = room.work(FakeScans(waiting), scan="")
    work.scanners._turns = threading.Semaphore(1)
    threads = [threading.Thread(target=lambda name=name: results.append(work.scan(name))) for name in ("train", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [ids(result) for result in results] == [[("CVE-2024-5535", "high", ["ecr", "trivy"])]] * 2


def test_the_slot_is_free_while_ecr_is_waited_for(room: Room) -> None:
    come, trivy = threading.Event(), FakeTrivy()

    def waiting(*_: object) -> Scan:
        assert come.wait(60)
        return found()

    work = room.work(FakeScans(waiting), trivy=trivy)
    thread = threading.Thread(target=work.scan, args=("train",))
    thread.start()
    wait_for(lambda: trivy.scans == 1)
    with slots.held("scan", 1, on_wait=lambda: None):
        assert thread.is_alive()
    come.set()
    thread.join(60)


def test_as_many_scans_are_under_way_as_there_are_images_where_ecr_is_asked(room: Room) -> None:
    with_ecr, without = room.context(), room.context('sources = ["trivy"]')
    assert budgets.scheduled(with_ecr, images=50)["scan"] == 50
    assert budgets.scheduled(without, images=50) == budgets.of(without)


def test_the_plan_asks_nobody(room: Room) -> None:
    scans = FakeScans(silent)
    work = room.work(scans)
    assert not work.standing("train", "scan").green
    assert scans.asked == []


@pytest.mark.parametrize(
    ("policy", "registry", "asked", "required"),
    [
        ("", f"{ECR_HOST}/ml", ("trivy", "ecr"), ("trivy", "ecr")),
        ("", "registry.example.org/ml", ("trivy",), ("trivy",)),
        ('sources = ["ecr", "trivy"]', f"{ECR_HOST}/ml", ("trivy", "ecr"), ("trivy", "ecr")),
        ('sources = ["ecr"]', f"{ECR_HOST}/ml", ("ecr",), ("ecr",)),
        ('must-answer = ["ecr"]', f"{ECR_HOST}/ml", ("trivy", "ecr"), ("ecr",)),
        ('scanners = ["secret"]', f"{ECR_HOST}/ml", ("trivy",), ("trivy",)),
    ],
)
def test_who_is_asked_follows_the_registry_and_the_policy(
    room: Room, policy: str, registry: str, asked: tuple[str, ...], required: tuple[str, ...]
) -> None:
    loaded = room.context(policy, registry=registry).config
    assert (sources.asked(loaded), sources.required(loaded)) == (asked, required)


@pytest.mark.parametrize(
    ("policy", "registry", "message"),
    [
        ('sources = ["ecr"]', "registry.example.org/ml", "scan.sources: ecr, but the registry of environment ci is not ECR"),
        ('must-answer = ["ecr"]', "registry.example.org/ml", "scan.must-answer: ecr, which is not asked"),
        ('sources = ["trivy"]\nmust-answer = ["ecr"]', f"{ECR_HOST}/ml", "scan.must-answer: ecr, which is not asked"),
        ('sources = ["ecr"]\nscanners = ["secret"]', f"{ECR_HOST}/ml", "scan.sources: ecr, but it finds vulnerabilities alone"),
    ],
)
def test_a_source_that_cannot_answer_is_refused_by_the_name_of_its_key(room: Room, policy: str, registry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        sources.asked(room.context(policy, registry=registry).config)
    assert message in caught.value.message
    assert "trainshed.toml" in caught.value.message


def test_doctor_says_who_will_be_asked(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.ecr_scans.EcrScans.expected", lambda _: BASIC)
    assert services.scan_sources(room.context()).text == "trivy, ecr; ECR makes basic scans"
    told = services.scan_sources(room.context('must-answer = ["trivy"]')).text
    assert told == "trivy, ecr; the answer of ecr is not needed; ECR makes basic scans"
    assert services.scan_sources(room.context(registry="registry.example.org/ml")).text == "trivy"


def test_a_missing_trivy_is_told_as_it_is(room: Room) -> None:
    result = room.work(FakeScans(found), trivy=FakeTrivy(error=ToolMissing("no trivy"))).scan("train")
    assert (result.message, result.exit_code) == ("no trivy", ToolMissing.exit_code)
