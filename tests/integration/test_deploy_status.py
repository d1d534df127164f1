"""``trainshed status`` of a service that real containers serve: each way to drift, and the way back."""

from __future__ import annotations

from typing import Any

from tests.support.production import CLUSTER, World


def status(world: World, code: int) -> dict[str, Any]:
    """Ask for it; it changes nothing."""
    world.gateway.requests.clear()
    done = world.run("status", "answer")
    assert done.code == code, done.told
    assert {action for action, _ in world.gateway.asked()} <= {"DescribeServices", "DescribeTaskDefinition", "ListTasks", "DescribeTasks"}
    return world.result(done)


def drift(world: World) -> list[str]:
    """Return the lines of a drift that is a failure, and told."""
    found = status(world, 1)
    assert (found["status"], found["cause"]) == ("failed", "drifted")
    lines: list[str] = found["drift"]
    assert found["message"].splitlines()[:-1] == lines
    return lines


def test_each_drift_is_told_and_a_deployment_brings_it_back(world: World) -> None:
    assert status(world, 0)["cause"] == "never deployed"
    first = world.lock(1)
    world.green()
    told = status(world, 0)
    assert (told["revision"], told["running"], told["desired"], told["rollout"]) == (f"{world.name}:1", 1, 1, "completed")
    assert (told["digests"], told["url"], told["drift"]) == ([first], world.document["load-balancer"]["address"], [])
    assert told["deployed"]["revision"] == told["revision"]

    second = world.lock(2)  # by the lock
    assert drift(world) == [f"image: {first} runs, the lock has {second}"]
    world.lock(1)

    world.service(count=2, environment={"VERSION": "2"})  # by the configuration
    lines = drift(world)
    assert len(lines) == 2
    assert "VERSION" in lines[0]
    assert lines[1].startswith("service.yaml: desiredCount: 1 → 2")
    planned = world.result(world.run("deploy", "answer", "--dry-run"))["changes"]
    assert [f"service.yaml: {change}" for change in planned] == lines
    world.service(count=1, environment={"VERSION": "1"})

    ecs = world.server.client()  # by hand
    definition = ecs.describe_task_definition(taskDefinition=f"{world.name}:1")["taskDefinition"]
    given = ("family", "networkMode", "requiresCompatibilities", "cpu", "memory", "executionRoleArn", "taskRoleArn", "containerDefinitions")
    asked: dict[str, Any] = {key: definition[key] for key in given if key in definition}  # type: ignore[literal-required]
    asked["containerDefinitions"][0] |= {"image": world.images.reference(2)}
    ecs.register_task_definition(**asked)
    ecs.update_service(cluster=CLUSTER, service=world.name, taskDefinition=f"{world.name}:2", desiredCount=2)
    world.settled()
    assert drift(world) == [
        f"{world.name}:2 is asked for, the ledger says {world.name}:1",
        f"image: {second} runs, the lock has {first}",
        "service.yaml: desiredCount: 2 → 1",
    ]
    world.green()
    world.settled()
    assert status(world, 0)["drift"] == []
    assert world.serves() == ("1", "1")

    world.end()
    assert drift(world) == [f"the service is gone: the ledger says that {world.name}:1 serves"]
