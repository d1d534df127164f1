"""A service's turn: the lease that keeps other deploys and rollbacks of it away, and the room in which one of them works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainshed.errors import Interrupted, TrainshedError, WorkFailed
from trainshed.ledger.leases import Lease
from trainshed.results import Report, Result, failed
from trainshed.services.spec import Service
from trainshed.stages.context import Context
from trainshed.stages.deploying.watching import Watch, write_line
from trainshed.tools.ecs import Deployment, Ecs, ServiceState


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One deploy or rollback of one service, which nobody else changes meanwhile.

    ``ends`` is on the monotonic clock; ``again`` says in a sentence how to go on with what is left to ECS.
    """

    context: Context
    component: str
    service: Service
    log: Path
    lease: Lease
    again: str
    ends: float | None = None
    seen: set[str] = field(default_factory=set)

    @property
    def ecs(self) -> Ecs:
        """Return the client of the Prediction Service."""
        return self.context.prediction

    def note(self, text: str) -> None:
        """Show a line, and keep it in the log."""
        self.context.console.line(f"  {self.service.name}: {text}")
        write_line(self.log, text)

    def look(self) -> ServiceState | None:
        """Look at the service, however long ECS gives no answer; what was told before now is not told again."""
        state = self.ecs.patiently(lambda: self.ecs.service(self.service.name))
        self.seen.update(event.id for event in (state.events if state is not None else ()))
        return state

    def require_alone(self) -> None:
        """Make sure, before a change, that nobody took over while this machine slept.

        Raises:
            WorkFailed: somebody did.
        """
        if self.lease.lost:
            message = f"{self.service.name}: another deploy of it took over meanwhile, so this one changes nothing more"
            raise WorkFailed(message, next_step=f"See `trainshed status {self.component}`, then run it again.")

    def require_time(self) -> None:
        """Make sure, before the first change, that there is time left for it.

        Raises:
            WorkFailed: the deadline passed.
        """
        if self.ends is not None and time.monotonic() >= self.ends:
            message = f"{self.service.name}: the deadline passed before anything was begun; nothing was changed"
            raise WorkFailed(message, next_step="Give more time with --deadline.")

    def watch(self, deployment: Deployment, revision: str, *, ends: float | None) -> Watch:
        """Return what follows a deployment."""
        return Watch(
            ecs=self.ecs,
            console=self.context.console,
            service=self.service,
            deployment=deployment.id,
            revision=revision,
            log=self.log,
            again=self.again,
            created=deployment.created,
            ends=ends,
            seen=self.seen,
        )


def each(context: Context, names: Sequence[str], stage: str, do: Callable[[str], Result]) -> Report:
    """Do the work of a stage for one service after the other; an error of one is its result, and the others are done all the same."""
    results = []
    for name in names:
        started = time.monotonic()
        try:
            result = do(name)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(name, stage, error)
        results.append(replace(result, seconds=time.monotonic() - started))
        context.console.end(results[-1])
        if result.good and result.details.get("url"):
            context.console.line(f"  {result.details['service']}: address {result.details['url']}")
    return Report(stage=stage, results=tuple(results))


def log_of(context: Context, component: str, stage: str) -> Path:
    """Return the log of a component's deploy or rollback."""
    return context.config.project.work_dir / "logs" / f"{component}.{stage}.log"


def in_turn(  # noqa: PLR0913 - whose turn it is, and for what
    context: Context, component: str, service: Service, *, stage: str, ends: float | None, work: Callable[[Turn], Result]
) -> Result:
    """Do one service's work when its turn has come; the result tells of its log, also when it failed."""
    with taken(context, component, service, stage=stage, ends=ends) as own:
        try:
            result = work(own)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(component, stage, error)
        return replace(result, log=context.config.project.shown(own.log) if own.log.exists() else None)


@contextmanager
def taken(context: Context, component: str, service: Service, *, stage: str, ends: float | None) -> Iterator[Turn]:
    """Wait for a service's turn, and hold it during the block; who holds it is told at once.

    Raises:
        WorkFailed: the deadline passed before.
    """
    key = f"deploy:{context.config.environment.name}:{context.prediction.cluster}:{service.name}"
    deadline = None if ends is None else max(0.0, ends - time.monotonic())
    tell = context.console.line
    alone = context.ledger.lease(key, deadline=deadline, on_wait=lambda holder: tell(f"{component}: waiting for its deploy by {holder}"))
    with alone as lease:
        if lease.taken_over:
            tell(f"{component}: the deploy by {lease.taken_over} has ended without a word, or is heard of no more; taking over")
        log = log_of(context, component, stage)
        log.unlink(missing_ok=True)  # not earlier: until now it was another one's
        again = f"`trainshed {stage} {component}` takes it up."
        yield Turn(context=context, component=component, service=service, log=log, lease=lease, again=again, ends=ends)
