"""The manifest of a release: what was brought to production, and all that is needed to bring it back; sealed like the lock.

Its parts are the documents of the schema, so that fields of a later Trainshed within this version are kept as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from trainshed import files, formats, sealing
from trainshed.errors import UsageError
from trainshed.pipelines import lock as locks
from trainshed.releases.plan import UnitVersion

KIND = "release-manifest"
SCHEMA = formats.identifier(KIND)
FILE_NAME = "release.json"
_WHOLE = "Take the file that the release wrote, or name the release by its version."


class Image(TypedDict):
    """A promoted image. ``before`` is the digest that the component had in the release before, empty for none."""

    reference: str
    digest: str
    input_digest: str
    before: str


class Pipeline(TypedDict):
    """An uploaded version. ``pipeline`` is the name in Kubeflow, ``version`` that of the version."""

    pipeline: str
    pipeline_id: str
    version: str
    version_id: str
    content_digest: str


class Model(TypedDict):
    """A model, with its checksum and the run that gave it."""

    uri: str
    run_id: str
    sha256: str


class Service(TypedDict):
    """What serves.

    ``revision`` is short (``predictor:17``) and ``arn`` its ARN, ``unit`` is `services.unit.Unit.document`, ``golden`` the digest that
    its golden predictions are attached to in the ledger, ``definition`` what registers the task definition again.
    """

    service: str
    revision: str
    arn: str
    unit: Mapping[str, Any]
    digest: str
    model: Model | None
    golden: str
    definition: Mapping[str, Any]


class Run(TypedDict):
    """The run that gave a model, as the environment that accepted it keeps it."""

    pipeline: str
    environment: str
    version: str
    version_id: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float | str]
    artifacts: Mapping[str, Mapping[str, Any]]
    gates: Sequence[Mapping[str, Any]]


class Waiver(TypedDict):
    """A waiver that a finding of a released image needs; ``components`` are those with the finding, ``days`` were left."""

    id: str
    owner: str
    reason: str
    expires: str
    days: int
    package: str
    components: list[str]


class Change(TypedDict):
    """A commit; ``type`` is empty for one that is not conventional, ``breaking`` says what breaks, empty for nothing."""

    commit: str
    type: str
    scope: str
    text: str
    breaking: str


class Previous(TypedDict):
    """The release before."""

    release: str
    tags: list[str]
    manifest: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One release.

    ``release`` is its name as people read it; ``lock`` is the whole sealed document as promoted, ``lock_digest`` that of the green
    build's; ``images`` and ``services`` are by component, ``runs`` by id, ``changes`` by unit (the empty one is the whole repository)
    and the newest first. ``more`` holds the fields of a later Trainshed.
    """

    release: str
    versions: tuple[UnitVersion, ...]
    project: str
    commit: str
    branch: str
    source: str
    target: str
    created: str
    by: str
    build_url: str | None
    lock_digest: str
    lock: Mapping[str, Any]
    images: Mapping[str, Image]
    pipelines: Mapping[str, Pipeline]
    services: Mapping[str, Service]
    runs: Mapping[str, Run]
    waivers: Sequence[Waiver]
    changes: Mapping[str, Sequence[Change]]
    previous: Previous | None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """Return what git calls it."""
        return [each.tag for each in self.versions]

    def document(self) -> dict[str, Any]:
        """Return the JSON document, sealed."""
        own = {name: getattr(self, name) for name in _FIELDS}
        return sealing.sealed({**self.more, "schema": SCHEMA, **own, "versions": [asdict(each) for each in self.versions]})

    def content(self) -> bytes:
        """Return it as it is written and attached: equal bytes for equal manifests."""
        return (json.dumps(self.document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """Return ``sha256:…`` of `content`: what the tag names, and what ``sha256sum release.json`` tells."""
        return f"sha256:{hashlib.sha256(self.content()).hexdigest()}"


_FIELDS = tuple(each.name for each in fields(Manifest) if each.name != "more")
_SEALED = {*_FIELDS, "schema", sealing.FIELD}


def read(path: Path) -> Manifest:
    """Read a manifest from its file.

    Raises:
        UsageError: it is missing, see `parse`.
    """
    return load(files.read_text(path, what="the manifest of a release"), place=str(path))


def load(text: str | bytes, *, place: str) -> Manifest:
    """Read a manifest from its content; see `parse`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: the manifest is not JSON: {error}", next_step=_WHOLE) from error
    return parse(document, place=place)


def parse(document: Any, *, place: str) -> Manifest:  # noqa: ANN401 - checked here
    """Read a manifest's document, of any version that there ever was.

    Raises:
        UsageError: it is no manifest of a release, one of a newer Trainshed, or its seal or that of its lock does not fit.
    """
    formats.version_of(document, KIND, place=place, next_step=_WHOLE)
    if not sealing.holds(document):
        raise UsageError(f"{place}: edited after it was written: its seal does not fit", next_step=_WHOLE)
    version = formats.require(document, KIND, place=place, next_step=_WHOLE)
    locks.parse(document["lock"], place=f"{place}: lock")
    return _READERS[version](document)


def _v1(told: Mapping[str, Any]) -> Manifest:
    own = {name: told[name] for name in _FIELDS if name != "versions"}
    names = [each.name for each in fields(UnitVersion)]
    versions = tuple(UnitVersion(**{name: each[name] for name in names}) for each in told["versions"])
    return Manifest(**own, versions=versions, more={name: value for name, value in told.items() if name not in _SEALED})


_READERS = {1: _v1}
