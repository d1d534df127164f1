"""The door to kfp's compiler: a child process without network, environment or home, for code that others wrote."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trainshed import files, settings
from trainshed.errors import ToolMissing, UsageError
from trainshed.pipelines import documents
from trainshed.tools import process

LIMIT_SECONDS = 60.0
_START_SECONDS = 120.0
_NO_KFP = 4
_KEPT = ("LD_LIBRARY_PATH",)
_KEPT_PREFIXES = ("COVERAGE_",)  # so that the tests of this package measure the child too
_VARIES = (
    "Look there for what comes from a set, random, uuid, the clock, a folder's files, or a path of this machine: "
    "sort it, fix it, or make it a parameter."
)
_PACKAGES = ("kfp", "kfp-kubernetes", "kfp-pipeline-spec")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file for the compiler. ``kind``: ``python`` runs KFP DSL, ``yaml`` loads compiled IR and compiles it again."""

    name: str
    source: Path
    kind: Literal["python", "yaml"]
    log: Path


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What came out. ``reads`` are the project's files that were read, relative to its root; ``notes`` are for people."""

    text: str
    reads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def versions() -> dict[str, str]:
    """Return the versions of all that decides what a template compiles to.

    Raises:
        ToolMissing: kfp is not installed.
    """
    try:
        return {package: metadata.version(package) for package in _PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise ToolMissing(f"the package {error.name} is not installed", next_step="Run `scripts/setup`.") from error


def compile_all(
    jobs: Sequence[Job], *, root: Path, components: Path, scratch: Path, limit: float = LIMIT_SECONDS
) -> dict[str, Compiled | UsageError]:
    """Compile files in a child process; one file's error is its own.

    A template that is code is compiled twice, in two processes side by side, of which the second sees another hash seed, home, day and
    order of files, and another name of machine and user. What is not the same byte for byte, or holds the project's own folder, is an
    error: it would be another version of the pipeline in every build.

    A template's code runs with the project's root as its working folder, so ``components/train/component.yaml`` is found; the
    variable ``COMPONENTS`` holds the components' folder, and modules beside the template can be imported.

    Args:
        jobs: what to compile; names must differ.
        root: the project's root: what the code may read, and may not write.
        components: the folder of the components.
        scratch: a folder for temporary files.
        limit: seconds for each file.

    Returns:
        For each name what came out, or what is wrong with the file: with its line where that is known.

    Raises:
        ToolMissing: kfp cannot be imported.
        Interrupted: see `process.run`.
    """
    if not jobs:
        return {}
    with files.scratch(scratch, "compile") as folder:
        entries = [_entry(job, folder / str(number), root, limit) for number, job in enumerate(jobs)]
        again = {job.name: _again(entry) for job, entry in zip(jobs, entries, strict=True) if job.kind == "python"}
        timeout = _START_SECONDS + 2 * limit * len(jobs)
        rooms = [_Room(name, seed, folder, root=root, components=components) for name, seed in (("home", "0"), ("again", "1"))]
        with ThreadPoolExecutor(len(rooms), thread_name_prefix="compile") as pool:
            parts = zip(rooms, (entries, list(again.values())), strict=True)
            for work in [pool.submit(room.run, part, timeout) for room, part in parts if part]:
                work.result()
        return {job.name: _result(job, entry, again.get(job.name)) for job, entry in zip(jobs, entries, strict=True)}


def _entry(job: Job, at: Path, root: Path, limit: float) -> dict[str, Any]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)
    told = {"name": job.name, "kind": job.kind, "source": str(job.source), "log": str(job.log), "root": str(root), "limit": limit}
    return {**told, "again": False, "scratch": str(at.parent), **_made(str(at))}


def _again(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the second compilation of a job; what it prints was printed before, so its log is for nobody."""
    at = f"{entry['out'].removesuffix('.yaml')}-again"
    return {**entry, "again": True, "log": f"{at}.log", **_made(at)}


def _made(at: str) -> dict[str, str]:
    return {"out": f"{at}.yaml", "answer": f"{at}.json", "stack": f"{at}.stack"}  # kfp goes by the ending of the file's name


class _Room:
    """What one child process sees: an environment of its own, with an empty home."""

    def __init__(self, name: str, seed: str, folder: Path, *, root: Path, components: Path) -> None:
        self._root, self._jobs = root, folder / f"{name}.jobs.json"
        home = folder / name
        home.mkdir()
        kept = {key: value for key, value in settings.child_environment().items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
        own = {"HOME": str(home), "TMPDIR": str(home), "LOGNAME": name, "PYTHONHASHSEED": seed}
        fixed = {"PATH": os.defpath, "COMPONENTS": str(components), "PYTHONUTF8": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        self._environment = {**kept, **fixed, **own}

    def run(self, entries: Sequence[Mapping[str, Any]], timeout: float) -> None:
        """Do jobs, one after the other."""
        files.write_json(self._jobs, list(entries))
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        program = [settings.interpreter(), "-s", "-P", "-m", "trainshed.pipelines.child", str(self._jobs)]
        outcome = process.run(["env", "-i", *environment, *program], cwd=self._root, timeout=timeout, check=False)
        if outcome.code == _NO_KFP:
            raise ToolMissing(f"kfp cannot be imported: {outcome.errors.strip()}", next_step="Run `scripts/setup`.")
        if outcome.code != 0:
            raise process.ProcessFailed(
                f"the compiler's process ended with code {outcome.code}:\n{outcome.errors.strip()[-2000:]}", outcome
            )


def _result(job: Job, entry: Mapping[str, Any], again: Mapping[str, Any] | None) -> Compiled | UsageError:
    first = _one(entry)
    second = _one(again) if again is not None else first
    if isinstance(first, UsageError):
        return first
    if isinstance(second, UsageError):
        return UsageError(f"{second.message} (only when it is compiled a second time)", next_step=_VARIES)
    place = str(job.source.relative_to(entry["root"]) if job.source.is_relative_to(entry["root"]) else job.source)
    if first.text == second.text:
        return _without_paths(first, Path(entry["root"]), place) if again is not None else first
    here, there = (documents.load(each.text, place=place) for each in (first, second))
    where = documents.difference(here, there) or "the description in its header"
    return UsageError(f"{place}: compiles to something else each time; first at {where}", next_step=_VARIES)


def _without_paths(compiled: Compiled, root: Path, place: str) -> Compiled | UsageError:
    """Refuse what holds the project's folder on this machine, unless a file that was read says so: an image may have such a folder."""
    told = [item for document in documents.load(compiled.text, place=place) for item in documents.strings(document)]
    for folder in {str(root), os.path.realpath(root)} - {os.sep}:
        words = re.compile(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])")
        where = next((path for path, text in told if words.search(text)), "")
        if where and not any(words.search(_content(root / name)) for name in compiled.reads):
            return UsageError(f"{place}: holds the path of a folder of this machine, {folder}; first at {where}", next_step=_VARIES)
    return compiled


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _one(entry: Mapping[str, Any]) -> Compiled | UsageError:
    answer = json.loads(Path(entry["answer"]).read_text(encoding="utf-8"))
    if "error" in answer:
        return UsageError(answer["error"], next_step=answer["next"])
    return Compiled(text=Path(entry["out"]).read_text(encoding="utf-8"), reads=tuple(answer["reads"]), notes=tuple(answer["notes"]))
