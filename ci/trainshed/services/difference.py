"""What a deployment would change, in words: the cause of the work and the answer of ``--dry-run``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainshed.services import rendering
from trainshed.services.rendering import Scaling

_NAMED = ("name", "sourceVolume", "targetGroupArn", "loadBalancerName")
"""What tells the items of a list apart: their order says nothing."""
_ADDED: Mapping[str, Any] = {
    "container.cpu": 0,
    "container.essential": True,
    "container.mountPoints.readOnly": False,
    "container.portMappings.protocol": "tcp",
    "container.healthCheck.interval": 30,
    "container.healthCheck.timeout": 5,
    "container.healthCheck.retries": 3,
    "container.healthCheck.startPeriod": 0,
    "container.stopTimeout": 30,
    "ephemeralStorage.sizeInGiB": 20,
    "networkMode": "awsvpc",
    "runtimePlatform.cpuArchitecture": "X86_64",
    "runtimePlatform.operatingSystemFamily": "LINUX",
    "deploymentConfiguration.alarms.enable": False,
    "deploymentConfiguration.alarms.rollback": False,
    "healthCheckGracePeriodSeconds": 0,
    "networkConfiguration.awsvpcConfiguration.assignPublicIp": "DISABLED",
}
"""What ECS takes where nothing is said, whether it shows it or not: no difference."""
_COMPARED = (
    "containerDefinitions",
    "cpu",
    "ephemeralStorage",
    "executionRoleArn",
    "memory",
    "networkMode",
    "requiresCompatibilities",
    "runtimePlatform",
    "taskRoleArn",
    "volumes",
)
_OF_A_SERVICE = (
    "deploymentConfiguration",
    "desiredCount",
    "enableECSManagedTags",
    "healthCheckGracePeriodSeconds",
    "loadBalancers",
    "networkConfiguration",
    "propagateTags",
)
_TRACKING = "TargetTrackingScalingPolicyConfiguration"
_REPEATED = f".environment.{rendering.IMAGE_DIGEST}.value"
_ALWAYS_TOLD = frozenset({"deploymentConfiguration", "enableECSManagedTags", "healthCheckGracePeriodSeconds", "propagateTags"})
"""What ECS shows of every service; where it is not shown it cannot be compared."""
_CONTAINER = re.compile(r"^containerDefinitions\.[^.]+")
_SECRET = re.compile(r"(?i)(password|passwd|secret|token|credential|private|api_?key|access_?key|auth)")
_LOGIN = re.compile(r"://[^\s/@]+@")
_MASK = "***"
_NOTHING: tuple[Any, ...] = (None, [], {}, "")


def changes(running: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """List the differences between the task definition that runs and the one that is asked for, each ``place: old → new``.

    A secret is shown by its reference: its value is in neither. The value of a variable that looks like a secret is masked. That
    another run gave the very same model, out of a cache, is no difference.
    """
    if running is None:
        return ["the service is new"]
    old, new = flat(running), flat(wanted)
    found = [place for place in sorted(old.keys() | new.keys()) if old.get(place) != new.get(place)]
    if not any(f".{name}." in place for place in found for name in (rendering.URI, rendering.SHA256)) and _checked(new):
        found = [place for place in found if f".environment.{rendering.RUN_ID}." not in place]
    return [f"{place}: {_told(place, old)} → {_told(place, new)}" for place in found]


def service_changes(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what differs of the service itself: its count (where it is asked for), network, load balancer and deployments.

    What was not asked for is ECS's own, and no difference.
    """
    asked = [key for key in _OF_A_SERVICE if key in wanted and (key in running or key not in _ALWAYS_TOLD)]
    found = []
    for key in asked:
        old, new = _leaves({key: running.get(key)}), _leaves({key: wanted[key]})
        named = new.keys() | (old.keys() if key == "loadBalancers" else set())
        places = named | {place for place in old if _asked_for(place, wanted)}
        found += [f"{place}: {_told(place, old)} → {_told(place, new)}" for place in sorted(places) if old.get(place) != new.get(place)]
    return found


def former(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a service's own settings that ``wanted`` changes, as they are now: what brings them back.

    A count of nothing stays behind: whoever goes back wants it to serve.
    """
    changed = {change.partition(": ")[0].partition(".")[0] for change in service_changes(running, wanted)}
    found = {key: running.get(key, [] if key == "loadBalancers" else None) for key in _OF_A_SERVICE if key in changed}
    return {key: value for key, value in found.items() if value is not None and (key != "desiredCount" or value)}


def scaling_changes(target: Mapping[str, Any] | None, policies: Sequence[Mapping[str, Any]], wanted: Scaling) -> list[str]:
    """List what differs of the bounds and of the policies that track a value: Application Auto Scaling's answers and what is asked for."""
    found = []
    for key, short in (("MinCapacity", "min"), ("MaxCapacity", "max")):
        old = target.get(key) if target is not None else None
        if old != wanted.target[key]:
            found.append(f"autoscaling.{short}: {_shown(old)} → {wanted.target[key]}")
    known = {policy["PolicyName"]: _leaves(policy.get(_TRACKING, {})) for policy in policies}
    for policy in wanted.policies:
        name, new = policy["PolicyName"], _leaves(policy[_TRACKING])
        old_values = known.get(name, {})
        differing = (place for place in new if old_values.get(place) != new[place])
        found += [f"autoscaling.{name}.{place}: {_shown(old_values.get(place))} → {new[place]}" for place in differing]
    left = (policy["PolicyName"] for policy in wanted.unwanted)
    return [*found, *(f"autoscaling.{name}: tracked → nothing" for name in left if name in known)]


def flat(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task definition as place → value, whoever wrote it: what ECS fills in, adds or reorders does not show.

    Nor does the variable that repeats the image's digest: a revision from before there was one is none the worse.
    """
    found = _leaves({key: definition.get(key) for key in _COMPARED})
    return {place: value for place, value in found.items() if not place.endswith(_REPEATED)}


def _leaves(document: Mapping[str, Any]) -> dict[str, Any]:
    return {place: value for place, value in _walk(document, "", "") if value not in _NOTHING}


def _walk(value: Any, place: str, kind: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any part of the document
    """Yield each place with its value. ``kind`` is the place without names, by which defaults are known."""
    if kind in _ADDED and value == _ADDED[kind]:
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            if (kind, key) == ("container.portMappings", "hostPort"):  # in an own network always the container's
                continue
            yield from _walk(below, f"{place}.{key}" if place else key, _kind(kind, key))
    elif isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            name = next((key for key in _NAMED if item.get(key)), "containerPort" if "containerPort" in item else "")
            rest = {key: below for key, below in item.items() if key != name}
            own = f"{place}.{item[name] if name else index}"
            said = [(below, value) for below, value in _walk(rest, own, kind) if value not in _NOTHING]
            yield from said or ([(own, True)] if name else [])
    elif isinstance(value, (list, tuple)):
        yield place, list(value) if kind.endswith((".command", ".entryPoint")) else sorted(value, key=repr)
    elif kind.endswith("RoleArn") and isinstance(value, str):
        yield place, value.rpartition("/")[2]  # ECS makes an ARN of a role's name
    else:
        yield place, str(value) if kind in ("cpu", "memory") and value is not None else value


def _kind(kind: str, key: str) -> str:
    if not kind:
        return "container" if key == "containerDefinitions" else key
    return f"{kind}.{key}"


def _checked(new: Mapping[str, Any]) -> bool:
    return any(f".environment.{rendering.SHA256}." in place for place in new)


def _asked_for(place: str, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a place is named, be it as empty or as what ECS takes anyhow."""
    value: Any = wanted
    for key in place.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value is not None


def _told(place: str, document: Mapping[str, Any]) -> str:
    """Show a value, unless it belongs to a variable that looks like a secret; where nothing is said, what ECS takes then."""
    value = document.get(place, _ADDED.get(_CONTAINER.sub("container", place)))
    if value is not None and ".environment." in place:
        if _SECRET.search(place.partition(".environment.")[2]):
            return _MASK
        return _LOGIN.sub(f"://{_MASK}@", str(value))
    return _shown(value)


def _shown(value: Any) -> str:  # noqa: ANN401 - any part of the document
    return "nothing" if value is None else str(value)
