"""The rules of a safe deploy, each with real containers: what the deployers that people use got wrong, and ours may not."""

from __future__ import annotations

from tests.support.production import World


def test_success_is_the_own_deployment_with_the_revision_that_was_asked_for(world: World) -> None:
    first = world.green()
    assert world.serves() == ("1", "1")
    world.lock(2)
    second = world.green()
    assert world.serves() == ("2", "1")
    assert world.settled()["taskDefinition"].endswith(second["revision"])
    assert second["previous"] == first["revision"]
    assert world.gateway.changes() == ["CreateService", "UpdateService"]
