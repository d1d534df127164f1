"""From a service, an image and a model to what the ECS API is asked for: the parameters of its calls, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trainshed.services.spec import Service

HEALTH_LABEL = "io.trainshed.health-path"
"""A container's label that tells the embedded Prediction Service which path to ask; ECS carries it and does not care."""
MODEL_FOLDER = "/opt/model"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model. ``uri`` is its address; ``path`` its place on this machine, which only the embedded service can mount."""

    uri: str
    run_id: str = ""
    path: str = ""

    @property
    def mounted(self) -> str:
        """Return the path inside of the container."""
        return f"{MODEL_FOLDER}/{PurePosixPath(self.path).name}"


def task_definition(service: Service, image: str, *, model: Model | None, secrets: Mapping[str, str], region: str) -> dict[str, Any]:
    """Return the parameters of ``RegisterTaskDefinition``.

    Args:
        service: what to run.
        image: the reference, pinned by digest.
        model: handed to the task as ``MODEL_URI``, ``MODEL_RUN_ID`` and, where it lies on this machine, as a read-only mount
            at ``MODEL_PATH``. It is part of the revision, so image and model are rolled back as a pair.
        secrets: variable → ``valueFrom``, as ECS wants it (an ARN, with the key of the JSON behind it).
        region: of the log group.
    """
    container = {
        "name": service.name,
        "image": image,
        "essential": True,
        "portMappings": [{"containerPort": service.port, "protocol": "tcp"}],
        "environment": _pairs({**service.environment, **_model_variables(model)}, "value"),
        "secrets": _pairs(secrets, "valueFrom"),
        "healthCheck": _health(service),
        "dockerLabels": {HEALTH_LABEL: service.health.path},
    }
    if service.log_group:
        options = {"awslogs-group": service.log_group, "awslogs-region": region, "awslogs-stream-prefix": service.name}
        container["logConfiguration"] = {"logDriver": "awslogs", "options": options}
    definition: dict[str, Any] = {
        "family": service.name,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": str(service.cpu),
        "memory": str(service.memory),
        "containerDefinitions": [container],
    }
    if model is not None and model.path:
        definition["volumes"] = [{"name": "model", "host": {"sourcePath": model.path}}]
        container["mountPoints"] = [{"sourceVolume": "model", "containerPath": model.mounted, "readOnly": True}]
    if service.execution_role:
        definition["executionRoleArn"] = service.execution_role
    if service.task_role:
        definition["taskRoleArn"] = service.task_role
    return definition


def service_parameters(service: Service, *, exists: bool) -> dict[str, Any]:
    """Return what ``CreateService`` and ``UpdateService`` take beside names and revision.

    An existing service's count is left out where autoscaling owns it.
    """
    parameters: dict[str, Any] = {
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
            "minimumHealthyPercent": 100,
            "maximumPercent": 200,
        },
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
    if not exists:
        parameters |= {"launchType": "FARGATE", "desiredCount": service.first_count}
    elif service.count is not None:
        parameters["desiredCount"] = service.count
    return parameters


def _pairs(values: Mapping[str, str], key: str) -> list[dict[str, str]]:
    return [{"name": name, key: value} for name, value in sorted(values.items())]


def _model_variables(model: Model | None) -> dict[str, str]:
    if model is None:
        return {}
    return {
        "MODEL_URI": model.uri,
        **({"MODEL_RUN_ID": model.run_id} if model.run_id else {}),
        **({"MODEL_PATH": model.mounted} if model.path else {}),
    }


def _health(service: Service) -> dict[str, Any]:
    """ECS runs the check inside of the container, where only Python is sure to be."""
    health = service.health
    program = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{service.port}{health.path}', timeout={health.timeout})"
    return {
        "command": ["CMD", "python3", "-c", program],
        "interval": health.interval,
        "timeout": health.timeout,
        "retries": health.retries,
        "startPeriod": health.start,
    }
