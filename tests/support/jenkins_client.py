"""What tests of the client of Jenkins share: the parameters of their jobs, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.support.jenkins_server import FakeJob, JenkinsServer, Parameter
from trainshed.tools.jenkins import Build

PARAMETERS = (
    Parameter("ENVIRONMENT", "local", description="where to"),
    Parameter("LAUNCH", default=False, kind="Boolean"),
    Parameter("GATES", "", "Text"),
    Parameter("BUMP", None, "Choice", ("auto", "none")),
    Parameter("SECRET", "hush", "Password"),
)
PATIENT = 60.0


def branch_of(server: JenkinsServer, name: str) -> FakeJob:
    return server.root.children["team"].children["repo"].children[name]


def in_background(call: Callable[[], Build]) -> tuple[threading.Thread, list[Build | BaseException]]:
    ended: list[Build | BaseException] = []

    def run() -> None:
        try:
            ended.append(call())
        except BaseException as error:  # noqa: BLE001 - handed on to the test
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)
