"""Compiled pipelines as YAML documents: read within bounds, written back as kfp writes them.

A compiled pipeline is a header of ``#`` lines, the pipeline's specification and, where settings of a platform are made, a second
document with these. What is loaded and dumped unchanged comes back byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from trainshed.errors import UsageError

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 100
# In C where PyYAML was built with it; a safe one either way.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Document = dict[str, Any]
"""One YAML document: a mapping."""


def load(text: str, *, place: str) -> list[Document]:
    """Read the documents of a compiled pipeline.

    Size, depth and aliases are bounded before anything is built: brackets and aliases can make a small file take minutes.

    Args:
        text: the file's content.
        place: what to call the file in errors.

    Returns:
        The specification, and the platform's document where there is one.

    Raises:
        UsageError: it is no compiled pipeline.
    """
    try:
        bound(text, place)
        documents = list(yaml.load_all(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        raise _wrong(f"{place}{_line_of(error)}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{place}: not YAML: {error}") from error
    _check(documents, place)
    return documents


def dump(header: str, documents: list[Document]) -> str:
    """Write documents as kfp does: block style, keys sorted, lines wrapped alike."""
    return header + yaml.safe_dump_all(documents, sort_keys=True)


def split_header(text: str) -> tuple[str, str]:
    """Split off the leading ``#`` lines, which YAML does not keep."""
    lines = text.splitlines(keepends=True)
    count = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:count]), "".join(lines[count:])


def pipeline_name(documents: list[Document]) -> str:
    """Return the pipeline's own name, by which Kubeflow knows it."""
    return str(documents[0]["pipelineInfo"]["name"])


def executors(documents: list[Document]) -> dict[str, Document]:
    """Return the executors of a specification by label: those of nested pipelines stand in the same table."""
    table = documents[0].get("deploymentSpec", {}).get("executors", {})
    return {label: executor for label, executor in table.items() if isinstance(executor, dict)}


def containers(documents: list[Document]) -> dict[str, Document]:
    """Return the containers by executor label; an importer or resolver has none."""
    found = {label: executor.get("container") for label, executor in executors(documents).items()}
    return {label: container for label, container in found.items() if isinstance(container, dict)}


def strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any YAML value
    """Walk all strings, keys included, each with its path (``root.dag.tasks.train``)."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            if isinstance(key, str):
                yield here, key
            yield from strings(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, f"{path}[{index}]")


def difference(left: list[Document], right: list[Document]) -> str:
    """Return the path of the first difference of two pipelines, an empty text when they say the same."""
    return _difference(_both(left), _both(right), "")


def bound(text: str, place: str) -> None:
    """Refuse YAML that is large, deep or has aliases, before anything is built of it.

    Raises:
        UsageError: it is so.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise _wrong(f"{place}: larger than {MAX_BYTES // 1024 // 1024} MiB")
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(f"{place}{_line(event.start_mark)}: an alias, which is not taken here")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _wrong(f"{place}{_line(event.start_mark)}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check(documents: list[Any], place: str) -> None:
    if not 1 <= len(documents) <= 2:  # noqa: PLR2004 - the specification and the platform's document
        raise _wrong(f"{place}: {len(documents)} YAML documents; a compiled pipeline has one, or two with platform settings")
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, dict):
            raise _wrong(f"{place}: document {number} is not a mapping")
    spec = documents[0]
    info, deployment, root = (spec.get(key) for key in ("pipelineInfo", "deploymentSpec", "root"))
    if not isinstance(info, dict) or not isinstance(info.get("name"), str) or not info["name"]:
        raise _wrong(f"{place}: no compiled pipeline: pipelineInfo.name is missing")
    if not isinstance(root, dict):
        raise _wrong(f"{place}: no compiled pipeline: root is missing")
    if not isinstance(deployment, dict) or not isinstance(deployment.get("executors", {}), dict):
        raise _wrong(f"{place}: no compiled pipeline: deploymentSpec.executors is missing")


def _wrong(message: str) -> UsageError:
    return UsageError(message, next_step="Compile the pipeline with kfp 2 and use its output as it is.")


def _line_of(error: yaml.YAMLError) -> str:
    return _line(getattr(error, "problem_mark", None))


def _line(mark: Any) -> str:  # noqa: ANN401 - PyYAML has two classes of marks
    return f":{mark.line + 1}" if mark is not None else ""


def _both(documents: list[Document]) -> list[Document]:
    """Return two documents, so that one that is missing is told by what it would hold."""
    return [*documents, {}][: max(2, len(documents))]


def _difference(left: Any, right: Any, path: str) -> str:  # noqa: ANN401 - any YAML value
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = [(f"{path}.{key}" if path else str(key), left.get(key), right.get(key)) for key in sorted({*left, *right}, key=str)]
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = [(f"{path}[{index}]" if path else "", *both) for index, both in enumerate(zip(left, right, strict=True))]
    else:
        return "" if left == right and type(left) is type(right) else path
    return next((where for here, one, other in pairs if (where := _difference(one, other, here))), "")
