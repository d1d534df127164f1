"""Whether a task is healthy: asked over HTTP on loopback, by its own command, or by whether it answers at all."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainshed.services.rendering import HEALTH_LABEL

_GOOD = range(200, 400)
_ANY = range(100, 600)
_INTERVAL, _TIMEOUT, _RETRIES = 30, 5, 3


class Executes(Protocol):
    """Something that can run a command in a container."""

    def execute(self, identity: str, command: list[str]) -> bool:
        """Tell whether the command ended with 0."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A task definition's health check. Seconds; without ``path`` and ``command`` any answer is good."""

    path: str
    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start: float
    port: bool

    def good(self, containers: Executes, identity: str, port: int) -> bool:
        """Ask once."""
        if not self.path and self.command:
            return containers.execute(identity, list(self.command))
        if not self.port:
            return True
        return _answers(port, self.path or "/", self.timeout, _GOOD if self.path else _ANY)


def check_of(definition: Mapping[str, Any]) -> Check:
    """Read the health check of a task definition's container."""
    container = definition["containerDefinitions"][0]
    given = container.get("healthCheck") or {}
    return Check(
        path=container.get("dockerLabels", {}).get(HEALTH_LABEL, ""),
        command=tuple(given.get("command", ())),
        interval=float(given.get("interval", _INTERVAL)),
        timeout=float(given.get("timeout", _TIMEOUT)),
        retries=int(given.get("retries", _RETRIES)),
        start=float(given.get("startPeriod", 0 if given else _INTERVAL)),
        port=bool(container.get("portMappings")),
    )


def _answers(port: int, path: str, timeout: float, good: range) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "trainshed-health", "Connection": "close"})
        return connection.getresponse().status in good
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
