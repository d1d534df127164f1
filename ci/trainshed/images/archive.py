"""The build context as a tar whose bytes depend on nothing but its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from trainshed.images.context import ContextFile


def write_context(files: Iterable[ContextFile], dockerfile_text: str, out: BinaryIO, *, dockerfile_name: str = "Dockerfile") -> None:
    """Write the files and the Dockerfile (which takes the place of one of this name) as a tar; WorkFailed when a file changes meanwhile."""
    raise NotImplementedError
