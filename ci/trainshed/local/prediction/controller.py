"""The scheduler of services: works towards what the records ask for, and takes up again what a killed process left."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from trainshed.local.prediction import rollout
from trainshed.local.prediction.faults import Faults
from trainshed.local.prediction.proxy import Front, Targets
from trainshed.local.prediction.records import Service, Store, Task, identity
from trainshed.local.prediction.runner import Engine, Runner, target_groups
from trainshed.local.prediction.vault import Vault

_TICK_SECONDS = 0.5
_SWEEP_SECONDS = 15.0
_PLACEMENT_SECONDS = 1.0
_ENDING_SECONDS = 8.0


class Controller:
    """Keeps services, tasks, fronts and the engine together."""

    def __init__(self, store: Store, engine: Engine, logs: Path, *, faults: Faults | None = None, vault: Vault | None = None) -> None:
        self.store, self.faults = store, faults or Faults()
        self.vault = vault or Vault(logs.with_name("secrets.json"))
        self.runner = Runner(store, engine, self.targets, logs, faults=self.faults, vault=self.vault)
        self._engine, self._logs = engine, logs
        self._fronts: dict[str, Front] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="controller", daemon=True)

    def start(self) -> None:
        """Open the fronts, take up the tasks that still run, and work from now on."""
        with self.store.changing():
            for service in self.store.services.values():
                if service.status != "INACTIVE":
                    self.open(service)
            left = [task for task in self.store.tasks.values() if not task.gone]
        self._sweep(left)
        for task in left:
            self.runner.launch(task)
        self._thread.start()

    def end(self) -> bool:
        """Stop all containers; the records keep what is asked for. Tell whether all of them stopped."""
        self._ending.set()
        self.store.wake()
        self._thread.join(_ENDING_SECONDS)
        clean = self.runner.end(_ENDING_SECONDS)
        for front in self._fronts.values():
            front.end()
        return clean

    def open(self, service: Service) -> None:
        """Listen for a service: on the port that it had before, else on a free one."""
        key = f"{service.cluster}/{service.name}"
        if key in self._fronts:
            service.port = self._fronts[key].port
            return
        try:
            front = Front(service.port, Targets())
        except OSError:  # somebody else took the port while this service was down
            front = Front(0, Targets())
        service.port = front.port
        self._fronts[key] = front
        front.start()

    def _close(self, service: Service) -> None:
        """Listen no longer: with the records held, so that a service of the same name can have the port next."""
        front = self._fronts.pop(f"{service.cluster}/{service.name}", None)
        if front is not None:
            front.end()

    def targets(self, cluster: str, name: str) -> Targets | None:
        """Return the tasks that a service's front forwards to."""
        front = self._fronts.get(f"{cluster}/{name}")
        return front.targets if front is not None else None

    def serving(self, service: Service) -> int:
        """Return how many tasks answer for a service."""
        targets = self.targets(service.cluster, service.name)
        return targets.count() if targets is not None else 0

    def _work(self) -> None:
        swept = time.monotonic()
        while not self._ending.is_set():
            seen = self.store.version
            try:
                self.step()
                if time.monotonic() - swept > _SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep()
            except Exception:  # noqa: BLE001 - whatever it meets, the services of this machine are looked after on
                traceback.print_exc()
            self._rest(seen)

    def _rest(self, seen: int) -> None:
        """Wait until a record changed after version ``seen``, or a pause after a crash may be over."""
        self.store.wait(lambda: self.store.version != seen or self._ending.is_set(), _TICK_SECONDS)

    def step(self) -> None:
        """Look at every service once, and start and stop what is to be started and stopped."""
        begun: list[Task] = []
        alarms = self.faults.named("alarm")
        with self.store.changing():
            for service in self.store.services.values():
                if service.status != "INACTIVE":
                    begun += self._moved(service, alarms)
                else:
                    self._close(service)
        for task in begun:
            self.runner.launch(task)

    def _moved(self, service: Service, alarms: frozenset[str]) -> list[Task]:
        """Do what a service needs next; return the tasks to be started."""
        steps = rollout.decide(service, self.store.tasks_of(service), time.time(), alarms)
        stopped = [task for task, _ in steps.stop if task.wanted]
        for task, reason in steps.stop:
            task.ask_stop(reason)
        if stopped:
            groups = target_groups(service)
            for group in groups:
                service.tell(f"deregistered {len(stopped)} targets in (target-group {group})")
            if groups:
                service.tell(f"has begun draining connections on {len(stopped)} tasks.")
            service.tell(f"has stopped {len(stopped)} running tasks: {_named(stopped)}.")
        if steps.start and self.faults.task("capacity"):
            reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone."
            service.tell(f"was unable to place a task. Reason: {reason} For more information, see the Troubleshooting section.")
            service.not_before = time.time() + _PLACEMENT_SECONDS
            return []
        begun = [self._new_task(service) for _ in range(steps.start)]
        if begun:
            service.tell(f"has started {len(begun)} tasks: {_named(begun)}.")
        return begun

    def _new_task(self, service: Service) -> Task:
        primary = service.primary
        container = self.store.definitions[primary.revision]["containerDefinitions"][0]
        task = Task(
            id=identity(),
            cluster=service.cluster,
            service=service.name,
            deployment=primary.id,
            revision=primary.revision,
            image=container["image"],
            container=container["name"],
        )
        self.store.tasks[task.id] = task
        return task

    def _sweep(self, left: Sequence[Task] = ()) -> None:
        """Remove containers that no living task knows (a process was killed while it made them), and logs of forgotten tasks.

        ``left`` are tasks that no thread lives yet: of these, a container that is not noted was made just before the kill.
        """
        for container, task in self._engine.ours().items():
            with self.store.reading():
                known = self.store.tasks.get(task)
                living = known is not None and not known.gone and (known.container_id == container or known not in left)
            if not living:
                self._engine.remove(container)
        for file in self._logs.glob("*.log"):
            with self.store.reading():
                known = self.store.tasks.get(file.stem)
            if known is None:
                file.unlink(missing_ok=True)


def _named(tasks: Sequence[Task]) -> str:
    return " ".join(f"(task {task.id})" for task in tasks)
