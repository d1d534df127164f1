"""What a stage found: one set of records, of which console, JSON, JUnit and Markdown are views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trainshed.errors import TrainshedError, WorkFailed


class Status(StrEnum):
    """How one piece of work ended."""

    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    ABORTED = "aborted"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test case as JUnit knows it. ``seconds`` is wall time; ``failure`` is empty for a pass; ``output`` is what it said."""

    name: str
    suite: str = ""
    seconds: float = 0.0
    failure: str = ""
    skipped: str = ""
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one stage for one component, pipeline or service.

    ``cause`` says why the work was done or skipped; ``message`` says what went wrong (empty when nothing did); ``log`` is the
    path of the log, relative to the project; ``details`` is what the stage adds to the JSON document (``digest``, ``run_id``…).
    """

    name: str
    stage: str
    status: Status
    cause: str = ""
    message: str = ""
    seconds: float = 0.0
    log: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    exit_code: int = WorkFailed.exit_code

    @property
    def good(self) -> bool:
        """Tell whether what was asked for now holds."""
        return self.status in {Status.DONE, Status.CACHED, Status.SKIPPED}

    def document(self) -> dict[str, Any]:
        """Return the record as the ``--json`` document shows it."""
        known = {
            "name": self.name,
            "stage": self.stage,
            "status": str(self.status),
            "cause": self.cause,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "log": self.log,
        }
        return {**known, **self.details}


def failed(name: str, stage: str, error: TrainshedError, *, cause: str = "", seconds: float = 0.0, log: str | None = None) -> Result:  # noqa: PLR0913
    """Turn an error into the result of what it ended, so that the others' results are kept."""
    return Result(
        name=name, stage=stage, status=Status.FAILED, cause=cause, message=error.told, seconds=seconds, log=log, exit_code=error.exit_code
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a command did: what is printed, written and turned into the exit code."""

    stage: str
    results: tuple[Result, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """Return the worst of the results: 130 interrupted, else 1 before 2 before 5 before 4 before 6 before 3, 0 when all is good."""
        if self.interrupted:
            return 130
        codes = {result.exit_code for result in self.results if result.status is Status.FAILED}
        if not codes and any(result.status is Status.ABORTED for result in self.results):
            return WorkFailed.exit_code
        order = (1, 70, 2, 5, 4, 6, 3)
        return min(codes, key=lambda code: order.index(code) if code in order else len(order), default=0)

    @property
    def status(self) -> str:
        """Return ``green``, ``red``, ``aborted`` or ``interrupted``."""
        if self.interrupted:
            return "interrupted"
        if any(result.status is Status.FAILED for result in self.results):
            return "red"
        if any(result.status is Status.ABORTED for result in self.results):
            return "aborted"
        return "green"

    def document(self) -> dict[str, Any]:
        """Return the ``--json`` document; its shape is documented in docs/reference/commands.md."""
        return {
            "schema": f"trainshed/{self.stage}/v1",
            "status": self.status,
            "exit_code": self.exit_code,
            **self.extra,
            "results": [result.document() for result in self.results],
        }


def by_name(results: Iterable[Result]) -> dict[str, Result]:
    """Index results by the name of what they are about."""
    return {result.name: result for result in results}
