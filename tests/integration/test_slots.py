"""Slots that many processes and threads share: never too many at once, none lost, and no wait that cannot be ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from trainshed.errors import Interrupted, UsageError
from trainshed.tools import process, slots

LIMIT = 60.0
HOLD = """import sys
from trainshed.tools import slots
with slots.held("build", 1, on_wait=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""
LEAVE = """import subprocess
from trainshed.tools import slots
with slots.held("build", 1, on_wait=lambda: None):
    print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(slots.VARIABLE, str(tmp_path / "slots"))
    return tmp_path / "slots"


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Return another process, which holds the only slot until its stdin is closed."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def silent() -> None:
    """Hear of a wait and say nothing."""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_no_more_than_so_many_are_held_at_once_and_all_come_to_their_turn() -> None:
    lock, inside, most, ended = threading.Lock(), set[int](), set[int](), list[int]()

    def work(number: int) -> None:
        with slots.held("build", 3, on_wait=silent):
            with lock:
                inside.add(number)
                most.add(len(inside))
            time.sleep(0.02)
            with lock:
                inside.remove(number)
                ended.append(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert max(most) <= 3
    assert sorted(ended) == list(range(12))


def test_a_slot_of_another_process_is_waited_for_and_the_wait_told_once(holder: subprocess.Popen[str]) -> None:
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool:

        def take() -> None:
            with slots.held("build", 1, on_wait=lambda: told.append("waits")):
                pass

        waiting = pool.submit(take)
        until(lambda: bool(told))
        assert not waiting.done()
        assert holder.stdin is not None
        holder.stdin.close()
        waiting.result(LIMIT)
    assert told == ["waits"]


def test_a_killed_process_frees_its_slot(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    with slots.held("build", 1, on_wait=silent):
        assert holder.wait(LIMIT) == -signal.SIGKILL


def test_a_wait_ends_when_the_command_is_interrupted(holder: subprocess.Popen[str]) -> None:
    with pytest.raises(Interrupted), slots.held("build", 1, on_wait=process.stopping.set):
        pytest.fail("two hold it")
    assert holder.poll() is None


def test_another_kind_and_a_project_that_allows_more_do_not_wait(holder: subprocess.Popen[str]) -> None:
    with slots.held("scan", 1, on_wait=silent), slots.held("build", 2, on_wait=silent):
        assert holder.poll() is None


def test_who_frees_a_slot_and_asks_again_passes_nobody_who_waits() -> None:
    order: list[str] = []

    def wait() -> None:
        with slots.held("build", 1, on_wait=silent):
            order.append("waiter")

    with ExitStack() as mine, ThreadPoolExecutor(1) as pool:
        mine.enter_context(slots.held("build", 1, on_wait=silent))
        waiting = pool.submit(wait)
        until(lambda: _locked(slots.folder() / "build.turnstile-1"))
        mine.close()
        with slots.held("build", 1, on_wait=silent):
            order.append("again")
        waiting.result(LIMIT)
    assert order == ["waiter", "again"]


def _locked(file: Path) -> bool:
    import fcntl

    with file.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_child_that_outlives_its_parent_keeps_no_slot() -> None:
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", LEAVE], check=True, capture_output=True, text=True).stdout
    child = int(said)
    try:
        with slots.held("build", 1, on_wait=lambda: pytest.fail("the child holds it")):
            assert Path(f"/proc/{child}").exists()
    finally:
        subprocess.run(["kill", str(child)], check=True)


def test_without_a_name_the_folder_is_one_for_each_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(slots.VARIABLE)
    monkeypatch.setattr(slots, "_PARENT", tmp_path)
    assert slots.folder().parent == tmp_path
    assert slots.folder().stat().st_mode & 0o777 == 0o700


def test_a_link_that_another_put_in_the_folders_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(slots.VARIABLE)
    monkeypatch.setattr(slots, "_PARENT", tmp_path)
    place = slots.folder()
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a folder of this user") as raised:
        slots.folder()
    assert slots.VARIABLE in raised.value.next_step
