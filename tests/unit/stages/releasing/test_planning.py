"""Which images are others than production has: of each pipeline and service by the release that brought it there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST
from trainshed import config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.releases.plan import Before, Plan
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal, planning
from trainshed.stages.releasing.planning import Wanted
from trainshed.stages.releasing.room import Room


@pytest.fixture
def room(project: Path) -> Iterator[Room]:
    loaded = config.load(project / "trainshed.toml", environment="local")
    with closing(Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.MAIN)) as context:
        yield Room(here=context, there=context)


def wanted(digest: str, *names: str) -> Wanted:
    image = LockedImage(reference=f"r/base@{digest}", digest=digest, input_digest=DIGEST, base={})
    lock = locks.of(project="small", commit="c" * 40, dirty=False, plan_digest="sha256:1", images={"base": image})
    return Wanted(lock=lock, commit="c" * 40, branch="main", pipelines=names, services=(), components=("base",))


def released(room: Room, asked: Wanted, number: int) -> None:
    plan = Plan(
        id=str(number),
        project=room.there.config.project.name,
        versions=(),
        commit=asked.commit,
        branch="main",
        source="local",
        target="local",
        lock=asked.lock.document(),
        lock_digest=asked.digest,
        components=asked.components,
        pipelines=asked.pipelines,
        services=(),
        models={},
        before=Before(),
        created="2026-01-01T00:00:00Z",
        by="Ada",
    )
    journal.settled(room.there, journal.begin(room.there, plan))


def moved(room: Room, asked: Wanted) -> set[str]:
    """Return the units whose image moved."""
    return {unit for unit, components in planning._moved(room, asked).items() if components == ("base",)}


def test_a_base_that_moved_is_told_of_those_that_were_not_released_with_it(room: Room) -> None:
    both = ("a", "b")
    assert moved(room, wanted(DIGEST, *both)) == {"", *both}  # such as a second production, for whose commits the tag is there
    released(room, wanted(DIGEST, *both), 1)
    assert moved(room, wanted(DIGEST, *both)) == set()
    assert moved(room, wanted(OTHER_DIGEST, *both)) == {"", *both}
    released(room, wanted(OTHER_DIGEST, "a"), 2)
    assert moved(room, wanted(OTHER_DIGEST, *both)) == {"", "b"}
    assert moved(room, wanted(OTHER_DIGEST, "a")) == set()
    released(room, wanted(OTHER_DIGEST, "b"), 3)
    assert moved(room, wanted(OTHER_DIGEST, "b")) == set()


def test_a_repository_of_images_alone_is_told_by_its_last_release(room: Room) -> None:
    assert moved(room, wanted(DIGEST)) == {""}
    released(room, wanted(DIGEST), 1)
    assert moved(room, wanted(DIGEST)) == set()
    assert moved(room, wanted(OTHER_DIGEST)) == {""}
