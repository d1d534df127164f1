"""The shell scripts, run for real in a copy of the repository's scripts with stand-ins for what would take minutes."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trainshed.commands import COMMANDS

ROOT = Path(__file__).parents[2]
FOR_PEOPLE = {"doctor", "config", "init"}
NAMES = {command.name.partition(" ")[0] for command in COMMANDS}
STAGES = {"test-images" if name == "test" else name: name for name in sorted(NAMES - FOR_PEOPLE)}

PYTHON = """#!/bin/sh
# stands in for python3: makes "environments" whose pip writes down what it is asked
case "$1 $2" in
    "-m venv")
        mkdir -p "$3/bin"
        printf '#!/bin/sh\\necho "$@" >> "%s/asked"\\n[ ! -e "%s/fail" ]\\n' "$CALLS" "$CALLS" > "$3/bin/python"
        printf '#!/bin/sh\\necho "$TRAINSHED_CONFIG" "$@"\\n' > "$3/bin/trainshed"
        touch "$3/bin/hatchling"
        chmod +x "$3/bin/python" "$3/bin/trainshed"
        echo venv >> "$CALLS/asked" ;;
    "-VV ") echo "Python 3.11.7" ;;
    "-c import sys"*) [ ! -e "$CALLS/old" ] ;;
    "--version "*) echo "Python 3.9.2" ;;
esac
"""


class Copy:
    """A copy of the scripts with a stand-in for python3."""

    def __init__(self, folder: Path) -> None:
        self.root, self.calls = folder / "clone", folder / "calls"
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "requirements").mkdir()
        (self.root / "requirements" / "runtime.lock").write_text("one==1.0\n")
        (folder / "bin").mkdir()
        self.calls.mkdir()
        (folder / "bin" / "python3").write_text(PYTHON)
        (folder / "bin" / "python3").chmod(0o755)
        self.environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CALLS": str(self.calls), "HOME": str(folder)}

    def run(self, script: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.root / "scripts" / script), *words]
        return subprocess.run(command, cwd=cwd or self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=60)

    def install(self) -> subprocess.CompletedProcess[str]:
        return self.run("_install", ".venv", "requirements/runtime.lock")

    def asked(self) -> list[str]:
        file = self.calls / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_an_environment_is_made_with_hashes_and_holds_this_package(copy: Copy) -> None:
    done = copy.install()
    assert done.returncode == 0, done.stderr
    venv, locked, own = copy.asked()
    assert venv == "venv"
    assert "--require-hashes --no-deps --requirement requirements/runtime.lock" in locked
    assert own.endswith(f"--no-build-isolation --no-index --editable {copy.root}")


def test_what_set_up_leaves_is_no_change_of_the_tree(copy: Copy) -> None:
    copy.run("setup")
    left = [f"{path.name}/" if path.is_dir() else path.name for path in copy.root.iterdir() if path.name.startswith(".venv")]
    ignored = subprocess.run(["git", "-C", str(ROOT), "check-ignore", *left], capture_output=True, text=True, check=False)
    assert sorted(ignored.stdout.split()) == sorted(left)
    assert ".venv/" in left


def test_an_environment_that_holds_what_is_wanted_is_left_alone(copy: Copy) -> None:
    copy.install()
    asked = copy.asked()
    assert copy.install().returncode == 0
    assert copy.asked() == asked


def test_an_environment_is_made_anew_when_its_lock_has_changed(copy: Copy) -> None:
    copy.install()
    (copy.root / "requirements" / "runtime.lock").write_text("one==2.0\n")
    (copy.root / ".venv" / "stale").touch()
    copy.install()
    assert copy.asked().count("venv") == 2
    assert not (copy.root / ".venv" / "stale").exists()


def test_an_installation_that_failed_is_begun_again(copy: Copy) -> None:
    (copy.calls / "fail").touch()
    assert copy.install().returncode != 0
    (copy.calls / "fail").unlink()
    assert copy.install().returncode == 0
    assert copy.asked().count("venv") == 2


def test_an_environment_that_somebody_else_made_is_left_alone(copy: Copy) -> None:
    (copy.root / ".venv" / "bin").mkdir(parents=True)
    assert copy.install().returncode == 0
    assert copy.asked() == []


def test_an_old_python_is_refused_with_the_next_step(copy: Copy) -> None:
    (copy.calls / "old").touch()
    done = copy.install()
    assert done.returncode == 4
    assert done.stderr == "error: Python 3.9.2 is too old\nnext: Put Python 3.11 or newer on PATH, or name it in PYTHON.\n"


@pytest.mark.parametrize(("script", "stage"), STAGES.items())
def test_a_stage_script_runs_its_stage_from_anywhere_with_its_arguments(copy: Copy, tmp_path: Path, script: str, stage: str) -> None:
    done = copy.run(script, "one two", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{copy.root}/trainshed.toml {stage} one two --json\n"


def test_a_configuration_that_is_named_goes_before_the_repositorys(copy: Copy) -> None:
    copy.environment["TRAINSHED_CONFIG"] = "/elsewhere/trainshed.toml"
    assert copy.run("plan").stdout == "/elsewhere/trainshed.toml plan\n"


def test_set_up_makes_the_environment_and_starts_the_services(copy: Copy) -> None:
    assert copy.run("setup").stdout == f"{copy.root}/trainshed.toml local up\n"


def test_packages_that_are_there_are_not_installed(copy: Copy) -> None:
    (Path(copy.environment["PATH"].split(":")[0]) / "dpkg-query").write_text("#!/bin/sh\nprintf 'ii '\n")
    (Path(copy.environment["PATH"].split(":")[0]) / "dpkg-query").chmod(0o755)
    assert copy.run("_packages", "git", "bash").returncode == 0


def test_packages_that_cannot_be_installed_are_named(copy: Copy) -> None:
    folder = Path(copy.environment["PATH"].split(":")[0])
    for name, code in (("dpkg-query", "exit 1"), ("id", "echo 1000")):
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    done = copy.run("_packages", "one", "two")
    assert done.returncode == 4
    assert done.stderr.startswith("error: missing on this machine: one two\nnext: ")


def test_missing_packages_are_installed_without_questions(copy: Copy) -> None:
    folder = Path(copy.environment["PATH"].split(":")[0])
    for name, code in (("dpkg-query", "exit 1"), ("id", "echo 0"), ("apt-get", 'echo "$DEBIAN_FRONTEND $*" >> "$CALLS/asked"')):
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    assert copy.run("_packages", "one").returncode == 0
    update, install = copy.asked()
    assert update.startswith("noninteractive")
    assert update.endswith("update")
    assert install.endswith("--yes --no-install-recommends install one")


def test_every_script_can_be_run_and_says_what_it_does() -> None:
    for script in [path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".py"] + [ROOT / ".ci" / "run"]:
        lines = script.read_text().splitlines()
        assert script.stat().st_mode & stat.S_IXUSR, script
        assert lines[0] == "#!/usr/bin/env bash", script
        assert re.match(r"# [A-Z].+[.,;:]?", lines[1]), script


def test_ci_runs_what_a_developer_runs(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "scripts" / "test").write_text('#!/bin/sh\necho "tests in $PWD"\nexit 3\n')
    (tmp_path / "scripts" / "test").chmod(0o755)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stdout.endswith(f"tests in {tmp_path}\n")
