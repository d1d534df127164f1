"""Content hashes, remembered by path, size, times and inode."""

from __future__ import annotations

import os
from pathlib import Path

from trainshed.images.references import Digest


class HashCache:
    """Digests of files; `save` keeps them for the next process."""

    def __init__(self, file: Path) -> None:
        raise NotImplementedError

    def digest(self, path: str | Path, status: os.stat_result | None = None) -> Digest:
        """Return the digest of a file's content; UsageError when it cannot be read."""
        raise NotImplementedError

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        raise NotImplementedError
