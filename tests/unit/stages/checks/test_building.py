"""What goes into a build beside the context: pip's settings, the CA bundle, configured secrets, the image's own stages."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from tests.support.images import component
from trainshed.errors import UsageError
from trainshed.stages.checks import building
from trainshed.stages.checks.test import _footing, _replaced
from trainshed.tools import apt
from trainshed.values import Secret


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("PIP_") or name in {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(building, "_PIP_FILES", (tmp_path / "etc" / "pip.conf",))


def settings() -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read_string(building.pip_configuration())
    return dict(parser["global"])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_machine_without_settings_gives_an_empty_file() -> None:
    assert settings() == {}


def test_later_files_and_then_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "etc" / "pip.conf", "[global]\nindex-url = https://etc/simple\ntimeout = 7\nretries = 2\n")
    write(tmp_path / ".config" / "pip" / "pip.conf", "[install]\nindex-url = https://home/simple\n")
    monkeypatch.setenv("PIP_RETRIES", "9")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(write(tmp_path / "named.conf", "[global]\nproxy = http://proxy:1\n")))
    assert settings() == {"index-url": "https://home/simple", "timeout": "7", "retries": "9", "proxy": "http://proxy:1"}


def test_paths_of_this_machine_and_unknown_settings_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "etc" / "pip.conf", "[global]\ncert = /etc/ssl/own.pem\ntarget = /opt\nfind-links = /opt/wheels https://links/%40x\n")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a/simple\nhttps://b/simple")
    assert settings() == {"find-links": "https://links/%40x", "extra-index-url": "https://a/simple https://b/simple"}


def test_a_broken_file_is_left_to_pip(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "pip.conf", "no section = 1")
    assert settings() == {}


def test_mounted_secrets_become_private_files_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "token.txt", "from-file")
    bundle = write(tmp_path / "ca.pem", "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("MY_KEY", "from-env")
    configured = {"token": Secret(file="token.txt"), "key": Secret(env="MY_KEY"), "unmounted": Secret(file="missing")}
    scratch = tmp_path / "scratch"
    with building._secrets(["token", "key", "ca", "pip", "unknown"], configured, scratch, tmp_path) as found:
        content = {name: path.read_text() for name, path in found.items()}
        assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o600}
    assert content == {"token": "from-file", "key": "from-env", "ca": "certificates", "pip": "[global]\n\n"}


def test_apt_s_settings_are_a_secret_of_their_own_and_none_where_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "configuration", lambda: 'Acquire::http::Proxy "http://me:apt-word@proxy:1";\n')
    with building._secrets(["apt"], {}, tmp_path / "scratch", tmp_path) as found:
        assert found["apt"].read_text() == 'Acquire::http::Proxy "http://me:apt-word@proxy:1";\n'
        assert "apt-word" in building._masked(found)
    monkeypatch.setattr(apt, "configuration", lambda: "")
    with building._secrets(["apt"], {}, tmp_path / "scratch", tmp_path) as found:
        assert found == {}


def test_what_a_build_is_told_in_confidence_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-word@proxy:1")
    pip = write(tmp_path / "pip.conf", "[global]\nindex-url = https://me:pip-word@index/simple\n")
    token = write(tmp_path / "token", "token-word\n")
    assert {"proxy-word", "pip-word", "token-word"} <= set(building._masked({"pip": pip, "token": token}))


@pytest.mark.parametrize(
    ("secret", "message"),
    [(Secret(file="missing.txt"), r"build\.secrets\.token: .*missing\.txt cannot be read"), (Secret(env="UNSET_X"), "UNSET_X is not set")],
)
def test_a_secret_that_is_not_there_is_named(tmp_path: Path, secret: Secret, message: str) -> None:
    with pytest.raises(UsageError, match=message), building._secrets(["token"], {"token": secret}, tmp_path, tmp_path):
        pass


def test_a_configured_ca_wins_over_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(write(tmp_path / "machine.pem", "machine")))
    configured = {"ca": Secret(file=str(write(tmp_path / "own.pem", "own")))}
    with building._secrets(["ca"], configured, tmp_path / "scratch", tmp_path) as found:
        assert found["ca"].read_text() == "own"


@pytest.mark.parametrize(
    ("dockerfile", "through", "below"),
    [
        ("FROM python:3.11 AS image\nFROM image AS test\n", "test", "image"),
        ("FROM python:3.11 AS program\nFROM program AS test\nFROM program\n", "test", "program"),
        ("FROM python:3.11 AS a\nFROM a AS b\nFROM b AS tools\nFROM tools AS test\nFROM b AS image\n", "tools", "b"),
    ],
)
def test_tests_stand_on_a_stage_of_the_image(tmp_path: Path, dockerfile: str, through: str, below: str) -> None:
    stage, parent = _footing(component(tmp_path, dockerfile))
    assert (stage.name, parent.name) == (through, below)


def test_tests_beside_the_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:1: the stage 'test' does not stand on the image: its FROM leads to 'python:3.11'"):
        _footing(component(tmp_path, "FROM python:3.11 AS test\nFROM python:3.11\n"))


def test_the_image_takes_the_place_of_a_stage(tmp_path: Path) -> None:
    made = component(tmp_path, "FROM python:3.11 AS image\nFROM image \\\n  AS test\nRUN x\n")
    stage, _ = _footing(made)
    text = _replaced(made.dockerfile.text, stage, ["FROM image@sha256:1 AS test"])
    assert text == "FROM python:3.11 AS image\nFROM image@sha256:1 AS test\nRUN x\n"


def test_stages_behind_the_image_are_cut(tmp_path: Path) -> None:
    text = "FROM python:3.11\nCOPY . /\nFROM python:3.11 AS test\nRUN y\n"
    assert building._up_to_the_image(component(tmp_path, text), text) == "FROM python:3.11\nCOPY . /\n"
