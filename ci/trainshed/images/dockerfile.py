"""Dockerfiles: stages, arguments, and which images and stages a target needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from trainshed.errors import UsageError, suggestion
from trainshed.files import read_text
from trainshed.images import instructions as lines
from trainshed.images import references
from trainshed.images.instructions import Instruction, fault

TEST_STAGE = "test"
SCRATCH = "scratch"
_HIDDEN_INPUTS = re.compile(r"(?:COPY|ADD)\s|RUN\s+--mount", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class External:
    """An image that the lines of one instruction ask for, as written."""

    written: str
    line: int
    last_line: int

    @property
    def argument(self) -> str | None:
        """Return the build argument that the text consists of: the way in which own bases come."""
        return lines.sole_variable(self.written)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. ``name`` is lower-case and empty when not given; ``base`` is as written; the lines are those of FROM."""

    index: int
    name: str
    base: str
    platform: str
    line: int
    last_line: int
    instructions: tuple[Instruction, ...]

    @property
    def target(self) -> str:
        """Return what ``docker build --target`` takes: the name, else the index."""
        return self.name or str(self.index)

    @cached_property
    def sources(self) -> tuple[External, ...]:
        """Return what the stage takes from, stages and images alike: its base, and each ``from`` of COPY, ADD and ``RUN --mount``."""
        found = [External(written=self.base, line=self.line, last_line=self.last_line)]
        for step in self.instructions:
            if step.keyword in {"COPY", "ADD"} and step.flag("from"):
                found.append(External(written=step.flag("from"), line=step.line, last_line=step.last_line))
            elif step.keyword == "RUN" and step.flags:
                named = (mount["from"] for mount in step.mounts() if mount.get("from"))
                found += [External(written=name, line=step.line, last_line=step.last_line) for name in named]
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile. ``args`` are the global ones with their defaults (None: no default), in the file's order."""

    path: Path
    text: str
    escape: str
    args: Mapping[str, str | None]
    stages: tuple[Stage, ...]
    _needed: dict[str | None, tuple[Stage, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def final(self) -> Stage:
        """Return the stage that is the image: the last one that is not named ``test``."""
        return next(stage for stage in reversed(self.stages) if stage.name != TEST_STAGE)

    def has_stage(self, name: str) -> bool:
        """Tell whether there is a stage of this name or index."""
        return self._find(name, len(self.stages)) is not None

    def stage(self, name: str) -> Stage:
        """Return a stage by name or index.

        Raises:
            UsageError: there is none; with a suggestion.
        """
        found = self._find(name, len(self.stages))
        if found is None:
            raise UsageError(f"{self.path}: no stage '{name}'{suggestion(name, [stage.target for stage in self.stages])}")
        return found

    def needed(self, target: str | None) -> tuple[Stage, ...]:
        """Return the stages that a target (None: the image) is made of, in the file's order, itself included."""
        if target in self._needed:
            return self._needed[target]
        waiting = [self.final if target is None else self.stage(target)]
        found: dict[int, Stage] = {}
        while waiting:
            stage = waiting.pop()
            found[stage.index] = stage
            for source in stage.sources:
                needed = self._find(source.written, stage.index)
                if needed is not None and needed.index not in found:
                    waiting.append(needed)
        self._needed[target] = tuple(found[index] for index in sorted(found))
        return self._needed[target]

    def externals(self, stages: Iterable[Stage]) -> list[External]:
        """Return the images from outside that stages ask for (FROM, ``--from=``), in the file's order; no ``scratch``."""
        sources = ((source, stage) for stage in stages for source in stage.sources)
        return [source for source, stage in sources if source.written != SCRATCH and self._find(source.written, stage.index) is None]

    def references(self, target: str | None, args: Mapping[str, str]) -> tuple[str, ...]:
        """Return the images from outside that a target needs, each as `resolve` gives it; no ``scratch``.

        Raises:
            UsageError: an argument has no value, or the result is no reference; with file and line.
        """
        found = (self.resolve(external, args) for external in self.externals(self.needed(target)))
        return tuple(dict.fromkeys(reference for reference in found if reference != SCRATCH))

    def resolve(self, external: External, args: Mapping[str, str]) -> str:
        """Return the normalised reference (or ``scratch``), arguments filled in from ``args``, else from the defaults.

        Raises:
            UsageError: an argument has no value, or the result is no reference; with file and line.
        """
        try:
            reference = lines.substitute(external.written, self._values(args), self.escape)
        except lines.Unresolved as error:
            hint = suggestion(str(error), set(self.args) - {str(error)})
            message = f"'{external.written}' cannot be resolved: no value for the argument {error}{hint}"
            step = "Give it a default in an ARG line before the first FROM, or a value under build.args in trainshed.toml."
            raise fault(self.path, external.line, message, step) from error
        try:
            return reference if reference == SCRATCH else references.normalise(reference)
        except UsageError as error:
            raise fault(self.path, external.line, error.message, error.next_step) from error

    def secrets(self, target: str | None) -> frozenset[str]:
        """Return the ids of the build secrets that a target mounts."""
        mounts = (mount for stage in self.needed(target) for step in stage.instructions if step.keyword == "RUN" for mount in step.mounts())
        named = (mount.get("id") or Path(mount.get("target", "")).name for mount in mounts if mount["type"] == "secret")
        return frozenset(name for name in named if name)

    def arguments(self, target: str | None) -> frozenset[str]:
        """Return the build arguments that a target declares, the global ones included."""
        steps = (step for stage in self.needed(target) for step in stage.instructions if step.keyword == "ARG")
        return frozenset(self.args).union(name for step in steps for name, _ in lines.declared(step))

    def _find(self, name: str, before: int) -> Stage | None:
        """Find a stage that stands before another one, by name (any case) or index."""
        if name.isdigit():
            return self.stages[int(name)] if int(name) < before else None
        lower = name.lower()
        return next((stage for stage in reversed(self.stages[:before]) if stage.name == lower), None)

    def _values(self, args: Mapping[str, str]) -> dict[str, str]:
        """Give the global arguments their values, one after the other: a default may stand on earlier ones."""
        values: dict[str, str] = {}
        for name, default in self.args.items():
            if name in args:
                values[name] = args[name]
            elif default is not None:
                try:
                    values[name] = lines.substitute(default, values, self.escape)
                except lines.Unresolved:
                    continue  # whoever uses it is told
        return values


def parse(path: Path) -> Dockerfile:
    """Read and parse a Dockerfile.

    Raises:
        UsageError: it is missing, not UTF-8, without FROM, has only a ``test`` stage, or a line is broken; with file and line.
    """
    text = read_text(path, what="the Dockerfile")
    escape, steps = lines.read(path, text)
    first = next((number for number, step in enumerate(steps) if step.keyword == "FROM"), None)
    if first is None:
        raise UsageError(f"{path}: no FROM: every Dockerfile starts from an image", next_step="Write `FROM <image>` (or `FROM scratch`).")
    args: dict[str, str | None] = {}
    for step in steps[:first]:
        if step.keyword != "ARG":
            raise fault(path, step.line, f"{step.keyword} before the first FROM: only ARG may stand there")
        args.update(lines.declared(step))
    stages = tuple(_stages(path, steps[first:]))
    if all(stage.name == TEST_STAGE for stage in stages):
        message = f"the only stage is '{TEST_STAGE}', which is kept for tests"
        raise fault(path, stages[0].line, message, "Give the image a stage of its own before it.")
    return Dockerfile(path=path, text=text, escape=escape, args=args, stages=stages)


def _stages(path: Path, steps: list[Instruction]) -> Iterator[Stage]:
    starts = [number for number, step in enumerate(steps) if step.keyword == "FROM"]
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], len(steps)], strict=True)):
        head, body = steps[start], steps[start + 1 : end]
        found = lines.words(head.value)
        named = len(found) == 3 and found[1].upper() == "AS"  # noqa: PLR2004 - FROM base AS name
        if not named and len(found) != 1:
            raise fault(path, head.line, f"'FROM {head.value}' is not understood", "Write `FROM image` or `FROM image AS name`.")
        for step in body:
            if step.keyword == "ONBUILD" and _HIDDEN_INPUTS.match(step.value):
                message = "ONBUILD with COPY, ADD or a mount would make an input of other images that they do not show"
                raise fault(path, step.line, message, "Write the step in the Dockerfiles that need it.")
        name = found[2].lower() if named else ""
        yield Stage(
            index=index,
            name=name,
            base=found[0],
            platform=head.flag("platform"),
            line=head.line,
            last_line=head.last_line,
            instructions=tuple(body),
        )
