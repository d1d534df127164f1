"""Which release is in force, by the ledger alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.releases.manifest import Manifest
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.releasing import current, journal
from trainshed.tools.ecs import registrable


@pytest.fixture
def context(project: Path) -> Iterator[Context]:
    loaded = config.load(project / "trainshed.toml", environment="local")
    made = Context(config=loaded, console=Console(io.StringIO(), root=project), tier=Tier.LAPTOP)
    yield made
    made.close()


def released(context: Context, name: str, *, state: str = journal.RELEASED) -> None:
    done: dict[str, Any] = {journal.DECIDED: []} if state == journal.RELEASED else {}
    document = {"state": state, "release": name, "manifest": f"sha256:{name}", "commit": "1a2b3c4", "by": "somebody", "done": done}
    context.ledger.record_event(journal.EVENT, "local", "small", name, document)


def back(context: Context, name: str, state: str, *, whole: bool = True) -> None:
    told = SimpleNamespace(release=name, tags=[f"v{name}"], digest=f"sha256:{name}", commit="1a2b3c4")
    services = {"predictor": "arn:predictor:1"} if state == current.ENDED else {}
    current.record(context, cast(Manifest, told), state=state, services=services, whole=whole)


def now(context: Context) -> tuple[str, bool, str]:
    found = current.in_force(context)
    assert found is not None
    return found.release, found.back, found.going


def test_the_last_release_is_in_force_until_somebody_has_gone_back(context: Context) -> None:
    assert current.in_force(context) is None
    assert current.since(context, "1.0.0") == ""
    released(context, "1.0.0")
    released(context, "2.0.0")
    for _ in range(6):  # more than are read first
        released(context, "3.0.0", state=journal.UNDOING)
    assert now(context) == ("2.0.0", False, "")
    back(context, "1.0.0", current.BEGUN)
    assert now(context) == ("2.0.0", False, "1.0.0")
    back(context, "1.0.0", current.FAILED)
    assert now(context) == ("2.0.0", False, "1.0.0")
    back(context, "1.0.0", current.ENDED, whole=False)
    assert now(context) == ("1.0.0", True, "")
    found = current.in_force(context)
    assert found is not None
    assert (found.whole, found.services, found.manifest) == (False, {"predictor": "arn:predictor:1"}, "sha256:1.0.0")
    assert current.since(context, "1.0.0") == ""
    again = "`trainshed --env local rollback --release 2.0.0`"
    assert f"went back to 1.0.0 since, and {again} brings it back" in current.since(context, "2.0.0")
    released(context, "3.0.0")
    assert now(context) == ("3.0.0", False, "")
    assert current.released(context, "local") == {f"sha256:{name}": name for name in ("3.0.0", "2.0.0", "1.0.0")}


def test_what_is_registered_again_is_what_was_asked_for() -> None:
    asked: dict[str, Any] = {"family": "answer", "cpu": "256", "containerDefinitions": [{"name": "answer", "environment": []}]}
    told = {"taskDefinitionArn": "arn", "revision": 7, "status": "INACTIVE", "registeredAt": 1, "volumes": [], "compatibilities": ["EC2"]}
    assert registrable({**asked, **told, "newInECS": True}) == asked
