"""Application Auto Scaling of a service: compared, then brought to what ``service.yaml`` says. Never a count: that is autoscaling's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.errors import RemoteError, UsageError
from trainshed.services import difference, rendering
from trainshed.services.rendering import Scaling
from trainshed.services.spec import Service
from trainshed.tools.aws import Refused
from trainshed.tools.ecs import Ecs

_SERVICE = "application-autoscaling"
_NAMESPACE, _DIMENSION = "ecs", "ecs:service:DesiredCount"


@dataclass(frozen=True, kw_only=True)
class Found:
    """How autoscaling stands: ``owns`` tells that it moves the count now, ``changes`` what differs from ``wanted``.

    ``left`` are policies of ours, as ``DeleteScalingPolicy`` takes them, that are there and track what is no longer to be tracked.
    """

    wanted: Scaling | None = None
    owns: bool = False
    changes: tuple[str, ...] = ()
    left: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def look(ecs: Ecs, service: Service) -> Found:
    """Compare what autoscaling does with what is asked for.

    Raises:
        Refused: it may not be asked, and the service wants it.
    """
    wanted = rendering.scaling(service, ecs.cluster)
    try:
        target = _target(ecs, service)
        policies = _policies(ecs, service) if target is not None and wanted is not None else []
    except Refused as refusal:
        if wanted is not None or not refusal.denied:
            raise
        return Found(notes=(f"whether autoscaling owns the count cannot be told: {refusal.message}",))
    if wanted is not None:
        names = {policy["PolicyName"] for policy in policies}
        left = tuple(policy for policy in wanted.unwanted if policy["PolicyName"] in names)
        return Found(wanted=wanted, owns=target is not None, changes=tuple(difference.scaling_changes(target, policies, wanted)), left=left)
    if target is None:
        return Found()
    bounds = f"{target['MinCapacity']} to {target['MaxCapacity']}"
    note = f"autoscaling ({bounds}) owns the count, though {service.file.name} gives one: it is left alone"
    return Found(owns=True, notes=(note,))


def apply(ecs: Ecs, found: Found) -> None:
    """Set bounds and policies, where they differ: the same again changes nothing."""
    if found.wanted is None or not found.changes:
        return
    try:
        ecs.aws.call(_SERVICE, "register_scalable_target", **found.wanted.target)
        for policy in found.wanted.policies:
            ecs.aws.call(_SERVICE, "put_scaling_policy", **policy)
        for policy in found.left:
            ecs.aws.call(_SERVICE, "delete_scaling_policy", **policy)
    except (RemoteError, UsageError) as error:
        message = f"the revision serves, but its autoscaling could not be set: {error.message}"
        raise (RemoteError if isinstance(error, RemoteError) else UsageError)(message, next_step=error.next_step) from error


def take_away(ecs: Ecs, service: Service) -> None:
    """Forget bounds and policies of a service that is about to be deleted: its name may come again."""
    if service.autoscaling is None or _target(ecs, service) is None:
        return
    wanted = {"ServiceNamespace": _NAMESPACE, "ResourceId": _place(ecs, service), "ScalableDimension": _DIMENSION}
    ecs.aws.call(_SERVICE, "deregister_scalable_target", **wanted)


def _place(ecs: Ecs, service: Service) -> str:
    return f"service/{ecs.cluster.rpartition('/')[2]}/{service.name}"


def _target(ecs: Ecs, service: Service) -> Mapping[str, Any] | None:
    wanted = {"ServiceNamespace": _NAMESPACE, "ResourceIds": [_place(ecs, service)], "ScalableDimension": _DIMENSION}
    found = ecs.aws.call(_SERVICE, "describe_scalable_targets", **wanted)["ScalableTargets"]
    return found[0] if found else None


def _policies(ecs: Ecs, service: Service) -> list[Mapping[str, Any]]:
    wanted = {"ServiceNamespace": _NAMESPACE, "ResourceId": _place(ecs, service), "ScalableDimension": _DIMENSION}
    pages = ecs.aws.pages(_SERVICE, "describe_scaling_policies", **wanted)
    return [policy for page in pages for policy in page["ScalingPolicies"]]
