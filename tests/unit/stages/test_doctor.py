from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, ToolMissing, TrainshedError, UsageError
from trainshed.local import debian
from trainshed.local.services import ServiceStatus
from trainshed.results import Status
from trainshed.settings import Tier
from trainshed.stages import doctor
from trainshed.stages.context import Context
from trainshed.stages.doctoring import machine, services
from trainshed.stages.doctoring.finding import Finding
from trainshed.tools import process
from trainshed.tools.builder import BuildClient
from trainshed.tools.docker import Engine
from trainshed.tools.kubeflow_identity import Identity
from trainshed.tools.kubeflow_records import Server

REMOTE = """
[environments.dev]
registry = { url = "registry.example.org/ml" }
kubeflow = { host = "https://kubeflow.example.org" }
prediction-service = { cluster = "prediction" }
"""


def kubeflow_as(identity: Identity, *, ready: Callable[[], object] = lambda: None, warnings: tuple[str, ...] = ()) -> SimpleNamespace:
    """Make a client of a Kubeflow that lets somebody in."""
    server = Server(version="2.17.0", multi_user=False)
    return SimpleNamespace(
        login=SimpleNamespace(identity=lambda: identity),
        require_ready=lambda: ready() or list(warnings),
        server=lambda: server,
    )


class FakeEmbedded:
    """Embedded services of which some run."""

    def __init__(self, engine: str | None = None, **running: str) -> None:
        self.engine, self.running = engine, running

    def found_engine(self) -> str | None:
        return self.engine

    def status(self) -> list[ServiceStatus]:
        names = ("registry", "kubeflow", "prediction")
        return [
            ServiceStatus(name=name, state="running" if name in self.running else "stopped", address=self.running.get(name, ""))
            for name in names
        ]


@pytest.fixture
def make(project: Path) -> Callable[..., Context]:
    """Return a maker of contexts: an environment, and what is put in place of clients."""

    def made(environment: str = "local", text: str = REMOTE, **clients: Any) -> Context:
        (project / "trainshed.toml").write_text('[project]\nname = "small"\n' + text)
        loaded = config.load(project / "trainshed.toml", environment=environment)
        context = Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)
        vars(context).update({"embedded": FakeEmbedded(), **clients})
        return context

    return made


def told(context: Context) -> str:
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def failing(error: TrainshedError) -> Callable[[Context], Finding]:
    def check(_context: Context) -> Finding:
        raise error

    return check


def test_every_check_runs_and_the_worst_decides(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {
        "scissors": failing(ToolMissing("no scissors\nanywhere", next_step="Buy some.")),
        "paper": lambda _context: Finding(text="white"),
        "stone": lambda _context: Finding(text="grey", warning="heavy"),
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    context = make()
    report = doctor.doctor(context)
    assert [(result.name, result.status) for result in report.results] == [
        ("scissors", Status.FAILED),
        ("paper", Status.DONE),
        ("stone", Status.DONE),
    ]
    assert report.exit_code == 4
    assert report.document()["results"][0]["next"] == "Buy some."
    lines = [" ".join(line.split()) for line in told(context).splitlines()]
    assert "scissors missing no scissors anywhere" in lines
    assert "paper good white" in lines
    assert "stone warning grey; heavy" in lines
    assert "scissors: Buy some." in lines


def test_a_service_that_does_not_answer_gives_exit_code_5(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"registry": failing(RemoteError("no answer"))})
    assert doctor.doctor(make()).exit_code == 5


def test_an_old_python_is_refused(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    assert sys.executable in machine.python(make()).text
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (4, 0))
    with pytest.raises(ToolMissing, match="is too old"):
        machine.python(make())


def test_folders_that_cannot_be_written_are_named(make: Callable[..., Context]) -> None:
    context = make()
    assert machine.folders(context).text == ".trainshed and build can be written"
    context.config.project.work_dir.rmdir()
    context.config.project.work_dir.touch()
    with pytest.raises(UsageError, match="build cannot be written: File exists"):
        machine.folders(context)


def test_a_full_disk_is_refused_and_a_narrow_one_warned_of(make: Callable[..., Context], tmp_path: Path) -> None:
    assert "GiB free at" in machine.disk(make()).text
    assert machine.room(tmp_path / "not" / "yet", needed=1, comfortable=1).warning == ""
    assert "several images" in machine.room(tmp_path, needed=1, comfortable=2**60).warning
    with pytest.raises(ToolMissing, match="images need"):
        machine.room(tmp_path, needed=2**60)


def test_a_missing_engine_is_said_to_be_installed_later_where_that_is_possible(
    make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "obstacle", lambda: "")
    assert "will be installed and started when needed" in machine.engine(make()).text
    assert machine.build_client(make()).text == "comes with the engine"
    monkeypatch.setattr(debian, "obstacle", lambda: "this user is not root")
    with pytest.raises(ToolMissing, match="none can be installed from here: this user is not root") as caught:
        machine.engine(make())
    assert "DOCKER_HOST" in caught.value.next_step


@pytest.mark.parametrize("version", ["19.03.15", "dev"])
def test_an_engine_is_named_with_its_version_and_an_old_one_refused(
    make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    context = make(embedded=FakeEmbedded("unix:///there.sock"))
    monkeypatch.setattr(Engine, "connect", lambda _host: nullcontext(SimpleNamespace(version="20.10.24+dfsg1")))
    assert machine.engine(context).text == "20.10.24+dfsg1 at unix:///there.sock"
    monkeypatch.setattr(Engine, "connect", lambda _host: nullcontext(SimpleNamespace(version=version)))
    with pytest.raises(ToolMissing, match=f"the engine at unix:///there.sock is version {version}"):
        machine.engine(context)


@pytest.mark.parametrize(("buildkit", "warning"), [(True, ""), (False, "without BuildKit, secret mounts fail")])
def test_a_client_without_buildkit_is_warned_of(
    make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, *, buildkit: bool, warning: str
) -> None:
    client = BuildClient(program="/usr/bin/docker", version="20.10", buildkit=buildkit, buildx=False, engine_host="unix:///there.sock")
    monkeypatch.setattr(BuildClient, "probe", lambda *_, **__: client)
    found = machine.build_client(make(embedded=FakeEmbedded("unix:///there.sock")))
    assert found.text.startswith("/usr/bin/docker 20.10")
    assert found.warning == warning


def test_a_project_without_commit_is_warned_of(make: Callable[..., Context]) -> None:
    context = make()
    root = context.config.project.root
    assert "no commit yet" in machine.git(context).warning
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], cwd=root, check=True)
    assert machine.git(context).warning == ""


def test_the_tools_of_the_wheels_are_found_beside_the_interpreter(make: Callable[..., Context]) -> None:
    beside = str(Path(sys.executable).parent)
    assert beside in machine.structure_test(make()).text


@pytest.mark.parametrize("check", [machine.trivy, machine.structure_test, machine.git])
def test_a_missing_tool_is_named(
    make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, check: Callable[[Context], Finding]
) -> None:
    monkeypatch.setattr(process, "find", lambda _program: None)
    with pytest.raises(ToolMissing, match="was not found on PATH"):
        check(make())


def test_proxies_are_named_but_their_addresses_are_not_shown(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy.example.org:3128")
    text = machine.way_out(make()).text
    assert "HTTPS_PROXY" in text
    assert "password" not in text


def test_the_ledger_is_opened(make: Callable[..., Context]) -> None:
    context = make()
    try:
        assert machine.ledger(context).text == "SQLite under .trainshed/"
    finally:
        context.close()


def test_an_unreadable_ledger_is_an_error(make: Callable[..., Context]) -> None:
    def refused() -> None:
        raise OSError("disk I/O error")

    with pytest.raises(RemoteError, match="the ledger cannot be read: disk I/O error"):
        machine.ledger(make(ledger=SimpleNamespace(durations=refused)))


def test_embedded_services_are_told_and_not_started(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    context = make(embedded=FakeEmbedded(kubeflow="http://127.0.0.1:8888"))
    assert services.kubeflow(context).text == "embedded, http://127.0.0.1:8888"
    assert services.prediction_service(context).text == "embedded, started when needed"
    monkeypatch.setattr(debian, "find", lambda _name: None)
    monkeypatch.setattr(debian, "obstacle", lambda: "")
    assert services.registry(context).text == "embedded, installed when needed"
    monkeypatch.setattr(debian, "obstacle", lambda: "this user is not root")
    with pytest.raises(ToolMissing, match="the embedded registry's program is missing") as caught:
        services.registry(context)
    assert "environments.local.registry" in caught.value.next_step


def test_mirrors_are_asked_too_each_host_once(make: Callable[..., Context]) -> None:
    mirrors = ("docker.io", "mirror.example.org/hub"), ("quay.io", "mirror.example.org/quay"), ("ghcr.io", "registry.example.org/github")
    text = "[bases.mirrors]\n" + "".join(f'"{host}" = "{place}"\n' for host, place in mirrors) + REMOTE
    asked: list[str] = []
    context = make("dev", text, registry=SimpleNamespace(ping=asked.append))
    assert services.registry(context).text == "registry.example.org answers, mirror.example.org answers"
    assert asked == ["registry.example.org", "mirror.example.org"]


def test_the_services_of_an_environment_are_asked(make: Callable[..., Context]) -> None:
    asked: list[str] = []
    context = make(
        "dev",
        registry=SimpleNamespace(ping=asked.append),
        kubeflow=kubeflow_as(Identity(), ready=lambda: asked.append("kubeflow")),
        prediction=SimpleNamespace(check_cluster=lambda: asked.append("cluster")),
    )
    found = [check(context).text for check in (services.registry, services.kubeflow, services.prediction_service)]
    assert asked == ["registry.example.org", "kubeflow", "cluster"]
    assert found == [
        "registry.example.org answers",
        "https://kubeflow.example.org answers, Kubeflow Pipelines 2.17.0",
        "cluster prediction in us-east-1 is active",
    ]


@pytest.mark.parametrize(
    ("hours", "renews", "warned"), [(23, False, True), (25, False, False), (1, True, False)], ids=["today", "later", "rotated"]
)
def test_a_login_that_ends_within_a_day_is_warned_of(make: Callable[..., Context], *, hours: int, renews: bool, warned: bool) -> None:
    until = datetime.now(UTC) + timedelta(hours=hours)
    identity = Identity(user="me@example.org", until=until, renews=renews)
    text = REMOTE.replace(" }\nprediction", ', auth = { kind = "token", file = "t" } }\nprediction')
    context = make("dev", text, kubeflow=kubeflow_as(identity, warnings=("the server is old",)))
    found = services.kubeflow(context)
    assert ", as me@example.org, until " in found.text
    assert ("the login ends soon" in found.warning) is warned
    assert "the server is old" in found.warning


AWS = """
[environments.dev]
registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ml"
[environments.dev.aws]
account = "123456789012"
"""


@pytest.mark.parametrize(
    ("account", "said"), [("123456789012", "account 123456789012, as arn:me"), ("210987654321", "expected 123456789012")]
)
def test_whose_aws_it_is_is_told_before_any_work(make: Callable[..., Context], account: str, said: str) -> None:
    asked = SimpleNamespace(identity=lambda: SimpleNamespace(account=account, arn="arn:me"))
    context = make("dev", AWS, aws=asked)
    if account != context.config.environment.aws.account:
        with pytest.raises(UsageError, match=said):
            services.aws(context)
    else:
        assert services.aws(context).text == said


def test_an_environment_without_aws_asks_it_nothing(make: Callable[..., Context]) -> None:
    assert services.aws(make()).text == "not used"
