"""Compile the pipeline templates; what was compiled before from the same files is taken as it is."""

from __future__ import annotations

import hashlib
import json
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.config import Project
from trainshed.errors import NothingSelected, TrainshedError, UsageError, problems
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions, settings, templates
from trainshed.pipelines.overlays import InForce
from trainshed.pipelines.templates import Template
from trainshed.pipelines.verify import check_template
from trainshed.results import Result, Status, failed
from trainshed.stages.context import Context
from trainshed.tools import compiler

STAGE = "compile"
RULES = "3"
"""Part of every record: raised when the same template compiles to something else for a reason that stands in this package."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What a template was compiled from, and to: versions of tools, digests of files (relative to the project), the text."""

    versions: Mapping[str, str]
    files: Mapping[str, str]
    text: str


def compile_templates(context: Context, names: Sequence[str] = ()) -> list[Result]:
    """Compile the named templates (all when none is named) in one process; write ``pipelines/<name>.template.yaml``.

    Raises:
        NothingSelected: there is no template.
        UsageError: a name that no template has.
    """
    results = _made(context, selected(context, names))
    for result in results:
        if result.status is not Status.CACHED:
            context.console.end(result)
    return results


def nodes(context: Context, names: Sequence[str]) -> dict[str, Callable[[], Result]]:
    """Return the same as work by key for a schedule; the first that is called compiles for all, because kfp is slow to import."""
    chosen = selected(context, names)
    batch = _Batch(partial(_made, context, chosen))
    return {f"{template.name}/{STAGE}": partial(batch.result, index) for index, template in enumerate(chosen)}


def selected(context: Context, names: Sequence[str]) -> list[Template]:
    """Return the named templates, or all.

    Raises:
        NothingSelected: there is no template.
        UsageError: a name that no template has.
    """
    folder = context.config.project.pipelines
    known = templates.discover(folder)
    if not known:
        message = f"{context.config.project.shown(folder)}: there is no pipeline template"
        raise NothingSelected(message, next_step="Write one: docs/tutorial/ shows how.")
    return templates.select(known, list(names))


def require_known(context: Context, chosen: Iterable[Template]) -> None:
    """Raise `UsageError` when a template names a component that is none, or cannot be read: nothing is compiled then."""
    mentions.of_templates(chosen, _components(context.config.project))


def template_file(project: Project, name: str) -> Path:
    """Return the place of a compiled template."""
    return project.work_dir / "pipelines" / f"{name}.template.yaml"


def stamped_file(project: Project, name: str) -> Path:
    """Return the place of a stamped pipeline."""
    return project.work_dir / "pipelines" / f"{name}.yaml"


def overlays(context: Context, template: Template) -> InForce:
    """Return the overlays of a template, and the environment of this run.

    Raises:
        UsageError: the settings file is wrong, or stands beside no template.
    """
    config = context.config
    found = settings.load(config.project.pipelines, template, environments=config.environments)
    return InForce(overlays=found.overlays, environment=config.environment.name, place=found.place)


def versions() -> dict[str, str]:
    """Return the versions of all that decides what kfp makes of a file."""
    return {**compiler.versions(), "python": platform.python_version(), "rules": RULES}


class _Batch:
    """Work for several, done once by whoever comes first."""

    def __init__(self, work: Callable[[], list[Result]]) -> None:
        self._work, self._lock = work, threading.Lock()
        self._results: list[Result] | None = None

    def result(self, index: int) -> Result:
        with self._lock:
            if self._results is None:
                self._results = self._work()
            return self._results[index]


def _made(context: Context, chosen: Sequence[Template]) -> list[Result]:
    """Compile what has changed, and judge all."""
    project = context.config.project
    current = versions()
    before = {template.name: _static(project, template) for template in chosen}
    records = {template.name: _recorded(project, template.name) for template in chosen}
    causes = {template.name: _cause(project, records[template.name], current, before[template.name]) for template in chosen}
    stale = [template for template in chosen if causes[template.name]]
    for template in stale:
        context.console.start(template.name, STAGE, causes[template.name])
    started = time.monotonic()
    fresh = _compiled(context, stale)
    seconds = time.monotonic() - started
    results = []
    for template in chosen:
        outcome = fresh.get(template.name) or records[template.name]
        cause = causes[template.name]
        if isinstance(outcome, compiler.Compiled):
            for note in outcome.notes:
                context.console.warning(note)
            outcome = _remember(project, template, before[template.name], current, outcome)
        results.append(_judged(project, template, outcome, cause, seconds if cause else 0.0))
    return _distinct(results)


def _compiled(context: Context, stale: Sequence[Template]) -> dict[str, compiler.Compiled | TrainshedError]:
    """Run the compiler over what can be read."""
    project = context.config.project
    found: dict[str, compiler.Compiled | TrainshedError] = {}
    jobs = []
    for template in stale:
        try:
            text = files.read_text(template.path, what="the pipeline template")
            if template.kind == "yaml":
                yaml_documents.load(text, place=project.shown(template.path))
        except UsageError as error:
            found[template.name] = error
            continue
        jobs.append(compiler.Job(name=template.name, source=template.path, kind=template.kind, log=_log(project, template.name)))
    found.update(compiler.compile_all(jobs, root=project.root, components=project.components, scratch=project.state))
    return found


def _judged(project: Project, template: Template, outcome: _Record | TrainshedError | None, cause: str, seconds: float) -> Result:
    """Turn an outcome into a result; what is good is written to the work folder."""
    file, place = _log(project, template.name), project.shown(template.path)
    log = project.shown(file) if cause and file.exists() else None
    try:
        if not isinstance(outcome, _Record):
            raise outcome or UsageError(f"{place}: nothing came out of the compiler")
        documents = yaml_documents.load(outcome.text, place=f"{place}, compiled")
        wrong = check_template(documents, _components(project))
        if wrong:
            raise problems([f"{place}: {problem}" for problem in wrong], next_step="Mend the template or the component.yaml it loads.")
    except TrainshedError as error:
        return failed(template.name, STAGE, error, cause=cause, seconds=seconds, log=log)
    target = template_file(project, template.name)
    if not target.is_file() or target.read_text(encoding="utf-8") != outcome.text:
        files.write_text(target, outcome.text)
    used = {mentions.component_named(image.image) for image in mentions.images(documents)}
    details = {
        "template": project.shown(target),
        "pipeline": yaml_documents.pipeline_name(documents),
        "components": sorted(filter(None, used)),
    }
    status = Status.DONE if cause else Status.CACHED
    cause = cause or "compiled before from the same files"
    return Result(name=template.name, stage=STAGE, status=status, cause=cause, seconds=seconds, log=log, details=details)


def _distinct(results: Iterable[Result]) -> list[Result]:
    """Fail templates that would be one pipeline in Kubeflow."""
    checked: list[Result] = []
    first: dict[str, str] = {}
    for result in results:
        pipeline = str(result.details.get("pipeline", ""))
        other = first.setdefault(pipeline, result.name) if pipeline else result.name
        if other == result.name:
            checked.append(result)
            continue
        message = f"{result.name}: its pipeline is named '{pipeline}', as that of {other}"
        checked.append(failed(result.name, STAGE, UsageError(message, next_step="Give each pipeline a name of its own.")))
    return checked


def _components(project: Project) -> set[str]:
    return {path.parent.name for path in project.components.glob("*/Dockerfile")}


def _log(project: Project, name: str) -> Path:
    return project.work_dir / "logs" / f"{name}.{STAGE}.log"


def _static(project: Project, template: Template) -> dict[str, str]:
    """Digest what every template may depend on: itself and all component files, also those that are not there yet."""
    component_files = sorted(project.components.glob("*/component.yaml"))
    return {project.shown(path): digest for path in (template.path, *component_files) if (digest := _digest(path))}


def _cause(project: Project, record: _Record | None, current: Mapping[str, str], static: Mapping[str, str]) -> str:
    """Say why a template must be compiled; an empty text when it need not."""
    if record is None:
        return "not compiled here before"
    moved = [
        f"{name} {record.versions.get(name, '?')} → {version}" for name, version in current.items() if record.versions.get(name) != version
    ]
    if moved:
        return ", ".join(moved)
    now = {**{name: _digest(project.root / name) for name in record.files}, **static}
    changed = [f"changed: {name}" if digest else f"removed: {name}" for name, digest in now.items() if digest != record.files.get(name)]
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")  # noqa: PLR2004


def _digest(path: Path) -> str:
    """Digest a file's content or the names in a folder; empty for what is not there."""
    try:
        content = "\0".join(sorted(file.name for file in path.iterdir())).encode() if path.is_dir() else path.read_bytes()
        return hashlib.sha256(content).hexdigest()
    except OSError:
        return ""


def _record_file(project: Project, name: str) -> Path:
    return project.state / "pipelines" / f"{name}.json"


def _recorded(project: Project, name: str) -> _Record | None:
    """Read a record; one that is not whole counts as none."""
    try:
        document: dict[str, Any] = json.loads(_record_file(project, name).read_bytes())
        return _Record(versions=dict(document["versions"]), files=dict(document["files"]), text=str(document["text"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(
    project: Project, template: Template, before: Mapping[str, str], current: Mapping[str, str], compiled: compiler.Compiled
) -> _Record:
    """Record what came out, unless a file changed while the compiler ran: it may have read either content."""
    reads = {name: _digest(project.root / name) for name in compiled.reads}
    record = _Record(versions=current, files={**reads, **before}, text=compiled.text)
    if _static(project, template) == before:
        files.write_json(_record_file(project, template.name), {"versions": current, "files": record.files, "text": record.text})
    return record
