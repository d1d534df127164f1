"""Creations: one thing, whatever becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.support.kubeflow import Asked, Said, Scripted, said
from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Conflict, RecurringRun, Trigger, Version
from trainshed.tools.kubeflow_requests import Unclear

pytestmark = pytest.mark.sockets


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of making them."""
    made: list[float] = []

    def pause(seconds: float) -> None:
        made.append(seconds)
        if process.stopping.is_set():
            raise Interrupted("interrupted")

    monkeypatch.setattr(process, "pause", pause)
    monkeypatch.setattr("time.sleep", made.append)
    return made


TRIGGER = Trigger(cron="0 0 3 * * *")
VERSION = Version(id="v1", pipeline_id="p1", name="v")
MAKE: dict[str, Any] = {
    "pipelines": lambda client: client.create_pipeline("flow", description="d").id,
    "pipeline_versions": lambda client: client.upload_version("p1", "v", "{}", description="content 1").id,
    "experiments": lambda client: client.experiment("lab"),
    "runs": lambda client: client.create_run(VERSION, {}, name="one", experiment="e1").id,
    "recurringRuns": lambda client: (
        client.create_recurring_run(
            name="nightly", version=VERSION, trigger=TRIGGER, enabled=False, experiment="e1", parameters={}, description="d"
        ).id
    ),
}
UNIQUE = ("pipelines", "pipeline_versions", "experiments")
KEYS = {
    "pipelines": "pipeline_id",
    "pipeline_versions": "pipeline_version_id",
    "experiments": "experiment_id",
    "runs": "run_id",
    "recurringRuns": "recurring_run_id",
}


class Keeper:
    """A server that keeps what it is asked to make, and spoils the answers to the first requests to make something."""

    def __init__(self, kind: str, *spoiled: tuple[Said | None, bool]) -> None:
        self.kind, self.spoiled = kind, list(spoiled)
        self.made: list[dict[str, Any]] = []
        self.posts = 0

    def __call__(self, asked: Asked) -> Said:
        path, _, query = asked.path.partition("?")
        told = dict(parse_qsl(query))
        if asked.method == "GET" and "/names/" in path:
            return said(self.made[0]) if self.made else said({"message": "none", "code": 5}, 404)
        if asked.method == "GET":
            return said({self.kind: self.made} if self.made else {})
        self.posts += 1
        answer, done = self.spoiled.pop(0) if self.spoiled else (None, True)
        if done and self.kind in UNIQUE and self.made:
            return said({"message": "taken"}, 409)
        if done:
            body = {"display_name": told["name"], **told} if "upload" in path else json.loads(asked.body)
            self.made.append({**body, KEYS[self.kind]: f"id-{len(self.made)}", "pipeline_id": "p1" if self.kind != "pipelines" else "id-0"})
        return answer or said(self.made[-1])


CUT = (200, {"Content-Type": "application/json", "Content-Length": "999"}, b"{")
BUSY = said({"message": "busy"}, 429)
DOWN = said({"message": "down"}, 503)
ENDED = (said({"message": "x"}, 500), said({"message": "x"}, 502), DOWN)
OPEN = (said({"message": "x"}, 504), CUT, said({}), said([]), (*said({})[:2], b"{"))


def makings(kind: str, keepers: list[Keeper]) -> Iterator[tuple[Keeper, Callable[[], str]]]:
    """Yield each keeper, served, and what asks it to make a thing."""
    now: list[Keeper] = []
    with Scripted(lambda asked: now[-1](asked)).serve() as address, KubeflowClient(address) as client:  # noqa: PLW0108 - the last one changes
        for keeper in keepers:
            now.append(keeper)
            yield keeper, lambda: str(MAKE[kind](client))


@pytest.mark.parametrize("kind", MAKE)
def test_what_was_made_before_its_answer_was_lost_is_found_and_not_made_again(kind: str) -> None:
    for keeper, make in makings(kind, [Keeper(kind, (answer, True)) for answer in (*ENDED, *OPEN)]):
        assert make() == "id-0"
        assert (len(keeper.made), keeper.posts) == (1, 1)


@pytest.mark.parametrize("kind", MAKE)
def test_what_the_server_gave_up_is_made_again_once(kind: str) -> None:
    for keeper, make in makings(kind, [Keeper(kind, (answer, False), (answer, False)) for answer in (BUSY, *ENDED)]):
        assert make() == "id-0"
        assert (len(keeper.made), keeper.posts) == (1, 3)


@pytest.mark.parametrize("kind", UNIQUE)
def test_a_thing_of_a_unique_name_is_asked_for_again_since_a_second_would_be_refused(kind: str) -> None:
    for keeper, make in makings(kind, [Keeper(kind, (answer, False)) for answer in OPEN]):
        assert make() == "id-0"
        assert (len(keeper.made), keeper.posts) == (1, 2)


@pytest.mark.parametrize("kind", ["runs", "recurringRuns"])
def test_a_run_that_may_still_come_is_looked_for_and_never_asked_for_again(kind: str, pauses: list[float]) -> None:
    for keeper, make in makings(kind, [Keeper(kind, (answer, False)) for answer in OPEN]):
        pauses.clear()
        with pytest.raises(RemoteError, match="it is not known whether it was made") as caught:
            make()
        assert "by this name" in caught.value.next_step
        assert (keeper.posts, len(pauses)) == (1, 3)


def test_a_run_that_comes_while_it_is_looked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper("runs", (CUT, False))
    late = {"run_id": "late", "display_name": "one"}
    monkeypatch.setattr("time.sleep", lambda _: keeper.made.append(late))
    with Scripted(keeper).serve() as address, KubeflowClient(address) as client:
        assert MAKE["runs"](client) == "late"
    assert keeper.posts == 1


def test_a_lost_answer_is_not_made_up_for_by_another_thing_of_the_same_name() -> None:
    for kind, answer in (("pipeline_versions", ENDED[0]), ("pipeline_versions", CUT), ("pipelines", ENDED[0])):
        keeper = Keeper(kind, (answer, False))
        keeper.made.append(
            {"display_name": "flow" if kind == "pipelines" else "v", "description": "another", KEYS[kind]: "x", "pipeline_id": "p1"}
        )
        with Scripted(keeper).serve() as address, KubeflowClient(address) as client, pytest.raises(Conflict, match="another has this name"):
            MAKE[kind](client)


def test_an_older_schedule_of_the_same_name_is_not_taken_for_a_new_one() -> None:
    keeper = Keeper("recurringRuns", (CUT, False))
    keeper.made.append({"recurring_run_id": "old", "display_name": "nightly", "description": "d"})
    with Scripted(keeper).serve() as address, KubeflowClient(address) as client, pytest.raises(RemoteError, match="not known"):
        MAKE["recurringRuns"](client)


def test_what_another_build_made_at_once_is_taken_when_it_is_the_same() -> None:
    keeper = Keeper("pipeline_versions")
    keeper.made.append({"display_name": "v", "description": "content 1", "pipeline_version_id": "x", "pipeline_id": "p1"})
    with Scripted(keeper).serve() as address, KubeflowClient(address) as client:
        assert MAKE["pipeline_versions"](client) == "x"
        keeper.made[0]["description"] = "content 2"
        with pytest.raises(Conflict, match="version 'v' already exists: taken"):
            MAKE["pipeline_versions"](client)


def test_a_server_that_cannot_be_asked_any_more_leaves_it_unknown() -> None:
    match = r"not known whether it was made: .*HTTP 503: down; looking for it failed too: .*down"
    with Scripted(lambda _: DOWN).serve() as address, KubeflowClient(address) as client, pytest.raises(RemoteError, match=match):
        MAKE["runs"](client)
    refusing = Scripted(lambda asked: said({"message": "taken"}, 409) if asked.method == "POST" else DOWN)
    with refusing.serve() as address, KubeflowClient(address) as client, pytest.raises(Conflict, match="taken"):
        MAKE["pipelines"](client)


def test_a_creation_gives_up_when_the_server_stays_broken_and_waits_as_long_as_it_asks(pauses: list[float]) -> None:
    status, headers, body = BUSY
    keeper = Keeper("runs", *[((status, {**headers, "Retry-After": "7"}, body), False)] * 9)
    with Scripted(keeper).serve() as address, KubeflowClient(address) as client, pytest.raises(Unclear, match="HTTP 429"):
        MAKE["runs"](client)
    assert (keeper.posts, pauses) == (4, [7.0, 7.0, 7.0])


def test_a_connection_that_was_never_made_leaves_no_doubt(pauses: list[float]) -> None:
    with KubeflowClient("http://127.0.0.1:1") as client, pytest.raises(Unclear, match="no connection"):
        client.create_run(VERSION, {}, name="one", experiment="e1")
    assert len(pauses) == 3


def test_no_run_is_started_after_sigterm_and_one_that_was_is_known() -> None:
    process.stopping.set()
    keeper = Keeper("runs")
    with Scripted(keeper).serve() as address, KubeflowClient(address) as client, pytest.raises(Interrupted):
        MAKE["runs"](client)
    assert keeper.posts == 0
    process.stopping.clear()

    def stop(asked: Asked) -> Said:
        process.stopping.set()
        return keeper(asked)

    keeper = Keeper("runs", (CUT, True))
    with Scripted(stop).serve() as address, KubeflowClient(address) as client:
        assert MAKE["runs"](client) == "id-0"
    process.stopping.clear()
    keeper = Keeper("runs", (DOWN, False))
    with Scripted(stop).serve() as address, KubeflowClient(address) as client, pytest.raises(Interrupted):
        MAKE["runs"](client)
    assert (keeper.posts, keeper.made) == (1, [])


def test_a_refusal_that_does_not_say_which_id_is_unknown_gets_them_all_named() -> None:
    ids = "version v1 of pipeline p1, experiment e1"
    opaque = Scripted(lambda _: said({"message": "invalid input", "code": 3}, 400))
    with opaque.serve() as address, KubeflowClient(address) as client, pytest.raises(UsageError) as caught:
        MAKE["runs"](client)
    assert f"({ids}): refused: invalid input" in str(caught.value)
    assert ids in caught.value.next_step


# what is sent


def test_a_run_is_asked_for_as_the_api_takes_it_and_unset_fields_are_left_out() -> None:
    keeper = Keeper("runs")
    script = Scripted(keeper)
    with script.serve() as address, KubeflowClient(address) as client:
        client.create_run(VERSION, {"rate": 0.5}, name="one", experiment="e1", description="why", specification={"root": {}})
        client.create_run(VERSION, {}, name="two", experiment="e1", pipeline_root="s3://b", service_account="robot")
    first, second = (json.loads(asked.body) for asked in script.asked)
    assert first == {
        "display_name": "one",
        "description": "why",
        "experiment_id": "e1",
        "runtime_config": {"parameters": {"rate": 0.5}},
        "pipeline_spec": {"root": {}},
    }
    assert second["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert (second["runtime_config"]["pipeline_root"], second["service_account"]) == ("s3://b", "robot")
    assert "description" not in second


def test_a_recurring_run_is_asked_for_disabled_and_read_back_with_its_numbers_as_texts() -> None:
    keeper = Keeper("recurringRuns")
    with Scripted(keeper).serve() as address, KubeflowClient(address, namespace="ours") as client:
        made = client.create_recurring_run(
            name="hourly", version=replace(VERSION, id=""), trigger=Trigger(every=3600, end="2030-01-01T00:00:00Z"), enabled=False,
            experiment="e1", parameters={"rows": 3}, pipeline_root="s3://b", service_account="robot", max_concurrency=2, catch_up=True,
        )  # fmt: skip
    (sent,) = keeper.made
    assert sent["pipeline_version_reference"] == {"pipeline_id": "p1"}
    assert sent["trigger"] == {"periodic_schedule": {"interval_second": "3600", "end_time": "2030-01-01T00:00:00Z"}}
    assert (sent["max_concurrency"], sent["mode"], sent["no_catchup"], sent["namespace"]) == ("2", "DISABLE", False, "ours")
    trigger = Trigger(every=3600, end="2030-01-01T00:00:00Z")
    assert made == RecurringRun(
        id="id-0", name="hourly", enabled=False, trigger=trigger, experiment_id="e1", pipeline_id="p1",
        service_account="robot", pipeline_root="s3://b", max_concurrency=2, catch_up=True, parameters={"rows": 3},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trigger": Trigger()}, "cron expression or a number of seconds"),
        ({"trigger": Trigger(cron="* * * * * *", every=5)}, "and not both"),
        ({"max_concurrency": 11}, "11 runs at once; Kubeflow takes 1 to 10"),
        ({"name": ""}, "needs a name"),
    ],
)
def test_a_schedule_that_kubeflow_would_refuse_is_refused_before_it_is_sent(changed: dict[str, Any], message: str) -> None:
    wanted = {"name": "n", "version": VERSION, "trigger": TRIGGER, "enabled": True, "experiment": "e1", "parameters": {}, **changed}
    with KubeflowClient("http://127.0.0.1:1") as client, pytest.raises(UsageError, match=message):
        client.create_recurring_run(**wanted)
