"""``trainshed rollback``: bring services back to revisions that served well, image and model as the pair that they were."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainshed.errors import UsageError, WorkFailed
from trainshed.results import Report, Result
from trainshed.services.spec import Service
from trainshed.stages import deploy
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, turn, ways
from trainshed.stages.deploying.records import Known
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.deploying.ways import STAGE, Target, Way
from trainshed.tools.aws import Refused
from trainshed.tools.ecs import Definition, short


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked for. ``ends`` is on the monotonic clock."""

    to: str | None
    dry_run: bool
    wait: bool
    ends: float | None


def rollback(  # noqa: PLR0913 - the options of the command
    context: Context,
    names: Sequence[str] = (),
    *,
    to: str | None = None,
    release: str | None = None,
    dry_run: bool = False,
    wait: bool | None = None,
    deadline: float | None = None,
) -> Report:
    """Bring the named services back, or all.

    Args:
        context: the command's room.
        names: components that have a ``service.yaml``.
        to: the revision to go back to, such as ``predictor:17``; None: the last one that served well before the one that serves.
        release: the version, tag or manifest file of a release: what it deployed serves again.
        dry_run: show the difference, change nothing.
        wait: follow the rollout, read back the image and check golden predictions; None: yes.
        deadline: seconds for all of it.

    Raises:
        NothingSelected: there is no service.
        UsageError: an unknown name, a service.yaml that is wrong, or one revision for several services; a release that is not known, or
            whose manifest is not to be believed.
    """
    if to is not None and release is not None:
        raise UsageError("--to and --release exclude each other", next_step="Name a revision, or a release.")
    ends = None if deadline is None else time.monotonic() + deadline
    if release is not None:
        from trainshed.stages.releasing import going_back  # which `rollback` to a revision has no need of

        return going_back.to_release(context, names, release, dry_run=dry_run, wait=wait is not False, ends=ends)
    chosen = deploy.services(context, names)
    preparing.require_sound(context, chosen)
    if to is not None and len(chosen) > 1:
        raise UsageError(f"--to {to}: one revision belongs to one service, not to {len(chosen)}", next_step="Name the service.")
    way = _Asked(to=to, dry_run=dry_run, wait=wait is not False, ends=ends)
    return turn.each(context, chosen, STAGE, lambda name: _one(context, name, way))


def _one(context: Context, name: str, asked: _Asked) -> Result:
    service = preparing.read(context, name)
    if asked.dry_run:
        return ways.shown(_way(context, name, service, asked.to))

    def work(own: Turn) -> Result:
        way = _way(context, name, service, asked.to)
        again = f"`trainshed rollback {name} --to {way.target.name}` takes it up."
        return ways.gone(replace(own, again=again), way, wait=asked.wait)

    return turn.in_turn(context, name, service, stage=STAGE, ends=asked.ends, work=work)


def _way(context: Context, name: str, service: Service, to: str | None) -> Way:
    """Choose the revision, and verify it as a deploy would."""
    running = context.prediction.service(service.name)
    if running is None:
        raise UsageError(f"{name}: nothing is deployed, so there is nothing to go back from", next_step=f"Run `trainshed deploy {name}`.")
    history = records.history(context, service.name)
    begun = history[0] if history and history[0].to else None  # a way back whose end nobody saw: it comes first
    if to is not None:
        known = _named(to, service, history)
    else:
        known = _named(short(begun.to), service, history) if begun is not None else _before(running.revision, service, history)
    definition = _definition(context, known)
    target = Target(
        name=short(known.revision), revision=known.revision, definition=definition.document, golden=known.golden, good=known.good
    )
    return ways.verified(context, name, service, running, target, left=begun.revision if begun is not None else "")


def _before(serving: str, service: Service, history: Sequence[Known]) -> Known:
    """Return the last revision that served well before the one that serves; one that was gone back from does not count."""
    good = [known.revision for known in history if known.good]
    older = good[good.index(serving) + 1 :] if serving in good else [found for found in good if found != serving]
    if not older:
        message = f"{service.name}: the ledger knows no revision that served well before {short(serving)}"
        raise WorkFailed(message, next_step="Deploy what shall serve; or name a revision that served well with --to.")
    return next(known for known in history if known.revision == older[0])


def _named(to: str, service: Service, history: Sequence[Known]) -> Known:
    """Return the revision that was named: one that served well at some time, also if it was gone back from since."""
    wanted = short(to)
    wanted = f"{service.name}:{wanted}" if wanted.isdigit() else wanted
    if wanted.rpartition(":")[0] != service.name:
        raise UsageError(f"--to {to}: not a revision of {service.name}", next_step=f"Name one such as {service.name}:17.")
    found = next((known for known in history if short(known.revision) == wanted), None)
    if found is None or not found.proven:
        known = ", ".join(short(each.revision) for each in history if each.proven) or "none"
        message = f"--to {to}: the ledger does not know that {wanted} ever served well; known: {known}"
        raise UsageError(message, next_step="Name one of these, or deploy the commit that it was made of.")
    return found


def _definition(context: Context, target: Known) -> Definition:
    try:
        found = context.prediction.definition(target.revision)
    except Refused as refusal:
        message = f"{short(target.revision)} cannot be gone back to: {refusal.message}"
        raise UsageError(message, next_step="Name another with --to, or deploy the commit that it was made of.") from refusal
    if not found.active:
        message = f"{short(target.revision)} cannot be gone back to: it was deregistered"
        raise UsageError(message, next_step="Name another with --to, or deploy the commit that it was made of.")
    return found
