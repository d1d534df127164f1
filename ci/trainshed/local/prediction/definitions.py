"""Task definitions: revisions of families, which are never changed and stay after they were deregistered, and tags."""

from __future__ import annotations

import time
from typing import Any

from trainshed.local.prediction.protocol import Action, Document, RefusedError, last, page, valid
from trainshed.local.prediction.records import ACCOUNT, Store, arn

_ADDED: Document = {"cpu": 0, "environment": [], "essential": True, "mountPoints": [], "systemControls": [], "volumesFrom": []}


def found(store: Store, name: str) -> dict[str, Any]:
    """Find a revision by its ARN, by ``family:revision``, or the newest active one of a family.

    Raises:
        RefusedError: there is none.
    """
    short = last(name)
    exact = store.definitions.get(arn("task-definition", short))
    if exact is not None:
        return exact
    active = [one for one in store.definitions.values() if one["family"] == short and one["status"] == "ACTIVE"]
    newest = max(active, key=lambda one: int(one["revision"]), default=None)
    if newest is None:
        raise RefusedError("ClientException", "Unable to describe task definition.")
    return newest


def active(store: Store, name: str) -> dict[str, Any]:
    """Find a revision that new deployments may use.

    Raises:
        RefusedError: there is none, or it was deregistered.
    """
    try:
        definition = found(store, name)
    except RefusedError as error:
        raise RefusedError("ClientException", "TaskDefinition not found.") from error
    if definition["status"] != "ACTIVE":
        raise RefusedError("ClientException", "TaskDefinition is inactive")
    return definition


class Definitions:
    """The actions on task definitions and on tags."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "RegisterTaskDefinition": self._register,
            "DescribeTaskDefinition": self._describe,
            "ListTaskDefinitions": self._list,
            "DeregisterTaskDefinition": self._deregister,
            "ListTagsForResource": self._tags,
        }

    def _register(self, request: Document) -> dict[str, Any]:
        family = valid(request.get("family"), "family")
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
            "volumes": [],
            "placementConstraints": [],
            **{key: value for key, value in request.items() if key != "tags"},
            **{key: _role(request[key]) for key in ("executionRoleArn", "taskRoleArn") if request.get(key)},
            "containerDefinitions": [_container(container) for container in containers],
            "taskDefinitionArn": name,
            "revision": revision,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"],
            "registeredAt": time.time(),
            "registeredBy": f"arn:aws:iam::{ACCOUNT}:root",
        }
        self._store.definitions[name] = definition
        if request.get("tags"):
            self._store.tags[name] = list(request["tags"])
        return {"taskDefinition": dict(definition), "tags": self._store.tags.get(name, [])}

    def _describe(self, request: Document) -> dict[str, Any]:
        definition = found(self._store, request.get("taskDefinition", ""))
        tags = self._store.tags.get(definition["taskDefinitionArn"], []) if "TAGS" in request.get("include", []) else []
        return {"taskDefinition": dict(definition), "tags": tags}

    def _list(self, request: Document) -> dict[str, Any]:
        family, status = request.get("familyPrefix"), request.get("status", "ACTIVE")
        fitting = [one for one in self._store.definitions.values() if one["status"] == status and family in (None, one["family"])]
        ordered = sorted(fitting, key=lambda one: (one["family"], one["revision"]), reverse=request.get("sort") == "DESC")
        return page([one["taskDefinitionArn"] for one in ordered], "taskDefinitionArns", request)

    def _deregister(self, request: Document) -> dict[str, Any]:
        name = str(request.get("taskDefinition", ""))
        if ":" not in last(name):
            raise RefusedError("ClientException", "Revision is missing.")
        definition = found(self._store, name)
        if definition["status"] != "ACTIVE":
            raise RefusedError("ClientException", "The specified task definition is inactive.")
        definition |= {"status": "INACTIVE", "deregisteredAt": time.time()}
        return {"taskDefinition": dict(definition)}

    def _tags(self, request: Document) -> dict[str, Any]:
        name = str(request.get("resourceArn", ""))
        kind, _, rest = name.rpartition(":")[2].partition("/") if ":task-definition/" not in name else ("task-definition", "", "")
        if kind == "service":
            cluster, _, short = rest.partition("/")
            service = self._store.find_service(cluster, short)
            if service is not None:
                return {"tags": service.tags}
        elif name in self._store.definitions:
            return {"tags": self._store.tags.get(name, [])}
        raise RefusedError("InvalidParameterException", "The specified resource was not found.")


def _container(given: Document) -> dict[str, Any]:
    """Return a container with what ECS adds to it."""
    ports = [{"hostPort": mapping["containerPort"], "protocol": "tcp", **mapping} for mapping in given.get("portMappings", [])]
    return {**_ADDED, **given, "portMappings": ports}


def _role(name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:iam::{ACCOUNT}:role/{name}"
