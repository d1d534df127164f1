"""What the scheduler of services decides: pure, from the records to what is started and stopped next.

As ECS: with 100 % minimum and 200 % maximum new tasks start beside the old ones, and an old one is stopped only when a new one is
healthy. The circuit breaker counts tasks that stopped before one of their deployment was healthy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainshed.local.prediction.records import Deployment, Service, Task

_LEAST_FAILURES, _MOST_FAILURES, _HALF = 3, 200, 50
_INCONSISTENT = 5
_FAILED_KEPT = 2
_GUIDE = "the Amazon ECS Developer Guide"
_LONGEST_PAUSE = 30.0
DEPLOYED = "ECS deployment {} completed."
BROKEN = "ECS deployment circuit breaker: tasks failed to start."
ALARMED = "ECS deployment alarm: alarm detected."


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many tasks of the primary deployment to start, and which tasks to stop with which reason."""

    start: int = 0
    stop: Sequence[tuple[Task, str]] = ()


def threshold(desired: int, configuration: Mapping[str, Any] | None = None) -> int:
    """Return how many failed tasks trip the circuit breaker: half of the count, 3 at least, 200 at most, unless configured otherwise."""
    wanted = ((configuration or {}).get("deploymentCircuitBreaker") or {}).get("thresholdConfiguration") or {}
    kind, value = wanted.get("type", "BOUNDED_PERCENT"), int(wanted.get("value", _HALF))
    if kind == "COUNT":
        return value
    share = math.ceil(desired * value / 100)
    return share if kind == "UNBOUNDED_PERCENT" else max(_LEAST_FAILURES, min(_MOST_FAILURES, share))


def decide(service: Service, tasks: Sequence[Task], now: float, alarms: Collection[str] = ()) -> Steps:
    """Move a service one step towards its primary deployment; deployments and events change in place.

    Args:
        service: with a primary deployment.
        tasks: all of its tasks, stopped ones too.
        now: seconds since the epoch.
        alarms: those that are in ALARM.
    """
    alive = [task for task in tasks if not task.gone]
    if service.status == "DRAINING":
        if not alive:
            service.status = "INACTIVE"
        return Steps(stop=[(task, "Task stopped because the service was deleted") for task in alive if task.wanted])
    _heed(service, alarms)
    _break(service)
    primary = service.primary
    wanted = [task for task in alive if task.wanted]
    new = [task for task in wanted if task.deployment == primary.id]
    healthy = [task for task in new if task.serves]
    _prove(service, primary, healthy)
    _complete(service, primary, healthy, alive)
    missing = service.desired - len(new) if primary.rollout != "FAILED" else 0
    room = max(math.floor(service.desired * service.percent("maximumPercent") / 100), 1) - len(wanted)
    stop = _superseded(service, primary, wanted, len(healthy), cramped=missing > room) + _surplus(service, primary, new)
    return Steps(start=max(0, min(missing, room)) if now >= service.not_before else 0, stop=stop)


def failed(service: Service, task: Task, now: float) -> None:
    """Count a task that stopped though nobody asked for it; the next one waits, longer each time."""
    deployment = service.deployment(task.deployment)
    if deployment is not None:
        deployment.updated = now
        deployment.failed += 0 if deployment.proven else 1
        if service.rollout is not None and service.rollout.target == deployment.number:
            service.rollout.failures = deployment.failed
    if deployment is not None and deployment.status == "PRIMARY":
        service.crashes += 1
        service.not_before = now + min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(service.crashes, 10))
    service.steady = False
    if service.crashes and service.crashes % _INCONSISTENT == 0:
        service.tell(
            f"is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of {_GUIDE}."
        )


def go_back(service: Service, reason: str) -> bool:
    """Go back to the last deployment that was completed, if there is one; the present one has failed."""
    primary, rollout = service.primary, service.rollout
    previous = next((old for old in service.deployments if old is not primary and (old.completed or old.rollout == "COMPLETED")), None)
    if previous is None:
        if rollout is not None:
            rollout.turn("ROLLBACK_FAILED", f"{reason} No rollback candidate was found to run the rollback.", over=True)
        return False
    primary.status = "ACTIVE"
    previous.status, previous.rollout, previous.updated = "PRIMARY", "IN_PROGRESS", primary.updated
    previous.reason = f"{reason.removesuffix('.').partition(':')[0]}: rolling back to deploymentId {previous.id}."
    if rollout is not None:
        rollout.turn("ROLLBACK_IN_PROGRESS", reason)
        rollout.back, rollout.back_reason, rollout.back_at = previous.number, reason, rollout.updated
    service.crashes, service.not_before, service.steady = 0, 0.0, False
    service.tell(f"rolling back to deployment {previous.id}.")
    return True


def _heed(service: Service, tripped: Collection[str]) -> None:
    """Fail a deployment whose alarm goes off."""
    wanted = service.configuration.get("alarms") or {}
    found = sorted(set(wanted.get("alarmNames", ())) & set(tripped))
    if not found or not wanted.get("enable") or service.primary.rollout != "IN_PROGRESS" or _going_back(service):
        return
    if service.rollout is not None:
        service.rollout.alarms, service.rollout.tripped = found, "alarms"
    _fail(service, ALARMED, "alarm detected.", rollback=bool(wanted.get("rollback")))


def _break(service: Service) -> None:
    primary = service.primary
    least = threshold(service.desired, service.configuration)
    if (
        not service.breaker.get("enable")
        or primary.rollout != "IN_PROGRESS"
        or primary.proven
        or primary.failed < least
        or _going_back(service)
    ):
        return
    if service.rollout is not None:
        service.rollout.threshold, service.rollout.tripped = least, "breaker"
    _fail(service, BROKEN, "tasks failed to start.", rollback=bool(service.breaker.get("rollback")))


def _fail(service: Service, reason: str, said: str, *, rollback: bool) -> None:
    primary = service.primary
    primary.rollout, primary.reason = "FAILED", reason
    service.tell(f"(deployment {primary.id}) deployment failed: {said}")
    if rollback:
        go_back(service, reason)
    elif service.rollout is not None:
        service.rollout.turn("STOPPED", reason, over=True)


def _going_back(service: Service) -> bool:
    return service.rollout is not None and service.rollout.status == "ROLLBACK_IN_PROGRESS"


def _prove(service: Service, primary: Deployment, healthy: Sequence[Task]) -> None:
    """Once a task is healthy, failures are forgotten and count no more; unless the breaker is told not to, then once all are."""
    enough = 1 if service.breaker.get("resetOnHealthyTask", True) else service.desired
    if len(healthy) >= enough and not primary.proven:
        primary.proven, primary.failed = True, 0


def _complete(service: Service, primary: Deployment, healthy: Sequence[Task], alive: Sequence[Task]) -> None:
    if len(healthy) < service.desired:
        return
    if primary.rollout == "COMPLETED" and not service.steady and len(alive) == service.desired:
        service.steady = True
        service.tell("has reached a steady state.")
    if primary.rollout != "IN_PROGRESS" or any(task.deployment != primary.id for task in alive):
        return
    primary.proven = primary.completed = True  # from here on its tasks replace each other, and the breaker has nothing to say
    primary.rollout, primary.reason = "COMPLETED", DEPLOYED.format(primary.id)
    if service.rollout is not None:
        service.rollout.turn("ROLLBACK_SUCCESSFUL" if _going_back(service) else "SUCCESSFUL", over=True)
    service.crashes, service.not_before, service.steady = 0, 0.0, True
    shown = [failed for failed in service.deployments if failed.rollout == "FAILED"][:_FAILED_KEPT]
    service.deployments = [kept for kept in service.deployments if kept is primary or kept in shown]
    service.tell(f"(deployment {primary.id}) deployment completed.")
    service.tell("has reached a steady state.")


def _superseded(service: Service, primary: Deployment, wanted: Sequence[Task], replaced: int, *, cramped: bool) -> list[tuple[Task, str]]:
    """Stop what other deployments left: all of a failed one; of the others as many as new tasks are healthy.

    Where new tasks have no room (``cramped``) old ones make it, down to the minimum that has to stay healthy.
    """
    others = [task for task in wanted if task.deployment != primary.id]
    useless = [task for task in others if not task.serves or _rollout(service, task) == "FAILED"]
    serving = [task for task in others if task not in useless]
    least = math.ceil(service.desired * min(service.percent("minimumHealthyPercent"), 100) / 100) if cramped else service.desired
    keep = max(0, least - replaced)
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
