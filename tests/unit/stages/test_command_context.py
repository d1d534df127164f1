"""The room of a command: what is opened when it is first asked for."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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


class Asked:
    """AWS of any region that gives tokens and says where it was asked."""

    def __init__(self, seen: list[str], region: str) -> None:
        self.seen, self.region = seen, region

    def elsewhere(self, region: str) -> Asked:
        return Asked(self.seen, region)

    def call(self, *_: str) -> Mapping[str, Any]:
        self.seen.append(self.region)
        token = base64.b64encode(f"AWS:hush-of-{self.region}".encode()).decode()
        return {"authorizationData": [{"authorizationToken": token, "expiresAt": datetime.now(UTC) + timedelta(hours=12)}]}


def test_ecr_is_logged_in_to_by_a_token_of_its_region_and_others_as_docker_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, far, other = "registry.example.org:5000", "999999999999.dkr.ecr.us-east-1.amazonaws.com", "ghcr.io"
    kept = {"auths": {host: {"auth": base64.b64encode(b"me:docker").decode()} for host in (own, far, other)}}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "trainshed.toml").write_text(
        f'[project]\nname = "small"\n[environments.dev]\nregistry = {{ url = "{own}/ml", ecr = "123456789012/eu-west-1" }}\n'
    )
    out, seen = io.StringIO(), list[str]()
    context = Context(config=config.load(tmp_path / "trainshed.toml", environment="dev"), console=Console(out), tier=Tier.LAPTOP)
    vars(context)["aws"] = Asked(seen, "eu-west-1")
    assert context.ecr is not None
    ours, theirs = context.ecr.login(own), context.token(far)
    assert theirs is not None
    assert [(login.username, login.password) for login in (ours, theirs)] == [("AWS", "hush-of-eu-west-1"), ("AWS", "hush-of-us-east-1")]
    assert (context.login(own), context.login(far)) == (ours, theirs)
    assert context.tokens([f"{far}/a/b:1", f"{own}/ml/a@sha256:{'a' * 64}", f"{other}/x:1", "python:3"]) == {own: ours, far: theirs}
    kept_by_docker = context.login(other)
    assert kept_by_docker is not None
    assert (kept_by_docker.username, kept_by_docker.password) == ("me", "docker")
    assert (context.token(other), seen) == (None, ["eu-west-1", "us-east-1"])
    context.console.line("said hush-of-us-east-1")
    assert "hush" not in out.getvalue()
    context.close()
