"""Folders into and out of containers, as the tar streams that the engine's API speaks."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from trainshed.errors import WorkFailed

_FILE_LIMIT = 64 * 1024 * 1024


def open_folders(paths: Iterable[str]) -> bytes:
    """Return a tar of empty folders (absolute paths) that any user may write to."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in sorted(paths):
            entry = tarfile.TarInfo(path.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
    return content.getvalue()


def take_files(chunks: Iterable[bytes], into: Path) -> list[Path]:
    """Write the plain files of a folder that the engine sends under ``into``; return them, sorted.

    What the container wrote is not trusted: links, devices and ways out of the folder are left out.

    Raises:
        WorkFailed: a file has more than 64 MiB.
    """
    taken = []
    with tarfile.open(fileobj=_Stream(iter(chunks)), mode="r|") as tar:
        for entry in tar:
            parts = PurePosixPath(entry.name).parts[1:]  # the first is the folder's own name
            if not entry.isfile() or not parts or ".." in parts:
                continue
            if entry.size > _FILE_LIMIT:
                raise WorkFailed(f"{entry.name}: {entry.size >> 20} MiB, more than a report has", next_step="Write less into it.")
            content = tar.extractfile(entry)
            target = into.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read() if content is not None else b"")
            taken.append(target)
    return sorted(taken)


class _Stream(io.RawIOBase):
    """A readable stream over chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            following = next(self._chunks, None)
            if following is None:
                return 0
            self._rest = following
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
