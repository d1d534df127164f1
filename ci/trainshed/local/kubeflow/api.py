"""What the v2beta1 API of Kubeflow Pipelines does, apart from HTTP: documents in, documents out, errors as the server words them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from trainshed.local.kubeflow import listing, packages
from trainshed.local.kubeflow.runs import FINAL, Runs, log_of, read_status
from trainshed.local.kubeflow.store import Record, Store, Taken, now

PIPELINE, VERSION, EXPERIMENT, RUN = "pipeline", "version", "experiment", "run"
_INVALID, _NOT_FOUND, _EXISTS, _INTERNAL = (400, 3), (404, 5), (409, 6), (500, 13)
_UNIMPLEMENTED = (501, 12)
_TAGS, _TAG_LENGTH = 20, 63
_NEVER = "1970-01-01T00:00:00Z"
_DEFAULT_EXPERIMENT = "Default"

Document = dict[str, Any]
Query = Mapping[str, str]


class ApiError(Exception):
    """An answer other than 200: HTTP status, gRPC code and message."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind


class Api:
    """The operations. Ids are UUIDs; JSON is snake_case, unset fields are left out."""

    def __init__(self, store: Store, runs: Runs) -> None:
        self._store, self._runs = store, runs
        runs.adopt(record.id for record in store.all(RUN))

    def healthz(self) -> Document:
        """Say what this is: the release of Kubeflow Pipelines whose API it serves, which is that of the SDK."""
        return {"commit_sha": "unknown", "tag_name": metadata.version("kfp"), "multi_user": False, "pipeline_store": "database"}

    # pipelines

    def create_pipeline(self, body: Document) -> Document:
        """Create a pipeline without a version."""
        name = _name(body, 128)
        namespace = body.get("namespace") or ""
        document = {
            "display_name": body.get("display_name") or name,
            "description": body.get("description") or "",
            "created_at": now(),
            "tags": _tags(body.get("tags") or {}),
        }
        return _pipeline(self._add(PIPELINE, namespace, name, document))

    def pipeline(self, pipeline_id: str) -> Document:
        """Return a pipeline."""
        return _pipeline(self._need(PIPELINE, pipeline_id))

    def pipeline_by_name(self, name: str, query: Query) -> Document:
        """Return the pipeline of a name; an empty namespace matches any."""
        found = self._store.by_name(PIPELINE, name, query.get("namespace") or None)
        if found is None:
            raise ApiError(_NOT_FOUND, f"pipeline {name} not found")
        return _pipeline(found)

    def pipelines(self, query: Query) -> Document:
        """List pipelines."""
        return _listed("pipelines", map(_pipeline, self._store.all(PIPELINE, query.get("namespace") or None)), query)

    def delete_pipeline(self, pipeline_id: str, query: Query) -> Document:
        """Delete a pipeline; one that has versions only with ``cascade``."""
        pipeline = self._need(PIPELINE, pipeline_id)
        versions = self._store.all(VERSION, pipeline_id)
        if versions and query.get("cascade") != "true":
            raise ApiError(_INVALID, f"pipeline {pipeline_id} has versions (such as {versions[-1].id}); delete them first, or set cascade")
        for record in (*versions, pipeline):
            self._store.remove(record)
        return {}

    # versions

    def upload_pipeline(self, query: Query, content: bytes) -> Document:
        """Create a pipeline with its first version, which takes the pipeline's name."""
        shown = _package(content)
        name = query.get("name") or query.get("display_name") or packages.parted(shown)[0]["pipelineInfo"]["name"]
        pipeline = self.create_pipeline({**query, "name": name, "tags": _query_tags(query)})
        self._version_of(pipeline["pipeline_id"], {**query, "name": name}, shown)
        return pipeline

    def upload_version(self, query: Query, content: bytes) -> Document:
        """Add a version to a pipeline."""
        shown = _package(content)
        pipeline_id = query.get("pipelineid", "")
        if self._store.get(PIPELINE, pipeline_id) is None:
            raise ApiError(_INVALID, "failed to create a pipeline version: invalid pipeline id")  # as opaque as the server's
        return self._version_of(pipeline_id, query, shown)

    def version(self, pipeline_id: str, version_id: str) -> Document:
        """Return a version with its specification."""
        found = self._need(VERSION, version_id)
        if found.parent != pipeline_id:
            raise ApiError(_NOT_FOUND, f"pipeline {pipeline_id} has no version {version_id}")
        return _version(found)

    def versions(self, pipeline_id: str, query: Query) -> Document:
        """List the versions of a pipeline."""
        return _listed("pipeline_versions", map(_version, self._store.all(VERSION, pipeline_id)), query)

    def delete_version(self, pipeline_id: str, version_id: str) -> Document:
        """Delete a version; whether it has runs is not asked, and they stay."""
        self.version(pipeline_id, version_id)
        self._store.remove(self._need(VERSION, version_id))
        return {}

    # experiments

    def create_experiment(self, body: Document) -> Document:
        """Create an experiment."""
        name = _name({"name": body.get("display_name")}, 128)
        document = {"description": body.get("description") or "", "created_at": now(), "storage_state": "AVAILABLE"}
        return _experiment(self._add(EXPERIMENT, body.get("namespace") or "", name, document))

    def experiment(self, experiment_id: str) -> Document:
        """Return an experiment."""
        return _experiment(self._need(EXPERIMENT, experiment_id))

    def experiments(self, query: Query) -> Document:
        """List experiments."""
        return _listed("experiments", map(_experiment, self._store.all(EXPERIMENT, query.get("namespace") or None)), query)

    # runs

    def create_run(self, body: Document) -> Document:
        """Start a run of a version, or of a specification."""
        reference = body.get("pipeline_version_reference") or {}
        shown = self._asked(body, reference)
        specification, _ = packages.parted(shown)
        config = body.get("runtime_config") or {}
        parameters = config.get("parameters") or {}
        try:
            packages.check(specification)
            packages.check_parameters(specification, parameters)
        except packages.Refused as error:
            raise ApiError(_INVALID, f"failed to create a run: {error}") from error
        document = {
            "display_name": body.get("display_name") or specification["pipelineInfo"].get("name", ""),
            "description": body.get("description") or "",
            "storage_state": "AVAILABLE",
            "runtime_config": {key: value for key, value in config.items() if value},
            "service_account": body.get("service_account") or "",
            "created_at": now(),
            **({"pipeline_version_reference": reference} if reference else {"pipeline_spec": shown}),
        }
        record = self._store.add(RUN, parent=self._experiment_of(body), name="", document=document)
        self._runs.start(record.id, specification, parameters)
        return self._run(record)

    def run(self, run_id: str) -> Document:
        """Return a run as it stands."""
        return self._run(self._need(RUN, run_id))

    def runs(self, query: Query) -> Document:
        """List runs."""
        return _listed("runs", map(self._run, self._store.all(RUN, query.get("experiment_id") or None)), query)

    def terminate(self, run_id: str) -> Document:
        """Ask for the end of a run; one that has ended is refused."""
        self._need(RUN, run_id)
        if read_status(self._runs.folder(run_id))["state"] in FINAL:
            raise ApiError(_INVALID, f"failed to terminate run {run_id}: it has ended")
        self._runs.terminate(run_id)
        return {}

    def store_away(self, run_id: str, state: str) -> Document:
        """Archive a run, or take it back."""
        self._store.change(self._need(RUN, run_id), storage_state=state)
        return {}

    def delete_run(self, run_id: str) -> Document:
        """Forget a run; one that is not finished is terminated."""
        record = self._need(RUN, run_id)
        self._runs.terminate(run_id)
        self._store.remove(record)
        return {}

    def node_log(self, run_id: str, node: str) -> bytes:
        """Return what a task printed; its node is its path."""
        folder = self._runs.folder(self._need(RUN, run_id).id)
        log = log_of(folder, node)
        if node not in {each["name"] for each in read_status(folder)["tasks"]} or not log.is_file():
            raise ApiError(_INTERNAL, f"failed to read logs for run {run_id}: node {node} has none")
        return log.read_bytes()

    def recurring(self) -> Document:
        """Refuse recurring runs."""
        raise ApiError(_UNIMPLEMENTED, "the embedded Kubeflow has no recurring runs; use an environment with a real one")

    # parts

    def _add(self, kind: str, parent: str, name: str, document: Document) -> Record:
        try:
            return self._store.add(kind, parent=parent, name=name, document=document)
        except Taken:
            raise ApiError(_EXISTS, f"the {kind} {name} already exists; use another name") from None

    def _need(self, kind: str, identifier: str) -> Record:
        found = self._store.get(kind, identifier)
        if found is None:
            raise ApiError(_NOT_FOUND, f"{kind} {identifier} not found")
        return found

    def _version_of(self, pipeline_id: str, query: Query, shown: Document) -> Document:
        name = _name(query, 127)
        document = {
            "display_name": query.get("display_name") or name,
            "description": query.get("description") or "",
            "created_at": now(),
            "pipeline_spec": shown,
            "tags": _query_tags(query),
        }
        return _version(self._add(VERSION, pipeline_id, name, document))

    def _asked(self, body: Document, reference: Document) -> Document:
        if not reference:
            return dict(body.get("pipeline_spec") or {})
        pipeline_id, version_id = reference.get("pipeline_id", ""), reference.get("pipeline_version_id", "")
        if not version_id:  # the latest one
            present = self._store.all(VERSION, pipeline_id)
            version_id = present[-1].id if present else ""
        return dict(self.version(pipeline_id, version_id)["pipeline_spec"])

    def _experiment_of(self, body: Document) -> str:
        wanted = body.get("experiment_id") or ""
        if wanted:
            return self._need(EXPERIMENT, wanted).id
        found = self._store.by_name(EXPERIMENT, _DEFAULT_EXPERIMENT)
        return found.id if found else str(self.create_experiment({"display_name": _DEFAULT_EXPERIMENT})["experiment_id"])

    def _run(self, record: Record) -> Document:
        status = read_status(self._runs.folder(record.id))
        state = status["state"]
        if state not in FINAL and self._runs.terminating(record.id):
            state = "CANCELING"
        return {
            **_set(record.document),
            "run_id": record.id,
            "experiment_id": record.parent,
            "state": state,
            "finished_at": status.get("finished_at", _NEVER),
            **({"error": {"code": 2, "message": status["error"]}} if status["error"] else {}),
            "run_details": {"task_details": _details(record.id, status["tasks"])},
        }


def _details(run_id: str, tasks: Iterable[Document]) -> list[Document]:
    """Return the tasks, each after the pipelines and loops that hold it."""
    found: dict[str, Document] = {}
    for task in tasks:
        parts = task["name"].split(".")
        for end in range(1, len(parts)):
            holder = found.setdefault(path := ".".join(parts[:end]), _detail(run_id, {"name": path, "state": task["state"]}))
            holder["state"] = max(holder["state"], task["state"], key=_worst)
        found[task["name"]] = _detail(run_id, task)
    return list(found.values())


def _worst(state: str) -> int:
    """Rank the states of tasks: what holds them is as the first of these that one of them has."""
    order = ("SKIPPED", "SUCCEEDED", "PENDING", "RUNNING", "CANCELED", "FAILED")
    return order.index(state) if state in order else -1


def _detail(run_id: str, task: Document) -> Document:
    above, _, name = task["name"].rpartition(".")
    begun = "started" in task
    shown = {
        "run_id": run_id,
        "task_id": f"{run_id}/{task['name']}",
        "parent_task_id": f"{run_id}/{above}" if above else "",
        "display_name": name,
        "state": task["state"],
        "start_time": task.get("started", ""),
        "create_time": task.get("started", ""),
        "end_time": task.get("ended", ""),
        "error": {"code": 2, "message": task["error"]} if task.get("error") else "",
        "pod_name": task["name"] if begun else "",
    }
    return _set(shown)


def _pipeline(record: Record) -> Document:
    return _set({"pipeline_id": record.id, "name": record.name, "namespace": record.parent, **record.document})


def _version(record: Record) -> Document:
    return _set({"pipeline_id": record.parent, "pipeline_version_id": record.id, "name": record.name, **record.document})


def _experiment(record: Record) -> Document:
    return _set({"experiment_id": record.id, "display_name": record.name, "namespace": record.parent, **record.document})


def _set(document: Document) -> Document:
    return {key: value for key, value in document.items() if value not in ("", None) and not (key == "tags" and not value)}


def _listed(key: str, documents: Any, query: Query) -> Document:  # noqa: ANN401 - an iterable of documents
    try:
        shown, token, total = listing.page(key, documents, query)
    except listing.BadQuery as error:
        raise ApiError(_INVALID, str(error)) from error
    return {**({key: shown} if shown else {}), "total_size": total, **({"next_page_token": token} if token else {})}


def _name(document: Mapping[str, Any], limit: int) -> str:
    name = document.get("name") or document.get("display_name")
    if not isinstance(name, str) or not name.strip() or len(name.encode()) > limit:
        raise ApiError(_INVALID, f"invalid name {name!r}: expected 1 to {limit} bytes")
    return name


def _query_tags(query: Query) -> Document:
    """Read the tags of an upload: a JSON object in the query."""
    try:
        return _tags(json.loads(query.get("tags") or "{}"))
    except ValueError as error:
        raise ApiError(_INVALID, f"the tags are not JSON: {error}") from error


def _tags(tags: Any) -> Document:  # noqa: ANN401 - what JSON gives
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ApiError(_INVALID, "the tags are no JSON object of texts")
    bad = [key for key, value in tags.items() if not key or "." in key or max(len(key), len(value)) > _TAG_LENGTH]
    if bad or len(tags) > _TAGS:
        raise ApiError(_INVALID, f"tags: at most {_TAGS}, of at most {_TAG_LENGTH} characters each, without a dot in the key")
    return tags


def _package(content: bytes) -> Document:
    try:
        return packages.read(content)
    except packages.Refused as error:
        raise ApiError(_INVALID, f"failed to read the pipeline: {error}") from error
