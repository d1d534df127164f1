"""Who must have made what is released, and on what its tests stand when they run again; refusals are in tests/integration."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST, write
from trainshed import config
from trainshed.console import Console
from trainshed.errors import Interrupted, UsageError
from trainshed.ledger.records import Verdict
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock, LockedImage
from trainshed.results import Result, Status
from trainshed.settings import Tier
from trainshed.stages import lookup
from trainshed.stages.checks import test as test_check
from trainshed.stages.context import Context
from trainshed.stages.releasing import admission, locked
from trainshed.stages.releasing.room import Room
from trainshed.stages.survey import survey
from trainshed.stages.work import BUILD_VERSION, Work
from trainshed.tools import process

BASE = "registry.example.org/bases/python:3.11"
DOCKERFILE = f"FROM {BASE} AS program\nCOPY a /\nFROM program AS test\nCOPY tests /tests/\nFROM program\n"
ENVIRONMENTS = """
[environments.dev]
registry = "registry.example.org/dev"
[environments.prod]
registry = "registry.example.org/prod"
"""


@dataclass
class Hall:
    """A release from ``dev`` to ``prod`` of one component; its registry says of everything that it is `DIGEST`."""

    room: Room
    lock: Lock
    pins: list[dict[str, str]] = field(default_factory=list)

    def statuses(self) -> dict[str, Status]:
        report = admission.require(self.room, self.lock, ["one"])
        return {result.stage: result.status for result in report.results}


def context(project: Path, environment: str, tier: Tier = Tier.MAIN) -> Context:
    return Context(
        config=config.load(project / "trainshed.toml", environment=environment), console=Console(stream=io.StringIO()), tier=tier
    )


@pytest.fixture
def hall(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    write(project / "components" / "one", {"Dockerfile": DOCKERFILE, "a": "a", "tests/check.py": "pass"})
    with (project / "trainshed.toml").open("a") as file:
        file.write(ENVIRONMENTS)
    monkeypatch.setattr(Context, "registry", SimpleNamespace(digest=lambda *_, **__: DIGEST))
    monkeypatch.setattr(Work, "scan", lambda _, name: Result(name=name, stage="scan", status=Status.CACHED))
    here, there = context(project, "dev"), context(project, "prod")
    inputs = survey(here, pins={BASE: OTHER_DIGEST}).source("one")
    reference = f"registry.example.org/dev/small/one@{DIGEST}"
    image = LockedImage(reference=reference, digest=DIGEST, input_digest=inputs.digest, base=inputs.manifest["bases"])
    lock = locks.of(project="small", commit="c" * 40, dirty=False, plan_digest="sha256:1", images={"one": image})
    here.ledger.record_verdict(Verdict(digest=DIGEST, check="build", version=BUILD_VERSION, component="one", green=True))
    made = Hall(Room(here=here, there=there), lock)

    def tested(*_: object, pins: dict[str, str], **__: Any) -> test_check.Tested:
        made.pins.append(pins)
        return test_check.Tested(green=True, message="", cases=())

    monkeypatch.setattr(test_check, "test_image", tested)
    yield made
    here.close()
    there.close()


def test_tests_without_a_verdict_run_again_on_the_base_that_was_locked_and_only_once(hall: Hall) -> None:
    assert hall.statuses() == {"release-image": Status.CACHED, "release-scan": Status.CACHED, "release-test": Status.DONE}
    assert hall.pins == [{BASE: f"{BASE}@{OTHER_DIGEST}"}]
    assert hall.statuses()["release-test"] is Status.CACHED
    assert len(hall.pins) == 1


def test_a_dry_run_looks_and_keeps_no_verdict(hall: Hall) -> None:
    here = hall.room.here
    with closing(Context(config=here.config, console=here.console, tier=here.tier, keeps=False)) as dry:
        hall.room = replace(hall.room, here=dry)
        assert [hall.statuses()["release-test"] for _ in "12"] == [Status.DONE, Status.DONE]
    assert {check for _, check, _ in here.ledger.verdicts([DIGEST])} == {"build"}


def test_what_is_done_here_leaves_the_builds_folder_alone(hall: Hall) -> None:
    hall.statuses()
    own = hall.room.here.config.project.work_dir
    assert {path.relative_to(own).parts[0] for path in own.rglob("*") if path.is_file()} <= {"release"}


def test_an_image_of_other_inputs_than_the_lock_says_is_refused(hall: Hall) -> None:
    image = hall.lock.images["one"]
    hall.lock = replace(hall.lock, images={"one": replace(image, input_digest=OTHER_DIGEST)})
    assert hall.statuses() == {"release-image": Status.FAILED, "release-scan": Status.ABORTED, "release-test": Status.ABORTED}
    assert hall.pins == []


def test_a_reference_into_another_repository_is_refused(hall: Hall) -> None:
    image = hall.lock.images["one"]
    hall.lock = replace(hall.lock, images={"one": replace(image, reference=f"registry.example.org/pr/small/one@{DIGEST}")})
    report = admission.require(hall.room, hall.lock, ["one"])
    assert "the image of its inputs is registry.example.org/dev/small/one@" in report.results[0].message


def test_a_component_that_the_lock_does_not_know_is_refused_with_a_suggestion(hall: Hall) -> None:
    with pytest.raises(UsageError, match="no image of 'won'; perhaps you meant 'one'"):
        admission.require(hall.room, hall.lock, ["won"])


def test_an_interruption_is_no_refusal(hall: Hall) -> None:
    process.stopping.set()
    with pytest.raises(Interrupted):
        admission.require(hall.room, hall.lock, ["one"])


@pytest.mark.parametrize(
    ("trust", "registry", "least"),
    [
        ("laptop", "embedded", Tier.LAPTOP),
        ("pull-request", "embedded", Tier.PULL_REQUEST),
        ("main", "embedded", Tier.MAIN),
        ("laptop", "registry.example.org/prod", Tier.MAIN),
        ("main", "registry.example.org/prod", Tier.MAIN),
    ],
)
def test_a_registry_of_others_takes_what_main_made_alone(project: Path, trust: str, registry: str, least: Tier) -> None:
    with (project / "trainshed.toml").open("a") as file:
        file.write(f'\n[environments.prod]\nregistry = "{registry}"\ntrust = "{trust}"\n')
    there = context(project, "prod")
    assert locked.least(Room(here=there, there=there)) == least


def test_what_less_trusted_runs_pushed_is_told_the_most_trusted_first(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"in-1-pr": "sha256:p", "in-1-laptop": "sha256:l"}
    monkeypatch.setattr(Context, "registry", SimpleNamespace(digest=lambda reference: tags.get(reference.rpartition(":")[2])))
    here = hall.room.here
    assert lookup.find(here, "one", "sha256:1") is None
    assert lookup.below(here, "one", "sha256:1") == (Tier.PULL_REQUEST, "sha256:p")
    del tags["in-1-pr"]
    assert lookup.below(here, "one", "sha256:1") == (Tier.LAPTOP, "sha256:l")
    assert lookup.below(here, "one", "sha256:2") is None
