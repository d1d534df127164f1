"""Dockerfiles whose foreign images are pinned by digest, so that what was resolved is what is built on."""

from __future__ import annotations

from collections.abc import Mapping

from trainshed.images.dockerfile import Dockerfile


def pinned(dockerfile: Dockerfile, pins: Mapping[str, str], *, args: Mapping[str, str]) -> str:
    """Return the text with each foreign reference (as resolved with ``args``) replaced by its pin; lines keep their numbers."""
    raise NotImplementedError
