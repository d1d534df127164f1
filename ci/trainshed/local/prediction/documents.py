"""The records as ECS shows them: JSON with times as seconds since the epoch, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainshed.local.prediction.records import ACCOUNT, Deployment, Service, Task, arn

_STEADY = {"minimumHealthyPercent": 100, "maximumPercent": 200}


def cluster(name: str, services: Sequence[Service], tasks: Sequence[Task]) -> dict[str, Any]:
    """Show a cluster."""
    return {
        "clusterArn": arn("cluster", name),
        "clusterName": name,
        "status": "ACTIVE",
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": sum(task.status == "RUNNING" for task in tasks),
        "pendingTasksCount": sum(task.status in {"PROVISIONING", "PENDING"} for task in tasks),
        "activeServicesCount": sum(service.status == "ACTIVE" for service in services),
        "statistics": [],
        "tags": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
    }


def service(found: Service, tasks: Sequence[Task]) -> dict[str, Any]:
    """Show a service with its deployments and events."""
    return {
        **found.given,
        "serviceArn": arn("service", found.cluster, found.name),
        "serviceName": found.name,
        "clusterArn": arn("cluster", found.cluster),
        "status": found.status,
        "desiredCount": found.desired,
        "runningCount": _running(tasks),
        "pendingCount": _pending(tasks),
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "schedulingStrategy": "REPLICA",
        "taskDefinition": found.primary.revision,
        "deploymentConfiguration": {
            **_STEADY,
            "deploymentCircuitBreaker": {"enable": found.breaker, "rollback": found.rollback},
        },
        "deploymentController": {"type": "ECS"},
        "deployments": [_deployment(found, deployment, tasks) for deployment in found.deployments],
        "events": [{"id": event.id, "createdAt": event.at, "message": event.message} for event in found.events],
        "createdAt": found.created,
        "createdBy": f"arn:aws:iam::{ACCOUNT}:root",
    }


def task(found: Task) -> dict[str, Any]:
    """Show a task with its container."""
    times = {"createdAt": found.created, "startedAt": found.started, "stoppedAt": found.stopped}
    shown = {
        "taskArn": arn("task", found.cluster, found.id),
        "clusterArn": arn("cluster", found.cluster),
        "taskDefinitionArn": found.revision,
        "group": f"service:{found.service}",
        "startedBy": found.deployment,
        "lastStatus": found.status,
        "desiredStatus": found.desired,
        "healthStatus": found.health,
        "launchType": "FARGATE",
        "connectivity": "CONNECTED",
        "containers": [_container(found)],
        "version": 1,
        **{key: value for key, value in times.items() if value},
    }
    if not found.wanted:
        shown |= {"stopCode": found.stop_code, "stoppedReason": found.reason}
    return shown


def _container(found: Task) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "containerArn": arn("container", found.cluster, found.id, "1"),
        "taskArn": arn("task", found.cluster, found.id),
        "name": found.container,
        "image": found.image,
        "lastStatus": found.status if found.status in {"RUNNING", "STOPPED"} else "PENDING",
        "healthStatus": found.health,
        "networkBindings": [],
        "networkInterfaces": [],
    }
    optional = {"imageDigest": found.digest, "runtimeId": found.container_id, "reason": found.container_reason}
    shown |= {key: value for key, value in optional.items() if value}
    if found.exit_code is not None and found.gone:
        shown["exitCode"] = found.exit_code
    return shown


def _deployment(found: Service, deployment: Deployment, tasks: Sequence[Task]) -> dict[str, Any]:
    own = [one for one in tasks if one.deployment == deployment.id]
    return {
        "id": deployment.id,
        "status": deployment.status,
        "taskDefinition": deployment.revision,
        "desiredCount": found.desired if deployment.status == "PRIMARY" else sum(one.wanted for one in own),
        "runningCount": _running(own),
        "pendingCount": _pending(own),
        "failedTasks": deployment.failed,
        "rolloutState": deployment.rollout,
        "rolloutStateReason": deployment.reason or f"ECS deployment {deployment.id} in progress.",
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "createdAt": deployment.created,
        "updatedAt": deployment.updated,
    }


def _running(tasks: Sequence[Task]) -> int:
    return sum(one.status == "RUNNING" for one in tasks)


def _pending(tasks: Sequence[Task]) -> int:
    return sum(one.status in {"PROVISIONING", "PENDING"} for one in tasks)
