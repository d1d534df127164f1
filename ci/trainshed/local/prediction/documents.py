"""The records as ECS shows them: JSON with times as seconds since the epoch, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainshed.local.prediction import rollout
from trainshed.local.prediction.records import ACCOUNT, PERCENTS, REGION, Deployment, Rollout, Service, ServiceRevision, Task, arn

_EMPTY_SERVICE: Mapping[str, Any] = {
    "taskSets": [],
    "loadBalancers": [],
    "serviceRegistries": [],
    "placementConstraints": [],
    "placementStrategy": [],
    "enableECSManagedTags": False,
    "enableExecuteCommand": False,
    "propagateTags": "NONE",
}
_NO_ALARMS = {"alarmNames": [], "rollback": False, "enable": False}


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


def configuration(given: Mapping[str, Any]) -> dict[str, Any]:
    """Show what a service's owner said of its deployments, with ECS's defaults."""
    breaker = {"enable": False, "rollback": False, **given.get("deploymentCircuitBreaker", {})}
    defaults = {**PERCENTS, "alarms": _NO_ALARMS, "strategy": "ROLLING", "bakeTimeInMinutes": 0}
    return {**defaults, **given, "deploymentCircuitBreaker": breaker}


def service(found: Service, tasks: Sequence[Task], *, tags: bool = False) -> dict[str, Any]:
    """Show a service with its deployments and events."""
    shown = {
        **_EMPTY_SERVICE,
        **found.given,
        "serviceArn": arn("service", found.cluster, found.name),
        "serviceName": found.name,
        "clusterArn": arn("cluster", found.cluster),
        "status": found.status,
        "desiredCount": found.desired,
        "runningCount": _running(tasks),
        "pendingCount": _pending(tasks),
        "launchType": "FARGATE",
        "platformVersion": found.given.get("platformVersion", "LATEST"),
        "platformFamily": "Linux",
        "schedulingStrategy": "REPLICA",
        "taskDefinition": found.primary.revision,
        "deploymentConfiguration": configuration(found.configuration),
        "deploymentController": {"type": "ECS"},
        "deployments": [_deployment(found, deployment, tasks) for deployment in found.deployments],
        "events": [{"id": event.id, "createdAt": event.at, "message": event.message} for event in found.events],
        "createdAt": found.created,
        "createdBy": f"arn:aws:iam::{ACCOUNT}:root",
        "currentServiceRevisions": [_summary(found, one.number, tasks) for one in found.deployments if found.revision(one.number)],
    }
    if found.rollout is not None:
        shown["currentServiceDeployment"] = rollout_arn(found, found.rollout)
    if tags:
        shown["tags"] = found.tags
    return shown


def rollout_arn(found: Service, one: Rollout) -> str:
    """Return the ARN of a service deployment."""
    return arn("service-deployment", found.cluster, found.name, one.id)


def revision_arn(found: Service, number: str) -> str:
    """Return the ARN of a service revision."""
    return arn("service-revision", found.cluster, found.name, number)


def brief_rollout(found: Service, one: Rollout) -> dict[str, Any]:
    """Show a service deployment as a list does."""
    shown: dict[str, Any] = {
        "serviceDeploymentArn": rollout_arn(found, one),
        "serviceArn": arn("service", found.cluster, found.name),
        "clusterArn": arn("cluster", found.cluster),
        "createdAt": one.created,
        "startedAt": one.created,
        "targetServiceRevisionArn": revision_arn(found, one.target),
        "status": one.status,
    }
    return shown | _given({"finishedAt": one.finished, "statusReason": one.reason})


def whole_rollout(found: Service, one: Rollout, tasks: Sequence[Task]) -> dict[str, Any]:
    """Show a service deployment with all that watches it."""
    shown = brief_rollout(found, one)
    del shown["targetServiceRevisionArn"]
    given = configuration(one.configuration)
    shown |= {
        "updatedAt": one.updated,
        "sourceServiceRevisions": [_summary(found, number, tasks) for number in one.sources],
        "targetServiceRevision": _summary(found, one.target, tasks),
        "deploymentConfiguration": given,
        "deploymentCircuitBreaker": {
            "status": _monitor(one, "breaker", on=given["deploymentCircuitBreaker"]["enable"]),
            "failureCount": one.failures,
            "threshold": one.threshold or rollout.threshold(found.desired, given),
        },
        "alarms": {
            "status": _monitor(one, "alarms", on=bool(given["alarms"].get("enable"))),
            "alarmNames": given["alarms"].get("alarmNames", []),
            "triggeredAlarmNames": one.alarms,
        },
    }
    if not one.finished:
        shown["lifecycleStage"] = "SCALE_UP"
    if one.back:
        shown["rollback"] = {"reason": one.back_reason, "startedAt": one.back_at, "serviceRevisionArn": revision_arn(found, one.back)}
    return shown | _given({"stoppedAt": one.stopped})


def service_revision(found: Service, one: ServiceRevision) -> dict[str, Any]:
    """Show a service revision; an image's digest is there as soon as a task of it was started."""
    containers = [
        {"containerName": name, "image": image, **_given({"imageDigest": one.digests.get(name)})} for name, image in one.images.items()
    ]
    return {
        "serviceRevisionArn": revision_arn(found, one.number),
        "serviceArn": arn("service", found.cluster, found.name),
        "clusterArn": arn("cluster", found.cluster),
        "taskDefinition": one.revision,
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "loadBalancers": one.given.get("loadBalancers", []),
        "serviceRegistries": one.given.get("serviceRegistries", []),
        **_given({"networkConfiguration": one.given.get("networkConfiguration")}),
        "containerImages": containers,
        "guardDutyEnabled": False,
        "createdAt": one.created,
    }


def _monitor(one: Rollout, name: str, *, on: bool) -> str:
    if not on:
        return "DISABLED"
    if one.tripped == name:
        return "TRIGGERED"
    return "MONITORING_COMPLETE" if one.finished else "MONITORING"


def _summary(found: Service, number: str, tasks: Sequence[Task]) -> dict[str, Any]:
    own = [one for one in tasks if one.deployment == f"ecs-svc/{number}"]
    wanted = found.desired if found.primary.number == number else sum(one.wanted for one in own)
    counts = {"requestedTaskCount": wanted, "runningTaskCount": _running(own), "pendingTaskCount": _pending(own)}
    return {"arn": revision_arn(found, number), **counts}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


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
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "availabilityZone": f"{REGION}a",
        "attachments": [],
        "attributes": [],
        "overrides": {"containerOverrides": [{"name": found.container}]},
        "tags": [],
        **{key: value for key, value in times.items() if value},
    }
    if not found.wanted:
        shown |= {"stopCode": found.stop_code, "stoppedReason": found.reason} | _given({"stoppingAt": found.stopping})
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
    network = found.given.get("networkConfiguration")
    return {
        **({"networkConfiguration": network} if network else {}),
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
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "createdAt": deployment.created,
        "updatedAt": deployment.updated,
    }


def _running(tasks: Sequence[Task]) -> int:
    return sum(one.status == "RUNNING" for one in tasks)


def _pending(tasks: Sequence[Task]) -> int:
    return sum(one.status in {"PROVISIONING", "PENDING"} for one in tasks)
