"""The model that a service is handed: the output of the last good run of a pipeline in the same environment.

Its checksum is taken when the run is accepted, so that whoever writes to its address afterwards is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from trainshed.errors import RemoteError, ToolMissing, UsageError, WorkFailed, suggestion
from trainshed.services import spec
from trainshed.services.rendering import Model
from trainshed.services.spec import ModelSource
from trainshed.stages.context import Context
from trainshed.stages.deploying.checksums import Source, checksum
from trainshed.stages.launching.history import newest_first
from trainshed.tools.kubeflow_records import Artifact, Run

_SUCCEEDED = "SUCCEEDED"
_STARTED = "STARTED"
_LOOKED_AT = 200


def model_of(context: Context, source: ModelSource, from_run: str | None = None) -> Model:
    """Find the model of a run, with its checksum; of the newest one that succeeded and passed its gates when none is named.

    Raises:
        WorkFailed: no run of the pipeline was accepted in this environment, or not the one that is named; its model is gone or
            was changed since.
        UsageError: the run is unknown or of another pipeline; it has no such output, or several; its model may not be read.
    """
    run_id = _accepted(context, source.pipeline, from_run) if from_run is not None else newest(context, source.pipeline)
    if run_id is None:
        message = f"no run of {source.pipeline} has succeeded in {context.config.environment.name}: there is no model to deploy"
        raise WorkFailed(message, next_step=_again(source.pipeline))
    uri = _chosen(source, run_id, context.kubeflow.artifacts(run_id)).uri
    path = local_path(uri)
    if path and not context.prediction.embedded:
        message = f"the model of run {run_id} lies on the machine of its run, where Fargate cannot reach it: {uri}"
        raise UsageError(message, next_step="Train in an environment whose Kubeflow keeps its artifacts in S3.")
    sha256 = checksum(context, Source(pipeline=source.pipeline, run_id=run_id, uri=uri, path=path))
    return Model(uri=uri, run_id=run_id, path=path, sha256=sha256)


def newest(context: Context, pipeline: str) -> str | None:
    """Return the newest run of a pipeline that was accepted in this environment, None for none."""
    events = context.ledger.events("run", context.config.environment.name, pipeline, limit=_LOOKED_AT)
    return next((run_id for run_id, told in newest_first(events) if told.get("good") or _ended_well(context, run_id, told)), None)


def again(context: Context, source: ModelSource, known: Model) -> Model:
    """Prove that a model which was decided on before is still what it was, where its run was accepted.

    Raises:
        WorkFailed: it is gone, or was changed since.
        UsageError: it may not be read.
    """
    found = checksum(context, Source(pipeline=source.pipeline, run_id=known.run_id, uri=known.uri, path=known.path))
    if found != known.sha256:
        message = f"the model of run {known.run_id} was changed since: {known.uri} has SHA-256 {found} instead of {known.sha256}"
        raise WorkFailed(message, next_step=_again(source.pipeline))
    return known


def keep(context: Context, pipeline: str, run: Run) -> list[str]:
    """Take the checksum of each model that a service of this repository would be handed from a run which is about to be accepted.

    Returns:
        Of which models it could not be taken, and why; the first deploy takes it then.

    Raises:
        WorkFailed: a model is gone, or it is not what it was: of a step out of Kubeflow's cache, the gates judged another one.
    """
    notes: dict[str, None] = {}
    embedded = context.config.environment.prediction_service.cluster is None
    for file in sorted(context.config.project.components.glob(f"*/{spec.FILE_NAME}")):
        try:
            source = spec.load(file, environment=context.config.environment.name).model
            if source is None or source.pipeline != pipeline:
                continue
            uri = _chosen(source, run.id, run.artifacts).uri
            path = local_path(uri)
            if embedded or not path:  # else a deploy refuses it
                checksum(context, Source(pipeline=pipeline, run_id=run.id, uri=uri, path=path))
        except (UsageError, RemoteError, ToolMissing) as error:
            notes[f"the checksum of the model for {file.parent.name} is not kept yet: {error.message}"] = None
    return list(notes)


def _chosen(source: ModelSource, run_id: str, artifacts: Mapping[str, Artifact]) -> Artifact:
    """Return the output that is meant: by its whole path, or the one whose path ends so (``train.model`` of ``inner.train.model``)."""
    ends = [path for path in artifacts if path == source.output] or [path for path in artifacts if path.endswith(f".{source.output}")]
    if len(ends) == 1:
        return artifacts[ends[0]]
    place = f"run {run_id} of {source.pipeline}"
    if ends:
        raise UsageError(f"{place} has several outputs '{source.output}': {', '.join(sorted(ends))}", next_step="Name one in model.output.")
    known = f"its outputs: {', '.join(sorted(artifacts))}" if artifacts else "its tasks gave no artifacts"
    message = f"{place} has no output '{source.output}'{suggestion(source.output, artifacts)} ({known})"
    raise UsageError(message, next_step="Mend model.output.")


def local_path(uri: str) -> str:
    """Return the path of a ``file://`` address or of a plain path; empty for any other address."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme in {"", "file"} else ""


def _accepted(context: Context, pipeline: str, run_id: str) -> str:
    """Make sure that a run may give a model: that it is of this pipeline, and was accepted in this environment."""
    environment = context.config.environment.name
    records = context.ledger.events("run", environment, key=run_id, limit=1)
    if not records:
        message = f"run {run_id} is not known in {environment}: nobody has held it to its gates"
        raise UsageError(message, next_step=f"Name the id of a run that `trainshed launch {pipeline} --wait` accepted.")
    (record,) = records
    if record.name != pipeline:
        message = f"run {run_id} is of {record.name}, and the model is {pipeline}'s"
        raise UsageError(message, next_step=f"Name a run of {pipeline}, or mend model.pipeline.")
    if record.document.get("good") or _ended_well(context, run_id, record.document):
        return run_id
    raise WorkFailed(f"run {run_id} of {pipeline} is not accepted: {_why_not(record.document)}", next_step=_again(pipeline))


def _why_not(told: Mapping[str, Any]) -> str:
    missed = [str(gate.get("message", "a gate")) for gate in told.get("gates") or [] if not gate.get("passed")]
    if missed or told.get("refused"):
        return "; ".join(missed) or str(told["refused"])
    if told.get("known") is False:
        return "it is of a version that nobody vouches for"
    state = str(told.get("state") or "unknown")
    if state == _SUCCEEDED or (state == _STARTED and told.get("followed")):
        return "whoever followed it did not hold it to its gates to the end"
    return f"its state is {state}"


def _ended_well(context: Context, run_id: str, told: Mapping[str, Any]) -> bool:
    """Ask Kubeflow how a run ended that nobody followed; one whose follower died was not held to its gates, and does not count."""
    if told.get("state") != _STARTED or told.get("followed"):
        return False
    return context.kubeflow.run(run_id).state == _SUCCEEDED


def _again(pipeline: str) -> str:
    return f"Run `trainshed launch {pipeline} --wait`."
