"""The manifest of a build: which commit became which images, pipeline versions, runs and services; and the same in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trainshed import formats
from trainshed.results import Report, Result, Status

KIND = "manifest"
SCHEMA = formats.identifier(KIND)
FILE_NAME = "manifest.json"
_KEPT = {
    "upload": ("pipelines", ("pipeline_id", "version", "version_id")),
    "launch": ("runs", ("run_id", "state", "version", "link", "metrics")),
    "deploy": ("services", ("service", "revision", "digest", "url", "model")),
}
_SHORT = len("sha256:") + 12
_ORDER = ("interrupted", "red", "aborted", "green")


def manifest(reports: Sequence[Report], *, images: Mapping[str, str], **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return the manifest's document.

    Args:
        reports: what the stages of the build reported.
        images: component → reference by digest, of the lock; empty when nothing is green.
        facts: what else is known of the build: project, environment, commit, branch, build_url, plan_digest, lock_digest; and
            version, where git tells one.
    """
    told: dict[str, Any] = {"schema": SCHEMA, **facts, "status": status(reports), "images": dict(images)}
    for stage, (section, kept) in _KEPT.items():
        told[section] = {result.name: _facts(result, kept) for result in _results(reports, stage) if _facts(result, kept)}
    return told


def parse(document: Any, *, place: str) -> Mapping[str, Any]:  # noqa: ANN401 - checked here
    """Return a manifest that a build archived, of any version that there ever was, as the present one tells it.

    Raises:
        UsageError: it is no manifest of a build, or one of a newer Trainshed.
    """
    version = formats.require(document, KIND, place=place, next_step="Look at what the build archived there.")
    return _READERS[version](document)


def status(reports: Iterable[Report]) -> str:
    """Return the worst status of all: ``interrupted``, ``red``, ``aborted`` or ``green``."""
    found = {report.status for report in reports}
    return next((status for status in _ORDER if status in found), "green")


def description(reports: Sequence[Report], told: Mapping[str, Any]) -> list[str]:
    """Return lines for a build's page: what failed, what is new with its digest, versions, runs and revisions."""
    lines = [f"{told['project']} in {told['environment']}: {told['status']}"]
    failed = [f"{result.stage} {result.name}" for report in reports for result in report.results if result.status is Status.FAILED]
    if failed:
        lines.append(f"failed: {', '.join(dict.fromkeys(failed))}")
    built = [result for result in _results(reports, "build") if result.status is Status.DONE]
    lines += [f"built {result.name} {str(result.details.get('digest', ''))[:_SHORT]}" for result in built]
    if told["images"]:
        lines.append(f"{len(told['images'])} images, {len(built)} of them new; lock {str(told.get('lock_digest'))[:_SHORT]}")
    lines += [f"pipeline {name} {facts['version']}" for name, facts in told["pipelines"].items() if facts.get("version")]
    lines += [f"run of {name} {facts.get('state', '')} {_metrics(facts)}".rstrip() for name, facts in told["runs"].items()]
    lines += [f"service {name} {facts['revision']}" for name, facts in told["services"].items() if facts.get("revision")]
    return lines


def _results(reports: Iterable[Report], stage: str) -> list[Result]:
    return [result for report in reports for result in report.results if result.stage == stage]


def _facts(result: Result, kept: Iterable[str]) -> dict[str, Any]:
    return {name: result.details[name] for name in kept if result.details.get(name)}


def _metrics(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.get("metrics", {}).items()
    )


_READERS: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {1: dict}
