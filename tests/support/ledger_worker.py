"""Processes that use a ledger at once: ``python -m tests.support.ledger_worker URL COUNT TASK [ARGUMENT…]``.

They say what they reached on stdout, a line each.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from trainshed import owner
from trainshed.ledger.records import Verdict
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier


def write(ledger: Ledger, count: str) -> None:
    """Record verdicts, images and events, each under a name of this process's own."""
    for number in range(int(count)):
        name = f"{os.getpid()}-{number}"
        digest = f"sha256:{name}"
        ledger.record_verdict(Verdict(digest=digest, check="scan", version="v1", component=name, green=True, details={"name": name}))
        ledger.record_image(component=name, repository="r", input_digest=digest, digest=digest, manifest={"name": name}, seconds=1)
        ledger.record_event("run", "dev", name, "k", {"name": name})
        ledger.attach(digest, "sbom", name.encode())
        ledger.record_lock(digest, name, "b", {"name": name})
        say(name)


def build(ledger: Ledger, inside: str, count: str) -> None:
    """Hold the lease again and again; a file that may stand only once proves that nobody else does meanwhile."""
    for _ in range(int(count)):
        with ledger.lease("build", ttl=600):
            Path(inside).touch(exist_ok=False)
            ledger.record_event("run", "dev", "built", "k", {})
            Path(inside).unlink()
    say("done")


def hold(ledger: Ledger, ttl: str) -> None:
    """Hold the lease until it is lost; say who holds it, and then that it is lost."""
    with ledger.lease("build", ttl=float(ttl)) as lease:
        say(str(os.getpid()))
        while not lease.lost:
            time.sleep(0.01)
    say("lost")


def elsewhere(ledger: Ledger, ttl: str) -> None:
    """Hold the lease as a process of another machine would."""
    owner.host = lambda: "another-agent/1/1"
    hold(ledger, ttl)


def say(text: str) -> None:
    """Write a line in one piece: many processes share stdout."""
    os.write(1, f"{text}\n".encode())


TASKS: dict[str, Callable[..., None]] = {"write": write, "build": build, "hold": hold, "elsewhere": elsewhere}


def main(url: str, count: str, task: str, *arguments: str) -> None:
    """Do the task in as many processes, all at once: forked, so that starting them takes no time and they meet at the ledger."""
    children = [_forked(url, task, arguments) for _ in range(int(count))]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


def _forked(url: str, task: str, arguments: tuple[str, ...]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with Ledger.open(url, tier=Tier.LAPTOP) as ledger:
                TASKS[task](ledger, *arguments)
            code = 0
        except BaseException:  # noqa: BLE001 - shown, and told by the code
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


if __name__ == "__main__":
    main(*sys.argv[1:])
