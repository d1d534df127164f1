"""The build context as the builder may see it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from trainshed.images.components import Component


class ContextFile(NamedTuple):
    """One entry: ``path`` relative with slashes; ``target`` of a link as written; ``status`` from the same look at the folder."""

    path: str
    location: str
    kind: Literal["file", "link", "dir"]
    executable: bool
    target: str
    status: os.stat_result

    @property
    def source(self) -> Path:
        """Return where the entry lies."""
        return Path(self.location)


def context_files(component: Component, *, target: str | None) -> list[ContextFile]:
    """Return what a target (None: the image) can reach in its context, sorted by path; UsageError for links out of it and the like."""
    raise NotImplementedError
