"""Which texts of what was told in confidence must not be shown: values, and log-ins inside addresses and settings."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SHORTEST = 4  # a shorter text is part of so many others that masking it would hide the log and not the secret
_SHORTEST_LINE = 8
_LONGEST = 16_384  # nobody is told more in confidence: a bundle of certificates is public
_LOGIN = re.compile(r"://([^\s/@]+)@")
_SETTING = re.compile(r"""(?im)\b\w*(?:password|passwd|token|secret)["']?\s*[=:\s]\s*["']?([^\s"',]+)""")


def logins(text: str) -> list[str]:
    """Return the log-ins (``user:password``, and the password alone, quoted and not) of the addresses in a text."""
    found = []
    for login in _LOGIN.findall(text):
        password = login.partition(":")[2] or login
        found += [login, password, unquote(password)]
    return _long_enough(found)


def texts(content: str) -> list[str]:
    """Return what to mask of a secret: the whole of it, each of its lines, and the values and log-ins that settings hold.

    Certificates and empty settings hold nothing to mask.
    """
    whole = content.strip()
    if len(whole) > _LONGEST or ("BEGIN CERTIFICATE" in whole and "PRIVATE KEY" not in whole):
        return []
    lines = [line.strip() for line in whole.splitlines()]
    found = [whole, *(line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith(("[", "-----")))]
    return _long_enough([*found, *_SETTING.findall(whole), *logins(whole)])


def _long_enough(found: list[str]) -> list[str]:
    return [text for text in dict.fromkeys(found) if len(text) >= _SHORTEST]
