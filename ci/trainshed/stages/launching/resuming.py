"""A run that was started before is taken up: from the ledger's record of it, else from what Kubeflow itself tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainshed.errors import UsageError
from trainshed.pipelines import templates
from trainshed.pipelines.gates import Gate
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.launching import naming
from trainshed.stages.launching.asking import Prepared, read_gates
from trainshed.stages.launching.history import History
from trainshed.tools.kubeflow_records import NotFound, Run, Version

_ID_HELP = "Take the id or the address from what `trainshed launch` said, or from the run's page in Kubeflow."


def take_up(context: Context, run_id: str, gates: Sequence[Gate]) -> tuple[Prepared, Run]:
    """Return a run, and what was asked of it; ``gates`` are judged this once, beside those that it was started with.

    Raises:
        UsageError: there is no such run, or it is of nothing that can be known here.
        RemoteError: Kubeflow cannot be asked.
    """
    history = History(context)
    try:
        run = context.kubeflow.run(run_id.rstrip("/").rpartition("/")[2])
    except NotFound as error:
        message = f"there is no run '{run_id}' to take up in environment {context.config.environment.name}"
        raise UsageError(message, next_step=_ID_HELP) from error
    known = history.known(run)
    prepared = _of_record(run, *known) if known else _of_kubeflow(context, history, run)
    wanted = {str(gate) for gate in prepared.gates}
    added = tuple({str(gate): gate for gate in gates if str(gate) not in wanted}.values())
    return replace(prepared, gates=(*prepared.gates, *added), added=added), run


def _of_record(run: Run, name: str, told: Mapping[str, Any]) -> Prepared:
    version = Version(
        id=_text(told, "version_id") or run.version_id,
        pipeline_id=_text(told, "pipeline_id") or run.pipeline_id,
        name=_text(told, "version"),
    )
    wanted, labels, caching = told.get("gates_wanted"), told.get("labels"), told.get("caching")
    return Prepared(
        name=name,
        version=version,
        parameters=_table(told.get("parameters")),
        source=f"run {run.id} of version {version.name} is taken up",
        gates=read_gates([str(gate) for gate in wanted] if isinstance(wanted, list) else []),
        experiment=_text(told, "experiment"),
        labels={key: str(value) for key, value in _table(labels).items()},
        caching=caching if isinstance(caching, bool) else None,
        commit=_text(told, "version_commit"),
        build_url=_text(told, "version_build_url"),
        known=told.get("known") is not False,
    )


def _of_kubeflow(context: Context, history: History, run: Run) -> Prepared:
    """Make out what a run without a record is of.

    Whoever started it may have been trusted less than this command: unless this is a laptop, its model counts only when the ledger
    knows that the version was uploaded by somebody of this trust.
    """
    said = naming.told_in(run.description)
    uploaded = history.uploaded(run.version_id)
    if run.version_id:
        version = context.kubeflow.version(run.pipeline_id, run.version_id)
        name = uploaded or _template(context, version) or (said[0] if said else "")
    else:  # it ran a specification of its own, as when its cache was switched
        version = Version(id="", pipeline_id=run.pipeline_id, name=said[1] if said else "")
        name = said[0] if said else ""
    if not name:
        message = f"run {run.id} '{run.name}' is of no pipeline that is known here, and the ledger has no record of it"
        raise UsageError(message, next_step=f"Look at it in Kubeflow: {context.kubeflow.link(run.id)}".removesuffix(": "))
    return Prepared(
        name=name,
        version=version,
        parameters=dict(run.parameters),
        source=f"run {run.id} of version {version.name} is taken up; the ledger has no record of it, so no gates but those given",
        known=context.tier is Tier.LAPTOP or uploaded is not None,
    )


def _template(context: Context, version: Version) -> str:
    """Return the template that a version was compiled from, by the name that kfp makes of a function's."""
    spec = version.spec.get("pipeline_spec", version.spec)
    compiled = str(spec.get("pipelineInfo", {}).get("name", ""))
    found = templates.discover(context.config.project.pipelines)
    return next((name for name in found if name.replace("_", "-") == compiled), compiled)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
