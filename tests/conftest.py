"""A project with one service and a scripted ECS, for whoever asks: a file that needs more of it lays its own ``desk`` over this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploying import Desk
from tests.support.scripted_ecs import ScriptedEcs, complete, scripted
from tests.support.scripted_ecs import client as ecs_client
from trainshed.results import Status
from trainshed.tools.ecs import Ecs


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ScriptedEcs]:
    """Return a scripted ECS that listens."""
    with scripted() as found:
        yield found


@pytest.fixture(scope="module")
def client(endpoint: ScriptedEcs) -> Ecs:
    """Return our own client of it, as one of the embedded service."""
    return ecs_client(endpoint.url)


@pytest.fixture
def desk(tmp_path: Path, endpoint: ScriptedEcs, client: Ecs) -> Iterator[Desk]:
    """Return a project whose service was never deployed."""
    endpoint.reset()
    made = Desk(tmp_path, endpoint, client)
    yield made
    made.close()


@pytest.fixture
def serving(desk: Desk) -> Desk:
    """Return a desk whose first revision serves, followed to a good end."""
    desk.ecs.steps = [complete]
    assert desk.result().status is Status.DONE
    desk.ecs.requests.clear()
    return desk
