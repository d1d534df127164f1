"""``kill -9`` and SIGTERM at any point: the same command again ends as if nothing had happened, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.sample_project import Sample, docker, until

SLOW_BUILD = "RUN sleep 8\n"
NOTHING: dict[str, list[str]] = {"processes": [], "containers": [], "files": []}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str) -> Iterator[Sample]:
    made = Sample(tmp_path_factory.mktemp("interruptions") / "project", docker_host, base=small_base)
    made.green("run")
    yield made
    made.down()


@pytest.fixture
def settled(sample: Sample) -> Iterator[Sample]:
    """Return the project; whatever the test changed is put back."""
    kept = {path: path.read_text() for path in (sample.root / "components").rglob("*") if path.is_file()}
    yield sample
    for path, text in kept.items():
        path.write_text(text)


def log_has(sample: Sample, name: str, words: str) -> Callable[[], bool]:
    log = sample.root / "build" / "logs" / name
    return lambda: log.is_file() and words in log.read_text(errors="replace")


def slow_build(sample: Sample) -> Callable[[], bool]:
    """Make the build of ``learn`` slow; return what tells that it goes on."""
    file = "components/learn/Dockerfile"
    text = (sample.root / file).read_text()
    sample.write(file, text.replace("COPY src /app/\n", f"COPY src /app/\n{SLOW_BUILD}", 1))
    sample.append("components/learn/src/main.py", f"# {time.time_ns()}\n")
    return log_has(sample, "learn.build.log", "sleep 8")


def slow_test(sample: Sample) -> Callable[[], bool]:
    """Make the test of ``prepare`` slow; return what tells that its container runs."""
    sample.write("components/prepare/tests/check.py", f"import time\nprint('began {time.time_ns()}', flush=True)\ntime.sleep(20)\n" + CHECK)
    return lambda: bool(sample.containers("--filter", "status=running"))


CHECK = """open(__import__("os").environ.get("TRAINSHED_JUNIT", "/reports/junit.xml"), "w").write(
    '<testsuites><testsuite name="c" tests="1"><testcase classname="c" name="waits" time="1"/></testsuite></testsuites>')
"""


def slow_scan(sample: Sample) -> Callable[[], bool]:
    """Have ``learn`` scanned again, by another policy; return what tells that Trivy runs."""
    sample.append("components/learn/src/main.py", f"# {time.time_ns()}\n")
    return lambda: any("trivy" in process for process in sample.leftovers()["processes"])


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal, by its mask in ``/proc``."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def kill(child: subprocess.Popen[str]) -> None:
    """Kill the command alone, as the kernel's memory killer would."""
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)


PLACES = {"build": slow_build, "test": slow_test, "scan": slow_scan}


@pytest.mark.parametrize("place", PLACES)
def test_after_kill_9_the_same_command_ends_as_if_nothing_had_happened(settled: Sample, place: str) -> None:
    busy = PLACES[place](settled)
    child = settled.start("--json", "images")
    until(busy, f"the {place}")
    kill(child)
    if place == "test":  # nobody need wait for the sleeper
        settled.write("components/prepare/tests/check.py", CHECK)
    done = settled.green("images")
    assert done.document["status"] == "green"
    until(lambda: settled.leftovers() == NOTHING, f"an empty room after {settled.leftovers()}")
    again = settled.green("images")
    assert "done" not in {result["status"] for result in again.document["results"]}


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_ends_within_five_seconds_with_130_and_leaves_nothing(settled: Sample, place: str) -> None:
    busy = PLACES[place](settled)
    child = settled.start("--json", "images")
    until(busy, f"the {place}")
    began = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    out, told = child.communicate(timeout=60)
    took = time.monotonic() - began
    assert child.returncode == 130, told
    assert '"interrupted"' in out
    assert took < 5.0
    assert settled.orphans() == []
    until(lambda: settled.leftovers() == NOTHING, f"an empty room after {settled.leftovers()}")


def test_sigterm_while_nothing_is_needed_leaves_the_lock_true(settled: Sample) -> None:
    settled.green("images")
    before = settled.lock.read_text()
    child = settled.start("images")
    # The last handler that a command sets; one of SIGTERM may be that of coverage, which is there before the command begins.
    until(lambda: catches(child.pid, signal.SIGHUP), "the command's handler")
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode in {0, 130}
    if settled.lock.exists():
        assert settled.lock.read_text() == before
    assert settled.green("images").document["status"] == "green"


@pytest.mark.parametrize("after", [0.2, 0.6, 1.0, 1.5, 2.2, 3.0])
def test_kill_9_at_any_moment_of_a_run_loses_nothing(settled: Sample, after: float) -> None:
    settled.append("components/learn/src/main.py", f"# {after} {time.time_ns()}\n")
    child = settled.start("--json", "run")
    time.sleep(after)
    kill(child)
    done = settled.green("run")
    assert done.statuses("upload")["sample_flow"] in {"done", "cached"}
    again = settled.green("run")
    assert again.statuses("upload") == {"sample_flow": "cached"}
    assert "done" not in {result["status"] for result in again.document["results"]}
    until(lambda: settled.leftovers() == NOTHING, f"an empty room after {settled.leftovers()}")


def test_sigterm_while_a_launched_run_is_followed_ends_the_run(settled: Sample) -> None:
    file = "components/prepare/src/main.py"
    settled.write(file, (settled.root / file).read_text().replace('print("prepared", given.rows)', "import time; time.sleep(120)"))
    settled.green("run")
    child = settled.start("--json", "launch", "sample_flow", "--wait")
    until(lambda: bool(docker(settled.engine, "ps", "-q", "--filter", "ancestor=" + reference(settled)).split()), "the task's container")
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 130
    until(
        lambda: not docker(settled.engine, "ps", "-q", "--filter", "ancestor=" + reference(settled)).split(),
        "the end of the task's container",
        60,
    )


def reference(sample: Sample) -> str:
    import json

    return str(json.loads(sample.lock.read_text())["images"]["prepare"]["reference"])
