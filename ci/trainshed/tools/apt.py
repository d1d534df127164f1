"""This machine's apt: what of its settings holds in a build too, for images on Debian."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from trainshed.tools import process

_SECONDS = 30.0
_SETTING = re.compile(
    r"Acquire::(?:Retries|ForceIPv[46]|Check-Valid-Until"
    r"|https?::(?:Proxy(?:::[^:]+)?|Timeout|Pipeline-Depth|No-Cache|User-Agent|Verify-Peer|Verify-Host))",
    re.IGNORECASE,
)
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1", re.IGNORECASE)
_ARCHIVES = {"Debian": "debian", "Debian-Security": "debian-security"}
_OWN_HOSTS = ("deb.debian.org", "security.debian.org")


def configuration() -> str:
    """Return apt's proxies, limits and mirrors of Debian as an ``apt.conf``; empty where there is no apt, or nothing is set.

    A mirror stands under ``Trainshed::Mirror::debian`` or ``…::debian-security``: apt itself ignores the key, and a Dockerfile puts
    it in the place of Debian's own address. What names a file or the loopback of this machine is left out: no build has them.
    """
    return "".join(f'{name} "{value}";\n' for name, value in (*_settings(), *_mirrors()))


def _settings() -> Iterator[tuple[str, str]]:
    for line in _said("apt-config", "dump", "--no-empty", "--format", "%f %v%n", "Acquire"):
        name, _, value = line.partition(" ")
        if _SETTING.fullmatch(name) and value and '"' not in value and not _is_loopback(value):
            yield name, value


def _mirrors() -> Iterator[tuple[str, str]]:
    """Yield where this machine gets Debian from, as the signed lists name their origin; before ``apt-get update`` nobody knows."""
    found: dict[str, str] = {}
    for line in _said("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"):
        origin, label, address = [*line.split("|"), "", ""][:3]
        archive = _ARCHIVES.get(label)
        fits = address.startswith(("http://", "https://")) and '"' not in address and not _is_loopback(address)
        if origin == "Debian" and archive and fits and urlsplit(address).hostname not in _OWN_HOSTS:
            found.setdefault(archive, address)
    yield from ((f"Trainshed::Mirror::{archive}", address) for archive, address in sorted(found.items()))


def _is_loopback(address: str) -> bool:
    try:
        return _LOOPBACK.fullmatch(urlsplit(address).hostname or "") is not None
    except ValueError:
        return True  # not an address at all, so nothing that a build could use either


def _said(program: str, *arguments: str) -> list[str]:
    """Return the lines that a program of apt says, none where it is missing or fails."""
    found = process.find(program)
    if found is None:
        return []
    outcome = process.run([found, *arguments], environment={"LC_ALL": "C"}, timeout=_SECONDS, check=False)
    return outcome.output.splitlines() if outcome.code == 0 else []
