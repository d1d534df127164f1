"""The room of a command: what is opened when it is first asked for."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.settings import Tier
from trainshed.stages.context import Context

REMOTE = '[environments.dev]\nregistry = {url = "registry.example.org/ml"}\n'


class FakeEmbedded:
    """Embedded services that count how often their registry is asked for."""

    asked = 0

    def registry_address(self) -> str:
        self.asked += 1
        return "127.0.0.1:5000"

    def kubeflow_address(self) -> str:
        return "http://127.0.0.1:5001"


def room(folder: Path, environment: str) -> tuple[Context, FakeEmbedded]:
    (folder / "trainshed.toml").write_text('[project]\nname = "small"\n' + REMOTE)
    loaded = config.load(folder / "trainshed.toml", environment=environment)
    context, embedded = Context(config=loaded, console=Console(io.StringIO()), tier=Tier.LAPTOP), FakeEmbedded()
    vars(context)["embedded"] = embedded
    return context, embedded


@pytest.mark.parametrize(("environment", "asked"), [("local", 1), ("dev", 0)])
def test_an_embedded_registry_runs_for_those_who_know_its_address_from_a_lock(tmp_path: Path, environment: str, asked: int) -> None:
    context, embedded = room(tmp_path, environment)
    assert context.registry is context.registry
    assert embedded.asked == asked
    context.close()


@pytest.mark.parametrize(("environment", "asked"), [("local", 1), ("dev", 0)])
def test_an_embedded_registry_runs_for_the_tasks_of_an_embedded_kubeflow(tmp_path: Path, environment: str, asked: int) -> None:
    context, embedded = room(tmp_path, environment)
    assert context.kubeflow is context.kubeflow
    assert embedded.asked == asked
    context.close()
