"""Waivers: findings that somebody answers for, until a date.

The file::

    [[waiver]]
    id = "CVE-2026-0001"
    owner = "risk-models@example.org"
    reason = "The parser is never given input from outside."
    expires = 2026-12-31             # the last day that counts
    components = ["train"]           # optional: only here
    package = "libxml2"              # optional: only for this package
"""

from __future__ import annotations

import datetime as dt
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed.errors import UsageError, problems, suggestion
from trainshed.files import read_text

_MANDATORY = ("id", "owner", "reason", "expires")
_KEYS = (*_MANDATORY, "components", "package")


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One ``[[waiver]]``: id, owner, reason and expires (last day that counts) are mandatory; empty components or package mean any."""

    id: str
    owner: str
    reason: str
    expires: dt.date
    components: tuple[str, ...] = ()
    package: str = ""

    def __str__(self) -> str:
        where = f" in {', '.join(self.components)}" if self.components else ""
        return f"{self.id}{f' ({self.package})' if self.package else ''}{where}, {self.owner}"


def load(path: Path, *, place: str = "") -> list[Waiver]:
    """Read ``waivers.toml``; a missing file holds none. ``place`` names it in messages; the path by default.

    Raises:
        UsageError: all problems at once.
    """
    if not path.exists():
        return []
    place = place or str(path)
    try:
        document = tomllib.loads(read_text(path, what="the list of waivers"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{place}: not TOML: {error}", next_step="Mend the line that is named.") from error
    wrong = [f"{place}: unknown key {key}{suggestion(key, ['waiver'])}" for key in document if key != "waiver"]
    tables = document.get("waiver", [])
    if not isinstance(tables, list):
        wrong.append(f"{place}: waiver: expected tables such as [[waiver]]")
        tables = []
    found: dict[tuple[str, tuple[str, ...], str], Waiver] = {}
    for number, table in enumerate(tables, 1):
        where = f"{place}: waiver {number}"
        mistakes = _mistakes(where, table)
        wrong += mistakes
        if mistakes:
            continue
        waiver = Waiver(**{**table, "expires": _date(table["expires"]), "components": tuple(table.get("components", ()))})
        if found.setdefault((waiver.id, waiver.components, waiver.package), waiver) is not waiver:
            wrong.append(f"{where}: {waiver.id} is waived twice for the same components and package")
    if wrong:
        raise problems(wrong, next_step="Mend the waivers: each has an id, an owner, a reason and a date on which it expires.")
    return list(found.values())


def _mistakes(place: str, table: Any) -> list[str]:  # noqa: ANN401 - what TOML gives
    if not isinstance(table, dict):
        return [f"{place}: expected a table"]
    name = table.get("id")
    place = f"{place} ({name})" if isinstance(name, str) and name else place
    wrong = [f"{place}: unknown key {key}{suggestion(key, _KEYS)}" for key in table if key not in _KEYS]
    wrong += [f"{place}: {key} is missing" for key in _MANDATORY if key not in table]
    for key in ("id", "owner", "reason", "package"):
        value = table.get(key, "-")
        if not isinstance(value, str) or not value.strip():
            wrong.append(f"{place}: {key}: expected text, not {value!r}")
    components = table.get("components", [])
    if not isinstance(components, list) or not all(isinstance(item, str) for item in components):
        wrong.append(f"{place}: components: expected a list of names, not {components!r}")
    if "expires" in table and _date(table["expires"]) is None:
        wrong.append(f"{place}: expires: expected a date such as 2026-12-31, not {table['expires']!r}")
    return wrong


def _date(value: Any) -> dt.date | None:  # noqa: ANN401 - what TOML gives
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, dt.date) and not isinstance(value, dt.datetime) else None
