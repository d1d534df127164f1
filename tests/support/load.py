"""A load as a process of its own: requests at a fixed rate, whatever the answers do, each timed from when it was due.

``python -m tests.support.load HOST:PORT RATE`` sends until SIGTERM, and then prints one JSON document. Every other request goes on a
connection of its own, the others on connections that are kept; every other one is a POST, which nobody may send twice.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TIMEOUT = 60.0
_SHOWN = 10
_BODY = b'{"x": 21}'


@dataclass(kw_only=True)
class Tally:
    """What came of the load. ``late`` is how far the sender itself fell behind at most, in seconds."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    late: float = 0.0
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return it for JSON, with percentiles in milliseconds."""
        times = sorted(self.latencies)
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        points = {name: round(1000 * times[max(0, math.ceil(share * len(times)) - 1)], 1) for name, share in shares.items() if times}
        return {
            "requests": len(times) + len(self.failures),
            "failed": len(self.failures),
            "failures": self.failures[:_SHOWN],
            "answers": dict(self.answers),
            "late": round(1000 * self.late, 1),
            "seconds": round(self.seconds, 1),
            **points,
        }


class _Sender:
    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.tally = Tally()

    async def one(self, number: int, due: float) -> None:
        """Send a request, and note what came of it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_TIMEOUT):
                told = await self._sent(keep=number % 2 == 0, post=number % 4 < 2)
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.tally.failures.append(f"{number}: {type(error).__name__}: {error}")
        else:
            self.tally.latencies.append(loop.time() - due)
            self.tally.answers[f"{told['image']}/{told['version']}"] += 1

    async def _sent(self, *, keep: bool, post: bool) -> dict[str, Any]:
        connection = self.idle.pop() if keep and self.idle else await asyncio.open_connection(self.host, self.port)
        reader, writer = connection
        head = f"{'POST /predict' if post else 'GET /'} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n" if post else ""
        writer.write((head + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + (_BODY if post else b""))
        status, length = await self._head(reader)
        body = await reader.readexactly(length)
        if keep:
            self.idle.append(connection)
        else:
            writer.close()
        told: dict[str, Any] = json.loads(body)
        if status != b"200" or (post and told["twice"] != 42):
            raise ValueError(f"{status!r}: {body[:200]!r}")
        return told

    async def _head(self, reader: asyncio.StreamReader) -> tuple[bytes, int]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        return first.split()[1], int(fields.get(b"content-length", b"0"))


async def _load(address: str, rate: float) -> Tally:
    host, _, port = address.partition(":")
    sender, loop, ending = _Sender(host, int(port)), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    open_requests: set[asyncio.Task[None]] = set()
    begun, number = loop.time(), 0
    while not ending.is_set():
        due = begun + number / rate
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        sender.tally.late = max(sender.tally.late, loop.time() - due)
        task = asyncio.create_task(sender.one(number, due))
        open_requests.add(task)
        task.add_done_callback(open_requests.discard)
        number += 1
    await asyncio.gather(*open_requests)
    sender.tally.seconds = loop.time() - begun
    return sender.tally


@dataclass
class Load:
    """A load that runs; its tally is there when it ended."""

    tally: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def load(address: str, rate: float) -> Iterator[Load]:
    """Send requests during a ``with`` block."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.load", address, str(rate)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    running = Load()
    try:
        yield running
        child.terminate()
        running.tally = json.loads(child.communicate(timeout=2 * _TIMEOUT)[0])
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_load(sys.argv[1], float(sys.argv[2]))).document()) + "\n")
