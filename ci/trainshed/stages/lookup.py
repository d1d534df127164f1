"""Where an image of given inputs is, and who may be believed about it."""

from __future__ import annotations

from dataclasses import dataclass

from trainshed.settings import Tier
from trainshed.stages.context import Context

_SUFFIXES = {Tier.MAIN: "", Tier.PULL_REQUEST: "-pr", Tier.LAPTOP: "-laptop"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image in the registry: its digest, and the reference by digest under which all later stages know it."""

    digest: str
    reference: str


def repository(context: Context, name: str) -> str:
    """Return a component's repository: ``registry/path/project/name``."""
    return f"{context.repository_prefix}/{name}"


def reference(context: Context, name: str, digest: str) -> str:
    """Return the reference by digest."""
    return f"{repository(context, name)}@{digest}"


def own_tag(context: Context, input_digest: str) -> str:
    """Return the tag under which this run pushes.

    A shared registry keeps the tiers apart by the tag, so that an image of a pull request is never found by a release; the
    embedded registry belongs to one machine and needs no such names.
    """
    return _tag(input_digest, context.tier if context.config.environment.registry is not None else Tier.MAIN)


def find(context: Context, name: str, input_digest: str) -> Found | None:
    """Look an image up by its inputs: what our own tier pushed first, then what is trusted more, never what is trusted less.

    Raises:
        RemoteError: the registry did not answer; that is never read as "missing".
    """
    own = context.tier if context.config.environment.registry is not None else Tier.MAIN
    for tier in sorted(tier for tier in Tier if tier >= own):
        digest = context.registry.digest(f"{repository(context, name)}:{_tag(input_digest, tier)}")
        if digest is not None:
            return Found(digest=digest, reference=reference(context, name, digest))
    return None


def below(context: Context, name: str, input_digest: str) -> tuple[Tier, str] | None:
    """Return who, of those that are trusted less than this run, pushed an image of these inputs, and its digest: to say why none counts.

    Raises:
        RemoteError: the registry did not answer.
    """
    if context.config.environment.registry is None:
        return None
    for tier in sorted((tier for tier in Tier if tier < context.tier), reverse=True):
        digest = context.registry.digest(f"{repository(context, name)}:{_tag(input_digest, tier)}")
        if digest is not None:
            return tier, digest
    return None


def _tag(input_digest: str, tier: Tier) -> str:
    return f"in-{input_digest.removeprefix('sha256:')}{_SUFFIXES[tier]}"
