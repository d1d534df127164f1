"""Unit tests cannot hurt: no socket unless the mark ``sockets`` asks for loopback, HOME nowhere, a clean environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_socket

from trainshed.tools import http, process

_LEAKING = ("TRAINSHED_", "BUILD_", "CHANGE_", "BRANCH_", "DOCKER_", "AWS_", "KF_", "KUBEFLOW_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_harm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(_LEAKING) or name.upper() in _PROXIES or name in {"CI", "NO_COLOR", "TAG_NAME"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "no-home"))
    monkeypatch.setenv("TRAINSHED_SLOTS", str(tmp_path_factory.getbasetemp() / "slots"))  # not those that this machine's commands share
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.02)  # retries are tried, not waited for
    process.stopping.clear()
    if request.node.get_closest_marker("sockets") is None:
        pytest_socket.disable_socket(allow_unix_socket=True)
    else:
        pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return an empty project: a folder with the smallest ``trainshed.toml``."""
    (tmp_path / "trainshed.toml").write_text('[project]\nname = "small"\n')
    (tmp_path / "components").mkdir()
    (tmp_path / "pipeline_templates").mkdir()
    return tmp_path
