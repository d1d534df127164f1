"""Pipelines and their versions, experiments: names, limits, conflicts and packages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.kubeflow_server import listing
from tests.support.kubeflow_server.records import (
    EXISTS,
    INTERNAL,
    INVALID,
    Document,
    PlainRefused,
    Record,
    Refused,
    State,
    shown,
    timestamp,
)

LARGEST = 32 << 20
_NAMES = {"Pipeline": 128, "PipelineVersion": 127, "Experiment": 128}
_NAMESPACE = 63
_PIPELINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_TAG, _TAGS = 63, 20
_READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Query = Mapping[str, str]


class Pipelines:
    """The services of pipelines, their versions and uploads, and of experiments."""

    def __init__(self, state: State) -> None:
        self.state = state

    # pipelines

    def create(self, body: Document) -> Document:
        """Create a pipeline without a version."""
        _known(body, {"pipeline_id", "display_name", "name", "description", "created_at", "namespace", "error", "tags"})
        name = body.get("name") or body.get("display_name") or ""
        _length("Pipeline", name, Refused, INTERNAL)
        if not name:
            raise Refused(INVALID, "name is required")
        return self.pipeline_shown(self._new_pipeline(name, body, tags=body.get("tags") or {}))

    def _new_pipeline(self, name: str, told: Mapping[str, Any], *, tags: Mapping[str, str]) -> Record:
        namespace = self.state.namespace(told.get("namespace") or "")
        if len(namespace) > _NAMESPACE:
            raise PlainRefused(INVALID, f"Invalid input error: Pipeline.Namespace length cannot exceed {_NAMESPACE}")
        if self.state.pipelines.named(name, namespace):
            raise Refused(EXISTS, f"Already exist error: Failed to create a new pipeline. The name {name} already exists.")
        document: Document = {"display_name": told.get("display_name") or name, "description": told.get("description") or ""}
        document["tags"] = self._tags(tags)
        return self.state.add(self.state.pipelines, name, parent=namespace, namespace=namespace, document=document)

    def pipeline(self, identifier: str) -> Document:
        """Return a pipeline."""
        return self.pipeline_shown(self.state.need(self.state.pipelines, "Pipeline", identifier))

    def by_name(self, name: str, query: Query) -> Document:
        """Return a pipeline by its name; an empty namespace matches any."""
        found = self.state.pipelines.named(name, self.state.namespace(query.get("namespace", "")) or None)
        if found is None:
            return self.pipeline(f"{query.get('namespace', '')}/{name}")
        return self.pipeline_shown(found)

    def pipelines(self, query: Query) -> Document:
        """List pipelines; those of the empty namespace are shared, and listed only by it."""
        rows = self.state.pipelines.all(self.state.namespace(query.get("namespace", "")))
        return listing.page("pipelines", rows, query, self.pipeline_shown)

    def delete(self, identifier: str, query: Query) -> Document:
        """Delete a pipeline, which has no versions or loses them too."""
        row = self.state.need(self.state.pipelines, "Pipeline", identifier)
        versions = self.state.versions.all(row.id)
        if versions and query.get("cascade") != "true":
            raise Refused(INVALID, f"as it has existing pipeline versions (e.g. {versions[0].id})")
        for version in versions:
            self.state.versions.remove(version)
        self.state.pipelines.remove(row)
        return {}

    def pipeline_shown(self, row: Record) -> Document:
        """Return a pipeline's document."""
        told = {"pipeline_id": row.id, "name": row.name, "created_at": timestamp(row.created), "namespace": row.namespace}
        return shown(told | row.document)

    # versions

    def upload(self, query: Query, content: bytes, filename: str) -> Document:
        """Create a pipeline with its first version, which takes the pipeline's name."""
        specification = package(content)
        name = query.get("name") or query.get("display_name") or filename
        _length("Pipeline", name, PlainRefused, INVALID)
        try:
            pipeline = self._new_pipeline(name, query, tags=_tags_of(query))
        except Refused as refusal:
            raise self._opaque(refusal, "Failed to create a pipeline and a pipeline version") from None
        self._new_version(pipeline, name, query, specification, _tags_of(query))
        return self.pipeline_shown(pipeline)

    def upload_version(self, query: Query, content: bytes, filename: str) -> Document:
        """Add a version to a pipeline. What is wrong with it stays in the server's log."""
        specification = package(content)
        opaque = "Failed to create a pipeline version"
        if not query.get("pipelineid"):
            raise Refused(INVALID, opaque)
        name = query.get("name") or query.get("display_name") or filename
        _length("PipelineVersion", name, PlainRefused, INVALID)
        pipeline = self.state.pipelines.get(query["pipelineid"])
        if pipeline is None:
            raise Refused(INVALID, opaque)
        try:
            return self.version_shown(self._new_version(pipeline, name, query, specification, _tags_of(query)))
        except Refused as refusal:
            raise self._opaque(refusal, opaque) from None

    def _new_version(self, pipeline: Record, name: str, query: Query, specification: Document, tags: Mapping[str, str]) -> Record:
        if self.state.versions.named(name, pipeline.id):
            raise Refused(EXISTS, f"Already exist error: Failed to create a new pipeline version. The name {name} already exists.")
        document: Document = {"display_name": query.get("display_name") or name, "description": query.get("description", "")}
        document |= {"code_source_url": query.get("code_source_url", ""), "pipeline_spec": specification, "tags": self._tags(tags)}
        return self.state.add(self.state.versions, name, parent=pipeline.id, namespace=pipeline.namespace, document=document)

    def _opaque(self, refusal: Refused, message: str) -> Refused:
        """Return what the upload endpoints make of a refusal: the name that is taken is not told, and was 500 before 2.2."""
        if refusal.status != EXISTS[0]:
            return refusal
        return Refused(EXISTS if self.state.at_least(2, 2) else INTERNAL, message)

    def _tags(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        if not self.state.at_least(2, 17):
            return {}  # unknown parts of a query are passed over
        if len(tags) > _TAGS or any(len(text) > _TAG or not key or "." in key for key, each in tags.items() for text in (key, each)):
            raise Refused(INVALID, f"Tags: at most {_TAGS}, keys and values of at most {_TAG} characters, no dot in a key")
        return tags

    def version(self, pipeline: str, identifier: str) -> Document:
        """Return a version; the server does not compare its pipeline with the address."""
        assert pipeline
        return self.version_shown(self.state.need(self.state.versions, "PipelineVersion", identifier))

    def versions(self, pipeline: str, query: Query) -> Document:
        """List the versions of a pipeline; a pipeline that is not there has none."""
        return listing.page("pipeline_versions", self.state.versions.all(pipeline), query, self.version_shown)

    def delete_version(self, pipeline: str, identifier: str) -> Document:
        """Delete a version."""
        assert pipeline
        self.state.versions.remove(self.state.need(self.state.versions, "PipelineVersion", identifier))
        return {}

    def version_shown(self, row: Record) -> Document:
        """Return a version's document."""
        told = {"pipeline_id": row.parent, "pipeline_version_id": row.id, "name": row.name, "created_at": timestamp(row.created)}
        return shown(told | row.document)

    def latest(self, pipeline: str) -> Record | None:
        """Return the version that counts as the latest: by the second in which it was made, then by chance."""
        return max(self.state.versions.all(pipeline), key=lambda row: (row.created, row.id), default=None)

    # experiments

    def create_experiment(self, body: Document) -> Document:
        """Create an experiment."""
        _known(body, {"experiment_id", "display_name", "description", "created_at", "namespace", "storage_state", "last_run_created_at"})
        name, namespace = body.get("display_name") or "", self.state.namespace(body.get("namespace") or "")
        if not name:
            raise Refused(INTERNAL, "Failed to convert API experiment to model experiment: Experiment must have a non-empty name")
        _length("Experiment", name, Refused, INTERNAL)
        if self.state.multi_user and not namespace:
            raise Refused(INVALID, "An experiment cannot have an empty namespace in multi-user mode")
        if self.state.experiments.named(name, namespace):
            raise Refused(EXISTS, f"Already exist error: Failed to create a new experiment. The name {name} already exists.")
        document = {"description": body.get("description") or "", "storage_state": "AVAILABLE"}
        row = self.state.add(self.state.experiments, name, parent=namespace, namespace=namespace, document=document)
        return self.experiment_shown(row)

    def experiment(self, identifier: str) -> Document:
        """Return an experiment."""
        return self.experiment_shown(self.state.need(self.state.experiments, "Experiment", identifier))

    def experiments(self, query: Query) -> Document:
        """List the experiments of a namespace."""
        namespace = self.state.namespace(query.get("namespace", ""))
        if self.state.multi_user and not namespace:
            raise Refused(INVALID, "An experiment cannot have an empty namespace in multi-user mode")
        return listing.page("experiments", self.state.experiments.all(namespace), query, self.experiment_shown)

    def experiment_shown(self, row: Record) -> Document:
        """Return an experiment's document."""
        told = {"experiment_id": row.id, "display_name": row.name, "created_at": timestamp(row.created), "namespace": row.namespace}
        return shown(told | {"last_run_created_at": timestamp(row.document.get("last_run", 0))} | _without(row.document, "last_run"))


def package(content: bytes) -> Document:
    """Read a compiled pipeline as the server shows it: with a platform document, both under one roof."""
    if len(content) > LARGEST:
        raise Refused(INVALID, "Failed to read a pipeline spec file: File size too large. Maximum supported size")
    try:
        documents = [document for document in yaml.load_all(content, Loader=_READER) if document is not None]
    except yaml.YAMLError as error:
        raise Refused(INVALID, f"Invalid input error: Error while parsing the pipeline specification: {error}") from error
    if not documents or len(documents) > 2 or not all(isinstance(document, dict) for document in documents):
        raise Refused(INVALID, "Invalid input error: Invalid pipeline specification: unknown template format")
    specification = documents[0]
    name = (specification.get("pipelineInfo") or {}).get("name", "")
    if "schemaVersion" not in specification or "root" not in specification or not _PIPELINE_NAME.fullmatch(str(name)):
        raise Refused(INVALID, "Invalid input error: unknown template format: pipeline spec is invalid")
    kept = _kept("PipelineSpec", specification)
    if len(documents) == 1 or "kubernetes" not in documents[1].get("platforms", {}):
        return kept
    return {"pipeline_spec": kept, "platform_spec": _kept("PlatformSpec", documents[1])}


def _kept(kind: str, document: Document) -> Document:
    """Read a document into its message and write that, as the server does: what is at its default is gone afterwards."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        message = json_format.ParseDict(document, getattr(pipeline_spec_pb2, kind)())
    except json_format.ParseError as error:
        raise Refused(INVALID, f"Invalid input error: invalid v2 pipeline spec: {error}") from error
    whole: Document = json.loads(json_format.MessageToJson(message))
    return whole


def _tags_of(query: Query) -> Mapping[str, str]:
    try:
        tags = json.loads(query.get("tags") or "{}")
    except ValueError:
        tags = None
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise Refused(INVALID, "Failed to parse tags query parameter. Expected JSON object with string keys and values")
    return tags


def _length(kind: str, name: str, refusal: type[Refused], code: tuple[int, int]) -> None:
    if len(name.encode()) > _NAMES[kind]:
        raise refusal(code, f"Invalid input error: {kind}.Name length cannot exceed {_NAMES[kind]}")


def _known(body: Document, fields: set[str]) -> None:
    unknown = sorted(set(body) - fields)
    if unknown:
        raise Refused(INVALID, f'proto: (line 1:1): unknown field "{unknown[0]}"')


def _without(document: Document, key: str) -> Document:
    return {name: value for name, value in document.items() if name != key}
