"""What a team sets for one pipeline in ``pipeline_templates/<name>.toml``: profiles of launches, overlays of steps, schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from trainshed import config, files, values
from trainshed.errors import TrainshedError, UsageError, problems, suggestion
from trainshed.pipelines import cron, gates, templates
from trainshed.pipelines.templates import Template

EVERYWHERE = "*"
"""The environment of overlays that hold in all of them."""
MOST_CONCURRENT = 10
"""How many runs of one schedule Kubeflow lets run side by side at most."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HELP = "Mend the file; docs/reference/files.md lists its keys."


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


def load(folder: Path, template: Template, *, environments: Collection[str]) -> Settings:
    """Read the settings of a template; a template without a file has none.

    A settings file of the folder that no template takes is an error for all of them: it would be a typing error that says nothing.

    Args:
        folder: where templates and their settings are.
        template: whose settings.
        environments: the names that a file may use.

    Raises:
        UsageError: with all problems of the file at once, each with its key.
    """
    found = _strays(folder)
    if found:
        raise problems(found, next_step="Rename the file as its template, or remove it.")
    file = folder / f"{template.name}.toml"
    if not file.exists() and not file.is_symlink():
        return Settings()
    place = f"{folder.name}/{file.name}"
    document = config.parse(files.read_text(file, what="the settings file of the pipeline"), place=place)
    reader = _Reader(environments)
    settings = reader.settings(document, place)
    if reader.found:
        raise problems([f"{place}: {each}" for each in reader.found], next_step=_HELP)
    return settings


def check_all(folder: Path, *, environments: Collection[str]) -> dict[str, Settings]:
    """Read the settings of all templates of a folder, by their names.

    Raises:
        UsageError: with the problems of all files at once.
    """
    read: dict[str, Settings] = {}
    found: list[str] = []
    for name, template in templates.discover(folder).items():
        try:
            read[name] = load(folder, template, environments=environments)
        except TrainshedError as error:
            found += [line for line in error.message.splitlines() if line not in found]
    found += [line for line in _strays(folder) if line not in found]
    if found:
        raise problems(found, next_step=_HELP)
    return read


def _strays(folder: Path) -> list[str]:
    """Return what is wrong with settings files that no template takes."""
    names = [path.stem for path in sorted(folder.glob("*.toml")) if not path.name.startswith(("_", "."))]
    known = templates.discover(folder)
    return [f"{folder.name}/{name}.toml: no template '{name}' beside it{suggestion(name, known)}" for name in names if name not in known]


class _Reader:
    """One pass over one file: what it says, and every problem."""

    def __init__(self, environments: Collection[str]) -> None:
        self._environments = tuple(environments)
        self.found: list[str] = []

    def settings(self, document: Mapping[str, Any], place: str) -> Settings:
        self._known("", document, ("profiles", "overlays", "schedules"))
        profiles = {name: self._profile(name, table) for name, table in self._tables("profiles", document)}
        overlays = tuple(
            overlay for environment, table in self._tables("overlays", document) for overlay in self._overlays(environment, table)
        )
        schedules = {name: self._schedule(name, table, profiles) for name, table in self._tables("schedules", document)}
        return Settings(place=place, profiles=profiles, overlays=overlays, schedules=schedules)

    def _profile(self, name: str, table: Mapping[str, Any]) -> Profile:
        path = f"profiles.{name}"
        self._named(path, name)
        self._known(path, table, ("parameters", "gates", "caching", "experiment", "labels"))
        return Profile(
            name=name,
            parameters=self._take(path, table, "parameters", _parameters, {}),
            gates=self._take(path, table, "gates", _gates, ()),
            caching=self._take(path, table, "caching", _flag, None),
            experiment=self._take(path, table, "experiment", _text, ""),
            labels=self._take(path, table, "labels", values.labels, {}),
        )

    def _overlays(self, environment: str, table: Mapping[str, Any]) -> Iterable[Overlay]:
        path = f"overlays.{environment}"
        if environment != EVERYWHERE:
            self._environment(path, environment)
        for task, told in table.items():
            if not isinstance(told, dict):
                self.found.append(f'{path}.{task}: expected a table for a task\'s path, such as [overlays.{environment}."inner.train"]')
                continue
            yield Overlay(environment=environment, path=task, settings=told)

    def _schedule(self, name: str, table: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Schedule:
        path = f"schedules.{name}"
        self._named(path, name)
        self._known(path, table, tuple(key.replace("_", "-") for key in Schedule.__dataclass_fields__ if key != "name"))
        self._pairs(path, table)
        schedule = Schedule(
            name=name,
            environments=self._take(path, table, "environments", _texts, ()),
            cron=self._take(path, table, "cron", lambda value: cron.check(_text(value)), ""),
            every=self._take(path, table, "every", _seconds, 0),
            start=self._take(path, table, "start", _time, ""),
            end=self._take(path, table, "end", _time, ""),
            profile=self._take(path, table, "profile", _text, ""),
            parameters=self._take(path, table, "parameters", _parameters, {}),
            enabled=self._take(path, table, "enabled", _flag, True),
            catch_up=self._take(path, table, "catch-up", _flag, False),
            max_concurrency=self._take(path, table, "max-concurrency", _few, 1),
        )
        self._agrees(path, schedule, profiles)
        return schedule

    def _pairs(self, path: str, table: Mapping[str, Any]) -> None:
        given = [key for key in ("cron", "every") if key in table]
        if len(given) != 1:
            self.found.append(f"{path}: expected either cron or every, {'not both' if given else 'and neither is there'}")
        if not table.get("environments"):
            self.found.append(f'{path}: expected the environments that it is for, such as environments = ["prod"]')

    def _agrees(self, path: str, schedule: Schedule, profiles: Mapping[str, Profile]) -> None:
        for environment in schedule.environments:
            self._environment(f"{path}.environments", environment)
        if schedule.profile and schedule.profile not in profiles:
            self.found.append(f"{path}.profile: no profile '{schedule.profile}'{suggestion(schedule.profile, profiles)}")
        elif schedule.profile and profiles[schedule.profile].caching is not None:
            self.found.append(f"{path}.profile: '{schedule.profile}' sets caching, and a recurring run takes the version as it is")
        if schedule.start and schedule.end and _moment(schedule.start) >= _moment(schedule.end):
            self.found.append(f"{path}: it ends ({schedule.end}) before it starts ({schedule.start})")

    def _environment(self, path: str, name: str) -> None:
        if name not in self._environments:
            self.found.append(f"{path}: no environment '{name}'{suggestion(name, self._environments)}")

    def _named(self, path: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            self.found.append(f"{path}: a name has at most 63 letters, digits, '.', '_' and '-'")

    def _tables(self, path: str, document: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
        tables = document.get(path, {})
        if not isinstance(tables, dict):
            self.found.append(f"{path}: expected tables such as [{path}.NAME]")
            return
        for name, table in tables.items():
            if isinstance(table, dict):
                yield name, table
            else:
                self.found.append(f"{path}.{name}: expected a table")

    def _known(self, path: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        before = f"{path}." if path else ""
        self.found += [f"unknown key {before}{key}{suggestion(key, known)}" for key in table if key not in known]

    def _take(self, path: str, table: Mapping[str, Any], key: str, read: Callable[[Any], Any], default: Any) -> Any:  # noqa: ANN401
        if key not in table:
            return default
        try:
            return read(table[key])
        except ValueError as error:
            self.found += [f"{path}.{key}: {line}" for line in str(error).splitlines()]
        except UsageError as error:
            self.found.append(f"{path}.{key}: {error.told}")
        return default


def _text(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, not {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of texts, not {value!r}")
    if len(set(value)) != len(value):
        raise ValueError(f"names one twice: {value!r}")
    return tuple(value)


def _flag(value: Any) -> bool:  # noqa: ANN401 - checked here
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return value


def _few(value: Any) -> int:  # noqa: ANN401 - checked here
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_CONCURRENT:
        raise ValueError(f"expected a whole number, 1 to {MOST_CONCURRENT}, not {value!r}")
    return value


def _seconds(value: Any) -> int:  # noqa: ANN401 - checked here
    seconds = values.duration(value)
    if seconds < 1 or not seconds.is_integer():
        raise ValueError(f"expected whole seconds, 1 or more, not {value!r}")
    return int(seconds)


def _time(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read a moment, as text or as TOML's own; a time without its offset from UTC could be any of two dozen."""
    try:
        told = value if isinstance(value, datetime) else _moment(value) if isinstance(value, str) else None
    except ValueError:
        told = None
    if told is None or told.tzinfo is None:
        raise ValueError(f"expected a time as RFC 3339 with its offset, such as 2026-01-31T03:00:00Z, not {value!s}")
    return told.isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _gates(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    for expression in (found := _texts(value)):
        gates.parse(expression)
    return found


def _parameters(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - checked here
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of parameters, not {value!r}")
    wrong = [f"'{name}': expected what JSON knows, not {item!r}" for name, item in value.items() if not _json(item)]
    if wrong:
        raise ValueError("\n".join(wrong))
    return dict(value)


def _json(value: Any) -> bool:  # noqa: ANN401 - what TOML gives
    """Tell whether JSON knows a value: TOML has times, infinities and NaN besides."""
    if isinstance(value, dict):
        return all(map(_json, value.values()))
    if isinstance(value, list):
        return all(map(_json, value))
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
