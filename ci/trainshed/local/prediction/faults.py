"""Faults on request, for tests: what AWS does on a bad day, and what a task may meet.

A fault is a JSON object. Of an answer: ``{"kind": "throttle", "action": "DescribeServices", "times": 2}``, with the kinds of
`ANSWERS`; ``action`` ``*`` is every one, ``times`` left out is until the faults are taken away, ``seconds`` is how long (`slow`) or
how old (`stale`), and ``after`` lets the action be done before its answer is lost. Of tasks: ``alarm`` (the CloudWatch alarm ``name``
is in ALARM), ``role`` (the execution role ``name`` may not be assumed), ``capacity`` (no place for a task, ``times`` over).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainshed.local.prediction.protocol import RefusedError

ANSWERS = ("throttle", "denied", "expired", "error", "cut", "slow", "stale")
TASKS = ("alarm", "role", "capacity")
_KEYS: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "action": (str,),
    "times": (int,),
    "seconds": (int, float),
    "after": (bool,),
    "name": (str,),
}
_REFUSALS = {
    "throttle": ("ThrottlingException", "Rate exceeded", 400),
    "expired": ("ExpiredTokenException", "The security token included in the request is expired", 400),
    "error": ("ServerException", "Service Unavailable. Please try again later.", 500),
}


@dataclass(kw_only=True)
class Fault:
    """One fault; ``taken`` counts how often it struck."""

    kind: str
    action: str = "*"
    times: int | None = None
    seconds: float = 0.0
    after: bool = False
    name: str = ""
    taken: int = 0

    @property
    def spent(self) -> bool:
        """Tell whether it has struck as often as it was asked to."""
        return self.times is not None and self.taken >= self.times

    def refusal(self, action: str) -> RefusedError | None:
        """Return the error that it answers with; None where it answers with none."""
        if self.kind == "denied":
            message = f"User: arn:aws:iam::000000000000:user/embedded is not authorized to perform: {action} on resource: *"
            return RefusedError("AccessDeniedException", f"{message} because no identity-based policy allows the {action} action")
        known = _REFUSALS.get(self.kind)
        return RefusedError(*known) if known is not None else None


class Faults:
    """The faults that are on; thread-safe. Without ``allowed`` none can be put."""

    def __init__(self, *, allowed: bool = False) -> None:
        self.allowed = allowed
        self._lock = threading.Lock()
        self._on: list[Fault] = []

    def put(self, wanted: object) -> None:
        """Replace the faults by others.

        Raises:
            RefusedError: what was given is no list of faults.
        """
        if not isinstance(wanted, list):
            raise RefusedError("InvalidParameterException", "expected a list of faults")
        found = [_fault(one) for one in wanted]
        with self._lock:
            self._on = found

    def shown(self) -> list[dict[str, Any]]:
        """Return the faults with how often each struck."""
        with self._lock:
            return [asdict(fault) for fault in self._on]

    def strike(self, action: str) -> Fault | None:
        """Return the fault of an answer to ``action`` (``DescribeServices``), and count it."""
        with self._lock:
            return self._taken(lambda fault: fault.kind in ANSWERS and fault.action in {"*", action})

    def task(self, kind: str, name: str = "") -> bool:
        """Tell whether a task's fault is on for a name, and count it."""
        with self._lock:
            return self._taken(lambda fault: fault.kind == kind and fault.name in {"", name}) is not None

    def named(self, kind: str) -> frozenset[str]:
        """Return the names of a kind of fault."""
        with self._lock:
            return frozenset(fault.name for fault in self._on if fault.kind == kind and not fault.spent)

    def _taken(self, fits: Callable[[Fault], bool]) -> Fault | None:
        found = next((fault for fault in self._on if not fault.spent and fits(fault)), None)
        if found is not None:
            found.taken += 1
        return found


def _fault(document: object) -> Fault:
    if not isinstance(document, Mapping) or document.get("kind") not in {*ANSWERS, *TASKS}:
        raise RefusedError("InvalidParameterException", f"a fault has a kind of {', '.join((*ANSWERS, *TASKS))}, not {document!r}")
    for key, value in document.items():
        expected = _KEYS.get(key)
        if expected is None or not isinstance(value, expected):
            raise RefusedError("InvalidParameterException", f"a fault has no {key}: {value!r}")
    return Fault(**document)
