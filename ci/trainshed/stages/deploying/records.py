"""What the ledger keeps of deployments: one event when a revision is about to be asked for, one when its end is known.

Both have the kind ``deployment`` and the revision's ARN as key. The newest event of a revision tells its state; events that are older
than states are read by their ``good``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.ledger.records import Event
from trainshed.stages.context import Context
from trainshed.tools.ecs import short

EVENT = "deployment"
BEGUN, GOOD, BAD, ROLLED_BACK = "begun", "good", "bad", "rolled-back"
_GOLDEN = "golden"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one revision.

    ``state`` is its newest; ``proven`` tells whether it ever served well; ``deployment`` is the last that is known, empty before ECS
    named it; ``golden`` is the digest that its golden requests are attached to, empty for none; ``at`` is seconds since 1970; ``to`` is
    the revision that somebody went back to from it.
    """

    revision: str
    state: str
    proven: bool
    unit: Mapping[str, Any] = field(default_factory=dict)
    golden: str = ""
    deployment: str = ""
    digest: str = ""
    model: Mapping[str, Any] | None = None
    reason: str = ""
    by: str = ""
    at: float = 0.0
    to: str = ""

    @property
    def good(self) -> bool:
        """Tell whether it may be gone back to: it served well, and nobody went back from it since."""
        return self.state == GOOD


@dataclass(frozen=True, kw_only=True)
class Story:
    """What stays the same from a revision's first record to its last. ``previous`` is the revision that served before.

    ``settings`` are the service's own, as they were before the deploy changed them; ``release`` is the name of the release that this is
    part of, and ``release_id`` its key, both empty for none.
    """

    component: str
    service: str
    revision: str
    image: str
    digest: str
    model: Mapping[str, Any] | None
    unit: Mapping[str, Any]
    golden: str = ""
    previous: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    release: str = ""
    release_id: str = ""


def begun(context: Context, story: Story, *, deployment: str = "") -> None:
    """Record that a revision is asked for; once more, as soon as ECS named the deployment."""
    _record(context, story, state=BEGUN, good=False, reason="", deployment=deployment)


def ended(context: Context, story: Story, *, deployment: str, problem: str = "") -> None:
    """Record how a revision's rollout ended: well, or with a problem."""
    _record(context, story, state=BAD if problem else GOOD, good=not problem, reason=problem, deployment=deployment)


def left(context: Context, service: str, known: Known, *, to: str) -> None:
    """Record that somebody went back from a revision, or deleted its service (``to`` is empty): it is no longer one to go back to."""
    events = context.ledger.events(EVENT, context.config.environment.name, service, known.revision, limit=1)
    document = {**(events[0].document if events else {}), "state": ROLLED_BACK, "good": False, "to": to}
    reason = f"rolled back to {short(to)}" if to else "deleted with its service"
    document |= {"reason": reason, "by": context.by, "build_url": context.build_url}
    _write(context, service, known.revision, document)


def history(context: Context, service: str) -> list[Known]:
    """Return every revision that the ledger knows of a service, by the own tier or above, the one that was told of last first."""
    newest: dict[str, Event] = {}
    proven: set[str] = set()
    for event in context.ledger.events(EVENT, context.config.environment.name, service):
        newest.setdefault(event.key, event)
        if state_of(event) == GOOD:
            proven.add(event.key)
    return [_known(event, proven=revision in proven) for revision, event in newest.items()]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a release asked for of one component's service: its name then, the revisions, and its settings as they were before.

    ``previous`` is the revision that served when it was first asked for, empty for none.
    """

    service: str
    revisions: tuple[str, ...] = ()
    previous: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def of_release(context: Context, release_id: str, component: str) -> Asked | None:
    """Return what a release asked for of a component, None for nothing: then it changed nothing of it either."""
    events = context.ledger.events(EVENT, context.config.environment.name)
    mine = [one for one in events if one.document.get("release_id") == release_id and one.document.get("component") == component]
    if not mine:
        return None
    settings: Mapping[str, Any] = next((one.document["settings"] for one in reversed(mine) if one.document.get("settings")), {})
    previous = mine[-1].document.get("previous") or ""
    return Asked(service=mine[0].name, revisions=tuple(dict.fromkeys(one.key for one in mine)), previous=previous, settings=settings)


def known(context: Context, service: str, revision: str) -> Known | None:
    """Return what is known of one revision."""
    return next((found for found in history(context, service) if found.revision == revision), None)


def proven(context: Context, service: str) -> list[Known]:
    """Return the revisions that served well and that nobody went back from, the newest first."""
    return [found for found in history(context, service) if found.good]


def keep_golden(context: Context, content: bytes, digest: str) -> None:
    """Keep a revision's golden requests, so that a rollback can ask them although the file has changed since."""
    context.ledger.attach(digest, _GOLDEN, content)


def golden_of(context: Context, digest: str) -> bytes | None:
    """Return golden requests that were kept."""
    return context.ledger.attachment(digest, _GOLDEN) if digest else None


def _record(context: Context, story: Story, **state: Any) -> None:  # noqa: ANN401 - the fields of the document
    document = {
        "component": story.component,
        "image": story.image,
        "digest": story.digest,
        "model": story.model,
        "previous": story.previous,
        "unit": story.unit,
        "golden": story.golden,
        "settings": dict(story.settings),
        "release": story.release,
        "release_id": story.release_id,
        "build_url": context.build_url,
        "by": context.by,
        **state,
    }
    _write(context, story.service, story.revision, document)


def _write(context: Context, service: str, revision: str, document: Mapping[str, Any]) -> None:
    context.ledger.record_event(EVENT, context.config.environment.name, service, revision, document)


def state_of(event: Event) -> str:
    """Return the state that an event tells of its revision."""
    return str(event.document.get("state") or (GOOD if event.document.get("good") else BAD))


def _known(event: Event, *, proven: bool) -> Known:
    told = event.document
    return Known(
        revision=event.key,
        state=state_of(event),
        proven=proven,
        unit=told.get("unit") or {},
        golden=told.get("golden") or "",
        deployment=told.get("deployment") or "",
        digest=told.get("digest") or "",
        model=told.get("model"),
        reason=told.get("reason") or "",
        by=told.get("by") or told.get("build_url") or "",
        at=event.created,
        to=told.get("to") or "",
    )
