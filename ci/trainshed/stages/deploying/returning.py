"""Going back to a revision, image and model as the pair that they are: followed, read back and asked like any other deployment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainshed.errors import Interrupted, TrainshedError
from trainshed.services import golden
from trainshed.services.golden import Golden
from trainshed.stages.context import Context
from trainshed.stages.deploying import proving, records, rollout, starting
from trainshed.stages.deploying.rollout import Verdict
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.deploying.watching import Watch
from trainshed.tools import process
from trainshed.tools.ecs import Deployment, ServiceState, short

_ROLLBACK_SECONDS = 900.0
_FAILED, _GOING_ON = "FAILED", "IN_PROGRESS"


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a deploy goes back to: ``revision`` is None where nothing served well, ``settings`` are the service's own that it changed."""

    revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Returned:
    """How going back ended: ``problem`` is empty when the revision serves as it did. ``deployment`` is ECS's id."""

    deployment: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a service whose deployment must not serve. ``well`` is the revision that serves now and was proven to, if any."""

    said: str = ""
    well: str = ""


def after_failure(turn: Turn, watch: Watch, verdict: Verdict, before: Before) -> Outcome:
    """Make sure that a deployment of ours that failed does not stay: ECS rolled back, or we do; check what serves then."""
    try:
        primary = _fallback(turn, watch)
        if primary is None:
            return Outcome(said="nothing serves now")
        if primary.id == watch.deployment:
            return go_back(turn, watch, before)
        told = [] if verdict.replaced else [f"ECS rolled back to {short(primary.revision)}"]
        if told and primary.rollout == _GOING_ON:
            primary = _awaited(turn, watch, primary)
        if not primary.complete:
            reason = f", and that failed: {primary.reason}" if primary.rollout == _FAILED and primary.reason else ""
            return Outcome(said="\n".join([*(text + reason for text in told), serves(turn)]))
        now = turn.watch(primary, primary.revision, ends=None)
        now.state = turn.look()
        wrong = checked(turn, now)
    except Interrupted:
        raise
    except TrainshedError as error:
        return Outcome(said=f"what serves now is not known: {error.message}")
    if wrong:
        return Outcome(said="\n".join([*told, f"{short(primary.revision)} serves, and wrongly:", *wrong]))
    return Outcome(said="".join(f"{text}, which keeps the traffic" for text in told), well=primary.revision)


def go_back(turn: Turn, watch: Watch, before: Before) -> Outcome:
    """Take back a deployment of ours that must not serve; tell how that ended. It has its own deadline: half of it is worse than none."""
    turn = replace(turn, again=f"`trainshed status {turn.component}` tells how it ends.")
    name = short(before.revision or watch.revision)
    try:
        running = turn.look()
        if running is None or running.primary is None or running.primary.id != watch.deployment:
            runs = running.primary.revision if running is not None and running.primary is not None else "nothing"
            return Outcome(said=f"nothing was rolled back: {short(runs)} is deployed meanwhile")
        if before.revision is None:
            starting.update(turn, running, watch.revision, {"desiredCount": 0})
            return Outcome(said="there is no revision to go back to: the service was scaled to 0")
        turn.note(f"going back to {name}")
        ends = time.monotonic() + _ROLLBACK_SECONDS
        problem = return_to(turn, running, before.revision, before.settings, ends=ends).problem
    except Interrupted:
        raise
    except TrainshedError as error:
        return Outcome(said=f"going back to {name} failed: {error.told}")
    if problem:
        return Outcome(said=f"going back to {name} failed: {problem}\n{serves(turn)}")
    return Outcome(said=f"rolled back to {name}", well=before.revision)


def return_to(  # noqa: PLR0913 - where to, and how
    turn: Turn, running: ServiceState, revision: str, settings: Mapping[str, Any], *, ends: float | None, wait: bool = True
) -> Returned:
    """Bring a service back to a revision with one call, follow it to its end, and check what serves then.

    A deployment that does so already is followed; one that failed is asked for anew.
    """
    own = running.primary
    if own is None or own.revision != revision or own.rollout == _FAILED or settings:
        force = {"forceNewDeployment": True} if own is not None and own.revision == revision and own.rollout == _FAILED else {}
        own = starting.update(turn, running, revision, {**settings, **force})
    if not wait:
        return Returned(deployment=own.id)
    watch = turn.watch(own, revision, ends=ends)
    problem = rollout.follow(watch).problem or "\n".join(checked(turn, watch))
    return Returned(deployment=own.id, problem=problem)


def checked(turn: Turn, watch: Watch) -> list[str]:
    """Read back the images of a revision that serves, and ask its own golden requests; list what is wrong."""
    wrong = proving.wrong_images(watch, proving.pinned(turn.ecs.task_definition(watch.revision)))
    known = records.known(turn.context, turn.service.name, watch.revision)
    return wrong or proving.wrong_answers(turn.ecs, turn.service, requests_of(turn.context, known.golden if known is not None else ""))


def requests_of(context: Context, digest: str) -> Sequence[Golden]:
    """Return the golden requests that a revision was proven with; none where none were kept."""
    content = records.golden_of(context, digest)
    if content is None:
        return ()
    return golden.parsed(content.decode(), place=f"the golden predictions {digest} of the ledger")


def serves(turn: Turn) -> str:
    """Say what serves now, as far as ECS tells."""
    try:
        state = turn.look()
    except TrainshedError as error:
        return f"what serves now is not known: {error.message}"
    if state is None or state.primary is None:
        return "nothing serves now"
    parts = [f"{short(one.revision)} with {one.running} of {one.desired} tasks" for one in state.deployments if one.running or one.primary]
    return f"deployed now: {', '.join(parts)}"


def _fallback(turn: Turn, watch: Watch) -> Deployment | None:
    """Return the deployment that took over; a failed one may be shown as the primary for a moment longer."""
    ends = time.monotonic() + turn.ecs.settling
    while True:
        state = turn.ecs.patiently(lambda: turn.ecs.service(turn.service.name))
        primary = state.primary if state is not None else None
        others = state is not None and len(state.deployments) > 1
        ours = primary is not None and primary.id == watch.deployment and primary.rollout == _FAILED
        if not (ours and others) or time.monotonic() >= ends:
            return primary
        process.pause(turn.ecs.poll)


def _awaited(turn: Turn, watch: Watch, fallback: Deployment) -> Deployment:
    """Wait until ECS's own rollback is over, so that the next command finds a settled service; return how it stands then."""
    ends = watch.ends if watch.ends is not None else time.monotonic() + _ROLLBACK_SECONDS
    found = fallback
    while True:
        state = turn.ecs.patiently(lambda: turn.ecs.service(turn.service.name))
        watch.tell_events(state)
        found = (state.deployment(fallback.id) if state is not None else None) or found
        if found.rollout != _GOING_ON or time.monotonic() >= ends:
            return found
        process.pause(turn.ecs.poll)
