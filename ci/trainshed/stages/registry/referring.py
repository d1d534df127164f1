"""Which images of this registry somebody still needs: locks of main, the lock of this tree, releases, services and what they go back to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from trainshed import config, settings
from trainshed.config import Config
from trainshed.errors import UsageError
from trainshed.images import references
from trainshed.pipelines import lock as locks
from trainshed.settings import Tier
from trainshed.stages import locking, trust
from trainshed.stages.context import Context
from trainshed.stages.deploying.records import EVENT
from trainshed.stages.releasing import composing, current
from trainshed.tools.aws import Refused

_ABSENT = "ClusterNotFoundException"


@dataclass(frozen=True, kw_only=True)
class Referred:
    """Digests by repository (``host/path``); ``notes`` say who could not be asked."""

    digests: Mapping[str, frozenset[str]]
    notes: tuple[str, ...] = ()


def referred(context: Context) -> Referred:
    """Collect what is needed of the environment's registry, by every environment that uses it.

    Raises:
        UsageError: a lock, or the file of a service, is wrong; AWS refused to tell what runs.
        RemoteError: AWS could not be asked.
    """
    found: dict[str, set[str]] = defaultdict(set)
    notes: list[str] = []
    for reference in _all(context, notes):
        image = references.parse(reference)
        if image.digest:
            found[image.repository].add(image.digest)
    return Referred(digests={name: frozenset(digests) for name, digests in found.items()}, notes=tuple(notes))


def _all(context: Context, notes: list[str]) -> Iterator[str]:
    yield from _locked(context)
    for place in sharing(context.config):
        yield from _deployed(context, place.environment.name)
        yield from _released(context, place.environment.name)
        if place.environment.prediction_service.cluster is None:
            continue  # this machine's own engine holds what its own service runs
        if place.environment.name not in trust.allowed(place, context.tier):
            notes.append(f"environment {place.environment.name} was not asked what runs: it is for {place.environment.trust} and above")
            continue
        there = context if place is context.config else Context(config=place, console=context.console, tier=context.tier)
        if there is context:
            yield from _running(there)
        else:
            with closing(there):
                yield from _running(there)


def sharing(own: Config) -> Iterator[Config]:
    """Yield the configuration of each environment that uses the same registry, the own one first."""
    yield own
    for name in own.environments:
        if name != own.environment.name:
            other = config.load(own.file, environment=name, overrides=settings.own())
            if other.environment.registry == own.environment.registry:
                yield other


def _locked(context: Context) -> Iterator[str]:
    here = locking.path(context)
    if here.exists():
        yield from locks.read(here).references.values()
    if context.has_ledger:
        for document in context.ledger.locks(least=Tier.MAIN):
            yield from _references(document.get("images"))


def _references(images: object) -> Iterator[str]:
    for image in images.values() if isinstance(images, Mapping) else ():
        if isinstance(image, Mapping) and isinstance(image.get("reference"), str):
            yield image["reference"]


def _deployed(context: Context, environment: str) -> Iterator[str]:
    """Yield every image that was ever asked for there: any revision may be gone back to."""
    if context.has_ledger:
        for event in context.ledger.events(EVENT, environment):
            if isinstance(event.document.get("image"), str):
                yield event.document["image"]


def _released(context: Context, environment: str) -> Iterator[str]:
    """Yield every image of every release there: what it deployed may be registered again by its manifest, and its pipelines run on."""
    for digest in current.released(context, environment):
        manifest = composing.of(context, digest)
        yield from (image["reference"] for image in manifest.images.values())
        for service in manifest.services.values():
            yield from _images(service["definition"])


def _running(context: Context) -> Iterator[str]:
    """Yield the images of every revision that a service of the cluster has: what runs, what comes and what goes."""
    ecs = context.prediction
    try:
        found = list(ecs.services())
        revisions = {state.revision for state in found} | {each.revision for state in found for each in state.deployments}
        for revision in sorted(revisions):
            yield from _images(ecs.task_definition(revision))
    except Refused as error:
        if error.code != _ABSENT:
            message = f"cluster {ecs.cluster}: what runs is not known, so nothing may be let expire: {error.message}"
            raise UsageError(message, next_step=error.next_step) from error


def _images(definition: Mapping[str, object]) -> Iterator[str]:
    listed = definition.get("containerDefinitions")
    for container in listed if isinstance(listed, Iterable) else ():
        if isinstance(container, Mapping) and isinstance(container.get("image"), str):
            yield container["image"]
