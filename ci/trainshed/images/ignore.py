"""``.dockerignore`` with the rules of moby/patternmatcher: the last pattern that matches a path or a folder above it wins."""

from __future__ import annotations


class Ignore:
    """The patterns of one file."""

    def __init__(self, text: str) -> None:
        raise NotImplementedError

    def excludes(self, path: str) -> bool:
        """Tell whether a path (relative, slashes) is kept from the builder."""
        raise NotImplementedError
