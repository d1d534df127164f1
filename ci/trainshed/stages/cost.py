"""What a new image costs: the steps of pipelines whose cached results it makes useless, and how long these took in past runs.

Kubeflow's step cache goes by the image's reference and the inputs, so a new image runs its own steps anew, and with them whatever reads
what they make. Nothing but the ledger and the compiled templates is asked.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.console import counted, spoken
from trainshed.errors import Interrupted, TrainshedError
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions, paths
from trainshed.pipelines.documents import Document
from trainshed.results import Status
from trainshed.stages.context import Context

_EVENTS = 60
_RECENT = 5
_LONGEST = 5


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that will run anew. ``seconds`` is None where it was always taken from the cache, as far back as the ledger was read."""

    pipeline: str
    task: str
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the step cache loses. ``unknown`` says of each pipeline that cannot be judged why not."""

    steps: tuple[Step, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def pipelines(self) -> list[str]:
        """Return the pipelines that have such steps."""
        return list(dict.fromkeys(step.pipeline for step in self.steps))

    @property
    def seconds(self) -> float | None:
        """Return how long the steps took when they ran, all together; None when that is not known of any."""
        known = [step.seconds for step in self.steps if step.seconds is not None]
        return sum(known) if known or not self.steps else None

    def __str__(self) -> str:
        """Say it in one line."""
        told = []
        if self.steps:
            told.append(f"{counted(self.steps, 'step')} of {counted(self.pipelines, 'pipeline')}, {self._time()}")
        elif not self.unknown:
            return "no cached step"
        reasons: dict[str, list[str]] = {}
        for pipeline, reason in self.unknown.items():
            reasons.setdefault(reason, []).append(pipeline)
        told += [
            f"{reason}" if not self.steps and len(reasons) == 1 else f"{', '.join(names)}: {reason}" for reason, names in reasons.items()
        ]
        return "; ".join(told)

    def _time(self) -> str:
        if self.seconds is None:
            return "of unknown time"
        return f"about {spoken(self.seconds)}" + (" or more" if any(step.seconds is None for step in self.steps) else "")

    def document(self) -> dict[str, Any]:
        """Return it for ``plan --json``, the longest steps named."""
        longest = sorted(self.steps, key=lambda step: -(step.seconds or 0.0))[:_LONGEST]
        return {
            "steps": len(self.steps),
            "pipelines": self.pipelines,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "longest": [{"pipeline": step.pipeline, "task": step.task, "seconds": step.seconds} for step in longest],
            "unknown": dict(self.unknown),
        }


def costs(context: Context, moving: Mapping[str, Collection[str]]) -> dict[str, Cost]:
    """Return, by component, what a new image of it makes useless.

    Args:
        context: the command's room.
        moving: the components that get a new image, each with the pipelines that use it; one without any is left out.
    """
    wanted = sorted({pipeline for pipelines in moving.values() for pipeline in pipelines})
    past = {pipeline: _past(context, pipeline) for pipeline in wanted}
    compiled = _compiled(context, [pipeline for pipeline in wanted if past[pipeline]])
    return {component: _cost(component, sorted(pipelines), past, compiled) for component, pipelines in moving.items() if pipelines}


def total(found: Iterable[Cost]) -> Cost:
    """Join the costs of several components: a step that several of them move runs once."""
    every = list(found)
    steps = dict.fromkeys(step for cost in every for step in cost.steps)
    return Cost(steps=tuple(steps), unknown={name: why for cost in every for name, why in cost.unknown.items()})


def _past(context: Context, pipeline: str) -> dict[str, float | None]:
    """Return the steps that succeeded in past runs, with the median of the last five times that each took; None when always cached.

    Cache hits are asked of runs that succeeded only, so a time of another run may be that of finding a result in the cache: it counts
    where there is no better one.
    """
    if not context.has_ledger:
        return {}
    taken: dict[str, list[float]] = {}
    perhaps: dict[str, list[float]] = {}
    seen: set[str] = set()
    for event in context.ledger.events("run", context.config.environment.name, pipeline, limit=_EVENTS):
        tasks = event.document.get("tasks")
        if event.key in seen or not isinstance(tasks, Mapping):
            continue
        seen.add(event.key)
        sure = event.document.get("state", "SUCCEEDED") == "SUCCEEDED"
        for task, seconds in _of_run(tasks).items():
            taken.setdefault(task, [])
            times = (taken if sure else perhaps).setdefault(task, [])
            if seconds and len(times) < _RECENT:
                times.append(seconds)
    known = {task: times or perhaps.get(task, []) for task, times in taken.items()}
    return {task: statistics.median(times) if times else None for task, times in known.items()}


def _of_run(tasks: Mapping[str, Any]) -> dict[str, float]:
    """Return what each step of one run took, the iterations of a loop together; 0 for one from the cache."""
    found: dict[str, float] = {}
    for path, told in tasks.items():
        if not isinstance(told, Mapping) or told.get("state") != "SUCCEEDED":
            continue
        seconds = told.get("seconds")
        ran = seconds if isinstance(seconds, (int, float)) and not told.get("cached") else 0.0
        name = paths.short_of(path)
        found[name] = found.get(name, 0.0) + max(0.0, ran)
    return found


def _compiled(context: Context, names: list[str]) -> dict[str, list[Document]]:
    """Return the compiled templates: as they were compiled before where nothing has changed since."""
    if not names:
        return {}
    from trainshed.stages import compile as compiling

    try:
        results = compiling.compile_templates(context, names)
        return {result.name: _read(context.config.project.root / result.details["template"]) for result in results if _good(result.status)}
    except Interrupted:
        raise
    except TrainshedError:
        return {}  # the stage that needs them says what is wrong


def _good(status: Status) -> bool:
    return status in {Status.DONE, Status.CACHED}


def _read(path: Path) -> list[Document]:
    return yaml_documents.load(files.read_text(path, what="the compiled template"), place=str(path))


def _cost(
    component: str, pipelines: Iterable[str], past: Mapping[str, Mapping[str, float | None]], compiled: Mapping[str, list[Document]]
) -> Cost:
    steps: list[Step] = []
    unknown: dict[str, str] = {}
    for pipeline in pipelines:
        if not past[pipeline]:
            unknown[pipeline] = "no past run to judge by"
        elif pipeline not in compiled:
            unknown[pipeline] = "it does not compile"
        else:
            steps += [
                Step(pipeline=pipeline, task=task, seconds=past[pipeline][task])
                for task in useless(compiled[pipeline], component)
                if task in past[pipeline]  # of what never ran, nothing is cached
            ]
    return Cost(steps=tuple(steps), unknown=unknown)


def useless(documents: list[Document], component: str) -> list[str]:
    """Return the steps whose cached results go with the image of a component: its own, and those downstream; by short path.

    Those that are never cached are left out: they run anew in any case.
    """
    found = paths.tasks(documents)
    uses = {
        label for label, told in yaml_documents.containers(documents).items() if mentions.component_named(told.get("image")) == component
    }
    changed = [task.path for task in found if task.is_leaf and task.executor in uses]
    gone = {*changed, *paths.downstream(found, changed)}
    return list(dict.fromkeys(task.short for task in found if task.is_leaf and task.caching and task.path in gone))
