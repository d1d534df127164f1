"""Many commands at once in one workspace, as Jenkins' parallel branches start them, and what they share: ledger, slots, services."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres
from tests.support.sample_project import CHECK, CHILD, PATIENCE_SECONDS, Sample, docker, processes_in, until
from trainshed.local.services import Embedded

BRANCHES = 10
SLOTS = 2
STEPS = ("prepare", "learn", "answer")
SLOW = "import time\ntime.sleep(1)\n"


@pytest.fixture
def sample(tmp_path: Path, docker_host: str, small_base: str) -> Iterator[Sample]:
    made = Sample(tmp_path / "sample", docker_host, base=small_base)
    yield made
    made.down()


def branches(sample: Sample, names: list[str]) -> dict[str, tuple[int, str]]:
    """Make each component by a command of its own, all at once; return exit code and words of each."""
    with ThreadPoolExecutor(len(names)) as pool:
        children = {name: sample.start("images", name) for name in names}
        ended = {name: pool.submit(child.communicate, timeout=PATIENCE_SECONDS * 2) for name, child in children.items()}
        return {name: (children[name].wait(PATIENCE_SECONDS * 2), talk.result()[1]) for name, talk in ended.items()}


def most_at_once(sample: Sample, mark: str, since: float) -> int:
    """Return how many test containers of components whose name has a mark ran side by side at most, as the engine saw it."""
    options = ["--since", f"{since:.0f}", "--until", f"{time.time() + 1:.0f}", "--filter", "label=io.trainshed.owner"]
    said = docker(sample.engine, "events", *options, "--filter", "event=start", "--filter", "event=die", "--format", "{{json .}}")
    inside, most = 0, 0
    for event in (json.loads(line) for line in said.splitlines()):
        if mark in event["Actor"]["Attributes"]["name"]:
            inside += 1 if event["Action"] == "start" else -1
            most = max(most, inside)
    return most


def test_ten_branches_in_one_workspace_do_not_disturb_each_other(sample: Sample) -> None:
    mark = f"w{secrets.token_hex(3)}"
    names = [f"{mark}-{number}" for number in range(BRANCHES)]
    for name in names:
        sample.write(f"components/{name}/Dockerfile", CHILD)
        sample.write(f"components/{name}/src/main.py", f"print('{name}')\n")
        sample.write(f"components/{name}/tests/check.py", SLOW + CHECK)
    since = time.time() - 1
    ended = branches(sample, names)
    assert {name: code for name, (code, _) in ended.items()} == dict.fromkeys(names, 0), ended
    assert 1 <= most_at_once(sample, mark, since) <= SLOTS
    ledger = sqlite3.connect(sample.root / ".trainshed" / "ledger.sqlite")
    assert ledger.execute("SELECT count(*) FROM locks").fetchone() == (0,)
    built = dict(ledger.execute("SELECT component, count(*) FROM images WHERE seconds > 0 GROUP BY component").fetchall())
    assert built == dict.fromkeys(["base", *names], 1)
    done = sample.green("images")
    assert {name for name, status in done.statuses("test").items() if status == "done"} == set(STEPS)
    assert ledger.execute("SELECT count(*) FROM locks").fetchone() == (1,)
    ledger.close()
    assert set(sample.locked()) == {"base", *STEPS, *names}
    until(lambda: sample.leftovers() == {"processes": [], "containers": [], "files": []}, f"an empty room after {sample.leftovers()}")


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


def test_losing_the_database_loses_no_image_and_a_restart_makes_no_false_verdict(sample: Sample, server: postgres.Server) -> None:
    sample.environment["TRAINSHED_LEDGER_URL"] = server.create("lost")
    sample.green("images")
    before = sample.locked()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA lost CASCADE")
        connection.execute("CREATE SCHEMA lost")
    again = sample.green("images")
    assert set(again.statuses("build").values()) == {"cached"}
    assert again.statuses("test") == {"base": "skipped", **dict.fromkeys(STEPS, "done")}
    assert sample.locked() == before

    sample.write("components/prepare/tests/check.py", "import time\ntime.sleep(5)\n" + CHECK)
    child = sample.start("--json", "images")
    until(lambda: bool(sample.containers()), "the test's container")
    server.stop()
    server.start()
    out, told = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode in {0, 5}, told
    assert json.loads(out)["status"] == ("green" if child.returncode == 0 else "red")
    assert child.returncode == 0 or "the ledger" in told
    assert sample.green("images").document["status"] == "green"

    server.stop()
    away = sample.run("images")
    assert away.code == 5
    assert "the ledger" in away.told
    assert server.password not in away.told
    server.start()
    assert sample.green("images").statuses("test") == {"base": "skipped", **dict.fromkeys(STEPS, "cached")}


def kill(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)


def test_local_down_after_a_killed_command_leaves_nothing(sample: Sample) -> None:
    sample.write("components/prepare/tests/check.py", "import time\ntime.sleep(600)\n" + CHECK)
    child = sample.start("images")
    until(lambda: bool(sample.containers()), "the test's container")
    kill(child)
    assert sample.run("local", "down").code == 0
    assert sample.containers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_local_down_at_once_after_an_aborted_launch_ends_the_run_and_the_server(sample: Sample, number: signal.Signals) -> None:
    file = "components/prepare/src/main.py"
    sample.write(file, (sample.root / file).read_text().replace('print("prepared", given.rows)', "import time; time.sleep(600)"))
    sample.green("run")
    child = sample.start("launch", "sample_flow", "--wait")
    runs = sample.root / ".trainshed" / "kubeflow" / "runs"
    until(lambda: bool(list(runs.glob("*/owner"))) and bool(sample.containers()), "the task's container")
    os.kill(child.pid, number)
    if number == signal.SIGKILL:
        pid = next(one.pid for one in Embedded(sample.root / ".trainshed").status() if one.name == "kubeflow")
        assert pid is not None
        os.kill(pid, number)
    began = time.monotonic()
    assert sample.run("local", "down").code == 0
    assert time.monotonic() - began < 60
    child.communicate(timeout=60)
    assert sample.containers() == []
    until(lambda: processes_in(sample.root) == [], f"the end of {processes_in(sample.root)}")
    assert all(one.state != "running" for one in Embedded(sample.root / ".trainshed").status() if one.name != "engine")
