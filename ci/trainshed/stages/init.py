"""``trainshed init``: a new repository, or one more component, ready to run. Nothing that exists is ever overwritten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from trainshed import config, files, keys
from trainshed.config import STATE_FOLDER, Project
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.images.components import NAME
from trainshed.images.graph import base_argument
from trainshed.results import Report, Result, Status

BASE = "base-python"
FIRST_STEP = "hello"
_SUFFIX = ".template"
_RENAMED = {"gitignore": ".gitignore"}


def init(console: Console, folder: Path, *, component: str | None = None, kind: str | None = None) -> Report:
    """Scaffold a repository in a folder or, with ``component``, add a component to the project that the folder lies in.

    Args:
        console: where the written files and the next step are told.
        folder: the folder to work in, absolute.
        component: the new component's name.
        kind: ``base``, ``step`` (the default) or ``service``.

    Returns:
        One result per component and one for the repository, each with the ``files`` that were written, relative to the project.

    Raises:
        UsageError: a name that is none, or something is there already; nothing is written then.
    """
    try:
        return _init(console, folder, component, kind)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error


def _init(console: Console, folder: Path, component: str | None, kind: str | None) -> Report:
    if component is None and kind is not None:
        raise UsageError("--kind says what a new component is", next_step="Name the component with --component.")
    if component is None:
        results = _repository(folder)
        _tell(console, results, "Run `trainshed run --launch`: it builds, scans and tests the images, uploads the pipeline and starts it.")
    else:
        results = _component(config.load(config.find(folder), environment=config.LOCAL).project, component, kind or "step")
        _tell(console, results, _use(component, kind or "step"))
    return Report(stage="init", results=tuple(results))


def _repository(root: Path) -> list[Result]:
    if (root / config.FILE_NAME).exists():
        raise UsageError(f"{root / config.FILE_NAME}: there is a project already", next_step="Add to it with --component NAME.")
    project = Project(
        name=keys.project_name(root.name),
        root=root,
        components=root / "components",
        pipelines=root / "pipeline_templates",
        work_dir=root / "build",
    )
    contents = _contents("repository", {"project": project.name})
    results = []
    if _filled(project.components) or _filled(project.pipelines):  # a repository that is there already keeps its own
        contents = {path: text for path, text in contents.items() if path.parent == PurePosixPath()}
    else:
        results = [_write_component(project, BASE, "base"), _write_component(project, FIRST_STEP, "step")]
    settings = PurePosixPath(config.FILE_NAME)
    written = [path for path in sorted(contents, key=lambda path: path == settings) if not (root / path).exists()]
    for path in written:  # the settings last: with them the folder is a project
        files.write_text(root / path, contents[path])
    return [*results, _result(project.name, written)]


def _component(project: Project, name: str, kind: str) -> list[Result]:
    if NAME.fullmatch(name) is None:
        raise UsageError(f"'{name}' is no name of a component", next_step="Use lower-case letters, digits and inner dashes.")
    if (project.components / name).exists() or (project.components / name).is_symlink():
        raise UsageError(f"{project.components / name}: exists already", next_step="Choose another name, or move the folder away.")
    missing = [] if kind == "base" or (project.components / BASE).exists() else [_write_component(project, BASE, "base")]
    return [*missing, _write_component(project, name, kind)]


def _write_component(project: Project, name: str, kind: str) -> Result:
    """Write a component's folder: whole, or not at all."""
    words = {"name": name, "project": project.name, "base": BASE, "base_argument": base_argument(BASE)}
    contents = {**_contents("common", words), **_contents(kind, words)}
    target = project.components / name
    project.components.mkdir(parents=True, exist_ok=True)
    with files.scratch(project.root / STATE_FOLDER, "init") as scratch:
        for path, text in contents.items():
            files.write_text(scratch / name / path, text)
        (scratch / name).rename(target)
    return _result(name, [PurePosixPath(target.relative_to(project.root)) / path for path in sorted(contents)])


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _contents(name: str, words: Mapping[str, str]) -> dict[PurePosixPath, str]:
    """Return a template folder's files by their place, the words filled in."""
    root = resources.files("trainshed").joinpath("scaffold", name)
    return {path: _filled_in(file.read_text(encoding="utf-8"), words) for path, file in _walk(root, PurePosixPath())}


def _walk(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _walk(item, place / item.name)
        elif item.name.endswith(_SUFFIX):
            name = item.name.removesuffix(_SUFFIX)
            yield place / _RENAMED.get(name, name), item


def _filled_in(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@([a-z_]+)@", lambda match: words[match[1]], text)


def _result(name: str, written: list[PurePosixPath]) -> Result:
    return Result(name=name, stage="init", status=Status.DONE, details={"files": [str(path) for path in written]})


def _tell(console: Console, results: list[Result], next_step: str) -> None:
    for result in results:
        for path in result.details["files"]:
            console.line(f"wrote {path}")
    console.line(next_step)


def _use(name: str, kind: str) -> str:
    if kind == "base":
        argument = base_argument(name)
        return f"Build on it with `ARG {argument}=…` and `FROM ${{{argument}}}` in another component's Dockerfile."
    if kind == "service":
        return f"Run `trainshed images`, then `trainshed deploy {name}`."
    return f"Load components/{name}/component.yaml in a pipeline template, then run `trainshed run`."
