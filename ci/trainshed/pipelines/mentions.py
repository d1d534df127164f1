"""Which components a pipeline uses, and what else in it looks like an image."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainshed import files
from trainshed.errors import problems, suggestion
from trainshed.images import references
from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines.documents import Document
from trainshed.pipelines.templates import Template

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


def of_template(template: Template) -> set[str]:
    """Return the components that a template names in its texts, and in those of the modules beside it that it imports.

    A path must be written in full to be seen: ``"components/train/component.yaml"``, or with a variable for the folder before the
    component's name. Comments and docstrings do not count.

    Raises:
        UsageError: the template is missing or not UTF-8.
    """
    found: set[str] = set()
    for _path, text in _sources(template):
        tree = _parsed(text) if template.kind == "python" else None
        if tree is None:
            found |= components_of(text)  # compiled, or wrong: the compiler says better what
        else:
            found |= {name for literal in _literals(tree) for name in components_of(literal)}
    return found


def files_of(template: Template) -> tuple[Path, ...]:
    """Return the files that make a template: its own, and the modules beside it that it imports.

    Raises:
        UsageError: one of them is not UTF-8.
    """
    return tuple(path for path, _ in _sources(template))


def _sources(template: Template) -> Iterator[tuple[Path, str]]:
    """Walk path and text of a template and of what it imports from beside it."""
    seen, waiting = set[Path](), [template.path]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        text = files.read_text(path, what="the pipeline template")
        yield path, text
        tree = _parsed(text) if template.kind == "python" else None
        if tree is not None:
            waiting += [file for name in _imported(tree) if (file := path.parent / f"{name}.py").is_file()]


def _parsed(text: str) -> ast.AST | None:
    """Return the tree of a module, None for what is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def of_templates(templates: Iterable[Template], components: Collection[str]) -> dict[str, set[str]]:
    """Return the components that each template names, by the template's name.

    Raises:
        UsageError: names that no component has, all at once, each with a suggestion; or a template cannot be read.
    """
    found, wrong = dict[str, set[str]](), list[str]()
    for template in templates:
        found[template.name] = of_template(template)
        unknown = sorted(found[template.name].difference(components))
        wrong += [f"{template.path}: no component '{name}'{suggestion(name, components)}" for name in unknown]
    if wrong:
        raise problems(wrong, next_step="Mend the templates that are named; nothing was done.")
    return found


def _literals(tree: ast.AST) -> Iterator[str]:
    """Walk the string literals, those of expression statements (docstrings) left out."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


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
