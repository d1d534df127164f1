"""What came of what: the nodes and edges that a record of the ledger tells of. Pure: documents in, edges out.

Edges go from cause to effect: commit → input → image → lock → version → run → model → revision → service. A record that lacks a field, or
holds something odd in it, tells what it can and never raises: it must not be lost because of its lineage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainshed.values import SEVERITIES

COMMIT, INPUT, IMAGE, FINDING, LOCK = "commit", "input", "image", "finding", "lock"
VERSION, PIPELINE, RUN, DATA, MODEL = "version", "pipeline", "run", "data", "model"
REVISION, SERVICE, RELEASE, COMPONENT, BUILD = "revision", "service", "release", "component", "build"
KINDS = (
    SERVICE,
    REVISION,
    RELEASE,
    MODEL,
    RUN,
    VERSION,
    PIPELINE,
    IMAGE,
    FINDING,
    DATA,
    COMPONENT,
    COMMIT,
    LOCK,
    INPUT,
    BUILD,
)
"""All kinds of nodes, in the order in which they are told of where not all fit: what serves comes first."""

MADE = "made"
"""commit → input: the first commit whose lock had it; commit → version."""
GREEN = "green"
"""commit → lock, build → lock."""
OF = "of"
"""component → input and service, pipeline → version."""
BASE = "base"
"""image → input: what an image stands on."""
BUILT = "built"
"""input → image."""
FOUND = "found"
"""finding → image, with what its newest scan tells: ``severity``, ``packages``, ``waived``."""
LOCKED = "locked"
"""image → lock."""
STAMPED = "stamped"
"""lock → version."""
USES = "uses"
"""image → version: an image that the version's steps run in."""
RAN = "ran"
"""version → run."""
READ = "read"
"""data → run."""
GAVE = "gave"
"""run → model, by its checksum; run → data: other artifacts of it, by their addresses."""
RUNS = "runs"
"""image → revision."""
LOADS = "loads"
"""model → revision."""
SERVES = "serves"
"""revision → service, with its newest ``state``: of `stages.deploying.records`."""
RELEASED = "released"
"""commit, lock → release, with its newest ``state``, of `stages.releasing.journal`, and its ``environment``."""
PART = "part"
"""version, revision → release: what it brought there, whatever became of it."""
BY = "by"
"""build → what it recorded."""

RELATIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    MADE: ((COMMIT, INPUT), (COMMIT, VERSION)),
    GREEN: ((COMMIT, LOCK), (BUILD, LOCK)),
    OF: ((COMPONENT, INPUT), (COMPONENT, SERVICE), (PIPELINE, VERSION)),
    BASE: ((IMAGE, INPUT),),
    BUILT: ((INPUT, IMAGE),),
    FOUND: ((FINDING, IMAGE),),
    LOCKED: ((IMAGE, LOCK),),
    STAMPED: ((LOCK, VERSION),),
    USES: ((IMAGE, VERSION),),
    RAN: ((VERSION, RUN),),
    READ: ((DATA, RUN),),
    GAVE: ((RUN, MODEL), (RUN, DATA)),
    RUNS: ((IMAGE, REVISION),),
    LOADS: ((MODEL, REVISION),),
    SERVES: ((REVISION, SERVICE),),
    RELEASED: ((COMMIT, RELEASE), (LOCK, RELEASE)),
    PART: ((VERSION, RELEASE), (REVISION, RELEASE)),
    BY: ((BUILD, VERSION), (BUILD, RUN), (BUILD, REVISION), (BUILD, RELEASE)),
}
"""Which kinds each relation leads from and to."""

SCAN = "scan"
"""The check whose verdicts hold findings."""

CHANGING = frozenset({FOUND, SERVES, RELEASED})
"""Relations whose facts follow the newest record."""

_HUBS_UP = frozenset({FOUND, LOCKED, GREEN, OF})
_HUBS_DOWN = frozenset({LOCKED, STAMPED, OF, BY})
_DATASET = "Dataset"
_MEASURES = ("Metrics", "HTML", "Markdown")
_LONGEST = 500
_PACKAGES = 5
_SHORT = 19
_SHORT_COMMIT = 12


@dataclass(frozen=True)
class Node:
    """One thing. ``id`` tells it apart among those of its kind, ``label`` is for people, ``aliases`` are other names of it."""

    kind: str
    id: str
    label: str = field(default="", compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Edge:
    """A cause and its effect.

    ``facts`` are what the newest record tells of it, ``at`` is when that was (seconds since 1970). ``present`` is false for one that a
    newer record takes back: `Ledger.lineage` leaves such edges out.
    """

    source: Node
    target: Node
    relation: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    at: float = field(default=0.0, compare=False)
    present: bool = field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What was found from some nodes: ``nodes`` with the starts first, nearest first; ``edges`` between them.

    ``left_out`` maps a node to how many of its neighbours in this direction are not among the nodes because they were too many; those that
    are not followed at all (see `expands`) are not counted. ``whole`` is false where there was more than could be looked at.
    """

    starts: tuple[Node, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    left_out: Mapping[Node, int]
    whole: bool = True


def expands(kinds: Iterable[str], *, up: bool, start: bool) -> dict[str, frozenset[str]]:
    """Return the relations that are followed from nodes of some kinds, each with the kinds that it leads to.

    Those that lead to all that was ever green together, or of one name, are followed from a start only: from a revision upwards lie its
    own image, model, run, data, inputs and commits, and not every image of every lock.
    """
    left = frozenset() if start else _HUBS_UP if up else _HUBS_DOWN
    wanted, found = frozenset(kinds), {}
    for relation in RELATIONS.keys() - left:
        ends = RELATIONS[relation]
        others = frozenset((one if up else other) for one, other in ends if (other if up else one) in wanted)
        if others:
            found[relation] = others
    return found


def edges_of_image(component: str, input_digest: str, digest: str, manifest: Mapping[str, Any]) -> list[Edge]:
    """Return what the record of an image tells. ``manifest`` is that of `images.inputs`."""
    return list(_known(_built(component, input_digest, digest, _table(manifest, "bases"))))


def edges_of_lock(document: Mapping[str, Any]) -> list[Edge]:
    """Return what a lock tells. Of its edges commit → input only those count whose input no commit has made yet."""
    return list(_known(_of_lock(document)))


def edges_of_verdict(digest: str, check: str, component: str, details: Mapping[str, Any]) -> list[Edge] | None:
    """Return the findings of a scan; None where it is none.

    Several findings of one name (of several packages) are one edge: the worst severity counts, and it is waived when all of them are.
    """
    if check != SCAN:
        return None
    image = Node(IMAGE, _clean(digest), _clean(component))
    found: dict[Node, list[Mapping[str, Any]]] = {}
    for finding in _items(details, "findings"):
        aliases = tuple(_clean(alias) for alias in _list(finding, "aliases") if isinstance(alias, str) and alias)
        name = _text(finding, "id")
        found.setdefault(Node(FINDING, name, name, aliases), []).append(finding)
    return list(_known(Edge(finding, image, FOUND, _told_of(told)) for finding, told in found.items()))


def complete(details: Mapping[str, Any]) -> bool:
    """Tell whether a scan's findings are all that there are: with a note, some source may have been silent, and nothing is taken back."""
    return not _list(details, "notes")


def edges_of_event(kind: str, environment: str, name: str, key: str, document: Mapping[str, Any]) -> list[Edge]:
    """Return what an event tells: a lock of some components, an upload, run, model, deployment or release; nothing of any other kind."""
    of = {
        "lock": lambda event: _of_lock(event.document),
        "upload": _of_upload,
        "run": _of_run,
        "model": _of_model,
        "deployment": _of_deployment,
        "release": _of_release,
    }.get(kind)
    if of is None:
        return []
    return list(_known(of(_Event(_clean(environment), _clean(name), _clean(key), document))))


def place(environment: str, name: str) -> str:
    """Return the id of a pipeline or service: its name counts within its environment."""
    return f"{environment}/{name}"


def lock_digest(document: Mapping[str, Any]) -> str:
    """Return the digest of what a lock decides, as `pipelines.lock.lock_digest` does, of any document."""
    images = _table(document, "images")
    references = {name: _text(image, "reference") for name, image in sorted(images.items()) if isinstance(image, Mapping)}
    told = {"project": document.get("project"), "images": references}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"


@dataclass(frozen=True)
class _Event:
    environment: str
    name: str
    key: str
    document: Mapping[str, Any]

    def by(self, *made: Node) -> Iterator[Edge]:
        """Yield which build recorded something."""
        url = _text(self.document, "build_url")
        yield from (Edge(Node(BUILD, url, url), node, BY) for node in made)

    def at(self, name: str) -> str:
        return place(self.environment, name) if name else ""


def _built(component: str, input_digest: str, digest: str, bases: Mapping[str, Any]) -> Iterator[Edge]:
    component = _clean(component)
    inputs, image = Node(INPUT, _clean(input_digest), component), Node(IMAGE, _clean(digest), component)
    yield Edge(Node(COMPONENT, component, component), inputs, OF)
    yield Edge(inputs, image, BUILT)
    for base in bases:
        yield Edge(Node(IMAGE, _text(bases, base), _clean(base)), inputs, BASE)


def _of_lock(document: Mapping[str, Any]) -> Iterator[Edge]:
    commit, images = _text(document, "commit"), _table(document, "images")
    if not images:
        return
    digest, dirty = lock_digest(document), document.get("dirty") is not False
    lock, made_by = Node(LOCK, digest, digest[:_SHORT]), Node(COMMIT, commit, commit[:_SHORT_COMMIT])
    yield Edge(made_by, lock, GREEN, {"dirty": True} if dirty else {})
    builds = {_text(_table(image, "origin"), "build_url") for image in images.values() if isinstance(image, Mapping)}
    yield from (Edge(Node(BUILD, url, url), lock, GREEN) for url in sorted(builds))
    for name, image in images.items():
        if isinstance(image, Mapping):
            built = list(_built(name, _text(image, "input_digest"), _text(image, "digest"), _table(image, "base")))
            yield from built
            yield Edge(built[1].target, lock, LOCKED)
            if not dirty:
                yield Edge(made_by, built[1].source, MADE)


def _told_of(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    worst = max((_text(finding, "severity") for finding in findings), key=_rank)
    packages = sorted({f"{_text(finding, 'package')} {_text(finding, 'installed')}".strip() for finding in findings} - {""})
    waived = all(finding.get("waiver") for finding in findings)
    return {"severity": worst, "packages": packages[:_PACKAGES], "waived": waived}


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def _of_upload(event: _Event) -> Iterator[Edge]:
    told = event.document
    name = _text(told, "version")
    version = Node(VERSION, _text(told, "version_id"), f"{event.name} {name}".strip(), (name,))
    yield Edge(Node(PIPELINE, event.at(event.name), event.name), version, OF)
    yield Edge(Node(LOCK, _text(told, "lock_digest"), _text(told, "lock_digest")[:_SHORT]), version, STAMPED)
    if told.get("dirty") is False:
        yield Edge(Node(COMMIT, _text(told, "commit"), _text(told, "commit")[:_SHORT_COMMIT]), version, MADE)
    images = _table(told, "images")
    for component in images:
        yield Edge(Node(IMAGE, _text(images, component).rpartition("@")[2], _clean(component)), version, USES)
    yield Edge(version, _release(told), PART)
    yield from event.by(version)


def _of_run(event: _Event) -> Iterator[Edge]:
    told = event.document
    run = Node(RUN, _text(told, "run_id"), _text(told, "name"))
    name = _text(told, "version")
    version = Node(VERSION, _text(told, "version_id"), f"{event.name} {name}".strip(), (name,))
    yield Edge(Node(PIPELINE, event.at(event.name), event.name), version, OF)
    yield Edge(version, run, RAN)
    artifacts = _table(told, "artifacts")
    for output in artifacts:
        artifact = _table(artifacts, output)
        kind = _text(artifact, "type").rpartition(".")[2]
        data = Node(DATA, _text(artifact, "uri"), _clean(output))
        if kind == _DATASET or _imported(output):
            yield Edge(data, run, READ)
        elif not kind.endswith(_MEASURES):
            yield Edge(run, data, GAVE)
    yield from event.by(run)


def _imported(output: str) -> bool:
    """Tell whether an artifact came through an importer: kfp names both it and its output."""
    task, _, name = output.rpartition(".")
    return name == "artifact" and task.rpartition(".")[2].startswith("importer")


def _of_model(event: _Event) -> Iterator[Edge]:
    yield Edge(Node(RUN, _text(event.document, "run_id")), _model(event.document), GAVE)


def _model(told: Mapping[str, Any]) -> Node:
    """Return a model by its checksum; by its address where none was taken. Its address is a name of it in any case."""
    uri = _text(told, "uri")
    return Node(MODEL, _text(told, "sha256") or uri, uri)


def _of_deployment(event: _Event) -> Iterator[Edge]:
    told = event.document
    component, image = _text(told, "component"), _text(told, "digest")
    revision = Node(REVISION, event.key, event.key.rpartition("/")[2])
    service = Node(SERVICE, event.at(event.name), event.name)
    yield Edge(Node(IMAGE, image, component), revision, RUNS)
    model = _table(told, "model")
    if model:
        yield from _of_model(_Event(event.environment, event.name, event.key, model))
        yield Edge(_model(model), revision, LOADS)
    state = _text(told, "state") or ("good" if told.get("good") is True else "bad")
    yield Edge(revision, service, SERVES, {"state": state})
    yield Edge(Node(COMPONENT, component, component), service, OF)
    yield Edge(revision, _release(told), PART)
    yield from event.by(revision)


def _release(told: Mapping[str, Any]) -> Node:
    """Return the release that something was a part of; without an id it was none."""
    return Node(RELEASE, _text(told, "release_id"), _text(told, "release"))


def _of_release(event: _Event) -> Iterator[Edge]:
    told, done = event.document, _table(event.document, "done")
    tags = tuple(_clean(tag) for tag in _list(told, "tags") if isinstance(tag, str))
    release = Node(RELEASE, event.key, _text(told, "release"), (*tags, _text(told, "manifest")))
    commit, lock = _text(told, "commit"), _text(told, "lock_digest")
    facts = {"state": _text(told, "state"), "environment": event.environment}
    yield Edge(Node(COMMIT, commit, commit[:_SHORT_COMMIT]), release, RELEASED, facts)
    yield Edge(Node(LOCK, lock, lock[:_SHORT]), release, RELEASED, facts)
    parts = []
    for result in _items(done, "upload"):
        version = _text(result, "version")
        parts.append(Node(VERSION, _text(result, "version_id"), f"{_text(result, 'name')} {version}".strip(), (version,)))
    for result in _items(done, "deploy"):
        arn = _text(result, "arn")
        parts.append(Node(REVISION, arn, arn.rpartition("/")[2]))
    yield from (Edge(part, release, PART) for part in parts)
    yield from event.by(release)


def _known(edges: Iterable[Edge]) -> Iterator[Edge]:
    """Yield the edges both of whose ends are known; one fact is told once."""
    told: set[Edge] = set()
    for edge in edges:
        if edge.source.id and edge.target.id and edge not in told:
            told.add(edge)
            yield edge


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return {name: item for name, item in found.items() if isinstance(name, str)} if isinstance(found, Mapping) else {}


def _list(document: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = document.get(key)
    return found if isinstance(found, (list, tuple)) else ()


def _items(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [item for item in _list(document, key) if isinstance(item, Mapping)]


def _text(document: Mapping[str, Any], key: str) -> str:
    found = document.get(key)
    return _clean(found) if isinstance(found, str) else ""


def _clean(text: str) -> str:
    """Return a text that any database takes, in an index too: a longer one ends in its digest, so that it is still one thing."""
    text = text.replace("\x00", "\ufffd").encode(errors="replace").decode()
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - _SHORT]}…{hashlib.sha256(text.encode()).hexdigest()[: _SHORT - 1]}"
