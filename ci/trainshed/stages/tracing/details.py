"""What is known of each thing of a lineage: when it came about and by whom, and what answers the questions that people ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainshed.ledger import lineage
from trainshed.ledger.lineage import Edge, Graph, Node
from trainshed.ledger.records import Event, Verdict, moment
from trainshed.reports import rows
from trainshed.reports.lineage import Lineage, Thing
from trainshed.stages.context import Context
from trainshed.stages.deploying import records
from trainshed.stages.launching import history
from trainshed.stages.releasing import journal
from trainshed.tools import git
from trainshed.tools.ecs import short

if TYPE_CHECKING:
    from trainshed.ledger.store import Ledger

_EVENTS = {lineage.RUN: history.EVENT, lineage.REVISION: records.EVENT, lineage.RELEASE: journal.EVENT}
_MOST_SHOWN = 12
_LONGEST = 100


def described(context: Context, starts: Sequence[Node], *, up: Graph | None, down: Graph | None) -> Lineage:
    """Join what was found in both directions, with what the ledger's records, and git, say of each thing."""
    graphs = [graph for graph in (up, down) if graph is not None]
    nodes = dict.fromkeys(node for graph in graphs for node in graph.nodes)
    edges = [edge for graph in graphs for edge in graph.edges]
    hidden = {node: sum(graph.left_out.get(node, 0) for graph in graphs) for node in nodes}
    commits = git.told(context.config.project.root, [node.id for node in nodes if node.kind == lineage.COMMIT])
    known = _Known(context.ledger, nodes, edges, commits)
    return Lineage(
        starts=tuple(starts),
        things={node: known.thing(node, hidden[node]) for node in nodes},
        up=up.edges if up is not None else (),
        down=down.edges if down is not None else (),
        cut=any(hidden.values()) or not all(graph.whole for graph in graphs),
    )


class _Known:
    """The records that tell of some nodes: a few queries for all of them."""

    def __init__(self, ledger: Ledger, nodes: Iterable[Node], edges: Iterable[Edge], commits: Mapping[str, str]) -> None:
        self._commits = commits
        by_kind: dict[str, list[str]] = {}
        for node in nodes:
            by_kind.setdefault(node.kind, []).append(node.id)
        self._events = {kind: ledger.newest_events(event, by_kind.get(kind, ())) for kind, event in _EVENTS.items()}
        self._believed = _believed(ledger, self._events[lineage.REVISION].values())
        self._verdicts: dict[str, dict[str, Verdict]] = {}
        for verdict in sorted(ledger.verdicts(by_kind.get(lineage.IMAGE, ())).values(), key=lambda one: one.created):
            self._verdicts.setdefault(verdict.digest, {})[verdict.check] = verdict
        self._found: dict[Node, Edge] = {}
        self._causes: dict[Node, float] = {}
        self._effects: dict[Node, float] = {}
        for edge in edges:
            if edge.relation == lineage.FOUND:
                self._found.setdefault(edge.source, edge)
            for end, known in ((edge.target, self._causes), (edge.source, self._effects)):
                known[end] = min(edge.at, known.get(end, edge.at))

    def thing(self, node: Node, hidden: int) -> Thing:
        """Return what is known of a node."""
        event = self._events.get(node.kind, {}).get(node.id)
        at = self._causes.get(node) or self._effects.get(node) or 0.0
        if event is not None:
            at = event.created
            note, lines, facts = {lineage.RUN: _run, lineage.REVISION: self._revision, lineage.RELEASE: _release}[node.kind](event)
        else:
            note, lines, facts = {lineage.FINDING: self._finding, lineage.IMAGE: self._image, lineage.COMMIT: self._commit}.get(
                node.kind, _plain
            )(node)
        shown = ", ".join(filter(None, (note, moment(at) if at else "", *_by(event))))
        return Thing(node=node, note=shown, lines=tuple(filter(None, lines)), facts={**facts, **_since(at)}, at=at, hidden=hidden)

    def _revision(self, event: Event) -> tuple[str, list[str], dict[str, Any]]:
        told, state = event.document, records.state_of(event)
        serves = event.key in self._believed
        model = _table(told, "model")
        words = {records.GOOD: "serves, as the ledger believes" if serves else "served well", records.BEGUN: "begun, its end is not known"}
        went = f": rolled back to {short(str(told['to']))}" if told.get("to") else ""
        lines = [
            f"in {event.environment}",
            f"image {told.get('digest') or 'not known'}",
            f"model of run {model.get('run_id') or 'not known'}, SHA-256 {model.get('sha256') or 'not taken'}" if model else "",
            f"reason: {told['reason']}" if told.get("reason") else "",
            f"release {told['release']}" if told.get("release") else "",
        ]
        facts = {key: told.get(key) for key in ("digest", "model", "reason", "by", "build_url", "release", "previous")}
        facts |= {"service": event.name, "environment": event.environment, "state": state, "believed": serves}
        return words.get(state, state) + went, lines, facts

    def _finding(self, node: Node) -> tuple[str, list[str], dict[str, Any]]:
        told = self._found[node].facts if node in self._found else {}
        packages = ", ".join(map(str, told.get("packages") or ()))
        names = ", ".join(node.aliases)
        note = ", ".join(filter(None, (str(told.get("severity") or ""), "waived" if told.get("waived") else "")))
        return note, [f"in {packages}" if packages else "", f"also {names}" if names else ""], dict(told)

    def _commit(self, node: Node) -> tuple[str, list[str], dict[str, Any]]:
        told = self._commits.get(node.id, "")
        return "", [told, node.id], {"told": told} if told else {}

    def _image(self, node: Node) -> tuple[str, list[str], dict[str, Any]]:
        checks = self._verdicts.get(node.id, {})
        told = [f"{name} {_verdict(checks[name])}" for name in sorted(checks)]
        facts = {"checks": {name: {"green": checks[name].green, "created": checks[name].created} for name in sorted(checks)}}
        return "", [node.id if node.label != node.id else "", ", ".join(told)], facts if checks else {}


def _run(event: Event) -> tuple[str, list[str], dict[str, Any]]:
    told = event.document
    accepted = "accepted" if told.get("good") is True else "not accepted"
    parameters, metrics = _table(told, "parameters"), _table(told, "metrics")
    gates = [gate for gate in told.get("gates") or () if isinstance(gate, Mapping)]
    lines = [
        f"id {told.get('run_id')}, in {event.environment}" + (f", {told['link']}" if told.get("link") else ""),
        _pairs("parameters", parameters) or "parameters: the pipeline's own",
        _pairs("metrics", metrics),
        _listed("gates", [f"{gate.get('gate')} {'holds' if gate.get('passed') else 'is missed'}" for gate in gates]),
    ]
    keys = ("run_id", "name", "state", "good", "parameters", "metrics", "gates", "artifacts", "link", "version", "version_id", "build_url")
    return f"{told.get('state')}, {accepted}", lines, {**{key: told.get(key) for key in keys}, "environment": event.environment}


def _release(event: Event) -> tuple[str, list[str], dict[str, Any]]:
    told = event.document
    tags = [str(tag) for tag in told.get("tags") or ()]
    lines = [
        f"{told.get('source')} → {event.environment}",
        _listed("tags", tags),
        f"manifest {told['manifest']}" if told.get("manifest") else "",
        f"reason: {told['reason']}" if told.get("reason") else "",
    ]
    facts = {key: told.get(key) for key in ("state", "release", "tags", "commit", "source", "manifest", "reason", "by", "build_url")}
    return str(told.get("state")), lines, {**facts, "environment": event.environment}


def _plain(node: Node) -> tuple[str, list[str], dict[str, Any]]:
    more = {
        lineage.MODEL: f"SHA-256 {node.id}",
        lineage.DATA: node.id,
        lineage.VERSION: f"id {node.id}",
        lineage.INPUT: node.id,
        lineage.LOCK: node.id,
        lineage.SERVICE: f"in {node.id.rpartition('/')[0]}",
        lineage.PIPELINE: f"in {node.id.rpartition('/')[0]}",
    }.get(node.kind, "")
    return "", [more if node.label != node.id else ""], {}


def _believed(ledger: Ledger, events: Iterable[Event]) -> set[str]:
    """Return the revisions that the ledger believes serve: of each service involved the newest that served well."""
    found = set()
    for environment, service in sorted({(event.environment, event.name) for event in events}):
        newest: dict[str, Event] = {}
        for event in ledger.events(records.EVENT, environment, service):
            newest.setdefault(event.key, event)
        found |= {next((key for key, event in newest.items() if records.state_of(event) == records.GOOD), "")}
    return found


def _verdict(verdict: Verdict) -> str:
    findings = rows.tally(verdict.findings)
    return ("green" if verdict.green else "red") + (f" ({findings})" if findings else "")


def _by(event: Event | None) -> list[str]:
    told = event.document if event is not None else {}
    by = told.get("by") or told.get("build_url")
    return [f"by {by}"] if by else []


def _table(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = told.get(key)
    return found if isinstance(found, Mapping) else {}


def _pairs(what: str, told: Mapping[str, Any]) -> str:
    return _listed(what, [f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in told.items()])


def _listed(what: str, told: Sequence[str]) -> str:
    shown = [text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for text in told[:_MOST_SHOWN]]
    more = [f"… {len(told) - _MOST_SHOWN} more"] if len(told) > _MOST_SHOWN else []
    return f"{what}: {', '.join([*shown, *more])}" if told else ""


def _since(at: float) -> dict[str, str]:
    return {"at": moment(at)} if at else {}
