"""Input digests: one number over everything that can change an image, and words for what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainshed.images.components import Component
from trainshed.images.hashes import HashCache
from trainshed.images.references import Digest


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The digest, and the record that it was taken over (values of build arguments only as digests)."""

    digest: Digest
    manifest: Mapping[str, Any]


def image_inputs(
    component: Component,
    *,
    args: Mapping[str, str],
    platforms: Iterable[str],
    secrets: Iterable[str],
    bases: Mapping[str, Digest],
    hashes: HashCache,
) -> Inputs:
    """Take the inputs of an image.

    Args:
        args: all build arguments; those that the needed stages do not declare, and those of own bases, do not count.
        secrets: names of the build secrets on offer; those that are not mounted do not count.
        bases: digests by key: the component's name for an own base, the reference as resolved for a foreign one (`Graph.image_bases`).
    """
    raise NotImplementedError


def check_inputs(component: Component, *, hashes: HashCache, extra: Mapping[str, Any]) -> Digest:
    """Return the digest of what the test check adds to the image: the test stage's files, ``structure-test.yaml``, its settings."""
    raise NotImplementedError


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two manifests, a phrase each: ``changed: src/train.py``, ``base base-python moved``."""
    raise NotImplementedError
