"""Content hashes, remembered by path, size, times and inode, so that a look at an unchanged repository reads no file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from trainshed import files
from trainshed.errors import UsageError
from trainshed.images.references import Digest

_SCHEMA = "trainshed/hashes/v1"
_YOUNG = 2.0
"""Seconds: a file changed this recently may change again without its times showing it (as git's racy entries)."""
_LIMIT = 200_000

_Identity = tuple[int, int, int, int]


class HashCache:
    """Digests of files; `save` keeps them for the next process. Threads may share one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._fresh: dict[str, tuple[_Identity, Digest]] = {}

    def digest(self, path: str | Path, status: os.stat_result | None = None) -> Digest:
        """Return the digest of a file's content; ``status`` spares a look when the caller has just had one.

        Raises:
            UsageError: the file cannot be read.
        """
        name = str(path)
        try:
            known = self._known.get(name)
            if known is not None and known[0] == _identity(status or os.stat(name)):  # noqa: PTH116 - runs once for each file
                return known[1]
            return self._hashed(name)
        except OSError as error:
            message = f"{name}: cannot be read: {error.strerror}"
            raise UsageError(message, next_step="Check that the file may be read.") from error

    def save(self) -> None:
        """Write what is new, whole or not at all; another process's newer entries may be lost, never mixed."""
        if not self._fresh:
            return
        entries = self._known if len(self._known) <= _LIMIT else self._fresh
        table = {name: [*identity, digest] for name, (identity, digest) in dict(entries).items()}
        files.write_bytes(self._file, json.dumps({"schema": _SCHEMA, "files": table}, separators=(",", ":")).encode())
        self._fresh = {}

    def _hashed(self, name: str) -> Digest:
        with open(name, "rb") as stream:  # noqa: PTH123 - runs once for each file
            before = _identity(os.fstat(stream.fileno()))
            digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
            status = os.fstat(stream.fileno())
        settled = time.time() - max(status.st_mtime, status.st_ctime) > _YOUNG
        if settled and before == _identity(status):
            self._known[name] = self._fresh[name] = (before, digest)
        else:
            self._known.pop(name, None)
        return digest


def _identity(status: os.stat_result) -> _Identity:
    # The change time too: a tool can set a file's mtime back, but not its ctime.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _read(file: Path) -> dict[str, tuple[_Identity, Digest]]:
    """Read the cache; one that is missing, broken or of another schema is none."""
    try:
        document = json.loads(file.read_bytes())
        if document["schema"] != _SCHEMA:
            return {}
        known = {name: ((size, mtime, ctime, inode), digest) for name, (size, mtime, ctime, inode, digest) in document["files"].items()}
        return known if all(isinstance(digest, str) for _, digest in known.values()) else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
