"""From what Kubeflow tells of a run's inner works to the tasks of its pipeline, by their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainshed.tools.kubeflow_records import Task

Detail = Mapping[str, Any]


def tasks_of(details: Sequence[Detail]) -> tuple[Task, ...]:
    """Return the tasks of a pipeline: one per step, nested ones and iterations of loops by their path."""
    return _plain(details)


def _plain(details: Sequence[Detail]) -> tuple[Task, ...]:
    """Read details that name their parents themselves; what is the parent of another is no task."""
    by_id = {detail["task_id"]: detail for detail in details if detail.get("task_id")}
    above = {parent for detail in details if (parent := detail.get("parent_task_id")) in by_id}
    paths: dict[str, str] = {}
    return tuple(_task(detail, _path(detail, by_id, paths)) for detail in details if detail.get("task_id") not in above)


def _path(detail: Detail, by_id: Mapping[str, Detail], known: dict[str, str]) -> str:
    """Return a path by way of the parents; a parent that is missing, or a circle of parents, ends it."""
    chain: list[Detail] = []
    at, seen = detail, set[str]()
    while True:
        chain.append(at)
        key = at.get("parent_task_id") or ""
        if key in known or key not in by_id or key in seen:
            break
        seen.add(key)
        at = by_id[key]
    above = known.get(key, "")
    for one in reversed(chain):
        above = f"{above}.{one.get('display_name', '')}" if above else one.get("display_name", "")
        if one.get("task_id") and one is not detail:
            known[one["task_id"]] = above
    return above


def _task(detail: Detail, path: str) -> Task:
    return Task(
        id=detail.get("task_id", ""),
        name=path,
        state=detail.get("state", ""),
        error=(detail.get("error") or {}).get("message", ""),
        started=_time(detail.get("start_time")),
        ended=_time(detail.get("end_time")),
        node=detail.get("pod_name", ""),
    )


def _time(text: object) -> str:
    """Return a time; empty for one that has not come, which Go's zero times and the epoch stand for."""
    return text if isinstance(text, str) and not text.startswith(("0001-", "1970-01-01T00:00:00")) else ""
