"""Following a run on a server that keeps Kubeflow's rules: real requests, counted, in a time that passes only when somebody waits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.kubeflow import specification, step, text
from tests.support.kubeflow_server import Fault, StrictServer
from trainshed.console import Console
from trainshed.errors import Canceled, NothingSelected, RemoteError, WorkFailed
from trainshed.stages import following
from trainshed.stages.context import Context
from trainshed.stages.following import Followed, follow, outcome, terminate
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import NotFound

RUNS = "/apis/v2beta1/runs/[^/:]+"


class Clock:
    """Time that passes only when somebody waits."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Shop:
    """A server, a client and the room of a command."""

    def __init__(self, root: Path, server: StrictServer, client: KubeflowClient, clock: Clock) -> None:
        self.root, self.server, self.client, self.clock = root, server, client, clock
        self.stream, self.times = io.StringIO(), list[float]()
        project = SimpleNamespace(work_dir=root / "build", shown=lambda path: str(path.relative_to(root)))
        config = SimpleNamespace(project=project, environment=SimpleNamespace(kubeflow=SimpleNamespace(host=client.host)))
        console = Console(self.stream, root=root)
        self.context = cast("Context", SimpleNamespace(config=config, console=console, kubeflow=client))

    def start(self, tasks: int, *states: str, **how: Any) -> Followed:
        """Upload a pipeline, and start a run that goes as it is told to."""
        spec = specification("training", {f"t{number}": step("pass") for number in range(tasks)})
        pipeline = self.client.create_pipeline("training")
        version = self.client.upload_version(pipeline.id, "v1", text(spec))
        run = self.client.create_run(version, {}, name="training 1", experiment=self.client.experiment("tries"))
        self.server.runs.play(run.id, *states, **how)
        self.server.requests.clear()
        return Followed(name="training", run=run)

    def follow(self, followed: Followed) -> None:
        plain = self.client.run

        def timed(run_id: str, *, surely: bool = False) -> Any:
            self.times.append(self.clock.now)
            return plain(run_id, surely=surely)

        self.client.run = timed  # type: ignore[method-assign]
        follow(self.context, [followed], ends=None, on_end=lambda _: None)

    @property
    def said(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    clock, server = Clock(), StrictServer()
    monkeypatch.setattr(following, "time", clock)
    monkeypatch.setattr(process, "pause", clock.sleep)
    with server.serve() as address, KubeflowClient(address) as client:
        yield Shop(tmp_path, server, client, clock)


def per_minute(asked: list[float]) -> list[int]:
    """Return, for each request, how many there are in the minute that begins with it."""
    return [sum(1 for other in asked if at <= other < at + 60) for at in asked]


def test_a_thousand_tasks_are_followed_with_few_requests_and_fewer_the_more_are_known(shop: Shop) -> None:
    followed = shop.start(1000, *["RUNNING"] * 26, "SUCCEEDED")
    shop.follow(followed)
    asked = shop.server.asked("GET", RUNS)
    assert (followed.run.state, len(followed.run.tasks), len(asked)) == ("SUCCEEDED", 1000, 27)
    assert max(per_minute(shop.times)) <= 20
    assert max(per_minute([at for at in shop.times if at > shop.times[-1] - 60])) <= 8
    assert shop.said.count(" SUCCEEDED") == 1000


@pytest.mark.parametrize(
    ("state", "error"), [("SUCCEEDED", None), ("FAILED", WorkFailed), ("CANCELED", Canceled), ("SKIPPED", NothingSelected)]
)
def test_a_run_is_followed_to_each_of_its_ends(shop: Shop, state: str, error: type[Exception] | None) -> None:
    followed = shop.start(2, "PENDING", "RUNNING", "PAUSED", "RUNNING", state, failed=["t1"], logs={"t1": "epoch 1\nout of memory\n"})
    shop.follow(followed)
    found = outcome(followed.run)
    assert followed.error is None
    assert (type(found) if found else None) is error
    if state == "FAILED":
        assert followed.logs["t1"].read_text() == "epoch 1\nout of memory\n"
        assert "│ out of memory" in shop.said


@pytest.mark.parametrize("kind", ["429", "503", "500", "cut", "reset", "wrong-json", "no-json", "empty"])
def test_a_server_that_stumbles_is_borne_with_and_asked_less(shop: Shop, kind: str) -> None:
    shop.server.faults.add(Fault("GET", RUNS, kind=kind, times=6, skip=1, retry_after="5" if kind in {"429", "503"} else ""))
    followed = shop.start(1, "RUNNING", "RUNNING", "SUCCEEDED")
    shop.follow(followed)
    assert (followed.error, followed.run.state) == (None, "SUCCEEDED")


def test_a_server_that_stays_away_ends_the_following_not_the_run(shop: Shop) -> None:
    shop.server.faults.add(Fault("GET", RUNS, kind="503", times=None, skip=1))
    followed = shop.start(1, "RUNNING")
    shop.follow(followed)
    assert isinstance(followed.error, RemoteError)
    assert f"trainshed launch --resume {followed.run.id}" in followed.error.next_step
    assert shop.server.asked("POST") == []


@pytest.mark.parametrize("kind", ["login", "html", "401", "403"])
def test_a_login_that_expires_is_said_at_once(shop: Shop, kind: str) -> None:
    shop.server.faults.add(Fault("GET", RUNS, kind=kind, times=None, skip=1))
    followed = shop.start(1, "RUNNING")
    shop.follow(followed)
    assert isinstance(followed.error, RemoteError)
    assert "--resume" in followed.error.next_step
    assert len(shop.server.asked("GET", RUNS)) == 2


def test_a_run_that_is_deleted_meanwhile_is_said_at_once(shop: Shop) -> None:
    followed = shop.start(1, "RUNNING")
    shop.server.runs.delete(followed.run.id)
    shop.follow(followed)
    assert isinstance(followed.error, NotFound)
    assert "deleted in Kubeflow" in followed.error.message


def test_an_aborted_job_ends_its_run_and_sees_it_ending(shop: Shop) -> None:
    followed = shop.start(1, "RUNNING")
    process.stopping.set()
    try:
        terminate(shop.context, followed)
        assert f"run {followed.run.id} terminated (CANCELING)" in shop.said
        shop.server.faults.add(Fault("*", f"{RUNS}.*", kind="503", times=None))
        terminate(shop.context, followed)
    finally:
        process.stopping.clear()
    assert f"run {followed.run.id} may still be running" in shop.said
