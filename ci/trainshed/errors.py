"""What can go wrong, one class per cause that a person can mend.

The tree, with the exit code of each::

    TrainshedError          70  a bug, until a class below says otherwise
    ├── WorkFailed           1  a build, test, scan, gate, run or rollout failed
    ├── UsageError           2  the command line, configuration or repository is wrong
    ├── NothingSelected      3  no component or pipeline matches
    ├── ToolMissing          4  a needed tool is missing, too old or not permitted
    ├── RemoteError          5  a remote service failed; a retry may help
    ├── Canceled             6  the training run was canceled, not by this command
    └── Interrupted        130  SIGINT or SIGTERM
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class TrainshedError(Exception):
    """Say what is wrong and what to do next.

    ``message`` names the thing and the place (file, line, key); ``next_step`` is one sentence in the imperative.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    @property
    def told(self) -> str:
        """Return what is wrong and what to do next as one text, for the message of a result."""
        if not self.next_step:
            return self.message
        between = "\n" if "\n" in self.message else " " if self.message.endswith((".", "?", "!")) else ". "
        return f"{self.message}{between}{self.next_step}"


class WorkFailed(TrainshedError):
    """The work itself failed: a build, a test, a finding, a gate, a training run or a rollout."""

    exit_code = 1


class UsageError(TrainshedError):
    """The command line, the configuration or a file of the repository is wrong."""

    exit_code = 2


class NothingSelected(TrainshedError):
    """No component or pipeline matches what was asked for."""

    exit_code = 3


class ToolMissing(TrainshedError):
    """A needed tool is missing, too old, or may not be used."""

    exit_code = 4


class RemoteError(TrainshedError):
    """A remote service could not be reached or refused; a retry may help, unless ``permanent`` says that somebody has to act first."""

    exit_code = 5
    permanent: ClassVar[bool] = False


class Canceled(TrainshedError):
    """The training run was canceled, and not by the command that followed it."""

    exit_code = 6


class Interrupted(TrainshedError):
    """SIGINT or SIGTERM arrived."""

    exit_code = 130


def problems(found: Iterable[str], *, next_step: str = "") -> UsageError:
    """Join all problems of one input into one error, a line each."""
    return UsageError("\n".join(found), next_step=next_step)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; perhaps you meant 'x'`` for the nearest known word, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; perhaps you meant '{near[0]}'" if near else ""
