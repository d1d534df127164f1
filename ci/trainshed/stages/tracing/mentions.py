"""What a JSON file names: an answer of a service, the output of ``scripts/predict``, a release's manifest, a lock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.errors import UsageError
from trainshed.pipelines import lock as locks
from trainshed.releases import manifest as manifests

SERVED_BY = "served_by"
_KEYS = ("image", "model", "run", "service")
_LONGEST = 1000
_DEEPEST = 6


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What says that it gave an answer; empty where it does not say it."""

    image: str = ""
    model: str = ""
    run: str = ""
    service: str = ""


@dataclass(frozen=True, kw_only=True)
class Mentioned:
    """``what`` the file is; ``names`` are other names of the one thing that it is about; ``answered`` is what gave an answer."""

    what: str
    names: tuple[str, ...] = ()
    answered: Answered | None = None


def of(document: Any, *, place: str) -> Mentioned:  # noqa: ANN401 - any JSON document
    """Read what a document names.

    Raises:
        UsageError: nothing, or it is a lock or manifest that was edited.
    """
    schema = str(document.get("schema", "")) if isinstance(document, Mapping) else ""
    if schema.startswith(f"trainshed/{manifests.KIND}/"):
        manifest = manifests.parse(document, place=place)
        return Mentioned(what=f"the manifest of release {manifest.release}", names=(manifest.digest, *manifest.tags))
    if schema.startswith("trainshed/lock/"):
        return Mentioned(what="a lock", names=(locks.lock_digest(locks.parse(document, place=place)),))
    answered = next(_answers(document, 0), None)
    service = document.get("service") if isinstance(document, Mapping) else None
    if answered is None and isinstance(service, str) and "answer" in document:
        answered = Answered(service=service[:_LONGEST])
    if answered is None:
        message = f"{place}: names nothing that could be traced: no '{SERVED_BY}' of a service's answer, no lock, no manifest of a release"
        raise UsageError(message, next_step="Name the thing itself, or a file that names it.")
    return Mentioned(what="an answer of a service", answered=answered)


def _answers(document: Any, depth: int) -> Iterator[Answered]:  # noqa: ANN401 - any JSON document
    """Yield what answered, wherever a document says it."""
    if depth > _DEEPEST:
        return
    if isinstance(document, Mapping):
        told = document.get(SERVED_BY)
        if isinstance(told, Mapping):
            known = {key: told[key][:_LONGEST] for key in _KEYS if isinstance(told.get(key), str)}
            if any(known.get(key) for key in ("image", "model", "run")):
                yield Answered(**known)
        for below in document.values():
            yield from _answers(below, depth + 1)
    elif isinstance(document, list):
        for below in document:
            yield from _answers(below, depth + 1)
