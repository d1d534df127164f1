"""The lock: for a green tree, each component's image by digest. The only input of stamp, launch and deploy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.errors import UsageError, suggestion
from trainshed.images import references

SCHEMA = "trainshed/lock/v1"
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
        told = {"schema": SCHEMA, **asdict(self)}
        return {**told, "seal": _seal(told)}

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
    return _digest({"project": lock.project, "images": lock.references})


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
    """Read a lock's document, from a file or the ledger.

    Raises:
        UsageError: it is no lock, or its seal does not fit: it was edited.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{place}: not a lock of this version ({SCHEMA})", next_step=_AGAIN)
    told = {key: value for key, value in document.items() if key != "seal"}
    if document.get("seal") != _seal(told):
        raise UsageError(f"{place}: edited after it was written: its seal does not fit", next_step=_AGAIN)
    try:
        return _lock(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{place}: not a lock: {error}", next_step=_AGAIN) from error


def _lock(told: Mapping[str, Any]) -> Lock:
    images = {name: _image(name, image) for name, image in told["images"].items()}
    commit = told["commit"]
    if not (commit is None or isinstance(commit, str)) or not isinstance(told["dirty"], bool):
        raise ValueError("commit or dirty has a wrong type")
    texts = {key: _text(told, key) for key in ("project", "plan_digest", "created")}
    return Lock(commit=commit, dirty=told["dirty"], images=images, **texts)


def _image(name: str, image: Mapping[str, Any]) -> LockedImage:
    reference, digest, input_digest = (_text(image, key) for key in ("reference", "digest", "input_digest"))
    base, verdicts, origin = (image.get(key, {}) for key in ("base", "verdicts", "origin"))
    if not all(isinstance(table, dict) for table in (base, verdicts, origin)):
        raise ValueError(f"images.{name}: expected objects in base, verdicts and origin")
    if not references.is_pinned(reference) or not reference.endswith(f"@{digest}"):
        raise ValueError(f"images.{name}: '{reference}' is not pinned to its digest")
    return LockedImage(reference=reference, digest=digest, input_digest=input_digest, base=base, verdicts=verdicts, origin=origin)


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected a text")
    return value


def _seal(told: Mapping[str, Any]) -> str:
    return _digest(told)


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
