"""Components: the folders with a Dockerfile, found and checked all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.images.dockerfile import TEST_STAGE, Dockerfile


@dataclass(frozen=True, kw_only=True)
class ComponentSettings:
    """A component's ``trainshed.toml``; times in seconds, ``memory`` as the engine takes it (``512m``), empty for no limit."""

    args: Mapping[str, str] = field(default_factory=dict)
    build_timeout: float = 3600.0
    network: bool = False
    test_timeout: float = 600.0
    memory: str = ""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component, as its folder describes it."""

    name: str
    folder: Path
    dockerfile: Dockerfile
    settings: ComponentSettings
    step: bool
    service: bool
    structure_test: Path | None

    @property
    def kind(self) -> str:
        """Return ``base``, ``step`` or ``service``."""
        return "service" if self.service else "step" if self.step else "base"

    @property
    def has_tests(self) -> bool:
        """Tell whether the Dockerfile has a ``test`` stage."""
        return self.dockerfile.has_stage(TEST_STAGE)


def discover(folder: Path) -> dict[str, Component]:
    """Return the components of a folder by name, sorted; UsageError with all problems at once."""
    raise NotImplementedError


def select(known: Iterable[str], names: Sequence[str], *, what: str = "component") -> list[str]:
    """Return the chosen names in the order of ``known``; none chosen means all; unknown → UsageError with a suggestion."""
    raise NotImplementedError
