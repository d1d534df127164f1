"""Runs: made from versions or specifications, played by a script one state per look, terminated, and what they leave behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.argo import fnv
from tests.support.kubeflow_server import listing
from tests.support.kubeflow_server.nodes import Execution, Node, Workflow, leaves
from tests.support.kubeflow_server.pipelines import Pipelines
from tests.support.kubeflow_server.records import INTERNAL, INVALID, NEVER, Document, Record, Refused, State, fits, shown, timestamp

FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_STOPPABLE = frozenset({"PENDING", "RUNNING", "PAUSED", ""})
_FIELDS = {
    *("experiment_id", "run_id", "display_name", "storage_state", "description", "pipeline_version_id", "pipeline_spec", "runtime_config"),
    *("pipeline_version_reference", "service_account", "created_at", "scheduled_at", "finished_at", "state", "error", "run_details"),
    *("recurring_run_id", "state_history", "plugins_input"),
}


@dataclass(frozen=True, kw_only=True)
class Script:
    """How a run goes. Each look at it (``GET /runs/{id}``) moves it on by one of ``states``; the last one stays.

    Paths are such as ``inner.train`` and ``for-loop-1.0.train``. ``parameters`` and ``seconds`` are by path, ``metadata`` and ``uris`` by
    path and output (``train.model``), ``iterations`` by the loop's path, ``logs`` by path.
    """

    states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    failed: Collection[str] = ()
    skipped: Collection[str] = ()
    cached: Collection[str] = ()
    iterations: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    uris: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, int] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Play:
    """A run under way: its specification, its script and how far it has come."""

    specification: Mapping[str, Any]
    script: Script
    place: int = 0
    seen: bool = False
    drawn: tuple[tuple[str, int], Workflow] | None = None

    @property
    def state(self) -> str:
        """Return the state by now."""
        return self.script.states[self.place]

    def look(self) -> None:
        """Move on by one state; the first look sees the first."""
        if self.seen:
            self.place = min(self.place + 1, len(self.script.states) - 1)
        self.seen = True


class Runs:
    """The service of runs. ``default`` is the script of runs that are not given one with `play`."""

    def __init__(self, state: State, pipelines: Pipelines) -> None:
        self.state, self._pipelines = state, pipelines
        self.default = Script()
        self.plays: dict[str, Play] = {}

    def __len__(self) -> int:
        return len(self.state.runs)

    def play(self, run_id: str, *states: str, **how: Any) -> None:
        """Write how a run goes on from now: its states, and whatever else a `Script` has."""
        play = self.plays[run_id]
        changed: dict[str, Any] = {"states": states, **how} if states else how
        play.script = replace(play.script, **changed)
        play.place, play.seen, play.drawn = 0, False, None

    def create(self, body: Document) -> Document:
        """Start a run."""
        unknown = sorted(set(body) - _FIELDS)
        if unknown:
            raise Refused(INVALID, f'proto: (line 1:1): unknown field "{unknown[0]}"')
        if not body.get("display_name"):
            raise Refused(INTERNAL, "Failed to convert a API run detail to its internal representation: Run name cannot be empty")
        experiment = self.experiment_of(body)
        reference, specification = self.source(body, "run")
        config = body.get("runtime_config") or {}
        check_parameters(specification, config.get("parameters") or {})
        fits(body)
        document = {
            "display_name": body["display_name"],
            "description": body.get("description") or "",
            "experiment_id": experiment.id,
            "recurring_run_id": body.get("recurring_run_id") or "",
            "pipeline_id": reference.get("pipeline_id", ""),
            "storage_state": "AVAILABLE",
            "service_account": body.get("service_account") or "pipeline-runner",
            "runtime_config": shown(config),
            **({"pipeline_version_reference": reference} if reference else {"pipeline_spec": body["pipeline_spec"]}),
        }
        row = self.state.add(self.state.runs, body["display_name"], parent=experiment.id, namespace=experiment.namespace, document=document)
        experiment.document["last_run"] = row.created
        self.plays[row.id] = Play(specification, self.default)
        return self.run_shown(row)

    def experiment_of(self, body: Document) -> Record:
        """Return the experiment that is asked for; the single-user server has a default."""
        wanted = body.get("experiment_id") or ""
        if wanted:
            return self.state.need(self.state.experiments, "Experiment", wanted)
        if self.state.multi_user:
            raise Refused(INVALID, "Experiment id can not be empty in multi-user mode")
        found = self.state.experiments.named("Default", "")
        return found or self.state.add(self.state.experiments, "Default", document={"storage_state": "AVAILABLE"})

    def source(self, body: Document, what: str) -> tuple[Document, Document]:
        """Return the reference to a version (none for a specification) and the specification itself."""
        reference = body.get("pipeline_version_reference") or {}
        if not reference:
            whole = body.get("pipeline_spec")
            if not isinstance(whole, dict) or "root" not in whole.get("pipeline_spec", whole):
                raise Refused(INTERNAL, f"Failed to create a {what} with an empty or invalid pipeline spec manifest")
            return {}, whole.get("pipeline_spec", whole)
        version = self.state.versions.get(reference.get("pipeline_version_id", ""))
        if not reference.get("pipeline_version_id"):
            if what == "recurring run" and not self.state.at_least(2, 5):
                raise Refused(INVALID, "Failed to create a recurring run: pipeline version id is required")
            version = self._pipelines.latest(reference.get("pipeline_id", ""))
        if version is None:
            raise Refused(INTERNAL, f"Failed to create a {what} due to error fetching manifest: PipelineVersion not found")
        known = shown({"pipeline_id": version.parent, "pipeline_version_id": reference.get("pipeline_version_id", "")})
        if what == "run":
            known["pipeline_version_id"] = version.id
        whole = version.document["pipeline_spec"]
        return known, whole.get("pipeline_spec", whole)

    def get(self, identifier: str) -> Document:
        """Return a run; each look lets it go on."""
        row = self.state.need(self.state.runs, "Run", identifier)
        self.plays[row.id].look()
        return self.run_shown(row)

    def listed(self, query: Mapping[str, str]) -> Document:
        """List the runs of an experiment, or of a namespace; they do not go on by it."""
        experiment, namespace = query.get("experiment_id", ""), self.state.namespace(query.get("namespace", ""))
        if experiment:
            self.state.need(self.state.experiments, "Experiment", experiment)
        elif self.state.multi_user and not namespace:
            raise Refused(INVALID, "A run cannot have an empty namespace in multi-user mode")
        rows = [row for row in self.state.runs.all(experiment or None) if experiment or row.namespace == namespace]
        for row in rows:
            row.document["state"] = self.plays[row.id].state
        return listing.page("runs", rows, query, self.run_shown)

    def terminate(self, identifier: str) -> Document:
        """Ask for the end of a run; one that has ended, or is about to, is refused."""
        row = self.state.need(self.state.runs, "Run", identifier)
        play = self.plays[row.id]
        if play.state not in _STOPPABLE:
            raise Refused(INVALID, f"Failed to terminate a run {identifier}. Row not found")
        self.play(row.id, "CANCELING", "CANCELED")
        return {}

    def store_away(self, identifier: str, state: str) -> Document:
        """Archive a run, or take it back."""
        self.state.need(self.state.runs, "Run", identifier).document["storage_state"] = state
        return {}

    def delete(self, identifier: str) -> Document:
        """Forget a run."""
        self.state.runs.remove(self.state.need(self.state.runs, "Run", identifier))
        return {}

    def log(self, identifier: str, node: str) -> bytes:
        """Return what a pod printed; the pod is asked by its own name, the archive by the node's id."""
        row = self.state.runs.get(identifier)
        found = (
            None
            if row is None
            else next((each for each in self.workflow(row).nodes.values() if each.pod and node in {each.pod, each.id}), None)
        )
        if row is None or found is None or found.state not in {"SUCCEEDED", "FAILED", "RUNNING"}:
            raise Refused(INTERNAL, f"Failed to read logs for run {identifier}")
        driver = found.name.endswith("-driver")
        return b"driver\n" if driver else self.plays[row.id].script.logs.get(found.path, f"{found.path} printed this\n").encode()

    def workflow(self, row: Record) -> Workflow:
        """Return the nodes of a run as it stands; drawn once for each state."""
        play = self.plays[row.id]
        if play.drawn is None or play.drawn[0] != (play.state, play.place):
            states = _states(play)
            name = f"{play.specification['pipelineInfo']['name']}-{row.id[-5:]}"
            drawn = Workflow(play.specification, name, play.script.iterations, lambda path: states.get(path, ""))
            drawn.nodes[name].state = _node_state(play.state)
            play.drawn = ((play.state, play.place), drawn)
        return play.drawn[1]

    def executions(self, row: Record) -> list[Execution]:
        """Return what the metadata store knows of a run."""
        return [] if self.plays[row.id].state == "PENDING" else self.workflow(row).executions

    def run_shown(self, row: Record) -> Document:
        """Return a run's document."""
        play, created = self.plays[row.id], timestamp(row.created)
        ended = timestamp(row.created + sum(play.script.seconds.values()) + 1) if play.state in FINAL else NEVER
        told = {"run_id": row.id, "created_at": created, "scheduled_at": created, "finished_at": ended, **row.document}
        told.pop("pipeline_id")
        history = [{"update_time": created, "state": state} for state in play.script.states[: play.place + 1]]
        details: list[Document] = []
        if play.seen and play.state != "PENDING":
            nodes = sorted(self.workflow(row).nodes.values(), key=lambda node: node.id)
            details = [_detail(row, node, play) for node in nodes]
        told |= {"state": play.state, "state_history": history}
        return shown(told | ({"run_details": {"task_details": details}} if details else {}))


def _states(play: Play) -> dict[str, str]:
    """Return the state of each leaf task for the state of the run."""
    order, script = leaves(play.specification, play.script.iterations), play.script
    done = dict.fromkeys(order, "SUCCEEDED")
    done |= {path: mark for mark, paths in (("SKIPPED", script.skipped), ("CACHED", script.cached)) for path in done if _in(path, paths)}
    if play.state == "RUNNING":
        looks = [place for place, state in enumerate(script.states) if state == "RUNNING"]
        reached = len(order) * looks.index(play.place) // len(looks)
        return {path: done[path] if place < reached else "RUNNING" for place, path in enumerate(order) if place <= reached}
    if play.state == "SUCCEEDED":
        return done
    failed = list(script.failed) or [order[-1]]
    if play.state in {"FAILED", "CANCELED", "CANCELING"}:
        return done | {path: "FAILED" for path in done if _in(path, failed)}
    return dict.fromkeys(done, "SKIPPED") if play.state == "SKIPPED" else {}


def _in(path: str, paths: Collection[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in paths)


def _node_state(state: str) -> str:
    return {"CANCELED": "FAILED", "CANCELING": "RUNNING", "PENDING": "", "PAUSED": "RUNNING"}.get(state, state)


def _detail(row: Record, node: Node, play: Play) -> Document:
    """Return a node as ``task_details`` has it: without its pod's name, its inputs, outputs or the cause of a failure."""
    started = row.created
    seconds = play.script.seconds.get(node.path, 1)
    ended = timestamp(started + seconds) if node.state in {*FINAL, "OMITTED"} else NEVER
    state = "" if node.state == "OMITTED" else node.state
    return shown(
        {
            "run_id": row.id,
            "task_id": f"{fnv(node.id):08x}-0000-4000-9000-{row.id[-12:]}",
            "display_name": node.name,
            "create_time": timestamp(row.created),
            "start_time": timestamp(started),
            "end_time": ended,
            "state": state,
            "state_history": [{"update_time": timestamp(started), "state": state}] if state else [],
            "child_tasks": [{"pod_name": child} for child in node.children],
        }
    )


_KINDS: dict[str, type | tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def check_parameters(specification: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse parameters that the pipeline has not, of another type, or that are missing."""
    wanted = specification["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in given.items():
        if name not in wanted:
            raise Refused(INVALID, f"parameter {name} is not in the pipeline spec's input definitions")
        kind = _KINDS.get(wanted[name].get("parameterType", ""), object)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise Refused(INVALID, f"input parameter {name} requires type {wanted[name]['parameterType']}")
    missing = [name for name, one in wanted.items() if name not in given and "defaultValue" not in one and not one.get("isOptional")]
    if missing:
        raise Refused(INVALID, f"no default and no value provided for input parameter {missing[0]}")
