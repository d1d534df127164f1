"""A lineage as the lines of a tree: what each start is, what made it, and what came of it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from trainshed.ledger.lineage import Edge, Node
from trainshed.reports.lineage import Lineage, Thing, in_order

_HEADINGS = {True: "what made it", False: "what came of it"}
_AGAIN = "(shown elsewhere here)"
_TEE, _END, _BAR, _BLANK = "├─ ", "└─ ", "│  ", "   "


def tree(lineage: Lineage) -> list[str]:
    """Return the lines. A thing that several edges lead to is told once, at its place nearest to the start, and referred to elsewhere."""
    told: set[Node] = set(lineage.starts)
    lines: list[str] = []
    for thing in in_order(lineage.things[node] for node in lineage.starts):
        lines += [*([""] if lines else []), _head(thing), *(f"  {line}" for line in thing.lines)]
        for up, edges in ((True, lineage.up), (False, lineage.down)):
            below = _Below(lineage, edges, up=up)
            if below.of(thing.node):
                lines += [f"{_HEADINGS[up]}:", *below.lines(thing.node, told)]
    return lines


def _head(thing: Thing) -> str:
    return f"{thing.title}  {thing.note}" if thing.note else thing.title


class _Below:
    """One direction of a lineage."""

    def __init__(self, lineage: Lineage, edges: Sequence[Edge], *, up: bool) -> None:
        self._things, self._up = lineage.things, up
        self._edges: dict[Node, list[Edge]] = {}
        for edge in edges:
            self._edges.setdefault(edge.target if up else edge.source, []).append(edge)

    def of(self, node: Node) -> list[tuple[Thing, str]]:
        """Return what hangs on a thing, each once, with how: several relations to the same thing are told side by side."""
        relations: dict[Node, list[str]] = {}
        for edge in self._edges.get(node, ()):
            other = edge.source if self._up else edge.target
            relations.setdefault(other, []).append(edge.relation)
        found = in_order(self._things[other] for other in relations if other in self._things)
        return [(thing, ", ".join(sorted({*relations[thing.node]} - {""}))) for thing in found]

    def lines(self, start: Node, told: set[Node]) -> Iterator[str]:
        """Yield the lines below a start, depth first; no recursion, for a chain may be long."""
        owners = self._owners(start)
        waiting: list[tuple[Thing, str, str, Node, bool]] = []
        self._push(waiting, start, "")
        while waiting:
            thing, how, indent, parent, last = waiting.pop()
            branch, further = (_END, _BLANK) if last else (_TEE, _BAR)
            own = thing.node not in told and owners.get(thing.node) == parent
            named = f"{_head(thing) if own else thing.title}{f'  [{how}]' if how else ''}"
            if not own:
                yield f"{indent}{branch}{named}  {_AGAIN}"
                continue
            told.add(thing.node)
            yield f"{indent}{branch}{named}"
            trunk = _BAR if self.of(thing.node) else _BLANK
            for line in (*thing.lines, *([f"… and {thing.hidden} more that are not shown"] if thing.hidden else [])):
                yield f"{indent}{further}{trunk}{line}"
            self._push(waiting, thing.node, indent + further)

    def _push(self, waiting: list[tuple[Thing, str, str, Node, bool]], node: Node, indent: str) -> None:
        children = self.of(node)
        waiting += [(thing, how, indent, node, index == len(children) - 1) for index, (thing, how) in enumerate(children)][::-1]

    def _owners(self, start: Node) -> dict[Node, Node]:
        """Return for each thing the neighbour under which it is told: the nearest to the start."""
        owners: dict[Node, Node] = {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for thing, _ in self.of(node):
                if thing.node not in owners and thing.node != start:
                    owners[thing.node] = node
                    queue.append(thing.node)
        return owners
