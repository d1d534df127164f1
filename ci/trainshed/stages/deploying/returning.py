"""Going back to a revision, image and model as the pair that they are: followed, read back and asked like any other deployment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from trainshed.errors import Interrupted, TrainshedError
from trainshed.services import golden
from trainshed.services.golden import Golden
from trainshed.stages.context import Context
from trainshed.stages.deploying import proving, records, rollout, starting
from trainshed.stages.deploying.standing import short
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.deploying.watching import Watch
from trainshed.tools.ecs import ServiceState

_ROLLBACK_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Returned:
    """How going back ended: ``problem`` is empty when the revision serves as it did. ``deployment`` is ECS's id."""

    deployment: str
    problem: str = ""


def go_back(turn: Turn, watch: Watch, previous: str | None) -> str:
    """Take back a deployment of ours that must not serve; tell how that ended. It has its own deadline: half of it is worse than none."""
    try:
        running = turn.look()
        if running is None or running.primary is None or running.primary.id != watch.deployment:
            runs = running.primary.revision if running is not None and running.primary is not None else "nothing"
            return f"nothing was rolled back: {short(runs)} is deployed meanwhile"
        if previous is None:
            turn.require_alone()
            turn.ecs.update_service(turn.service.name, watch.revision, {"desiredCount": 0})
            return "there is no revision to go back to: the service was scaled to 0"
        turn.note(f"going back to {short(previous)}")
        problem = return_to(turn, running, previous, ends=time.monotonic() + _ROLLBACK_SECONDS).problem
    except Interrupted:
        raise
    except TrainshedError as error:
        return f"going back to {short(previous or watch.revision)} failed: {error.told}"
    return f"going back to {short(previous)} failed: {problem}\n{serves(turn)}" if problem else f"rolled back to {short(previous)}"


def after_failure(turn: Turn, watch: Watch, previous: str | None) -> str:
    """Make sure that a deployment of ours that failed does not stay: ECS rolled back, or we do; check what serves then."""
    try:
        state = turn.ecs.service(turn.service.name)
        primary = state.primary if state is not None else None
        if primary is None:
            return "nothing serves now"
        if primary.id == watch.deployment:
            return go_back(turn, watch, previous)
        if primary.rollout != "COMPLETED":
            return serves(turn)
        now = turn.watch(primary, primary.revision, ends=None)
        now.state = state
        wrong = checked(turn, now)
    except Interrupted:
        raise
    except TrainshedError as error:
        return f"what serves now is not known: {error.message}"
    return "\n".join([f"{short(primary.revision)} serves, and wrongly:", *wrong]) if wrong else ""


def return_to(turn: Turn, running: ServiceState, revision: str, *, ends: float | None, wait: bool = True) -> Returned:
    """Bring a service back to a revision with one call, follow it to its end, and check what serves then."""
    own = starting.update(turn, running, revision, {})
    if not wait:
        return Returned(deployment=own.id)
    watch = turn.watch(own, revision, ends=ends)
    problem = rollout.follow(watch) or "\n".join(checked(turn, watch))
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
        state = turn.ecs.service(turn.service.name)
    except TrainshedError as error:
        return f"what serves now is not known: {error.message}"
    if state is None or state.primary is None:
        return "nothing serves now"
    parts = [f"{short(one.revision)} with {one.running} of {one.desired} tasks" for one in state.deployments if one.running or one.primary]
    return f"deployed now: {', '.join(parts)}"
