"""``trainshed trace``: from any thing of the ledger's lineage to what made it and to what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainshed import files
from trainshed.errors import UsageError
from trainshed.ledger.lineage import Graph, Node
from trainshed.reports.lineage import Lineage, Thing
from trainshed.reports.lineage_svg import svg
from trainshed.reports.lineage_tree import tree
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.tracing import finding
from trainshed.stages.tracing.details import described

STAGE = "trace"
_LIMIT = 200
_UP, _DOWN = "up", "down"


def trace(
    context: Context, names: Sequence[str] = (), *, direction: str | None = None, picture: Path | None = None, limit: int | None = None
) -> Report:
    """Follow things both ways; show a tree, and draw a picture where one is asked for.

    Args:
        context: the command's room.
        names: what to trace: see `finding.KINDS`.
        direction: ``up`` (what made it), ``down`` (what came of it) or ``both``, the default.
        picture: the file of the picture, SVG.
        limit: so many things are shown at most, 200 by default.

    Raises:
        UsageError: nothing is named, the ledger does not know it, or the name may mean too much.
    """
    _require(context, names, picture, limit)
    starts = list(dict.fromkeys(node for name in names for node in finding.found(context, name)))
    found = _followed(context, starts, direction or "both", limit or _LIMIT)
    context.console.heading("lineage")
    for line in tree(found):
        context.console.line(line)
    if found.serving is not None:
        context.console.line(
            f"serves now, as the ledger believes: {', '.join(_told(found, each) for each in found.serving) or 'nothing of it'}"
        )
    if found.cut:
        context.console.line(f"not all is shown: {len(found.things)} things are; --limit N shows more, --direction follows one way only")
    drawn = {}
    if picture is not None:
        _draw(picture, context.console.mask(svg(found)))
        context.console.line(f"picture: {picture}")
        drawn = {"picture": str(picture)}
    results = tuple(_result(found, node) for node in found.starts)
    return Report(stage=STAGE, results=results, extra={**found.document(), **drawn})


def _require(context: Context, names: Sequence[str], picture: Path | None, limit: int | None) -> None:
    if not names:
        raise UsageError("nothing is named to trace", next_step=f"Name {finding.KINDS}.")
    if picture is not None and picture.suffix != ".svg":
        raise UsageError(f"--picture {picture}: the picture is SVG", next_step="Give it a name that ends in .svg.")
    if limit is not None and limit < len(names):
        raise UsageError(f"--limit {limit}: too few for what is named", next_step="Give more, or leave it away.")
    if not context.has_ledger:
        raise UsageError("there is no ledger yet: nothing was ever recorded here", next_step="Run `trainshed images`, or name ledger.url.")


def _followed(context: Context, starts: Sequence[Node], direction: str, limit: int) -> Lineage:
    """Ask both directions for as much as is shown; where both have too much, each gets half of it."""
    up = _asked(context, starts, direction, _UP, limit)
    down = _asked(context, starts, direction, _DOWN, limit)
    if up is not None and down is not None and len(up.nodes) + len(down.nodes) - len(starts) > limit:
        half = limit // 2
        if len(up.nodes) > half:
            up = _asked(context, starts, direction, _UP, max(half, limit - len(down.nodes), len(starts)))
        down = _asked(context, starts, direction, _DOWN, max(limit - len(up.nodes if up is not None else ()) + len(starts), len(starts)))
    return described(context, starts, up=up, down=down)


def _asked(context: Context, starts: Sequence[Node], direction: str, way: str, limit: int) -> Graph | None:
    if direction not in {"both", way}:
        return None
    return context.ledger.lineage(starts, up=way == _UP, limit=limit)


def _draw(picture: Path, drawn: str) -> None:
    try:
        files.write_text(picture, drawn)
    except OSError as error:
        raise UsageError(
            f"{picture}: cannot be written: {error.strerror}", next_step="Name a file in a folder that you may write."
        ) from error


def _told(found: Lineage, serving: Thing) -> str:
    through = " and ".join(found.through(serving.node))
    return f"{serving.facts['service']} of {serving.facts['environment']} ({serving.label}{f', through its {through}' if through else ''})"


def _result(found: Lineage, node: Node) -> Result:
    thing = found.things[node]
    causes, effects = ({edge.source for edge in found.up}, {edge.target for edge in found.down})
    told = {"kind": node.kind, "id": node.id, "causes": len(causes - {node}), "effects": len(effects - {node})}
    return Result(name=thing.title, stage=STAGE, status=Status.DONE, cause=thing.note, details=told)
