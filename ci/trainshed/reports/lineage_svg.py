"""A lineage as a picture: SVG in one piece, columns by kind from cause (left) to effect (right). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from trainshed.ledger.lineage import Edge, Node
from trainshed.reports.lineage import Lineage, Thing, rank

_WIDTH, _HEIGHT = 230, 46
_GAP_X, _GAP_Y = 90, 16
_MARGIN, _HEAD = 24, 34
_TITLE, _NOTE = 26, 34
"""How many characters a box has room for, in its two sizes of letters."""
_SWEEPS = 4
_PER_COLUMN = 60
"""A kind with more things than this takes another column beside its own."""
_COLOURS = {
    "commit": "#e8eaf6",
    "build": "#eceff1",
    "component": "#eceff1",
    "input": "#e3f2fd",
    "finding": "#ffebee",
    "image": "#e0f7fa",
    "lock": "#e0f2f1",
    "pipeline": "#f1f8e9",
    "version": "#f1f8e9",
    "data": "#fffde7",
    "run": "#fff8e1",
    "model": "#fff3e0",
    "revision": "#fbe9e7",
    "service": "#f3e5f5",
    "release": "#ede7f6",
}
_STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#212121}.head{font-size:13px;font-weight:600;fill:#616161}"
    ".title{font-size:12.5px;font-weight:600}.note{font-size:10.5px;fill:#616161}"
    "rect.box{stroke:#90a4ae;stroke-width:1}rect.start{stroke:#d84315;stroke-width:2.5}path{fill:none;stroke:#78909c;stroke-width:1.2}"
)
_HEADS_OF_ARROWS = (
    '<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<polygon points="0,0 8,4 0,8" fill="#78909c"/></marker></defs>'
)
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Place:
    x: int
    y: int


def svg(lineage: Lineage) -> str:
    """Return the picture."""
    columns = _columns(lineage)
    places = _places(columns)
    width = 2 * _MARGIN + len(columns) * _WIDTH + (len(columns) - 1) * _GAP_X if columns else 2 * _MARGIN
    height = 2 * _MARGIN + _HEAD + max((len(column) for column in columns), default=0) * (_HEIGHT + _GAP_Y)
    starts = ", ".join(lineage.things[node].title for node in lineage.starts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{_text(f'Lineage of {starts}')}</title>",
        f"<style>{_STYLE}</style>",
        _HEADS_OF_ARROWS,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_heads(columns),
        *(_arrow(edge, places, lineage.things) for edge in lineage.edges if edge.source in places and edge.target in places),
        *(_box(thing, places[thing.node], start=thing.node in lineage.starts) for column in columns for thing in column),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _columns(lineage: Lineage) -> list[list[Thing]]:
    """Part the things by kind, and order each column so that arrows are short: by the mean height of the neighbours, to and fro."""
    by_kind: dict[int, list[Thing]] = {}
    for thing in lineage.ordered():
        by_kind.setdefault(rank(thing.node.kind), []).append(thing)
    columns = [by_kind[kind] for kind in sorted(by_kind)]
    near: dict[Node, list[Node]] = {}
    for edge in lineage.edges:
        near.setdefault(edge.source, []).append(edge.target)
        near.setdefault(edge.target, []).append(edge.source)
    for sweep in range(_SWEEPS):
        heights = {thing.node: index / len(column) for column in columns for index, thing in enumerate(column)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            column.sort(key=lambda thing: _mean(near.get(thing.node, ()), heights, heights[thing.node]))
            heights |= {thing.node: index / len(column) for index, thing in enumerate(column)}
    return [part for column in columns for part in _parted(column)]


def _mean(nodes: list[Node] | tuple[Node, ...], heights: Mapping[Node, float], own: float) -> float:
    known = [heights[node] for node in nodes if node in heights]
    return sum(known) / len(known) if known else own


def _parted(column: list[Thing]) -> list[list[Thing]]:
    return [column[start : start + _PER_COLUMN] for start in range(0, len(column), _PER_COLUMN)]


def _places(columns: list[list[Thing]]) -> dict[Node, _Place]:
    highest = max((len(column) for column in columns), default=0)
    return {
        thing.node: _Place(
            x=_MARGIN + number * (_WIDTH + _GAP_X),
            y=_MARGIN + _HEAD + index * (_HEIGHT + _GAP_Y) + (highest - len(column)) * (_HEIGHT + _GAP_Y) // 2,
        )
        for number, column in enumerate(columns)
        for index, thing in enumerate(column)
    }


def _heads(columns: list[list[Thing]]) -> list[str]:
    return [
        f'<text class="head" x="{_MARGIN + number * (_WIDTH + _GAP_X)}" y="{_MARGIN + 14}">{_text(column[0].node.kind)}</text>'
        for number, column in enumerate(columns)
    ]


def _box(thing: Thing, place: _Place, *, start: bool) -> str:
    told = "\n".join([thing.title, thing.node.id, *filter(None, [thing.note]), *thing.lines])
    colour = _COLOURS.get(thing.node.kind, "#fafafa")
    return (
        f'<g><title>{_text(told)}</title><rect class="box{" start" if start else ""}" x="{place.x}" y="{place.y}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" rx="6" fill="{colour}"/>'
        f'<text class="title" x="{place.x + 10}" y="{place.y + 19}">{_text(_short(thing.label, _TITLE))}</text>'
        f'<text class="note" x="{place.x + 10}" y="{place.y + 36}">{_text(_short(thing.note, _NOTE))}</text></g>'
    )


def _arrow(edge: Edge, places: Mapping[Node, _Place], things: Mapping[Node, Thing]) -> str:
    """Draw from the source's right side to the target's left one; back, where an effect stands further left; around, in one column."""
    source, target = places[edge.source], places[edge.target]
    if source.x < target.x:
        x1, x2, bend1, bend2 = source.x + _WIDTH, target.x, _GAP_X // 2, -_GAP_X // 2
    elif source.x > target.x:
        x1, x2, bend1, bend2 = source.x, target.x + _WIDTH, -_GAP_X // 2, _GAP_X // 2
    else:
        x1 = x2 = source.x + _WIDTH
        bend1 = bend2 = _GAP_X // 2
    y1, y2 = source.y + _HEIGHT // 2, target.y + _HEIGHT // 2
    told = f"{things[edge.source].title} → {things[edge.target].title}" + (f": {edge.relation}" if edge.relation else "")
    curve = f"M{x1},{y1} C{x1 + bend1},{y1} {x2 + bend2},{y2} {x2},{y2}"
    return f'<path d="{curve}" marker-end="url(#to)"><title>{_text(told)}</title></path>'


def _short(text: str, room: int) -> str:
    """Cut the middle out: what tells digests and addresses apart is at their ends."""
    flat = " ".join(text.split())
    return flat if len(flat) <= room else f"{flat[: room // 3]}…{flat[len(flat) - (room - room // 3 - 1) :]}"


def _text(text: str) -> str:
    """Escape for XML, without the characters that it cannot hold or that turn the direction of writing."""
    return escape(_UNPRINTABLE.sub("\ufffd", text))
