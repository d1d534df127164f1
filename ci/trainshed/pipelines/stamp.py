"""Stamp: write the lock's images into a compiled pipeline, and touch nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from trainshed.errors import problems, suggestion
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions


def stamp(text: str, images: Mapping[str, str], *, place: str) -> str:
    """Return a compiled pipeline in which every reserved reference in an image field is the component's own image.

    Images are found by reference and never by an executor's label, which shifts when tasks are added.

    Args:
        text: the compiled pipeline.
        images: component → ``repository@sha256:…``.
        place: what to call the pipeline in errors.

    Raises:
        UsageError: it is no compiled pipeline, or names a component that has no image.
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
    return yaml_documents.dump(header, documents)
