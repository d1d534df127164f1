"""The messages of ML Metadata that a run's outputs are read from, described here: the package with all of them pins an old protobuf.

Field numbers as in ``ml_metadata/proto/metadata_store.proto`` and ``metadata_store_service.proto``; fields that are not needed are left
out, and an enumeration is a number (the same on the wire). Protobuf is imported only when a message is asked for.
"""

from __future__ import annotations

import functools
from typing import Any

SERVICE = "ml_metadata.MetadataStoreService"
RUN_CONTEXT = "system.PipelineRun"
OUTPUT_EVENTS = frozenset({1, 4})  # DECLARED_OUTPUT, OUTPUT
STATES = ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED")

_PROPERTIES = "map<Value>"
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Value": {
        "int_value": (1, "int64"),
        "double_value": (2, "double"),
        "string_value": (3, "string"),
        "struct_value": (4, ".google.protobuf.Struct"),
        "bool_value": (6, "bool"),
    },
    "Context": {"id": (1, "int64"), "name": (3, "string"), "type": (6, "string")},
    "Execution": {
        "id": (1, "int64"),
        "last_known_state": (3, "int32"),
        "custom_properties": (5, _PROPERTIES),
        "name": (6, "string"),
        "type": (7, "string"),
        "create_time_since_epoch": (8, "int64"),
        "last_update_time_since_epoch": (9, "int64"),
    },
    "Artifact": {
        "id": (1, "int64"),
        "uri": (3, "string"),
        "properties": (4, _PROPERTIES),
        "custom_properties": (5, _PROPERTIES),
        "name": (7, "string"),
        "type": (8, "string"),
    },
    "Step": {"index": (1, "int64"), "key": (2, "string")},
    "Path": {"steps": (1, "repeated Step")},
    "Event": {"artifact_id": (1, "int64"), "execution_id": (2, "int64"), "path": (3, "Path"), "type": (4, "int32")},
    "ListOperationOptions": {"max_result_size": (1, "int32"), "next_page_token": (3, "string")},
    "GetContextByTypeAndNameRequest": {"type_name": (1, "string"), "context_name": (2, "string")},
    "GetContextByTypeAndNameResponse": {"context": (1, "Context")},
    "GetExecutionsByContextRequest": {"context_id": (1, "int64"), "options": (2, "ListOperationOptions")},
    "GetExecutionsByContextResponse": {"executions": (1, "repeated Execution"), "next_page_token": (2, "string")},
    "GetArtifactsByContextRequest": {"context_id": (1, "int64"), "options": (2, "ListOperationOptions")},
    "GetArtifactsByContextResponse": {"artifacts": (1, "repeated Artifact"), "next_page_token": (2, "string")},
    "GetEventsByExecutionIDsRequest": {"execution_ids": (1, "repeated int64")},
    "GetEventsByExecutionIDsResponse": {"events": (1, "repeated Event")},
}
_SCALARS = {"double": 1, "int64": 3, "int32": 5, "bool": 8, "string": 9}  # the numbers of FieldDescriptorProto.Type
_MESSAGE_TYPE = 11
_OPTIONAL, _REPEATED = 1, 3


def message(name: str) -> Any:  # noqa: ANN401 - a class made of a descriptor has no type
    """Return the class of a message, such as ``Execution``."""
    return _classes()[name]


@functools.cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

    file = descriptor_pb2.FileDescriptorProto(name="trainshed/ml_metadata.proto", package="ml_metadata", syntax="proto2")
    file.dependency.append("google/protobuf/struct.proto")
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _describe(described, field, number, kind)
    # A pool of its own: the process may hold the whole ml_metadata package, whose messages have the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ml_metadata.{name}")) for name in _MESSAGES}


def _describe(described: Any, field: str, number: int, kind: str) -> None:  # noqa: ANN401 - a DescriptorProto
    repeated, _, inner = kind.rpartition(" ")
    added = described.field.add(name=field, number=number, label=_REPEATED if repeated or kind == _PROPERTIES else _OPTIONAL)
    if kind == _PROPERTIES:
        entry = described.nested_type.add(name="".join(part.title() for part in field.split("_")) + "Entry")
        entry.options.map_entry = True
        _describe(entry, "key", 1, "string")
        _describe(entry, "value", 2, "Value")
        inner = f".ml_metadata.{described.name}.{entry.name}"
    if inner in _SCALARS:
        added.type = _SCALARS[inner]
    else:
        added.type, added.type_name = _MESSAGE_TYPE, inner if inner.startswith(".") else f".ml_metadata.{inner}"


def frame(content: bytes, *, trailers: bool = False) -> bytes:
    """Return a frame of gRPC-web: a flag, the length, the content."""
    return bytes([0x80 if trailers else 0]) + len(content).to_bytes(4, "big") + content


def frames(body: bytes) -> list[tuple[bool, bytes]]:
    """Part a body of gRPC-web into frames: (whether it holds trailers, content).

    Raises:
        ValueError: the body ends within a frame, or one is compressed.
    """
    found, start = [], 0
    while start < len(body):
        head = body[start : start + 5]
        ends = start + 5 + int.from_bytes(head[1:], "big")
        if len(head) != 5 or ends > len(body) or head[0] & 1:  # noqa: PLR2004 - flag and length
            raise ValueError("no whole frames of gRPC-web")
        found.append((bool(head[0] & 0x80), body[start + 5 : ends]))
        start = ends
    return found
