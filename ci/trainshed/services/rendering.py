"""From a service, an image and a model to what the ECS API is asked for: the parameters of its calls, as plain dictionaries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trainshed.services.spec import Service

HEALTH_LABEL = "io.trainshed.health-path"
"""A container's label that tells the embedded Prediction Service which path to ask; ECS carries it and does not care."""
MODEL_FOLDER = "/opt/model"
VOLUME = "model"
URI, RUN_ID, SHA256, PATH = "MODEL_URI", "MODEL_RUN_ID", "MODEL_SHA256", "MODEL_PATH"
"""The variables that tell a task of its model."""
IMAGE_DIGEST = "IMAGE_DIGEST"
"""The variable that tells a task which image it is, so that its answers can say it. It follows from the image: no difference of its own."""
_NO_TAG = re.compile(r"[^\w\s+\-=.:/@]")
_TAG_LENGTH = 256
_METRICS = {
    "cpu": "ECSServiceAverageCPUUtilization",
    "memory": "ECSServiceAverageMemoryUtilization",
    "requests": "ALBRequestCountPerTarget",
}
_NAMESPACE, _DIMENSION = "ecs", "ecs:service:DesiredCount"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model. ``uri`` is its address; ``path`` its place on this machine, which only the embedded service can mount.

    ``sha256`` is of the file, or of the folder as `stages.models` tells.
    """

    uri: str
    run_id: str = ""
    path: str = ""
    sha256: str = ""

    @property
    def mounted(self) -> str:
        """Return the path inside of the container."""
        return f"{MODEL_FOLDER}/{PurePosixPath(self.path).name}"


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Who owns the count: the parameters of ``RegisterScalableTarget``, of one ``PutScalingPolicy`` for each value that is tracked, and
    of one ``DeleteScalingPolicy`` for each that is not: a deploy of before may have left its policy. Policies of other names are others'.
    """  # noqa: D205 - one sentence

    target: Mapping[str, Any]
    policies: tuple[Mapping[str, Any], ...]
    unwanted: tuple[Mapping[str, Any], ...] = ()


def task_definition(service: Service, image: str, *, model: Model | None, secrets: Mapping[str, str], region: str) -> dict[str, Any]:
    """Return the parameters of ``RegisterTaskDefinition``.

    Args:
        service: what to run.
        image: the reference, pinned by digest; the digest is handed to the task as ``IMAGE_DIGEST``.
        model: handed to the task as ``MODEL_URI``, ``MODEL_RUN_ID``, ``MODEL_SHA256`` and, where it lies on this machine, as a
            read-only mount at ``MODEL_PATH``. It is part of the revision, so image and model are rolled back as a pair.
        secrets: variable → ``valueFrom``, as ECS wants it (an ARN, with the key of the JSON behind it).
        region: of the log group.
    """
    container: dict[str, Any] = {
        "name": service.name,
        "image": image,
        "essential": True,
        "portMappings": [{"containerPort": service.port, "protocol": "tcp"}],
        "environment": _pairs({**service.environment, **_model_variables(model), **_image_variable(image)}, "value"),
        "secrets": _pairs(secrets, "valueFrom"),
        "healthCheck": _health(service),
        "dockerLabels": {HEALTH_LABEL: service.health.path},
    }
    if service.log_group:
        options = {"awslogs-group": service.log_group, "awslogs-region": region, "awslogs-stream-prefix": service.name}
        container["logConfiguration"] = {"logDriver": "awslogs", "options": options}
    if service.stop_timeout is not None:
        container["stopTimeout"] = service.stop_timeout
    definition: dict[str, Any] = {
        "family": service.name,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": str(service.cpu),
        "memory": str(service.memory),
        "runtimePlatform": {"cpuArchitecture": service.architecture.upper(), "operatingSystemFamily": "LINUX"},
        "containerDefinitions": [container],
    }
    if service.ephemeral_storage is not None:
        definition["ephemeralStorage"] = {"sizeInGiB": service.ephemeral_storage}
    if model is not None and model.path:
        definition["volumes"] = [{"name": VOLUME, "host": {"sourcePath": model.path}}]
        container["mountPoints"] = [{"sourceVolume": VOLUME, "containerPath": model.mounted, "readOnly": True}]
    if service.execution_role:
        definition["executionRoleArn"] = service.execution_role
    if service.task_role:
        definition["taskRoleArn"] = service.task_role
    return definition


def service_parameters(service: Service, *, exists: bool) -> dict[str, Any]:
    """Return what ``CreateService`` and ``UpdateService`` take beside names and revision.

    An existing service's count is left out where autoscaling owns it; its alarms and load balancer, where it shall have none, are
    taken away by naming none.
    """
    parameters: dict[str, Any] = {
        "deploymentConfiguration": _deployment(service, exists=exists),
        "enableECSManagedTags": True,
        "propagateTags": "TASK_DEFINITION",
    }
    if service.subnets:
        parameters["networkConfiguration"] = {
            "awsvpcConfiguration": {
                "subnets": list(service.subnets),
                "securityGroups": list(service.security_groups),
                "assignPublicIp": "ENABLED" if service.public_ip else "DISABLED",
            },
        }
    if service.target_group:
        balancer = {"targetGroupArn": service.target_group, "containerName": service.name, "containerPort": service.port}
        parameters["loadBalancers"] = [balancer]
        parameters["healthCheckGracePeriodSeconds"] = service.health.start
    elif exists:
        parameters["loadBalancers"] = []
    if not exists:
        parameters |= {"launchType": "FARGATE", "desiredCount": service.first_count}
    elif service.count is not None:
        parameters["desiredCount"] = service.count
    return parameters


def scaling(service: Service, cluster: str) -> Scaling | None:
    """Return what Application Auto Scaling is asked for; None where the count is fixed. ``cluster`` is a name or an ARN."""
    bounds = service.autoscaling
    if bounds is None:
        return None
    place = {
        "ServiceNamespace": _NAMESPACE,
        "ResourceId": f"service/{cluster.rpartition('/')[2]}/{service.name}",
        "ScalableDimension": _DIMENSION,
    }
    wanted = {"cpu": bounds.cpu, "memory": bounds.memory, "requests": bounds.requests}
    return Scaling(
        target={**place, "MinCapacity": bounds.min, "MaxCapacity": bounds.max},
        policies=tuple(
            {
                **place,
                "PolicyName": f"{service.name}-{name}",
                "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": {
                    "TargetValue": float(value),
                    "PredefinedMetricSpecification": _metric(service, name),
                },
            }
            for name, value in wanted.items()
            if value is not None
        ),
        unwanted=tuple({**place, "PolicyName": f"{service.name}-{name}"} for name, value in wanted.items() if value is None),
    )


def tags(*, unit: str, commit: str | None = None, build_url: str | None = None) -> list[dict[str, str]]:
    """Return the tags of a task definition, which its tasks take on: what it is made of, by whom. They are no difference."""
    told = {"trainshed:unit": unit, "trainshed:commit": commit, "trainshed:build": build_url}
    return [{"key": key, "value": _NO_TAG.sub("_", value)[:_TAG_LENGTH]} for key, value in told.items() if value]


def _deployment(service: Service, *, exists: bool) -> dict[str, Any]:
    wanted = service.deployment
    made: dict[str, Any] = {
        "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        "minimumHealthyPercent": wanted.minimum_healthy,
        "maximumPercent": wanted.maximum,
    }
    if wanted.alarms or exists:
        made["alarms"] = {"alarmNames": list(wanted.alarms), "enable": bool(wanted.alarms), "rollback": bool(wanted.alarms)}
    return made


def _metric(service: Service, name: str) -> dict[str, str]:
    """Requests are counted at the load balancer, which is named by the ends of both ARNs."""
    metric = {"PredefinedMetricType": _METRICS[name]}
    if name != "requests":
        return metric
    group = service.target_group.rpartition(":")[2]
    return {**metric, "ResourceLabel": f"{service.balancer.partition(':loadbalancer/')[2]}/{group}"}


def _pairs(values: Mapping[str, str], key: str) -> list[dict[str, str]]:
    return [{"name": name, key: value} for name, value in sorted(values.items())]


def _image_variable(image: str) -> dict[str, str]:
    digest = image.partition("@")[2]
    return {IMAGE_DIGEST: digest} if digest else {}


def _model_variables(model: Model | None) -> dict[str, str]:
    if model is None:
        return {}
    return {
        URI: model.uri,
        **({RUN_ID: model.run_id} if model.run_id else {}),
        **({SHA256: model.sha256} if model.sha256 else {}),
        **({PATH: model.mounted} if model.path else {}),
    }


def _health(service: Service) -> dict[str, Any]:
    """ECS runs the check inside of the container, where only Python is sure to be."""
    health = service.health
    address = f"http://127.0.0.1:{service.port}{health.path}"
    program = f"import urllib.request as r; r.urlopen({address!r}, timeout={health.timeout})"
    return {
        "command": ["CMD", "python3", "-c", program],
        "interval": health.interval,
        "timeout": health.timeout,
        "retries": health.retries,
        "startPeriod": health.start,
    }
