"""The life of one task, each in a thread of its own: start, watch, take out of traffic, let it finish, stop, remember its last words."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from trainshed.files import write_bytes
from trainshed.local.prediction import rollout
from trainshed.local.prediction.containers import CannotStartError, State
from trainshed.local.prediction.faults import Faults
from trainshed.local.prediction.health import Check, check_of
from trainshed.local.prediction.protocol import RefusedError
from trainshed.local.prediction.proxy import Targets
from trainshed.local.prediction.records import Service, Store, Task
from trainshed.local.prediction.vault import Vault

_EAGER, _CALM = 0.1, 1.0
_DRAIN_SECONDS = 30.0
_STOP_SECONDS = 5
_ENDING_SECONDS = 1


_ROLE_HINT = (
    "Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions "
    "to pass this role."
)


class Engine(Protocol):
    """What a task's life needs of the engine: `containers.Containers`."""

    def start(self, task: Task, definition: Mapping[str, Any], created: Callable[[str, str], None]) -> int:
        """Start a task's container; return its port on loopback."""

    def state(self, identity: str) -> State:
        """Look at a container."""

    def port(self, identity: str) -> int:
        """Return its port on loopback."""

    def execute(self, identity: str, command: list[str]) -> bool:
        """Run a command inside."""

    def tail(self, identity: str, lines: int = 200) -> bytes:
        """Return its last lines."""

    def stop(self, identity: str, grace: int) -> None:
        """Stop it."""

    def remove(self, identity: str) -> None:
        """Remove it."""

    def ours(self) -> dict[str, str]:
        """Return all containers of this service: id → task."""


class Runner:
    """Lives the tasks' lives. ``targets`` gives a service's front by cluster and name; ``logs`` keeps what stopped tasks wrote."""

    def __init__(  # noqa: PLR0913 - what a task's life touches
        self,
        store: Store,
        engine: Engine,
        targets: Callable[[str, str], Targets | None],
        logs: Path,
        *,
        faults: Faults,
        vault: Vault,
    ) -> None:
        self._store, self._engine, self._targets, self._logs = store, engine, targets, logs
        self._faults, self._vault = faults, vault
        self._threads: dict[str, threading.Thread] = {}
        self._ending = threading.Event()

    def launch(self, task: Task) -> None:
        """Begin, or after a restart take up again, a task's life."""
        thread = threading.Thread(target=self._live, args=(task,), name=f"task {task.id}", daemon=True)
        self._threads = {key: known for key, known in self._threads.items() if known.is_alive()}
        self._threads[task.id] = thread
        thread.start()

    def end(self, timeout: float) -> bool:
        """Stop all tasks quickly, as this process is about to end; tell whether all of them did."""
        self._ending.set()
        with self._store.changing():
            for task in self._store.tasks.values():
                task.ask_stop("The embedded Prediction Service was shut down")
        ends = time.monotonic() + timeout
        for thread in list(self._threads.values()):
            thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads.values())

    def log(self, task: Task) -> bytes:
        """Return the last lines that a task wrote."""
        file = self._logs / f"{task.id}.log"
        if file.exists():
            return file.read_bytes()
        return self._engine.tail(task.container_id) if task.container_id else b""

    def _live(self, task: Task) -> None:
        with self._store.reading():
            definition = self._store.definitions[task.revision]
        try:
            if task.container_id:
                self._adopt(task)
            else:
                self._start(task, definition)
            self._watch(task, self._check(task, definition))
        except CannotStartError as error:
            self._fail(task, "TaskFailedToStart", str(error))
        except Exception as error:  # noqa: BLE001 - whatever happens, a task ends as stopped and the next one is started
            self._fail(task, "TaskFailedToStart", f"InternalError: {type(error).__name__}: {error}")
        finally:
            self._end(task, definition)

    def _start(self, task: Task, definition: Mapping[str, Any]) -> None:
        with self._store.changing():
            task.status = "PENDING"
        self._assume(task, str(definition.get("executionRoleArn", "")))
        whole = self._with_secrets(definition)

        def created(identity: str, digest: str) -> None:
            with self._store.changing():
                task.container_id, task.digest = identity, digest
                service = self._store.find_service(task.cluster, task.service)
                known = service.revision(task.deployment.rpartition("/")[2]) if service is not None else None
                if known is not None:
                    known.digests.setdefault(task.container, digest)

        port = self._engine.start(task, whole, created)
        with self._store.changing():
            task.port, task.status, task.started = port, "RUNNING", time.time()

    def _assume(self, task: Task, role: str) -> None:
        """Take the execution role as given, unless a fault says that it may not be assumed."""
        if not role or not (self._faults.task("role", role) or self._faults.task("role", role.rpartition("/")[2])):
            return
        reason = f"ECS was unable to assume the role '{role}' that was provided for this task. {_ROLE_HINT}"
        with self._store.changing():
            service = self._store.find_service(task.cluster, task.service)
            if service is not None:
                service.tell(f"failed to launch a task with (error {reason}).")
        raise CannotStartError(reason)

    def _with_secrets(self, definition: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the definition with its secrets' values among its variables: for the container only, never for the records."""
        container = definition["containerDefinitions"][0]
        if not container.get("secrets"):
            return definition
        try:
            values = [{"name": one["name"], "value": self._vault.value(one["valueFrom"])} for one in container["secrets"]]
        except RefusedError as error:
            raise CannotStartError(f"{error.kind}: {error.message}") from error
        return {**definition, "containerDefinitions": [{**container, "environment": [*container.get("environment", []), *values]}]}

    def _check(self, task: Task, definition: Mapping[str, Any]) -> Check:
        """Return how a task's health is judged; behind a load balancer it has the service's grace period."""
        check = check_of(definition)
        with self._store.reading():
            service = self._store.find_service(task.cluster, task.service)
            grace = float(service.given.get("healthCheckGracePeriodSeconds") or 0) if service is not None else 0.0
        return replace(check, start=max(check.start, grace))

    def _adopt(self, task: Task) -> None:
        """Take up a task that a killed process left behind."""
        state = self._engine.state(task.container_id)
        with self._store.changing():
            task.health = "UNKNOWN"
            if not state.running:
                task.ask_stop("The container was gone when the embedded Prediction Service came back")
            else:
                task.port = self._engine.port(task.container_id)
                task.status, task.started = "RUNNING", task.started or time.time()

    def _watch(self, task: Task, check: Check) -> None:
        failures, due, begun = 0, 0.0, time.monotonic()
        while task.desired == "RUNNING":
            state = self._engine.state(task.container_id)
            if not state.running:
                self._exited(task, state)
                return
            now = time.monotonic()
            if now >= due:
                if check.good(self._engine, task.container_id, task.port):
                    failures = 0
                    self._healthy(task)
                elif task.health == "HEALTHY" or now - begun > check.start:
                    failures += 1
                if failures >= check.retries:
                    self._sick(task, check)
                    return
                due = now + (_EAGER if task.health == "UNKNOWN" and not failures else check.interval)
            pause = _CALM if task.health == "HEALTHY" else _EAGER
            self._store.wait(lambda: task.desired != "RUNNING", pause)

    def _sick(self, task: Task, check: Check) -> None:
        """Stop a task that is not healthy, in the words of who found it out: the load balancer, or the container's own check."""
        with self._store.changing():
            service = self._store.find_service(task.cluster, task.service)
            groups = target_groups(service) if service is not None and check.path else []
            if groups:
                said = f"(task {task.id}) (port {task.port}) is unhealthy in (target-group {groups[0]})"
                said += f" due to (reason Health checks failed at {check.path})."
            else:
                said = f"(task {task.id}) failed container health checks."
            if service is not None:
                service.tell(said)
        reason = f"Task failed ELB health checks in (target-group {groups[0]})" if groups else "Task failed container health checks"
        self._fail(task, "ServiceSchedulerInitiated", reason, health="UNHEALTHY")

    def _healthy(self, task: Task) -> None:
        with self._store.changing():
            if task.health == "HEALTHY" or not task.wanted:
                return
            task.health = "HEALTHY"
            targets = self._targets(task.cluster, task.service)
            if targets is not None and task.port:
                targets.add(task.id, task.port)
            service = self._store.find_service(task.cluster, task.service)
            if service is not None:
                for group in target_groups(service):
                    service.tell(f"registered 1 targets in (target-group {group})")

    def _exited(self, task: Task, state: State) -> None:
        with self._store.changing():
            task.exit_code, task.container_reason = state.exit_code, state.reason
        self._fail(task, "EssentialContainerExited", "Essential container in task exited")

    def _fail(self, task: Task, code: str, reason: str, health: str = "") -> None:
        with self._store.changing():
            if not task.wanted:
                return
            task.ask_stop(reason, code)
            task.health = health or task.health
            service = self._store.find_service(task.cluster, task.service)
            if service is not None:
                rollout.failed(service, task, time.time())

    def _end(self, task: Task, definition: Mapping[str, Any]) -> None:
        targets = self._targets(task.cluster, task.service)
        with self._store.changing():
            task.status = "DEACTIVATING"
        if targets is not None:
            targets.remove(task.id)
            targets.drained(task.id, _ENDING_SECONDS if self._ending.is_set() else _DRAIN_SECONDS)
        if task.container_id:
            grace = int(definition["containerDefinitions"][0].get("stopTimeout", _STOP_SECONDS))
            self._engine.stop(task.container_id, _ENDING_SECONDS if self._ending.is_set() else grace)
            state = self._engine.state(task.container_id)
            with contextlib.suppress(OSError):  # a full disk costs the log, not the end of the task
                write_bytes(self._logs / f"{task.id}.log", self._engine.tail(task.container_id))
            self._engine.remove(task.container_id)
            task.exit_code = task.exit_code if task.exit_code is not None else state.exit_code
        with self._store.changing():
            task.status, task.stopped = "STOPPED", time.time()
            task.health = "UNHEALTHY" if task.health == "UNHEALTHY" else "UNKNOWN"


def target_groups(service: Service) -> list[str]:
    """Return the ARNs of the target groups that a service's tasks are registered in."""
    return [str(balancer["targetGroupArn"]) for balancer in service.given.get("loadBalancers", []) if balancer.get("targetGroupArn")]
