"""Which sources are asked for findings, and which of them must have answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainshed.errors import problems
from trainshed.values import SOURCES

if TYPE_CHECKING:
    from trainshed.config import Config

TRIVY, ECR = SOURCES
VULNERABILITY = "vulnerability"


def asked(config: Config) -> tuple[str, ...]:
    """Return the sources that are asked, Trivy first: those of `scan.sources`, else all that can be.

    Raises:
        UsageError: `scan.sources` or `scan.must-answer` name one that cannot answer here.
    """
    found = _told(config) or tuple(source for source in SOURCES if not _hindrance(config, source))
    wrong = [f"{_place(config, 'scan.sources')}: {source}, but {why}" for source in found if (why := _hindrance(config, source))]
    missing = [source for source in config.scan.must_answer if source not in found]
    wrong += [f"{_place(config, 'scan.must-answer')}: {source}, which is not asked (scan.sources)" for source in missing]
    if wrong:
        raise problems(wrong, next_step="Name sources that can answer, for one environment in environments.<name>.scan.")
    return found


def required(config: Config) -> tuple[str, ...]:
    """Return the sources without whose answer there is no verdict."""
    found = asked(config)
    return tuple(source for source in found if source in config.scan.must_answer) or found


def _told(config: Config) -> tuple[str, ...]:
    return tuple(source for source in SOURCES if source in config.scan.sources)


def _hindrance(config: Config, source: str) -> str:
    """Say why a source cannot be asked; empty when it can."""
    if source != ECR:
        return ""
    registry = config.environment.registry
    if registry is None or registry.ecr is None:
        return f"the registry of environment {config.environment.name} is not ECR"
    return "" if VULNERABILITY in config.scan.scanners else f"it finds vulnerabilities alone, and scan.scanners leaves {VULNERABILITY} out"


def _place(config: Config, key: str) -> str:
    return f"{config.project.shown(config.file)}: {key}"
