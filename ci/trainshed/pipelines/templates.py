"""Pipeline templates: the files of one folder, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainshed.errors import problems, suggestion

NAME = re.compile(r"[a-z][a-z0-9_]*")
_KINDS: dict[str, Literal["python", "yaml"]] = {".py": "python", ".yaml": "yaml", ".yml": "yaml"}


@dataclass(frozen=True, kw_only=True)
class Template:
    """One template: KFP DSL (``python``) or compiled IR (``yaml``). ``path`` is absolute."""

    name: str
    path: Path
    kind: Literal["python", "yaml"]


def discover(folder: Path) -> dict[str, Template]:
    """Return the templates of a folder, sorted by name.

    Files that start with ``_`` or ``.`` are helpers that templates import, not templates; so is everything in sub-folders.

    Raises:
        UsageError: with all problems at once: a name that is none, two templates of one name, a broken link.
    """
    found: dict[str, Template] = {}
    wrong = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        kind = _KINDS.get(path.suffix)
        if kind is None or path.name.startswith(("_", ".")) or path.is_dir():
            continue
        if not path.is_file():
            wrong.append(f"{path}: not a file that can be read")
        elif not NAME.fullmatch(path.stem):
            wrong.append(f"{path}: '{path.stem}' is no name of a pipeline: lower-case letters, digits and underscores, a letter first")
        elif path.stem in found:
            wrong.append(f"{path}: {found[path.stem].path.name} has the same name")
        else:
            found[path.stem] = Template(name=path.stem, path=path, kind=kind)
    if wrong:
        raise problems(wrong, next_step="Rename the files; start the name of a helper module with an underscore.")
    return found


def select(known: dict[str, Template], names: tuple[str, ...] | list[str]) -> list[Template]:
    """Return the templates of these names in the order of the names, or all when none is given.

    Raises:
        UsageError: for every name that no template has, with a suggestion.
    """
    wrong = [f"no pipeline '{name}'{suggestion(name, known)}" for name in names if name not in known]
    if wrong:
        raise problems(wrong, next_step=f"Known: {', '.join(known) or 'none'}.")
    return [known[name] for name in (dict.fromkeys(names) if names else known)]
