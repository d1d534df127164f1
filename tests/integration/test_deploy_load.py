"""Whoever asks a service notices nothing of its deployments: 200 requests a second, ten deployments and a rollback, none failed."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.load import load
from tests.support.production import World

RATE = 200.0
DEPLOYMENTS = 10
HELD = 0.9
"""Share of the rate that the sender itself must have kept, or nothing was shown."""


def test_no_request_fails_during_ten_deployments_and_a_rollback(world: World, record_property: Callable[[str, object], None]) -> None:
    world.service(count=2, environment={"VERSION": "0"})
    world.green()
    expected = ["1/0"]
    with load(world.address, RATE) as running:
        for number in range(1, DEPLOYMENTS + 1):
            image = number % 3 + 1
            world.lock(image)
            world.service(environment={"VERSION": str(number)})
            world.green()
            assert world.serves() == (str(image), str(number))
            expected.append(f"{image}/{number}")
        done = world.run("rollback", "answer")
        assert done.code == 0, done.told
        assert "/".join(world.serves()) == expected[-2]
    told = running.tally
    figures = ("requests", "failed", "seconds", "late", "p50", "p95", "p99", "max")
    record_property("load", ", ".join(f"{name} {told[name]}" for name in figures))
    assert told["failed"] == 0, told["failures"]
    assert set(told["answers"]) == set(expected)
    assert told["requests"] >= HELD * RATE * told["seconds"]
