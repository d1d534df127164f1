"""What a trace shows: nodes and edges of the ledger's lineage, with what is known of each; tree, picture and JSON are its views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.ledger.lineage import Edge, Node

FLOW = (
    "commit",
    "build",
    "component",
    "input",
    "finding",
    "image",
    "lock",
    "pipeline",
    "version",
    "data",
    "run",
    "model",
    "revision",
    "service",
    "release",
)
"""The kinds in the order in which one leads to another."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What is known of a node.

    ``note`` says in a few words how it is, since when and by whom; ``lines`` say more; ``facts`` are for programs. ``at`` is when it
    came about, in seconds since 1970, 0 where nobody knows; ``hidden`` counts its neighbours that are not shown.
    """

    node: Node
    note: str = ""
    lines: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0
    hidden: int = 0

    @property
    def label(self) -> str:
        """Return what people call it."""
        return self.node.label or self.node.id

    @property
    def title(self) -> str:
        """Return its kind and its label."""
        return f"{self.node.kind} {self.label}"


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What was found of ``starts``: ``up`` are the edges that lead to them, ``down`` those that lead away; ``cut``: there is more."""

    starts: tuple[Node, ...]
    things: Mapping[Node, Thing]
    up: tuple[Edge, ...] = ()
    down: tuple[Edge, ...] = ()
    cut: bool = False

    @property
    def edges(self) -> list[Edge]:
        """Return all edges, each once, in a stable order."""
        return sorted({*self.up, *self.down}, key=lambda edge: (_place(edge.source), _place(edge.target), edge.relation))

    @property
    def serving(self) -> list[Thing] | None:
        """Return the revisions among the starts and what came of them that serve now, as the ledger believes; None where none ever did."""
        reached = {*self.starts, *(edge.target for edge in self.down)}
        revisions = [thing for thing in self.ordered() if thing.node in reached and "believed" in thing.facts]
        return [thing for thing in revisions if thing.facts["believed"]] if revisions else None

    def through(self, node: Node) -> list[str]:
        """Return the kinds of what led down to a node: a revision may run what was traced, or load a model that came of it."""
        return sorted({edge.source.kind for edge in self.down if edge.target == node})

    def ordered(self) -> list[Thing]:
        """Return all things in a stable order: by kind, the newest first."""
        return in_order(self.things.values())

    def document(self) -> dict[str, Any]:
        """Return it for programs; a node is named by ``kind`` and ``id``."""
        return {
            "starts": [_named(node) for node in self.starts],
            "nodes": [_told(thing) for thing in self.ordered()],
            "edges": [
                {"source": _named(edge.source), "target": _named(edge.target), "relation": edge.relation, "facts": dict(edge.facts)}
                for edge in self.edges
            ],
            "serving": [self._serves(thing) for thing in self.serving or ()],
            "cut": self.cut,
        }

    def _serves(self, thing: Thing) -> dict[str, Any]:
        told = {key: thing.facts.get(key) for key in ("service", "environment")}
        return {"revision": _named(thing.node), **told, "through": self.through(thing.node)}


def in_order(things: Iterable[Thing]) -> list[Thing]:
    """Sort things by kind, the newest first."""
    return sorted(things, key=lambda thing: (rank(thing.node.kind), -thing.at, thing.label, thing.node.id))


def rank(kind: str) -> int:
    """Return the place of a kind in `FLOW`; what is not known stands behind them."""
    return FLOW.index(kind) if kind in FLOW else len(FLOW)


def _place(node: Node) -> tuple[int, str, str]:
    return (rank(node.kind), node.kind, node.id)


def _named(node: Node) -> dict[str, str]:
    return {"kind": node.kind, "id": node.id}


def _told(thing: Thing) -> dict[str, Any]:
    told = {**_named(thing.node), "label": thing.label, "note": thing.note, "facts": dict(thing.facts)}
    return {**told, **({"hidden": thing.hidden} if thing.hidden else {})}
