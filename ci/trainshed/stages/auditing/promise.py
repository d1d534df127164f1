"""One promise of the platform, and whether it holds: kept, broken, or not known because it could not be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.tools.aws import Refused


class State(StrEnum):
    """Whether a promise holds."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One promise. ``found`` is what is instead, or why that is not known; ``step`` is what to do. Both are empty where it is kept."""

    what: str
    state: State = State.KEPT
    found: str = ""
    step: str = ""
    exit_code: int = 0

    @property
    def told(self) -> str:
        """Return what was found and what to do."""
        return " ".join(filter(None, (f"{self.found}." if self.found else "", self.step)))

    def document(self) -> dict[str, str]:
        """Return it as the ``--json`` document shows it."""
        return {"promise": self.what, "state": str(self.state), "found": self.found, "next": self.step}


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One thing of the platform: its ``kind`` (bucket, account, repository or role), its name, and what is promised of it."""

    kind: str
    name: str
    promises: tuple[Promise, ...]


def judged(what: str, wrong: str, step: str) -> Promise:
    """Return a promise that is kept when nothing is wrong."""
    return Promise(what=what, state=State.BROKEN, found=wrong, step=step, exit_code=WorkFailed.exit_code) if wrong else Promise(what=what)


def unknown(what: str, error: UsageError | RemoteError) -> Promise:
    """Return a promise of which an error hides whether it is kept."""
    denied = isinstance(error, Refused) and error.denied
    step = "Give the auditor leave to ask that: it is told what it lacks." if denied else error.next_step
    return Promise(what=what, state=State.UNKNOWN, found=error.message.rstrip("."), step=step, exit_code=error.exit_code)


def asked(what: str, judge: Callable[[], str], step: str) -> Promise:
    """Ask and judge; what may not be asked, or could not, is not known, and hides no other promise.

    Args:
        what: the promise.
        judge: returns what is wrong, empty when the promise is kept.
        step: how to mend it.
    """
    try:
        return judged(what, judge(), step)
    except (Refused, RemoteError) as error:
        return unknown(what, error)
