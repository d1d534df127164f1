"""A run is followed to its end, whatever the server does: few requests, every task told, no success that was not seen."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainshed.console import Console
from trainshed.errors import Canceled, Interrupted, NothingSelected, RemoteError, TrainshedError, UsageError, WorkFailed
from trainshed.stages import following
from trainshed.stages.context import Context
from trainshed.stages.following import Followed, follow, outcome, terminate
from trainshed.stages.tasks_told import failed_tasks
from trainshed.tools import process
from trainshed.tools.kubeflow_records import NotFound, Run, Task
from trainshed.tools.kubeflow_requests import Fate, Unclear

RUN = Run(id="run-1", name="training 1", state="RUNNING", pipeline_id="p-1")
AWAY = Unclear("https://kf: run: HTTP 503: away", Fate.ENDED)
EXPIRED = RemoteError("https://kf: session expired", next_step="Log in anew.")


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Kubeflow:
    """Answers what the test says: the next of a script, the last of it for ever."""

    def __init__(self, clock: Clock, *answers: Run | TrainshedError) -> None:
        self.clock, self.answers = clock, list(answers)
        self.asked: list[float] = []
        self.ended: list[str] = []
        self.logs: dict[str, list[str | TrainshedError | None]] = {}
        self.outputs: Callable[[Run], Run] = lambda run: run
        self.after_end: Run | TrainshedError | None = None
        self.refusal: TrainshedError | None = None

    def run(self, _: str, *, surely: bool = False) -> Run:
        self.asked.append(self.clock.now)
        if surely:
            assert self.after_end is not None
            return cast("Run", _given(self.after_end))
        return cast("Run", _given(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]))

    def terminate(self, run_id: str) -> None:
        self.ended.append(run_id)
        if self.refusal is not None:
            raise self.refusal

    def task_log(self, _: str, node: str) -> str | None:
        said = self.logs.get(node, [None])
        return cast("str | None", _given(said.pop(0) if len(said) > 1 else said[0]))

    def with_outputs(self, run: Run) -> Run:
        return self.outputs(run)

    def link(self, run_id: str) -> str:
        return f"https://kf/#/runs/details/{run_id}"


def _given(answer: Any) -> Any:
    if isinstance(answer, TrainshedError):
        raise answer
    return answer


class Room:
    """The command's room, with a Kubeflow of ours."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.clock, self.root, self.ended = clock, root, list[Followed]()
        self.stream = io.StringIO()
        self.console = Console(self.stream, root=root, secrets=["geheim"])

    def follow(self, *answers: Run | TrainshedError, ends: float | None = None, **more: Any) -> Followed:
        self.kubeflow = Kubeflow(self.clock, *answers)
        for name, value in more.items():
            setattr(self.kubeflow, name, value)
        followed = Followed(name="training", run=RUN)
        follow(self.context, [followed], ends=None if ends is None else self.clock.now + ends, on_end=self.ended.append)
        assert self.ended == [followed]
        return followed

    @property
    def context(self) -> Context:
        project = SimpleNamespace(work_dir=self.root / "build", shown=lambda path: str(path.relative_to(self.root)))
        environment = SimpleNamespace(kubeflow=SimpleNamespace(host="https://kf"))
        config = SimpleNamespace(project=project, environment=environment)
        return cast("Context", SimpleNamespace(config=config, console=self.console, kubeflow=self.kubeflow))

    @property
    def said(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following, "time", clock)
    monkeypatch.setattr(process, "pause", clock.sleep)
    return clock


@pytest.fixture
def room(tmp_path: Path, clock: Clock) -> Room:
    return Room(tmp_path, clock)


def task(name: str, state: str, **more: Any) -> Task:
    return Task(id=f"id-{name}", name=name, state=state, node=f"pod-{name}", **more)


def run(state: str, *tasks: Task, **more: Any) -> Run:
    return replace(RUN, state=state, tasks=tasks, **more)


SECONDS_7 = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:07.5Z"}


def test_every_task_is_told_once_per_state_with_its_time_and_where_to_look(room: Room) -> None:
    done = task("load", "SUCCEEDED", **SECONDS_7)
    followed = room.follow(
        run("PENDING", task("load", "PENDING")),
        run("RUNNING", task("load", "RUNNING")),
        run("RUNNING", task("load", "RUNNING")),
        run("RUNNING", done, task("inner.train", "RUNNING")),
        run("SUCCEEDED", done, task("inner.train", "SUCCEEDED"), task("skip", "SKIPPED")),
    )
    assert (followed.run.state, followed.error, outcome(followed.run)) == ("SUCCEEDED", None, None)
    assert room.said == [
        "launch training: https://kf/#/runs/details/run-1",
        "launch training: load RUNNING",
        "launch training: load SUCCEEDED in 7.5 s",
        "launch training: inner.train RUNNING",
        "launch training: inner.train SUCCEEDED",
        "launch training: skip SKIPPED",
    ]


def test_cache_hits_are_told_as_soon_as_the_server_does_or_at_the_end(room: Room) -> None:
    def outputs(told: Run) -> Run:
        return replace(told, tasks=tuple(replace(each, cached=True) for each in told.tasks))

    ended = run("SUCCEEDED", task("load", "SUCCEEDED", cached=True), task("train", "SUCCEEDED"))
    followed = room.follow(ended, outputs=outputs)
    assert all(each.cached for each in followed.run.tasks)
    assert room.said[1:] == [
        "launch training: load SUCCEEDED (cache hit)",
        "launch training: train SUCCEEDED",
        "launch training: 1 step from the cache: train",
    ]


def test_outputs_that_cannot_be_read_are_left_for_the_caller_to_judge(room: Room) -> None:
    def away(_: Run) -> Run:
        raise AWAY

    followed = room.follow(run("SUCCEEDED"), outputs=away)
    assert (followed.error, followed.unread, followed.run.state) == (None, AWAY, "SUCCEEDED")


def test_a_pause_and_an_end_from_outside_are_told_once(room: Room) -> None:
    states = ["RUNNING", "PAUSED", "PAUSED", "RUNNING", "CANCELING", "CANCELING", "CANCELED"]
    followed = room.follow(*map(run, states))
    assert [line.partition(": ")[2].split(";")[0] for line in room.said[1:]] == [
        "the run is PAUSED in Kubeflow",
        "the run is CANCELING: somebody ends it in Kubeflow",
    ]
    assert isinstance(outcome(followed.run), Canceled)


def test_kubeflow_ends_a_canceled_workflow_as_failed_which_is_no_failure_of_the_work(room: Room) -> None:
    followed = room.follow(run("CANCELING"), run("RUNNING"), run("FAILED"))
    assert followed.run.state == "CANCELED"


def test_a_run_that_is_canceling_for_ever_ends_the_following(room: Room) -> None:
    followed = room.follow(run("CANCELING"))
    assert isinstance(followed.error, RemoteError)
    assert "CANCELING for 15 minutes" in followed.error.told
    assert "--resume run-1" in followed.error.told


def test_every_failing_task_has_its_log_whole_in_a_file_and_its_end_on_the_screen(room: Room) -> None:
    log = "".join(f"line {number}\n" for number in range(50)) + "geheim\n"
    wrong = [task("inner", "FAILED"), task("inner.train", "FAILED", error="exit code 3", **SECONDS_7), task("a/b", "FAILED")]
    logs = {"pod-inner.train": [log], "pod-a/b": ["short\n"], "pod-inner": ["never asked"]}
    followed = room.follow(run("RUNNING", *wrong), run("FAILED", *wrong), logs=logs)
    build = room.root / "build" / "logs"
    assert followed.log == build / "training.inner.train.log"
    assert followed.logs == {"inner.train": followed.log, "a/b": build / "training.a-b.log"}
    assert followed.log.read_text() == log.replace("geheim", "***")
    told = "\n".join(room.said)
    assert "launch training: inner.train FAILED in 7.5 s: exit code 3\n   the end of build/logs/training.inner.train.log:\n" in told
    assert "│ line 49\n   │ ***" in told
    assert "line 9\n" not in told
    error = outcome(followed.run)
    assert isinstance(error, WorkFailed)
    assert error.message.splitlines()[1:] == ["task inner.train failed: exit code 3", "task a/b failed"]


def test_a_log_that_is_not_there_yet_is_asked_for_again_and_a_missing_one_is_said(room: Room) -> None:
    wrong = [task("late", "FAILED"), task("never", "FAILED"), task("refused", "FAILED"), replace(task("none", "FAILED"), node="")]
    logs = {"pod-late": [None, "at last\n"], "pod-refused": [RemoteError("HTTP 403")]}
    followed = room.follow(run("RUNNING", *wrong), run("FAILED", *wrong), logs=logs)
    assert list(followed.logs) == ["late"]
    for name in ("never", "refused", "none"):
        assert any(line.startswith(f"launch training: no log of {name}: ") for line in room.said)
    assert "launch training: the log of refused could not be read: HTTP 403" in room.said


def test_a_pod_of_another_name_is_asked_of_the_metadata_store_once_while_the_run_goes_on(room: Room) -> None:
    asked: list[Run] = []

    def outputs(told: Run) -> Run:
        asked.append(told)
        return replace(told, tasks=tuple(replace(each, node=f"metadata-0-1-{each.node}") for each in told.tasks))

    wrong = [task("a", "FAILED"), task("b", "FAILED"), task("none", "FAILED")]
    logs = {f"metadata-0-1-pod-{name}": [f"{name}\n"] for name in "ab"}
    followed = room.follow(run("RUNNING", *wrong), run("RUNNING", *wrong), run("FAILED", *wrong), logs=logs, outputs=outputs)
    assert {name: log.read_text() for name, log in followed.logs.items()} == {"a": "a\n", "b": "b\n"}
    assert len(asked) == 2
    assert room.said.index("launch training: a FAILED") + 2 == room.said.index("   │ a")


def test_the_logs_of_many_failing_tasks_are_bounded(room: Room) -> None:
    wrong = [task(f"t{number}", "FAILED") for number in range(30)]
    followed = room.follow(run("FAILED", *wrong), logs={f"pod-t{number}": ["said\n"] for number in range(30)})
    assert len(followed.logs) == 10
    assert "launch training: 20 more tasks failed; the logs of the first 10 were asked for" in room.said
    assert "and 25 more tasks failed" in str(outcome(followed.run))


def test_logs_that_nobody_has_are_asked_for_as_seldom(room: Room) -> None:
    wrong = [task(f"t{number}", "FAILED") for number in range(30)]
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kubeflow, "task_log", lambda _, __, node: asked.append(node))
        room.follow(run("RUNNING", *wrong), run("FAILED", *wrong))
    assert sorted(asked) == sorted([f"pod-t{number}" for number in range(10)] * 2)


def test_a_task_that_is_tried_again_is_told_and_keeps_the_logs_of_all_attempts(room: Room) -> None:
    logs = {"pod-train": ["first\n", "second\n"]}
    states = ["RUNNING", "FAILED", "RUNNING", "FAILED"]
    answers = [run("RUNNING", task("train", state)) for state in states]
    followed = room.follow(*answers, run("FAILED", task("train", "FAILED")), logs=logs)
    assert "launch training: train is tried again (attempt 2)" in room.said
    assert followed.log == room.root / "build" / "logs" / "training.train.2.log"
    assert (room.root / "build" / "logs" / "training.train.log").read_text() == "first\n"


def test_an_attempt_that_failed_while_its_task_goes_on_keeps_its_log(room: Room) -> None:
    nodes = ["wf-driver-1", "wf-impl-2", "wf-retry-impl-3", "wf-retry-impl-4", "wf-retry-impl-4"]
    answers = [run("RUNNING", replace(task("train", "RUNNING"), node=node)) for node in nodes]
    followed = room.follow(*answers, run("SUCCEEDED"), logs={"wf-retry-impl-3": ["out of memory\n"]})
    assert [line for line in room.said if "attempt" in line] == ["launch training: train is tried again (attempt 2)"]
    assert followed.logs["train"].read_text() == "out of memory\n"


def test_tasks_of_one_name_are_told_apart(room: Room) -> None:
    both = (task("each", "RUNNING"), task("each", "SUCCEEDED"))
    room.follow(run("RUNNING", *both), run("RUNNING", *both), run("SUCCEEDED", *both))
    assert [line.partition(": ")[2] for line in room.said[1:]] == ["each RUNNING", "each #2 SUCCEEDED"]


def test_a_server_that_is_away_for_less_than_a_minute_is_borne_with(room: Room) -> None:
    followed = room.follow(run("RUNNING"), *[AWAY] * 4, run("SUCCEEDED"))
    assert (followed.error, followed.run.state) == (None, "SUCCEEDED")
    assert len([line for line in room.said if "no answer" in line]) == 1


def test_a_server_that_stays_away_leaves_the_run_running_and_says_how_to_come_back(room: Room) -> None:
    followed = room.follow(run("RUNNING"), AWAY)
    assert isinstance(followed.error, RemoteError)
    assert "trainshed launch --resume run-1" in followed.error.told
    assert room.kubeflow.ended == []
    assert 60 <= room.kubeflow.asked[-1] - room.kubeflow.asked[1] < 100


def test_a_machine_that_slept_does_not_take_the_first_failure_for_a_minute(room: Room) -> None:
    def wake() -> Run:
        room.clock.now += 3600
        return run("RUNNING")

    kubeflow = Kubeflow(room.clock, run("RUNNING"), AWAY, run("SUCCEEDED"))
    room.kubeflow, asleep = kubeflow, [True]
    plain = kubeflow.run

    def slept(run_id: str, *, surely: bool = False) -> Run:
        if asleep and len(kubeflow.asked) == 1:
            asleep.clear()
            wake()
        return plain(run_id, surely=surely)

    kubeflow.run = slept  # type: ignore[method-assign, assignment]
    followed = Followed(name="training", run=RUN)
    follow(room.context, [followed], ends=None, on_end=room.ended.append)
    assert (followed.error, followed.run.state) == (None, "SUCCEEDED")


@pytest.mark.parametrize("error", [EXPIRED, UsageError("the token file cannot be read", next_step="Mend it.")])
def test_an_expired_login_is_said_at_once(room: Room, error: TrainshedError) -> None:
    followed = room.follow(run("RUNNING"), error)
    assert isinstance(followed.error, RemoteError)
    assert error.next_step in followed.error.told
    assert "--resume run-1" in followed.error.told
    assert len(room.kubeflow.asked) == 2


def test_a_run_that_was_deleted_meanwhile_is_said_at_once(room: Room) -> None:
    followed = room.follow(run("RUNNING"), NotFound("https://kf: run-1: not found"))
    assert isinstance(followed.error, NotFound)
    assert "deleted in Kubeflow" in followed.error.message
    assert "--resume" not in followed.error.told


@pytest.mark.parametrize("answer", [replace(RUN, id="run-2"), replace(RUN, pipeline_id="p-2")])
def test_the_answer_of_another_run_or_pipeline_is_refused(room: Room, answer: Run) -> None:
    followed = room.follow(replace(answer, state="SUCCEEDED"))
    assert isinstance(followed.error, RemoteError)
    assert followed.run.state == "RUNNING"


def test_a_state_of_a_newer_server_is_waited_for_and_its_end_is_no_success(room: Room) -> None:
    followed = room.follow(run("RUNNING"), run("DISSOLVING"), run("DISSOLVING"), run("DISSOLVED", ended="2026-01-01T00:00:00Z"))
    assert isinstance(followed.error, RemoteError)
    assert "DISSOLVED" in followed.error.message
    assert len([line for line in room.said if "DISSOLVING, which nobody here knows" in line]) == 1


def test_a_deadline_ends_the_run_and_looks_whether_it_was_heard(room: Room) -> None:
    answer = run("RUNNING", task("train", "RUNNING"))
    followed = room.follow(answer, ends=30, after_end=run("CANCELING"))
    assert isinstance(followed.error, WorkFailed)
    assert followed.error.message == "the deadline passed; train was running; the run was terminated"
    assert room.kubeflow.ended == ["run-1"]


def test_a_run_that_succeeds_just_before_its_deadline_is_a_success(room: Room) -> None:
    ended = run("SUCCEEDED", task("train", "SUCCEEDED"))
    followed = room.follow(run("RUNNING"), ends=30, after_end=ended, refusal=UsageError("Row not found"))
    assert (followed.error, followed.run.state) == (None, "SUCCEEDED")
    assert "launch training: train SUCCEEDED" in room.said


@pytest.mark.parametrize(
    ("after", "feared"),
    [(run("RUNNING"), "it was told to end, but is RUNNING"), (AWAY, "HTTP 503")],
)
def test_a_run_whose_end_is_not_known_may_still_be_running(room: Room, after: Run | TrainshedError, feared: str) -> None:
    followed = room.follow(run("RUNNING"), ends=30, after_end=after)
    assert followed.error is not None
    assert "may still be running" in followed.error.message
    assert feared in followed.error.message
    assert "--resume run-1" in followed.error.next_step


def test_an_abort_ends_the_run_and_says_what_it_saw(room: Room) -> None:
    room.kubeflow = Kubeflow(room.clock, run("RUNNING"))
    room.kubeflow.after_end = run("CANCELING")
    terminate(room.context, Followed(name="training", run=RUN))
    room.kubeflow.after_end = run("RUNNING")
    terminate(room.context, Followed(name="training", run=RUN))
    room.kubeflow.refusal, room.kubeflow.after_end = UsageError("Row not found"), run("SUCCEEDED")
    terminate(room.context, Followed(name="training", run=RUN))
    room.kubeflow.after_end = run("RUNNING")
    terminate(room.context, Followed(name="training", run=RUN))
    room.kubeflow.refusal, room.kubeflow.after_end = RemoteError("its workflow may not have been told"), run("CANCELING")
    terminate(room.context, Followed(name="training", run=RUN))
    assert room.said == [
        "launch training: run run-1 terminated (CANCELING)",
        "warning: training: run run-1 may still be running: it was told to end, but is RUNNING",
        "launch training: run run-1 terminated (SUCCEEDED)",
        "warning: training: run run-1 may still be running: Row not found",
        "warning: training: run run-1 may still be running: its workflow may not have been told",
    ]


def test_an_interruption_during_a_follow_is_handed_on(room: Room) -> None:
    room.kubeflow = Kubeflow(room.clock, run("RUNNING", task("train", "RUNNING")), Interrupted("interrupted"))
    followed = Followed(name="training", run=RUN)
    with pytest.raises(Interrupted):
        follow(room.context, [followed], ends=None, on_end=room.ended.append)
    assert followed.open


def per_minute(asked: list[float]) -> int:
    """Return the most requests within any minute."""
    return max(sum(1 for other in asked if at <= other < at + 60) for at in asked)


def test_a_thousand_tasks_are_followed_for_hours_with_few_requests(room: Room) -> None:
    def at(second: int) -> Run:
        return run("RUNNING", *(task(f"t{number}", "SUCCEEDED" if number < second else "RUNNING") for number in range(1000)))

    room.follow(*(at(second) for second in range(0, 1000, 50)), *[at(1000)] * 100, run("SUCCEEDED"))
    assert per_minute(room.kubeflow.asked) <= 8
    assert len(room.said) > 1000


def test_a_small_run_is_asked_for_often_at_first_and_seldom_when_nothing_happens(room: Room) -> None:
    room.follow(*[run("RUNNING")] * 60, run("SUCCEEDED"))
    gaps = [later - earlier for earlier, later in zip(room.kubeflow.asked, room.kubeflow.asked[1:], strict=False)]
    assert gaps[0] < 2
    assert 13 < gaps[-1] < 17


def test_a_server_that_takes_long_is_asked_less_often(room: Room) -> None:
    kubeflow = room.kubeflow = Kubeflow(room.clock, *(run("RUNNING", task(f"t{n}", "RUNNING")) for n in range(20)), run("SUCCEEDED"))
    plain = kubeflow.run

    def slow(run_id: str, *, surely: bool = False) -> Run:
        answer = plain(run_id, surely=surely)
        room.clock.now += 3
        return answer

    kubeflow.run = slow  # type: ignore[method-assign, assignment]
    follow(room.context, [Followed(name="training", run=RUN)], ends=None, on_end=room.ended.append)
    assert per_minute(kubeflow.asked) <= 5


def test_several_runs_are_each_asked_for_at_their_own_pace_and_end_by_themselves(room: Room) -> None:
    room.kubeflow = Kubeflow(room.clock, run("RUNNING"), run("SUCCEEDED"), run("RUNNING"), run("FAILED"))
    runs = [Followed(name="one", run=RUN), Followed(name="two", run=RUN)]
    follow(room.context, runs, ends=None, on_end=room.ended.append)
    assert [(followed.name, followed.run.state) for followed in room.ended] == [("two", "SUCCEEDED"), ("one", "FAILED")]


@pytest.mark.parametrize(
    ("state", "kind", "code"),
    [
        ("FAILED", WorkFailed, 1),
        ("CANCELED", Canceled, 6),
        ("SKIPPED", NothingSelected, 3),
        ("RUNNING", RemoteError, 5),
        ("", RemoteError, 5),
    ],
)
def test_every_end_has_an_error_and_exit_code_of_its_own(state: str, kind: type[TrainshedError], code: int) -> None:
    error = outcome(run(state, error="said by the server"), link="https://kf/run-1")
    assert (type(error), error.exit_code if error else 0) == (kind, code)
    assert error is not None
    assert "run run-1 'training 1'" in error.message
    assert "https://kf/run-1" in error.message
    assert error.next_step
    assert outcome(run("SUCCEEDED")) is None


def test_what_stands_around_a_failed_task_did_not_fail_by_itself() -> None:
    tasks = [task(name, "FAILED") for name in ("outer", "outer.inner", "outer.inner.train", "outermost")]
    assert [each.name for each in failed_tasks(run("FAILED", *tasks))] == ["outer.inner.train", "outermost"]
