"""Dockerfiles: stages, instructions, arguments, and which images and stages a target needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TEST_STAGE = "test"


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: ``flags`` as written (``--from=x`` → ``("from", "x")``), ``value`` the rest in one line; lines count from 1."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    value: str
    line: int
    last_line: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. ``name`` is lower-case and empty when not given; ``base`` is as written."""

    index: int
    name: str
    base: str
    line: int
    instructions: tuple[Instruction, ...]

    @property
    def target(self) -> str:
        """Return what ``docker build --target`` takes: the name, else the index."""
        return self.name or str(self.index)


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile. ``args`` are the global ones with their defaults (None: no default)."""

    path: Path
    text: str
    escape: str
    args: Mapping[str, str | None]
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        """Return the stage that is the image: the last one that is not named ``test``."""
        raise NotImplementedError

    def stage(self, name: str) -> Stage:
        """Return a stage by name or index; unknown → UsageError with a suggestion."""
        raise NotImplementedError

    def has_stage(self, name: str) -> bool:
        """Tell whether there is a stage of this name."""
        raise NotImplementedError

    def needed(self, target: str | None) -> tuple[Stage, ...]:
        """Return the stages that a target (None: the image) is made of, in the file's order, itself included."""
        raise NotImplementedError

    def references(self, target: str | None, args: Mapping[str, str]) -> tuple[str, ...]:
        """Return the images from outside (FROM, ``--from=``) that a target needs, as resolved with these arguments; no ``scratch``."""
        raise NotImplementedError

    def secrets(self, target: str | None) -> frozenset[str]:
        """Return the ids of the build secrets that a target mounts."""
        raise NotImplementedError

    def arguments(self, target: str | None) -> frozenset[str]:
        """Return the build arguments that a target declares, the global ones included."""
        raise NotImplementedError


def parse(path: Path) -> Dockerfile:
    """Read and parse; UsageError with file and line."""
    raise NotImplementedError
