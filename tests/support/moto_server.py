"""Moto, which answers AWS's protocols on loopback, in a process of its own: its state is the process's, and each user begins with none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def running() -> Iterator[str]:
    """Yield the address of a fresh AWS."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        assert port.isdigit(), "moto did not start"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()
