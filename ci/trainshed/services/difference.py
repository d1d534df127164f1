"""What a deployment would change, in words: the cause of the work and the answer of ``--dry-run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DEFAULTS: Mapping[str, Any] = {"cpu": 0, "volumesFrom": [], "systemControls": [], "essential": True}
"""What ECS adds to a container when it is registered: no difference."""
_COMPARED = (
    "containerDefinitions",
    "cpu",
    "executionRoleArn",
    "memory",
    "networkMode",
    "requiresCompatibilities",
    "taskRoleArn",
    "volumes",
)


def changes(running: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """List the differences between the task definition that runs and the one that is asked for, each ``place: old → new``.

    A secret is shown by its reference: its value is in neither.
    """
    if running is None:
        return ["the service is new"]
    old, new = _flat(running), _flat(wanted)
    return [
        f"{key}: {_shown(old.get(key))} → {_shown(new.get(key))}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    ]


def service_changes(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what differs of the service itself: its count (where it is asked for), network and load balancer."""
    compared = ("desiredCount", "loadBalancers", "networkConfiguration")
    differing = (key for key in compared if key in wanted and _plain(running.get(key)) != _plain(wanted[key]))
    return [f"{key}: {_shown(running.get(key))} → {_shown(wanted[key])}" for key in differing]


def _flat(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _walk({key: definition.get(key) for key in _COMPARED}, "") if value not in (None, [], {}, "")}


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any part of the document
    if isinstance(value, dict):
        for key, below in value.items():
            if key in _DEFAULTS and place.startswith("containerDefinitions") and below == _DEFAULTS[key]:
                continue
            yield from _walk(below, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        for item in value:
            rest = {key: below for key, below in item.items() if key != "name"}
            yield from _walk(rest, f"{place}.{item['name']}")
    elif place.endswith(".portMappings") and isinstance(value, list):
        yield place, [{key: below for key, below in item.items() if key != "hostPort"} for item in value]  # copied from the container's
    elif place.endswith("RoleArn") and isinstance(value, str):
        yield place, value.rpartition("/")[2]  # ECS makes an ARN of a role's name
    else:
        yield place, value


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of the document
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items() if below not in (None, [], {})}
    if isinstance(value, list):
        return sorted((_plain(item) for item in value), key=repr)
    return value


def _shown(value: Any) -> str:  # noqa: ANN401 - any part of the document
    return "nothing" if value is None else str(value)
