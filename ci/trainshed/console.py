"""What people see, on stderr; and the one document on stdout. Everything printed goes through one door that masks secrets."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainshed.errors import TrainshedError
from trainshed.results import Result, Status

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

TAIL_LINES = 40
_NEEDED = 3  # columns of the table, before the cause
_ROWS = 30  # of the table: a run may have a thousand tasks
_TAIL_BYTES = 65_536
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))
_FEW = 1.5
_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
_COLOURS = {Status.DONE: "green", Status.CACHED: "green", Status.FAILED: "red", Status.ABORTED: "yellow", Status.SKIPPED: "dim"}
# Escape sequences of terminals: CSI (colours, cursor), OSC (titles, links), and two-character ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Controls, and what turns the direction of writing or begins a line unseen: a text would read as another.
_COMMAND = re.compile(r"`trainshed (?!--|<)")  # one that people are told to run
_SETTING = "environments.<name>."
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def spoken(seconds: float) -> str:
    """Return a length of time as people say it: ``7.5 s``, ``40 s``, ``12 min``, ``5 h``, ``3 days``."""
    size, unit = next((each for each in _UNITS if seconds >= _FEW * each[0]), (1, "s"))
    return f"{seconds / size:.{0 if unit in {'min', 'days'} else 1}f}".removesuffix(".0") + f" {unit}"


def counted(items: Sized, word: str) -> str:
    """Return how many there are, with their word: ``1 step``, ``7 steps``."""
    return f"{len(items)} {word}" + ("" if len(items) == 1 else "s")


class Console:
    """Speaks to people, from any thread.

    Args:
        stream: where to; stderr by default.
        live: keep a table of what runs at the foot of the screen (for terminals only).
        color: colour the outcome of each job.
        secrets: values to mask in all that is printed.
        root: the folder that the logs of results are relative to; may be set later, when the project is known.

    Attributes:
        environment: the one in force, once it is known.
        option: how the command line named it, such as ``--env dev``: a command that people are told to run next needs it as well.
    """

    def __init__(  # noqa: PLR0913 - all but the stream by keyword
        self,
        stream: TextIO | None = None,
        *,
        live: bool = False,
        color: bool = False,
        secrets: Iterable[str] = (),
        root: Path | None = None,
        data: bool = True,
    ) -> None:
        self._stream, self._color, self.root, self._data = stream, color, root or Path(), data
        self.environment = self.option = ""
        self._lock = threading.RLock()
        self._secrets: tuple[str, ...] = ()  # the longest first; replaced whole, so that readers need no lock
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
            secrets = {*self._secrets, value, urllib.parse.quote(value, safe="")} - {""}
            self._secrets = tuple(sorted(secrets, key=len, reverse=True))

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

    def show(self, name: str, stage: str, note: str = "") -> bool:
        """Show what goes on elsewhere in the table of running jobs; False when there is none, and it is to be told in lines."""
        if self._jobs:
            self._jobs.add(name, stage, note)
        return self._jobs is not None

    def hide(self, name: str, stage: str) -> None:
        """Take away what `show` showed."""
        if self._jobs:
            self._jobs.remove(name, stage)

    def tail(self, log: str, *, lines: int = TAIL_LINES) -> None:
        """Print the end of a log (relative to the project) as part of a failure's block."""
        told = self._ending(log, lines)
        if told:
            self._write("\n".join(told))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table in aligned columns; cells are shown as text, an empty one as a dash."""
        cells = [[self._safe(str(cell)) or "-" for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [columns, *cells]]
        self.heading(title)
        self._write("\n".join([self._painted("dim", lines[0]), *lines[1:]]))

    def data(self, text: str) -> None:
        """Write lines to stdout for a program to read; nothing where the JSON document stands there."""
        if self._data and text:
            sys.stdout.write(f"{self.mask(text)}\n")
            sys.stdout.flush()

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
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _safe(self, text: str) -> str:
        """Drop what could steer a terminal (text of others is printed here), then mask: a secret may be hidden between escapes."""
        return self._told(_CONTROLS.sub("", _ESCAPES.sub("", text)))

    def _told(self, text: str) -> str:
        """Mask, and name the environment where commands and settings of it are named."""
        if self.environment:
            text = text.replace(_SETTING, f"environments.{self.environment}.")
        if self.option:
            text = _COMMAND.sub(f"`trainshed {self.option} ", text)
        return self.mask(text)

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{self._safe(text)}\x1b[0m" if self._color else self._safe(text)

    def _write(self, text: str) -> None:
        with self._lock:
            if not (self._jobs and self._jobs.write(text)):
                self.stream.write(text + "\n")
                self.stream.flush()

    def _masked(self, value: Any) -> Any:  # noqa: ANN401 - any JSON document
        """Mask inside strings only: masking the written document could break it, and would miss secrets that JSON escapes."""
        if isinstance(value, str):
            return self._told(value)
        if isinstance(value, Mapping):
            return {self.mask(str(key)): self._masked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        return value

    def _outcome(self, result: Result) -> str:
        status = self._painted(_COLOURS[result.status], str(result.status))
        took = f" in {spoken(result.seconds)}" if result.status in {Status.DONE, Status.FAILED} else ""
        reason = result.message if result.status is Status.ABORTED else result.cause
        return self._safe(f"{result.stage} {result.name}: ") + status + took + self._safe(f" ({reason})" if reason else "")

    def _failure(self, result: Result) -> list[str]:
        if result.status is not Status.FAILED:
            return []
        lines = [self._painted("bold", f"── {result.stage} {result.name} failed " + "─" * 20)]
        lines += [f"   {line}" for line in self._safe(result.message).splitlines()]
        lines += [f"   ✗ {self._safe(f'{case.suite} {case.name}'.strip())}" for case in result.cases if case.failure]
        if result.log:
            lines += self._ending(result.log, TAIL_LINES)
        return [*lines, self._painted("bold", "─" * 40)]

    def _ending(self, log: str, lines: int) -> list[str]:
        tail = self._tail(self.root / log, lines)
        return [f"   the end of {self._safe(log)}:", *(f"   │ {line}" for line in tail)] if tail else []

    def _tail(self, log: Path, limit: int) -> list[str]:
        try:
            with log.open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(0, stream.tell() - _TAIL_BYTES))
                text = stream.read().decode(errors="replace")
        except OSError:
            return []
        # A progress bar rewrites its line with carriage returns: only what it showed last is kept.
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return [line.rstrip() for line in self._safe("\n".join(lines)).rstrip().split("\n")][-limit:] if text.strip() else []


class _Jobs:
    """The table of running jobs at the foot of a terminal. Rich is imported with the first job.

    Rich draws the table in a thread of its own under a lock of its own, so `_table` takes none of ours.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[str, float]] = {}
        self._live: Live | None = None

    def add(self, name: str, stage: str, cause: str) -> None:
        with self._lock:
            self._running[name, stage] = (cause, time.monotonic())
            if self._live is None:
                self._live = self._opened()

    def remove(self, name: str, stage: str) -> None:
        with self._lock:
            self._running.pop((name, stage), None)
            if not self._running:
                self._end()

    def close(self) -> None:
        with self._lock:
            self._running.clear()
            self._end()

    def write(self, text: str) -> bool:
        """Print above the table; False when there is none."""
        from rich.text import Text

        with self._lock:
            if self._live is None:
                return False
            self._live.console.print(Text.from_ansi(text), soft_wrap=True, highlight=False)
            return True

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _opened(self) -> Live:
        from rich.console import Console as Terminal
        from rich.live import Live

        live = Live(
            console=Terminal(file=self._console.stream, force_terminal=True),
            get_renderable=self._table,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=4,
        )
        live.start()
        return live

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for _ in range(_NEEDED):
            table.add_column(no_wrap=True)
        table.add_column()  # the cause: a narrow terminal takes it away first
        now, running = time.monotonic(), list(self._running.items())
        for (name, stage), (cause, started) in running[:_ROWS]:
            cells = (stage, name, f"{now - started:.0f} s", cause)
            table.add_row(*(Text(self._console._safe(cell), no_wrap=True, overflow="ellipsis") for cell in cells))  # noqa: SLF001 - one module
        if len(running) > _ROWS:
            table.add_row("", f"and {len(running) - _ROWS} more", "", "")
        return table
