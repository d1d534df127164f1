"""What Jenkins binds for a release: what both environments ask for, and nothing of production to a run that may not release."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.jenkins.bindings import bindings

CONFIGURATION = """[release]
environment = "prod"
[environments.dev]
credentials = { LEDGER = "string:ledger", LOGIN = "username-password:dev" }
[environments.prod]
trust = "main"
credentials = { LEDGER = "string:%s", GIT_TOKEN = "string:tags" }
"""


def bound(project: Path, capsys: pytest.CaptureFixture[str], *, release: bool, tier: Tier = Tier.MAIN, ledger: str = "ledger") -> str:
    (project / "trainshed.toml").write_text('[project]\nname = "small"\n' + CONFIGURATION % ledger)
    loaded = config.load(project / "trainshed.toml", environment="dev")
    bindings(Context(config=loaded, console=Console(stream=io.StringIO()), tier=tier), release=release)
    return capsys.readouterr().out


def test_a_release_gets_what_both_environments_ask_for(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "string LEDGER ledger\nusername-password LOGIN dev\n"
    assert bound(project, capsys, release=True) == f"string GIT_TOKEN tags\n{own}"
    assert bound(project, capsys, release=False) == own


def test_nothing_of_production_goes_to_a_run_that_may_not_release(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="environment prod is for main and above"):
        bound(project, capsys, release=True, tier=Tier.PULL_REQUEST)
    assert capsys.readouterr().out == ""


def test_a_fork_gets_nothing(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGE_FORK", "stranger")
    assert bound(project, capsys, release=True, tier=Tier.LAPTOP) == ""


def test_one_variable_for_two_credentials_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="LEDGER is bound to string:ledger for dev and to string:other for prod: a release works on both"):
        bound(project, capsys, release=True, ledger="other")
