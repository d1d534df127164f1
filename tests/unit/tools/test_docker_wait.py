"""Waiting for a container: a connection that breaks is not a time that ran out."""

from __future__ import annotations

from typing import Any, cast

import pytest
import requests

from trainshed.tools.docker import Engine


class Api:
    """An engine whose calls to wait fail as told, one after the other, and then succeed."""

    def __init__(self, *failures: Exception, running: bool = True) -> None:
        self.failures, self.running = list(failures), running
        self.limits: list[float | None] = []

    def wait(self, _container: str, timeout: float | None) -> dict[str, int]:
        self.limits.append(timeout)
        if self.failures:
            raise self.failures.pop(0)
        return {"StatusCode": 0}

    def inspect_container(self, _container: str) -> dict[str, Any]:
        return {"State": {"Running": self.running}}


def waited(api: Api, timeout: float | None) -> bool:
    return Engine(cast(Any, api), "unix:///nowhere", "20.10")._wait("one", timeout)


@pytest.mark.parametrize("timeout", [None, 600.0])
def test_a_connection_that_breaks_is_made_anew_for_the_time_that_is_left(timeout: float | None) -> None:
    api = Api(requests.exceptions.ConnectionError("reset"), requests.exceptions.ConnectionError("reset"))
    assert waited(api, timeout)
    assert len(api.limits) == 3
    assert all(limit is None or limit <= 600 for limit in api.limits)


def test_a_container_that_ended_while_the_connection_was_broken_has_ended() -> None:
    assert waited(Api(requests.exceptions.ConnectionError("reset"), running=False), None)


def test_a_container_that_still_runs_when_its_time_is_over_has_not_ended() -> None:
    assert not waited(Api(requests.exceptions.ReadTimeout("late")), 0.0)
