"""Faults that the server commits on request: once, some times or for ever, before it does what it is asked or after."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

KINDS = ("login", "html", "401", "403", "409", "429", "500", "502", "503", "504", "slow", "cut", "reset", "wrong-json", "no-json", "empty")
"""A login page behind a redirect, the page itself, statuses, an answer that does not come, stops in its midst or never begins, and JSON
of another shape, that is none, or that says nothing."""


@dataclass
class Fault:
    """One fault, for requests of a method to paths that the pattern matches as a whole.

    ``times``: how often, None for ever. ``skip``: let so many go by first. ``after``: do what is asked, then lose the answer.
    ``retry_after``: seconds told with 429 and 503.
    """

    method: str
    path: str
    kind: str = "500"
    times: int | None = 1
    after: bool = False
    skip: int = 0
    retry_after: str = ""
    seen: int = 0

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"{self.kind}: expected one of {', '.join(KINDS)}"

    def meets(self, method: str, path: str) -> bool:
        """Tell whether this fault is due for a request."""
        return self.times != 0 and self.method in {method, "*"} and re.fullmatch(self.path, path) is not None


class Faults:
    """The faults to come."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Prepare a fault; ``seen`` tells afterwards how often it was met."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for a request, None where all is well."""
        with self._lock:
            fault = next((each for each in self._faults if each.meets(method, path)), None)
            if fault is None:
                return None
            if fault.skip:
                fault.skip -= 1
                return None
            fault.seen += 1
            if fault.times is not None:
                fault.times -= 1
            return fault
