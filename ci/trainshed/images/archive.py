"""The build context as a tar whose bytes depend on nothing but its inputs.

A builder remembers the files of a context *folder* by size and time and may build old content; a tar is read anew each time.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

from trainshed.errors import WorkFailed
from trainshed.images.context import ContextFile

_TIME = 315_532_800
"""1980-01-01: zip files, and so Python wheels made from copied sources, know no earlier day."""


def write_context(files: Iterable[ContextFile], dockerfile_text: str, out: BinaryIO, *, dockerfile_name: str = "Dockerfile") -> None:
    """Write the files and the Dockerfile (which takes the place of one of this name) as a tar.

    Entries are sorted; owner 0, one fixed time, modes 644 and 755 only. Folders above the entries are written too.

    Raises:
        WorkFailed: a file vanished or shrank meanwhile.
    """
    entries = {file.path: file for file in files if file.path != dockerfile_name}
    folders = {parent for path in entries for parent in _parents(path)}
    folders |= {path for path, file in entries.items() if file.kind == "dir"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted({*entries, *folders, dockerfile_name}):
            if path in folders:
                archive.addfile(_entry(path, tarfile.DIRTYPE, 0o755))
            elif path == dockerfile_name:
                content = dockerfile_text.encode()
                archive.addfile(_entry(path, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))
            else:
                _add(archive, entries[path])


def _add(archive: tarfile.TarFile, file: ContextFile) -> None:
    if file.kind == "link":
        entry = _entry(file.path, tarfile.SYMTYPE, 0o777)
        entry.linkname = file.target
        archive.addfile(entry)
        return
    try:
        with file.source.open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            archive.addfile(_entry(file.path, tarfile.REGTYPE, 0o755 if file.executable else 0o644, size), stream)
    except OSError as error:
        raise WorkFailed(f"{file.location}: changed while it was sent to the builder: {error}", next_step="Run the same again.") from error


def _entry(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, _TIME
    return entry


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path
