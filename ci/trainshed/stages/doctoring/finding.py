"""What one check of `doctor` found when nothing is broken; what is broken is raised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """``text`` says what is there; ``warning``, when not empty, what may hurt later."""

    text: str
    warning: str = ""
