"""Components: the folders with a Dockerfile, found and checked all at once."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed import values
from trainshed.errors import TrainshedError, UsageError, problems, suggestion
from trainshed.files import read_text
from trainshed.images import dockerfile, references
from trainshed.images.dockerfile import TEST_STAGE, Dockerfile

DOCKERFILE = "Dockerfile"
STEP_FILE = "component.yaml"
SERVICE_FILE = "service.yaml"
STRUCTURE_TEST_FILE = "structure-test.yaml"
SETTINGS_FILE = "trainshed.toml"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_MEMORY = re.compile(r"\d+[bkmg]?")
_TITLE = re.compile(r"^name:[ \t]*(.+?)[ \t]*(?:#.*)?$", re.MULTILINE)
_IMAGE = re.compile(rf"^[ \t-]*image:[ \t]*[\"']?({re.escape(references.RESERVED_HOST)}/[^\s\"'#]+)", re.MULTILINE)


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
    """Return the components of a folder by name, sorted. Hidden folders, ``__pycache__`` and files beside them do not count.

    Raises:
        UsageError: the folder is missing, or something in it is wrong: all problems at once, each with its file and line.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder}: no folder of components", next_step="Make one with `trainshed init`.") from error
    found: dict[str, Component] = {}
    wrong: list[str] = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__pycache__" or not entry.is_dir():
            continue
        try:
            found[entry.name] = _component(folder / entry.name, link=entry.is_symlink())
        except TrainshedError as error:
            wrong.append(error.message)
    wrong += _one_name_twice(folder, found, [entry.name for entry in entries if entry.is_dir()])
    if wrong:
        raise problems(wrong, next_step="Mend the components that are named; nothing was done.")
    return found


def select(known: Iterable[str], names: Sequence[str], *, what: str = "component") -> list[str]:
    """Return the chosen names in the order of ``known``; none chosen means all.

    Raises:
        UsageError: a name is not known; all of them at once, each with a suggestion.
    """
    known = list(known)
    unknown = [f"no {what} '{name}'{suggestion(name, known)}" for name in dict.fromkeys(names) if name not in known]
    if unknown:
        raise problems(unknown, next_step=f"Known: {', '.join(known) or 'none'}.")
    return [name for name in known if not names or name in names]


def _component(folder: Path, *, link: bool) -> Component:
    if link:
        raise UsageError(f"{folder}: is a link: a component is a folder of its own")
    if NAME.fullmatch(folder.name) is None:
        shown = os.fsencode(folder).decode(errors="backslashreplace")  # a name that is not UTF-8 cannot be printed
        name = shown.rpartition("/")[2]
        raise UsageError(f"{shown}: '{name}' is no component's name: lower-case letters, digits and inner dashes only")
    there = set(os.listdir(folder))  # noqa: PTH208 - names only: this runs once for each of many components
    if DOCKERFILE not in there:
        raise UsageError(f"{folder}: no {DOCKERFILE}: every folder of components has one")
    if STEP_FILE in there:
        _check_image(folder / STEP_FILE, folder.name)
    return Component(
        name=folder.name,
        folder=folder,
        dockerfile=dockerfile.parse(folder / DOCKERFILE),
        settings=_settings(folder / SETTINGS_FILE) if SETTINGS_FILE in there else ComponentSettings(),
        step=STEP_FILE in there,
        service=SERVICE_FILE in there,
        structure_test=folder / STRUCTURE_TEST_FILE if STRUCTURE_TEST_FILE in there else None,
    )


def _check_image(file: Path, name: str) -> None:
    """Refuse a component.yaml that stands for another component: a copied folder whose file was not changed."""
    text = read_text(file, what="the component")
    for match in _IMAGE.finditer(text):
        if references.component_of(match[1]) != name:
            line = text.count("\n", 0, match.start()) + 1
            raise UsageError(f"{file}:{line}: the image is {match[1]}, expected {references.reserved(name)}")


def _one_name_twice(folder: Path, components: Mapping[str, Component], folders: Iterable[str]) -> list[str]:
    """Find names that differ by case only (one folder on some machines), and two component.yaml or service.yaml of one name."""
    wrong, seen = [], dict[tuple[str, str], str]()
    for name in folders:
        other = seen.setdefault(("folder", name.lower()), name)
        if other != name:
            wrong.append(f"{folder}: two components of one name: '{other}' and '{name}'")
    for name, component in components.items():
        for file in [STEP_FILE] * component.step + [SERVICE_FILE] * component.service:
            try:
                title = _TITLE.search(read_text(component.folder / file, what="the component"))
            except UsageError as error:
                wrong.append(error.message)
                continue
            other = seen.setdefault((file, title[1].strip("\"'")), name) if title else name
            if title and other != name:
                wrong.append(
                    f"{component.folder / file}: two components of one name: {title[1]} is the name in {folder / other / file} too"
                )
    return wrong


def _settings(file: Path) -> ComponentSettings:
    try:
        document = tomllib.loads(read_text(file, what="the file of settings"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{file}: not TOML: {error}") from error
    values, wrong = dict[str, Any](), list[str]()
    for section, table in document.items():
        if not isinstance(table, dict):
            wrong.append(f"{file}: unknown key {section}{suggestion(section, _SETTINGS)}")
            continue
        for key, value in table.items():
            path = f"{section}.{key}"
            if path not in _SETTINGS:
                wrong.append(f"{file}: unknown key {path}{suggestion(path, _SETTINGS)}")
                continue
            name, read = _SETTINGS[path]
            try:
                values[name] = read(value)
            except ValueError as error:
                wrong.append(f"{file}: {path}: {error}")
    if wrong:
        raise problems(wrong)
    return ComponentSettings(**values)


def _arguments(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"expected a table of texts, not {value!r}")
    return dict(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return value


def _memory(value: object) -> str:
    if not isinstance(value, str) or _MEMORY.fullmatch(value) is None:
        raise ValueError(f'expected a size such as "512m" or "2g", not {value!r}')
    return value


_SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "build.args": ("args", _arguments),
    "build.timeout": ("build_timeout", values.duration),
    "test.network": ("network", _flag),
    "test.timeout": ("test_timeout", values.duration),
    "test.memory": ("memory", _memory),
}
