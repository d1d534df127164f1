"""What a release will do, decided before it begins and never changed after: a process that comes later goes on by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock

SCHEMA = "trainshed/release-plan/v1"


@dataclass(frozen=True, kw_only=True)
class UnitVersion:
    """The version that a unit gets.

    ``unit`` is a pipeline or service, empty for the whole repository; ``version`` is a semantic version without ``v``; ``tag`` is what
    git calls it (``v1.4.0`` or ``predictor/v1.4.0``); ``previous`` is the tag of the last release, empty for the first; ``bump`` is
    what it grew by: ``patch``, ``minor`` or ``major``.
    """

    unit: str
    version: str
    tag: str
    previous: str
    bump: str


@dataclass(frozen=True, kw_only=True)
class Before:
    """How production stood: what an undone release comes back to.

    ``services`` maps each service (component) to the revision (ARN) that served, None where there was none; ``versions`` maps each
    pipeline to the id of the version in Kubeflow that had the release's name already, None for none; ``pipelines`` are those that
    Kubeflow knew.
    """

    services: Mapping[str, str | None] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    pipelines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One release.

    ``id`` is the key of its journal; ``lock`` is the sealed document of the green main build's lock; ``source`` and ``target`` are
    environments; ``components`` are those whose images are promoted; ``created`` is RFC 3339 in UTC; ``by`` is the Jenkins build or
    person; ``models`` maps each service (component) that takes a model to ``{uri, run_id, sha256, path, environment}``: the run that
    gave it and the environment that accepted it.
    """

    id: str
    project: str
    versions: tuple[UnitVersion, ...]
    commit: str
    branch: str
    source: str
    target: str
    lock: Mapping[str, Any]
    lock_digest: str
    components: tuple[str, ...]
    pipelines: tuple[str, ...]
    services: tuple[str, ...]
    models: Mapping[str, Mapping[str, str]]
    before: Before
    created: str
    by: str

    @property
    def name(self) -> str:
        """Return the release as people read it: ``1.4.0``, or ``predictor 1.2.0, training 2.0.1``."""
        return ", ".join(f"{each.unit} {each.version}".lstrip() for each in self.versions)

    @property
    def tags(self) -> list[str]:
        """Return what git calls it."""
        return [each.tag for each in self.versions]

    @property
    def locked(self) -> Lock:
        """Return the lock that it was planned with."""
        return locks.parse(self.lock, place=f"the lock of release {self.name}")

    def version(self, unit: str) -> UnitVersion:
        """Return the version that a pipeline or service gets: its own, or the repository's; `KeyError` when it gets none."""
        found = {each.unit: each for each in self.versions}
        return found[unit] if unit in found else found[""]

    def content(self) -> bytes:
        """Return it as the journal keeps it."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True).encode()


def of(content: bytes) -> Plan:
    """Read a plan that the journal kept; `ValueError` when it is none of this version."""
    told = json.loads(content)
    if not isinstance(told, dict) or told.pop("schema", None) != SCHEMA:
        raise ValueError(f"not a plan of {SCHEMA}")
    listed = {name: tuple(told[name]) for name in ("components", "pipelines", "services")}
    before = told["before"]
    return Plan(
        **{
            **told,
            **listed,
            "versions": tuple(UnitVersion(**each) for each in told["versions"]),
            "before": Before(**{**before, "pipelines": tuple(before["pipelines"])}),
        }
    )
