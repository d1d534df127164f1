"""Whether a manifest is to be believed: the ledger knows the release, or the tag that was pushed names it."""

from __future__ import annotations

from trainshed.errors import UsageError
from trainshed.releases.manifest import Manifest
from trainshed.stages import versioning
from trainshed.stages.context import Context
from trainshed.stages.releasing import current, tagging
from trainshed.tools import git_tags


def require(context: Context, manifest: Manifest) -> None:
    """Make sure that a manifest, whose seal fits, is that of a release of this project to this environment.

    A seal shows that nobody edited it, not who made it: a file alone is never enough.

    Raises:
        UsageError: it differs from the ledger's, or nobody vouches for it.
        RemoteError: the remote that has its tag cannot be asked.
    """
    name = manifest.release
    known = current.released(context, context.config.environment.name)
    if manifest.digest in known:
        return
    if name in known.values():
        message = f"the manifest {manifest.digest} is not that of release {name} which the ledger knows"
        raise UsageError(message, next_step="Name the release by its version: the ledger has its manifest.")
    if not _tagged(context, manifest):
        message = f"nobody vouches for release {name}: the ledger does not know it, and no tag names its manifest {manifest.digest}"
        raise UsageError(message, next_step="Use the ledger of its environment, or a clone whose remote has its tag.")


def _tagged(context: Context, manifest: Manifest) -> bool:
    """Tell whether every tag of the release, as the remote has it, is of its commit and names the manifest."""
    remote = versioning.remote(context)
    told = [git_tags.told(context.config.project.root, remote, tag) for tag in manifest.tags]
    return bool(told) and all(tagging.names(each, manifest.commit, manifest.digest) for each in told)
