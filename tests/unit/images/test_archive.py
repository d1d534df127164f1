"""The context as a tar."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.support.images import component, write
from trainshed.errors import WorkFailed
from trainshed.images.archive import write_context
from trainshed.images.components import Component
from trainshed.images.context import context_files

FILES = {"src/b.py": "b", "src/a.py": "a", "src/größe.txt": "ä", "run.sh": "run"}


@pytest.fixture
def train(tmp_path: Path) -> Component:
    found = component(tmp_path, files=FILES)
    (found.folder / "run.sh").chmod(0o777)
    (found.folder / "link").symlink_to("src/a.py")
    (found.folder / "empty").mkdir()
    return found


def tarred(found: Component, **options: str) -> bytes:
    out = io.BytesIO()
    write_context(context_files(found, target=None), "FROM pinned\n", out, **options)
    return out.getvalue()


def test_a_builder_gets_every_entry_with_fixed_modes_owner_and_time(train: Component) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred(train))) as archive:
        entries = archive.getmembers()
        content = archive.extractfile("src/größe.txt")
        assert content is not None
        assert content.read().decode() == "ä"
    assert [(entry.name, entry.type, oct(entry.mode), entry.linkname) for entry in entries] == [
        ("Dockerfile", tarfile.REGTYPE, "0o644", ""),
        ("empty", tarfile.DIRTYPE, "0o755", ""),
        ("link", tarfile.SYMTYPE, "0o777", "src/a.py"),
        ("run.sh", tarfile.REGTYPE, "0o755", ""),
        ("src", tarfile.DIRTYPE, "0o755", ""),
        ("src/a.py", tarfile.REGTYPE, "0o644", ""),
        ("src/b.py", tarfile.REGTYPE, "0o644", ""),
        ("src/größe.txt", tarfile.REGTYPE, "0o644", ""),
    ]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {(0, 0, "", 315_532_800)}


def test_the_bytes_depend_on_the_inputs_only(train: Component, tmp_path: Path) -> None:
    before = tarred(train)
    os.utime(train.folder / "run.sh", (1, 1))
    assert tarred(train) == before
    write(train.folder, {"src/a.py": "c"})
    assert tarred(train) != before
    assert tmp_path.name.encode() not in before


def test_the_given_dockerfile_takes_the_place_of_the_one_on_disk(train: Component) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred(train))) as archive:
        content = archive.extractfile("Dockerfile")
        assert content is not None
        assert content.read() == b"FROM pinned\n"


def test_the_dockerfile_can_have_another_name_beside_the_one_on_disk(train: Component) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred(train, dockerfile_name="Dockerfile.pinned"))) as archive:
        assert {"Dockerfile", "Dockerfile.pinned"} <= set(archive.getnames())


def test_a_file_that_vanishes_meanwhile_fails_the_work_with_its_name(train: Component) -> None:
    files = context_files(train, target=None)
    (train.folder / "src/a.py").unlink()
    with pytest.raises(WorkFailed, match=f"{train.folder}/src/a.py: changed while it was sent"):
        write_context(files, "", io.BytesIO())


def test_a_broken_pipe_is_not_blamed_on_a_file(train: Component) -> None:
    class Closed(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        write_context(context_files(train, target=None), "", Closed())


def test_a_context_without_files_holds_the_dockerfile(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred(component(tmp_path, "FROM python:3.11\n")))) as archive:
        assert archive.getnames() == ["Dockerfile"]
