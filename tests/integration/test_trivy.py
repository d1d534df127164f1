"""Scans by the real Trivy with a tiny real database: findings, waivers, secrets, misconfigurations, SBOM, no database."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import aws_door
from tests.support.ecr_answers import BASIC_FINDING, answer, basic
from tests.support.ecr_player import Player
from tests.support.image_world import BASE, World, world
from tests.support.registry import running_registry, wait_until
from tests.support.trivy_db import write_database
from trainshed.errors import RemoteError
from trainshed.findings.waivers import Waiver
from trainshed.images import references
from trainshed.images.components import Component
from trainshed.reports import sarif
from trainshed.results import Report, Result, Status
from trainshed.stages.checks.scanners import Scanners
from trainshed.stages.checks.scanning import Scanned, ask_trivy, judged
from trainshed.tools.trivy import Trivy

SECRET = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
DOCKERFILE = f"FROM {BASE}\nCOPY token.txt /token.txt\n"
ADVISORIES = {
    ("python3.11", "CVE-2099-0001"): {"severity": "CRITICAL", "fixed": "99.0", "title": "all of it"},
    ("zlib", "CVE-2099-0002"): {"severity": "LOW"},
    ("bzip2", "CVE-2099-0003"): {"severity": "HIGH", "title": "nobody has mended it"},
}
EVERYTHING = '[scan]\nscanners = ["vulnerability", "secret", "misconfiguration"]\nfail-on = "{fail_on}"\nwithout-db = "{without}"\n'


class Subject:
    """One image with a secret, as root, and a Trivy with the tiny database."""

    def __init__(self, here: World, component: Component, reference: str, state: Path) -> None:
        self.here, self.component, self.reference, self.state = here, component, reference, state

    def trivy(self, state: Path | None = None, *, repository: str = "") -> Trivy:
        return Trivy(state or self.state, config=self.here.context.registry.config, repository=repository, max_db_age=3600.0)

    def scan(
        self, trivy: Trivy, *, fail_on: str = "high", without: str = "fail", unfixed: str = "tolerate", waivers: tuple[Waiver, ...] = ()
    ) -> Scanned:
        settings = EVERYTHING.format(fail_on=fail_on, without=without) + f'unfixed = "{unfixed}"\n'
        with world(self.here.root.parent / "policy", self.here.address, settings=settings) as policy:
            answer = ask_trivy(policy.context, self.component, self.reference, trivy=trivy, log=self.here.log)
            return judged(policy.context, self.component, [answer], waivers=waivers, log=self.here.log)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Subject]:
    assert base_image == BASE
    folder = tmp_path_factory.mktemp("trivy")
    write_database(folder / "state" / "db", ADVISORIES)
    with running_registry(folder / "registry") as address, world(folder / "project", address) as here:
        component = here.component("leaky", {"Dockerfile": DOCKERFILE, "token.txt": f"{SECRET}\n"})
        yield Subject(here, component, here.pushed(component), folder / "state")


def _by_kind(scanned: Scanned, kind: str) -> dict[str, str]:
    return {finding["id"]: finding["severity"] for finding in scanned.findings if finding["kind"] == kind}


def _servers(state: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(state / "servers" / "0").encode() in words and not words[0].endswith(b"sh"):
            found.append(int(folder.name))
    return found


def test_findings_of_every_kind_fail_the_scan_and_no_secret_is_kept(subject: Subject) -> None:
    with subject.trivy() as trivy:
        scanned = subject.scan(trivy)
    assert not scanned.green
    assert scanned.message.partition(":")[0].endswith("of severity high or worse")
    assert "CVE-2099-0001" in scanned.message
    assert _by_kind(scanned, "vulnerability") == {"CVE-2099-0001": "critical", "CVE-2099-0002": "low", "CVE-2099-0003": "high"}
    assert _by_kind(scanned, "secret") == {"github-pat": "critical"}
    assert _by_kind(scanned, "misconfiguration")["DS-0002"] == "high"
    assert scanned.database is not None
    assert scanned.notes == ()
    kept = json.dumps([*scanned.findings, scanned.message]) + subject.here.log.read_text()
    assert SECRET not in kept
    wait_until(lambda: not _servers(subject.state), what="the server's end", seconds=60)


def test_a_vulnerability_without_a_fix_is_told_and_fails_only_where_the_policy_asks_for_it(subject: Subject) -> None:
    with subject.trivy() as trivy:
        tolerated, strict = (subject.scan(trivy, unfixed=unfixed) for unfixed in ("tolerate", "fail"))
    stands = {finding["id"]: finding.get("tolerated") for finding in tolerated.findings if finding["kind"] == "vulnerability"}
    assert stands == {"CVE-2099-0001": None, "CVE-2099-0002": None, "CVE-2099-0003": "no fix yet"}
    assert "tolerated: high CVE-2099-0003" in subject.here.log.read_text()
    assert [finding["id"] for finding in strict.findings if finding.get("tolerated")] == []
    assert int(strict.message.split()[0]) > int(tolerated.message.split()[0])


def test_a_waiver_covers_its_finding_until_it_runs_out(subject: Subject) -> None:
    def waiver(identity: str, expires: dt.date) -> Waiver:
        return Waiver(id=identity, owner="me", reason=f"because of {identity}", expires=expires)

    today = dt.datetime.now(dt.UTC).date()
    failing = ("CVE-2099-0001", "github-pat", "DS-0002")
    with subject.trivy() as trivy:
        waived = subject.scan(trivy, waivers=tuple(waiver(identity, today) for identity in failing))
        late = tuple(waiver(identity, today - dt.timedelta(days=identity == "github-pat")) for identity in failing)
        expired = subject.scan(trivy, waivers=late)
    assert waived.green
    reasons = {finding["id"]: finding["waiver"] for finding in waived.findings if "waiver" in finding}
    assert reasons == {identity: f"because of {identity}" for identity in failing}
    assert {used.id for used in waived.used} == set(failing)
    assert not expired.green
    assert "github-pat" in expired.message
    assert expired.notes == ("the waiver for github-pat ran out",)


def test_the_bill_of_materials_names_the_packages(subject: Subject) -> None:
    with subject.trivy() as trivy:
        sbom = json.loads(subject.scan(trivy, fail_on="never").sbom)
    assert sbom["bomFormat"] == "CycloneDX"
    assert "zlib1g" in {component["name"] for component in sbom["components"]}


def test_parallel_scans_share_one_server_and_all_succeed(subject: Subject) -> None:
    with subject.trivy() as trivy, ThreadPoolExecutor(4) as pool:
        documents = list(
            pool.map(lambda _: trivy.scan(subject.reference, scanners=["vulnerability"], log=subject.here.log), range(4)),
        )
        assert len(_servers(subject.state)) == 1
    counts = {sum(len(result.get("Vulnerabilities") or ()) for result in document["Results"]) for document in documents}
    assert len(counts) == 1
    assert counts != {0}


def test_without_a_database_the_scan_fails_or_warns_and_is_never_clean_silently(subject: Subject, tmp_path: Path) -> None:
    nowhere = f"{subject.here.address}/no/such-database:2"
    with subject.trivy(tmp_path, repository=nowhere) as trivy:
        with pytest.raises(RemoteError, match=r"no verdict without a vulnerability database: .*could not be fetched"):
            subject.scan(trivy)
        scanned = subject.scan(trivy, without="warn", fail_on="never")
    assert scanned.green
    assert scanned.database is None
    assert "vulnerabilities were NOT looked for" in scanned.notes[0]
    assert _by_kind(scanned, "vulnerability") == {}
    assert _by_kind(scanned, "secret") == {"github-pat": "critical"}
    assert "DS-0002" in _by_kind(scanned, "misconfiguration")
    assert json.loads(scanned.sbom)["components"]


def test_the_server_does_not_outlive_a_killed_command(tmp_path: Path) -> None:
    write_database(tmp_path / "db", ADVISORIES)
    program = (
        "import pathlib, sys, time\n"
        "from trainshed.tools.trivy import Trivy\n"
        "trivy = Trivy(pathlib.Path(sys.argv[1]), config=lambda reference: b'', max_db_age=3600.0)\n"
        "print(trivy._started(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline().startswith(b"http://127.0.0.1:")
            assert _servers(tmp_path)
        finally:
            os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not _servers(tmp_path), what="the server's end", seconds=60)


def test_a_finding_of_trivy_and_ecr_is_one_in_verdict_and_report(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**aws_door.CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    source = {**BASIC_FINDING, "name": "CVE-2099-0002", "attributes": [{"key": "package_name", "value": "zlib"}]}
    policy, folder = '[scan]\nscanners = ["vulnerability"]\n', subject.here.root.parent / "ecr"
    with aws_door.opened() as door, world(folder, subject.here.address, settings=policy, aws=door.url) as here:
        player, scanners = Player(door), Scanners(here.context)
        player.play(answer("IN_PROGRESS"), basic(source, BASIC_FINDING))
        vars(scanners)["trivy"] = subject.trivy()
        with scanners.trivy, scanners.asking(subject.component, subject.reference) as asking:
            answers = asking.all(asking.trivy(here.log))
        scanned = judged(here.context, subject.component, answers, waivers=(), log=here.log)
    seen = {finding["id"]: (finding["severity"], finding["package"], finding["sources"]) for finding in scanned.findings}
    assert seen["CVE-2099-0002"] == ("high", "zlib1g", ["ecr", "trivy"])  # Trivy says low, of the package built from zlib
    assert seen["CVE-2024-5535"] == ("high", "openssl", ["ecr"])
    assert seen["CVE-2099-0001"][2] == ["trivy"]
    assert player.asked[0]["imageId"] == {"imageDigest": references.parse(subject.reference).digest}
    result = Result(name="leaky", stage="scan", status=Status.FAILED, details={"findings": scanned.findings})
    (run,) = json.loads(sarif.write([Report(stage="scan", results=(result,))]))["runs"]
    told = [found["ruleId"] for found in run["results"] if "seen by ecr and trivy" in found["message"]["text"]]
    assert told == ["CVE-2099-0002"]
