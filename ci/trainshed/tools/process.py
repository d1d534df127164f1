"""The one door to processes: an argument list, a process group of its own, a limit, a log, and no secret in any message."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from trainshed import settings
from trainshed.errors import Interrupted, ToolMissing, WorkFailed

T = TypeVar("T")

POLL_SECONDS = 0.05
GRACE_SECONDS = 2.0
TAIL_BYTES = 16_384

_local = threading.local()
_children: set[subprocess.Popen[bytes]] = set()
stopping = threading.Event()
"""Set by the session when SIGINT or SIGTERM arrives: every child is ended and every wait returns."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a process ended. ``code`` is negative for a signal; ``output`` and ``errors`` are UTF-8 with replacements."""

    code: int
    output: str
    errors: str
    seconds: float
    timed_out: bool = False


class ProcessFailed(WorkFailed):
    """A process ended with another code than 0, or ran out of time."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def find(program: str) -> str | None:
    """Return the path of a program: beside this interpreter first (wheels carry binaries), then on PATH."""
    beside = Path(settings.interpreter()).parent / program
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(program, path=settings.search_path())


def need(program: str, *, next_step: str) -> str:
    """Return the path of a program, or raise `ToolMissing` with what to install."""
    found = find(program)
    if found is None:
        raise ToolMissing(f"{program} was not found on PATH", next_step=next_step)
    return found


def pause(seconds: float) -> None:
    """Sleep, but no longer than until SIGTERM; raise `Interrupted` then."""
    if stopping.wait(seconds):
        raise Interrupted("interrupted")


def abandonable() -> None:
    """Say of the present thread that it may be left behind at any moment: what it calls need not be interruptible one by one."""
    _local.abandonable = True


def interruptible(call: Callable[[], T]) -> T:
    """Run a call that cannot be interrupted in a thread of its own; leave it behind when SIGTERM arrives."""
    if getattr(_local, "abandonable", False):
        return call()
    outcome: Future[T] = Future()

    def fulfil() -> None:
        abandonable()
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            outcome.set_exception(error)

    threading.Thread(target=fulfil, daemon=True).start()
    while True:
        try:
            return outcome.result(timeout=POLL_SECONDS)
        except FutureTimeoutError:
            if outcome.done():  # just now, or the call itself timed out: `result` tells which
                return outcome.result()
            if stopping.is_set():
                raise Interrupted("interrupted") from None


def run(  # noqa: PLR0913 - one door, so it has all the handles
    arguments: Sequence[str],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    timeout: float | None = None,
    check: bool = True,
    secrets: Sequence[str] = (),
) -> Outcome:
    """Run a program to its end.

    Args:
        arguments: the program and its arguments; never a shell string.
        log: a file to which stdout and stderr are appended as they come; `Outcome.output` then holds its tail.
        environment: added to the scrubbed environment of `settings.child_environment`.
        stdin: an open binary file; nothing by default.
        timeout: seconds until the whole process group is killed.
        check: raise `ProcessFailed` when the code is not 0.
        secrets: values to mask in messages, in the log and in what is returned. The log is masked once the process has ended.

    Raises:
        ToolMissing: the program does not exist or may not be run.
        ProcessFailed: see ``check``.
        Interrupted: SIGTERM or SIGINT arrived; the process group is gone.
    """
    if stopping.is_set():
        raise Interrupted("interrupted")
    started = time.monotonic()
    with _streams(log, secrets) as (out, err), _started(arguments, cwd, environment, stdin, out, err) as child:
        timed_out = _wait(child, timeout, started)
        offset = 0 if log is None else None
        output, errors = (mask(text, secrets) for text in (_read(out, offset), _read(err, offset) if err is not out else ""))
    outcome = Outcome(code=child.returncode, output=output, errors=errors, seconds=time.monotonic() - started, timed_out=timed_out)
    if check and (outcome.code != 0 or timed_out):
        raise ProcessFailed(_failure(arguments, outcome, timeout, secrets), outcome)
    return outcome


def echo(arguments: Sequence[str], secrets: Sequence[str] = ()) -> str:
    """Return the command as a shell would take it, secrets masked."""
    return mask(shlex.join(arguments), secrets)


def mask(text: str, secrets: Sequence[str]) -> str:
    """Replace every secret value (longest first) by ``***``."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


@contextlib.contextmanager
def _streams(log: Path | None, secrets: Sequence[str]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    if log is None:
        import tempfile

        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            yield out, err
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a+b") as both:
        start = both.seek(0, os.SEEK_END)
        try:
            yield both, both
        finally:
            _mask_from(both, start, secrets)


def _mask_from(stream: IO[bytes], start: int, secrets: Sequence[str]) -> None:
    """Mask what was written from an offset on, byte by byte: a log need not be UTF-8."""
    if not secrets:
        return
    stream.seek(start)
    said = safe = stream.read()
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        safe = safe.replace(secret.encode(errors="surrogateescape"), b"***")
    if safe != said:
        stream.truncate(start)
        stream.write(safe)


@contextlib.contextmanager
def _started(  # noqa: PLR0913 - what subprocess needs
    arguments: Sequence[str],
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    stdin: IO[bytes] | None,
    out: IO[bytes],
    err: IO[bytes],
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        child = subprocess.Popen(  # noqa: S603 - an argument list, never a shell
            list(arguments),
            cwd=cwd,
            env={**settings.child_environment(), **(environment or {})},
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissing(f"{arguments[0]} cannot be run: {error.strerror}", next_step="Install it, or put it on PATH.") from error
    _children.add(child)
    try:
        yield child
    finally:
        end_group(child)
        _children.discard(child)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started: SIGTERM, a moment of grace, SIGKILL; reap it."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
    _signal(child.pid, signal.SIGKILL)  # grandchildren that outlived their parent
    child.wait()


def end_all() -> None:
    """Kill every child's process group at once: the last thing that a command does when it must leave by force."""
    for child in list(_children):
        _signal(child.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _wait(child: subprocess.Popen[bytes], timeout: float | None, started: float) -> bool:
    while True:
        try:
            child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if stopping.is_set():
                raise Interrupted("interrupted") from None
            if timeout is not None and time.monotonic() - started > timeout:
                end_group(child)
                return True
        else:
            return False


def _read(stream: IO[bytes], offset: int | None) -> str:
    """Return all of a stream (offset 0) or its tail (None)."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - TAIL_BYTES) if offset is None else offset)
    return stream.read().decode(errors="replace")


def _failure(arguments: Sequence[str], outcome: Outcome, timeout: float | None, secrets: Sequence[str]) -> str:
    how = f"took longer than {timeout:g} s" if outcome.timed_out else f"ended with code {outcome.code}"
    said = (outcome.errors or outcome.output).strip()[-2000:]
    return mask(f"{echo(arguments)} {how}" + (f":\n{said}" if said else ""), secrets)
