"""The build context as the builder may see it: what the COPY, ADD and bind mounts of the needed stages can reach, and nothing else.

What is listed here is what is hashed and what is sent, so neither can lie about the other. Where a source is only known while the
image is built (a variable, a way through a link), everything that ``.dockerignore`` leaves is listed.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from trainshed.errors import UsageError, problems
from trainshed.files import read_text
from trainshed.images import ignore
from trainshed.images.components import Component
from trainshed.images.dockerfile import Stage
from trainshed.images.ignore import Ignore
from trainshed.images.instructions import Instruction, words

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@", re.IGNORECASE)
_WILD = frozenset("*?[\\")
_IGNORE_FILES = ("Dockerfile.dockerignore", ".dockerignore")


class ContextFile(NamedTuple):
    """One entry: ``path`` relative with slashes; ``target`` of a link as written; ``status`` of a file from the same look."""

    path: str
    location: str
    kind: Literal["file", "link", "dir"]
    executable: bool = False
    target: str = ""
    status: os.stat_result | None = None

    @property
    def source(self) -> Path:
        """Return where the entry lies."""
        return Path(self.location)


def context_files(component: Component, *, target: str | None) -> list[ContextFile]:
    """Return what a target (None: the image) can reach in its context, sorted by path. Folders are listed only when they are empty.

    Raises:
        UsageError: a link leads out of the context, a file is of a kind that no builder takes or has a name that is not UTF-8,
            a source of COPY or ADD is not there: all problems at once.
    """
    return files_of(component, component.dockerfile.needed(target))


def files_of(component: Component, stages: Iterable[Stage]) -> list[ContextFile]:
    """Return what these stages can reach, as `context_files` does."""
    wanted = {source: step.line for stage in stages for step in stage.instructions for source in _sources(step)}
    tree = _Tree(str(component.folder))
    wrong = tree.wrong + _missing(component, tree, wanted)
    if wrong:
        raise problems(wrong, next_step="Mend the build context, or leave the file out with .dockerignore.")
    every = "" in wanted or _through_link(tree, wanted)
    plain = frozenset(source for source in wanted if not _WILD.intersection(source))
    below = tuple(f"{source}/" for source in plain)
    wild = _pattern(frozenset(wanted) - plain)
    found = [
        _described(path, entry)
        for path, entry in tree.entries.items()
        if every or path in plain or path.startswith(below) or (wild is not None and wild.fullmatch(path))
    ]
    # Status and links are looked up only for what was chosen: a folder of data beside the sources costs a listing.
    return sorted(found)


@dataclass
class _Tree:
    """One walk over a folder: every entry that is not ignored, and what no builder could take."""

    folder: str
    entries: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ignore: Ignore | None = None

    def __post_init__(self) -> None:
        with os.scandir(self.folder) as listing:
            entries = list(listing)
        names = {entry.name for entry in entries}
        file = next((Path(self.folder, name) for name in _IGNORE_FILES if name in names), None)
        if file is not None:
            try:
                self.ignore = ignore.of_text(read_text(file, what="the list of ignored files"))
            except ValueError as error:
                raise UsageError(f"{file}:{error}", next_step="Mend the pattern.") from error
        self._take(entries, "")

    def ignored(self, path: str) -> bool:
        """Tell whether ``.dockerignore`` keeps a path from the builder."""
        return self.ignore is not None and self.ignore.excludes(path)

    def _take(self, entries: list[os.DirEntry[str]], prefix: str) -> None:
        for entry in entries:
            path = prefix + entry.name
            ignored = self.ignored(path)
            if entry.is_dir(follow_symlinks=False):
                if not ignored or (self.ignore is not None and self.ignore.keeps):
                    self._take_folder(entry, path, ignored=ignored)
            elif not ignored:
                self._take_file(entry, path)

    def _take_folder(self, entry: os.DirEntry[str], path: str, *, ignored: bool) -> None:
        with os.scandir(entry.path) as listing:
            below = list(listing)
        if below:
            self._take(below, f"{path}/")
        elif not ignored:
            self.entries[path] = entry

    def _take_file(self, entry: os.DirEntry[str], path: str) -> None:
        if not path.isascii() and any("\udc80" <= character <= "\udcff" for character in path):
            self.wrong.append(f"{self.folder}: the name of {path.encode(errors='surrogateescape')!r} is not UTF-8")
        elif entry.is_symlink():
            target = os.readlink(entry.path)  # noqa: PTH115 - the text as it stands
            if target.startswith("/") or posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == "..":
                self.wrong.append(f"{entry.path}: the link leads out of the build context, to {target}")
            self.links.append(path)
            self.entries[path] = entry
        elif entry.is_file(follow_symlinks=False):
            self.entries[path] = entry
        else:
            self.wrong.append(f"{entry.path}: neither file, folder nor link: no builder takes it")


def _described(path: str, entry: os.DirEntry[str]) -> ContextFile:
    if entry.is_symlink():
        return ContextFile(path, entry.path, "link", target=os.readlink(entry.path))  # noqa: PTH115 - the text as it stands
    if entry.is_dir(follow_symlinks=False):
        return ContextFile(path, entry.path, "dir")
    status = entry.stat(follow_symlinks=False)
    return ContextFile(path, entry.path, "file", executable=bool(status.st_mode & 0o100), status=status)


def _sources(step: Instruction) -> list[str]:
    """Return the paths in the context that an instruction takes; the empty path stands for everything."""
    if step.keyword == "RUN":
        binds = (mount for mount in step.mounts() if mount["type"] == "bind" and "from" not in mount) if step.flags else ()
        return [_cleaned(mount.get("source", mount.get("src", ""))) for mount in binds]
    if step.keyword not in {"COPY", "ADD"} or step.flag("from"):
        return []
    taken = (word for word in words(step.value)[:-1] if not word.startswith("<<"))
    return [_cleaned(word) for word in taken if step.keyword == "COPY" or not _REMOTE.match(word)]


def _cleaned(source: str) -> str:
    if "$" in source:
        return ""
    return posixpath.normpath(f"/{source}").lstrip("/")


def _missing(component: Component, tree: _Tree, wanted: dict[str, int]) -> list[str]:
    """Say which sources are not there; a folder whose content is all ignored is there, and empty."""
    wrong = []
    for source, line in wanted.items():
        if not source or _WILD.intersection(source) or source in tree.entries or _through_link(tree, [source]):
            continue
        if any(path.startswith(f"{source}/") for path in tree.entries):
            continue
        ignored = tree.ignored(source)
        if os.path.isdir(f"{tree.folder}/{source}") and not ignored:  # noqa: PTH112 - a Path for each source would cost more than the look
            parent = posixpath.dirname(source)
            with os.scandir(f"{tree.folder}/{parent}") as listing:
                tree.entries[source] = next(entry for entry in listing if entry.name == posixpath.basename(source))
            continue
        why = "is left out by .dockerignore" if ignored else "is not there"
        wrong.append(f"{component.dockerfile.path}:{line}: '{source}' {why}")
    return wrong


def _through_link(tree: _Tree, sources: Iterable[str]) -> bool:
    """Tell whether the builder would follow a link to get at a source."""
    return bool(tree.links) and any(
        _WILD.intersection(source) or source == link or source.startswith(f"{link}/") for source in sources for link in tree.links
    )


@lru_cache(maxsize=256)
def _pattern(sources: frozenset[str]) -> re.Pattern[str] | None:
    """Translate wildcards as Go's filepath.Match reads them; a match takes what lies below too."""
    if not sources:
        return None
    return re.compile(f"(?:{'|'.join(ignore.translate(source) for source in sorted(sources))})(?:/.*)?", re.DOTALL)
