"""``trainshed registry copy``: the lock's images, by digest, to the registry of another environment."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from trainshed import config, settings
from trainshed.config import Config
from trainshed.errors import Interrupted, RemoteError, TrainshedError, UsageError
from trainshed.images import components
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import locking, trust
from trainshed.stages.context import Context
from trainshed.stages.policy import in_force
from trainshed.stages.registry.promises import keep_tag
from trainshed.tools.copying import How
from trainshed.tools.copying import copy as copied
from trainshed.tools.credentials import Login
from trainshed.tools.registry import RegistryClient

STAGE = "registry-copy"
_MIB = 1 << 20


@dataclass
class _Tally:
    """What one image took."""

    console: Context
    name: str
    blobs: dict[How, int] = field(default_factory=lambda: dict.fromkeys(How, 0))
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, digest: str, size: int, how: How) -> None:
        with self.lock:
            self.blobs[how] += 1
            self.sent += size if how is How.SENT else 0
        if how is How.SENT and size >= _MIB:
            self.console.console.show(self.name, STAGE, f"{self.sent // _MIB} MiB sent, last {digest[:19]}")

    @property
    def told(self) -> str:
        """Return it in a line."""
        parts = [f"{count} {how}" for how, count in self.blobs.items() if count]
        return ", ".join(parts) + (f"; {self.sent / _MIB:.1f} MiB" if self.sent else "")


def copy(context: Context, names: Sequence[str] = (), *, to: str | None = None, dry_run: bool = False) -> Report:
    """Copy the lock's images of the named components, or all, to another environment's registry; what is there is not sent again.

    Args:
        context: the command's room: the environment to copy from.
        names: components.
        to: the environment to copy to; its registry is asked with its own log-in.
        dry_run: tell what is missing there, change nothing.

    Raises:
        UsageError: no such environment, or it is closed to this run; both registries are one; no lock, or a stale one.
    """
    if not to:
        raise UsageError("registry copy: where to is not said", next_step="Name an environment with --to.")
    target = config.load(context.config.file, environment=to, overrides=settings.own(), policy=in_force(context.config.file))
    trust.require(target, context.tier)
    _require_other(context.config, target)
    lock = locking.current(context)
    chosen = components.select(sorted(lock.images), names)
    with closing(Context(config=target, console=context.console, tier=context.tier)) as there, _client(context, there) as client:
        results = []
        for name in chosen:
            started = time.monotonic()
            result = _tried(context, client, lock.images[name], f"{there.repository_prefix}/{name}", name, dry_run=dry_run)
            results.append(replace(result, seconds=time.monotonic() - started))
            context.console.end(results[-1])
    return Report(stage=STAGE, results=tuple(results), extra={"to": to})


def _require_other(source: Config, target: Config) -> None:
    own, theirs = source.environment, target.environment
    if theirs.registry is None:
        message = f"environment {theirs.name} has this machine's own registry: nobody else can pull from it"
        raise UsageError(message, next_step=f"Set environments.{theirs.name}.registry.")
    if own.registry is not None and own.registry.url == theirs.registry.url:
        raise UsageError(f"environments {own.name} and {theirs.name} have the same registry", next_step="There is nothing to copy.")


def _client(here: Context, there: Context) -> RegistryClient:
    """Return a client of both registries, each host asked with the log-in of its own environment; of one host, that of the target.

    Who may write there has to be the one who reads, and not the other way round.
    """
    hosts = {context.repository_prefix.partition("/")[0]: context for context in (here, there)}

    def login(host: str) -> Login | None:
        return hosts.get(host, here).login(host)

    insecure = [
        registry.url.partition("/")[0]
        for registry in (here.config.environment.registry, there.config.environment.registry)
        if registry is not None and registry.insecure
    ]
    return RegistryClient(insecure, login=login)


def _tried(  # noqa: PLR0913 - what one image is copied by
    context: Context, client: RegistryClient, image: LockedImage, repository: str, name: str, *, dry_run: bool
) -> Result:
    try:
        return _copied(context, client, image, repository, name, dry_run=dry_run)
    except Interrupted:
        raise
    except TrainshedError as error:
        return failed(name, STAGE, error)


def _copied(  # noqa: PLR0913 - what one image is copied by
    context: Context, client: RegistryClient, image: LockedImage, repository: str, name: str, *, dry_run: bool
) -> Result:
    reference = f"{repository}@{image.digest}"
    details = {"digest": image.digest, "reference": reference}
    if dry_run:
        status, cause = (Status.SKIPPED, f"dry run: would copy {image.reference}")
        if client.digest(reference) == image.digest:
            status, cause = Status.CACHED, "is there"
        return Result(name=name, stage=STAGE, status=status, cause=cause, details=details)
    context.console.start(name, STAGE, f"to {repository}")
    tally = _Tally(console=context, name=name)
    # The tag keeps it there: a manifest without one is what a registry's clean-up takes first.
    digest = copied(client, image.reference, repository, tag=keep_tag, on_progress=tally)
    if digest != image.digest:
        raise RemoteError(f"{reference}: {digest} came, and the lock says {image.digest}", next_step="Run it again.")
    counts = {str(how): count for how, count in tally.blobs.items()}
    status = Status.DONE if tally.blobs[How.SENT] or tally.blobs[How.MOUNTED] else Status.CACHED
    return Result(name=name, stage=STAGE, status=status, cause=tally.told, details={**details, **counts, "bytes": tally.sent})
