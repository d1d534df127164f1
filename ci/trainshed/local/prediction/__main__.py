"""``python -m trainshed.local.prediction --state DIR --port N``: the embedded Prediction Service, until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from trainshed.local.prediction.containers import Containers
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.faults import Faults
from trainshed.local.prediction.records import Store
from trainshed.local.prediction.server import Server
from trainshed.local.prediction.vault import Vault


def main() -> int:
    """Serve until SIGTERM or SIGINT, then stop every container; what is asked for stays in the state."""
    parser = argparse.ArgumentParser(prog="trainshed.local.prediction", description="the embedded Prediction Service")
    parser.add_argument("--state", type=Path, required=True, help="folder of what outlives this process")
    parser.add_argument("--port", type=int, required=True, help="port on loopback; 0 takes a free one")
    parser.add_argument("--engine", default="", help="address of the container engine; empty for the default socket")
    parser.add_argument("--faults", action="store_true", help="answer /_embedded/faults: for tests")
    arguments = parser.parse_args()

    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    state: Path = arguments.state
    (state / "logs").mkdir(parents=True, exist_ok=True)
    store = Store(state / "state.json")
    with store.changing():  # its identity is on the disk before the first container carries it
        pass
    if store.unwritten:
        return 1
    vault = Vault(state / "secrets.json")
    faults = Faults(allowed=arguments.faults)
    controller = Controller(store, Containers(arguments.engine, store.identity), state / "logs", faults=faults, vault=vault)
    server = Server(arguments.port, store, controller)
    controller.start()
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    serving.start()
    sys.stderr.write(f"listening on http://127.0.0.1:{server.server_address[1]}\n")
    sys.stderr.flush()
    ending.wait()
    server.shutdown()
    clean = controller.end()
    server.server_close()
    return 0 if clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
