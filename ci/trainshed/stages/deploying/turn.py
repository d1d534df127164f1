"""A service's turn: the lease that keeps other deploys and rollbacks of it away, and the room in which one of them works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trainshed.errors import WorkFailed
from trainshed.ledger.leases import Lease
from trainshed.services.spec import Service
from trainshed.stages.context import Context
from trainshed.stages.deploying.watching import Watch, write_line
from trainshed.tools.ecs import Deployment, Ecs, ServiceState


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One deploy or rollback of one service, which nobody else changes meanwhile. ``ends`` is on the monotonic clock."""

    context: Context
    component: str
    service: Service
    log: Path
    lease: Lease
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
        """Look at the service; what was told before now is not told again."""
        state = self.ecs.service(self.service.name)
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

    def watch(self, deployment: Deployment, revision: str, *, ends: float | None) -> Watch:
        """Return what follows a deployment."""
        return Watch(
            ecs=self.ecs,
            console=self.context.console,
            service=self.service,
            deployment=deployment.id,
            revision=revision,
            log=self.log,
            created=deployment.created,
            ends=ends,
            seen=self.seen,
        )


def log_of(context: Context, component: str, stage: str) -> Path:
    """Return the log of a component's deploy or rollback."""
    return context.config.project.work_dir / "logs" / f"{component}.{stage}.log"


@contextmanager
def taken(context: Context, component: str, service: Service, *, stage: str, ends: float | None) -> Iterator[Turn]:
    """Wait for a service's turn, and hold it during the block; who holds it is told at once.

    Raises:
        WorkFailed: the deadline passed before.
    """
    log = log_of(context, component, stage)
    key = f"deploy:{context.config.environment.name}:{context.prediction.cluster}:{service.name}"
    deadline = None if ends is None else max(0.0, ends - time.monotonic())
    tell = context.console.line
    alone = context.ledger.lease(key, deadline=deadline, on_wait=lambda holder: tell(f"{component}: waiting for its deploy by {holder}"))
    with alone as lease:
        if lease.taken_over:
            tell(f"{component}: the deploy by {lease.taken_over} has ended without a word, or is heard of no more; taking over")
        yield Turn(context=context, component=component, service=service, log=log, lease=lease, ends=ends)
