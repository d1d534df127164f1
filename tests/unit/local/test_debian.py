from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainshed.errors import RemoteError, ToolMissing
from trainshed.local import debian

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
MINT = 'PRETTY_NAME="Linux Mint 22"\nID=linuxmint\nID_LIKE="ubuntu debian"\n'
FEDORA = 'PRETTY_NAME="Fedora Linux 43"\nID=fedora\n'


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return tmp_path / "os-release"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for apt-get first on PATH; it writes down what it is asked and does what ``apt.sh`` beside it says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apt-get"
    program.write_text(f'#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >> {tmp_path}/asked\n. {folder}/apt.sh\n')
    program.chmod(0o755)
    (folder / "apt.sh").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.mark.parametrize("text", [DEBIAN, MINT])
def test_root_can_install_on_debian_and_its_kin(release: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release.write_text(text)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert debian.obstacle(release) == ""


def test_others_than_root_cannot_install(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release.write_text(DEBIAN)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert debian.obstacle(release) == "this user is not root"


def test_another_distribution_is_named(release: Path) -> None:
    release.write_text(FEDORA)
    assert debian.obstacle(release) == "this is Fedora Linux 43"
    assert debian.obstacle(release.with_name("missing")) == "this is not Debian or Ubuntu"


def test_a_program_that_is_there_is_not_installed(apt: Path, tmp_path: Path) -> None:
    found = debian.program("sh", "dash", log=tmp_path / "log", notify=print, instead="")
    assert found.endswith("/sh")
    assert apt.is_dir()
    assert not (tmp_path / "asked").exists()


def test_a_missing_program_is_installed_without_questions(apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "obstacle", lambda: "")
    (apt / "apt.sh").write_text(f'case "$*" in *install*) cp /bin/true {apt}/brand-new ;; esac\n')
    told: list[str] = []
    found = debian.program("brand-new", "brand-new-package", log=tmp_path / "log", notify=told.append, instead="")
    assert found == str(apt / "brand-new")
    assert told == ["installing brand-new-package with apt-get"]
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update.startswith("noninteractive ")
    assert update.endswith("update")
    assert install.endswith("--no-install-recommends install brand-new-package")
    assert "DPkg::Lock::Timeout=300" in install


def test_a_package_without_its_program_is_an_error(apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "obstacle", lambda: "")
    with pytest.raises(ToolMissing, match="brand-new was not found after brand-new-package was installed"):
        debian.program("brand-new", "brand-new-package", log=tmp_path / "log", notify=print, instead="")
    assert apt.is_dir()


def test_where_nothing_can_be_installed_the_next_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "obstacle", lambda: "this is Fedora Linux 43")
    with pytest.raises(ToolMissing, match="brand-new was not found, and this is Fedora Linux 43") as caught:
        debian.program("brand-new", "x", log=tmp_path / "log", notify=print, instead="Install it by hand.")
    assert caught.value.next_step == "Install it by hand."


def test_old_lists_do_when_they_cannot_be_brought_up_to_date(apt: Path, tmp_path: Path) -> None:
    (apt / "apt.sh").write_text('case "$*" in *update*) exit 100 ;; esac\n')
    told: list[str] = []
    debian.install(["one", "two"], log=tmp_path / "log", notify=told.append)
    assert told == ["installing one, two with apt-get", "apt-get update failed; trying with the lists that are there"]


def test_a_failed_installation_says_what_apt_said(apt: Path, tmp_path: Path) -> None:
    (apt / "apt.sh").write_text('case "$*" in *install*) echo "E: Unable to locate package one"; exit 100 ;; esac\n')
    with pytest.raises(RemoteError, match="Unable to locate package one") as caught:
        debian.install(["one"], log=tmp_path / "log", notify=print)
    assert caught.value.next_step == "Run `apt-get install one` and try again."


def test_lists_that_another_apt_holds_are_waited_for(apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_LOCK_PAUSE_SECONDS", 0.01)
    refused = f'touch {tmp_path}/freed; echo "E: Could not get lock" >&2; exit 100'
    held = f'case "$*" in *update*) [ -e {tmp_path}/freed ] || {{ {refused}; }} ;; esac\n'
    (apt / "apt.sh").write_text(held)
    told: list[str] = []
    debian.install(["one"], log=tmp_path / "log", notify=told.append)
    assert told == ["installing one with apt-get"]
    assert [line.rpartition(" ")[2] for line in (tmp_path / "asked").read_text().splitlines()] == ["update", "update", "one"]
