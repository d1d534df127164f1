"""Which components a pipeline uses, and what else in it looks like an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainshed.images import references
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines.documents import Document

RESERVED_HOST = f"{references.RESERVED_HOST}/"
_NAME = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_RESERVED = re.compile(rf"\bcomponent\.invalid/({_NAME}):unstamped\b")
_FILE = re.compile(rf"(?<![\w.-])({_NAME})/component\.yaml\b")
_SEPARATOR = re.compile(r"[\s,;=\"'()\[\]{}|<>]+")
_TAGGED = re.compile(r"(?P<path>(?:[a-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*):(?P<tag>\w[\w.-]{0,127})")
_DIGEST = re.compile(r"[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"latest|main|stable|v?\d[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image of one executor, as the document has it: any YAML value, None where the key is missing."""

    executor: str
    image: object

    @property
    def place(self) -> str:
        """Return the path of the field."""
        return f"deploymentSpec.executors.{self.executor}.container.image"


def components_of(text: str) -> set[str]:
    """Return the components that a text names: by reserved reference, or by the path of a ``component.yaml``.

    The text is any of a Python template, a component file and a compiled pipeline; nothing is run.
    """
    return set(_RESERVED.findall(text)) | set(_FILE.findall(text))


def images(documents: list[Document]) -> list[Image]:
    """Return the image of every container, sorted by executor."""
    table = yaml_documents.containers(documents)
    return [Image(executor=label, image=table[label].get("image")) for label in sorted(table)]


def reserved_elsewhere(documents: list[Document]) -> list[tuple[str, str]]:
    """Return path and text of every string outside the image fields that holds a reserved reference: nothing stamps these."""
    fields = {image.place for image in images(documents)}
    found = [item for document in documents for item in yaml_documents.strings(document)]
    return [(path, text) for path, text in found if RESERVED_HOST in text and path not in fields]


def image_like(documents: list[Document]) -> list[tuple[str, str]]:
    """Return path and word of everything outside the image fields that reads as an image: nobody pins these."""
    fields = {image.place for image in images(documents)}
    found = [item for document in documents for item in yaml_documents.strings(document)]
    return [(path, word) for path, text in found if path not in fields for word in _SEPARATOR.split(text) if _looks_like_image(word)]


def installs_packages(documents: list[Document]) -> list[str]:
    """Return the executors that run pip when they start, as kfp's ``packages_to_install`` makes them do."""
    found = []
    for label, container in yaml_documents.containers(documents).items():
        words = [text for _path, text in yaml_documents.strings([container.get("command"), container.get("args")])]
        if any("pip install" in text for text in words):
            found.append(label)
    return sorted(found)


def component_named(image: object) -> str | None:
    """Return the component that an image field names by reserved reference, None for any other value."""
    return references.component_of(image) if isinstance(image, str) else None


def _looks_like_image(word: str) -> bool:
    if "://" in word or RESERVED_HOST in word:
        return False
    if _DIGEST.fullmatch(word):
        return True
    match = _TAGGED.fullmatch(word)
    if match is None or re.fullmatch(r"[\d.]+|localhost", match["path"]):  # an address with its port
        return False
    return "/" in match["path"] or _VERSION.fullmatch(match["tag"]) is not None
