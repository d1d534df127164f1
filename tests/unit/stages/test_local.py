from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, UsageError
from trainshed.local import services
from trainshed.local.services import Embedded, ServiceStatus
from trainshed.results import Status
from trainshed.settings import Tier
from trainshed.stages import local
from trainshed.stages.context import Context


@pytest.fixture
def make(project: Path) -> Callable[..., Context]:
    def made(environment: str = "local", extra: str = "") -> Context:
        (project / "trainshed.toml").write_text(f'[project]\nname = "small"\n{extra}')
        loaded = config.load(project / "trainshed.toml", environment=environment)
        return Context(config=loaded, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)

    return made


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which services are asked for, in place of starting them."""
    asked: list[str] = []
    for method in ("engine_host", "registry_address", "kubeflow_address", "prediction_address"):

        def address(_embedded: Embedded, name: str = method) -> str:
            asked.append(name)
            return f"of {name}"

        monkeypatch.setattr(Embedded, method, address)
    return asked


def told(context: Context) -> str:
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_up_starts_all_that_the_environment_embeds(make: Callable[..., Context], starts: list[str]) -> None:
    context = make()
    report = local.up(context)
    assert starts == ["engine_host", "registry_address", "kubeflow_address", "prediction_address"]
    assert report.exit_code == 0
    assert {result.name: result.details["address"] for result in report.results}["registry"] == "of registry_address"
    assert "of kubeflow_address" in told(context)


def test_up_starts_only_the_engine_where_nothing_is_embedded(make: Callable[..., Context], starts: list[str]) -> None:
    remote = """[environments.dev]
registry = { url = "registry.example.org/ml" }
kubeflow = { host = "https://kubeflow.example.org" }
prediction-service = { cluster = "prediction" }
"""
    local.up(make("dev", remote))
    assert starts == ["engine_host"]


def test_a_service_that_does_not_start_leaves_the_others_alone(
    make: Callable[..., Context], starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_embedded: Embedded) -> str:
        raise RemoteError("registry ended at once", next_step="Read its log.")

    monkeypatch.setattr(Embedded, "registry_address", broken)
    report = local.up(make())
    assert [result.status for result in report.results] == [Status.DONE, Status.FAILED, Status.DONE, Status.DONE]
    assert report.results[1].message == "registry ended at once. Read its log."
    assert report.exit_code == 5
    assert len(starts) == 3


def test_the_status_is_told_and_reported(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        ServiceStatus(name="engine", state="external", address="unix:///there.sock"),
        ServiceStatus(name="registry", state="running", address="127.0.0.1:5000", pid=7, log=Path("/elsewhere/registry.log")),
        ServiceStatus(name="kubeflow", state="stopped"),
    ]
    monkeypatch.setattr(Embedded, "status", lambda _embedded: found)
    context = make()
    documents = local.status(context).document()["results"]
    assert [(one["name"], one["status"], one["state"], one["pid"]) for one in documents] == [
        ("engine", "done", "external", None),
        ("registry", "done", "running", 7),
        ("kubeflow", "skipped", "stopped", None),
    ]
    assert documents[1]["log"] == "/elsewhere/registry.log"
    assert "127.0.0.1:5000" in told(context)


def test_logs_are_printed_by_name(make: Callable[..., Context]) -> None:
    context = make()
    log = context.config.project.state / "registry" / "registry.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\nsecond\n")
    report = local.logs(context, ["registry"])
    assert "registry: .trainshed/registry/registry.log\nfirst\nsecond\n" in told(context)
    assert [result.log for result in report.results] == [".trainshed/registry/registry.log"]


def test_all_logs_are_printed_when_none_is_named(make: Callable[..., Context]) -> None:
    context = make()
    report = local.logs(context)
    assert [result.name for result in report.results] == list(services.NAMES)
    assert {result.status for result in report.results} == {Status.SKIPPED}
    assert "kubeflow: nothing written yet" in told(context)


def test_the_log_of_an_unknown_service_is_refused(make: Callable[..., Context]) -> None:
    with pytest.raises(UsageError, match="no embedded service 'registy'; perhaps you meant 'registry'"):
        local.logs(make(), ["registy"])


@pytest.mark.parametrize(("ended", "line"), [(["kubeflow", "registry"], "stopped: kubeflow, registry"), ([], "nothing ran")])
def test_down_says_what_it_stopped(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, ended: list[str], line: str) -> None:
    monkeypatch.setattr(Embedded, "down", lambda _embedded: ended)
    context = make()
    report = local.down(context)
    assert line in told(context)
    assert sorted(result.name for result in report.results if result.status is Status.DONE) == sorted(ended)
