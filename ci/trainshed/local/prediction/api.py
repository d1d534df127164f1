"""The actions of the ECS API that the embedded Prediction Service answers; each takes and gives the protocol's JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainshed.local.prediction import documents
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.records import Service, Store, Task, arn

TARGET = "AmazonEC2ContainerServiceV20141113."
Document = Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_KEPT = ("loadBalancers", "networkConfiguration", "healthCheckGracePeriodSeconds", "serviceRegistries", "propagateTags")
_PAGE = 100


class RefusedError(Exception):
    """A request that ECS would refuse: the name of its exception, and what it says."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Api:
    """Answers by action, one at a time."""

    def __init__(self, store: Store, controller: Controller) -> None:
        self._store, self._controller = store, controller
        self._actions: dict[str, Callable[[Document], dict[str, Any]]] = {
            "CreateCluster": self._create_cluster,
            "DescribeClusters": self._describe_clusters,
            "DeleteCluster": self._delete_cluster,
            "ListClusters": self._list_clusters,
            "RegisterTaskDefinition": self._register,
            "DescribeTaskDefinition": self._describe_definition,
            "ListTaskDefinitions": self._list_definitions,
            "DeregisterTaskDefinition": self._deregister,
            "CreateService": self._create_service,
            "UpdateService": self._update_service,
            "DescribeServices": self._describe_services,
            "ListServices": self._list_services,
            "DeleteService": self._delete_service,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
            "StopTask": self._stop_task,
        }

    def answer(self, action: str, request: object) -> dict[str, Any]:
        """Answer one request; ``action`` is the header ``X-Amz-Target``.

        Raises:
            RefusedError: as ECS would refuse it.
        """
        known = self._actions.get(action.removeprefix(TARGET))
        if not isinstance(request, dict):
            raise RefusedError("ClientException", "expected a JSON object")
        if known is None:
            raise RefusedError("UnsupportedFeatureException", f"the embedded Prediction Service does not know {action}")
        with self._store.changing():
            return known(request)

    def _create_cluster(self, request: Document) -> dict[str, Any]:
        name = _valid(request.get("clusterName", "default"), "cluster")
        if name not in self._store.clusters:
            self._store.clusters.append(name)
        return {"cluster": self._shown_cluster(name)}

    def _describe_clusters(self, request: Document) -> dict[str, Any]:
        names = [_last(name) for name in request.get("clusters") or ["default"]]
        known = [name for name in names if name in self._store.clusters]
        failures = [{"arn": arn("cluster", name), "reason": "MISSING"} for name in names if name not in known]
        return {"clusters": [self._shown_cluster(name) for name in known], "failures": failures}

    def _delete_cluster(self, request: Document) -> dict[str, Any]:
        name = self._cluster(request)
        if any(service.cluster == name and service.status != "INACTIVE" for service in self._store.services.values()):
            raise RefusedError("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.")
        shown = {**self._shown_cluster(name), "status": "INACTIVE"}
        self._store.clusters.remove(name)
        return {"cluster": shown}

    def _list_clusters(self, _: Document) -> dict[str, Any]:
        return {"clusterArns": [arn("cluster", name) for name in self._store.clusters]}

    def _register(self, request: Document) -> dict[str, Any]:
        family = _valid(request.get("family"), "family")
        containers = request.get("containerDefinitions") or []
        if len(containers) != 1 or not containers[0].get("image") or not containers[0].get("name"):
            raise RefusedError("ClientException", "the embedded Prediction Service runs one container per task, with a name and an image")
        volumes = {volume.get("name") for volume in request.get("volumes", [])}
        unknown = [mount.get("sourceVolume") for mount in containers[0].get("mountPoints", []) if mount.get("sourceVolume") not in volumes]
        if unknown:
            raise RefusedError("ClientException", f"Unknown volume '{unknown[0]}'.")
        revision = self._store.revisions.get(family, 0) + 1
        self._store.revisions[family] = revision
        name = arn("task-definition", f"{family}:{revision}")
        definition = {
            **{key: value for key, value in request.items() if key != "tags"},
            "taskDefinitionArn": name,
            "revision": revision,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"],
            "registeredAt": time.time(),
        }
        self._store.definitions[name] = definition
        return {"taskDefinition": dict(definition)}

    def _describe_definition(self, request: Document) -> dict[str, Any]:
        return {"taskDefinition": dict(self._definition(request.get("taskDefinition", ""))), "tags": []}

    def _list_definitions(self, request: Document) -> dict[str, Any]:
        family, status = request.get("familyPrefix"), request.get("status", "ACTIVE")
        found = [name for name, one in self._store.definitions.items() if one["status"] == status and family in (None, one["family"])]
        return _page(found[::-1] if request.get("sort") == "DESC" else found, "taskDefinitionArns", request)

    def _deregister(self, request: Document) -> dict[str, Any]:
        definition = self._definition(request.get("taskDefinition", ""))
        definition |= {"status": "INACTIVE", "deregisteredAt": time.time()}
        return {"taskDefinition": dict(definition)}

    def _create_service(self, request: Document) -> dict[str, Any]:
        cluster, name = self._cluster(request), _valid(request.get("serviceName"), "service")
        revision = self._active(request.get("taskDefinition", ""))
        known = self._store.find_service(cluster, name)
        if known is not None and known.status != "INACTIVE":
            raise RefusedError("InvalidParameterException", "Creation of service was not idempotent.")
        desired = _count(request.get("desiredCount", 0))
        service = Service(name=name, cluster=cluster, desired=desired, port=known.port if known is not None else 0)
        self._take(service, request)
        service.deploy(revision)
        self._controller.open(service)
        self._store.services[f"{cluster}/{name}"] = service
        return {"service": self._shown(service)}

    def _update_service(self, request: Document) -> dict[str, Any]:
        service = self._service(request)
        if service.status != "ACTIVE":
            raise RefusedError("ServiceNotActiveException", "Service was not ACTIVE.")
        wanted = request.get("taskDefinition")
        revision = self._active(wanted) if wanted else service.primary.revision
        if request.get("desiredCount") is not None:
            service.desired = _count(request["desiredCount"])
        self._take(service, request)
        if revision != service.primary.revision or request.get("forceNewDeployment"):
            service.deploy(revision)
        return {"service": self._shown(service)}

    def _describe_services(self, request: Document) -> dict[str, Any]:
        cluster, names = self._cluster(request), request.get("services") or []
        found = {name: self._store.find_service(cluster, name) for name in names}
        shown = [self._shown(service) for service in found.values() if service is not None]
        failures = [{"arn": arn("service", cluster, _last(name)), "reason": "MISSING"} for name, one in found.items() if one is None]
        return {"services": shown, "failures": failures}

    def _list_services(self, request: Document) -> dict[str, Any]:
        cluster = self._cluster(request)
        known = [one for one in self._store.services.values() if one.cluster == cluster and one.status == "ACTIVE"]
        return _page([arn("service", cluster, one.name) for one in known], "serviceArns", request)

    def _delete_service(self, request: Document) -> dict[str, Any]:
        service = self._service(request)
        if service.desired and not request.get("force"):
            raise RefusedError("InvalidParameterException", "The service cannot be stopped while it is scaled above 0.")
        service.desired = 0
        service.status = "DRAINING" if service.status == "ACTIVE" else service.status
        return {"service": self._shown(service)}

    def _describe_tasks(self, request: Document) -> dict[str, Any]:
        cluster, names = self._cluster(request), request.get("tasks") or []
        found = {name: self._task(cluster, name) for name in names}
        shown = [documents.task(task) for task in found.values() if task is not None]
        failures = [{"arn": arn("task", cluster, _last(name)), "reason": "MISSING"} for name, task in found.items() if task is None]
        return {"tasks": shown, "failures": failures}

    def _list_tasks(self, request: Document) -> dict[str, Any]:
        cluster = self._cluster(request)
        desired, service, by = request.get("desiredStatus", "RUNNING"), request.get("serviceName"), request.get("startedBy")
        found = [
            arn("task", cluster, task.id)
            for task in self._store.tasks.values()
            if task.cluster == cluster
            and task.desired == desired
            and service in (None, task.service, arn("service", cluster, task.service))
            and by in (None, task.deployment)
        ]
        return _page(found, "taskArns", request)

    def _stop_task(self, request: Document) -> dict[str, Any]:
        task = self._task(self._cluster(request), request.get("task", ""))
        if task is None:
            raise RefusedError("InvalidParameterException", "The referenced task was not found.")
        task.ask_stop(request.get("reason") or "Task stopped by user", "UserInitiated")
        return {"task": documents.task(task)}

    def _take(self, service: Service, request: Document) -> None:
        breaker = (request.get("deploymentConfiguration") or {}).get("deploymentCircuitBreaker")
        if breaker is not None:
            service.breaker, service.rollback = bool(breaker.get("enable")), bool(breaker.get("rollback"))
        service.given |= {key: request[key] for key in _KEPT if key in request}

    def _cluster(self, request: Document) -> str:
        name = _last(request.get("cluster") or "default")
        if name not in self._store.clusters:
            raise RefusedError("ClusterNotFoundException", "Cluster not found.")
        return name

    def _service(self, request: Document) -> Service:
        found = self._store.find_service(self._cluster(request), str(request.get("service", "")))
        if found is None or found.status == "INACTIVE":
            raise RefusedError("ServiceNotFoundException", "Service not found.")
        return found

    def _task(self, cluster: str, name: str) -> Task | None:
        found = self._store.tasks.get(_last(name))
        return found if found is not None and found.cluster == cluster else None

    def _definition(self, name: str) -> dict[str, Any]:
        """Find a revision by its ARN, by ``family:revision``, or the newest active one of a family."""
        short = _last(name)
        found = self._store.definitions.get(arn("task-definition", short))
        if found is None:
            active = [one for one in self._store.definitions.values() if one["family"] == short and one["status"] == "ACTIVE"]
            found = max(active, key=lambda one: int(one["revision"]), default=None)
        if found is None:
            raise RefusedError("ClientException", "Unable to describe task definition.")
        return found

    def _active(self, name: str) -> str:
        definition = self._definition(name)
        if definition["status"] != "ACTIVE":
            raise RefusedError("ClientException", "TaskDefinition is inactive")
        return str(definition["taskDefinitionArn"])

    def _shown(self, service: Service) -> dict[str, Any]:
        return documents.service(service, [task for task in self._store.tasks_of(service) if not task.gone])

    def _shown_cluster(self, name: str) -> dict[str, Any]:
        services = [service for service in self._store.services.values() if service.cluster == name]
        return documents.cluster(name, services, [task for task in self._store.tasks.values() if task.cluster == name])


def _page(found: list[str], key: str, request: Document) -> dict[str, Any]:
    start, size = int(request.get("nextToken") or 0), int(request.get("maxResults") or _PAGE)
    more = {"nextToken": str(start + size)} if start + size < len(found) else {}
    return {key: found[start : start + size], **more}


def _last(name: str) -> str:
    return str(name).rpartition("/")[2]


def _valid(name: Any, what: str) -> str:  # noqa: ANN401 - any JSON document
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RefusedError("InvalidParameterException", f"the name of a {what} has letters, digits, dashes and underscores, not {name!r}")
    return name


def _count(value: Any) -> int:  # noqa: ANN401 - any JSON document
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RefusedError("InvalidParameterException", f"desiredCount: expected a whole number, not {value!r}")
    return value
