"""Files out of containers: nothing that they wrote is trusted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from trainshed.errors import WorkFailed
from trainshed.tools import docker_archive


def tar(*entries: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def chunks(content: bytes) -> list[bytes]:
    return [content[start : start + 700] for start in range(0, len(content), 700)]


def test_folders_are_open_to_any_user() -> None:
    with tarfile.open(fileobj=io.BytesIO(docker_archive.open_folders(["/reports", "/a/b"]))) as archive:
        assert [(entry.name, entry.isdir(), oct(entry.mode)) for entry in archive] == [("a/b", True, "0o777"), ("reports", True, "0o777")]


def test_plain_files_are_taken_and_nothing_else(tmp_path: Path) -> None:
    content = tar(
        ("reports", tarfile.DIRTYPE, b""),
        ("reports/junit.xml", tarfile.REGTYPE, b"x" * 5000),
        ("reports/deep/a.txt", tarfile.REGTYPE, b"a"),
        ("reports/../../escape", tarfile.REGTYPE, b"bad"),
        ("/absolute", tarfile.REGTYPE, b""),
        ("reports/link", tarfile.SYMTYPE, b""),
        ("reports/pipe", tarfile.FIFOTYPE, b""),
    )
    into = tmp_path / "into"
    taken = docker_archive.take_files(chunks(content), into)
    assert [path.relative_to(into).as_posix() for path in taken] == ["absolute", "deep/a.txt", "junit.xml"]
    assert (into / "junit.xml").read_bytes() == b"x" * 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into"]


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("reports/junit.xml")
    entry.size = 1 << 40
    with pytest.raises(WorkFailed, match="1048576 MiB"):
        docker_archive.take_files([entry.tobuf(format=tarfile.GNU_FORMAT)], tmp_path)
