"""The actions on tasks."""

from __future__ import annotations

from typing import Any

from trainshed.local.prediction import clusters, documents
from trainshed.local.prediction.protocol import Action, Document, RefusedError, last, page
from trainshed.local.prediction.records import Store, Task, arn


class Tasks:
    """Look at tasks, and stop one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {"DescribeTasks": self._describe, "ListTasks": self._list, "StopTask": self._stop}

    def _describe(self, request: Document) -> dict[str, Any]:
        cluster, names = clusters.named(self._store, request), request.get("tasks") or []
        if not names:
            raise RefusedError("InvalidParameterException", "Tasks cannot be empty.")
        found = {name: self._task(cluster, name) for name in names}
        shown = [self._shown(task) for task in found.values() if task is not None]
        failures = [{"arn": arn("task", cluster, last(name)), "reason": "MISSING"} for name, task in found.items() if task is None]
        return {"tasks": shown, "failures": failures}

    def _list(self, request: Document) -> dict[str, Any]:
        cluster = clusters.named(self._store, request)
        desired, name, by = request.get("desiredStatus", "RUNNING"), request.get("serviceName"), request.get("startedBy")
        if name is not None and self._store.find_service(cluster, str(name)) is None:
            raise RefusedError("ServiceNotFoundException", "Service not found.")
        found = [
            arn("task", cluster, task.id)
            for task in self._store.tasks.values()
            if task.cluster == cluster
            and task.desired == desired
            and (name is None or task.service == last(name))
            and by in (None, task.deployment)
            and request.get("family") in (None, last(task.revision).partition(":")[0])
        ]
        return page(found, "taskArns", request)

    def _stop(self, request: Document) -> dict[str, Any]:
        task = self._task(clusters.named(self._store, request), request.get("task", ""))
        if task is None:
            raise RefusedError("InvalidParameterException", "The referenced task was not found.")
        task.ask_stop(request.get("reason") or "Task stopped by user", "UserInitiated")
        return {"task": self._shown(task)}

    def _task(self, cluster: str, name: str) -> Task | None:
        found = self._store.tasks.get(last(name))
        return found if found is not None and found.cluster == cluster else None

    def _shown(self, task: Task) -> dict[str, Any]:
        definition = self._store.definitions.get(task.revision, {})
        return documents.task(task) | {key: definition[key] for key in ("cpu", "memory") if key in definition}
