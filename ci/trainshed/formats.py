"""The published formats: which kind and version a document is of, and whether it has that version's shape.

Every version that was ever published stands in ``schemas/`` as a JSON schema (2020-12) and is read for ever; the files are the only
place that tells a shape. A version only ever gains optional fields, which is why no schema forbids fields that it does not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from trainshed.errors import UsageError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

Json: TypeAlias = Any
"""What JSON can hold; all of it is checked here."""
FOLDER = Path(__file__).parent / "schemas"
KINDS: Mapping[str, str] = {"lock": "a lock", "manifest": "a build's manifest", "release-manifest": "a release's manifest"}
"""What each kind is to people."""
VERSIONS: Mapping[str, tuple[int, ...]] = {"lock": (1,), "manifest": (1,), "release-manifest": (1,)}
"""The versions of each kind that are read; the last one is written."""
_IDENTIFIER = re.compile(r"trainshed/([a-z-]+)/v([1-9][0-9]{0,5})", re.ASCII)
_SHOWN, _LOOKED_AT, _LONGEST = 3, 20, 200


def identifier(kind: str, version: int | None = None) -> str:
    """Return what a document of a kind says in ``schema``: ``trainshed/lock/v1``; of the version that is written by default."""
    return f"trainshed/{kind}/v{VERSIONS[kind][-1] if version is None else version}"


def version_of(document: Json, kind: str, *, place: str, next_step: str = "") -> int:
    """Return the version of a document, of a kind that is expected; nothing else of it is looked at.

    Raises:
        UsageError: it is something else, and the message says what; or a newer Trainshed wrote it.
    """
    said = document.get("schema") if isinstance(document, dict) else None
    match = _IDENTIFIER.fullmatch(said) if isinstance(said, str) else None
    if match is None or match[1] != kind:
        raise UsageError(f"{place}: not {KINDS[kind]}: {_is(said, match)}", next_step=next_step)
    version = int(match[2])
    if version > VERSIONS[kind][-1]:
        message = f"{place}: {said}, written by a newer Trainshed than this one, which reads up to v{VERSIONS[kind][-1]}"
        raise UsageError(message, next_step="Update Trainshed.")
    return version


def require(document: Json, kind: str, *, place: str, next_step: str = "") -> int:
    """Return the version of a document that has its shape; a reader goes on by it.

    Raises:
        UsageError: see `version_of`; or it has not the shape of its version.
    """
    version = version_of(document, kind, place=place, next_step=next_step)
    wrong = _wrong(document, kind, version)
    if wrong:
        raise UsageError(f"{place}: not {KINDS[kind]}: {'; '.join(wrong)}", next_step=next_step)
    return version


@cache
def schema(kind: str, version: int) -> Mapping[str, Json]:
    """Return the JSON schema of a version."""
    loaded: dict[str, Json] = json.loads((FOLDER / f"{kind}-v{version}.json").read_text(encoding="utf-8"))
    return loaded


def _is(said: Json, match: re.Match[str] | None) -> str:
    if match is not None and match[1] in KINDS:
        return f"it is {KINDS[match[1]]} ({said})"
    return f"its schema is {json.dumps(said)[:80]}" if said is not None else "it names no schema"


@cache
def _validator(kind: str, version: int) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema(kind, version))


def _wrong(document: Json, kind: str, version: int) -> list[str]:
    """Return the first things that are not as the schema says, each with its place."""
    found = sorted(islice(_validator(kind, version).iter_errors(document), _LOOKED_AT), key=lambda error: str(error.json_path))
    return [f"{error.json_path.removeprefix('$.')}: {error.message[:_LONGEST]}" for error in found[:_SHOWN]]
