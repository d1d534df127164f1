"""One engine and one base image for the whole run: the machine's engine, else the project's own, made from nothing and ended after."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import jenkinsfile, moto_server, prediction, production
from tests.support import small_base as small
from tests.support.registry import running_registry
from trainshed.console import Console
from trainshed.local import bases, debian, state
from trainshed.local.services import Embedded
from trainshed.tools import process
from trainshed.tools.docker import Engine

STATE = Path(__file__).parents[2] / ".trainshed"
BASE_IMAGE = "python:3.11-slim-bookworm"
_OURS = pytest.StashKey[bool]()
_LONG = ("test_side_by_side", "test_shared_registry", "test_tutorial", "test_scaffold")
_LEAKING = ("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_", "AWS_", "KF_", "KUBEFLOW_")


def _told(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Note, before any worker starts, whether the run will start an engine of its own."""
    config.stash[_OURS] = not hasattr(config, "workerinput") and Embedded(STATE).found_engine() is None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the engine that this run started; one that ran before goes on."""
    if config.stash[_OURS]:
        Embedded(STATE).private_engine.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests measured, from whichever worker: figures of a run that nobody reads again are worth little."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files of the alphabet's end: a worker that took one last would work alone."""
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    process.stopping.clear()


@pytest.fixture(scope="session", autouse=True)
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the engine's address, as ``DOCKER_HOST`` has it for the whole run; the programs that tests start are there too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_LEAKING) or name in {"CI", "NO_COLOR", "TAG_NAME"}:
                patch.delenv(name)
        with state.locked(STATE / "tests.lock", timeout=1800):  # the workers of one run start at once
            host = Embedded(STATE, notify=_told).engine_host()
            for program in ("docker-registry", "debootstrap"):
                debian.program(program, program, log=STATE / "install.log", notify=_told, instead=f"Install {program}.")
        patch.setenv("DOCKER_HOST", host)
        patch.setenv("TRAINSHED_SLOTS", str(tmp_path_factory.mktemp("slots")))  # the other worker's work is not to be waited for
        yield host


@pytest.fixture(scope="session")
def base_image(docker_host: str) -> str:
    """Return the Python base that the engine holds by now: pulled, or made from Debian's packages."""
    with Engine.connect(docker_host) as engine:
        assert bases.ensure_base(engine, BASE_IMAGE, state=STATE, console=Console(stream=sys.stderr))
    return BASE_IMAGE


@pytest.fixture(scope="session")
def image_registry(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return ``127.0.0.1:PORT`` of a real registry that lives as long as the run."""
    assert docker_host
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def small_base(docker_host: str, base_image: str, image_registry: str) -> str:
    """Return a small Python base in that registry, for projects whose images are built and checked again and again."""
    return small.push(docker_host, base_image, f"{image_registry}/bases/python:3.11-slim-bookworm")


@pytest.fixture(scope="session")
def jenkins_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled pipeline steps that a Jenkinsfile runs on in tests."""
    return jenkinsfile.compiled(tmp_path_factory.mktemp("jenkins") / "classes")


@pytest.fixture(scope="session")
def production_doors(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[prediction.Running, production.Gateway]]:
    """Return a Prediction Service that fails on request, and the gateway before it and before moto's AWS."""
    with (
        moto_server.running() as others,
        prediction.running(tmp_path_factory.mktemp("prediction"), docker_host, "--faults") as server,
        production.gateway(server.url, others) as door,
    ):
        yield server, door


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Return the address of AWS as moto answers, with nothing in it yet."""
    with moto_server.running() as address:
        yield address


@pytest.fixture(scope="session")
def production_images(docker_host: str, small_base: str, tmp_path_factory: pytest.TempPathFactory) -> production.Images:
    """Return the images of one program with switches."""
    repository = f"{small_base.partition('/')[0]}/small/answer"
    return production.Images(docker_host, repository, small_base, tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Return the addresses of two registries that know nothing of each other."""
    folder = tmp_path_factory.mktemp("registries")
    with running_registry(folder / "one") as one, running_registry(folder / "two") as two:
        yield one, two


@pytest.fixture
def world(
    production_doors: tuple[prediction.Running, production.Gateway],
    production_images: production.Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[production.World]:
    """Return a project of its own service, to be deployed to that environment; afterwards nothing of the service runs."""
    server, door = production_doors
    for name, value in production.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("trainshed.tools.ecs._POLL_ECS", production.POLL)
    door.reset()
    made = production.World(tmp_path, name=f"answer-{uuid.uuid4().hex[:8]}", images=production_images, server=server, door=door)
    yield made
    made.end()
