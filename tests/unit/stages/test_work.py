"""The checks of one component: what their verdicts depend on, and that they are of the tree as it was."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST, PYTHON, write
from trainshed import config
from trainshed.console import Console
from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.images.hashes import HashCache
from trainshed.ledger.records import Verdict, details
from trainshed.results import Status
from trainshed.settings import Tier
from trainshed.stages.checks import test as test_check
from trainshed.stages.context import Context
from trainshed.stages.lookup import Found
from trainshed.stages.survey import Pin, Survey
from trainshed.stages.work import Work

TOOLS = "FROM python:3.11\n"
TRAIN = """ARG BASE_TOOLS=127.0.0.1:1/small/base-tools:latest
FROM python:3.11 AS program
COPY src /app/
FROM ${BASE_TOOLS} AS tools
FROM program AS test
COPY --from=tools /t /t
COPY tests /app/tests/
FROM program
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Two components: ``base-tools``, on which only the tests of ``train`` stand."""

    root: Path
    context: Context

    def work(self, *, tools: str = DIGEST) -> Work:
        """Return the work of a command that found both images."""
        components = discover(self.root / "components")
        survey = Survey(
            config=self.context.config,
            components=components,
            graph=Graph.of(components, {}),
            selected=("base-tools", "train"),
            pins={PYTHON: Pin(reference=PYTHON, digest=DIGEST, pinned=PYTHON)},
            hashes=HashCache(self.root / "hashes.json"),
        )
        made = Work(self.context, survey)
        made.found.update({name: Found(digest=digest, reference=name) for name, digest in (("base-tools", tools), ("train", OTHER_DIGEST))})
        return made


@pytest.fixture
def bench(project: Path) -> Iterator[Bench]:
    files = {"src/a.py": "1", "tests/check.py": "1", "Dockerfile": TRAIN}
    write(project / "components" / "train", dict(files))
    write(project / "components" / "base-tools", {"Dockerfile": TOOLS})
    loaded = config.load(project / "trainshed.toml", environment="local")
    context = Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)
    yield Bench(root=project, context=context)
    context.close()


def test_tests_are_run_again_when_an_own_base_moves_that_only_they_stand_on(bench: Bench) -> None:
    before, after = bench.work(), bench.work(tools=OTHER_DIGEST)
    assert before.survey.own_bases("train") == ()
    assert before.version("train", "test") != after.version("train", "test")


def test_tests_are_no_verdict_when_their_files_changed_while_they_ran(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    check = bench.root / "components" / "train" / "tests" / "check.py"

    def edited(*_: object, **__: object) -> test_check.Tested:
        check.write_text("another one")
        return test_check.Tested(green=True, message="", cases=())

    monkeypatch.setattr(test_check, "test_image", edited)
    result = bench.work().test("train")
    assert result.status is Status.FAILED
    assert "its tests changed while they ran" in result.message
    assert bench.context.ledger.verdicts([OTHER_DIGEST]) == {}


def test_a_verdict_of_the_ledger_is_taken_and_its_check_not_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def green(*told: object, **_: object) -> test_check.Tested:
        made.append(told)
        return test_check.Tested(green=True, message="", cases=())

    monkeypatch.setattr(test_check, "test_image", green)
    assert bench.work().test("train").status is Status.DONE
    assert bench.work().test("train").status is Status.CACHED
    assert len(made) == 1


def test_the_lock_names_the_moment_of_a_verdict_whenever_it_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_check, "test_image", lambda *_, **__: test_check.Tested(green=True, message="", cases=()))
    bench.work().test("train")
    again = bench.work()
    again.test("train")
    read = again.verdicts["train"]["test"]
    assert abs(read.created - time.time()) < 600
    again.inputs["train"] = again.survey.source("train")
    again.verdicts["train"]["test"] = replace(read, created=1_800_000_000.9, age=1000.0)
    assert again.lock_entries(["train"])["train"]["verdicts"]["test"]["created"] == "2027-01-15T08:00:00+00:00"


def scanned(name: str, *, notes: list[str], findings: list[dict[str, str]] | None = None) -> Verdict:
    return Verdict(
        digest=DIGEST, check="scan", version="scan/1", component=name, green=True, details=details(notes=notes, findings=findings or [])
    )


def test_what_a_scan_could_not_look_for_is_said_once_for_all_images_and_again_for_a_cached_verdict(bench: Bench) -> None:
    work = bench.work()
    assert work.scan_warnings() == []
    for name in ("base-tools", "train"):
        work.verdicts[name]["scan"] = scanned(name, notes=["vulnerabilities were NOT looked for: no database"])
    assert work.scan_warnings() == ["scan of base-tools, train: vulnerabilities were NOT looked for: no database"]


def test_a_waiver_without_a_finding_is_told_only_when_every_image_was_scanned(bench: Bench) -> None:
    text = '[[waiver]]\nid = "CVE-2030-1"\nowner = "risk"\nreason = "not reachable"\nexpires = 2099-01-01\n'
    (bench.root / "waivers.toml").write_text(text)
    work = bench.work()
    work.verdicts["train"]["scan"] = scanned("train", notes=[])
    assert work.waiver_warnings() == []
    work.verdicts["base-tools"]["scan"] = scanned("base-tools", notes=[])
    (warning,) = work.waiver_warnings()
    assert "CVE-2030-1" in warning
    assert "unused" in warning
