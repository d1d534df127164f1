"""The metadata store behind the same host: protobuf messages, written here byte by byte, over gRPC-web as Envoy answers it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.support.kubeflow_server.nodes import Execution
from tests.support.kubeflow_server.records import Record, State
from tests.support.kubeflow_server.runs import Runs

SERVICE = "/ml_metadata.MetadataStoreService/"
_LARGEST_PAGE = 100
_STATES = {"RUNNING": 2, "SUCCEEDED": 3, "FAILED": 4, "CACHED": 5}
_OUTPUT = 4

Fields = Mapping[int, list[Any]]


class Artifact:
    """An output of an execution."""

    def __init__(self, number: int, execution: int, name: str, kind: str, uri: str, told: Mapping[str, Any]) -> None:
        self.number, self.execution, self.name, self.kind, self.uri, self.told = number, execution, name, kind, uri, told


class Store:
    """The store: contexts, executions, artifacts and events of all runs, numbered as they are first seen."""

    def __init__(self, state: State, runs: Runs) -> None:
        self._state, self._runs = state, runs
        self._numbers: dict[tuple[str, ...], int] = {}

    def answer(self, path: str, kind: str, body: bytes) -> tuple[bytes, Mapping[str, str]]:
        """Return body and headers for a call."""
        method = _METHODS.get(path.removeprefix(SERVICE))
        if method is None:
            return b"", {"grpc-status": "12", "grpc-message": "unknown method"}
        text = "grpc-web-text" in kind
        framed = base64.b64decode(body) if text else body
        (length,) = struct.unpack(">I", framed[1:5])
        message = method(self, _grouped(framed[5 : 5 + length]))
        trailer = b"grpc-status:0\r\ngrpc-message:\r\n"
        whole = b"\x00" + struct.pack(">I", len(message)) + message + b"\x80" + struct.pack(">I", len(trailer)) + trailer
        return (base64.b64encode(whole) if text else whole), {}

    def number(self, *what: str) -> int:
        """Return the number of a thing, the same each time."""
        return self._numbers.setdefault(what, len(self._numbers) + 1)

    def context(self, asked: Fields) -> bytes:
        """Return the context of a run; an empty message where there is none."""
        kind, name = asked[1][-1].decode(), asked[2][-1].decode()
        row = self._state.runs.get(name)
        if kind != "system.PipelineRun" or row is None or not self._runs.executions(row):
            return b""
        return _bytes(1, _int(1, self.number("context", row.id)) + _int(2, 12) + _bytes(3, row.id) + _bytes(6, "system.PipelineRun"))

    def executions(self, asked: Fields) -> bytes:
        """Return the executions of a context, page by page."""
        row = self._row(asked[1][-1])
        found = [] if row is None else self._runs.executions(row)
        return _paged([self._execution(row, each) for each in found if row], asked)

    def artifacts(self, asked: Fields) -> bytes:
        """Return the artifacts of a context, page by page."""
        row = self._row(asked[1][-1])
        return _paged([_artifact(each) for each in self._outputs(row)] if row else [], asked)

    def events(self, asked: Fields) -> bytes:
        """Return the events of executions."""
        wanted = {number for part in asked.get(1, ()) for number in _numbers(part)}
        found = [each for row in self._state.runs.all() for each in self._outputs(row) if each.execution in wanted]
        return b"".join(_bytes(1, _event(each)) for each in found)

    def _row(self, number: int) -> Record | None:
        return next((row for row in self._state.runs.all() if self._numbers.get(("context", row.id)) == number), None)

    def _execution(self, row: Record, execution: Execution) -> bytes:
        script = self._runs.plays[row.id].script
        told: dict[str, Any] = {"display_name": execution.task, "task_name": execution.task}
        if execution.path:
            told["parent_dag_id"] = self.number("execution", row.id, execution.parent)
        if execution.pod:
            told |= {"pod_name": execution.pod, "pod_uid": f"uid-{execution.pod}", "namespace": row.namespace or "kubeflow"}
        told |= {
            key: value for key, value in (("iteration_index", execution.index), ("iteration_count", execution.count)) if value is not None
        }
        if execution.state == "CACHED":
            told |= {"cached_execution_id": "1", "cache_fingerprint": "f" * 64}
        if execution.state in {"SUCCEEDED", "CACHED"} and execution.path in script.parameters:
            told["outputs"] = dict(script.parameters[execution.path])
        head = _int(1, self.number("execution", row.id, execution.path)) + _int(2, 13) + _int(3, _STATES.get(execution.state, 2))
        return head + _properties(5, told) + _bytes(7, execution.kind) + _int(8, row.created * 1000) + _int(9, row.created * 1000)

    def _outputs(self, row: Record) -> Iterator[Artifact]:
        script = self._runs.plays[row.id].script
        for execution in self._runs.executions(row):
            if execution.kind == "system.DAGExecution" or execution.state not in {"SUCCEEDED", "CACHED"}:
                continue
            outputs = execution.component.get("outputDefinitions", {}).get("artifacts", {})
            for name, output in sorted(outputs.items()):
                whole = f"{execution.path}.{name}"
                uri = script.uris.get(whole, f"minio://mlpipeline/v2/artifacts/{row.id}/{execution.path}/{name}")
                numbers = self.number("artifact", row.id, whole), self.number("execution", row.id, execution.path)
                yield Artifact(*numbers, name, output["artifactType"]["schemaTitle"], uri, script.metadata.get(whole, {}))


_METHODS: dict[str, Callable[[Store, Fields], bytes]] = {
    "GetContextByTypeAndName": Store.context,
    "GetExecutionsByContext": Store.executions,
    "GetArtifactsByContext": Store.artifacts,
    "GetEventsByExecutionIDs": Store.events,
}


def _artifact(one: Artifact) -> bytes:
    told = {"display_name": one.name, **one.told}
    return _int(1, one.number) + _int(2, 14) + _bytes(3, one.uri) + _properties(5, told) + _int(6, 2) + _bytes(8, one.kind)


def _event(one: Artifact) -> bytes:
    path = _bytes(1, _bytes(2, one.name))
    return _int(1, one.number) + _int(2, one.execution) + _bytes(3, path) + _int(4, _OUTPUT)


def _paged(messages: list[bytes], asked: Fields) -> bytes:
    """Return a list as the store does: all of it unless options ask for pages."""
    options = _grouped(asked[2][-1]) if 2 in asked else {}
    size = min(options.get(1, [20])[-1], _LARGEST_PAGE) if 2 in asked else len(messages)
    start = int(options.get(3, [b"0"])[-1] or b"0")
    following = _bytes(2, str(start + size)) if start + size < len(messages) else b""
    return b"".join(_bytes(1, message) for message in messages[start : start + size]) + following


# protobuf


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _int(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _properties(field: int, told: Mapping[str, Any]) -> bytes:
    """Return a map of names to the store's values."""
    return b"".join(_bytes(field, _bytes(1, name) + _bytes(2, _value(value))) for name, value in told.items())


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return _bytes(4, _bytes(1, _bytes(1, "value") + _bytes(2, _int(4, value))))
        case int():
            return _int(1, value)
        case float():
            return _double(2, value)
        case str():
            return _bytes(3, value)
        case dict():
            return _bytes(4, _struct(value))
        case _:
            return _bytes(4, _struct({"value": value}))


def _struct(document: Mapping[str, Any]) -> bytes:
    """Return a google.protobuf.Struct, whose numbers are all doubles."""
    return b"".join(_bytes(1, _bytes(1, name) + _bytes(2, _any(value))) for name, value in document.items())


def _any(value: Any) -> bytes:
    match value:
        case None:
            return _int(1, 0)
        case bool():
            return _int(4, value)
        case int() | float():
            return _double(2, float(value))
        case str():
            return _bytes(3, value)
        case dict():
            return _bytes(5, _struct(value))
        case _:
            return _bytes(6, b"".join(_bytes(1, _any(each)) for each in value))


def _grouped(message: bytes) -> dict[int, list[Any]]:
    """Return the raw values of a message by number: what may be there many times is."""
    found: dict[int, list[Any]] = {}
    for number, raw in _fields(message):
        found.setdefault(number, []).append(raw)
    return found


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and raw value of each field."""
    place = 0
    while place < len(message):
        key, place = _read(message, place)
        if key & 7 == 2:
            length, place = _read(message, place)
            yield key >> 3, message[place : place + length]
            place += length
        elif key & 7 == 1:
            yield key >> 3, message[place : place + 8]
            place += 8
        else:
            number, place = _read(message, place)
            yield key >> 3, number


def _read(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


def _numbers(packed: bytes | int) -> Iterable[int]:
    if isinstance(packed, int):
        return [packed]
    found, place = [], 0
    while place < len(packed):
        number, place = _read(packed, place)
        found.append(number)
    return found
