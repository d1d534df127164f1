"""Waivers: findings that somebody answers for, until a date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One ``[[waiver]]``: id, owner, reason and expires (last day that counts) are mandatory; empty components or package mean any."""

    id: str
    owner: str
    reason: str
    expires: datetime.date
    components: tuple[str, ...] = ()
    package: str = ""


def load(path: Path) -> list[Waiver]:
    """Read ``waivers.toml``; a missing file holds none; UsageError with all problems at once."""
    raise NotImplementedError
