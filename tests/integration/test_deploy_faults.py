"""Bad days of a deployment, with real containers: each ends true and clear, and the address tells what serves afterwards."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.support.production import Trap, World, client

SECONDS = 120.0
# What happens, and with it what the message names. A crash loop and wrong golden predictions are among the rules.
BROKEN: Mapping[str, tuple[dict[str, str], str]] = {
    "a failing health check": ({"SICK": "1"}, "health checks"),
    "out of memory": ({"HOG": "1"}, "OutOfMemoryError"),
}


@pytest.fixture
def serving(world: World) -> World:
    """Return a world whose first image serves, with golden predictions; the second is to be deployed."""
    world.service(golden="golden.json")
    world.green()
    world.gateway.reset()
    return world


def told(world: World, code: int, *needles: str) -> str:
    """Deploy; return what was said, which must name the cause and end with the code."""
    done = world.deploy()
    text = world.result(done)["message"] if done.document["results"] else json.dumps(done.document["error"])
    assert done.code == code, done.told
    for needle in needles:
        assert needle in text, done.told
    return text


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_named_and_the_one_before_serves_on(serving: World, case: str) -> None:
    switches, needle = BROKEN[case]
    serving.service(deployment={"fail-early": True})
    if "SICK" in switches:  # its start is not waited for: it never ends
        serving.service(health={**serving.document["health"], "start": "0s", "retries": 1})
    serving.lock(2, **switches)
    assert f"rolled back to {serving.name}:1" in told(serving, 1, needle)
    assert serving.settled()["taskDefinition"].endswith(":1")
    assert serving.serves() == ("1", "1")


def test_an_image_that_cannot_be_pulled_is_named(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = f"{serving.images.repository}@sha256:{'0' * 64}"
    serving.lock_reference(missing)
    # Gone between the look into the registry and the pull: no look can promise that it stays.
    monkeypatch.setattr("trainshed.stages.deploying.verification._image", lambda *_: None)
    serving.service(deployment={"fail-early": True})
    told(serving, 1, "CannotPullContainerError", "0" * 64)
    assert serving.settled()["taskDefinition"].endswith(":1")
    assert serving.serves() == ("1", "1")


def test_a_slow_start_is_waited_for(serving: World) -> None:
    serving.service(deployment={"fail-early": True})
    serving.lock(2, START_SECONDS="4")
    serving.green()
    assert serving.serves() == ("2", "1")


def test_a_slow_start_beyond_the_deadline_says_so_and_the_same_command_goes_on(serving: World) -> None:
    serving.lock(2, START_SECONDS="5")
    done = serving.deploy("--deadline", "2s")
    assert done.code == 1, done.told
    assert "deadline" in serving.result(done)["message"]
    assert serving.serves() == ("1", "1")
    serving.green()
    assert serving.serves() == ("2", "1")
    assert serving.gateway.changes() == ["UpdateService"]


def test_a_missing_secret_is_told_before_anything_is_touched(serving: World) -> None:
    serving.service(secrets={"TOKEN": f"{serving.name}-keys#token"})
    told(serving, 2, f"{serving.name}-keys")
    assert serving.gateway.changes() == []
    value = "a value that stays there"
    secrets = client("secretsmanager", serving.gateway.url)
    secrets.create_secret(Name=f"{serving.name}-keys", SecretString=json.dumps({"other": "not told"}))
    assert "not told" not in told(serving, 2, "token")
    secrets.put_secret_value(SecretId=f"{serving.name}-keys", SecretString=json.dumps({"token": value}))
    done = serving.deploy()
    assert done.code == 0, done.told
    assert value not in done.told + json.dumps(done.document)
    assert serving.answer()["token"] == value


def test_a_role_that_tasks_may_not_take_is_told_before_anything_is_touched(serving: World) -> None:
    document = {"Version": "2012-10-17", "Statement": []}
    made = client("iam", serving.gateway.others).create_role(RoleName=serving.name, AssumeRolePolicyDocument=json.dumps(document))
    serving.service(roles={**serving.document["roles"], "execution": made["Role"]["Arn"]})
    told(serving, 2, serving.name, "ecs-tasks.amazonaws.com")
    assert serving.gateway.changes() == []
    assert serving.serves() == ("1", "1")


# What happens one after the other, and passes: from the beginning on, or to looks from the change on.
PASSING: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "anything is throttled": [{"kind": "throttle", "action": "*", "times": 4}],
    "a look fails": [
        {"kind": "error", "action": "DescribeServices", "times": 6},
        {"kind": "cut", "action": "DescribeServices", "times": 6},
        {"kind": "expired", "action": "DescribeServices", "times": 1},
    ],
    "the change fails": [
        {"kind": "throttle", "action": "UpdateService", "times": 3},
        {"kind": "expired", "action": "UpdateService", "times": 1},
    ],
    "answers are old": [{"kind": "stale", "action": "DescribeServices", "seconds": 1, "times": 6}],
    "the change's answer is lost": [{"kind": "cut", "action": "UpdateService", "times": 1, "after": True}],
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_passed_over_with_one_change(serving: World, case: str) -> None:
    serving.lock(2)
    faults = PASSING[case]
    if faults[0]["action"] == "DescribeServices":
        serving.gateway.traps.append(Trap(action="UpdateService", after=True, do=lambda: serving.faults(*faults)))
    else:
        serving.faults(*faults)
    try:
        serving.green()
        struck = serving.struck()
        assert len(struck) == len(faults)
        assert all(fault["taken"] for fault in struck), struck  # one that never struck shows nothing
    finally:
        serving.faults()
    assert serving.rollouts() == ["SUCCESSFUL", "SUCCESSFUL"]  # the first image's, and one
    assert serving.state()["taskDefinition"].endswith(":2")
    assert serving.serves() == ("2", "1")


def test_credentials_that_stay_expired_are_named_and_the_same_command_goes_on(serving: World) -> None:
    serving.lock(2)
    trap = Trap(action="UpdateService", after=True, do=lambda: serving.faults({"kind": "expired", "action": "*"}))
    serving.gateway.traps.append(trap)
    message = told(serving, 5, "the credentials ran out")
    assert "Renew them" in message
    serving.faults()
    serving.green()
    assert serving.gateway.changes() == ["UpdateService"]
    assert serving.serves() == ("2", "1")


def test_a_network_that_is_cut_in_the_middle_is_an_error_and_the_same_command_goes_on(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainshed.tools.ecs._PATIENCE_SECONDS", 3.0)  # minutes else: ECS may be away for a while
    serving.lock(2)
    serving.gateway.traps.append(Trap(action="UpdateService", after=True, do=serving.gateway.away.set))
    told(serving, 5, serving.gateway.url)
    serving.gateway.away.clear()
    serving.green()
    assert serving.gateway.changes() == ["UpdateService"]
    assert serving.settled()["taskDefinition"].endswith(":2")
    assert serving.serves() == ("2", "1")


POINTS = [
    ("RegisterTaskDefinition", False),
    ("RegisterTaskDefinition", True),
    ("UpdateService", False),
    ("UpdateService", True),
    ("ListTasks", True),
    ("DescribeServiceRevisions", False),
]


@pytest.mark.parametrize(("action", "after"), POINTS)
def test_a_killed_command_is_given_again_and_makes_one_deployment(serving: World, action: str, *, after: bool) -> None:
    """What the killed one asked for is found: nothing is registered or asked for twice."""
    serving.lock(2)
    reached = threading.Event()
    children: list[int] = []

    def kill() -> None:
        reached.wait(SECONDS)
        os.killpg(children[0], signal.SIGKILL)

    serving.gateway.traps.append(Trap(action=action, after=after, do=kill, lost=True))
    child = serving.start("deploy", "answer", "--deadline", "4m")
    children.append(child.pid)
    reached.set()
    child.communicate(timeout=SECONDS)
    assert child.returncode == -signal.SIGKILL
    serving.green()
    assert serving.serves() == ("2", "1")
    assert serving.gateway.changes() == ["UpdateService"]
    assert len(serving.gateway.asked("RegisterTaskDefinition")) == 1
    assert serving.rollouts() == ["SUCCESSFUL", "SUCCESSFUL"]  # the first image's, and one
    assert dict(reversed(serving.ledger()))[serving.state()["taskDefinition"]] == "good"
    assert serving.green()["status"] == "cached"


def test_of_two_deployments_at_once_one_waits_or_is_refused_with_the_others_name(serving: World) -> None:
    serving.lock(2)
    children = [serving.start("deploy", "answer", "--deadline", "4m") for _ in range(2)]
    ends = [(child.communicate(timeout=2 * SECONDS), child.returncode) for child in children]
    assert [code for _, code in ends] == [0, 0], ends
    assert sorted(json.loads(out)["results"][0]["status"] for (out, _), _ in ends) == ["cached", "done"]
    assert serving.gateway.changes() == ["UpdateService"]
    assert serving.serves() == ("2", "1")
    assert any(str(child.pid) in said or "wait" in said for child, ((_, said), _) in zip(reversed(children), ends, strict=True))


def test_capacity_that_is_missing_for_a_moment_is_waited_for(serving: World) -> None:
    serving.lock(2)
    serving.faults({"kind": "capacity", "times": 2})
    try:
        serving.green()
        assert [fault["taken"] for fault in serving.struck()] == [2]
    finally:
        serving.faults()
    assert serving.serves() == ("2", "1")
