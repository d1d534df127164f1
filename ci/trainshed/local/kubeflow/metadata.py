"""ML Metadata of the embedded Kubeflow: what the tasks of a run gave, over gRPC-web, written down as Kubeflow's launcher does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainshed.local.kubeflow.runs import Runs, read_status
from trainshed.local.kubeflow.store import Record, Store
from trainshed.tools.metadata_messages import RUN_CONTEXT, STATES, frame, frames, message

CONTENT_TYPE = "application/grpc-web+proto"
_RUN = "run"
_PER_RUN = 1_000_000
_PAGE, _LARGEST_PAGE = 20, 100
_INVALID, _UNIMPLEMENTED = 3, 12
_OUTPUT = 4
_STATES = {"SUCCEEDED": "COMPLETE", "CANCELED": "FAILED"}
_BEGUN = frozenset({"RUNNING", "SUCCEEDED", "FAILED", "CANCELED"})

Message = Any
"""A message made of a descriptor has no type."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """An execution: a task that has begun, or what holds tasks. ``task`` is what is known of it."""

    id: int
    path: str
    parent: int
    task: Mapping[str, Any] | None = None

    @property
    def artifacts(self) -> list[tuple[int, str, Mapping[str, Any]]]:
        """Return id, name and facts of the outputs."""
        told = (self.task or {}).get("artifacts") or {}
        return [(self.id * 1_000 + place, name, facts) for place, (name, facts) in enumerate(told.items())]


class Metadata:
    """The store. Its ids are made of the run's number and the place within the run, so nothing of it needs to be kept."""

    def __init__(self, store: Store, runs: Runs) -> None:
        self._store, self._runs = store, runs
        self._methods: dict[str, Callable[[Message, Message], None]] = {
            "GetContextByTypeAndName": self._context,
            "GetExecutionsByContext": self._executions,
            "GetArtifactsByContext": self._artifacts,
            "GetEventsByExecutionIDs": self._events,
        }

    def answer(self, method: str, body: bytes) -> bytes:
        """Return the body that answers a call."""
        from google.protobuf.message import DecodeError

        answer_to = self._methods.get(method)
        if answer_to is None:
            return _refused(_UNIMPLEMENTED, f"unknown method {method}")
        try:
            asked = message(f"{method}Request").FromString(b"".join(content for trailers, content in frames(body) if not trailers))
            told = message(f"{method}Response")()
            answer_to(asked, told)
        except (DecodeError, ValueError) as error:
            return _refused(_INVALID, f"the request cannot be read: {error}")
        return frame(told.SerializeToString()) + frame(b"grpc-status: 0\r\n", trailers=True)

    def _context(self, asked: Message, told: Message) -> None:
        record = self._store.get(_RUN, asked.context_name)
        if asked.type_name == RUN_CONTEXT and record is not None and any(self._begun(record)):
            told.context.id, told.context.name, told.context.type = record.number, record.id, RUN_CONTEXT

    def _executions(self, asked: Message, told: Message) -> None:
        shown, told.next_page_token = _page(self._entries(asked.context_id), asked)
        for entry in shown:
            _describe(told.executions.add(), entry)

    def _artifacts(self, asked: Message, told: Message) -> None:
        listed = [artifact for entry in self._entries(asked.context_id) for artifact in entry.artifacts]
        shown, told.next_page_token = _page(listed, asked)
        for key, name, facts in shown:
            one = told.artifacts.add(id=key, uri=facts["uri"], type=facts["type"])
            _write(one.custom_properties, {"display_name": name, **facts["metadata"]})

    def _events(self, asked: Message, told: Message) -> None:
        wanted = set(asked.execution_ids)
        for number in {key // _PER_RUN for key in wanted}:
            for entry in self._entries(number):
                for key, name, _ in entry.artifacts if entry.id in wanted else ():
                    told.events.add(artifact_id=key, execution_id=entry.id, type=_OUTPUT).path.steps.add(key=name)

    def _begun(self, record: Record) -> Iterator[Mapping[str, Any]]:
        return (task for task in read_status(self._runs.folder(record.id))["tasks"] if task["state"] in _BEGUN)

    def _entries(self, number: int) -> list[_Entry]:
        """Return the executions of a run: the run as a whole, pipelines and loops before what they hold, and the tasks."""
        record = self._store.numbered(_RUN, number)
        if record is None:
            return []
        found: dict[str, _Entry] = {"": _Entry(id=number * _PER_RUN, path="", parent=0)}
        for task in self._begun(record):
            for path, known in [*((above, None) for above in _above(task["name"])), (task["name"], task)]:
                key = number * _PER_RUN + len(found)
                found.setdefault(path, _Entry(id=key, path=path, parent=found[path.rpartition(".")[0]].id, task=known))
        return list(found.values())


def _above(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _describe(execution: Message, entry: _Entry) -> None:
    task, name = entry.task, entry.path.rpartition(".")[2]
    execution.id, execution.type = entry.id, "system.ContainerExecution" if task else "system.DAGExecution"
    state = str(task["state"]) if task else "SUCCEEDED"
    execution.last_known_state = STATES.index(_STATES.get(state, state))
    properties: dict[str, Any] = {"parent_dag_id": entry.parent} if entry.parent else {}
    if name.isdigit():  # an iteration has the name of its loop
        properties |= {"iteration_index": int(name), "task_name": entry.path.split(".")[-2]}
    elif name:
        properties |= {"task_name": name, "display_name": name}
    if task:
        execution.create_time_since_epoch = _milliseconds(task.get("started", ""))
        execution.last_update_time_since_epoch = _milliseconds(task.get("ended", ""))
        properties |= {"pod_name": entry.path}
        execution.custom_properties["outputs"].struct_value.update(task.get("parameters") or {})
    _write(execution.custom_properties, properties, whole=True)


def _write(properties: Message, told: Mapping[str, Any], *, whole: bool = False) -> None:
    """Write values as the launcher does: a number is a double (``whole``: as it is), a list lies in a struct under ``list``."""
    for name, value in told.items():
        match value:
            case bool():
                properties[name].int_value = int(value)
            case int() if whole:
                properties[name].int_value = value
            case int() | float():
                properties[name].double_value = float(value)
            case str():
                properties[name].string_value = value
            case list() | dict():
                properties[name].struct_value.update({"list" if isinstance(value, list) else "struct": value})


def _page(listed: Sequence[Any], asked: Message) -> tuple[Sequence[Any], str]:
    if not asked.HasField("options"):
        return listed, ""
    size = min(asked.options.max_result_size or _PAGE, _LARGEST_PAGE)
    start = int(asked.options.next_page_token or 0)
    return listed[start : start + size], str(start + size) if start + size < len(listed) else ""


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000) if text else 0


def _refused(status: int, text: str) -> bytes:
    return frame(f"grpc-status: {status}\r\ngrpc-message: {text}\r\n".encode(), trailers=True)
