"""Files that are whole or not there: written beside their place under a name that says who writes, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from trainshed import owner
from trainshed.errors import UsageError

_PARTIAL = ".trainshed-partial-"
_STRANGERS_SECONDS = 86_400.0
FOREIGN = ".trainshed-foreign"
"""Marks a folder whose content belongs to another program (an engine's layers, a registry's blobs): nothing of ours is in there."""


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole: a reader sees the old or the new content, never a part. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{_PARTIAL}{_mark()}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, document: Any) -> None:  # noqa: ANN401 - any JSON document
    """Write a JSON document with sorted keys and two blanks of indent, whole or not at all."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_text(path: Path, *, what: str) -> str:
    """Read a UTF-8 file of the repository; ``what`` names its part in the error.

    Raises:
        UsageError: the file is missing, unreadable, no plain file, or not UTF-8 (the message has the offset of the first bad byte).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a link to a device never ends, a pipe never begins
            message = f"{path}: {what} is no plain file"
            raise UsageError(message, next_step="Put a file in its place.")
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        message = f"{path}: {what} is not UTF-8 (byte {error.start})"
        raise UsageError(message, next_step="Save the file as UTF-8.") from error
    except OSError as error:
        message = f"{path}: {what} cannot be read: {error.strerror}"
        raise UsageError(message, next_step="Check that the file is there and may be read.") from error


@contextmanager
def scratch(parent: Path, purpose: str) -> Iterator[Path]:
    """Yield a fresh folder under ``parent``; it is removed at the end, and by `sweep` when this process was killed."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{_mark()}-{purpose}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes left half-written under ``folder`` (any depth, but not in foreign folders); return what was removed.

    Of a process that cannot be asked (another container or machine shares the folder) only what is a day old is removed.
    """
    removed = []
    for found in _partials(folder):
        if not _abandoned(found):
            continue
        shutil.rmtree(found, ignore_errors=True) if found.is_dir() and not found.is_symlink() else found.unlink(missing_ok=True)
        removed.append(found)
    return removed


def _partials(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        found += [Path(parent, name) for name in (*folders, *names) if name.startswith(_PARTIAL)]
        folders[:] = [] if FOREIGN in names else [name for name in folders if not name.startswith(_PARTIAL)]
    return found


def _abandoned(found: Path) -> bool:
    pid, start, place = (*found.name.removeprefix(_PARTIAL).split("-", 1)[0].split("_"), "", "")[:3]
    if place == _place():
        return not pid.isdigit() or owner.start_time(int(pid)) != start
    try:
        return time.time() - found.lstat().st_mtime > _STRANGERS_SECONDS
    except OSError:
        return False


def _mark() -> str:
    pid = os.getpid()
    return f"{pid}_{owner.start_time(pid)}_{_place()}"


@cache
def _place() -> str:
    return hashlib.sha256(owner.host().encode()).hexdigest()[:8]
