"""The one call that changes a service: made once, found again when its answer was lost, and never against a deployment of somebody else."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from trainshed.console import spoken
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.services import difference
from trainshed.stages.deploying import records
from trainshed.stages.deploying.turn import Turn
from trainshed.tools import process
from trainshed.tools.ecs import Deployment, ServiceState, short

_LOOKED_AT = 5
_ATTEMPTS = 3
_LOOKS = 4
_GOING_ON = "IN_PROGRESS"


def registered(turn: Turn, definition: Mapping[str, Any], *, broken: str = "") -> str:
    """Return a revision of this content: one that a deploy which was killed left unused, else a new one.

    One that served badly, or that somebody went back from, is not taken again: its story would be told twice. ``broken`` is the one
    whose deployment failed and is still the service's: only another revision gets out of that.
    """
    known = {found.revision: found.state for found in records.history(turn.context, turn.service.name)} | {broken: records.BAD}
    for attempt in range(_ATTEMPTS):
        found = _same(turn, definition, known)
        if found is not None:
            return found
        turn.require_alone()
        try:
            return turn.ecs.register(definition)
        except RemoteError as error:  # it may be registered all the same: then it is found
            if error.permanent or attempt == _ATTEMPTS - 1:
                raise
            turn.note(f"the answer to RegisterTaskDefinition was lost; looking: {error.message}")
            process.pause(turn.ecs.poll)
    raise AssertionError("the last attempt returns or raises")


def _same(turn: Turn, definition: Mapping[str, Any], known: Mapping[str, str]) -> str | None:
    try:
        newest = list(islice(turn.ecs.revisions(definition["family"]), _LOOKED_AT))
    except UsageError as error:  # who may not list them registers a new one
        turn.note(f"whether there is such a revision already cannot be told: {error.message}")
        return None
    usable = (arn for arn in newest if known.get(arn, records.BEGUN) in {records.BEGUN, records.GOOD})
    return next((arn for arn in usable if not difference.changes(turn.ecs.task_definition(arn), definition)), None)


def require_ours(turn: Turn, running: ServiceState | None) -> None:
    """Refuse to push aside a deployment that goes on and that this ledger knows nothing of; one of a dead deploy may be.

    Raises:
        WorkFailed: with its revision, who deployed it as far as its tags tell, and its age.
    """
    primary = running.primary if running is not None else None
    if primary is None or primary.rollout != _GOING_ON:
        return
    if records.known(turn.context, turn.service.name, primary.revision) is not None:
        turn.note(f"the deployment of {short(primary.revision)} goes on, and nobody follows it: it is superseded")
        return
    message = f"{turn.service.name}: a deployment that this ledger does not know goes on: {_told(turn, primary)}"
    raise WorkFailed(message, next_step="Wait until it has ended, or end it in ECS; then run it again.")


def update(turn: Turn, before: ServiceState, revision: str, parameters: Mapping[str, Any]) -> Deployment:
    """Change a service with one UpdateService; return the deployment that does it."""

    def accepted(state: ServiceState) -> bool:
        primary, old = state.primary, before.primary
        if primary is None or primary.revision != revision:
            return False
        if old is None or primary.id != old.id:
            return True
        return "forceNewDeployment" not in parameters and not difference.service_changes(state.document, parameters)

    return _asked(turn, lambda: turn.ecs.update_service(turn.service.name, revision, parameters), accepted, "UpdateService")


def create(turn: Turn, revision: str, parameters: Mapping[str, Any]) -> Deployment:
    """Create a service with one CreateService; return its deployment."""
    token = uuid.uuid4().hex

    def accepted(state: ServiceState) -> bool:
        return state.primary is not None and state.primary.revision == revision

    return _asked(turn, lambda: turn.ecs.create_service(turn.service.name, revision, parameters, token=token), accepted, "CreateService")


def _asked(turn: Turn, ask: Callable[[], ServiceState], accepted: Callable[[ServiceState], bool], action: str) -> Deployment:
    """Make the call; when its answer is lost, look before it is made again: ECS may have taken it."""
    for attempt in range(_ATTEMPTS):
        turn.require_alone()
        try:
            state = ask()
        except RemoteError as error:
            turn.note(f"the answer to {action} was lost; looking whether ECS took it: {error.message}")
            found = None if error.permanent else _found(turn, accepted)
            if found is None and (error.permanent or attempt == _ATTEMPTS - 1):
                step = f"If it did, {turn.again}"
                raise RemoteError(f"{error.message}; whether ECS took {action} is not known", next_step=step) from error
            if found is None:
                continue
            turn.note(f"ECS took it: {found.primary.id if found.primary is not None else ''}")
            state = found
        if state.primary is None:
            raise WorkFailed(f"{turn.service.name}: ECS started no deployment", next_step="Look at the service in the cluster.")
        return state.primary
    raise AssertionError("the last attempt returns or raises")


def _found(turn: Turn, accepted: Callable[[ServiceState], bool]) -> ServiceState | None:
    """Look several times: an answer of ECS may be older than the change, and the network may be away for a while."""
    ends = time.monotonic() + turn.ecs.patience
    looks = 0
    while looks < _LOOKS:
        try:
            state = turn.ecs.service(turn.service.name)
        except RemoteError as error:
            if error.permanent or time.monotonic() >= ends:
                raise
        else:
            looks += 1
            if state is not None and accepted(state):
                return state
        process.pause(turn.ecs.poll)
    return None


def _told(turn: Turn, deployment: Deployment) -> str:
    tags: Mapping[str, str] = {}
    with contextlib.suppress(UsageError):  # who may not look at tags is told less
        tags = turn.ecs.definition(deployment.revision).tags
    by = ", ".join(f"{key} {value}" for key, value in sorted(tags.items()) if key.startswith("trainshed:"))
    age = f", begun {spoken(max(0.0, time.time() - deployment.created.timestamp()))} ago" if deployment.created is not None else ""
    return f"{short(deployment.revision)}{f' ({by})' if by else ''}{age}"
