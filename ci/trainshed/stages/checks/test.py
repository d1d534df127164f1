"""Test one image: its Dockerfile's ``test`` stage on top of the very image, then its ``structure-test.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trainshed import files
from trainshed.errors import TrainshedError, UsageError, WorkFailed
from trainshed.images.components import Component
from trainshed.images.dockerfile import TEST_STAGE, Stage
from trainshed.images.pinning import pinned
from trainshed.reports import junit
from trainshed.results import Case
from trainshed.stages.checks.building import Recipe, make
from trainshed.stages.context import Context
from trainshed.tools import structure_test
from trainshed.tools.docker import Exit, ImageInfo, Job, temporary_tag

REPORTS = "/reports"
JUNIT_FILE = "junit.xml"
JUNIT_VARIABLE = "TRAINSHED_JUNIT"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The outcome of the tests; ``message`` says what went wrong, empty when nothing did."""

    green: bool
    message: str
    cases: tuple[Case, ...]


def test_image(  # noqa: PLR0913 - what a test needs; the check is named so
    context: Context,
    component: Component,
    reference: str,
    *,
    arguments: Mapping[str, str],
    own: Mapping[str, str],
    pins: Mapping[str, str],
    log: Path,
) -> Tested:
    """Run the component's tests in its image.

    The test stage's default command runs as the image's user, without network unless the component asks for it; it writes JUnit XML
    to the file that ``TRAINSHED_JUNIT`` names.

    Args:
        reference: the image, by digest; the test stage is built on top of it.
        arguments: build arguments; ``own`` and ``pins``: bases, as for `build.build_image`.

    Raises:
        UsageError: the test stage does not stand on the image's stages.
        WorkFailed: the test stage cannot be built or started.
    """
    messages, cases = [], list[Case]()
    image = context.engine.image(reference) or context.engine.pull(reference)
    if component.has_tests:
        tag = temporary_tag(f"{component.name}-{TEST_STAGE}")
        text = pinned(component.dockerfile, pins, args=arguments)
        pulled = (reference, *pins.values())
        recipe = Recipe(text=text, target=TEST_STAGE, tag=tag, arguments=arguments, own=own, pulled=pulled)
        try:
            _build_on(context, component, image, recipe, reference, log)
            found, message = _run(context, component, tag, log)
        finally:
            with suppress(TrainshedError):  # what is left bears our mark: the sweep finds it
                context.engine.remove_image(tag)
        cases += found
        messages.append(message)
    if component.structure_test is not None:
        limit = component.settings.test_timeout
        found = structure_test.run(image.id, component.structure_test, engine=context.engine, log=log, timeout=limit)
        cases += found
        messages.append(_failing(found, "structure checks"))
    message = "; ".join(filter(None, messages))
    return Tested(green=not message, message=message, cases=tuple(cases))


def _build_on(  # noqa: PLR0913 - what a build needs
    context: Context, component: Component, image: ImageInfo, recipe: Recipe, reference: str, log: Path
) -> None:
    """Build the test stage so that it stands on the image itself, not on another one that the same lines gave here.

    Where the engine that built the image still has its layers, the test stage shares them. Elsewhere (another agent, an emptied
    cache) the stages below would be made anew: there the image takes their place.
    """
    stage, below = _footing(component)
    if below is component.dockerfile.final:
        make(context, component, replace(recipe, text=_replaced(recipe.text, stage, [f"FROM {reference} AS {stage.name}"])), log=log)
        return
    make(context, component, recipe, log=log)
    tested = context.engine.image(recipe.tag)
    if tested is not None and tested.layers[: len(image.layers)] == image.layers:
        return
    make(context, component, replace(recipe, target=below.target), log=log)
    config = context.engine.image(recipe.tag)
    user = (config.config.get("User") if config is not None else "") or "0:0"
    entrypoint = json.dumps((config.config.get("Entrypoint") if config is not None else None) or [])
    head = [f"FROM {reference} AS {stage.name or TEST_STAGE}", f"USER {user}", f"ENTRYPOINT {entrypoint}"]
    make(context, component, replace(recipe, text=_replaced(recipe.text, stage, head)), log=log)


def _footing(component: Component) -> tuple[Stage, Stage]:
    """Return the stage through which the tests stand on the image's stages, and the one of those below it."""
    dockerfile = component.dockerfile
    image = dockerfile.final
    trunk = {image.index}
    while (parent := _parent(component, image)) is not None:
        trunk.add(parent.index)
        image = parent
    stage = dockerfile.stage(TEST_STAGE)
    while (parent := _parent(component, stage)) is not None:
        if parent.index in trunk:
            return stage, parent
        stage = parent
    message = f"{dockerfile.path}:{stage.line}: the stage '{TEST_STAGE}' does not stand on the image: its FROM leads to '{stage.base}'"
    raise UsageError(message, next_step="Start it FROM a stage that the image is made from.")


def _parent(component: Component, stage: Stage) -> Stage | None:
    earlier = component.dockerfile.stages[: stage.index]
    return next((other for other in reversed(earlier) if other.name and other.name == stage.base.lower()), None)


def _replaced(text: str, stage: Stage, head: list[str]) -> str:
    lines = text.split("\n")
    lines[stage.line - 1 : stage.last_line] = head
    return "\n".join(lines)


def _run(context: Context, component: Component, image: str, log: Path) -> tuple[list[Case], str]:
    with files.scratch(context.config.project.state, "reports") as scratch:
        job = Job(
            image=image,
            name=f"{component.name}-{TEST_STAGE}",
            log=log,
            network="bridge" if component.settings.network else "none",
            environment={JUNIT_VARIABLE: f"{REPORTS}/{JUNIT_FILE}"},
            memory=component.settings.memory,
            timeout=component.settings.test_timeout,
            collect={REPORTS: scratch},
        )
        ended = context.engine.run(job)
        cases, unread = _read(scratch / JUNIT_FILE)
    return cases, _verdict(component, ended, cases, unread)


def _read(file: Path) -> tuple[list[Case], str]:
    """Return the cases, and what is wrong with the file."""
    if not file.is_file():
        return [], f"wrote no JUnit XML to {REPORTS}/{JUNIT_FILE}"
    try:
        return junit.read(file.read_bytes(), place=f"{REPORTS}/{JUNIT_FILE}"), ""
    except WorkFailed as error:
        return [], f"left a report that cannot be read: {error.message}"


def _verdict(component: Component, ended: Exit, cases: list[Case], unread: str) -> str:
    """Say what went wrong, the cause before its consequences."""
    if ended.timed_out:
        return f"the tests took longer than {component.settings.test_timeout:g} s"
    if ended.oom:
        return f"the tests ran out of memory ({component.settings.memory or 'of the machine'})"
    if unread:
        return f"the test command ended with code {ended.code} and {unread}"
    if all(case.skipped for case in cases):
        return f"not one test ran (the test command ended with code {ended.code})"
    failing = _failing(cases, "tests")
    if not failing and ended.code != 0:
        return f"the test command ended with code {ended.code}, although no test failed"
    return failing


def _failing(cases: list[Case], what: str) -> str:
    failed = [case.name for case in cases if case.failure]
    if not failed:
        return ""
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return f"{len(failed)} of {len(cases)} {what} failed: {', '.join(failed[:_SHOWN])}{more}"
