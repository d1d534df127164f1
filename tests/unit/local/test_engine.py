from __future__ import annotations

import http.server
import ipaddress
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainshed.errors import ToolMissing
from trainshed.local import daemons, debian, engine
from trainshed.local.engine import PrivateEngine

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
lo0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


@contextmanager
def serving(file: Path, status: int) -> Iterator[None]:
    """Answer every request on a socket file with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def address_string(self) -> str:
            return "local"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with socketserver.ThreadingUnixStreamServer(str(file), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a folder whose path leaves room for a socket, whatever the name of the test."""
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        yield Path(folder)


def test_an_engine_answers_with_200(short: Path) -> None:
    with serving(short / "docker.sock", 200):
        assert engine.answers(short / "docker.sock")


def test_another_answer_or_none_is_no_engine(short: Path) -> None:
    assert not engine.answers(short / "missing.sock")
    with serving(short / "docker.sock", 500):
        assert not engine.answers(short / "docker.sock")
    assert not engine.answers(short / "docker.sock")  # the file is still there, nobody listens


def test_docker_host_comes_before_the_default_socket(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(short / "docker.sock", 200):
        assert engine.reachable(short / "docker.sock") == f"unix://{short}/docker.sock"
        monkeypatch.setenv("DOCKER_HOST", "tcp://build-host:2375")
        assert engine.reachable(short / "docker.sock") == "tcp://build-host:2375"


def test_no_engine_is_reachable_where_nobody_listens(short: Path) -> None:
    assert engine.reachable(short / "docker.sock") is None


def test_an_engine_that_this_user_may_not_use_is_said_so(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    (short / "docker.sock").touch()
    monkeypatch.setattr(engine, "_asked", refused)
    with pytest.raises(ToolMissing, match="this user may not use the container engine") as caught:
        engine.reachable(short / "docker.sock")
    assert "group docker" in caught.value.next_step


@pytest.mark.sockets
def test_an_address_is_asked_whether_somebody_listens(short: Path) -> None:
    with serving(short / "docker.sock", 200), socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert engine.listens(f"unix://{short}/docker.sock")
        assert engine.listens(f"tcp://127.0.0.1:{port}")
    assert not engine.listens(f"unix://{short}/docker.sock")
    assert not engine.listens(f"tcp://127.0.0.1:{port}")
    assert engine.listens("ssh://builder@build-host")


def test_the_routes_of_the_machine_are_read(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(ROUTES)
    assert list(engine._routes(table)) == [
        ("lo0", ipaddress.IPv4Network("0.0.0.0/0")),
        ("docker0", ipaddress.IPv4Network("172.17.0.0/16")),
    ]


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a setter of this machine's routes: networks by interface."""

    def set_to(**networks: str) -> None:
        monkeypatch.setattr(engine, "_routes", lambda: [(name, ipaddress.IPv4Network(network)) for name, network in networks.items()])

    return set_to


def test_the_containers_network_touches_no_route(routes: Callable[..., None]) -> None:
    routes(eth0="0.0.0.0/0")
    first = engine._free_network("0000abcd")
    assert first.network.prefixlen == 24
    assert first.ip == first.network.network_address + 1
    routes(eth0="0.0.0.0/0", vpn=str(first.network))
    assert not engine._free_network("0000abcd").network.overlaps(first.network)


def test_the_search_for_a_network_goes_round_and_stays_inside(routes: Callable[..., None]) -> None:
    routes(vpn="10.208.1.0/24")
    last = engine._free_network("00000fff").network
    assert last == ipaddress.IPv4Network("10.223.255.0/24")
    routes(vpn=str(last))
    assert engine._free_network("00000fff").network == ipaddress.IPv4Network("10.208.0.0/24")


def test_no_free_network_is_said_so(routes: Callable[..., None]) -> None:
    routes(vpn="10.0.0.0/8")
    with pytest.raises(ToolMissing, match="no free network in"):
        engine._free_network("0000abcd")


def test_packets_are_as_large_as_the_way_out_takes(routes: Callable[..., None]) -> None:
    routes(lo="0.0.0.0/0")
    assert engine._mtu() == int(Path("/sys/class/net/lo/mtu").read_text())
    routes(vanished="0.0.0.0/0")
    assert engine._mtu() == 1500
    routes(lo="127.0.0.0/8")
    assert engine._mtu() == 1500


def test_two_engines_share_neither_bridge_nor_namespace_nor_socket(tmp_path: Path) -> None:
    one, other = (PrivateEngine(tmp_path / name) for name in ("one", "other"))
    assert len(one.bridge) < 16  # what the kernel takes as the name of an interface
    assert one.bridge != other.bridge
    assert one.host != other.host
    assert not set(one._command()[1:]) & set(other._command()[1:]) - {"--shutdown-timeout=2", "--log-level=warn", f"--mtu={engine._mtu()}"}


def test_only_root_can_start_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(debian, "find", lambda name: f"/usr/sbin/{name}")
    with pytest.raises(ToolMissing, match="only root can start one") as caught:
        PrivateEngine(tmp_path).ensure()
    assert "DOCKER_HOST" in caught.value.next_step


def test_an_engine_that_never_ran_ends_without_a_trace(tmp_path: Path) -> None:
    private = PrivateEngine(tmp_path / "engine")
    assert not private.end()
    assert list(tmp_path.iterdir()) == []


def test_a_family_is_the_processes_that_name_a_place_with_their_children(tmp_path: Path) -> None:
    place = tmp_path / "exec"
    code = "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    family = engine._family(str(place))
    daemons.end_all(family, grace=10.0)
    parent.wait()
    parent.stdout.close()
    assert set(family) == {parent.pid, child}
    assert engine._family(str(place)) == {}
