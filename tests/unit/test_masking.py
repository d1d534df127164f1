"""What is masked of a secret: its value, and the log-ins and passwords inside settings; nothing that is public."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from trainshed import config, masking, session
from trainshed.console import Console


def test_a_value_is_masked_without_its_line_end() -> None:
    assert masking.texts("hunter22\n") == ["hunter22"]


def test_settings_give_their_log_ins_as_written_and_as_meant() -> None:
    found = masking.texts("[global]\nindex-url = https://me:p%40ssword@index/simple\n")
    assert {"me:p%40ssword", "p%40ssword", "p@ssword"} <= set(found)
    assert "[global]" not in found


@pytest.mark.parametrize(
    "text", ["machine x login me password hush-hush", "auth_token: hush-hush", 'PASSWORD="hush-hush"', "a\nsecret=hush-hush"]
)
def test_settings_give_their_passwords(text: str) -> None:
    assert "hush-hush" in masking.texts(text)


def test_each_line_of_a_key_is_masked_and_its_frame_is_not() -> None:
    found = masking.texts("-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANBg\n-----END PRIVATE KEY-----\n")
    assert "MIIEvAIBADANBg" in found
    assert "-----BEGIN PRIVATE KEY-----" not in found


@pytest.mark.parametrize("text", ["", "abc", "-----BEGIN CERTIFICATE-----\nMIIEvAIBADANBg\n", "x" * 20_000])
def test_what_is_public_or_too_short_to_hide_is_not_masked(text: str) -> None:
    assert masking.texts(text) == []


def test_a_command_masks_the_secrets_of_its_configuration_and_of_this_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "trainshed.toml").write_text(
        '[project]\nname = "small"\n[build]\nsecrets = { token = { env = "INDEX_TOKEN" }, none = { env = "UNSET_X" } }\n'
        '[ledger]\nurl = "postgresql://me:ledger-word@db/x"\n'
        '[environments.local.kubeflow]\nauth = { kind = "dex", username = "me", password-env = "DEX" }\n'
    )
    for name, value in {
        "INDEX_TOKEN": "index-word",
        "DEX": "dex-word",
        "HTTPS_PROXY": "http://me:proxy-word@proxy:1",
        "PIP_INDEX_URL": "https://me:pip-word@index/simple",
    }.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    with session.opened(config.load(project / "trainshed.toml", environment="local"), Console(stream)) as context:
        context.console.line("index-word dex-word proxy-word pip-word ledger-word other-word")
    assert stream.getvalue() == "*** *** *** *** *** other-word\n"


def test_what_jenkins_binds_is_masked_in_what_is_archived_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "trainshed.toml").write_text(
        '[project]\nname = "small"\n'
        '[environments.local.credentials]\nTOKEN = "string:t"\nREGISTRY = "username-password:r"\nUNSET = "string:u"\n'
    )
    for name, value in {"TOKEN": "text-word", "REGISTRY_USR": "user-name", "REGISTRY_PSW": "pass-word"}.items():
        monkeypatch.setenv(name, value)
    found = session.confidential(config.load(project / "trainshed.toml", environment="local"))
    assert {"text-word", "pass-word"} <= set(found)
    assert "user-name" not in found
