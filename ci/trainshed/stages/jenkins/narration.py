"""What a Pipeline's console says of its stages and branches, read line by line as it grows. Pure: texts in, events out.

Jenkins writes no branch before a line, so of branches that run side by side only failures are told as they happen; the good
ends are known when all of them are through. Which component is done is told by Trainshed's own lines in the log.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

TAIL_LINES = 40
# A console note is hidden between two escapes; Timestamper writes the time before each line, in one of two shapes.
_NOTE = re.compile(r"\x1b\[8mha:.*?\x1b\[0m")
_TIME = re.compile(r"^(?:\[\d{4}-\d\d-\d\dT[\d:.]+Z?\]|\d\d:\d\d:\d\d) +")
_STEP = re.compile(r"^\[Pipeline\] (?:\[(?P<inside>[^\]]*)\] )?(?P<word>.*)$")
_BRANCH = re.compile(r"^\{ \(Branch: (?P<name>.*)\)$")
_NAMED = re.compile(r"^\{ \((?P<name>.*)\)$")
_FAILED = re.compile(r"^(?:\[[^\]]*\] )?Failed in branch (?P<name>.*)$")
_SKIPPED = re.compile(r'^(?:\[[^\]]*\] )?Stage "(?P<name>.*)" skipped due to (?P<reason>.*)$')
_WORK = re.compile(
    r"^(?:\[[^\]]*\] )?(?P<told>[a-z][a-z-]* [A-Za-z0-9][\w.-]*: (?:done|cached|failed|aborted|skipped)(?: in [\d.]+ s)?(?: \(.*\))?)$"
)
_RUN = re.compile(r"^(?:\[[^\]]*\] )?(?P<told>launch [\w.-]+: .+)$")
_SAID = (
    (re.compile(r"^Resuming build at .* after Jenkins restart$"), "the controller was restarted; the build goes on"),
    (re.compile(r"^Aborted by (.+)$"), r"aborted by \1"),
    (re.compile(r"^Superseded by (.+)$"), r"superseded by \1"),
    (re.compile(r"^(?:Cancelling nested steps due to timeout|Timeout has been exceeded)$"), "a time limit of the pipeline passed"),
    (re.compile(r"^Still waiting to schedule task$"), "waits for an agent"),
)


@dataclass
class _Block:
    """An open block: ``stage`` is the name of the stage that it is, empty for any other step's block; ``failed`` are its branches."""

    stage: str = ""
    skipped: bool = False
    failed: tuple[str, ...] = ()


@dataclass
class _Parallel:
    """A `parallel` step that runs: its branches in the order in which they began, and how many blocks are open inside of it."""

    branches: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    depth: int = 0


class Narrator:
    """Reads a console in pieces of any size; each event is a line for people.

    The tail of what was read is in `tail`. After `rewind` the text comes again from its start, and only what was not told yet is told.
    """

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._told: Counter[str] = Counter()
        self.rewind()

    def rewind(self) -> None:
        """Expect the text from its start again: a controller that was killed may have lost the end of what it had shown."""
        self.tail.clear()
        self._again: Counter[str] = Counter()
        self._rest = ""
        self._begun = ""
        self._blocks: list[_Block] = []
        self._parallel: _Parallel | None = None

    def feed(self, text: str) -> list[str]:
        """Take the next piece; return what happened in it. The last line waits until it is whole. An empty piece: nothing has come."""
        if not text:
            return list(self._new(self._pending()))
        *lines, self._rest = (self._rest + text).split("\n")
        return [event for line in lines for event in self._new(self._line(line))]

    def finish(self) -> list[str]:
        """Take what waits: there is no more text."""
        rest, self._rest = self._rest, ""
        return [*self._new(self._line(rest) if rest else ()), *self._new(self._pending())]

    def _new(self, events: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
        for event in events:
            self._again[event] += 1
            if self._again[event] > self._told[event]:
                self._told[event] += 1
                yield event

    def _line(self, raw: str) -> Iterator[str]:
        line = _TIME.sub("", _NOTE.sub("", raw.rstrip("\r"))).rstrip()
        if line:
            self.tail.append(line)
        step = _STEP.match(line)
        skipped = None if step else _SKIPPED.match(line)
        if skipped:
            yield from self._skip(skipped["name"], skipped["reason"])
            return
        if line:
            yield from self._pending()
        yield from self._step(step["word"]) if step else self._said(line)

    def _pending(self) -> Iterator[str]:
        """Tell the stage that has begun; one that is skipped says so in its first line, and is told as that alone."""
        begun, self._begun = self._begun, ""
        if begun:
            yield f"stage {begun}"

    def _skip(self, name: str, reason: str) -> Iterator[str]:
        if self._begun == name:
            self._begun = ""
        else:
            yield from self._pending()
        for block in self._blocks:
            block.skipped = block.skipped or block.stage == name
        yield f"stage {name}: skipped, {_reason(reason)}"

    def _said(self, line: str) -> Iterator[str]:
        failed = _FAILED.match(line)
        if failed:
            if self._parallel is not None:
                self._parallel.failed.append(failed["name"])
            yield f"branch {failed['name']}: failed"
            return
        for pattern in (_WORK, _RUN):
            work = pattern.match(line)
            if work:
                yield work["told"]
                return
        for pattern, told in _SAID:
            if pattern.match(line):
                yield pattern.sub(told, line)

    def _step(self, word: str) -> Iterator[str]:
        branch, named = _BRANCH.match(word), _NAMED.match(word)
        if branch:
            yield from self._branch(branch["name"])
        elif named:
            self._begin(named["name"])
        elif word == "{":
            self._open(_Block())
        elif word == "}":
            yield from self._close()
        elif word == "// parallel":
            yield from self._joined()
        elif word == "parallel":
            self._parallel = self._parallel or _Parallel()

    def _branch(self, name: str) -> Iterator[str]:
        self._parallel = self._parallel or _Parallel()
        self._parallel.branches.append(name)
        self._parallel.depth += 1
        yield f"branch {name}"

    def _begin(self, name: str) -> None:
        self._open(_Block(stage=name))
        if self._parallel is None or name not in self._parallel.branches:  # Declarative names a branch's stage as the branch
            self._begun = name

    def _open(self, block: _Block) -> None:
        if self._parallel is not None:
            self._parallel.depth += 1
        else:
            self._blocks.append(block)

    def _close(self) -> Iterator[str]:
        if self._parallel is not None and self._parallel.depth > 0:
            self._parallel.depth -= 1
            return
        block = self._blocks.pop() if self._blocks else _Block()
        if block.stage and not block.skipped:
            yield f"stage {block.stage}: " + (f"failed in branch {', '.join(block.failed)}" if block.failed else "ended")

    def _joined(self) -> Iterator[str]:
        parallel, self._parallel = self._parallel or _Parallel(), None
        for name in parallel.branches:
            if name not in parallel.failed:
                yield f"branch {name}: ended"
        stage = next((block for block in reversed(self._blocks) if block.stage), _Block())
        stage.failed += tuple(parallel.failed)


def _reason(told: str) -> str:
    known = {"when conditional": "its condition does not hold", "earlier failure(s)": "something failed before it"}
    return known.get(told, told)
