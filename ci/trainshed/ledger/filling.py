"""The lineage of the records that stand already: what a ledger's first step to it has to catch up with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from trainshed.ledger import graph, lineage
from trainshed.ledger.lineage import IMAGE, SCAN, Edge, Node
from trainshed.ledger.tables import events, images, locks, verdicts

_AT_ONCE = 500


def fill(connection: sa.Connection) -> None:
    """Project all records, the oldest first: as if each had been written with its lineage."""
    known: set[int] = set()
    for table, project in ((images, _of_image), (locks, _of_lock), (events, _of_event)):
        for rows in _batches(connection, table):
            _write(connection, rows, project, known)
    for rows in _batches(connection, verdicts, verdicts.c.check_name == SCAN):
        for row in rows:
            found = lineage.edges_of_verdict(row.digest, row.check_name, row.component, row.details)
            image = Node(IMAGE, row.digest, row.component)
            whole = lineage.complete(row.details)
            graph.write_findings(connection, image, found or [], whole=whole, tier=row.tier, created=row.created)


def _batches(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> Iterator[list[Any]]:
    last = 0
    while rows := list(connection.execute(sa.select(table).where(table.c.id > last, *conditions).order_by(table.c.id).limit(_AT_ONCE))):
        yield rows
        last = rows[-1].id


def _write(connection: sa.Connection, rows: list[Any], project: Callable[[Any], list[Edge]], known: set[int]) -> None:
    """Write the edges of some records at once; one that was written before is not even tried, unless its facts may be newer."""
    nodes: dict[tuple[int, str, int], dict[str, Any]] = {}
    edges: dict[tuple[Edge, int], dict[str, Any]] = {}
    for row in rows:
        same = {"tier": row.tier, "created": row.created}
        told = []
        for edge in project(row):
            mark = hash((edge, row.tier))
            if edge.relation in lineage.CHANGING or mark not in known:
                known.add(mark)
                told.append(edge)
        made = any(map(graph.made, told))
        for edge in graph.without_made(connection, told, tier=row.tier) if made else told:
            edges[edge, row.tier] = {**graph.row_of(edge), **same}
            for named in (*graph.rows_of(edge.source), *graph.rows_of(edge.target)):
                nodes.setdefault((named["key"], named["label"], row.tier), {**named, **same})
        if made:  # the next one's inputs may be this one's
            graph.write_rows(connection, list(nodes.values()), list(edges.values()))
            nodes, edges = {}, {}
    graph.write_rows(connection, list(nodes.values()), list(edges.values()))


def _of_image(row: Any) -> list[Edge]:  # noqa: ANN401 - a row
    return lineage.edges_of_image(row.component, row.input_digest, row.digest, row.manifest)


def _of_lock(row: Any) -> list[Edge]:  # noqa: ANN401 - a row
    return lineage.edges_of_lock(row.document)


def _of_event(row: Any) -> list[Edge]:  # noqa: ANN401 - a row
    return lineage.edges_of_event(row.kind, row.environment, row.name, row.key, row.document)
