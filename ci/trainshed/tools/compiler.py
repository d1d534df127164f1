"""The door to kfp's compiler: a child process without network, environment or home, for code that others wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trainshed import files, settings
from trainshed.errors import ToolMissing, UsageError
from trainshed.tools import process

LIMIT_SECONDS = 60.0
_START_SECONDS = 120.0
_NO_KFP = 4
_KEPT = ("PATH", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("COVERAGE_",)  # so that the tests of this package measure the child too
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
    """Compile files in one child process; one file's error is its own.

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
        home = folder / "home"
        home.mkdir()
        entries = [_entry(job, number, folder, root, limit) for number, job in enumerate(jobs)]
        files.write_json(folder / "jobs.json", entries)
        _run(folder / "jobs.json", root=root, components=components, home=home, timeout=_START_SECONDS + 2 * limit * len(jobs))
        return {job.name: _result(entry) for job, entry in zip(jobs, entries, strict=True)}


def _entry(job: Job, number: int, folder: Path, root: Path, limit: float) -> dict[str, Any]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)
    told = {"name": job.name, "kind": job.kind, "source": str(job.source), "log": str(job.log), "root": str(root), "limit": limit}
    made = {"out": "yaml", "answer": "json", "stack": "stack"}  # kfp goes by the ending of the file's name
    return {**told, "scratch": str(folder), **{key: str(folder / f"{number}.{ending}") for key, ending in made.items()}}


def _run(jobs: Path, *, root: Path, components: Path, home: Path, timeout: float) -> None:
    kept = {name: value for name, value in settings.child_environment().items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    fixed = {"HOME": str(home), "TMPDIR": str(home), "COMPONENTS": str(components), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "TZ": "UTC"}
    environment = [f"{name}={value}" for name, value in {**kept, **fixed, "LC_ALL": "C.UTF-8"}.items()]
    program = [settings.interpreter(), "-s", "-P", "-m", "trainshed.pipelines.child", str(jobs)]
    outcome = process.run(["env", "-i", *environment, *program], cwd=root, timeout=timeout, check=False)
    if outcome.code == _NO_KFP:
        raise ToolMissing(f"kfp cannot be imported: {outcome.errors.strip()}", next_step="Run `scripts/setup`.")
    if outcome.code != 0:
        raise process.ProcessFailed(f"the compiler's process ended with code {outcome.code}:\n{outcome.errors.strip()[-2000:]}", outcome)


def _result(entry: dict[str, Any]) -> Compiled | UsageError:
    answer = json.loads(Path(entry["answer"]).read_text(encoding="utf-8"))
    if "error" in answer:
        return UsageError(answer["error"], next_step=answer["next"])
    return Compiled(text=Path(entry["out"]).read_text(encoding="utf-8"), reads=tuple(answer["reads"]), notes=tuple(answer["notes"]))
