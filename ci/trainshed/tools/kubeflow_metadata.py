"""What the tasks of a run gave: ML Metadata, asked as Kubeflow's own pages ask it, gRPC-web at the root of their host.

The run itself (`KubeflowClient.run`) tells neither outputs nor cache hits. Each task is an execution in the context of its run; its
properties hold the output parameters, events lead to its artifacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from trainshed.errors import RemoteError
from trainshed.tools import process
from trainshed.tools.http import Http, Response, backoff
from trainshed.tools.kubeflow_auth import Login
from trainshed.tools.kubeflow_records import Artifact, Denied, Run, Task
from trainshed.tools.metadata_messages import OUTPUT_EVENTS, RUN_CONTEXT, SERVICE, STATES, frame, frames, message

CONTENT_TYPE = "application/grpc-web+proto"
_PAGE = 100
_MOST_PAGES = 2_000
_LARGEST = 64 * 1024 * 1024
_TRIES = 6
_LOGIN = "Log in anew: renew the credentials that environments.<name>.kubeflow.auth names."
_HOST = "Check that environments.<name>.kubeflow.host is the address of Kubeflow's pages (with /pipeline, where it has that)."
_LOGIN_WANTED = frozenset({301, 302, 303, 307, 308, 401, 403})
_NOT_HERE = frozenset({404, 405})
_NOT_FOUND, _DENIED = 5, frozenset({7, 16})
_PASSING = frozenset({1, 2, 4, 8, 10, 13, 14})  # of gRPC's statuses: asked again, as questions change nothing
_RUN_STATES = {"COMPLETE": "SUCCEEDED", "CACHED": "SUCCEEDED", "CANCELED": "SKIPPED", "NEW": "PENDING"}
_WANTED = ("outputs", "pod_name", "cached_execution_id")
_OF_GRAPHS = frozenset({"total_dag_tasks", "iteration_count"})
_OF_THE_STORE = frozenset({"display_name", "store_session_info"})  # put there by Kubeflow, not by the task


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A task as ML Metadata knows it.

    ``path`` is such as ``inner.train`` or ``for-loop-1.0.train``, empty for the run as a whole; ``node`` is its pod. ``dag`` tells a
    pipeline or a loop from a task that ran in a container. ``state`` is in the words of a run: RUNNING, SUCCEEDED, FAILED, SKIPPED.
    """

    id: int
    path: str
    state: str
    node: str = ""
    dag: bool = False
    cached: bool = False
    started: str = ""
    ended: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def outputs(run: Run, executions: Sequence[Execution]) -> Run:
    """Return the run with what ML Metadata knows of its tasks: outputs, cache hits, and the pod of a task that told none."""
    by_path = {execution.path: execution for execution in executions if not execution.dag}  # a later one is a repeat of the run
    return replace(run, tasks=tuple(_joined(task, by_path.get(task.name)) for task in run.tasks))


def _joined(task: Task, known: Execution | None) -> Task:
    if known is None:
        return task
    return replace(task, cached=known.cached, parameters=known.parameters, artifacts=known.artifacts, node=known.node or task.node)


class MetadataStore:
    """The ML Metadata of one Kubeflow.

    Args:
        host: the address of Kubeflow's pages, such as ``https://kubeflow.example.org/pipeline``.
        http: how requests are sent.
        login: how requests are allowed.
        timeout: seconds for one request.
    """

    def __init__(self, host: str, http: Http, login: Login, timeout: float = 30.0) -> None:
        self._host, self._http, self._login, self._timeout = host.rstrip("/"), http, login, timeout
        # Kubeflow's pages ask the root of their host, whatever path they have; a proxy may keep all under that path.
        self._places = list(dict.fromkeys([urlsplit(self._host)._replace(path="").geturl(), self._host]))

    def executions(self, run_id: str) -> list[Execution]:
        """Return the executions of a run in the order of their making; none for a run that has not begun.

        Raises:
            RemoteError: the store cannot be asked, or answers what is not ML Metadata.
        """
        context = self._context(run_id)
        if not context:
            return []
        told = {one.id: one for one in self._pages("GetExecutionsByContext", context, "executions")}
        artifacts = {one.id: one for one in self._pages("GetArtifactsByContext", context, "artifacts")}
        given = _by_execution(self._events(told), artifacts)
        paths = _paths(told)
        return [_execution(told[key], paths[key], given.get(key, {})) for key in sorted(told)]

    def _context(self, run_id: str) -> int:
        try:
            answer = self._call("GetContextByTypeAndName", type_name=RUN_CONTEXT, context_name=run_id)
        except _NotThere:
            return 0
        return int(answer.context.id)

    def _pages(self, method: str, context: int, key: str) -> Iterator[Any]:
        token = ""
        for _ in range(_MOST_PAGES):
            options = {"max_result_size": _PAGE, **({"next_page_token": token} if token else {})}
            page = self._call(method, context_id=context, options=options)
            yield from getattr(page, key)
            token = page.next_page_token
            if not token:
                return
        raise RemoteError(f"{self._host}: {method}: more than {_MOST_PAGES} pages of one run")

    def _events(self, keys: Iterable[int]) -> Iterator[Any]:
        wanted = sorted(keys)
        for start in range(0, len(wanted), _PAGE):
            yield from self._call("GetEventsByExecutionIDs", execution_ids=wanted[start : start + _PAGE]).events

    def _call(self, method: str, **fields: Any) -> Any:  # noqa: ANN401 - messages made of descriptors have no type
        body = frame(message(f"{method}Request")(**fields).SerializeToString())
        for attempt in range(_TRIES):
            try:
                content = self._content(method, self._found(method, body))
                break
            except _Passing:
                if attempt == _TRIES - 1:
                    raise
                process.pause(backoff(attempt))
        from google.protobuf.message import DecodeError

        try:
            return message(f"{method}Response").FromString(content)
        except DecodeError as error:
            raise RemoteError(f"{self._host}: {method}: the answer of ML Metadata cannot be read", next_step=_HOST) from error

    def _found(self, method: str, body: bytes) -> Response:
        """Ask where the store is; the place where it was is kept."""
        for place in self._places:
            answer = self._ask(place, method, body)
            if answer.status in _LOGIN_WANTED and self._login.renew():
                answer = self._ask(place, method, body)
            if answer.status not in _NOT_HERE and (not answer.ok or _is_grpc(answer)):
                self._places = [place]
                break
        return answer

    def _ask(self, place: str, method: str, body: bytes) -> Response:
        headers = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE, "X-Grpc-Web": "1", **self._login.headers()}
        url = f"{place}/{SERVICE}/{method}"
        return self._http.request("POST", url, headers=headers, body=body, idempotent=True, timeout=self._timeout)

    def _content(self, method: str, answer: Response) -> bytes:
        """Return the message of a good answer, or raise what the answer means."""
        place, kind = f"{self._host}: ML Metadata ({method})", answer.headers.get("content-type", "")
        if answer.status in _LOGIN_WANTED:
            raise Denied(f"{place}: session expired, or not permitted (HTTP {answer.status})", next_step=_LOGIN)
        if answer.status >= 400:  # noqa: PLR2004
            raise RemoteError(f"{place}: HTTP {answer.status}", next_step=_HOST)
        if not _is_grpc(answer):
            message = f"{place}: session expired, or not ML Metadata (answered {kind or 'without content type'})"
            raise Denied(message, next_step=f"{_LOGIN} {_HOST}")
        if len(answer.body) > _LARGEST:
            raise RemoteError(f"{place}: an answer of more than {_LARGEST >> 20} MiB")
        try:
            parts = frames(answer.body)
        except ValueError as error:
            raise _Passing(f"{place}: the answer was cut off", next_step="Try again.") from error
        _check(place, answer, b"\r\n".join(content for trailers, content in parts if trailers))
        return b"".join(content for trailers, content in parts if not trailers)


class _NotThere(RemoteError):
    """The store knows no such thing."""


class _Passing(RemoteError):
    """The store gave no answer, which may be another one the next time."""


def _is_grpc(answer: Response) -> bool:
    # A proxy that reaches no store says so in the head, and calls that plain gRPC.
    return answer.headers.get("content-type", "").startswith("application/grpc")


def _check(place: str, answer: Response, trailers: bytes) -> None:
    """Read the status of the call: in the trailers, or in the head where there is no message."""
    told = dict(_lines(trailers.decode(errors="replace"))) or answer.headers
    status = told.get("grpc-status", "")
    if status == "0":
        return
    if not status.isdigit():
        raise _Passing(f"{place}: the answer was cut off (it has no status)", next_step="Try again.")
    said = unquote(told.get("grpc-message", "")) or "no message"
    kinds = {_NOT_FOUND: _NotThere, **dict.fromkeys(_DENIED, Denied), **dict.fromkeys(_PASSING, _Passing)}
    step = _LOGIN if int(status) in _DENIED else "Try again; ask who runs this Kubeflow if it stays."
    raise kinds.get(int(status), RemoteError)(f"{place}: refused with status {status}: {said}", next_step=step)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip().lower(), value.strip()


def _by_execution(events: Iterable[Any], artifacts: Mapping[int, Any]) -> dict[int, dict[str, Artifact]]:
    """Return the output artifacts of each execution by name; several of one name are told by their place."""
    listed: dict[tuple[int, str], list[Any]] = {}
    for event in events:
        name = next((step.key for step in event.path.steps if step.key), "")
        if event.type in OUTPUT_EVENTS and event.artifact_id in artifacts and name:
            listed.setdefault((event.execution_id, name), []).append(artifacts[event.artifact_id])
    found: dict[int, dict[str, Artifact]] = {}
    for (execution, name), several in listed.items():
        for place, one in enumerate(several):
            shown = name if len(several) == 1 else f"{name}-{place}"
            found.setdefault(execution, {})[shown] = _artifact(shown, one)
    return found


def _artifact(name: str, told: Any) -> Artifact:  # noqa: ANN401 - a message
    both = {**told.properties, **told.custom_properties}
    metadata = {key: _unwrapped(_value(value)) for key, value in both.items() if key not in _OF_THE_STORE}
    return Artifact(name=name, uri=told.uri, type=told.type, metadata=metadata)


def _unwrapped(value: Any) -> Any:  # noqa: ANN401 - from JSON to JSON
    """Return what an artifact's metadata had: the launcher writes a list as ``{"list": […]}``, a mapping as ``{"struct": {…}}``."""
    if isinstance(value, dict) and len(value) == 1:
        (name, inner) = next(iter(value.items()))
        if (name == "list" and isinstance(inner, list)) or (name == "struct" and isinstance(inner, dict)):
            return inner
    return value


def _execution(told: Any, path: str, artifacts: Mapping[str, Artifact]) -> Execution:  # noqa: ANN401 - a message
    properties = {key: _value(told.custom_properties[key]) for key in _WANTED if key in told.custom_properties}
    given, known = properties.get("outputs"), 0 <= told.last_known_state < len(STATES)
    state = STATES[told.last_known_state] if known else "UNKNOWN"
    final = state in {"COMPLETE", "CACHED", "FAILED", "CANCELED"}
    return Execution(
        id=told.id,
        path=path,
        state=_RUN_STATES.get(state, state),
        node=str(properties.get("pod_name") or ""),
        dag=told.type == "system.DAGExecution" or not _OF_GRAPHS.isdisjoint(told.custom_properties),
        cached=state == "CACHED" or bool(properties.get("cached_execution_id")),
        started=_time(told.create_time_since_epoch),
        ended=_time(told.last_update_time_since_epoch) if final else "",
        parameters=given if isinstance(given, dict) else {},
        artifacts=artifacts,
    )


def _paths(told: Mapping[int, Any]) -> dict[int, str]:
    """Return the path of each execution; a parent that is missing, or a circle of parents, ends it."""
    found: dict[int, str] = {}
    for key in told:
        chain: list[int] = []
        while key in told and key not in found and key not in chain:
            chain.append(key)
            key = told[key].custom_properties["parent_dag_id"].int_value if "parent_dag_id" in told[key].custom_properties else 0  # noqa: PLW2901
        above = found.get(key, "")
        for one in reversed(chain):
            above = found[one] = ".".join(part for part in (above, _own_name(told[one])) if part)
    return found


def _own_name(told: Any) -> str:  # noqa: ANN401 - a message
    """Return the last part of a path: an iteration of a loop has the loop's name, so its place stands for it."""
    properties = told.custom_properties
    if "iteration_index" in properties:
        return str(properties["iteration_index"].int_value)
    return str(properties["task_name"].string_value) if "task_name" in properties else ""


def _value(value: Any) -> Any:  # noqa: ANN401 - from a message to JSON
    if value.HasField("struct_value"):
        return {key: _plain(item) for key, item in value.struct_value.fields.items()}
    for kind in ("string_value", "double_value", "int_value", "bool_value"):
        if value.HasField(kind):
            return getattr(value, kind)
    return None


def _plain(value: Any) -> Any:  # noqa: ANN401 - a protobuf Value
    """Return what a value holds. Not by way of protobuf's JSON, which refuses the NaN and the infinities that steps do write."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _time(milliseconds: int) -> str:
    """Return a time as Kubeflow tells it: RFC 3339, whole seconds; empty for none."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if milliseconds else ""
    except (ValueError, OverflowError, OSError):
        return ""
