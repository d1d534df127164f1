"""Clusters: names under which services live."""

from __future__ import annotations

from typing import Any

from trainshed.local.prediction import documents
from trainshed.local.prediction.protocol import Action, Document, RefusedError, last, page, valid
from trainshed.local.prediction.records import Store, arn


def named(store: Store, request: Document) -> str:
    """Return the cluster that a request names.

    Raises:
        RefusedError: there is none of that name.
    """
    name = last(request.get("cluster") or "default")
    if name not in store.clusters:
        raise RefusedError("ClusterNotFoundException", "Cluster not found.")
    return name


class Clusters:
    """The actions on clusters."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "CreateCluster": self._create,
            "DescribeClusters": self._describe,
            "DeleteCluster": self._delete,
            "ListClusters": self._list,
        }

    def _create(self, request: Document) -> dict[str, Any]:
        name = valid(request.get("clusterName", "default"), "cluster")
        if name not in self._store.clusters:
            self._store.clusters.append(name)
        return {"cluster": self._shown(name)}

    def _describe(self, request: Document) -> dict[str, Any]:
        names = [last(name) for name in request.get("clusters") or ["default"]]
        known = [name for name in names if name in self._store.clusters]
        failures = [{"arn": arn("cluster", name), "reason": "MISSING"} for name in names if name not in known]
        return {"clusters": [self._shown(name) for name in known], "failures": failures}

    def _delete(self, request: Document) -> dict[str, Any]:
        name = named(self._store, request)
        if any(service.cluster == name and service.status != "INACTIVE" for service in self._store.services.values()):
            raise RefusedError("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.")
        shown = {**self._shown(name), "status": "INACTIVE"}
        self._store.clusters.remove(name)
        return {"cluster": shown}

    def _list(self, request: Document) -> dict[str, Any]:
        return page([arn("cluster", name) for name in self._store.clusters], "clusterArns", request)

    def _shown(self, name: str) -> dict[str, Any]:
        services = [service for service in self._store.services.values() if service.cluster == name]
        return documents.cluster(name, services, [task for task in self._store.tasks.values() if task.cluster == name])
