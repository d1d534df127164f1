"""What of a machine's apt settings reaches builds: proxies, limits, mirrors of Debian; nothing that names a place of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.tools import apt

SECURITY = "Debian|Debian-Security|https://mirror.example/debian-security/"


class Machine:
    """A machine whose apt answers what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def says(self, *settings: str, targets: tuple[str, ...] = (), code: int = 0) -> None:
        for program, lines in (("apt-config", settings), ("apt-get", targets)):
            told = self.folder / f"{program}.txt"
            told.write_text("".join(f"{line}\n" for line in lines))
            script = self.folder / program
            script.write_text(f'#!/bin/sh\necho "$0 $*" >>{self.folder}/asked\ncat {told}\nexit {code}\n')
            script.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = Machine(tmp_path)
    found.says()
    return found


def test_a_machine_that_sets_nothing_gives_nothing(machine: Machine) -> None:
    assert apt.configuration() == ""
    asked = (machine.folder / "asked").read_text()
    assert "apt-config dump --no-empty --format %f %v%n Acquire" in asked
    assert "apt-get indextargets --format $(ORIGIN)|$(LABEL)|$(REPO_URI) Created-By: Packages" in asked


def test_proxies_and_limits_are_taken(machine: Machine) -> None:
    machine.says(
        "Acquire::http::Proxy http://me:word@proxy.example:3128/",
        "Acquire::https::Proxy::deb.debian.org DIRECT",
        "Acquire::Retries 5",
    )
    assert apt.configuration().splitlines() == [
        'Acquire::http::Proxy "http://me:word@proxy.example:3128/";',
        'Acquire::https::Proxy::deb.debian.org "DIRECT";',
        'Acquire::Retries "5";',
    ]


@pytest.mark.parametrize(
    "setting",
    [
        "Acquire::https::CAInfo /etc/ssl/own.pem",
        "Acquire::http::Proxy-Auto-Detect /usr/bin/auto-apt-proxy",
        "Acquire::http::Proxy http://127.0.0.1:3142",
        "Acquire::http::Proxy http://localhost:3142/",
        "Acquire::http::Proxy http://[::1]:3142/",
        "Acquire::http::Proxy http://[broken",
        "Acquire::http::Proxy",
        'Acquire::http::User-Agent a"; Acquire::AllowInsecureRepositories "1',
        "Acquire::AllowInsecureRepositories 1",
        "DPkg::Pre-Invoke rm",
    ],
)
def test_what_no_build_has_or_may_be_told_stays_here(machine: Machine, setting: str) -> None:
    machine.says(setting)
    assert apt.configuration() == ""


def test_mirrors_are_known_by_the_origin_of_their_signed_lists(machine: Machine) -> None:
    machine.says(
        targets=(
            "Example|Debian|https://packages.example/debian/",
            "Debian|Debian Backports|https://backports.example/debian/",
            "$(ORIGIN)|$(LABEL)|https://never-updated.example/debian/",
            "Debian|Debian|file:///srv/debian",
            "Debian|Debian|https://mirror.example/debian/",
            "Debian|Debian|https://second.example/debian/",
            SECURITY,
        )
    )
    assert apt.configuration().splitlines() == [
        'Trainshed::Mirror::debian "https://mirror.example/debian/";',
        'Trainshed::Mirror::debian-security "https://mirror.example/debian-security/";',
    ]


def test_debian_s_own_addresses_are_no_mirrors(machine: Machine) -> None:
    machine.says(
        targets=("Debian|Debian|http://deb.debian.org/debian/", "Debian|Debian-Security|http://security.debian.org/debian-security/")
    )
    assert apt.configuration() == ""


def test_an_apt_that_fails_or_is_missing_gives_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.says("Acquire::Retries 5", targets=(SECURITY,), code=100)
    assert apt.configuration() == ""
    monkeypatch.setenv("PATH", str(machine.folder / "nowhere"))
    assert apt.configuration() == ""
