"""What the scheduler of services decides: pure, from the records to what is started and stopped next.

As ECS with 100 % minimum and 200 % maximum: new tasks start beside the old ones; an old one is stopped only when a new one is healthy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainshed.local.prediction.records import Deployment, Service, Task

_LEAST_FAILURES = 3
_LONGEST_PAUSE = 30.0
DEPLOYED = "ECS deployment {} completed."
BROKEN = "ECS deployment circuit breaker: tasks failed to start."


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many tasks of the primary deployment to start, and which tasks to stop with which reason."""

    start: int = 0
    stop: Sequence[tuple[Task, str]] = ()


def threshold(desired: int) -> int:
    """Return how many failed tasks trip the circuit breaker: half of the count, 3 at least, 200 at most."""
    return max(_LEAST_FAILURES, min(200, math.ceil(desired / 2)))


def decide(service: Service, tasks: Sequence[Task], now: float) -> Steps:
    """Move a service one step towards its primary deployment; deployments and events change in place.

    Args:
        service: with a primary deployment.
        tasks: all of its tasks, stopped ones too.
        now: seconds since the epoch.
    """
    alive = [task for task in tasks if not task.gone]
    if service.status == "DRAINING":
        if not alive:
            service.status = "INACTIVE"
        return Steps(stop=[(task, "Service deleted") for task in alive if task.wanted])
    _break(service)
    primary = service.primary
    wanted = [task for task in alive if task.wanted]
    new = [task for task in wanted if task.deployment == primary.id]
    healthy = [task for task in new if task.serves]
    _complete(service, primary, healthy, alive)
    stop = _superseded(service, primary, wanted, len(healthy)) + _surplus(service, primary, new)
    missing = service.desired - len(new)
    may_start = primary.rollout != "FAILED" and now >= service.not_before
    return Steps(start=max(0, missing) if may_start else 0, stop=stop)


def failed(service: Service, task: Task, now: float) -> None:
    """Count a task that stopped though nobody asked for it; the next one waits, longer each time."""
    deployment = service.deployment(task.deployment)
    if deployment is not None:
        deployment.failed += 1
        deployment.updated = now
    if deployment is not None and deployment.status == "PRIMARY":
        service.crashes += 1
        service.not_before = now + min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(service.crashes, 10))
    service.tell(f"(task {task.id}) stopped: {task.reason}")


def _break(service: Service) -> None:
    primary = service.primary
    if not service.breaker or primary.rollout != "IN_PROGRESS" or primary.proven or primary.failed < threshold(service.desired):
        return
    primary.rollout, primary.reason = "FAILED", BROKEN
    service.tell(f"(deployment {primary.id}) deployment failed: tasks failed to start.")
    previous = next((old for old in service.deployments if old.proven and old is not primary), None)
    if not service.rollback or previous is None:
        return
    primary.status = "ACTIVE"
    previous.status, previous.rollout = "PRIMARY", "IN_PROGRESS"
    previous.reason = f"ECS deployment circuit breaker: rolling back to deploymentId {previous.id}."
    service.crashes, service.not_before = 0, 0.0
    service.tell(f"rolling back to deployment {previous.id}.")


def _complete(service: Service, primary: Deployment, healthy: Sequence[Task], alive: Sequence[Task]) -> None:
    if len(healthy) < service.desired or primary.rollout != "IN_PROGRESS":
        return
    primary.proven = True  # from here on its tasks replace each other, and the breaker has nothing to say
    if any(task.deployment != primary.id for task in alive):
        return
    primary.rollout, primary.reason = "COMPLETED", DEPLOYED.format(primary.id)
    service.crashes, service.not_before = 0, 0.0
    service.deployments = [kept for kept in service.deployments if kept is primary or kept.rollout == "FAILED"][:_LEAST_FAILURES]
    service.tell(f"(deployment {primary.id}) deployment completed.")
    service.tell("has reached a steady state.")


def _superseded(service: Service, primary: Deployment, wanted: Sequence[Task], replaced: int) -> list[tuple[Task, str]]:
    """Stop what other deployments left: all of a failed one; of the others as many as new tasks are healthy."""
    others = [task for task in wanted if task.deployment != primary.id]
    useless = [task for task in others if not task.serves or _rollout(service, task) == "FAILED"]
    serving = [task for task in others if task not in useless]
    keep = max(0, service.desired - replaced)
    reason = "Scaling activity initiated by (deployment {})"
    return [(task, reason.format(primary.id)) for task in [*useless, *serving[: max(0, len(serving) - keep)]]]


def _surplus(service: Service, primary: Deployment, new: Sequence[Task]) -> list[tuple[Task, str]]:
    """Stop what is more than the count: those first that do not serve yet; all that do not when the deployment failed."""
    reason = f"Scaling activity initiated by (deployment {primary.id})"
    if primary.rollout == "FAILED":
        return [(task, reason) for task in new if not task.serves]
    ordered = sorted(new, key=lambda task: (task.serves, -task.created))
    return [(task, reason) for task in ordered[: max(0, len(new) - service.desired)]]


def _rollout(service: Service, task: Task) -> str:
    deployment = service.deployment(task.deployment)
    return deployment.rollout if deployment is not None else ""
