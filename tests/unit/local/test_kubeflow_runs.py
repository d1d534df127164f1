from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow import specification, step, wait_for
from trainshed import owner
from trainshed.local.kubeflow import runs as runs_module
from trainshed.local.kubeflow.runs import Runs, log_of, read_status, settled, task_states, write_status
from trainshed.local.kubeflow.store import Store, Taken

SPEC = specification("flow", {"evaluate": step("pass", needs=["train"]), "train": step("pass", needs=["extract"]), "extract": step("pass")})
DEAD = "tcp://127.0.0.1:9"


def running(folder: Path, state: str = "RUNNING") -> None:
    write_status(folder, {"state": state, "error": "", "tasks": [{"name": "a", "state": "RUNNING"}, {"name": "b", "state": "PENDING"}]})


def ended(state: str) -> Any:
    return lambda status: status["state"] == state


def test_tasks_are_listed_in_an_order_in_which_they_can_run_and_nested_ones_are_found() -> None:
    assert [task["name"] for task in task_states(SPEC)] == ["extract", "train", "evaluate"]
    nested = {
        "root": {"dag": {"tasks": {"inner": {"componentRef": {"name": "comp-inner"}}}}},
        "components": {"comp-inner": SPEC["root"], **SPEC["components"]},
    }
    assert [task["name"] for task in task_states(nested)] == ["inner.extract", "inner.train", "inner.evaluate"]


def test_a_loop_is_one_task_with_a_body_until_it_runs() -> None:
    looping = {
        "root": {
            "dag": {
                "tasks": {
                    "loop": {"componentRef": {"name": "comp-inner"}, "parameterIterator": {}},
                    "each": {"componentRef": {"name": "comp-train"}, "artifactIterator": {}},
                }
            }
        },
        "components": {"comp-inner": SPEC["root"], **SPEC["components"]},
    }
    loop, each = task_states(looping)
    assert (loop["name"], [task["name"] for task in loop["body"]]) == ("loop", ["extract", "train", "evaluate"])
    assert (each["name"], each["body"]) == ("each", [{"name": "", "state": "PENDING"}])


def test_a_path_that_is_too_long_for_a_file_names_one_still(tmp_path: Path) -> None:
    long = ".".join(f"inner-{number}" for number in range(60))
    assert log_of(tmp_path, "inner.train") == tmp_path / "logs" / "inner.train.log"
    assert len(log_of(tmp_path, long).name) < 200
    assert log_of(tmp_path, long) != log_of(tmp_path, f"{long}x")


def test_a_circle_of_tasks_is_listed_once() -> None:
    circle = specification("flow", {"a": step("pass", needs=["b"]), "b": step("pass", needs=["a", "gone"])})
    assert {task["name"] for task in task_states(circle)} == {"a", "b"}


def test_a_final_state_leaves_no_task_running() -> None:
    tasks = [{"name": name, "state": state} for name, state in (("a", "SUCCEEDED"), ("b", "RUNNING"), ("c", "PENDING"))]
    status = settled({"state": "RUNNING", "tasks": tasks}, "CANCELED", "why")
    assert [task["state"] for task in status["tasks"]] == ["SUCCEEDED", "CANCELED", "SKIPPED"]
    assert (status["error"], settled(status, "SUCCEEDED", "x")["error"]) == ("why", "")


def test_a_run_whose_process_died_with_the_server_is_failed_with_that_reason(tmp_path: Path) -> None:
    runs = Runs(tmp_path, engine=DEAD)
    running(runs.folder("one"))
    running(runs.folder("two"), "SUCCEEDED")
    (runs.folder("one") / "runner.log").write_text("first\nlast words\n")
    runs.adopt(["one", "two"])
    status = read_status(runs.folder("one"))
    assert status["state"] == "FAILED"
    assert status["error"] == "the process of the run ended with the server that started it: last words"
    assert [task["state"] for task in status["tasks"]] == ["FAILED", "SKIPPED"]
    assert read_status(runs.folder("two"))["state"] == "SUCCEEDED"


def test_a_run_that_lives_is_taken_over_and_terminated_by_the_next_server(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    running(folder)
    program = (
        "import sys; from pathlib import Path; from trainshed import owner; Path(sys.argv[1]).write_text(owner.mark()); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder / "mark")], stdin=subprocess.PIPE) as child:
        wait_for(lambda: (folder / "mark").exists() and owner.alive((folder / "mark").read_text()), bool)
        (folder / "mark").rename(folder / "owner")
        runs = Runs(tmp_path, engine=DEAD)
        runs.adopt(["one"])
        assert read_status(folder)["state"] == "RUNNING"
        runs.terminate("one")
        assert runs.terminating("one")
        child.wait(timeout=60)
        status = wait_for(lambda: read_status(folder), ended("CANCELED"))
    assert status["error"] == "the run was terminated"
    runs.close()


def test_a_child_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "GRACE_SECONDS", 0.1)
    folder = tmp_path / "one"
    running(folder)
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from pathlib import Path; from trainshed import owner; Path(sys.argv[1]).write_text(owner.mark()); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder / "mark")], stdin=subprocess.PIPE) as child:
        wait_for(lambda: (folder / "mark").exists() and owner.alive((folder / "mark").read_text()), bool)
        (folder / "mark").rename(folder / "owner")
        runs = Runs(tmp_path, engine=DEAD)
        runs.adopt(["one"])
        runs.terminate("one")
        assert child.wait(timeout=60) == -9
        wait_for(lambda: read_status(folder), ended("CANCELED"))


def test_a_finished_run_is_not_terminated_and_a_lost_one_is_failed(tmp_path: Path) -> None:
    runs = Runs(tmp_path, engine=DEAD)
    running(runs.folder("one"), "SUCCEEDED")
    runs.terminate("one")
    assert not runs.terminating("one")
    assert read_status(runs.folder("lost"))["error"] == "the run's files are gone"
    runs.adopt(["lost"])


@pytest.mark.sockets
def test_a_run_without_an_engine_fails_with_the_reason_and_keeps_what_was_asked(tmp_path: Path) -> None:
    runs = Runs(tmp_path, engine=DEAD)
    runs.start("one", SPEC, {"rate": 1})
    status = wait_for(lambda: read_status(runs.folder("one")), ended("FAILED"))
    assert "the process of the run ended without a result" in status["error"]
    assert {task["state"] for task in status["tasks"]} == {"SKIPPED"}
    asked = json.loads((runs.folder("one") / "request.json").read_text())
    assert (asked["parameters"], asked["engine"], asked["network"]) == ({"rate": 1}, DEAD, "none")
    runs.close()


def test_records_outlive_the_store_and_names_are_unique_under_their_parent(tmp_path: Path) -> None:
    store = Store(tmp_path / "state" / "kubeflow.sqlite")
    record = store.add("pipeline", parent="a", name="x", document={"n": 1})
    other = store.add("pipeline", parent="b", name="x", document={})
    with pytest.raises(Taken):
        store.add("pipeline", parent="a", name="x", document={})
    store.change(record, m=2)
    store.remove(other)
    store.change(other, m=3)
    store.close()
    again = Store(tmp_path / "state" / "kubeflow.sqlite")
    assert [each.document for each in again.all("pipeline")] == [{"n": 1, "m": 2}]
    assert again.by_name("pipeline", "x", "a") == again.get("pipeline", record.id)
    assert again.by_name("pipeline", "x", "b") is None
    again.close()
