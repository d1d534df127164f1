"""Test one image: its Dockerfile's ``test`` stage on top of the very image, then its ``structure-test.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainshed import files
from trainshed.errors import TrainshedError, WorkFailed
from trainshed.images.components import Component
from trainshed.images.dockerfile import TEST_STAGE
from trainshed.images.pinning import pinned
from trainshed.reports import junit
from trainshed.results import Case
from trainshed.stages.checks.building import Recipe, make
from trainshed.stages.context import Context
from trainshed.tools import structure_test
from trainshed.tools.docker import Exit, Job, temporary_tag

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
        WorkFailed: the test stage cannot be built or started, or its report cannot be read.
    """
    messages, cases = [], list[Case]()
    if component.has_tests:
        tag = temporary_tag(f"{component.name}-{TEST_STAGE}")
        text = _on_image(component, pinned(component.dockerfile, pins, args=arguments), reference)
        try:
            make(context, component, Recipe(text=text, target=TEST_STAGE, tag=tag, arguments=arguments, own=own), log=log)
            found, message = _run(context, component, tag, log)
        finally:
            with suppress(TrainshedError):  # what is left bears our mark: the sweep finds it
                context.engine.remove_image(tag)
        cases += found
        messages.append(message)
    if component.structure_test is not None:
        found = _structure(context, component.structure_test, reference, component.settings.test_timeout, log)
        cases += found
        messages.append(_failing(found, "structure checks"))
    message = "; ".join(filter(None, messages))
    return Tested(green=not message, message=message, cases=tuple(cases))


def _on_image(component: Component, text: str, reference: str) -> str:
    """Let the stages that stand on the image's stage stand on the image itself: another agent's builder would make another one."""
    dockerfile = component.dockerfile
    final = dockerfile.final
    lines = text.split("\n")
    for stage in dockerfile.needed(TEST_STAGE):
        if final.name and stage.base.lower() == final.name:
            name = f" AS {stage.name}" if stage.name else ""
            lines[stage.line - 1] = f"FROM {reference}{name}"
            lines[stage.line : stage.last_line] = [""] * (stage.last_line - stage.line)
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


def _structure(context: Context, config: Path, reference: str, timeout: float, log: Path) -> list[Case]:
    image = context.engine.image(reference) or context.engine.pull(reference)
    return structure_test.run(image.id, config, engine=context.engine, log=log, timeout=timeout)
