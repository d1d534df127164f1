"""What the ledger keeps, as frozen records. Nothing here imports SQLAlchemy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trainshed.results import Case
from trainshed.settings import Tier


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one check for one digest and one version of that check.

    ``digest`` is the image's digest; ``version`` names everything else that the check depends on; ``seconds`` is what it took.
    ``details`` holds what a report needs again when the verdict is taken from the ledger: see `details`.
    ``tier``, ``age`` (seconds) and ``created`` (seconds since 1970), both by the database's clock, are filled when a verdict is read.
    """

    digest: str
    check: str
    version: str
    component: str
    green: bool
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    tier: Tier = Tier.LAPTOP
    age: float = 0.0
    created: float = field(default_factory=time.time, compare=False)

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the test cases that the check ran."""
        return tuple(Case(**case) for case in self.details.get("cases", ()))

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Return the findings of a scan, as documents with the fields of `findings.model.Finding`."""
        return [dict(finding) for finding in self.details.get("findings", ())]


def details(*, cases: Iterable[Case] = (), findings: Iterable[Any] = (), **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON document
    """Make the details of a verdict. Findings are dataclasses or documents; empty lists are left out."""
    made = dict(more)
    for name, items in (("cases", cases), ("findings", findings)):
        documents = [dict(item) if isinstance(item, Mapping) else dataclasses.asdict(item) for item in items]
        if documents:
            made[name] = documents
    return made


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image that was built or found: what went in, and what came out. ``manifest`` is that of `images.inputs`."""

    component: str
    repository: str
    input_digest: str
    digest: str
    manifest: Mapping[str, Any]
    seconds: float
    tier: Tier
    age: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in an environment: an upload, a run, a deployment. ``created`` is seconds since 1970, UTC."""

    kind: str
    environment: str
    name: str
    key: str
    document: Mapping[str, Any]
    tier: Tier
    created: float


def moment(seconds: float) -> str:
    """Return the time of a record as people and programs read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
