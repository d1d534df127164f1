"""The model that a service is handed: the output of the last good run of a pipeline in the same environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trainshed.errors import UsageError, WorkFailed, suggestion
from trainshed.services.rendering import Model
from trainshed.services.spec import ModelSource
from trainshed.stages.context import Context

_SUCCEEDED = "SUCCEEDED"
_UNFINISHED = frozenset({"", "PENDING", "RUNNING", "PAUSED", "CANCELING", "RUNTIME_STATE_UNSPECIFIED"})
_LOOKED_AT = 50


def model_of(context: Context, source: ModelSource) -> Model:
    """Find the model of the newest run that succeeded and passed its gates.

    Raises:
        WorkFailed: no run of the pipeline succeeded in this environment, or its model is gone.
        UsageError: the run has no such output.
    """
    run_id = _last_good(context, source.pipeline)
    artifacts = context.kubeflow.artifacts(run_id)
    if source.output not in artifacts:
        hint = suggestion(source.output, artifacts)
        raise UsageError(f"run {run_id} of {source.pipeline} has no output '{source.output}'{hint}", next_step="Mend model.output.")
    uri = artifacts[source.output].uri
    path = local_path(uri) if context.prediction.embedded else ""
    if path and not Path(path).exists():
        raise WorkFailed(f"the model of run {run_id} is gone: {path}", next_step=_again(source.pipeline))
    return Model(uri=uri, run_id=run_id, path=path)


def local_path(uri: str) -> str:
    """Return the path of a ``file://`` address or of a plain path; empty for any other address."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme in {"", "file"} else ""


def _last_good(context: Context, pipeline: str) -> str:
    environment = context.config.environment.name
    for event in context.ledger.events("run", environment, pipeline, limit=_LOOKED_AT):
        run_id = str(event.document.get("run_id") or event.key)
        state = str(event.document.get("state", ""))
        if state in _UNFINISHED:  # nobody waited for it
            state = context.kubeflow.run(run_id).state
        if state == _SUCCEEDED and _passed(event.document):
            return run_id
    raise WorkFailed(f"no run of {pipeline} has succeeded in {environment}: there is no model to deploy", next_step=_again(pipeline))


def _passed(document: Mapping[str, Any]) -> bool:
    return bool(document.get("good", True))


def _again(pipeline: str) -> str:
    return f"Run `trainshed launch {pipeline} --wait`."
