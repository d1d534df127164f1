"""An engine for tasks' lives: containers are entries of a table, and a test decides what happens to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from trainshed.local.prediction.containers import CannotStartError, State
from trainshed.local.prediction.records import Task


class FakeEngine:
    """Each container is published at ``port``; ``unable`` is why none can start."""

    def __init__(self, port: int = 0) -> None:
        self.published, self.unable = port, ""
        self.states: dict[str, State] = {}
        self.labels: dict[str, str] = {}
        self.commands: list[list[str]] = []
        self.healthy = True
        self._lock = threading.Lock()

    def start(self, task: Task, definition: Mapping[str, Any], created: Callable[[str, str], None]) -> int:
        """Start a container, or refuse."""
        assert definition["containerDefinitions"]
        if self.unable:
            raise CannotStartError(self.unable)
        with self._lock:
            identity = f"container-{len(self.labels)}"
            self.states[identity], self.labels[identity] = State(present=True, running=True), task.id
        created(identity, f"sha256:{'1' * 64}")
        return self.published

    def exit(self, code: int) -> None:
        """End every running container."""
        with self._lock:
            for identity, state in self.states.items():
                if state.running:
                    self.states[identity] = State(present=True, exit_code=code)

    def state(self, identity: str) -> State:
        """Look at a container."""
        return self.states.get(identity, State(present=False))

    def port(self, identity: str) -> int:
        """Return its port."""
        assert identity in self.states
        return self.published

    def execute(self, identity: str, command: list[str]) -> bool:
        """Run a health check's command."""
        self.commands.append(command)
        return self.healthy and self.state(identity).running

    def tail(self, identity: str, lines: int = 200) -> bytes:
        """Return its last words."""
        return f"{identity} said {lines}".encode()

    def stop(self, identity: str, grace: int) -> None:
        """Stop it."""
        assert grace >= 0
        with self._lock:
            if self.state(identity).running:
                self.states[identity] = State(present=True, exit_code=0)

    def remove(self, identity: str) -> None:
        """Remove it."""
        with self._lock:
            self.states.pop(identity, None)

    def ours(self) -> dict[str, str]:
        """Return the containers that are there."""
        with self._lock:
            return {identity: self.labels.get(identity, "") for identity in self.states}
