"""Application Auto Scaling's actions: targets and policies are kept and shown, and a target's bounds move a count that is outside."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from trainshed.local.prediction.protocol import Action, Document, RefusedError, count, page
from trainshed.local.prediction.records import ACCOUNT, REGION, Service, Store

TARGET = "AnyScaleFrontendService."
_DIMENSION = "ecs:service:DesiredCount"
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForECS"
_AWAKE = {"DynamicScalingInSuspended": False, "DynamicScalingOutSuspended": False, "ScheduledScalingSuspended": False}
_MOST = 50


class Scaling:
    """Register, look at and forget. No metric is measured, so no policy moves a count by itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "RegisterScalableTarget": self._register,
            "DescribeScalableTargets": self._targets,
            "DeregisterScalableTarget": self._deregister,
            "PutScalingPolicy": self._put,
            "DescribeScalingPolicies": self._policies,
            "DeleteScalingPolicy": self._delete,
        }

    def _register(self, request: Document) -> dict[str, Any]:
        name, service = self._service(request)
        known = self._store.targets.get(name)
        if known is None and not {"MinCapacity", "MaxCapacity"} <= request.keys():
            raise RefusedError("ValidationException", "MinCapacity and MaxCapacity are needed to register a new scalable target")
        target = known or {
            "ServiceNamespace": "ecs",
            "ResourceId": name,
            "ScalableDimension": _DIMENSION,
            "RoleARN": _ROLE,
            "CreationTime": time.time(),
            "SuspendedState": _AWAKE,
            "ScalableTargetARN": f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/{uuid.uuid4().hex[:20]}",
        }
        bounds = {key: count(request.get(key, target.get(key)), key) for key in ("MinCapacity", "MaxCapacity")}
        if bounds["MinCapacity"] > bounds["MaxCapacity"]:
            raise RefusedError("ValidationException", "Maximum capacity cannot be less than minimum capacity")
        suspended = {**target["SuspendedState"], **request.get("SuspendedState", {})}
        self._store.targets[name] = target | bounds | {"SuspendedState": suspended}
        service.desired = max(bounds["MinCapacity"], min(service.desired, bounds["MaxCapacity"]))
        return {"ScalableTargetARN": target["ScalableTargetARN"]}

    def _targets(self, request: Document) -> dict[str, Any]:
        wanted = request.get("ResourceIds")
        found = [one for name, one in self._store.targets.items() if not wanted or name in wanted]
        return page(found, "ScalableTargets", {"MaxResults": _MOST, **request}, following="NextToken", size="MaxResults")

    def _deregister(self, request: Document) -> dict[str, Any]:
        name = self._target(request)
        del self._store.targets[name]
        self._store.policies = {key: one for key, one in self._store.policies.items() if one["ResourceId"] != name}
        return {}

    def _put(self, request: Document) -> dict[str, Any]:
        name, policy = self._target(request), str(request.get("PolicyName") or "")
        if not policy:
            raise RefusedError("ValidationException", "PolicyName is needed")
        key = f"{name}/{policy}"
        known = self._store.policies.get(key) or {
            "PolicyARN": f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:{uuid.uuid4()}:resource/ecs/{name}:policyName/{policy}",
            "CreationTime": time.time(),
            "Alarms": [],
        }
        self._store.policies[key] = {**known, **request, "PolicyType": request.get("PolicyType", "StepScaling")}
        return {"PolicyARN": known["PolicyARN"], "Alarms": known["Alarms"]}

    def _policies(self, request: Document) -> dict[str, Any]:
        names, resource = request.get("PolicyNames"), request.get("ResourceId")
        found = [
            one
            for one in self._store.policies.values()
            if (not names or one["PolicyName"] in names) and resource in (None, one["ResourceId"])
        ]
        return page(found, "ScalingPolicies", {"MaxResults": _MOST, **request}, following="NextToken", size="MaxResults")

    def _delete(self, request: Document) -> dict[str, Any]:
        key = f"{request.get('ResourceId')}/{request.get('PolicyName')}"
        if self._store.policies.pop(key, None) is None:
            raise RefusedError("ObjectNotFoundException", "No scaling policy found for the specified name")
        return {}

    def _service(self, request: Document) -> tuple[str, Service]:
        _only_ecs(request)
        name = str(request.get("ResourceId", ""))
        service = self._store.services.get(name.removeprefix("service/")) if name.startswith("service/") else None
        if service is None or service.status != "ACTIVE":
            raise RefusedError("ValidationException", f"ECS service doesn't exist: {name}")
        return name, service

    def _target(self, request: Document) -> str:
        _only_ecs(request)
        name = str(request.get("ResourceId", ""))
        if name not in self._store.targets:
            message = f"No scalable target registered for service namespace: ecs, resource ID: {name}, scalable dimension: {_DIMENSION}"
            raise RefusedError("ObjectNotFoundException", message)
        return name


def _only_ecs(request: Mapping[str, Any]) -> None:
    if request.get("ServiceNamespace") != "ecs" or request.get("ScalableDimension") != _DIMENSION:
        raise RefusedError("ValidationException", f"only ServiceNamespace ecs and ScalableDimension {_DIMENSION} are known here")
