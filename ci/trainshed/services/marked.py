"""YAML whose keys are known with their lines, so that a problem names the line to mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import yaml

from trainshed.errors import UsageError
from trainshed.files import read_text

Path = tuple[str, ...]
Places = Mapping[str, tuple[int, str]]
"""Keys, dots between their parts, each with its line and what is to be said before it: of which overlay it is."""
_MAX_BYTES = 256 * 1024
_MAX_NODES = 20_000
"""How many nodes there may be when every alias is counted with all that it stands for."""
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A mapping, and the line of each of its keys, counted from 1, by the key's path. ``doubled`` are paths given twice, with the line."""

    document: Mapping[str, Any]
    lines: Mapping[Path, int]
    doubled: tuple[tuple[Path, int], ...]


def place(places: Places, key: str) -> tuple[int, str]:
    """Return where a key stands; of one that is missing, where it would."""
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key, (1, ""))


def read(path: File, *, what: str) -> Marked:
    """Read a file that holds one YAML mapping.

    Raises:
        UsageError: it is unreadable, too large, not YAML, or no mapping; aliases stand for themselves or for far too much.
    """
    text = read_text(path, what=what)
    if len(text) > _MAX_BYTES:
        raise UsageError(f"{path}: larger than {_MAX_BYTES // 1024} KiB", next_step="Keep to the keys that are needed.")
    node = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None or not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: expected a mapping with name, port, …", next_step="See docs/reference/files.md for every key.")
        _bound(path, node)
        found = list(_keys(node, ()))
        document = loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: what looks like a date and is none
        mark = getattr(error, "problem_mark", None) or (_unread(yaml.SafeLoader(""), node) if isinstance(error, ValueError) else None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise UsageError(f"{where}: not YAML: {getattr(error, 'problem', error)}", next_step="Mend the line that is named.") from error
    lines: dict[Path, int] = {}
    doubled: list[tuple[Path, int]] = []
    for key, line in found:
        if key in lines and not any(key[: len(above)] == above for above, _ in doubled):  # what lies below is double with it
            doubled.append((key, line))
        lines[key] = line
    return Marked(document=document, lines=lines, doubled=tuple(doubled))


def _bound(path: File, node: yaml.Node) -> None:
    """Refuse aliases that stand for themselves, or that multiply: whoever walks the document would not end."""
    sizes: dict[int, int] = {}
    within: set[int] = set()

    def size(one: yaml.Node) -> int:
        if id(one) in within:
            message = f"{path}:{one.start_mark.line + 1}: the alias stands for a part of itself"
            raise UsageError(message, next_step="Write out what is meant.")
        if id(one) not in sizes:
            within.add(id(one))
            sizes[id(one)] = 1 + sum(map(size, _children(one)))
            within.discard(id(one))
        return sizes[id(one)]

    if size(node) > _MAX_NODES:
        raise UsageError(f"{path}: its aliases stand for more than {_MAX_NODES} values", next_step="Write out what is meant.")


def _unread(loader: yaml.SafeLoader, node: yaml.Node | None) -> yaml.Mark | None:
    """Return where the value stands that cannot be made of what is written."""
    if isinstance(node, yaml.ScalarNode):
        try:
            loader.construct_object(node)
        except ValueError:
            return node.start_mark
    return next(filter(None, (_unread(loader, child) for child in _children(node))), None) if node is not None else None


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _keys(node: yaml.MappingNode, within: Path) -> Iterator[tuple[Path, int]]:
    """Yield every key's path and line; what a merge key (``<<``) brings in has the line of the mapping that it is brought into."""
    for key, value in node.value:
        if key.tag == _MERGE:
            continue
        own = (*within, str(key.value))
        yield own, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, own)
