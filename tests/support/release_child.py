"""Commands as processes of their own that can be killed at a point of a release: forked from one that has imported everything.

A line of JSON on stdin is a command: ``words``, ``environment``, ``folder``, ``out`` (a file for all it says), ``ecs`` (the address of
the scripted Prediction Service), and ``kill``: ``STEP:before``, ``STEP:during`` or ``STEP:after``, with ``:N`` for the N-th thing that
the step does outside. The answer is a line with the process's return code, negative for a signal. Nothing of this is in the package:
the journal is watched from here, and what leaves the process is counted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.connectionpool import HTTPConnectionPool

from tests.support.scripted_ecs import LOOKS
from tests.support.scripted_ecs import client as ecs_client
from trainshed import cli, files
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal
from trainshed.tools import process

_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Kills this process at a point."""

    def __init__(self, point: str) -> None:
        self.step, self.when, number = [*point.split(":"), "1"][:3]
        self.left, self.now = int(number), ""

    def watch(self) -> None:
        """Put itself around the journal, and around everything that leaves the process."""
        doing, done = journal.doing, journal.done

        def begun(context: Context, entry: journal.Entry, step: str) -> journal.Entry:
            told = doing(context, entry, step)
            self.now = step
            if (step, "before") == (self.step, self.when):
                die()
            return told

        def ended(context: Context, entry: journal.Entry, step: str, *given: Any, **more: Any) -> journal.Entry:
            if (step, "after") == (self.step, self.when):
                die()
            self.now = ""
            return done(context, entry, step, *given, **more)

        journal.doing, journal.done = begun, ended
        self._after(HTTPConnectionPool, "urlopen", lambda _, method, *__, **more: method in _CHANGING and not _looks(more))
        self._after(process, "run", lambda words, **_: words[0] == "git" and "push" in words)
        for name in ("write_bytes", "write_text", "write_json"):
            self._after(files, name, lambda *_, **__: self.step in {"stamp", "record"})

    def _after(self, place: Any, name: str, counts: Callable[..., bool]) -> None:
        real = getattr(place, name)

        def call(*given: Any, **more: Any) -> Any:
            answer = real(*given, **more)
            if (self.now, "during") == (self.step, self.when) and counts(*given, **more):
                self.left -= 1
                if self.left == 0:
                    die()
            return answer

        setattr(place, name, call)


def _looks(request: Mapping[str, Any]) -> bool:
    """Tell whether a request to AWS only asks."""
    target = dict(request.get("headers") or {}).get("X-Amz-Target", b"")
    action = (target.decode() if isinstance(target, bytes) else str(target)).rpartition(".")[2]
    return action.startswith(LOOKS)


def run(command: Mapping[str, Any]) -> int:
    """Be the command, in this process."""
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    out = os.open(command["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    ecs = ecs_client(command["ecs"])
    Context.prediction = property(lambda _: ecs)  # type: ignore[assignment]
    if command["kill"]:
        Killer(command["kill"]).watch()
    return cli.main(command["words"])


def main() -> None:
    """Fork a process for each command, and tell how it ended."""
    from tests.support import warmed  # noqa: F401 - all that a release imports

    urllib3.disable_warnings()
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = run(command)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
