"""One model for what scanners find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding. ``severity`` is of `keys.SEVERITIES` or ``unknown``; ``kind`` of `keys.SCANNERS`; a secret's text is never kept."""

    id: str
    severity: str
    kind: str
    package: str = ""
    installed: str = ""
    fixed: str = ""
    title: str = ""
    target: str = ""
    url: str = ""

    def document(self) -> dict[str, str]:
        """Return the finding as JSON."""
        raise NotImplementedError


def from_trivy(document: Mapping[str, Any]) -> list[Finding]:
    """Read Trivy's JSON; worst first, no doubles."""
    raise NotImplementedError
