"""Images that somebody still needs are kept by a tag, which the lifecycle policy's first rule protects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainshed.errors import RemoteError
from trainshed.images import references
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.registry.promises import keep_tag
from trainshed.tools import process, referrers

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Unkept:
    """What of the needed digests of a repository lacks its tag, and what is not there any more."""

    digests: tuple[str, ...]
    gone: tuple[str, ...]


def unkept(context: Context, repository: str, digests: Iterable[str]) -> Unkept:
    """Look for needed images that nothing protects, or to which something refers that nothing protects.

    Args:
        context: the command's room.
        repository: ``host/path``.
        digests: that are needed.
    """
    wanted = sorted(digests)
    if not wanted:
        return Unkept(digests=(), gone=())
    registry = context.registry
    tags = registry.tags(repository)

    def lacking(digest: str) -> bool:
        return keep_tag(digest) not in tags or any(keep_tag(each) not in tags for each in referrers.attached(registry, repository, digest))

    gone = tuple(digest for digest in wanted if keep_tag(digest) not in tags and registry.digest(f"{repository}@{digest}") is None)
    there = [digest for digest in wanted if digest not in gone]

    def work() -> tuple[str, ...]:
        with ThreadPoolExecutor(_AT_ONCE, initializer=process.abandonable) as pool:
            return tuple(digest for digest, lacks in zip(there, pool.map(lacking, there), strict=True) if lacks)

    return Unkept(digests=process.interruptible(work), gone=gone)


def keep(context: Context, repository: str, digest: str, *, anew: bool = False) -> None:
    """Give an image the tag that keeps it, unless it has it.

    An index's images, and all that refers to any of them, get theirs first, so that the image's own tag tells of theirs.

    Args:
        context: the command's room.
        repository: ``host/path``.
        digest: of the image.
        anew: look at what goes with the image even where it has its tag: something may refer to it since.

    Raises:
        RemoteError: the registry refused, has no such image, or has another under that tag.
    """
    if not anew and _kept(context, repository, digest):
        return
    for each in referrers.attached(context.registry, repository, digest):
        if not _kept(context, repository, each):
            _require(context.registry.tag(f"{repository}@{each}", keep_tag(each)), repository, each)


def _kept(context: Context, repository: str, digest: str) -> bool:
    has = context.registry.digest(f"{repository}:{keep_tag(digest)}")
    if has is not None:
        _require(has, repository, digest)
    return has is not None


def _require(has: str, repository: str, digest: str) -> None:
    if has != digest:
        tagged = f"{repository}:{keep_tag(digest)}"
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
