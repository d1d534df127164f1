"""Decide what to do for each component, and say why: facts in, a plan out, nothing touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CHECKS = ("build", "scan", "test")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of one check of one image: green, red (with the reason), stale (with the reason), or nothing."""

    green: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one component before work.

    ``input_digest`` is None while an own base has no image yet; ``digest`` is None when no image of these inputs is in the
    registry; ``changes`` says what differs from the inputs of the last image that the ledger remembers.
    """

    name: str
    input_digest: str | None
    digest: str | None
    changes: tuple[str, ...] = ()
    known_before: bool = False
    waits_for: tuple[str, ...] = ()
    standings: Mapping[str, Standing] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Action:
    """One check of one component: to be done or not, and its cause."""

    check: str
    needed: bool
    cause: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One component's part of the plan. ``reaches`` names the pipelines and services that take a new image."""

    name: str
    input_digest: str | None
    digest: str | None
    actions: tuple[Action, ...]
    reaches: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the checks that will be made."""
        return tuple(action.check for action in self.actions if action.needed)

    def action(self, check: str) -> Action:
        """Return the action of a check."""
        return next(action for action in self.actions if action.check == check)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, in which order, and why. ``waves`` are names that may run side by side, one list after the other."""

    components: tuple[Planned, ...]
    waves: tuple[tuple[str, ...], ...]
    plan_digest: str

    def of(self, name: str) -> Planned:
        """Return one component's part."""
        return next(planned for planned in self.components if planned.name == name)


def decide(facts: Facts, reaches: Iterable[str] = ()) -> Planned:
    """Decide the actions of one component."""
    build = _build(facts)
    actions = [Action(check="build", needed=build is not None, cause=build or "the image of these inputs is in the registry")]
    actions += [_check(facts, check, rebuilt=build is not None) for check in CHECKS[1:]]
    return Planned(
        name=facts.name, input_digest=facts.input_digest, digest=facts.digest, actions=tuple(actions), reaches=tuple(sorted(reaches))
    )


def _build(facts: Facts) -> str | None:
    """Return why the image must be built; None when it is there."""
    if facts.digest is not None:
        return None
    if facts.waits_for:
        return f"base moves: {', '.join(facts.waits_for)}"
    if facts.changes:
        return "; ".join(facts.changes)
    return "the registry has no image of these inputs" if facts.known_before else "never built here"


def _check(facts: Facts, check: str, *, rebuilt: bool) -> Action:
    if rebuilt:
        return Action(check=check, needed=True, cause="new image")
    standing = facts.standings.get(check, Standing())
    if standing.green:
        return Action(check=check, needed=False, cause=standing.reason or "green for this digest")
    return Action(check=check, needed=True, cause=standing.reason or f"no {check} verdict for this digest")


def plan_digest(sources: Mapping[str, str]) -> str:
    """Digest a selection of components by their *source digests*: equal for equal trees, whatever has been built already."""
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(sources.items()))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def document(plan: Plan) -> dict[str, Any]:
    """Return what ``plan --json`` adds to the document."""
    return {"waves": [list(wave) for wave in plan.waves], "plan_digest": plan.plan_digest}
