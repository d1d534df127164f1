from __future__ import annotations

import os
import socket

import pytest

from trainshed.errors import RemoteError
from trainshed.local import ports

pytestmark = pytest.mark.sockets
KEY = "0000abcd"


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    assert ports.choose([0, number], key=KEY) == number


def test_a_taken_port_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert not ports.free(number)
        chosen = ports.choose([number], key=KEY)
    assert 20_000 <= chosen < 32_000


def test_the_choice_depends_on_the_key_alone() -> None:
    assert next(ports._candidates(KEY)) == next(ports._candidates(KEY))
    assert next(ports._candidates(KEY)) != next(ports._candidates("0000abce"))
    assert len(set(ports._candidates(KEY))) == 12_000


def test_no_free_port_at_all_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_FIRST", 20_000)
    monkeypatch.setattr(ports, "_LAST", 20_001)
    monkeypatch.setattr(ports, "free", lambda _port: False)
    with pytest.raises(RemoteError, match="no free port between 20000 and 20001"):
        ports.choose([1], key=KEY)


def test_a_port_that_only_root_may_bind_is_not_free_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    assert not ports.free(80)


def test_another_failure_of_binding_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(socket.socket):
        def bind(self, _address: object) -> None:
            raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(socket, "socket", Broken)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        ports.free(80)


def test_only_the_process_that_listens_is_the_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert ports.listens(os.getpid(), number)
        assert not ports.listens(os.getppid(), number)
        assert not ports.listens(2**22 + 1, number)
    assert not ports.listens(os.getpid(), number)
