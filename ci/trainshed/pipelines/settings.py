"""What a team sets for one pipeline in ``pipeline_templates/<name>.toml``: profiles of launches, overlays of steps, schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named way to launch. ``caching`` None leaves it as the pipeline says; ``gates`` are expressions such as ``auc >= 0.8``."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    caching: bool | None = None
    experiment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Settings of steps in one environment (``*``: all). ``path`` is a task path or pattern; ``settings`` are as TOML gives them."""

    environment: str
    path: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A recurring run. Either ``cron`` (six fields, seconds first) or ``every`` (seconds) is set; ``start`` and ``end`` are RFC 3339."""

    name: str
    environments: tuple[str, ...]
    cron: str = ""
    every: int = 0
    start: str = ""
    end: str = ""
    profile: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    catch_up: bool = False
    max_concurrency: int = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one pipeline; ``place`` is the file, for messages. A pipeline without a file has none of them."""

    place: str = ""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    overlays: tuple[Overlay, ...] = ()
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
