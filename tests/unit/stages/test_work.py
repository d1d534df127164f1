"""The checks of one component: what their verdicts depend on, and that they are of the tree as it was."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST, PYTHON, write
from tests.support.ledger_contract import wait_for
from trainshed import config
from trainshed.console import Console
from trainshed.images.components import discover
from trainshed.images.graph import Graph
from trainshed.images.hashes import HashCache
from trainshed.images.inputs import Inputs
from trainshed.ledger.records import Verdict, details
from trainshed.ledger.store import Ledger
from trainshed.results import Status
from trainshed.settings import Tier
from trainshed.stages import lookup
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


class SharedRegistry:
    """A registry that several tiers push to: tags by reference."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def digest(self, reference: str) -> str | None:
        """Return the digest of a tag."""
        return self.tags.get(reference)


@pytest.mark.parametrize(("tier", "builds"), [(Tier.MAIN, True), (Tier.PULL_REQUEST, False)])
def test_main_that_waited_for_a_build_of_a_pull_request_builds_for_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tier: Tier, *, builds: bool
) -> None:
    made, registry = [], SharedRegistry()
    loaded = config.load(
        bench.root / "trainshed.toml", environment="local", overrides={"TRAINSHED_ENVIRONMENTS_LOCAL_REGISTRY": "registry.example.org/ml"}
    )
    said = io.StringIO()
    context = Context(config=loaded, console=Console(stream=said), tier=tier)
    context.__dict__["registry"] = registry
    work = replace(bench, context=context).work()
    del work.found["train"]

    def push(work: Work, name: str, inputs: Inputs) -> None:
        made.append(lookup.own_tag(work.context, inputs.digest))
        work.found[name] = Found(digest=OTHER_DIGEST, reference=name)

    monkeypatch.setattr(Work, "_build_and_push", push)
    inputs = work.survey.inputs("train", {}).digest
    repository = lookup.repository(context, "train")
    with (
        closing(context),
        Ledger.open(f"sqlite:///{bench.root / '.trainshed' / 'ledger.sqlite'}", tier=Tier.PULL_REQUEST) as other,
        ThreadPoolExecutor() as pool,
    ):
        with other.lease(f"build:{repository}:{inputs}"):
            result = pool.submit(work.build, "train")
            wait_for(lambda: "waiting for it" in said.getvalue() or result.done())
            registry.tags[f"{repository}:in-{inputs.removeprefix('sha256:')}-pr"] = DIGEST
        assert result.result(60).details["digest"] == (OTHER_DIGEST if builds else DIGEST)
    assert made == ([f"in-{inputs.removeprefix('sha256:')}"] if builds else [])


def test_a_scan_is_made_again_when_the_policy_in_force_changes(bench: Bench) -> None:
    versions = set()
    for variable, text in (("FAIL_ON", "high"), ("FAIL_ON", "low"), ("UNFIXED", "fail"), ("SCANNERS", "secret"), ("WITHOUT_DB", "fail")):
        overrides = {f"TRAINSHED_SCAN_{variable}": text}
        loaded = config.load(bench.root / "trainshed.toml", environment="local", overrides=overrides)
        context = Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)
        work = replace(bench, context=context).work()
        work.scanners.__dict__["trivy"] = SimpleNamespace(version="1")
        versions.add(work.version("train", "scan"))
    assert len(versions) == 5
