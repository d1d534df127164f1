"""What people see, on stderr; and the one document on stdout. Everything printed goes through one door that masks secrets."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainshed.errors import TrainshedError
from trainshed.results import Result, Status

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

TAIL_LINES = 40
_TAIL_BYTES = 65_536
_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
_COLOURS = {Status.DONE: "green", Status.CACHED: "green", Status.FAILED: "red", Status.ABORTED: "yellow", Status.SKIPPED: "dim"}
# Escape sequences of terminals: CSI (colours, cursor), OSC (titles, links), and two-character ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Console:
    """Speaks to people, from any thread.

    Args:
        stream: where to; stderr by default.
        live: keep a table of what runs at the foot of the screen (for terminals only).
        color: colour the outcome of each job.
        secrets: values to mask in all that is printed.
        root: the folder that the logs of results are relative to.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        live: bool = False,
        color: bool = False,
        secrets: Iterable[str] = (),
        root: Path | None = None,
    ) -> None:
        self._stream, self._color, self._root = stream, color, root or Path()
        self._lock = threading.RLock()
        self._secrets: set[str] = set()
        self._jobs = _Jobs(self) if live else None
        for secret in secrets:
            self.add_secret(secret)

    @property
    def stream(self) -> TextIO:
        """Return where people read."""
        return self._stream or sys.stderr

    def add_secret(self, value: str) -> None:
        """Mask a value, and its URL-quoted form, in all that is printed from now on."""
        with self._lock:
            self._secrets |= {value, urllib.parse.quote(value, safe="")} - {""}

    def heading(self, text: str) -> None:
        """Print a title with an empty line before it."""
        self._write(f"\n{self._painted('bold', text)}")

    def line(self, text: str) -> None:
        """Print a line."""
        self._write(self._safe(text))

    def warning(self, text: str) -> None:
        """Print a warning."""
        self._write(f"{self._painted('yellow', 'warning:')} {self._safe(text)}")

    def error(self, error: TrainshedError) -> None:
        """Print what is wrong, each line headed by ``error:``, and the next step."""
        for text in error.message.splitlines() or [type(error).__name__]:
            self._write(f"{self._painted('red', 'error:')} {self._safe(text)}")
        if error.next_step:
            self._write(f"{self._painted('bold', 'next:')} {self._safe(error.next_step)}")

    def start(self, name: str, stage: str, cause: str = "") -> None:
        """Say that a job starts, and why."""
        if self._jobs:
            self._jobs.add(name, stage, cause)
            return
        self._write(self._safe(f"{stage} {name} …" + (f" ({cause})" if cause else "")))

    def end(self, result: Result) -> None:
        """Say how a job ended; for a failure in one block with the tail of its log."""
        if self._jobs:
            self._jobs.remove(result.name, result.stage)
        self._write("\n".join([self._outcome(result), *self._failure(result)]))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table in aligned columns; cells are shown as text, an empty one as ``–``."""
        cells = [[self._safe(str(cell)) or "–" for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [columns, *cells]]
        self.heading(title)
        self._write("\n".join([self._painted("dim", lines[0]), *lines[1:]]))

    def document(self, document: Any, *, out: TextIO | None = None) -> None:  # noqa: ANN401 - any JSON document
        """Write one JSON document to stdout, secrets masked."""
        stream = out or sys.stdout
        stream.write(json.dumps(self._masked(document), indent=2) + "\n")
        stream.flush()

    def close(self) -> None:
        """Take the table of running jobs off the screen."""
        if self._jobs:
            self._jobs.close()

    def mask(self, text: str) -> str:
        """Replace every secret, the longest first, by ``***``."""
        with self._lock:
            secrets = sorted(self._secrets, key=len, reverse=True)
        for secret in secrets:
            text = text.replace(secret, "***")
        return text
