"""Connections to tasks, kept for the next request: a new one for each would overflow the short queues that servers listen with."""

from __future__ import annotations

import http.client
import select
import threading
import time

_IDLE_SECONDS = 1.0
"""Shorter than any server's patience with an idle connection, so that none hangs up just when a request is sent."""
_KEPT = 32


class Connections:
    """Idle connections by task; thread-safe."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[http.client.HTTPConnection, float]]] = {}

    def take(self, task: str, port: int) -> http.client.HTTPConnection:
        """Return an open connection to a task.

        Raises:
            OSError: it cannot be reached.
        """
        while True:
            with self._lock:
                connection, since = self._idle.get(task, []).pop() if self._idle.get(task) else (None, 0.0)
            if connection is None:
                fresh = http.client.HTTPConnection("127.0.0.1", port, timeout=self._timeout)
                fresh.connect()
                return fresh
            if time.monotonic() - since < _IDLE_SECONDS and not _spoke(connection):
                return connection
            connection.close()

    def give(self, task: str, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end; close it where its task is not known, or has enough."""
        with self._lock:
            idle = self._idle.get(task)
            if idle is not None and connection.sock is not None and len(idle) < _KEPT:
                idle.append((connection, time.monotonic()))
                return
        connection.close()

    def know(self, task: str) -> None:
        """Keep connections of a task from now on."""
        with self._lock:
            self._idle.setdefault(task, [])

    def forget(self, task: str) -> None:
        """Close what is idle of a task, and keep none of it any more."""
        with self._lock:
            left = self._idle.pop(task, [])
        for connection, _ in left:
            connection.close()

    def close(self) -> None:
        """Close all that is idle, and keep none any more."""
        with self._lock:
            known = list(self._idle)
        for task in known:
            self.forget(task)


def _spoke(connection: http.client.HTTPConnection) -> bool:
    """Tell whether an idle connection has something to read: its end, since nothing was asked."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
