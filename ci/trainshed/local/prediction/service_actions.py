"""The actions on services."""

from __future__ import annotations

from typing import Any

from trainshed.local.prediction import clusters, definitions, documents
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.protocol import Action, Document, RefusedError, count, last, page, valid
from trainshed.local.prediction.records import Service, Store, arn

_OF_REVISION = ("loadBalancers", "networkConfiguration", "platformVersion", "serviceRegistries")
_KEPT = (*_OF_REVISION, "healthCheckGracePeriodSeconds", "propagateTags", "enableExecuteCommand", "enableECSManagedTags")
_MOST_DESCRIBED = _LISTED = 10


class Services:
    """Create, change, look at and delete services."""

    def __init__(self, store: Store, controller: Controller) -> None:
        self._store, self._controller = store, controller
        self.actions: dict[str, Action] = {
            "CreateService": self._create,
            "UpdateService": self._update,
            "DescribeServices": self._describe,
            "ListServices": self._list,
            "DeleteService": self._delete,
        }

    def _create(self, request: Document) -> dict[str, Any]:
        cluster, name = clusters.named(self._store, request), valid(request.get("serviceName"), "service")
        definition = definitions.active(self._store, request.get("taskDefinition", ""))
        known, token = self._store.find_service(cluster, name), str(request.get("clientToken", ""))
        if known is not None and known.status != "INACTIVE":
            if token and token == known.token:
                return {"service": self._shown(known, tags=True)}
            raise RefusedError("InvalidParameterException", "Creation of service was not idempotent.")
        desired = count(request.get("desiredCount", 0))
        service = Service(name=name, cluster=cluster, desired=desired, port=known.port if known is not None else 0, token=token)
        service.tags = list(request.get("tags") or [])
        _take(service, request)
        service.deploy(str(definition["taskDefinitionArn"]), _images(definition))
        self._controller.open(service)
        self._store.services[f"{cluster}/{name}"] = service
        return {"service": self._shown(service, tags=True)}

    def _update(self, request: Document) -> dict[str, Any]:
        service = self._service(request)
        if service.status != "ACTIVE":
            raise RefusedError("ServiceNotActiveException", "Service was not ACTIVE.")
        wanted = request.get("taskDefinition")
        definition = definitions.active(self._store, wanted) if wanted else self._store.definitions[service.primary.revision]
        desired = count(request["desiredCount"]) if request.get("desiredCount") is not None else service.desired
        before = {key: service.given.get(key) for key in _OF_REVISION}
        _take(service, request)
        service.desired = desired
        moved = any(service.given.get(key) != value for key, value in before.items())
        revision = str(definition["taskDefinitionArn"])
        if revision != service.primary.revision or moved or request.get("forceNewDeployment"):
            service.deploy(revision, _images(definition))
        return {"service": self._shown(service, tags=True)}

    def _describe(self, request: Document) -> dict[str, Any]:
        cluster, names = clusters.named(self._store, request), request.get("services") or []
        if not names:
            raise RefusedError("InvalidParameterException", "Services cannot be empty.")
        if len(names) > _MOST_DESCRIBED:
            raise RefusedError("InvalidParameterException", f"Services cannot be more than {_MOST_DESCRIBED}.")
        found = {name: self._store.find_service(cluster, name) for name in names}
        tags = "TAGS" in request.get("include", [])
        shown = [self._shown(service, tags=tags) for service in found.values() if service is not None]
        failures = [{"arn": arn("service", cluster, last(name)), "reason": "MISSING"} for name, one in found.items() if one is None]
        return {"services": shown, "failures": failures}

    def _list(self, request: Document) -> dict[str, Any]:
        cluster = clusters.named(self._store, request)
        known = [one for one in self._store.services.values() if one.cluster == cluster and one.status == "ACTIVE"]
        return page([arn("service", cluster, one.name) for one in known], "serviceArns", {"maxResults": _LISTED, **request})

    def _delete(self, request: Document) -> dict[str, Any]:
        service = self._service(request)
        if service.desired and not request.get("force"):
            raise RefusedError("InvalidParameterException", "The service cannot be stopped while it is scaled above 0.")
        service.desired = 0
        service.status = "DRAINING" if service.status == "ACTIVE" else service.status
        return {"service": self._shown(service, tags=True)}

    def _service(self, request: Document) -> Service:
        found = self._store.find_service(clusters.named(self._store, request), str(request.get("service", "")))
        if found is None:
            raise RefusedError("ServiceNotFoundException", "Service not found.")
        if found.status == "INACTIVE":
            raise RefusedError("ServiceNotActiveException", "Service was not ACTIVE.")
        return found

    def _shown(self, service: Service, *, tags: bool = False) -> dict[str, Any]:
        return documents.service(service, [task for task in self._store.tasks_of(service) if not task.gone], tags=tags)


def _take(service: Service, request: Document) -> None:
    given = request.get("deploymentConfiguration") or {}
    if "maximumPercent" in given and "minimumHealthyPercent" in given and given["maximumPercent"] <= 100 <= given["minimumHealthyPercent"]:  # noqa: PLR2004 - percents
        message = "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."
        raise RefusedError("InvalidParameterException", message)
    service.configuration |= given
    service.given |= {key: request[key] for key in _KEPT if key in request}


def _images(definition: Document) -> dict[str, str]:
    return {container["name"]: container["image"] for container in definition["containerDefinitions"]}
