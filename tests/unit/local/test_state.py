from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainshed.errors import Interrupted, RemoteError
from trainshed.local import state
from trainshed.tools import process


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with state.locked(tmp_path / "new" / "lock"), pytest.raises(RemoteError, match=r"lock: another process has held this lock for 0 s"):  # noqa: SIM117
        with state.locked(tmp_path / "new" / "lock", timeout=0):
            pass
    with state.locked(tmp_path / "new" / "lock", timeout=0):
        pass


def test_a_wait_for_a_lock_ends_with_an_interrupt(tmp_path: Path) -> None:
    caught = threading.Event()

    def wait() -> None:
        try:
            with state.locked(tmp_path / "lock"):
                pass
        except Interrupted:
            caught.set()

    with state.locked(tmp_path / "lock"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        process.stopping.set()
        waiter.join(30)
    process.stopping.clear()
    assert caught.is_set()


def test_sockets_lie_inside_the_folder_where_its_path_is_short() -> None:
    assert state.run_folder(Path("/srv/project/.trainshed/engine")) == Path("/srv/project/.trainshed/engine/run")


def test_sockets_of_a_long_path_lie_in_a_short_folder_of_their_own() -> None:
    long = Path("/srv", *["deep"] * 30, "engine")
    short = state.run_folder(long)
    assert len(str(short)) < 40
    assert state.digest(long) in short.name
    assert short != state.run_folder(Path("/srv", *["deep"] * 31, "engine"))


def test_the_short_folder_is_where_this_user_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(state, "_SHORT_PARENTS", (Path("/proc/nowhere"), tmp_path))
    assert state.run_folder(Path("/srv", *["deep"] * 30)).parent == tmp_path


def test_a_digest_is_of_the_real_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert state.digest(tmp_path / "folder") == state.digest(tmp_path / "link")
    assert state.digest(tmp_path / "folder") != state.digest(tmp_path)


def test_mounts_are_those_at_or_below_a_folder_the_deepest_first(tmp_path: Path) -> None:
    assert state.mounts(tmp_path) == []
    found = state.mounts(Path("/proc"))
    assert found[-1] == Path("/proc")
    assert state.unmount(tmp_path) == []
