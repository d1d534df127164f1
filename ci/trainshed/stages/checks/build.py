"""Build one image, prove that its inputs held still, and push it so that the first writer wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import RemoteError, TrainshedError, WorkFailed
from trainshed.images.components import Component
from trainshed.images.inputs import Inputs, changes
from trainshed.images.pinning import pinned
from trainshed.stages.checks.building import Recipe, make
from trainshed.stages.context import Context
from trainshed.tools.docker import temporary_tag
from trainshed.tools.registry import ENSURE


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image of the engine that is not pushed yet; ``tag`` marks it as unfinished work of this process."""

    id: str
    tag: str
    seconds: float


def require_repository(context: Context, repository: str) -> None:
    """Check that an image can be pushed at all, before it is built: ECR makes no repository at a push.

    Raises:
        RemoteError: the repository is missing, or the registry could not be asked.
    """
    if context.ecr is not None and not context.registry.has_repository(repository):
        raise RemoteError(f"{repository}: there is no such repository, and ECR makes none at a push", next_step=ENSURE)


def build_image(  # noqa: PLR0913 - what an image is made of
    context: Context,
    component: Component,
    *,
    inputs: Inputs,
    arguments: Mapping[str, str],
    own: Mapping[str, str],
    pins: Mapping[str, str],
    copies: Mapping[str, str],
    again: Callable[[], Inputs],
    log: Path,
) -> Built:
    """Build a component's image from the inputs.

    Args:
        inputs: what the image is to be made of.
        arguments: build arguments; those that the Dockerfile does not declare are left out.
        own: own bases by component, each with its reference by digest.
        pins: foreign bases by reference, each with its reference by digest.
        copies: foreign bases that only the engine holds, each with its image id.
        again: takes the inputs anew, as the tree is when it is called.
        log: takes the builder's output.

    Raises:
        WorkFailed: the build failed, or an input changed meanwhile (the message names it).
    """
    started = time.monotonic()
    tag = temporary_tag(component.name)
    text = pinned(component.dockerfile, pins, args=arguments)
    recipe = Recipe(text=text, target=None, tag=tag, arguments=arguments, own=own, pulled=tuple(pins.values()))
    try:
        make(context, component, recipe, log=log)
        identity = _identity(context, component, tag)
        _unchanged(component, inputs, again())
        _bases_unmoved(context, component, copies)
    except BaseException:
        with suppress(TrainshedError):
            context.engine.remove_image(tag)
        raise
    return Built(id=identity, tag=tag, seconds=time.monotonic() - started)


def push_image(context: Context, image: Built, *, repository: str, tag: str, log: Path) -> str:
    """Push an image under the tag of its inputs and return the digest that the tag has then: ours, or that of who came first.

    Raises:
        RemoteError: the registry refused or could not be asked; that is never read as "there is none".
    """
    reference = f"{repository}:{tag}"

    def present() -> str | None:
        return context.registry.digest(reference)

    def instead() -> str | None:
        taken.append(present())
        return taken[-1]

    taken: list[str | None] = []
    try:
        found = present()
        if found is not None:
            _note(log, f"{reference} is there already: its image {found} is taken")
            return found
        context.engine.tag(image.id, reference)
        pushed = context.engine.push(reference, present=instead)
        found = present()
        if found is None:
            raise RemoteError(f"{reference}: pushed, and yet the registry does not have it", next_step="Run again.")
        if found != pushed or any(taken):
            _note(log, f"{reference} was pushed by another run meanwhile: its image {found} is taken")
            context.engine.remove_image(reference)  # the name stands for the other image now
        elif context.config.environment.registry is None:
            # A plain `docker build` of a component finds its own bases by this name, the default of its build argument.
            context.engine.tag(image.id, f"{repository}:latest")
        return found
    finally:
        with suppress(TrainshedError):  # what is left bears our mark: the sweep finds it
            context.engine.remove_image(image.tag)


def _identity(context: Context, component: Component, tag: str) -> str:
    image = context.engine.image(tag)
    if image is None:
        raise WorkFailed(f"{component.name}: the builder left no image in the engine", next_step="Run the same again.")
    return image.id


def _unchanged(component: Component, before: Inputs, after: Inputs) -> None:
    if before.digest != after.digest:
        moved = "; ".join(changes(before.manifest, after.manifest)) or "its inputs"
        message = f"{component.folder}: changed while its image was built ({moved})"
        raise WorkFailed(message, next_step="Run the same again, without editing meanwhile.")


def _bases_unmoved(context: Context, component: Component, copies: Mapping[str, str]) -> None:
    for reference, identity in copies.items():
        now = context.engine.image(reference)
        if now is None or now.id != identity:
            raise WorkFailed(f"{component.name}: the engine's {reference} changed during the build", next_step="Run the same again.")


def _note(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as out:
        out.write(f"{line}\n")
