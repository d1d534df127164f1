from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from trainshed import owner
from trainshed.errors import Interrupted, RemoteError, ToolMissing
from trainshed.local import daemons, ports
from trainshed.local.daemons import Daemon, Running
from trainshed.tools import process

pytestmark = pytest.mark.sockets

SERVER = """import signal, socketserver, sys
class Server(socketserver.TCPServer):
    allow_reuse_address = True
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("serving", *sys.argv[2:], flush=True)
Server(("127.0.0.1", int(sys.argv[1])), socketserver.StreamRequestHandler).serve_forever()
"""


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True


def gone(found: Running) -> bool:
    return owner.start_time(found.pid) != found.start


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Return a maker of daemons that share one folder, with words for their command line."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    folder = tmp_path / "state"

    def made(*words: str, code: str | None = None) -> Daemon:
        program = [sys.executable, "-I", "-S", *(("-c", code) if code else (str(script),))]
        return Daemon(name="server", folder=folder, command=lambda port: [*program, str(port), *words], ready=connects)

    yield made
    made().end()


def test_a_server_is_started_once_and_found_again(make: Callable[..., Daemon]) -> None:
    told: list[str] = []
    first = make().ensure(on_start=lambda: told.append("start"))
    again = make().ensure(on_start=lambda: told.append("start"))
    assert (again, told) == (first, ["start"])
    assert connects(first.port)
    assert make().running() == first
    assert "serving" in make().tail()


def test_commands_that_start_at_once_start_one_server(make: Callable[..., Daemon]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _number: make().ensure(), range(4)))
    assert len(set(found)) == 1


def test_a_dead_server_is_started_anew_on_its_port(make: Callable[..., Daemon]) -> None:
    first = make().ensure()
    daemons.end_all({first.pid: first.start})
    assert make().running() is None
    second = make().ensure()
    assert second.pid != first.pid
    assert second.port == first.port


def test_a_server_whose_command_has_changed_is_started_anew(make: Callable[..., Daemon]) -> None:
    first = make().ensure()
    second = make("other").ensure()
    assert gone(first)
    assert second.pid != first.pid
    assert "serving other" in make().tail()


def test_a_version_replaces_the_command_as_the_reason_to_start_anew(make: Callable[..., Daemon]) -> None:
    first = replace(make(), version="1").ensure()
    assert replace(make("other"), version="1").ensure() == first
    assert replace(make("other"), version="2").ensure().pid != first.pid


def test_another_port_is_taken_when_a_stranger_has_ours(make: Callable[..., Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        found = replace(make(), preferred=taken).ensure()
    assert found.port != taken
    assert ports.listens(found.pid, found.port)


def test_a_stranger_that_answers_on_the_port_is_not_taken_for_the_server(make: Callable[..., Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        number = stranger.getsockname()[1]
        idle = replace(make(code="import time; time.sleep(600)"), ready=lambda _port: connects(number), ready_seconds=0.3)
        with pytest.raises(RemoteError, match=r"did not answer within 0\.3 s"):
            idle.ensure()


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(make: Callable[..., Daemon]) -> None:
    with pytest.raises(RemoteError, match=r"server ended at once:\nno licence") as caught:
        make(code="print('no licence', flush=True)").ensure()
    assert "server.log" in caught.value.next_step
    assert make().running() is None


def test_a_server_that_does_not_answer_is_ended(make: Callable[..., Daemon]) -> None:
    silent = replace(make(), ready=lambda _port: False, ready_seconds=0.2)
    with pytest.raises(RemoteError, match=r"did not answer within 0\.2 s"):
        silent.ensure()
    assert silent.running() is None
    assert not daemons._marked(str(silent.folder))


def test_a_missing_program_is_a_missing_tool(tmp_path: Path) -> None:
    daemon = Daemon(name="server", folder=tmp_path, command=lambda _port: ["/nowhere/server"], ready=connects)
    with pytest.raises(ToolMissing, match="/nowhere/server cannot be run: No such file"):
        daemon.ensure()


def test_ending_leaves_neither_process_nor_record(make: Callable[..., Daemon]) -> None:
    found = make().ensure()
    assert make().end()
    assert gone(found)
    assert not (make().folder / "daemon.json").exists()
    assert not make().end()


def test_ending_where_nothing_ever_ran_makes_no_folder(make: Callable[..., Daemon]) -> None:
    assert not make().end()
    assert not make().folder.exists()


def test_a_server_that_was_started_but_not_recorded_is_found_and_ended(make: Callable[..., Daemon]) -> None:
    orphan = make().ensure()
    (make().folder / "daemon.json").unlink()  # as when its starter was killed in between
    second = make().ensure()
    assert gone(orphan)
    assert second.pid != orphan.pid


def test_children_are_left_to_a_server_that_is_started_anew_and_ended_with_it(make: Callable[..., Daemon]) -> None:
    parent = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    serving = f"{parent} exec(sys.argv[1])"
    code = SERVER.replace("sys.argv[1]", "sys.argv[2]").replace("sys.argv[2:]", "sys.argv[3:]")
    program = [sys.executable, "-I", "-S", "-c", serving, code]
    daemon = replace(make(), command=lambda port: [*program, str(port)])
    first = daemon.ensure()
    children = daemons._marked(str(daemon.folder)).keys() - {first.pid}
    assert len(children) == 1
    daemons.end_all({first.pid: first.start})
    second = daemon.ensure()
    assert children < daemons._marked(str(daemon.folder)).keys()
    daemon.end()
    assert daemons._marked(str(daemon.folder)) == {}
    assert gone(second)


def test_a_server_that_ignores_sigterm_is_killed(make: Callable[..., Daemon]) -> None:
    found = make("stubborn").ensure()
    daemons.end_all({found.pid: found.start}, grace=0.1)
    deadline = time.monotonic() + 30
    while not gone(found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(found)


def test_a_process_of_another_start_is_left_alone(make: Callable[..., Daemon]) -> None:
    found = make().ensure()
    daemons.end_all({found.pid: "1"}, grace=0.1)
    assert not gone(found)


def test_an_interrupt_while_a_server_starts_leaves_none(make: Callable[..., Daemon]) -> None:
    def ready(_port: int) -> bool:
        process.stopping.set()
        return False

    daemon = replace(make(), ready=ready)
    with pytest.raises(Interrupted):
        daemon.ensure()
    process.stopping.clear()
    assert not daemons._marked(str(daemon.folder))
    assert not (daemon.folder / "daemon.json").exists()


def test_a_server_survives_the_signals_of_its_starters_terminal(make: Callable[..., Daemon]) -> None:
    found = make().ensure()
    assert os.getsid(found.pid) == found.pid != os.getsid(0)


JENKINS = {
    "BUILD_ID": "7",
    "HUDSON_COOKIE": "1b5f",
    "HUDSON_SERVER_COOKIE": "00aa",
    "JENKINS_COOKIE": "1b5f",
    "JENKINS_NODE_COOKIE": "9c41",
    "JENKINS_SERVER_COOKIE": "durable-5d41402abc4b2a76b9719d911017c592",
}


def test_jenkins_process_killer_finds_no_cookie_of_an_aborted_step_on_a_server(
    make: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in JENKINS.items():
        monkeypatch.setenv(name, value)
    found = make().ensure()
    carried = Path(f"/proc/{found.pid}/environ").read_bytes().decode().split("\0")
    assert not {f"{name}={value}" for name, value in JENKINS.items()} & set(carried)
    assert {f"{name}=dontKillMe" for name in JENKINS} < set(carried)


def test_a_log_that_has_grown_is_put_aside(make: Callable[..., Daemon]) -> None:
    daemon = make()
    daemon.folder.mkdir()
    daemon.log.write_bytes(b"x" * (daemons._LOG_LIMIT + 1))
    daemon.ensure()
    assert daemon.log.with_suffix(".log.1").stat().st_size > daemons._LOG_LIMIT
    assert daemon.log.stat().st_size < 1000


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"pid": 1}'])
def test_a_broken_record_is_no_server(make: Callable[..., Daemon], content: str) -> None:
    make().folder.mkdir()
    (make().folder / "daemon.json").write_text(content)
    assert make().running() is None


def test_a_zombie_is_no_server(make: Callable[..., Daemon]) -> None:
    found = make().ensure()
    os.kill(found.pid, signal.SIGKILL)  # our own child: it stays a zombie until somebody asks
    deadline = time.monotonic() + 30
    while make().running() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert make().running() is None
