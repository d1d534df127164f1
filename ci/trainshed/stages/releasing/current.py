"""Which release is in force: the last one that was made, or the one that somebody went back to since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainshed.ledger.records import Event
from trainshed.releases.manifest import Manifest
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal

EVENT = "release-in-force"
BEGUN, ENDED, FAILED = "begun", "ended", "failed"


@dataclass(frozen=True, kw_only=True)
class InForce:
    """The release that production is meant to run.

    ``manifest`` is the digest by which `composing.of` finds it; ``back`` tells that somebody went back to it; ``services`` maps the
    components that were brought back to their revisions (ARN), empty where it was released; ``whole`` is False where only some services of
    that release went back, and the others stand as they did; ``going`` names the release that somebody began to go back to after, and whose
    end is not known, or was not good. ``at`` is seconds since 1970.
    """

    release: str
    manifest: str
    commit: str
    by: str
    at: float
    back: bool = False
    services: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    going: str = ""


def in_force(context: Context) -> InForce | None:
    """Return the release that is in force in the environment, None before the first one."""
    newest, back = _newest(context, EVENT), _newest(context, EVENT, ENDED)
    made = _made(context)
    found = max((event for event in (back, made) if event is not None), key=lambda event: event.created, default=None)
    if found is None:
        return None
    going = newest is not None and newest.document.get("state") != ENDED and newest.created >= found.created
    told = found.document
    return InForce(
        release=str(told["release"]),
        manifest=str(told["manifest"]),
        commit=str(told["commit"]),
        by=str(told["by"]),
        at=found.created,
        back=found is back,
        services=told.get("services", {}) if found is back else {},
        whole=bool(told.get("whole", True)),
        going=str(newest.document["release"]) if newest is not None and going else "",
    )


def since(context: Context, release: str) -> str:
    """Say that somebody went back from a release that was made last, and what brings it back; empty where nobody did."""
    found = in_force(context)
    if found is None or not found.back or found.release == release:
        return ""
    again = f"`trainshed --env {context.config.environment.name} rollback --release {release}`"
    return f"; {found.by} went back to {found.release} since, and {again} brings it back"


def record(context: Context, manifest: Manifest, *, state: str, services: Mapping[str, str], whole: bool) -> None:
    """Record that somebody goes back to a release, and how that ended: ``services`` maps components to their revisions (ARN)."""
    document = {
        "state": state,
        "release": manifest.release,
        "tags": manifest.tags,
        "manifest": manifest.digest,
        "commit": manifest.commit,
        "services": dict(services),
        "whole": whole,
        "by": context.by,
        "build_url": context.build_url,
    }
    context.ledger.record_event(EVENT, context.config.environment.name, context.config.project.name, manifest.digest, document)


def released(context: Context, environment: str) -> dict[str, str]:
    """Return the manifests of all releases of this project to an environment that are decided: digest → name, the newest first."""
    if not context.has_ledger:
        return {}
    events = context.ledger.latest_events(journal.EVENT, environment, context.config.project.name)
    whole = [event.document for event in events if event.document.get("manifest") and journal.DECIDED in event.document.get("done", {})]
    return {str(document["manifest"]): str(document["release"]) for document in whole}


def _newest(context: Context, kind: str, state: str = "") -> Event | None:
    """Return the newest event, of a state where one is given."""
    if not context.has_ledger:
        return None
    events = context.ledger.events(kind, context.config.environment.name, context.config.project.name, limit=None if state else 1)
    return next((event for event in events if not state or event.document.get("state") == state), None)


def _made(context: Context) -> Event | None:
    """Return the event that ended the newest release which is whole."""
    if not context.has_ledger:
        return None
    events = context.ledger.latest_events(journal.EVENT, context.config.environment.name, context.config.project.name)
    return next((event for event in events if event.document.get("state") == journal.RELEASED), None)
