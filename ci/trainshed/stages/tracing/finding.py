"""Which things of the ledger's lineage are meant by what people write: a name, a digest, a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed import files
from trainshed.console import counted
from trainshed.errors import UsageError, suggestion
from trainshed.images.components import discover
from trainshed.ledger import lineage
from trainshed.ledger.lineage import Edge, Node
from trainshed.pipelines import templates
from trainshed.stages.context import Context
from trainshed.stages.tracing import mentions
from trainshed.stages.tracing.mentions import Answered

if TYPE_CHECKING:
    from trainshed.ledger.store import Ledger

KINDS = (
    "a commit, an input digest, an image (digest, reference or component), a CVE, a lock's digest, a pipeline or version, a run, "
    "a data address, a model (checksum or address), a revision, a service, a release, or a JSON file with a service's answer"
)
_MOST = 6
_LISTED = 20
_NEIGHBOURS = 1000
_HEX = frozenset("0123456789abcdef")
_SHA256 = 64
_NAMES = (lineage.SERVICE, lineage.PIPELINE, lineage.COMPONENT)
"""Kinds that people name in a word; of what else has that word for a label (the images of a component) they are the one that is meant."""
_IN_PLACES = frozenset({lineage.SERVICE, lineage.PIPELINE})


def found(context: Context, text: str) -> list[Node]:
    """Return what is meant by a word of the command line, never nothing.

    Raises:
        UsageError: nothing is known of it, too much is, or a file names nothing.
    """
    path = Path(text)
    as_file = path.suffix == ".json"
    if (as_file or "/" in text) and os.path.isfile(path):  # noqa: PTH113 - unlike pathlib's, it bears with any text
        return _of_file(context, path)
    nodes = named(context, text)
    if not nodes and as_file and "://" not in text:
        return _of_file(context, path)  # which tells that it is missing
    if not nodes:
        message = f"'{text}' is not known to the ledger{suggestion(text.rpartition(':')[2], _near(context))}"
        raise UsageError(message, next_step=f"Name {KINDS}.")
    if len(nodes) > _MOST:
        listed = [f"  {node.kind}:{node.id}  {node.label}" for node in nodes[:_LISTED]]
        more = [f"  … and {len(nodes) - _LISTED} more"] if len(nodes) > _LISTED else []
        message = "\n".join([f"'{text}' may be any of {counted(nodes, 'thing')}:", *listed, *more])
        raise UsageError(message, next_step="Name one of them, as it stands here.")
    return nodes


def named(context: Context, text: str) -> list[Node]:
    """Return what a name may mean. ``KIND:NAME`` asks for one kind; of names that stand in several environments the one in force wins."""
    ledger = context.ledger
    kind, _, rest = text.partition(":")
    own = _looked_up(ledger, text)
    if kind in lineage.KINDS and rest:
        own = list(dict.fromkeys([*own, *_looked_up(ledger, rest, kind)]))
    return _meant(own, f"{context.config.environment.name}/")


def _looked_up(ledger: Ledger, text: str, kind: str | None = None) -> list[Node]:
    nodes: dict[Node, None] = {}
    for spelling in _spellings(text):
        nodes |= dict.fromkeys(ledger.nodes(spelling, kind=kind))
    return list(nodes)


def _spellings(text: str) -> Iterator[str]:
    """Yield how the ledger may spell it: a checksum with and without its algorithm, the digest of a reference."""
    yield text
    digest = text.rpartition("@")[2]
    if digest.startswith("sha256:"):
        yield digest
        yield digest.removeprefix("sha256:")
    elif len(text) == _SHA256 and _HEX.issuperset(text):
        yield f"sha256:{text}"


def _meant(nodes: Sequence[Node], here: str) -> list[Node]:
    """Choose: a release's tag is also what each of its versions is called, and a service's name what each of its images is."""
    releases = [node for node in nodes if node.kind == lineage.RELEASE]
    if releases and all(node.kind in {lineage.RELEASE, lineage.VERSION} for node in nodes):
        return releases
    names = [node for node in nodes if node.kind in _NAMES]
    own = [node for node in names if node.kind in _IN_PLACES and node.id.startswith(here)]
    places = own or [node for node in names if node.kind in _IN_PLACES]
    return places or names or list(nodes)


def _of_file(context: Context, path: Path) -> list[Node]:
    text = files.read_text(path, what="the file that names what to trace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}", next_step="Name a JSON file.") from error
    told = mentions.of(document, place=str(path))
    nodes = _of_answer(context, told.answered) if told.answered is not None else _first(context, told.names)
    if not nodes:
        message = f"{path}: the ledger knows nothing of {told.what}"
        raise UsageError(message, next_step="Ask in the environment, and with the ledger, that it is of.")
    context.console.line(f"{path}: {told.what}")
    return nodes


def _first(context: Context, names: Sequence[str]) -> list[Node]:
    return next((nodes for name in names if (nodes := named(context, name))), [])


def _of_answer(context: Context, told: Answered) -> list[Node]:
    """Return the revision that gave an answer, the newest where several have image and model; else what of it is known."""
    parts = {"image": told.image, "model": told.model, "run": told.run}
    known = {kind: [node for node in named(context, name) if node.kind == kind] for kind, name in parts.items() if name}
    revisions = _revisions(context, known, told.service)
    if revisions:
        return revisions[:1]
    nodes = [node for found in known.values() for node in found]
    if not nodes and told.service:
        context.console.warning(f"the answer does not say what gave it: this is all that served as {told.service}")
        nodes = [node for node in named(context, told.service) if node.kind == lineage.SERVICE]
    return nodes


def _revisions(context: Context, known: Mapping[str, Sequence[Node]], service: str) -> list[Node]:
    """Return the revisions that both image and model led to: first those of the service here, then of this environment, then the newest."""
    at: dict[Node, float] = {}
    common: set[Node] | None = None
    for kind in (lineage.IMAGE, lineage.MODEL):
        if known.get(kind):
            led = {edge.target: edge.at for edge in _down(context, known[kind]) if edge.target.kind == lineage.REVISION}
            common = set(led) if common is None else common & led.keys()
            at |= led
    found = sorted(common or (), key=lambda node: (-at[node], node.id))
    places = {edge.source: edge.target.id for edge in _down(context, found) if edge.relation == lineage.SERVES}
    here = f"{context.config.environment.name}/"
    return sorted(found, key=lambda node: (places.get(node) != f"{here}{service}", not places.get(node, "").startswith(here)))


def _down(context: Context, nodes: Sequence[Node]) -> list[Edge]:
    """Return the edges that lead away from nodes, not those further down."""
    graph = context.ledger.lineage(nodes, up=False, limit=_NEIGHBOURS) if nodes else None
    return [edge for edge in graph.edges if edge.source in nodes] if graph is not None else []


def _near(context: Context) -> list[str]:
    """Return what people may have meant."""
    project = context.config.project
    return [*discover(project.components), *templates.discover(project.pipelines), *lineage.KINDS]
