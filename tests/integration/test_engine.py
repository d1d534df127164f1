"""Containers and unfinished images on a real engine: run, limited, collected, and never left behind."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import wait_until
from trainshed.errors import Interrupted, RemoteError, WorkFailed
from trainshed.tools import process
from trainshed.tools.docker import OWNER_LABEL, Engine, Job, Mount

HOLDER = """import pathlib, sys
from trainshed.tools.docker import Engine, Job, temporary_tag
engine = Engine.connect(sys.argv[1])
engine.tag(sys.argv[2], temporary_tag(sys.argv[3]))
with engine.labelled_copy(sys.argv[2]):
    engine.run(Job(image=sys.argv[2], name=sys.argv[3], log=pathlib.Path(sys.argv[4]), command=["sh", "-c", "echo up; sleep 600"]))
"""


@pytest.fixture
def engine(docker_host: str) -> Iterator[Engine]:
    with Engine.connect(docker_host) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"held-{secrets.token_hex(4)}"


def listed(what: str, text: str) -> list[str]:
    shown = subprocess.run(["docker", *what.split()], capture_output=True, text=True, check=True, timeout=120).stdout
    return [line for line in shown.splitlines() if text in line]


def containers(name: str) -> list[str]:
    return listed("ps --all --format {{.Names}}", name)


def test_a_container_runs_with_its_settings_and_gives_its_files(engine: Engine, base_image: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    job = Job(
        image=base_image,
        name=name,
        log=tmp_path / "log",
        command=["sh", "-c", 'echo "$A $(id -u) $(cat /in)"; echo done > /out/deep.txt; cat /sys/class/net/*/address; exit 3'],
        environment={"A": "b"},
        user="1234",
        mounts=[Mount(source=tmp_path / "in", target="/in")],
        memory="128m",
        collect={"/out": tmp_path / "out"},
    )
    ended = engine.run(job)
    assert (ended.code, ended.timed_out, ended.oom) == (3, False, False)
    assert (tmp_path / "log").read_text().splitlines() == ["b 1234 given", "00:00:00:00:00:00"]
    assert (tmp_path / "out" / "deep.txt").read_text() == "done\n"
    assert containers(name) == []


def test_a_container_past_its_time_is_ended(engine: Engine, base_image: str, name: str, tmp_path: Path) -> None:
    ended = engine.run(Job(image=base_image, name=name, log=tmp_path / "log", command=["sleep", "600"], timeout=1.0))
    assert ended.timed_out
    assert containers(name) == []


def test_a_command_that_is_not_there_is_told(engine: Engine, base_image: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"the container cannot start: .*nowhere"):
        engine.run(Job(image=base_image, name=name, log=tmp_path / "log", command=["/nowhere"]))
    assert containers(name) == []


def test_an_image_that_is_not_there_is_none_and_cannot_be_pulled_run_or_copied(engine: Engine, name: str, tmp_path: Path) -> None:
    absent = f"127.0.0.1:1/{name}:1"
    assert engine.image(absent) is None
    engine.remove_image(absent)
    for call in (lambda: engine.pull(absent), lambda: engine.run(Job(image=absent, name=name, log=tmp_path / "log"))):
        with pytest.raises(RemoteError):
            call()
    with pytest.raises(WorkFailed, match="does not hold"), engine.labelled_copy(absent):
        pass


def test_sigterm_ends_a_container(engine: Engine, base_image: str, name: str, tmp_path: Path) -> None:
    job = Job(image=base_image, name=name, log=tmp_path / "log", command=["sh", "-c", "echo up; sleep 600"])
    raised: list[BaseException] = []

    def run() -> None:
        try:
            engine.run(job)
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: job.log.exists() and b"up" in job.log.read_bytes(), what="the container's start", seconds=60)
    process.stopping.set()
    thread.join(60)
    process.stopping.clear()
    assert isinstance(raised[0], Interrupted)
    assert containers(name) == []


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(engine: Engine, base_image: str, name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", HOLDER, engine.host, base_image, name, str(log)]) as child:
        try:
            wait_until(lambda: log.exists() and b"up" in log.read_bytes(), what="the container's start", seconds=60)
            engine.sweep()
            engine.end_own()
            assert len(containers(name)) == 1
            assert len(listed("images --format {{.Repository}}", name)) == 1
        finally:
            child.send_signal(signal.SIGKILL)
    engine.sweep()  # that of any other command may have been here first
    assert containers(name) == []
    assert listed("images --format {{.Repository}}", name) == []
    assert listed(f"images --filter label={OWNER_LABEL} --format {{{{.Repository}}}}:{{{{.Tag}}}}", f"-{child.pid}-") == []
