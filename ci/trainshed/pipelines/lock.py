"""The lock: for a green tree, each component's image by digest. The only input of stamp, launch and deploy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainshed import files, formats, sealing
from trainshed.errors import UsageError, suggestion
from trainshed.images import references

KIND = "lock"
SCHEMA = formats.identifier(KIND)
FILE_NAME = "images.lock.json"
_AGAIN = "Run `trainshed images` to make the lock again."


@dataclass(frozen=True, kw_only=True)
class LockedImage:
    """One component's image. ``base`` maps each base, own or foreign, to its digest; ``verdicts`` maps each check to its record."""

    reference: str
    digest: str
    input_digest: str
    base: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What was green, of which tree. ``created`` is RFC 3339 in UTC; ``plan_digest`` is that of the tree's components."""

    project: str
    commit: str | None
    dirty: bool
    plan_digest: str
    created: str
    images: Mapping[str, LockedImage]

    @property
    def references(self) -> dict[str, str]:
        """Return component → ``repository@sha256:…``, sorted."""
        return {name: self.images[name].reference for name in sorted(self.images)}

    def document(self) -> dict[str, Any]:
        """Return the JSON document, sealed."""
        return sealing.sealed({"schema": SCHEMA, **asdict(self)})

    def require_current(self, plan_digest: str, *, place: str) -> None:
        """Raise `UsageError` when the tree is not the one that was locked."""
        if plan_digest != self.plan_digest:
            raise UsageError(f"{place}: stale: the components changed since it was written", next_step=_AGAIN)

    def image(self, component: str, *, place: str) -> LockedImage:
        """Return a component's image, or raise `UsageError` with a suggestion."""
        if component not in self.images:
            raise UsageError(f"{place}: no image of '{component}'{suggestion(component, self.images)}", next_step=_AGAIN)
        return self.images[component]


def of(*, project: str, commit: str | None, dirty: bool, plan_digest: str, images: Mapping[str, LockedImage]) -> Lock:
    """Make a lock of this moment."""
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Lock(project=project, commit=commit, dirty=dirty, plan_digest=plan_digest, created=created, images=dict(images))


def lock_digest(lock: Lock) -> str:
    """Return the digest of what a lock decides, its images: equal for equal images, whenever and wherever it was made."""
    return sealing.digest({"project": lock.project, "images": lock.references})


def write(path: Path, lock: Lock) -> bool:
    """Write the lock whole; leave one alone that says the same but for its time. Tell whether it was written."""
    try:
        before = read(path)
    except UsageError:
        before = None
    if before is not None and replace(before, created=lock.created).document() == lock.document():
        return False
    files.write_json(path, lock.document())
    return True


def read(path: Path) -> Lock:
    """Read a lock.

    Raises:
        UsageError: it is missing, no lock, or was edited after it was written.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no lock: nothing has been built, scanned and tested green", next_step="Run `trainshed images`.")
    text = files.read_text(path, what="the lock")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: the lock is not JSON: {error}", next_step=_AGAIN) from error
    return parse(document, place=str(path))


def parse(document: Any, *, place: str) -> Lock:  # noqa: ANN401 - checked here
    """Read a lock's document, from a file or the ledger, of any version that there ever was.

    Raises:
        UsageError: it is no lock, one of a newer Trainshed, or its seal does not fit: it was edited.
    """
    formats.version_of(document, KIND, place=place, next_step=_AGAIN)
    if not sealing.holds(document):
        raise UsageError(f"{place}: edited after it was written: its seal does not fit", next_step=_AGAIN)
    version = formats.require(document, KIND, place=place, next_step=_AGAIN)
    try:
        return _READERS[version](document)
    except ValueError as error:
        raise UsageError(f"{place}: not a lock: {error}", next_step=_AGAIN) from error


def _v1(told: Mapping[str, Any]) -> Lock:
    texts = {key: told[key] for key in ("project", "plan_digest", "created")}
    return Lock(
        commit=told["commit"], dirty=told["dirty"], images={name: _image(name, told["images"][name]) for name in told["images"]}, **texts
    )


def _image(name: str, image: Mapping[str, Any]) -> LockedImage:
    reference, digest = image["reference"], image["digest"]
    if not references.is_pinned(reference) or not reference.endswith(f"@{digest}"):
        raise ValueError(f"images.{name}: '{reference}' is not pinned to its digest")
    tables = {key: image.get(key, {}) for key in ("base", "verdicts", "origin")}
    return LockedImage(reference=reference, digest=digest, input_digest=image["input_digest"], **tables)


_READERS = {1: _v1}
