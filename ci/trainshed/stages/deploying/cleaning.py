"""Old revisions, taken out of use last: never one that runs, that anything could start tasks from, or that could be gone back to."""

from __future__ import annotations

from collections.abc import Iterator

from trainshed.errors import Interrupted, TrainshedError
from trainshed.stages.deploying import records
from trainshed.stages.deploying.turn import Turn
from trainshed.tools.ecs import Ecs, short

_ENDED = frozenset({records.GOOD, records.BAD, records.ROLLED_BACK})


def clean(turn: Turn) -> list[str]:
    """Deregister what is left over; return what people should know. It never fails: the deploy has already succeeded."""
    notes = []
    try:
        for revision in superfluous(turn):
            turn.require_alone()
            turn.ecs.deregister(revision)
            notes.append(f"{short(revision)} was deregistered")
    except Interrupted:
        raise
    except TrainshedError as error:
        notes.append(f"old revisions stay: {error.message}")
    return notes


def superfluous(turn: Turn) -> list[str]:
    """Return the revisions that may go, the oldest first.

    Only those that this environment's ledger knows to have ended: what was registered by hand, or for another environment that shares
    the family, is not ours. The newest ``keep-revisions`` stay, and as many of those that served well. A revision of a release may go: its
    manifest has its definition, from which a rollback registers it again.
    """
    keep = turn.context.config.environment.prediction_service.keep_revisions
    active = list(turn.ecs.revisions(turn.service.name))
    history = records.history(turn.context, turn.service.name)
    targets = {known.revision for known in [known for known in history if known.good][: keep + 1]}  # the first one serves
    ended = {known.revision for known in history if known.state in _ENDED}
    old = [revision for revision in active[keep:] if revision in ended and revision not in targets]
    if not old:
        return []
    used = set(_used(turn.ecs))
    return [revision for revision in reversed(old) if revision not in used]


def _used(ecs: Ecs) -> Iterator[str]:
    """Yield every revision that a service, in any cluster, refers to, or that a task runs."""
    for cluster in ecs.clusters():
        for state in cluster.services():
            yield state.revision
            yield from (deployment.revision for deployment in state.deployments)
        yield from cluster.running_revisions()
