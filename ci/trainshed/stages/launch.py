"""Launch: training runs of uploaded pipelines, with checked parameters, followed when asked, and held to their gates."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainshed.errors import UsageError
from trainshed.pipelines.settings import Profile
from trainshed.pipelines.templates import Template
from trainshed.results import Report
from trainshed.stages import upload
from trainshed.stages.context import Context
from trainshed.stages.launching import asking, resuming
from trainshed.stages.launching.asking import Asked
from trainshed.stages.launching.runs import Runs
from trainshed.stages.references import References


def launch(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    params_file: Path | None = None,
    profile: str | None = None,
    gates: Sequence[str] = (),
    local_images: bool = False,
    caching: bool | None = None,
    experiment: str | None = None,
    labels: Mapping[str, str] | None = None,
    resume: str | None = None,
    wait: bool | None = None,
    deadline: float | None = None,
) -> Report:
    """Start a run of each pipeline, or take up one that was started before.

    The version is the one that CI uploaded for this commit or branch, or this tree's own: see `references.References`. SIGTERM and
    SIGINT end the runs that are followed, and the report says so.

    Args:
        context: the command's room.
        names: pipelines; empty: all.
        parameters: by name; texts are read as the pipeline's types. They win over ``params_file``, and that over the profile.
        params_file: a YAML or JSON mapping of parameters.
        profile: a set of parameters, gates and settings from the file beside each pipeline.
        gates: such as ``auc >= 0.80`` or ``auc >= best - 0.01``, one or more lines each; a followed run that misses one is a failure.
        local_images: run what was built and uploaded from this tree.
        caching: take steps from the cache, or run them all; None: as the profile, else the pipeline says.
        experiment: of the runs; the profile's, the environment's or the project's name by default.
        labels: of the runs, over those of profile and environment.
        resume: the id of a run to take up; then nothing is started.
        wait: follow the runs to their ends; by default only when there are gates. A run that is taken up is always followed.
        deadline: seconds until a followed run is terminated.

    Raises:
        UsageError: before any run: an unknown pipeline, profile or parameter, a value of a wrong type, a wrong gate, nothing uploaded.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    asked = asking.read(
        parameters=parameters,
        params_file=params_file,
        profile=profile,
        gates=gates,
        experiment=experiment,
        labels=labels,
        caching=caching,
        wait=wait,
    )
    if resume is not None:
        _require_alone(asked, names=names, params_file=params_file, local_images=local_images, wait=wait)
        return _resumed(context, resume.strip(), asked, ends=ends)
    return _started(context, names, asked, local_images=local_images, wait=wait, ends=ends)


def profiles(context: Context, templates: Sequence[Template], asked: Asked, *, wait: bool | None) -> dict[str, Profile]:
    """Return the profile of each pipeline.

    Raises:
        UsageError: a pipeline has none of that name, its settings are wrong, or its gates would never be judged.
    """
    found = {template.name: asking.profile_of(context, template, asked) for template in templates}
    for profile in found.values():
        asking.require_followed(asking.read_gates(profile.gates), wait)
    return found


def _started(  # noqa: PLR0913 - what `launch` was asked for
    context: Context, names: Sequence[str], asked: Asked, *, local_images: bool, wait: bool | None, ends: float | None
) -> Report:
    selected = upload.selected(context, names)
    chosen = profiles(context, selected, asked, wait=wait)
    followed = any(asked.gates or each.gates for each in chosen.values()) if wait is None else wait
    if ends is not None and not followed:
        context.console.warning("--deadline ends runs that are followed, and these are not; see --wait")
    references = References(context, local_images=local_images)
    references.check_ahead(template.name for template in selected)
    _reach(context)
    prepared = [asking.prepare(context, references, template, chosen[template.name], asked) for template in selected]
    upload.ready(context, [asking.sdk_of(each) for each in prepared])
    return Runs(context, follow_them=followed, ends=ends).launch(prepared)


def _resumed(context: Context, run_id: str, asked: Asked, *, ends: float | None) -> Report:
    if not run_id:
        raise UsageError("--resume: which run?", next_step="Name it by its id, or leave --resume out.")
    _reach(context)
    upload.ready(context, [])
    prepared, run = resuming.take_up(context, run_id, asked.gates)
    return Runs(context, follow_them=True, ends=ends).take_up(prepared, run)


def _require_alone(asked: Asked, *, names: Sequence[str], params_file: Path | None, local_images: bool, wait: bool | None) -> None:
    """Refuse what would say how to start a run beside one that was started long ago."""
    said = {
        "names": bool(names),
        "-p": bool(asked.parameters) and params_file is None,
        "--params": params_file is not None,
        "--profile": bool(asked.profile),
        "--local-images": local_images,
        "--cache": asked.caching is not None,
        "--experiment": bool(asked.experiment),
        "--label": bool(asked.labels),
        "--no-wait": wait is False,
    }
    wrong = [option for option, given in said.items() if given]
    if wrong:
        message = f"--resume follows a run as it was started: {', '.join(wrong)} can change nothing of it"
        raise UsageError(message, next_step="Give --resume with --gate and --deadline only.")


def _reach(context: Context) -> None:
    """Prove that the ledger and Kubeflow can be worked with, the nearer one first."""
    if context.has_ledger:
        _ = context.ledger
    context.kubeflow.require_ready()
