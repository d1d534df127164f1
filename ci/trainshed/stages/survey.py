"""What the repository holds, what its images stand on, and what of it is there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainshed.config import Config
from trainshed.errors import NothingSelected, RemoteError, TrainshedError, UsageError
from trainshed.images import inputs as inputs_of
from trainshed.images import planning, references
from trainshed.images.components import Component, discover, select
from trainshed.images.graph import Graph
from trainshed.images.hashes import HashCache
from trainshed.images.inputs import Inputs
from trainshed.stages.context import Context
from trainshed.tools import process

if TYPE_CHECKING:
    from trainshed.tools.docker import Engine
    from trainshed.tools.registry import RegistryClient

LOOKUPS = 16
_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between questions to a cache that does not have an image yet."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A foreign base at a digest. ``pinned`` is what FROM shall say; for an engine's own copy that is the name as written."""

    reference: str
    digest: str
    pinned: str
    local: bool = False


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The selected components with their own bases, and everything that their digests depend on."""

    config: Config
    components: Mapping[str, Component]
    graph: Graph
    selected: tuple[str, ...]
    pins: Mapping[str, Pin]
    hashes: HashCache
    _sources: dict[str, Inputs] = field(default_factory=dict)

    def arguments(self, name: str) -> dict[str, str]:
        """Return a component's build arguments: the project's, its own over them."""
        return {**self.config.build.args, **self.components[name].settings.args}

    def bases(self, name: str, own: Mapping[str, str]) -> dict[str, str]:
        """Return the digests of what an image stands on: own bases by component name, foreign ones by reference."""
        return {key: own[key] if key in self.components else self.pins[key].digest for key in self.graph.image_bases(name)}

    def own_bases(self, name: str) -> tuple[str, ...]:
        """Return the own bases that the image itself (not just its tests) stands on."""
        return tuple(key for key in self.graph.image_bases(name) if key in self.components)

    def inputs(self, name: str, own: Mapping[str, str]) -> Inputs:
        """Return the inputs of a component whose own bases have the given image digests."""
        source = self.source(name)
        if not self.own_bases(name):
            return source
        bases = self.bases(name, own)
        manifest = {**source.manifest, "bases": {key: bases[key] for key in source.manifest["bases"]}}
        return Inputs(digest=inputs_of.digest_of(manifest), manifest=manifest)

    def source(self, name: str) -> Inputs:
        """Return the inputs with own bases replaced by *their* sources: known before anything is built."""
        if name not in self._sources:
            self._sources[name] = self.taken(name, {base: self.source(base).digest for base in self.own_bases(name)})
        return self._sources[name]

    def taken(self, name: str, own: Mapping[str, str]) -> Inputs:
        """Take the inputs from the tree as it is now; `inputs` remembers how it was."""
        return inputs_of.image_inputs(
            self.components[name],
            args=self.arguments(name),
            platforms=self.config.build.platforms,
            secrets=self.config.build.secrets,
            bases=self.bases(name, own),
            hashes=self.hashes,
        )

    def plan_digest(self, names: Iterable[str] | None = None) -> str:
        """Digest the selection (or the named components) as the tree stands."""
        return planning.plan_digest({name: self.source(name).digest for name in (self.selected if names is None else names)})


def survey(context: Context, names: Sequence[str] = (), *, pins: Mapping[str, str] | None = None) -> Survey:
    """Read the tree and resolve foreign bases, all at once.

    Args:
        context: the command's room.
        names: components to select, with their own bases; all when empty.
        pins: digests of foreign bases that are known already (from a lock); those are not asked for.

    Raises:
        UsageError: the tree is wrong, or a base is not approved.
        NothingSelected: there is no component.
        RemoteError: a foreign base cannot be resolved.
    """
    project = context.config.project
    components = discover(project.components)
    if not components:
        message = f"{project.components}: there is no component"
        raise NothingSelected(message, next_step="Add one with `trainshed init --component NAME`.")
    graph = Graph.of(components, context.config.build.args)
    chosen = set(select(components, names))
    chosen |= {base for name in chosen for base in graph.ancestors(name)}
    selected = tuple(name for name in graph.order() if name in chosen)
    foreign = sorted({reference for name in selected for reference in graph.foreign(name)})
    _approved(context.config, components, graph, selected)
    known = pins or {}
    found = {reference: Pin(reference=reference, digest=known[reference], pinned=reference) for reference in foreign if reference in known}
    found.update(resolve(context, [reference for reference in foreign if reference not in known]))
    hashes = HashCache(project.state / "hashes.json")
    return Survey(config=context.config, components=components, graph=graph, selected=selected, pins=found, hashes=hashes)


def resolve(context: Context, wanted: Sequence[str]) -> dict[str, Pin]:
    """Resolve foreign bases to digests, side by side; all that cannot be resolved are told at once.

    Where the environment's registry is the embedded one, the engine's own copy comes first (it may have been made here).
    """
    if not wanted:
        return {}
    local = _local_copies(context, wanted) if context.config.environment.registry is None else {}
    missing = [reference for reference in wanted if reference not in local]
    resolved = process.interruptible(lambda: _asked(context, missing)) if missing else {}
    failures = [outcome for outcome in resolved.values() if isinstance(outcome, TrainshedError)]
    if failures:
        raise RemoteError(
            "\n".join(failure.message for failure in failures),
            next_step="Check the reference and the registry's address and login; `trainshed doctor` asks them all.",
        )
    return {**local, **{reference: pin for reference, pin in resolved.items() if isinstance(pin, Pin)}}


def _asked(context: Context, missing: Sequence[str]) -> dict[str, Pin | TrainshedError]:
    with ThreadPoolExecutor(LOOKUPS, initializer=process.abandonable) as pool:
        return dict(zip(missing, pool.map(lambda reference: _resolved(context, reference), missing), strict=True))


def _resolved(context: Context, reference: str) -> Pin | TrainshedError:
    mirror = references.mirrored(reference, context.config.mirrors)
    try:
        digest = context.registry.digest(reference) if mirror is None else _through(context.registry, mirror)
    except TrainshedError as error:
        return RemoteError(f"base image {reference}: {error.message}", next_step=error.next_step)
    if digest is None:
        where = "is not in its registry" if mirror is None else f"is not in its mirror (bases.mirrors): there is no {mirror}"
        return RemoteError(f"base image {reference} {where}")
    return Pin(reference=reference, digest=digest, pinned=references.pin(mirror or reference, digest))


def _through(client: RegistryClient, mirror: str) -> str | None:
    """Return the digest of an image behind a cache, which may have to fetch it first: patience before "missing" is believed.

    ECR's makes a repository at the first pull, and answers 404 until it has; and it fetches by tag only, never what it is asked for by
    digest alone (aws/containers-roadmap#2837). So the tag is asked for as a pull does it, and before the digest that stands beside it.
    """
    found = references.parse(mirror)
    for pause in (*_PAUSES, None):
        if found.digest and found.tag:
            client.digest(f"{found.repository}:{found.tag}", fetch=True)
        digest = client.digest(mirror, fetch=True)
        if digest is not None or pause is None:
            return digest
        process.pause(pause)
    raise AssertionError("the last attempt returns")


def _local_copies(context: Context, wanted: Sequence[str]) -> dict[str, Pin]:
    found = {}
    for reference in wanted:
        image = _base(context, context.engine, reference)
        if image is not None:
            found[reference] = Pin(reference=reference, digest=image, pinned=reference, local=True)
    return found


def _base(context: Context, engine: Engine, reference: str) -> str | None:
    """Return the id of the engine's copy; pull or make the image where it is missing and can be had."""
    from trainshed.local.bases import ensure_base

    image = engine.image(reference)
    mirror = references.mirrored(reference, context.config.mirrors)
    state = context.config.project.state
    if image is None and ensure_base(engine, reference, state=state, console=context.console, mirror=mirror):
        image = engine.image(reference)
    return None if image is None else image.id


def _approved(config: Config, components: Mapping[str, Component], graph: Graph, selected: Iterable[str]) -> None:
    if wrong := unapproved(config, components, graph, selected):
        raise UsageError("\n".join(wrong), next_step=f"Build on one of: {', '.join(config.approved_bases)}.")


def unapproved(config: Config, components: Mapping[str, Component], graph: Graph, selected: Iterable[str]) -> list[str]:
    """Say which components stand on a base from outside that `bases.approved` does not name; nothing where it names none."""
    approved = {references.repository_of(repository) for repository in config.approved_bases}
    return [
        f"{config.project.shown(components[name].dockerfile.path)}: base {reference} is not approved"
        for name in selected
        for reference in graph.foreign(name)
        if approved and references.repository_of(reference) not in approved
    ]
