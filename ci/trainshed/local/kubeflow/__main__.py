"""``python -m trainshed.local.kubeflow --state DIR --port N --engine HOST``: serve until SIGTERM, which ends the runs too."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from trainshed.local.kubeflow.api import Api
from trainshed.local.kubeflow.metadata import Metadata
from trainshed.local.kubeflow.runs import Runs
from trainshed.local.kubeflow.server import Server
from trainshed.local.kubeflow.store import Store


def main(arguments: Sequence[str]) -> int:
    """Serve; return 0 after SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="trainshed.local.kubeflow", description="The embedded Kubeflow Pipelines API.")
    parser.add_argument("--state", type=Path, required=True, help="folder of database, runs and artifacts")
    parser.add_argument("--port", type=int, required=True, help="port on loopback")
    parser.add_argument("--engine", default="", help="address of the container engine; empty: the client's default")
    parser.add_argument("--network", choices=("none", "bridge"), default="none", help="network of the tasks' containers")
    asked = parser.parse_args(arguments)
    state = asked.state.resolve()
    store = Store(state / "kubeflow.sqlite")
    runs = Runs(state / "runs", engine=asked.engine or None, network=asked.network)
    server = Server(Api(store, runs), Metadata(store, runs), asked.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        runs.close()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
