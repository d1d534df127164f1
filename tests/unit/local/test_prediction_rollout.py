from __future__ import annotations

from typing import Any

import pytest

from trainshed.local.prediction import rollout
from trainshed.local.prediction.records import Service, Task, identity

BREAKER = {"enable": True, "rollback": True}


class Bench:
    """A service, its tasks, and a clock."""

    def __init__(self, desired: int = 2, *, breaker: dict[str, Any] | None = None, **settings: Any) -> None:
        self.service = Service(name="answer", cluster="blue", desired=desired, port=0, **settings)
        self.service.configuration |= {"deploymentCircuitBreaker": breaker} if breaker else {}
        self.tasks: list[Task] = []
        self.now = 1000.0
        self.service.deploy("one")

    def step(self) -> rollout.Steps:
        """Decide, and do as a runner would at once: started tasks run, asked ones stop."""
        steps = rollout.decide(self.service, self.tasks, self.now)
        for task, reason in steps.stop:
            task.ask_stop(reason)
        primary = self.service.primary
        for _ in range(steps.start):
            fresh = Task(
                id=identity(), cluster="blue", service="answer", deployment=primary.id, revision=primary.revision, image="i", container="c"
            )
            self.tasks.append(fresh)
        return steps

    def heal(self) -> None:
        """Every task that runs becomes healthy."""
        for task in self.tasks:
            if task.wanted:
                task.status, task.health = "RUNNING", "HEALTHY"

    def clear(self) -> None:
        """Every task that was asked to stop is gone."""
        for task in self.tasks:
            if task.desired == "STOPPED":
                task.status = "STOPPED"

    def crash(self) -> None:
        """Every task that is not healthy dies on its own."""
        for task in self.tasks:
            if task.wanted and not task.serves:
                task.ask_stop("Essential container in task exited", "EssentialContainerExited")
                rollout.failed(self.service, task, self.now)
                task.status = "STOPPED"
        self.now += 100.0

    def settle(self) -> None:
        """Roll out to the end."""
        for _ in range(4):
            self.step()
            self.heal()
            self.clear()
        self.step()
        assert self.service.primary.rollout == "COMPLETED"

    def serving(self) -> list[str]:
        """Return the revisions of the tasks that serve."""
        return [task.revision for task in self.tasks if task.serves]


def test_a_service_starts_its_count_and_completes_when_all_are_healthy() -> None:
    bench = Bench()
    assert bench.step().start == 2
    assert bench.step().start == 0
    assert bench.service.primary.rollout == "IN_PROGRESS"
    bench.heal()
    bench.step()
    assert bench.service.primary.rollout == "COMPLETED"
    assert "steady state" in bench.service.events[0].message


def test_an_old_task_is_stopped_only_for_a_new_one_that_is_healthy() -> None:
    bench = Bench()
    bench.settle()
    bench.service.deploy("two")
    steps = bench.step()
    assert (steps.start, list(steps.stop)) == (2, [])
    bench.tasks[-1].health = "HEALTHY"
    assert [task.revision for task, _ in bench.step().stop] == ["one"]
    assert sorted(bench.serving()) == ["one", "two"]
    bench.settle()
    assert bench.serving() == ["two", "two"]
    assert [deployment.revision for deployment in bench.service.deployments] == ["two"]


def test_a_deployment_goes_on_until_the_old_tasks_are_gone() -> None:
    bench = Bench(desired=1)
    bench.settle()
    bench.service.deploy("two")
    bench.step()
    bench.heal()
    bench.step()
    assert bench.service.primary.rollout == "IN_PROGRESS"
    bench.clear()
    bench.step()
    assert bench.service.primary.rollout == "COMPLETED"


def test_the_breaker_trips_and_goes_back_without_touching_the_old_tasks() -> None:
    bench = Bench(breaker=BREAKER)
    bench.settle()
    first = bench.service.primary.id
    broken = bench.service.deploy("two")
    for _ in range(3):
        bench.step()
        bench.crash()
    bench.step()
    bench.clear()
    bench.step()
    assert (broken.status, broken.rollout, broken.reason) == ("ACTIVE", "FAILED", rollout.BROKEN)
    assert (bench.service.primary.id, bench.service.primary.rollout) == (first, "COMPLETED")
    assert bench.serving() == ["one", "one"]
    assert bench.service.deployment(broken.id) is broken  # still shown, so that who follows it sees why


def test_healthy_tasks_of_a_failed_deployment_are_stopped_too() -> None:
    bench = Bench(desired=4, breaker=BREAKER)
    bench.settle()
    bench.service.deploy("two")
    bench.step()
    bench.tasks[-1].health = "HEALTHY"
    for _ in range(2):
        bench.crash()
        bench.step()
    bench.settle()
    assert set(bench.serving()) == {"one"}


def test_without_anything_to_go_back_to_a_failed_deployment_stays_and_starts_nothing() -> None:
    bench = Bench(breaker=BREAKER)
    for _ in range(2):
        bench.step()
        bench.crash()
    assert bench.step().start == 0
    assert bench.service.primary.rollout == "FAILED"
    assert bench.step().start == 0


def test_a_breaker_that_is_off_never_trips() -> None:
    bench = Bench(desired=1)
    for _ in range(6):
        bench.step()
        bench.crash()
    assert bench.service.primary.rollout == "IN_PROGRESS"
    assert bench.service.primary.failed == 6


def test_a_task_that_dies_later_is_replaced_after_a_pause_and_trips_nothing() -> None:
    bench = Bench(desired=1, breaker=BREAKER)
    bench.settle()
    for _ in range(5):
        for task in bench.tasks:
            task.health = "UNHEALTHY"
        bench.crash()
        bench.now -= 100.0
        assert bench.step().start == 0
        bench.now += 100.0
        assert bench.step().start == 1
    assert bench.service.primary.rollout == "COMPLETED"


def test_scaling_in_stops_what_does_not_serve_first() -> None:
    bench = Bench(desired=3)
    bench.settle()
    bench.tasks[0].health = "UNKNOWN"
    bench.service.desired = 2
    assert [task for task, _ in bench.step().stop] == [bench.tasks[0]]


def test_a_deleted_service_stops_all_and_is_then_inactive() -> None:
    bench = Bench()
    bench.settle()
    bench.service.status = "DRAINING"
    assert len(bench.step().stop) == 2
    bench.clear()
    bench.step()
    assert bench.service.status == "INACTIVE"


@pytest.mark.parametrize(("desired", "failures"), [(1, 3), (6, 3), (20, 10), (1000, 200)])
def test_the_breaker_allows_half_of_the_count(desired: int, failures: int) -> None:
    assert rollout.threshold(desired) == failures


@pytest.mark.parametrize(
    ("wanted", "failures"),
    [
        ({"type": "COUNT", "value": 1}, 1),
        ({"type": "UNBOUNDED_PERCENT", "value": 10}, 2),
        ({"type": "BOUNDED_PERCENT", "value": 10}, 3),
        ({"type": "BOUNDED_PERCENT", "value": 100}, 20),
    ],
)
def test_a_threshold_of_its_own_is_heeded(wanted: dict[str, Any], failures: int) -> None:
    assert rollout.threshold(20, {"deploymentCircuitBreaker": {"thresholdConfiguration": wanted}}) == failures


def test_one_healthy_task_takes_the_failures_back_unless_they_are_to_stay() -> None:
    for reset, trips in ((True, False), (False, True)):
        bench = Bench(desired=4, breaker={"enable": True, "resetOnHealthyTask": reset})
        bench.step()
        bench.tasks[0].health = "HEALTHY"
        bench.step()
        bench.crash()
        bench.step()
        assert (bench.service.primary.rollout == "FAILED") is trips


def test_where_there_is_no_room_old_tasks_make_it_down_to_the_minimum() -> None:
    bench = Bench(desired=4, configuration={"minimumHealthyPercent": 50, "maximumPercent": 100})
    bench.settle()
    bench.service.deploy("two")
    steps = bench.step()
    assert (steps.start, len(steps.stop)) == (0, 2)
    bench.clear()
    assert bench.step().start == 2
    assert bench.serving() == ["one", "one"]
    bench.settle()
    assert bench.serving() == ["two"] * 4


def test_there_are_never_more_tasks_than_the_maximum() -> None:
    bench = Bench(desired=4, configuration={"maximumPercent": 125})
    bench.settle()
    bench.service.deploy("two")
    for _ in range(12):
        bench.step()
        assert sum(task.wanted for task in bench.tasks) <= 5
        bench.heal()
        bench.clear()
    assert bench.serving() == ["two"] * 4


def test_an_alarm_fails_only_a_deployment_that_goes_on_and_heeds_it() -> None:
    alarms = {"alarms": {"alarmNames": ["errors"], "enable": True, "rollback": True}}
    bench = Bench(desired=1, configuration=alarms)
    bench.settle()
    first = bench.service.primary.id
    rollout.decide(bench.service, bench.tasks, bench.now, {"errors"})
    assert bench.service.primary.rollout == "COMPLETED"
    broken = bench.service.deploy("two")
    rollout.decide(bench.service, bench.tasks, bench.now, {"others"})
    assert broken.rollout == "IN_PROGRESS"
    rollout.decide(bench.service, bench.tasks, bench.now, {"errors"})
    assert (broken.rollout, broken.reason, bench.service.primary.id) == ("FAILED", rollout.ALARMED, first)
    assert any("deployment failed: alarm detected." in event.message for event in bench.service.events)


def test_a_service_that_cannot_start_its_tasks_says_so() -> None:
    bench = Bench(desired=1)
    for _ in range(5):
        bench.step()
        bench.crash()
    assert "is unable to consistently start tasks successfully" in bench.service.events[0].message


def test_what_is_rolled_back_to_was_completed_once() -> None:
    bench = Bench(desired=1, breaker=BREAKER)
    bench.settle()
    good = bench.service.primary.id
    bench.service.deploy("two")  # superseded before it was done
    bench.step()
    bench.service.deploy("three")
    for _ in range(4):  # the first makes room only
        bench.step()
        bench.crash()
    bench.step()
    assert bench.service.primary.id == good


def test_any_number_of_failed_deployments_in_a_row_leaves_the_one_that_serves() -> None:
    bench = Bench(desired=1, breaker=BREAKER)
    bench.settle()
    good = bench.service.primary
    for number in range(5):
        bench.service.deploy(f"bad {number}")
        for _ in range(4):
            bench.step()
            bench.crash()
        bench.settle()
        assert bench.service.primary is good
    assert [one.revision for one in bench.service.deployments] == ["bad 4", "bad 3", "one"]
    assert bench.serving() == ["one"]
