"""The actions on service deployments and service revisions: what ECS did for each change, and which images it resolved."""

from __future__ import annotations

from typing import Any

from trainshed.local.prediction import clusters, documents, rollout
from trainshed.local.prediction.protocol import Action, Document, RefusedError, last, page
from trainshed.local.prediction.records import Rollout, Service, ServiceRevision, Store

_MOST_DESCRIBED = 20
_STOPPED_BY_HAND = "Service deployment rollback: the service deployment was stopped by a user."


class Deployments:
    """List and describe them, and stop one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "ListServiceDeployments": self._list,
            "DescribeServiceDeployments": self._describe,
            "DescribeServiceRevisions": self._revisions,
            "StopServiceDeployment": self._stop,
        }

    def _list(self, request: Document) -> dict[str, Any]:
        service = self._store.find_service(clusters.named(self._store, request), str(request.get("service", "")))
        if service is None:
            raise RefusedError("ServiceNotFoundException", "Service not found.")
        wanted, times = request.get("status") or [], request.get("createdAt") or {}
        found = [
            documents.brief_rollout(service, one)
            for one in service.rollouts
            if (not wanted or one.status in wanted)
            and one.created >= float(times.get("after", 0.0))
            and one.created <= float(times.get("before", one.created))
        ]
        return page(found, "serviceDeployments", request)

    def _describe(self, request: Document) -> dict[str, Any]:
        names = _names(request, "serviceDeploymentArns")
        found = {name: self._rollout(name) for name in names}
        shown = [documents.whole_rollout(service, one, self._store.tasks_of(service)) for service, one in filter(None, found.values())]
        return {"serviceDeployments": shown, "failures": _missing(found)}

    def _revisions(self, request: Document) -> dict[str, Any]:
        found = {name: self._revision(name) for name in _names(request, "serviceRevisionArns")}
        shown = [documents.service_revision(service, one) for service, one in filter(None, found.values())]
        return {"serviceRevisions": shown, "failures": _missing(found)}

    def _stop(self, request: Document) -> dict[str, Any]:
        name = str(request.get("serviceDeploymentArn", ""))
        found = self._rollout(name)
        if found is None:
            raise RefusedError("ServiceDeploymentNotFoundException", "Service deployment not found.")
        service, one = found
        if request.get("stopType", "ROLLBACK") != "ROLLBACK":
            raise RefusedError("InvalidParameterException", "The valid values of stopType are ROLLBACK.")
        if one.status != "IN_PROGRESS":
            raise RefusedError("ConflictException", f"The service deployment cannot be stopped: it is {one.status}.")
        service.primary.rollout, service.primary.reason = "FAILED", _STOPPED_BY_HAND
        rollout.go_back(service, _STOPPED_BY_HAND)
        return {"serviceDeploymentArn": name}

    def _service(self, name: str) -> Service | None:
        parts = name.split("/")
        return self._store.services.get("/".join(parts[-3:-1])) if len(parts) > len(("kind", "cluster", "service")) else None

    def _rollout(self, name: str) -> tuple[Service, Rollout] | None:
        service = self._service(name)
        one = next((one for one in service.rollouts if one.id == last(name)), None) if service is not None else None
        return (service, one) if service is not None and one is not None else None

    def _revision(self, name: str) -> tuple[Service, ServiceRevision] | None:
        service = self._service(name)
        one = service.revision(last(name)) if service is not None else None
        return (service, one) if service is not None and one is not None else None


def _names(request: Document, key: str) -> list[str]:
    names = [str(name) for name in request.get(key) or []]
    if not names or len(names) > _MOST_DESCRIBED:
        raise RefusedError("InvalidParameterException", f"{key} names between 1 and {_MOST_DESCRIBED}.")
    return names


def _missing(found: Document) -> list[dict[str, str]]:
    return [{"arn": name, "reason": "MISSING"} for name, one in found.items() if one is None]
