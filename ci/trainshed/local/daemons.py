"""Servers that outlive the command that started them: one at a time, found again, ready before use, ended without a trace.

A record (``daemon.json``) names the process by number and start time, so a reused number fools nobody. The record and the lock
make two commands that start at once start one. A process that was started but not yet recorded (its starter was killed in
between) is found by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainshed import files, owner, settings
from trainshed.errors import RemoteError, ToolMissing
from trainshed.local import ports, state
from trainshed.tools import process

READY_SECONDS = 90.0
END_SECONDS = 60.0
_MARK = "_TRAINSHED_DAEMON"
_LOG_LIMIT = 8 * 1024 * 1024
_ATTEMPTS = 3
_NAMING = 3
"""So many words of a command line tell a server from what it starts: ``python -m trainshed.local.kubeflow``."""
_OUTLIVE = dict.fromkeys(
    ("BUILD_ID", "HUDSON_COOKIE", "HUDSON_SERVER_COOKIE", "JENKINS_COOKIE", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE"), "dontKillMe"
)
"""Jenkins ends what carries its own values of these when a step is aborted (the server's cookie stands for the whole workspace there), or a
build ends; a daemon is for the other branches and for the next build too."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A daemon that runs. ``port`` is 0 for one behind a socket file; ``fingerprint`` stands for how it was started."""

    pid: int
    start: str
    port: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """One server of one state folder.

    ``command`` gets the port and returns program and arguments; ``ready`` gets the port and tells whether it answers.
    ``preferred`` is the port to take when free (None: no port, a socket file instead). A server is started anew when its command
    has changed, or ``version`` where that is given. ``prepare`` runs right before each start, ``cleanup`` after each end, both
    with the lock held.
    """

    name: str
    folder: Path
    command: Callable[[int], Sequence[str]]
    ready: Callable[[int], bool]
    preferred: int | None = 0
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[int], None] = lambda _port: None
    cleanup: Callable[[], None] = lambda: None
    ready_seconds: float = READY_SECONDS

    @property
    def log(self) -> Path:
        """Return the file that holds all that the server writes."""
        return self.folder / f"{self.name}.log"

    def running(self) -> Running | None:
        """Return the record of the live process, None when there is none."""
        try:
            record = Running(**json.loads((self.folder / "daemon.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return record if owner.start_time(record.pid) == record.start else None

    def ensure(self, *, on_start: Callable[[], None] = lambda: None) -> Running:
        """Return the running server, started when needed; it answers by then.

        Args:
            on_start: called before a start, which takes seconds.

        Raises:
            RemoteError: it ended at once or did not answer in time; the message has the end of its log.
            ToolMissing: its program is not there.
        """
        found = self.running()
        if found is not None and found.fingerprint == self._fingerprint(found.port) and self._answers(found):
            return found
        with state.locked(self.folder / "lock"):
            found = self.running()
            if found is not None and found.fingerprint == self._fingerprint(found.port) and self._wait(found):
                return found
            self._end(found)
            on_start()
            return self._start()

    def end(self) -> bool:
        """End the server, if it runs, and clean up behind it; tell whether it ran."""
        if not self.folder.is_dir():
            return False
        with state.locked(self.folder / "lock"):
            found = self.running()
            self._end(found, children=True)
        return found is not None

    def tail(self, size: int = 2000) -> str:
        """Return the end of the log."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-size:].decode(errors="replace").strip()
        return ""

    def _fingerprint(self, port: int) -> str:
        return hashlib.sha256((self.version or json.dumps(list(self.command(port)))).encode()).hexdigest()

    def _answers(self, found: Running) -> bool:
        return (not found.port or ports.listens(found.pid, found.port)) and self.ready(found.port)

    def _wait(self, found: Running) -> bool:
        deadline = time.monotonic() + self.ready_seconds
        while owner.start_time(found.pid) == found.start:
            if self._answers(found):
                return True
            if time.monotonic() > deadline:
                return False
            process.pause(process.POLL_SECONDS)
        return False

    def _start(self) -> Running:
        for _ in range(_ATTEMPTS):
            port = 0 if self.preferred is None else self._port(self.preferred)
            self.prepare(port)
            found = self._spawn(port)
            try:
                if self._wait(found):
                    return found
                ended = owner.start_time(found.pid) != found.start
            except BaseException:
                self._end(found)
                raise
            self._end(found)
            if not ended or not port or ports.free(port):
                break  # another port would not help
        how = "ended at once" if ended else f"did not answer within {self.ready_seconds:g} s"
        message = f"{self.name} {how}" + (f":\n{said}" if (said := self.tail()) else "")
        raise RemoteError(message, next_step=f"Read {self.log}.")

    def _port(self, preferred: int) -> int:
        """Take the port of last time as long as it is free: addresses end up in image references."""
        file = self.folder / "port"
        last = 0
        with contextlib.suppress(OSError, ValueError):
            last = int(file.read_text(encoding="ascii"))
        port = ports.choose([last, preferred], key=state.digest(self.folder))
        if port != last:
            files.write_text(file, f"{port}\n")
        return port

    def _spawn(self, port: int) -> Running:
        command = list(self.command(port))
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        environment = {**settings.child_environment(), **_OUTLIVE, **self.environment, _MARK: str(self.folder)}
        output = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            # Not subprocess: its objects warn when they are dropped while the process lives on, which is the point here.
            pid = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log), output, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise ToolMissing(f"{command[0]} cannot be run: {error.strerror}", next_step="Install it again.") from error
        found = Running(pid=pid, start=owner.start_time(pid) or "", port=port, fingerprint=self._fingerprint(port))
        files.write_json(self.folder / "daemon.json", asdict(found))
        return found

    def _end(self, found: Running | None, *, children: bool = False) -> None:
        """End the recorded process and an unrecorded one that carries our mark; runs with the lock held.

        Its children carry the mark too. They are spared when the server is only started anew: it may take them over.
        """
        if found is not None:
            end_all({found.pid: found.start})
        self.cleanup()
        end_all(_marked(str(self.folder), () if children else self.command(0)[:_NAMING]))
        (self.folder / "daemon.json").unlink(missing_ok=True)


def _marked(folder: str, command: Sequence[str] = ()) -> dict[int, str]:
    """Return the processes, with their starts, that carry the mark of a folder and whose command line begins with ``command``."""
    mark = f"{_MARK}={folder}".encode()
    words = [word.encode() for word in command]
    marked = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            line = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone, or of another user
            continue
        start = owner.start_time(int(entry.name))
        if mark in environment and line[: len(words)] == words and start is not None:
            marked[int(entry.name)] = start
    return marked


def end_all(pids: Mapping[int, str], *, grace: float = END_SECONDS) -> None:
    """End processes, given by number and start: SIGTERM, SIGKILL after ``grace`` seconds, and wait until they are gone."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        for pid, start in pids.items():
            if owner.start_time(pid) == start:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(owner.start_time(pid) == start for pid, start in pids.items()):
            if time.monotonic() > deadline:
                break
            time.sleep(process.POLL_SECONDS)  # not interruptible: what was begun to be ended is ended
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # our own child: leave no zombie behind
            os.waitpid(pid, os.WNOHANG)
