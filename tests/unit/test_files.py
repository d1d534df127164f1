from __future__ import annotations

import os
import pwd
import socket
import time
from pathlib import Path

import pytest

from trainshed import files, owner
from trainshed.errors import UsageError


def test_a_file_is_written_whole_with_its_folders(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a" / "b.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a" / "b.json").read_text() == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    files.write_text(target, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_what_would_never_end_or_begin_is_no_file_to_read(tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("endless", "pipe"):
        with pytest.raises(UsageError, match=f"{name}: the list is no plain file"):
            files.read_text(tmp_path / name, what="the list")


def test_scratch_is_gone_after_use(tmp_path: Path) -> None:
    with files.scratch(tmp_path / "s", "work") as folder:
        (folder / "x").write_text("y")
    assert not list((tmp_path / "s").iterdir())


def test_sweep_removes_what_dead_processes_left_and_spares_the_living(tmp_path: Path) -> None:
    place = files._mark().split("_")[2]
    dead = tmp_path / "deep" / f".trainshed-partial-999999999_1_{place}-x"
    dead.mkdir(parents=True)
    (dead / "y").write_text("z")
    reused = tmp_path / f".trainshed-partial-{os.getpid()}_1_{place}-x"
    reused.write_text("of an earlier process with our number")
    with files.scratch(tmp_path, "mine") as mine:
        assert sorted(files.sweep(tmp_path)) == sorted([dead, reused])
        assert mine.is_dir()
    assert files.sweep(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["1_1_00000000-x", "999999999_1-x", "x"])
def test_sweep_leaves_what_another_container_writes_until_it_is_a_day_old(tmp_path: Path, name: str) -> None:
    foreign = tmp_path / f".trainshed-partial-{name}"
    foreign.write_text("half")
    assert files.sweep(tmp_path) == []
    yesterday = time.time() - 90_000
    os.utime(foreign, (yesterday, yesterday))
    assert files.sweep(tmp_path) == [foreign]


def test_sweep_passes_by_what_belongs_to_another_program(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / files.FOREIGN).touch()
    theirs = tmp_path / "data" / "layer" / f".trainshed-partial-999999999_1_{files._mark().split('_')[2]}-x"
    theirs.mkdir(parents=True)
    assert files.sweep(tmp_path) == []
    assert theirs.is_dir()


def test_text_that_is_not_there_or_not_utf8_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"ok\xff")
    with pytest.raises(UsageError, match=r"bad: a note is not UTF-8 \(byte 2\)"):
        files.read_text(tmp_path / "bad", what="a note")
    with pytest.raises(UsageError, match="missing: a note cannot be read: No such file"):
        files.read_text(tmp_path / "missing", what="a note")


def test_a_person_is_named_by_user_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    user, _, host = owner.person().partition("@")
    assert (user, host) == (pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 9)
    assert owner.person() == f"{2**31 - 9}@{host}"


def test_an_owner_is_known_as_alive_dead_or_elsewhere() -> None:
    mark = owner.mark()
    host, pid, start = mark.split(":")
    assert pid == str(os.getpid())
    assert owner.alive(mark) is True
    assert owner.alive(f"{host}:{pid}:{int(start) + 1}") is False
    assert owner.alive(f"{host}:999999999:5") is False
    assert owner.alive(f"elsewhere/1:{pid}:{start}") is None
    assert owner.alive("nonsense") is None


def test_a_machine_of_the_same_name_is_not_taken_for_this_one_but_its_earlier_boot_left_what_lies_here() -> None:
    host, pid, start = owner.mark().split(":")
    name, namespace, _ = host.split("/")
    twin = f"{name}/{namespace}/0123456789ab:{pid}:{int(start) + 1}"
    assert owner.alive(twin) is None
    assert owner.left_behind(twin)
    assert owner.left_behind(f"{host}:{pid}:{int(start) + 1}")
    assert not owner.left_behind(owner.mark())
    assert not owner.left_behind(f"elsewhere/{namespace}/0123456789ab:{pid}:{start}")
