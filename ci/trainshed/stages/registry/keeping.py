"""Images that somebody still needs are kept by a tag, which the lifecycle policy's first rule protects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainshed.errors import RemoteError
from trainshed.images import references
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.registry.promises import keep_tag
from trainshed.tools import process

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Unkept:
    """What of the needed digests of a repository lacks its tag, and what is not there any more."""

    digests: tuple[str, ...]
    gone: tuple[str, ...]


def unkept(context: Context, repository: str, digests: Iterable[str]) -> Unkept:
    """Look for needed images that nothing protects.

    Args:
        context: the command's room.
        repository: ``host/path``.
        digests: that are needed.
    """
    wanted = sorted(digests)
    if not wanted:
        return Unkept(digests=(), gone=())
    tags = context.registry.tags(repository)
    missing = [digest for digest in wanted if keep_tag(digest) not in tags]
    gone = tuple(digest for digest in missing if context.registry.digest(f"{repository}@{digest}") is None)
    return Unkept(digests=tuple(digest for digest in missing if digest not in gone), gone=gone)


def keep(context: Context, repository: str, digest: str) -> None:
    """Give an image the tag that keeps it, unless it has it; of an index all its images first, so that its own tag tells of theirs.

    Raises:
        RemoteError: the registry refused, has no such image, or has another under that tag.
    """
    tagged = f"{repository}:{keep_tag(digest)}"
    has = context.registry.digest(tagged)
    if has is None:
        document = json.loads(context.registry.manifest(f"{repository}@{digest}")[0])
        for child in document.get("manifests", ()):
            keep(context, repository, child["digest"])
        has = context.registry.tag(f"{repository}@{digest}", keep_tag(digest))
    if has != digest:
        raise RemoteError(f"{tagged} is {has}, not {digest}", next_step="Find out who pushed it: this tag is for that digest alone.")


def keep_locked(context: Context, images: Mapping[str, str]) -> None:
    """Keep the images that main is about to lock (component → reference by digest), where the registry is ECR.

    It comes before the lock, so that no lock ever holds an image which may expire: what is killed in between leaves an image that is
    kept for nothing, and no lock without its images.
    """
    registry = context.config.environment.registry
    if context.tier < Tier.MAIN or registry is None or registry.ecr is None:
        return
    wanted = [references.parse(reference) for reference in images.values()]

    def work() -> None:
        with ThreadPoolExecutor(_AT_ONCE, initializer=process.abandonable) as pool:
            list(pool.map(lambda image: keep(context, image.repository, image.digest), wanted))

    process.interruptible(work)


def keep_deployed(context: Context, reference: str) -> None:
    """Keep an image that a service is about to run, where the environment's registry is ECR: main may never have locked it.

    Where it has its tag already, as all that main locked or `registry copy` brought, nothing may be pushed for it.

    Raises:
        RemoteError: as `keep`: a service whose image may expire cannot start a task any more one day.
    """
    image, registry = references.parse(reference), context.config.environment.registry
    if registry is not None and registry.ecr is not None and image.host == registry.url.partition("/")[0]:
        keep(context, image.repository, image.digest)
