"""CloudWatch Logs' actions over what the tasks of this service wrote; a stream is named as the driver ``awslogs`` names it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from trainshed.local.prediction.protocol import Action, Document, RefusedError, page
from trainshed.local.prediction.records import ACCOUNT, REGION, Store, Task

TARGET = "Logs_20140328."
_MOST_EVENTS = 10_000
_MOST_DESCRIBED = 50
_MILLISECONDS = 1000


class Logs:
    """Groups are those that were created, and those that a task definition names; ``read`` gives a task's last lines."""

    def __init__(self, store: Store, read: Callable[[Task], bytes]) -> None:
        self._store, self._read = store, read
        self.actions: dict[str, Action] = {
            "CreateLogGroup": self._create,
            "DescribeLogGroups": self._groups,
            "DescribeLogStreams": self._streams,
            "GetLogEvents": self._events,
        }

    def _create(self, request: Document) -> dict[str, Any]:
        name = str(request.get("logGroupName") or "")
        with self._store.changing():
            if name in self._known():
                raise RefusedError("ResourceAlreadyExistsException", "The specified log group already exists")
            self._store.log_groups[name] = time.time()
        return {}

    def _groups(self, request: Document) -> dict[str, Any]:
        prefix, part = str(request.get("logGroupNamePrefix") or ""), str(request.get("logGroupNamePattern") or "")
        with self._store.reading():
            known = self._known()
        found = [
            {
                "logGroupName": name,
                "creationTime": int(created * _MILLISECONDS),
                "metricFilterCount": 0,
                "arn": f"{_arn(name)}:*",
                "storedBytes": 0,
                "logGroupClass": "STANDARD",
                "logGroupArn": _arn(name),
            }
            for name, created in sorted(known.items())
            if name.startswith(prefix) and part in name
        ]
        return page(found, "logGroups", {"limit": _MOST_DESCRIBED, **request}, size="limit")

    def _streams(self, request: Document) -> dict[str, Any]:
        group, prefix = _group(request), str(request.get("logStreamNamePrefix") or "")
        tasks = self._tasks(group)
        ordered = sorted(tasks, key=lambda name: tasks[name].created if request.get("orderBy") == "LastEventTime" else name)
        found = [
            {
                "logStreamName": name,
                "creationTime": int(tasks[name].created * _MILLISECONDS),
                "arn": f"{_arn(group)}:log-stream:{name}",
                "storedBytes": 0,
            }
            for name in (reversed(ordered) if request.get("descending") else ordered)
            if name.startswith(prefix)
        ]
        return page(found, "logStreams", {"limit": _MOST_DESCRIBED, **request}, size="limit")

    def _events(self, request: Document) -> dict[str, Any]:
        """Return the last lines, or from the first one on; the engine gives them no times, so all have that of the task's end or now."""
        task = self._tasks(_group(request)).get(str(request.get("logStreamName")))
        if task is None:
            raise RefusedError("ResourceNotFoundException", "The specified log stream does not exist.")
        lines = self._read(task).decode(errors="replace").splitlines()
        limit = max(1, min(int(request.get("limit") or _MOST_EVENTS), _MOST_EVENTS))
        start = _place(request, len(lines), limit)
        shown = lines[start : start + limit]
        at = int((task.stopped or time.time()) * _MILLISECONDS)
        return {
            "events": [{"timestamp": at, "message": line, "ingestionTime": at} for line in shown],
            "nextForwardToken": f"f/{start + len(shown)}",
            "nextBackwardToken": f"b/{start}",
        }

    def _known(self) -> dict[str, float]:
        named = {_options(one).get("awslogs-group", ""): float(one["registeredAt"]) for one in reversed(self._store.definitions.values())}
        return {name: created for name, created in {**named, **self._store.log_groups}.items() if name}

    def _tasks(self, group: str) -> dict[str, Task]:
        """Return a group's tasks by the name of their stream: ``prefix/container/task``."""
        with self._store.reading():
            if group not in self._known():
                raise RefusedError("ResourceNotFoundException", "The specified log group does not exist.")
            found: dict[str, Task] = {}
            for task in self._store.tasks.values():
                options = _options(self._store.definitions[task.revision])
                if options.get("awslogs-group") == group and task.container_id:
                    prefix = options.get("awslogs-stream-prefix")
                    found[f"{prefix}/{task.container}/{task.id}" if prefix else task.container_id] = task
            return found


def _group(request: Document) -> str:
    return str(request.get("logGroupName") or str(request.get("logGroupIdentifier") or "").rpartition(":log-group:")[2])


def _place(request: Document, lines: int, limit: int) -> int:
    """Return the first line of a page: after a token of ours, else at the head or at the tail."""
    way, _, number = str(request.get("nextToken") or "").partition("/")
    if way and (way not in {"f", "b"} or not number.isdigit()):
        raise RefusedError("InvalidParameterException", "The specified nextToken is invalid.")
    if way:
        return int(number) if way == "f" else max(0, int(number) - limit)
    return 0 if request.get("startFromHead") else max(0, lines - limit)


def _options(definition: Mapping[str, Any]) -> Mapping[str, str]:
    options: Mapping[str, str] = (definition["containerDefinitions"][0].get("logConfiguration") or {}).get("options") or {}
    return options


def _arn(group: str) -> str:
    return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}"
