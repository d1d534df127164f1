"""Image references: parsed, normalised as Docker does it, and the reserved ones that stand for a component before stamping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from trainshed.errors import UsageError

Digest = str
"""``sha256:`` and 64 hexadecimal digits."""

RESERVED_HOST = "component.invalid"
_RESERVED = re.compile(rf"{re.escape(RESERVED_HOST)}/([a-z0-9](?:[a-z0-9-]*[a-z0-9])?):unstamped")
_DEFAULT_HOST = "docker.io"
_REFERENCE = re.compile(
    r"(?:(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A normalised reference. ``tag`` is ``latest`` when neither tag nor digest was given; ``digest`` is empty when not pinned."""

    host: str
    path: str
    tag: str
    digest: Digest

    @property
    def repository(self) -> str:
        """Return ``host/path``."""
        return f"{self.host}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


@lru_cache(maxsize=1024)
def parse(text: str) -> Reference:
    """Parse a reference and fill in Docker's defaults: host ``docker.io``, folder ``library``, tag ``latest``.

    Raises:
        UsageError: the text is not a reference.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not an image reference", next_step="Write it as host/path:tag or host/path@sha256:….")
    host, path = match["host"] or "", match["path"]
    if host and not _is_host(host):
        host, path = "", f"{host}/{path}"
    if not host or host == "index.docker.io":
        host = _DEFAULT_HOST
    if host == _DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    digest = match["digest"] or ""
    return Reference(host=host, path=path, tag=match["tag"] or ("" if digest else "latest"), digest=digest)


def normalise(text: str) -> str:
    """Return the reference in full: ``python:3.11`` → ``docker.io/library/python:3.11``."""
    return str(parse(text))


def repository_of(text: str) -> str:
    """Return ``host/path`` of a reference, in full."""
    return parse(text).repository


def is_pinned(text: str) -> bool:
    """Tell whether the text is a reference with a digest."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["digest"] is not None


def pin(text: str, digest: Digest) -> str:
    """Return the reference in full with this digest; a tag stays, for the reader.

    Raises:
        UsageError: the text is not a reference, or is pinned to another digest already.
    """
    found = parse(text)
    if found.digest and found.digest != digest:
        raise UsageError(f"{text} is pinned already, and not to {digest}")
    return str(Reference(host=found.host, path=found.path, tag=found.tag, digest=digest))


def mirrored(text: str, mirrors: Mapping[str, str]) -> str | None:
    """Return where a mirror has the image, None when its registry is not mirrored.

    ``python:3.11`` is ``<mirror>/library/python:3.11`` behind a mirror of ``docker.io``: a mirror knows full names only.

    Args:
        text: the reference.
        mirrors: by registry, ``host/prefix`` of its mirror.
    """
    found = parse(text)
    place = next((place for host, place in mirrors.items() if parse(f"{host}/x").host == found.host), None)
    return None if place is None else f"{place}/{str(found).removeprefix(f'{found.host}/')}"


def reserved(component: str) -> str:
    """Return the reference that stands for a component until stamping; no registry can serve it (RFC 2606)."""
    return f"{RESERVED_HOST}/{component}:unstamped"


def component_of(reference: str) -> str | None:
    """Return the component that a reserved reference stands for; None for any other text."""
    match = _RESERVED.fullmatch(reference)
    return match[1] if match else None


def _is_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()
