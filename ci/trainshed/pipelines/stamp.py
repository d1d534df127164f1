"""Stamp: write the lock's images and the environment's overlays into a compiled pipeline, and touch nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainshed.errors import problems, suggestion
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions, overlays
from trainshed.pipelines.overlays import Change, InForce


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """A stamped pipeline, and what the overlays changed in it."""

    text: str
    changes: tuple[Change, ...] = ()


def stamp(text: str, images: Mapping[str, str], *, place: str, in_force: InForce = overlays.NONE) -> str:
    """Return the text of a stamped pipeline; see `stamped`."""
    return stamped(text, images, place=place, in_force=in_force).text


def stamped(text: str, images: Mapping[str, str], *, place: str, in_force: InForce = overlays.NONE) -> Stamped:
    """Stamp a compiled pipeline: every reserved reference in an image field becomes the component's own image.

    Images are found by reference and never by an executor's label, which shifts when tasks are added. Without overlays, nothing but
    the lines of the images differs from what was given.

    Args:
        text: the compiled pipeline.
        images: component → ``repository@sha256:…``.
        place: what to call the pipeline in errors.
        in_force: its overlays, and the environment.

    Raises:
        UsageError: it is no compiled pipeline, or names a component that has no image; an overlay is wrong.
    """
    header, _rest = yaml_documents.split_header(text)
    documents = yaml_documents.load(text, place=place)
    wrong = []
    for label, container in sorted(yaml_documents.containers(documents).items()):
        component = mentions.component_named(container.get("image"))
        if component is None:
            continue
        if component not in images:
            wrong.append(f"{place}: {label} names the component '{component}', which is not in the lock{suggestion(component, images)}")
            continue
        container["image"] = images[component]
    if wrong:
        raise problems(wrong, next_step="Run `trainshed images`, or mend the name in the template.")
    made = overlays.applied(documents, in_force.overlays, environment=in_force.environment, place=in_force.place)
    return Stamped(text=yaml_documents.dump(header, made.documents), changes=made.changes)
