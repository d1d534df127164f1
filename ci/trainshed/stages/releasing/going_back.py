"""``trainshed rollback --release``: what an earlier release deployed serves again, by its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from trainshed.errors import Interrupted, NothingSelected, RemoteError, TrainshedError, UsageError, WorkFailed
from trainshed.images import components
from trainshed.ledger.leases import Held
from trainshed.releases.manifest import Manifest
from trainshed.releases.manifest import Service as Released
from trainshed.results import Report, Result, Status, failed
from trainshed.services import difference
from trainshed.services.spec import Service
from trainshed.stages.context import Context
from trainshed.stages.deploying import preparing, records, turn, ways
from trainshed.stages.deploying.turn import Turn
from trainshed.stages.deploying.ways import STAGE, Target, Way
from trainshed.stages.releasing import composing, current, journal, vouching
from trainshed.tools.aws import Refused
from trainshed.tools.ecs import Definition
from trainshed.tools.kubeflow_records import NotFound


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What was asked for. ``ends`` is on the monotonic clock."""

    manifest: Manifest
    name: str
    wait: bool
    ends: float | None


def to_release(  # noqa: PLR0913 - the options of the command
    context: Context, names: Sequence[str], release: str, *, dry_run: bool, wait: bool, ends: float | None
) -> Report:
    """Bring the named services of a release, or all of them, back to what it deployed; all are verified before the first is touched.

    Args:
        context: the command's room, of the environment that the release went to.
        names: components.
        release: version, tag or file of a manifest.
        dry_run: show the difference, change nothing.
        wait: follow the rollout, and prove it.
        ends: the deadline, on the monotonic clock.

    Raises:
        NothingSelected: the release deployed no service.
        UsageError: an unknown name; the release is not known here, or its manifest is not to be believed.
        WorkFailed: a release is being made, or was left open.
    """
    manifest = composing.find(context, release)
    vouching.require(context, manifest)
    chosen = _chosen(context, manifest, names)
    preparing.require_sound(context, chosen)
    asked = _Asked(manifest=manifest, name=release, wait=wait, ends=ends)
    if dry_run:
        looked = turn.each(context, chosen, STAGE, lambda name: _shown(context, name, asked))
        return _told(context, manifest, looked)
    with _alone(context):
        return _told(context, manifest, _all(context, chosen, asked))


def _all(context: Context, chosen: Sequence[str], asked: _Asked) -> Report:
    """Verify all services, then bring back one after the other; what is in force is recorded before and after."""
    looked = _verified(context, chosen, asked)
    if looked is not None:
        return looked
    whole = set(chosen) == set(asked.manifest.services)
    if chosen:
        current.record(context, asked.manifest, state=current.BEGUN, services={}, whole=whole)
    report = turn.each(context, chosen, STAGE, lambda name: _one(context, name, asked))
    if chosen and asked.wait:
        state = current.FAILED if report.exit_code else current.ENDED
        services = {result.name: str(result.details["arn"]) for result in report.results if result.good}
        current.record(context, asked.manifest, state=state, services=services, whole=whole)
    return report


def _verified(context: Context, chosen: Sequence[str], asked: _Asked) -> Report | None:
    """Look at every service before the first is touched; return the report of what is wrong, None when nothing is."""
    results = []
    for name in chosen:
        try:
            _way(context, name, preparing.read(context, name), asked)
        except Interrupted:
            raise
        except TrainshedError as error:
            results.append(failed(name, STAGE, error))
    if not results:
        return None
    wrong = {result.name for result in results}
    cause = f"{', '.join(sorted(wrong))} cannot go back, so nothing was touched"
    results += [Result(name=name, stage=STAGE, status=Status.ABORTED, cause=cause) for name in chosen if name not in wrong]
    for result in results:
        context.console.end(result)
    return Report(stage=STAGE, results=tuple(results))


def _one(context: Context, name: str, asked: _Asked) -> Result:
    service = preparing.read(context, name)

    def work(own: Turn) -> Result:
        way = _way(context, name, service, asked)
        again = f"`trainshed rollback --release {asked.name} {name}` takes it up."
        result = ways.gone(replace(own, again=again), way, wait=asked.wait)
        state = own.look()
        arn = state.revision if state is not None else ""
        return replace(result, details={**result.details, "release": asked.manifest.release, "arn": arn})

    return turn.in_turn(context, name, service, stage=STAGE, ends=asked.ends, work=work)


def _shown(context: Context, name: str, asked: _Asked) -> Result:
    return ways.shown(_way(context, name, preparing.read(context, name), asked))


def _chosen(context: Context, manifest: Manifest, names: Sequence[str]) -> list[str]:
    """Return the services that go back; those that came after the release stay as they are, which is told."""
    if not manifest.services:
        raise NothingSelected(f"release {manifest.release} deployed no service", next_step="Name another release.")
    chosen = list(components.select(sorted(manifest.services), names, what=f"service of release {manifest.release}"))
    known = {name for name, component in components.discover(context.config.project.components).items() if component.service}
    gone = [name for name in chosen if name not in known]
    if gone:
        message = f"release {manifest.release} deployed {', '.join(gone)}, and this tree has no such service"
        raise UsageError(message, next_step=f"Check out {manifest.commit[:12]}, and run it there; or name the others.")
    for name in sorted(known - manifest.services.keys()):
        context.console.line(f"  {name}: release {manifest.release} did not deploy it: it is left alone")
    return chosen


def _way(context: Context, name: str, service: Service, asked: _Asked) -> Way:
    told = asked.manifest.services[name]
    if service.name != told["service"]:
        message = f"{name}: its service is {service.name} here, and release {asked.manifest.release} deployed {told['service']}"
        raise UsageError(message, next_step=f"Check out {asked.manifest.commit[:12]}, and run it there.")
    running = context.prediction.service(service.name)
    if running is None:
        message = f"{name}: nothing is deployed, so there is nothing to go back from"
        raise UsageError(message, next_step=f"Run `trainshed deploy {name}`, then this again; or leave it out by naming the others.")
    registered = _registered(context, told, running.revision)
    history = records.history(context, service.name)
    known = next((one for one in history if registered is not None and one.revision == registered.arn), None)
    begun = history[0] if known is not None and history[0].to == known.revision else None  # a way back whose end nobody saw
    target = Target(
        name=told["revision"],
        revision=registered.arn if registered is not None else "",
        definition=told["definition"],
        golden=told["golden"],
        good=known is not None and known.good,
        release=asked.manifest.release,
    )
    return ways.verified(context, name, service, running, target, left=begun.revision if begun is not None else "")


def _registered(context: Context, told: Released, serving: str) -> Definition | None:
    """Return the revision of the release, or the one that serves where it is of the same content; None where both are not."""
    for revision in (told["arn"], serving):
        try:
            found = context.prediction.definition(revision)
        except Refused as refusal:
            if refusal.denied:
                raise
            continue
        if found.active and not difference.changes(found.document, told["definition"]):
            return found
    return None


@contextmanager
def _alone(context: Context) -> Iterator[None]:
    """Hold the lease of releases: a release and a rollback at once would leave a mixture.

    Raises:
        WorkFailed: somebody holds it, or a release was left open.
    """
    try:
        with journal.alone(context):
            entry = journal.newest(context)
            if entry is not None and not entry.settled:
                message = f"release {entry.plan.name} was begun by {entry.by} and not ended"
                undo = f"`trainshed --env {entry.plan.source} release --undo`"
                raise WorkFailed(message, next_step=f"Run {undo}, which undoes or finishes it; then run this again.")
            yield
    except Held as error:
        message = f"a release, or a rollback to one, is being made in {context.config.environment.name} by {error.holder}"
        raise WorkFailed(message, next_step="Wait for its end, then run this again.") from error


def _told(context: Context, manifest: Manifest, report: Report) -> Report:
    """Add what the release is, and how its pipelines stand: their versions are never taken away by a rollback."""
    pipelines = _pipelines(context, manifest)
    for name, told in pipelines.items():
        context.console.line(f"  {name}: release {manifest.release} has version {told['version']}, {told['state']}")
    extra = {"release": manifest.release, "tags": manifest.tags, "manifest": manifest.digest, "pipelines": pipelines}
    return replace(report, extra={**report.extra, **extra})


def _pipelines(context: Context, manifest: Manifest) -> dict[str, dict[str, Any]]:
    found = {}
    for name, told in manifest.pipelines.items():
        try:
            context.kubeflow.version(told["pipeline_id"], told["version_id"])
            state = "which is in Kubeflow"
        except NotFound:
            state = "which is no longer in Kubeflow"
        except (RemoteError, UsageError) as error:
            state = f"and whether it is in Kubeflow is not known: {error.message}"
        found[name] = {"version": told["version"], "version_id": told["version_id"], "state": state}
    return found
