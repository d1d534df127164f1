"""``.dockerignore`` with the rules of moby/patternmatcher: the last pattern that matches a path or a folder above it wins."""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache

_SPECIAL = frozenset("*?[\\")


class Ignore:
    """The patterns of one file.

    Raises:
        ValueError: a pattern is broken; the text has its line.
    """

    def __init__(self, text: str) -> None:
        self._patterns: list[tuple[bool, re.Pattern[str]]] = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            pattern = "" if line.startswith("#") else line.strip()
            keeps = pattern.startswith("!")
            pattern = pattern.removeprefix("!").strip() if keeps else pattern
            if not pattern:
                if keeps:
                    raise ValueError(f"{number}: a pattern is missing behind '!'")
                continue
            # A leading slash means the context's root, as everything does.
            pattern = posixpath.normpath(pattern).lstrip("/")
            try:
                self._patterns.append((keeps, re.compile(translate(pattern) + "(?:/.*)?", re.DOTALL)))
            except re.error as error:
                raise ValueError(f"{number}: the pattern '{line.strip()}' is broken: {error}") from error
        self.keeps = any(keeps for keeps, _ in self._patterns)
        """Whether a pattern with ``!`` may bring back something below an excluded folder."""

    def excludes(self, path: str) -> bool:
        """Tell whether a path (relative, slashes) is kept from the builder."""
        excluded = False
        for keeps, pattern in self._patterns:
            if keeps == excluded and pattern.fullmatch(path):
                excluded = not keeps
        return excluded


@lru_cache(maxsize=256)
def of_text(text: str) -> Ignore:
    """Return the patterns of a text; components tend to have the same one."""
    return Ignore(text)


def translate(pattern: str) -> str:
    """Translate as patternmatcher's ``compile`` does: ``**`` also matches no folder at all, and a trailing one takes everything."""
    if pattern.startswith("**") and not _SPECIAL.intersection(pattern[2:]):
        # Without other wildcards moby compares the end only: `**.pyc` is any path that ends so, `**/x` also is `x` itself.
        rest = pattern[2:]
        return ".*" if not rest else f"(?:.*/)?{re.escape(rest[1:])}" if rest.startswith("/") else f".*{re.escape(rest)}"
    out, position = [], 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and pattern.startswith("*", position):
            position += 1
            position += pattern.startswith("/", position)
            out.append("(?:.*/)?" if position < len(pattern) else ".*")
        elif character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[" and (end := pattern.find("]", position + 1)) > 0:
            inside = pattern[position:end].replace("[", "\\[")
            out.append(f"[{inside}]")
            position = end + 1
        elif character == "[":
            raise re.error("a bracket is not closed")
        else:
            escaped = character == "\\" and position < len(pattern)
            out.append(re.escape(pattern[position] if escaped else character))
            position += escaped
    return "".join(out)
