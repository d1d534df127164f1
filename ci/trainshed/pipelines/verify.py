"""Verify: prove that a stamped pipeline is its template, the lock's images and the environment's overlays, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainshed.errors import TrainshedError, UsageError, suggestion
from trainshed.images import references
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions, overlays
from trainshed.pipelines.documents import Document
from trainshed.pipelines.overlays import InForce
from trainshed.pipelines.stamp import stamp

_DIFFERS = "differs from the template stamped with this lock"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and where in the document."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found. ``notes`` are for people: nothing there is wrong, but nothing pins it either."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def check_template(documents: list[Document], components: Collection[str]) -> list[Problem]:
    """Return what would make the stamped pipeline fail, known before any image is built.

    Every container must name a component of this repository; every reference inside the specification must lead somewhere.
    """
    found = [problem for image in mentions.images(documents) if (problem := _template_image(image, components)) is not None]
    return [*found, *_misplaced(documents), *_dangling(documents)]


def verify(text: str, images: Mapping[str, str], *, template_text: str, place: str, in_force: InForce = overlays.NONE) -> Verification:
    """Compare a stamped pipeline with the lock, with its template and with the overlays in force.

    Args:
        text: the stamped pipeline.
        images: the lock's images, component → ``repository@sha256:…``.
        template_text: what was stamped.
        place: what to call the pipeline.
        in_force: the pipeline's overlays, and the environment.
    """
    try:
        documents = yaml_documents.load(text, place=place)
    except UsageError as error:
        return Verification(problems=(Problem(place=place, message=error.message.removeprefix(f"{place}: ")),))
    found = [problem for image in mentions.images(documents) if (problem := _stamped_image(image, images)) is not None]
    found += _misplaced(documents)
    found += _dangling(documents)
    if not found:
        found += _beyond(text, documents, place, lambda: stamp(template_text, images, place=place, in_force=in_force))
        found = [_with_overlays(problem, in_force.environment) if in_force.overlays else problem for problem in found]
    return Verification(problems=tuple(found), notes=tuple(notes(documents)))


def notes(documents: list[Document]) -> list[str]:
    """Return what people should know: image-like words that nobody pins, and executors that install packages when they start."""
    told = [f"{path}: '{word}' looks like an image; it is not pinned" for path, word in dict.fromkeys(mentions.image_like(documents))]
    return told + [
        f"{label}: runs pip when it starts: what it installs is not in the image that was scanned"
        for label in mentions.installs_packages(documents)
    ]


def _template_image(image: mentions.Image, components: Collection[str]) -> Problem | None:
    component = mentions.component_named(image.image)
    if component is None:
        return Problem(place=image.place, message=_strange(image.image))
    if component not in components:
        return Problem(place=image.place, message=f"no component '{component}'{suggestion(component, components)}")
    return None


def _strange(image: object) -> str:
    if not isinstance(image, str):
        return "the image is missing" if image is None else f"expected the name of an image, not {image!r}"
    if "{{" in image:
        return f"'{image}' is taken from a parameter: it cannot be pinned"
    if mentions.RESERVED_HOST in image:
        return f"'{image}' is no reserved reference; write component.invalid/<component>:unstamped"
    return f"'{image}' is no component of this repository"


def _stamped_image(image: mentions.Image, images: Mapping[str, str]) -> Problem | None:
    value = image.image
    if not isinstance(value, str) or "{{" in value:
        return Problem(place=image.place, message=_strange(value))
    if mentions.RESERVED_HOST in value:
        return Problem(place=image.place, message=f"'{value}' was not stamped")
    if not references.is_pinned(value):
        return Problem(place=image.place, message=f"'{value}' is not pinned by digest")
    if value not in images.values():
        return Problem(place=image.place, message=f"'{value}' is not in the lock")
    return None


def _misplaced(documents: list[Document]) -> list[Problem]:
    """A reserved reference in an argument or a default is never stamped, and can never be pulled."""
    return [
        Problem(place=path, message="a reserved reference outside an image field; only image fields are stamped")
        for path, _text in mentions.reserved_elsewhere(documents)
    ]


def _dangling(documents: list[Document]) -> list[Problem]:
    """Check what kfp itself does not: a missing component or executor shows only when a pod starts."""
    spec = documents[0]
    executors = yaml_documents.executors(documents)
    components = spec.get("components", {})
    found = [
        Problem(place=f"components.{name}", message=f"no executor '{component['executorLabel']}'")
        for name, component in components.items()
        if isinstance(component, dict) and "executorLabel" in component and component["executorLabel"] not in executors
    ]
    dags = [("root", spec["root"]), *((f"components.{name}", component) for name, component in components.items())]
    for place, dag in dags:
        for name, task in _tasks(dag):
            wanted = task.get("componentRef", {}).get("name")
            if wanted not in components:
                found.append(Problem(place=f"{place}.dag.tasks.{name}", message=f"no component '{wanted}' in this pipeline"))
    return found + _platform_labels(documents, executors)


def _tasks(component: Any) -> Iterator[tuple[str, Document]]:  # noqa: ANN401 - what the file has
    tasks = component.get("dag", {}).get("tasks", {}) if isinstance(component, dict) else {}
    yield from ((name, task) for name, task in tasks.items() if isinstance(task, dict))


def _platform_labels(documents: list[Document], executors: Collection[str]) -> list[Problem]:
    """Settings under a label that no executor has are dropped without a word."""
    platforms = documents[1].get("platforms", {}) if len(documents) > 1 else {}
    return [
        Problem(place=f"platforms.{platform}.deploymentSpec.executors.{label}", message="no such executor")
        for platform, settings in platforms.items()
        for label in settings.get("deploymentSpec", {}).get("executors", {})
        if label not in executors
    ]


def _beyond(text: str, documents: list[Document], place: str, expected_text: Callable[[], str]) -> list[Problem]:
    try:
        expected = expected_text()
    except TrainshedError as error:
        return [Problem(place=place, message=error.message)]
    if text == expected:
        return []
    where = yaml_documents.difference(yaml_documents.load(expected, place=place), documents)
    return [Problem(place=where or place, message=_DIFFERS)]


def _with_overlays(problem: Problem, environment: str) -> Problem:
    """Say which overlays were expected: a pipeline that was stamped for another environment shows here."""
    if problem.message != _DIFFERS:
        return problem
    return replace(problem, message=f"{_DIFFERS} and the overlays of the environment {environment}")
