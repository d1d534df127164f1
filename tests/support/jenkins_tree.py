"""Documents as Stapler exports them: beans whose properties are seen by depth, or chosen by an expression like ``jobs[name]{0,9}``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_]+|\*")
_RANGE = re.compile(r"\{(?:(\d+)|(\d*),(\d*))\}")


class BadTree(ValueError):
    """The expression cannot be read."""


@dataclass(frozen=True)
class Bean:
    """An exported object. ``brief`` are the properties that show where it is only mentioned; ``hidden`` those that only a tree shows."""

    kind: str
    values: Mapping[str, Any | Callable[[], Any]]
    brief: Collection[str] = ("name", "url")
    hidden: Collection[str] = ()

    def value(self, name: str) -> Any:
        found = self.values[name]
        return found() if callable(found) else found


@dataclass
class Chosen:
    """What an expression chooses of one property: its own properties, and a range of a list."""

    children: dict[str, Chosen] = field(default_factory=dict)
    start: int | None = None
    end: int | None = None


def parse(expression: str) -> dict[str, Chosen]:
    """Read an expression as `TreePruner` does."""
    chosen, rest = _list(expression)
    if rest:
        raise BadTree(f"unexpected {rest!r}")
    return chosen


def _list(text: str) -> tuple[dict[str, Chosen], str]:
    chosen: dict[str, Chosen] = {}
    while True:
        name = _NAME.match(text)
        if name is None:
            raise BadTree(f"expected a name at {text!r}")
        text, node = text[name.end() :], chosen.setdefault(name[0], Chosen())
        if text.startswith("["):
            children, text = _list(text[1:])
            if not text.startswith("]"):
                raise BadTree("expected ]")
            node.children.update(children)
            text = text[1:]
        limits = _RANGE.match(text)
        if limits is not None:
            text = text[limits.end() :]
            if limits[1]:
                node.start, node.end = int(limits[1]), int(limits[1]) + 1
            else:
                node.start, node.end = int(limits[2] or 0), int(limits[3]) if limits[3] else None
        if not text.startswith(","):
            return chosen, text
        text = text[1:]


def by_tree(value: Any, chosen: Mapping[str, Chosen]) -> Any:
    """Return what an expression chooses; unknown names are passed over, as Stapler does."""
    if isinstance(value, (list, tuple)):
        return [by_tree(each, chosen) for each in value]
    if not isinstance(value, Bean):
        return value
    told: dict[str, Any] = {"_class": value.kind}
    for name in value.values:
        node = chosen.get(name) or chosen.get("*")
        if node is None:
            continue
        found = value.value(name)
        if isinstance(found, (list, tuple)) and (node.start is not None or node.end is not None):
            found = found[node.start : node.end]
        told[name] = by_tree(found, node.children)
    return told


def by_depth(value: Any, depth: int, level: int = 0) -> Any:
    """Return all of a bean, of those in it only the brief ones below ``depth``."""
    if isinstance(value, (list, tuple)):
        return [by_depth(each, depth, level) for each in value]
    if not isinstance(value, Bean):
        return value
    names = [name for name in value.values if name not in value.hidden and (level <= depth or name in value.brief)]
    return {"_class": value.kind, **{name: by_depth(value.value(name), depth, level + 1) for name in names}}


def as_python(value: Any) -> str:
    """Write a document in the flavour of ``api/python``: JSON's strings, Python's constants."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(name))}:{as_python(each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(as_python(each) for each in value) + "]"
    return json.dumps(value)
