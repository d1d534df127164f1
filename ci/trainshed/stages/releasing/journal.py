"""The journal of a release: what is about to be done is written before, what is done after; so whoever comes next can finish or undo.

It is a sequence of events of the kind ``release`` in the ledger, with the plan's id as key: each holds the whole state, and the newest
counts. The plan is attached once. A release is decided by its tag in git: before it, all can be undone; after it, it is only finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from trainshed import owner
from trainshed.errors import WorkFailed
from trainshed.ledger.leases import Lease
from trainshed.ledger.records import Event
from trainshed.releases import plan as plans
from trainshed.releases.plan import Plan
from trainshed.stages.context import Context

EVENT = "release"
OPEN, UNDOING, UNDONE, RELEASED = "open", "undoing", "undone", "released"
STEPS = ("promote", "stamp", "upload", "deploy", "tag", "record", "schedule")
DECIDED = "tag"
_PLAN = "release-plan"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a release stands.

    ``done`` maps each step that is done to the results it told; ``doing`` is the step that was begun and not ended, empty for none;
    ``reason`` says why it is undone; ``by`` and ``owner`` are who wrote it; ``at`` is seconds since 1970, by the database's clock.
    """

    plan: Plan
    state: str
    done: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    doing: str = ""
    reason: str = ""
    by: str = ""
    owner: str = ""
    at: float = 0.0
    manifest: str = ""

    @property
    def settled(self) -> bool:
        """Tell whether nothing is left to be done."""
        return self.state in {RELEASED, UNDONE}

    @property
    def begun(self) -> frozenset[str]:
        """Return the steps that may have changed something: those that are done, and the one that was begun."""
        return frozenset(filter(None, (*self.done, self.doing)))

    @property
    def decided(self) -> bool:
        """Tell whether it can no longer be undone."""
        return DECIDED in self.done


def alone(context: Context) -> AbstractContextManager[Lease]:
    """Hold the lease of this project's releases to the environment; `Held` at once where somebody has it."""
    key = f"{EVENT}:{context.config.environment.name}:{context.config.project.name}"
    return context.ledger.lease(key, deadline=0.0)


def newest(context: Context) -> Entry | None:
    """Return how the newest release of this project in the environment stands, None where there was none.

    Raises:
        WorkFailed: its plan is lost or of a newer Trainshed.
    """
    events = context.ledger.events(EVENT, context.config.environment.name, context.config.project.name, limit=1)
    return _entry(context, events[0]) if events else None


def entries(context: Context) -> list[Entry]:
    """Return all releases of this project in the environment, the newest first, each as it stands now."""
    return [_entry(context, event) for event in _latest(context)]


def last_released(context: Context, names: Collection[str] = ()) -> Entry | None:
    """Return the newest release that is whole; with ``names``, the newest that holds any of these pipelines and services."""
    whole = (event for event in _latest(context) if event.document["state"] == RELEASED)
    found = (_entry(context, event) for event in whole)  # one by one: each has a plan to be read
    return next((entry for entry in found if not names or {*entry.plan.pipelines, *entry.plan.services} & set(names)), None)


def last_of_each(context: Context, names: Collection[str]) -> dict[str, Entry]:
    """Return the newest release that is whole and holds a pipeline or service, of each that was ever released here."""
    found: dict[str, Entry] = {}
    for event in _latest(context):
        if found.keys() >= set(names):
            break
        if event.document["state"] == RELEASED:
            entry = _entry(context, event)
            for name in {*entry.plan.pipelines, *entry.plan.services} & set(names):
                found.setdefault(name, entry)
    return found


def begin(context: Context, plan: Plan) -> Entry:
    """Write that a release begins; nothing of it was done before."""
    context.ledger.attach(_digest(plan), _PLAN, plan.content())
    return _write(context, Entry(plan=plan, state=OPEN))


def doing(context: Context, entry: Entry, step: str) -> Entry:
    """Write that a step is about to be done."""
    return _write(context, replace(entry, doing=step))


def done(context: Context, entry: Entry, step: str, results: Sequence[Mapping[str, Any]], *, manifest: str = "") -> Entry:
    """Write that a step is done, with what it told; ``manifest`` is the digest of the release's manifest, once it is known."""
    return _write(context, replace(entry, doing="", done={**entry.done, step: list(results)}, manifest=manifest or entry.manifest))


def undoing(context: Context, entry: Entry, reason: str) -> Entry:
    """Write that a release is about to be undone; from now on it is never finished."""
    return _write(context, replace(entry, state=UNDOING, reason=entry.reason or reason))


def settled(context: Context, entry: Entry) -> Entry:
    """Write the end: released, or undone."""
    return _write(context, replace(entry, state=UNDONE if entry.state == UNDOING else RELEASED, doing=""))


def _latest(context: Context) -> list[Event]:
    return context.ledger.latest_events(EVENT, context.config.environment.name, context.config.project.name)


def _write(context: Context, entry: Entry) -> Entry:
    plan = entry.plan
    entry = replace(entry, by=context.by, owner=owner.mark())
    document = {
        "state": entry.state,
        "plan": _digest(plan),
        "release": plan.name,
        "tags": plan.tags,
        "commit": plan.commit,
        "lock_digest": plan.lock_digest,
        "source": plan.source,
        "done": {step: list(results) for step, results in entry.done.items()},
        "doing": entry.doing,
        "reason": entry.reason,
        "by": entry.by,
        "owner": entry.owner,
        "build_url": context.build_url,
        "manifest": entry.manifest,
    }
    context.ledger.record_event(EVENT, context.config.environment.name, plan.project, plan.id, document)
    return entry


def _entry(context: Context, event: Event) -> Entry:
    told = event.document
    content = context.ledger.attachment(str(told["plan"]), _PLAN)
    try:
        plan = plans.of(content or b"")
    except (ValueError, KeyError, TypeError) as error:
        message = f"the plan of release {told.get('release')} cannot be read: {error}"
        raise WorkFailed(message, next_step="Use the version of Trainshed that began it.") from error
    return Entry(
        plan=plan,
        state=told["state"],
        done=told["done"],
        doing=told["doing"],
        reason=told["reason"],
        by=told["by"],
        owner=told["owner"],
        at=event.created,
        manifest=told["manifest"],
    )


def _digest(plan: Plan) -> str:
    return f"sha256:{hashlib.sha256(plan.content()).hexdigest()}"
