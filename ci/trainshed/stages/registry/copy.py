"""``trainshed registry copy``, and what a release promotes by: images, by digest, from one environment's registry to another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from trainshed import config, settings
from trainshed.config import Config
from trainshed.errors import Interrupted, RemoteError, TrainshedError, UsageError
from trainshed.images import components
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import locking, trust
from trainshed.stages.context import Context
from trainshed.stages.policy import in_force
from trainshed.stages.registry import keeping
from trainshed.stages.registry.promises import keep_tag
from trainshed.tools import process
from trainshed.tools.copying import How
from trainshed.tools.copying import copy as copied
from trainshed.tools.credentials import Login
from trainshed.tools.registry import RegistryClient

STAGE = "registry-copy"
_MIB = 1 << 20
_AT_ONCE = 4


@dataclass
class _Tally:
    """What one image took."""

    context: Context
    stage: str
    name: str
    blobs: dict[How, int] = field(default_factory=lambda: dict.fromkeys(How, 0))
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, digest: str, size: int, how: How) -> None:
        with self.lock:
            self.blobs[how] += 1
            self.sent += size if how is How.SENT else 0
        if how is How.SENT and size >= _MIB:
            self.context.console.show(self.name, self.stage, f"{self.sent // _MIB} MiB sent, last {digest[:19]}")

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
    with closing(Context(config=target, console=context.console, tier=context.tier)) as there:
        results = transfer(context, there, {name: lock.images[name] for name in chosen}, stage=STAGE, dry_run=dry_run)
    return Report(stage=STAGE, results=tuple(results), extra={"to": to})


def transfer(here: Context, there: Context, images: Mapping[str, LockedImage], *, stage: str, dry_run: bool = False) -> list[Result]:
    """Bring images (by component) from one room's registry to another's, side by side; each has the same digest on both sides, or is red.

    Where both rooms have one registry nothing is sent: each image is looked at. Either way it, and all that goes with it, is kept there.

    Args:
        here: the room where the images are.
        there: the room that takes them.
        images: component → image.
        stage: what the results are called.
        dry_run: tell what is missing there, change nothing.
    """

    def tried(name: str) -> Result:
        started = time.monotonic()
        try:
            move = _looked_at if here.repository_prefix == there.repository_prefix else _copied
            status, cause, details = move(_Job(here=here, there=there, client=client, stage=stage, name=name, image=images[name]), dry_run)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(name, stage, error, seconds=time.monotonic() - started)
        else:
            result = Result(name=name, stage=stage, status=status, cause=cause, seconds=time.monotonic() - started, details=details)
        here.console.end(result)
        return result

    def work() -> list[Result]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="transfer", initializer=process.abandonable) as pool:
            return list(pool.map(tried, images))

    with _client(here, there) as client:
        return process.interruptible(work)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One image on its way."""

    here: Context
    there: Context
    client: RegistryClient
    stage: str
    name: str
    image: LockedImage

    @property
    def repository(self) -> str:
        return f"{self.there.repository_prefix}/{self.name}"

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.image.digest}"

    @property
    def details(self) -> dict[str, object]:
        return {"digest": self.image.digest, "reference": self.reference}

    def require(self, digest: str | None) -> None:
        """Raise unless the registry there has just this image."""
        if digest != self.image.digest:
            message = f"{self.reference}: has {digest or 'no such image'}, and the lock says {self.image.digest}"
            raise RemoteError(message, next_step="Run it again.")


_Told = tuple[Status, str, dict[str, object]]


def _require_other(source: Config, target: Config) -> None:
    own, theirs = source.environment, target.environment
    if theirs.registry is None:
        message = f"environment {theirs.name} has this machine's own registry: nobody else can pull from it"
        raise UsageError(message, next_step=f"Set environments.{theirs.name}.registry.")
    if own.registry is not None and own.registry.url == theirs.registry.url:
        raise UsageError(f"environments {own.name} and {theirs.name} have the same registry", next_step="There is nothing to copy.")


@contextmanager
def _client(here: Context, there: Context) -> Iterator[RegistryClient]:
    """Yield a client of both registries, each host asked with the log-in of its own environment; of one host, that of the target.

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
    with RegistryClient(insecure, login=login) as client:
        yield client


def _looked_at(job: _Job, dry_run: bool) -> _Told:
    """Look for an image in the one registry of both rooms, and keep it."""
    job.require(job.client.digest(job.reference))
    if not dry_run:
        keeping.keep(job.there, job.repository, job.image.digest, anew=True)
    return Status.CACHED, "is there: both environments have one registry", job.details


def _copied(job: _Job, dry_run: bool) -> _Told:
    """Copy an image from the one registry to the other."""
    if dry_run:
        there = job.client.digest(job.reference) == job.image.digest
        return (
            (Status.CACHED, "is there", job.details)
            if there
            else (Status.SKIPPED, f"dry run: would copy {job.image.reference}", job.details)
        )
    job.here.console.start(job.name, job.stage, f"to {job.repository}")
    tally = _Tally(context=job.here, stage=job.stage, name=job.name)
    # The tag keeps it there: a manifest without one is what a registry's clean-up takes first.
    job.require(copied(job.client, job.image.reference, job.repository, tag=keep_tag, on_progress=tally))
    status = Status.DONE if tally.blobs[How.SENT] or tally.blobs[How.MOUNTED] else Status.CACHED
    counts = {str(how): count for how, count in tally.blobs.items()}
    return status, tally.told, {**job.details, **counts, "bytes": tally.sent}
