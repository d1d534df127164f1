"""What refers to an image (signatures, SBOMs, attestations): told by the registry, else by the tag that OCI's specification names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from trainshed.tools.registry import RegistryClient, following, require_ok

# Of a registry that has no list of referrers: it knows no such address, or does not let it be asked.
_NO_LIST = frozenset({400, 404, 405, 501})
_OF_COSIGN = ("sig", "att", "sbom")


def fallback(digest: str) -> str:
    """Return the tag under which clients keep the list where the registry keeps none."""
    return digest.replace(":", "-", 1)


def listed(client: RegistryClient, repository: str, digest: str) -> tuple[list[dict[str, Any]], bool]:
    """Return the descriptors of what refers to a manifest, and whether the registry itself keeps the list; else a tag does.

    Raises:
        RemoteError: the registry could not be asked, or refused.
    """
    found: list[dict[str, Any]] = []
    path = f"referrers/{digest}"
    while path:
        answer = client.ask("GET", repository, path)
        if answer.status in _NO_LIST:
            there = client.digest(f"{repository}:{fallback(digest)}")
            told = json.loads(client.manifest(f"{repository}@{there}")[0]) if there else {}
            return told.get("manifests") or [], False
        require_ok(answer)
        found += answer.json().get("manifests") or []
        path = following(answer)
    return found, True


def present(client: RegistryClient, repository: str, digest: str) -> list[dict[str, Any]]:
    """Return the descriptors of what refers to a manifest and is there: a list kept by a tag may name what is gone, or not there yet."""
    found, itself = listed(client, repository, digest)
    return found if itself else [one for one in found if client.digest(f"{repository}@{one['digest']}") == one["digest"]]


def tagged(client: RegistryClient, repository: str, digest: str) -> dict[str, str]:
    """Return what cosign made of a manifest without naming it as subject: tag → digest.

    Each tag is asked for by its name: who may pull from another account is seldom allowed to list tags.
    """
    tags = [f"{fallback(digest)}.{ending}" for ending in _OF_COSIGN]
    return {tag: found for tag in tags if (found := client.digest(f"{repository}:{tag}")) is not None}


def attached(client: RegistryClient, repository: str, digest: str, *, seen: set[str] | None = None) -> Iterator[str]:
    """Yield the digests of all that goes with a manifest, once each, the manifest last: an index's images, and what refers to any of it."""
    known = set() if seen is None else seen
    if digest in known:
        return
    known.add(digest)
    document = json.loads(client.manifest(f"{repository}@{digest}")[0])
    for one in (*document.get("manifests", ()), *present(client, repository, digest)):
        yield from attached(client, repository, one["digest"], seen=known)
    yield digest
