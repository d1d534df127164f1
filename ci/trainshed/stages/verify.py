"""``trainshed verify``: prove that the stamped pipelines are of the lock and the overlays in force, and that kfp takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.config import Project
from trainshed.errors import TrainshedError, UsageError, WorkFailed
from trainshed.pipelines import content
from trainshed.pipelines.lock import Lock
from trainshed.pipelines.overlays import InForce
from trainshed.pipelines.verify import verify as verified
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import compile as compiling
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.tools import compiler

STAGE = "verify"


@dataclass(frozen=True, kw_only=True)
class _Verified:
    """A stamped pipeline that is what it should be; kfp's word is still open when ``accepted`` is False."""

    text: str
    accepted: bool


def verify(context: Context, names: Sequence[str] = ()) -> Report:
    """Verify the named pipelines, or all, against the lock, the templates and the overlays of the environment as they are now.

    kfp's own judgement (it loads the stamped file, and writes the same bytes again) is asked once for each content.

    Raises:
        NothingSelected: there is no template.
        UsageError: there is no lock, it was edited, or it is of another tree; a name that no template has; a wrong settings file.
    """
    chosen = compiling.selected(context, names)
    compiling.require_known(context, chosen)
    in_force = {template.name: compiling.overlays(context, template) for template in chosen}
    lock = locking.current(context)
    compiled = compiling.compile_templates(context, [template.name for template in chosen])
    outcomes = {result.name: _outcome(context, lock, result, in_force[result.name]) for result in compiled if result.good}
    refused = _asked(
        context.config.project, {name: it.text for name, it in outcomes.items() if isinstance(it, _Verified) and not it.accepted}
    )
    results = []
    for result in compiled:
        outcome = refused.get(result.name) or outcomes.get(result.name)
        results.append(_result(context.config.project, result.name, outcome))
        context.console.end(results[-1])
    shown = [result for result in compiled if result.status is not Status.CACHED]
    return Report(stage=STAGE, results=(*shown, *results))


def _outcome(context: Context, lock: Lock, compiled: Result, in_force: InForce) -> _Verified | TrainshedError:
    """Compare one stamped pipeline with the lock, its template and its overlays."""
    name, project = compiled.name, context.config.project
    stamped = compiling.stamped_file(project, name)
    place = project.shown(stamped)
    if not stamped.exists():
        return UsageError(f"{place}: not stamped yet", next_step="Run `trainshed stamp`.")
    try:
        text = files.read_text(stamped, what="the stamped pipeline")
        template_text = files.read_text(compiling.template_file(project, name), what="the compiled template")
    except UsageError as error:
        return error
    found = verified(text, lock.references, template_text=template_text, place=place, in_force=in_force)
    for note in found.notes:
        context.console.warning(f"{name}: {note}")
    if found.problems:
        return WorkFailed("\n".join(f"{name}: {problem}" for problem in found.problems), next_step="Run `trainshed stamp` again.")
    return _Verified(text=text, accepted=_accepted(project, name) == _proof(text))


def _asked(project: Project, texts: Mapping[str, str]) -> dict[str, TrainshedError]:
    """Ask kfp about stamped pipelines; return what it refuses, and remember what it accepts."""
    jobs = [
        compiler.Job(
            name=name, source=compiling.stamped_file(project, name), kind="yaml", log=project.work_dir / "logs" / f"{name}.{STAGE}.log"
        )
        for name in texts
    ]
    refused: dict[str, TrainshedError] = {}
    outcomes = compiler.compile_all(jobs, root=project.root, components=project.components, scratch=project.state)
    for name, outcome in outcomes.items():
        if isinstance(outcome, TrainshedError):
            refused[name] = WorkFailed(outcome.message, next_step=outcome.next_step)
        elif outcome.text != texts[name]:
            message = f"{name}: kfp reads the stamped pipeline, and writes another one"
            refused[name] = WorkFailed(message, next_step="Compile the template with this version of kfp, and stamp it again.")
        else:
            files.write_json(_accepted_file(project, name), _proof(texts[name]))
    return refused


def _result(project: Project, name: str, outcome: _Verified | TrainshedError | None) -> Result:
    if outcome is None:
        return Result(name=name, stage=STAGE, status=Status.ABORTED, message="its template does not compile")
    if isinstance(outcome, TrainshedError):
        return failed(name, STAGE, outcome)
    return Result(
        name=name,
        stage=STAGE,
        status=Status.CACHED if outcome.accepted else Status.DONE,
        cause="kfp accepted this content before" if outcome.accepted else "new content",
        details={
            "file": project.shown(compiling.stamped_file(project, name)),
            "content_digest": content.content_digest(outcome.text, place=name),
        },
    )


def _proof(text: str) -> dict[str, Any]:
    """Return what kfp's word depends on: the file, byte for byte, and the versions."""
    return {"text": text, "versions": compiling.versions()}


def _accepted(project: Project, name: str) -> Any:  # noqa: ANN401 - whatever the file holds; it is compared only
    try:
        return json.loads(_accepted_file(project, name).read_bytes())
    except (OSError, ValueError):
        return None


def _accepted_file(project: Project, name: str) -> Path:
    return project.state / "pipelines" / f"{name}.accepted.json"
