from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from trainshed import owner
from trainshed.errors import Interrupted, ToolMissing
from trainshed.tools import process
from trainshed.tools.process import ProcessFailed


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(file: Path, seconds: float = 30.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if file.is_file() and file.read_text().endswith("\n"):
            return file.read_text().strip()
        time.sleep(0.01)
    raise AssertionError(f"{file} never came")


def gone(pid: int, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if owner.start_time(pid) is None:
            return True
        time.sleep(0.01)
    return False


FAMILY = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "open({!r}, 'w').write(str(child.pid) + '\\n'); time.sleep(600)"
)


def test_output_and_errors_are_kept_apart() -> None:
    done = process.run(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (done.code, done.output, done.errors) == (0, "out\n", "err\n")


def test_a_log_takes_all_that_is_said(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    process.run(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"), log=log)
    assert log.read_text() == "out\nerr\n"


def test_a_failure_shows_command_code_and_output_without_the_secret() -> None:
    with pytest.raises(ProcessFailed) as caught:
        process.run([*python("import sys; sys.exit('no hunter2 here')"), "hunter2"], secrets=["hunter2"])
    assert "ended with code 1" in caught.value.message
    assert "no *** here" in caught.value.message
    assert "hunter2" not in caught.value.message
    assert caught.value.outcome.code == 1


@pytest.mark.parametrize("code", [0, 3])
def test_a_secret_stays_out_of_the_log_and_the_outcome(tmp_path: Path, code: int) -> None:
    log = tmp_path / "x.log"
    log.write_text("before\n")
    program = f"import sys; sys.stdout.buffer.write(b'\\xff hunter2, hunter\\n'); sys.exit({code})"
    done = process.run(python(program), log=log, secrets=["hunter", "hunter2"], check=False)
    assert log.read_bytes() == b"before\n\xff ***, ***\n"
    assert "hunter" not in done.output


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ToolMissing, match="/no/such/program cannot be run"):
        process.run(["/no/such/program"])
    with pytest.raises(ToolMissing, match="no-such-program was not found"):
        process.need("no-such-program", next_step="Install it.")


def test_a_program_beside_the_interpreter_is_found_first() -> None:
    assert process.find("python") == str(Path(sys.executable).parent / "python")


def test_a_time_limit_ends_the_program_and_all_that_it_started(tmp_path: Path) -> None:
    family = tmp_path / "pid"
    with pytest.raises(ProcessFailed, match="took longer than 1 s"):
        process.run(python(FAMILY.format(str(family))), timeout=1)
    if family.exists():
        assert gone(int(family.read_text()))


def test_stopping_ends_the_program_and_all_that_it_started(tmp_path: Path) -> None:
    family = tmp_path / "pid"

    def stop() -> None:
        wait_for(family)
        process.stopping.set()

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted):
        process.run(python(FAMILY.format(str(family))))
    assert gone(int(family.read_text()))
    with pytest.raises(Interrupted):
        process.run(python("pass"))


def test_stopping_ends_a_pause_and_a_call_that_cannot_be_interrupted() -> None:
    held = threading.Event()
    assert process.interruptible(lambda: 42) == 42
    with pytest.raises(ValueError, match="inner"):
        process.interruptible(lambda: int("inner"))
    process.pause(0)
    threading.Timer(0.05, process.stopping.set).start()
    with pytest.raises(Interrupted):
        process.interruptible(lambda: held.wait(60))
    with pytest.raises(Interrupted):
        process.pause(60)
    held.set()


def test_a_call_that_ends_just_as_its_wait_does_has_its_own_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            found = super().result()
            if timeout is not None:
                raise TimeoutError
            return found

    def slow() -> int:
        raise TimeoutError("its own")

    monkeypatch.setattr(process, "Future", Late)
    assert process.interruptible(lambda: 42) == 42
    with pytest.raises(TimeoutError, match="its own"):
        process.interruptible(slow)


def test_a_child_does_not_see_our_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINSHED_LEDGER_URL", "postgresql://u:secret@h/d")
    said = process.run(python("import os; print(os.environ.get('TRAINSHED_LEDGER_URL'), os.environ['EXTRA'])"), environment={"EXTRA": "1"})
    assert said.output == "None 1\n"


def test_all_children_can_be_killed_at_once(tmp_path: Path) -> None:
    family = tmp_path / "pid"
    ended: list[ProcessFailed] = []

    def work() -> None:
        with pytest.raises(ProcessFailed) as caught:
            process.run(python(FAMILY.format(str(family))))
        ended.append(caught.value)

    worker = threading.Thread(target=work)
    worker.start()
    child = int(wait_for(family))
    process.end_all()
    worker.join(30)
    assert ended[0].outcome.code == -9
    assert gone(child)


def test_long_secrets_are_masked_before_their_parts() -> None:
    assert process.mask("abcd ab", ["ab", "abcd", ""]) == "*** ***"
    assert process.echo(["a b", "s3cret"], ["s3cret"]) == "'a b' ***"
