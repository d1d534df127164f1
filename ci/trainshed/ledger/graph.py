"""Lineage in the database: edges are written with the record that tells of them, and followed level by level.

A node's key is the beginning of the digest of its kind and id, so edges are small and need no look-up to be written. A fact is written
once for each tier; who looks sees those of its own tier and above, and of one that changes the newest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from trainshed.ledger import lineage
from trainshed.ledger.lineage import Edge, Graph, Node
from trainshed.ledger.tables import edges, nodes

REACH = 20_000
"""So many nodes are looked at before those are chosen that are told of."""
_FOUND_AT_MOST = 200
_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{7,64}")
_LAST = "\U0010ffff"
_FIRST_TOLD = {
    relation: rank
    for rank, relation in enumerate(
        (lineage.SERVES, lineage.RUNS, lineage.LOADS, lineage.PART, lineage.RELEASED, lineage.USES, lineage.RAN, lineage.GAVE)
    )
}

_Time = float | sa.ColumnElement[float]


def key_of(node: Node) -> int:
    """Return the key of a node: 64 bits of a digest, so that a million nodes share none."""
    return int.from_bytes(hashlib.sha256(f"{node.kind}\0{node.id}".encode()).digest()[:8], "big", signed=True)


def write(connection: sa.Connection, told: Sequence[Edge], *, tier: int, created: _Time) -> None:
    """Write edges and their nodes; what is known already is left alone, and of what changes the newest counts.

    Of the edges commit → input those are left out whose input another commit has made already.

    Rows are written in the order of their keys, so that two who write the same never wait for each other in a circle.
    """
    told = without_made(connection, told, tier=tier)
    if not told:
        return
    named = {(row["key"], row["label"]): row for edge in told for end in (edge.source, edge.target) for row in rows_of(end)}
    _insert(connection, nodes, [named[key] for key in sorted(named)], tier=tier, created=created)
    rows = {(row["source"], row["target"], row["relation"]): row for row in map(row_of, told)}
    for changing in (False, True):
        wanted = [rows[key] for key in sorted(rows) if (key[2] in lineage.CHANGING) is changing]
        _insert(connection, edges, wanted, tier=tier, created=created, replace=changing)


def write_rows(connection: sa.Connection, node_rows: Sequence[Mapping[str, Any]], edge_rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have their own tiers and times, of many records at once."""
    _insert(connection, nodes, node_rows)
    for changing in (False, True):
        _insert(connection, edges, [row for row in edge_rows if (row["relation"] in lineage.CHANGING) is changing], replace=changing)


def write_findings(  # noqa: PLR0913 - what a scan tells, and who it is told by
    connection: sa.Connection, image: Node, found: Sequence[Edge], *, whole: bool, tier: int, created: _Time
) -> None:
    """Write what a scan found in an image; what it found no more is taken back, where the scan is ``whole``."""
    now = {key_of(edge.source) for edge in found}
    gone: list[Edge] = []
    if whole:
        mine = (edges.c.target == key_of(image), edges.c.relation == lineage.FOUND, edges.c.tier == tier, edges.c.present)
        before = set(connection.execute(sa.select(edges.c.source).where(*mine)).scalars()) - now
        gone = [Edge(node, image, lineage.FOUND, present=False) for node in _nodes(connection, before, tier=tier).values()]
    write(connection, [*found, *gone], tier=tier, created=created)


def without_made(connection: sa.Connection, told: Iterable[Edge], *, tier: int) -> list[Edge]:
    """Leave those edges commit → input out whose input a commit of this tier or one above has made: the first that was green with it."""
    told = list(told)
    inputs = {key_of(edge.target) for edge in told if made(edge)}
    wanted = (_among(connection, edges.c.target, inputs), edges.c.relation == lineage.MADE, edges.c.tier >= tier)
    known = set(connection.execute(sa.select(edges.c.target).where(*wanted)).scalars()) if inputs else set()
    return [edge for edge in told if not (made(edge) and key_of(edge.target) in known)]


def walk(connection: sa.Connection, starts: Iterable[Node], *, up: bool, limit: int, tier: int) -> Graph:
    """Follow the edges from some nodes, breadth first; of too many those stay that serve, and what leads to them."""
    reached = _Reached(connection, up=up, tier=tier)
    begun = {key_of(start): start for start in starts}
    reached.follow(begun)
    kept = reached.kept(limit)
    known = _nodes(connection, kept, tier=tier)
    named = {key: known.get(key) or begun[key] for key in kept if key in known or key in begun}
    return Graph(
        starts=tuple(named[key] for key in begun),
        nodes=tuple(named.values()),
        edges=tuple(
            Edge(named[source], named[target], relation, json.loads(facts), at)
            for (source, target, relation), (at, facts) in reached.edges.items()
            if source in named and target in named
        ),
        left_out={named[key]: count for key, count in reached.missing(named).items()},
        whole=reached.whole,
    )


def find(connection: sa.Connection, text: str, *, kind: str | None, tier: int) -> list[Node]:
    """Return the nodes that a text means, of one kind if asked: by id, by name, by the beginning of a digest or commit.

    Of too many, those are left out that are told of last: years of images bear the name of the one service that runs them.
    """
    text = text.strip()
    digest = text.rpartition("@")[2] if "@sha256:" in text else text
    exact = sorted({text, digest, *_advisory(text)})
    conditions: list[sa.ColumnElement[bool]] = [nodes.c.id.in_(exact), nodes.c.label.in_(exact)]
    if _PREFIX.fullmatch(digest.lower()):
        plain = digest.lower().removeprefix("sha256:")
        begins = (f"sha256:{plain}",) if digest.lower() != plain else (plain, f"sha256:{plain}")
        conditions += [sa.and_(nodes.c.id >= each, nodes.c.id < f"{each}{_LAST}") for each in begins]
    asked = [nodes.c.tier >= tier, *([nodes.c.kind == kind] if kind is not None else [])]
    rank = sa.case({one: number for number, one in enumerate(lineage.KINDS)}, value=nodes.c.kind, else_=len(lineage.KINDS))
    keys: set[int] = set()
    for condition in conditions:  # one after the other: each is one range of an index
        wanted = sa.select(nodes.c.key).where(condition, *asked)
        keys.update(connection.execute(wanted.order_by(rank, nodes.c.created.desc()).limit(_FOUND_AT_MOST)).scalars())
    found = _nodes(connection, keys, tier=tier).values()
    return sorted(found, key=lambda node: (lineage.KINDS.index(node.kind) if node.kind in lineage.KINDS else len(lineage.KINDS), node.id))


def _advisory(text: str) -> Iterator[str]:
    """Yield how those who keep lists of weaknesses write a name of theirs, however it is written here."""
    authority, dash, rest = text.partition("-")
    if dash and authority.isalpha():
        yield f"{authority.upper()}-{rest.lower() if authority.upper() == 'GHSA' else rest.upper()}"


class _Reached:
    """What is reached from some nodes in one direction."""

    def __init__(self, connection: sa.Connection, *, up: bool, tier: int) -> None:
        self._connection, self._up, self._tier = connection, up, tier
        self._parents: dict[int, int | None] = {}
        self._ranks: dict[int, tuple[int, int]] = {}
        self.edges: dict[tuple[int, int, str], tuple[float, str]] = {}
        self.whole = True

    def follow(self, starts: Mapping[int, Node]) -> None:
        """Go on level by level until nothing is new, or too much is known."""
        self._parents = dict.fromkeys(starts)
        level, kinds, depth = list(starts), {start.kind for start in starts.values()}, 0
        while level:
            if len(self._parents) >= REACH:
                self.whole = False
                return
            followed = lineage.expands(kinds, up=self._up, start=depth == 0)
            depth += 1
            level = list(self._next(level, followed, depth)) if followed else []
            kinds = {kind for others in followed.values() for kind in others}

    def _next(self, level: Sequence[int], followed: Iterable[str], depth: int) -> Iterator[int]:
        found = self._edges_at(level, followed)
        self.edges.update(found)
        for source, target, relation in found:
            near, far = (target, source) if self._up else (source, target)
            if far not in self._parents:
                self._parents[far] = near
                told = len(_FIRST_TOLD) if self._up else _FIRST_TOLD.get(relation, len(_FIRST_TOLD))
                self._ranks[far] = (told, depth)
                yield far

    def _edges_at(self, level: Sequence[int], followed: Iterable[str]) -> dict[tuple[int, int, str], tuple[float, str]]:
        """Return the edges of a level that are present, with their times and facts (JSON), the newest first."""
        near = edges.c.target if self._up else edges.c.source
        columns = (edges.c.source, edges.c.target, edges.c.relation, edges.c.present, edges.c.created, sa.cast(edges.c.facts, sa.Text))
        at = _among(self._connection, near, level)
        wanted = sa.select(*columns).where(at, edges.c.tier >= self._tier, edges.c.relation.in_(sorted(followed)))
        found: dict[tuple[int, int, str], tuple[float, str] | None] = {}
        for source, target, relation, present, created, facts in self._connection.execute(wanted.order_by(edges.c.created.desc())).all():
            found.setdefault((source, target, relation), (created, facts) if present else None)
        return {edge: told for edge, told in found.items() if told is not None}

    def kept(self, limit: int) -> list[int]:
        """Choose the nodes that are told of, each with the way to it, nearest first."""
        if len(self._parents) <= limit:
            return list(self._parents)
        kept = {key for key, parent in self._parents.items() if parent is None}
        for key in sorted(self._ranks, key=self._ranks.__getitem__):
            way = []
            at: int | None = key
            while at is not None and at not in kept:
                way.append(at)
                at = self._parents[at]
            if len(kept) + len(way) <= limit:
                kept.update(way)
        return [key for key in self._parents if key in kept]

    def missing(self, kept: Mapping[int, Node]) -> dict[int, int]:
        """Return how many neighbours of each kept node are not kept."""
        others: dict[int, set[int]] = {}
        for source, target, _ in self.edges:
            near, far = (target, source) if self._up else (source, target)
            if near in kept and far not in kept:
                others.setdefault(near, set()).add(far)
        return {key: len(found) for key, found in others.items()}


def rows_of(node: Node) -> Iterator[dict[str, Any]]:
    """Yield a node's rows, one for each name, but for tier and time."""
    row = {"key": key_of(node), "kind": node.kind, "id": node.id}
    shown = node.label if node.label != node.id else ""
    yield {**row, "label": shown, "alias": False}
    yield from ({**row, "label": alias, "alias": True} for alias in node.aliases if alias not in {"", node.id, shown})


def row_of(edge: Edge) -> dict[str, Any]:
    """Return an edge's row, but for tier and time."""
    ends = {"source": key_of(edge.source), "target": key_of(edge.target)}
    return {**ends, "relation": edge.relation, "facts": dict(edge.facts), "present": edge.present}


def _insert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, replace: bool = False, **same: int | _Time
) -> None:
    """Add rows; ``same`` are the columns that all of them have in common."""
    if not rows:
        return
    added = _inserter(connection)(table)
    added = added.values(**same) if same else added
    if replace:
        newest = {name: added.excluded[name] for name in ("facts", "present", "created")}
        added = added.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=newest)
    else:
        added = added.on_conflict_do_nothing()
    connection.execute(added, rows)


def _inserter(connection: sa.Connection) -> Callable[[sa.Table], Any]:
    if connection.dialect.name == "sqlite":
        return sqlite_insert
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # slow to import, and SQLite is the default

    return postgresql_insert


def _nodes(connection: sa.Connection, keys: Iterable[int], *, tier: int) -> dict[int, Node]:
    """Return the nodes of some keys, in their order; the newest name is the one that is shown."""
    rows: dict[int, list[Any]] = {key: [] for key in keys}
    wanted = sa.select(nodes.c.key, nodes.c.kind, nodes.c.id, nodes.c.label, nodes.c.alias)
    wanted = wanted.where(_among(connection, nodes.c.key, rows), nodes.c.tier >= tier).order_by(nodes.c.created.desc())
    for row in connection.execute(wanted) if rows else ():
        rows[row.key].append(row)
    return {key: _node(found) for key, found in rows.items() if found}


def _node(rows: Sequence[Any]) -> Node:
    label = next((row.label for row in rows if row.label and not row.alias), "")
    others = dict.fromkeys(row.label for row in rows if row.label and row.label != label)
    return Node(rows[0].kind, rows[0].id, label or rows[0].id, tuple(others))


def _among(connection: sa.Connection, column: sa.Column[int], keys: Iterable[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a column is one of many keys, as one parameter: thousands of them take longer than the look-up."""
    if connection.dialect.name == "sqlite":
        return column.in_(sa.select(sa.column("value")).select_from(sa.func.json_each(json.dumps(sorted(keys)))))
    return column == sa.any_(sa.literal(sorted(keys), sa.ARRAY(sa.BigInteger)))


def made(edge: Edge) -> bool:
    """Tell whether an edge leads from a commit to the input that it made."""
    return edge.relation == lineage.MADE and edge.target.kind == lineage.INPUT
