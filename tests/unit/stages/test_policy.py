"""Whose policy holds, in real repositories: a clone on which Jenkins builds a pull request, and the target branch that it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.repositories import Repository
from trainshed import cli, commands
from trainshed.findings import waivers

TARGET = """
[project]
name = "small"
[scan]
fail-on = "medium"
unfixed = "fail"
[bases]
approved = ["docker.io/library/python"]
[environments.dev]
registry = "registry.example.org/ml"
trust = "pull-request"
credentials = { TOKEN = "string:dev" }
scan = { without-db = "fail" }
[environments.prod]
registry = "registry.example.org/prod"
trust = "main"
credentials = { TOKEN = "string:prod", CONFIG = "file:prod", LOGIN = "username-password:ecr" }
"""
EASY = """
[project]
name = "small"
[scan]
fail-on = "never"
waivers = "mine.toml"
[bases]
approved = ["docker.io/library/python", "docker.io/evil/python"]
[environments.dev]
registry = "registry.example.org/elsewhere"
trust = "laptop"
credentials = { TOKEN = "string:dev", ALL = "string:prod" }
scan = { without-db = "warn", fail-on = "never" }
[environments.prod]
registry = "registry.example.org/prod"
credentials = { TOKEN = "string:prod" }
[environments.mine]
registry = "registry.example.org/prod"
credentials = { TOKEN = "string:prod" }
scan = { fail-on = "never" }
"""
WAIVER = '[[waiver]]\nid = "{}"\nowner = "o"\nreason = "r"\nexpires = 2099-01-01\n'
CHANGE = {"BUILD_URL": "https://jenkins.example.org/job/7/", "CHANGE_ID": "7", "CHANGE_TARGET": "main", "BRANCH_NAME": "PR-7"}


@dataclass
class Said:
    """What a command did: its exit code, what stood on stdout, and what people saw."""

    code: int
    out: str
    told: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return dict(json.loads(self.out))

    def value(self, path: str) -> Any:
        """Return a value that ``trainshed config`` has shown, with its source."""
        entry = self.document["values"][path]
        return (entry["value"], entry["source"])


Run = Callable[..., Said]


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    made = Repository.new(tmp_path / "origin")
    made.write("trainshed.toml", TARGET)
    made.write("waivers.toml", WAIVER.format("CVE-1"))
    made.commit()
    return made


@pytest.fixture
def change(origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return the checkout of a pull request that makes it all easier for itself."""
    made = origin.clone(tmp_path / "workspace")
    made.write("trainshed.toml", EASY)
    made.write("waivers.toml", WAIVER.format("CVE-1") + WAIVER.format("CVE-2"))
    made.write("mine.toml", WAIVER.format("CVE-2"))
    made.commit()
    for name, value in CHANGE.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(where: Repository | Path, *words: str) -> Said:
        monkeypatch.chdir(where.root if isinstance(where, Repository) else where)
        code = cli.main(words)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


def short(repository: Repository) -> str:
    return repository.git("rev-parse", "origin/main")[:7]


def test_a_pull_request_is_held_to_the_policy_of_its_target(change: Repository, run: Run) -> None:
    said = run(change, "--json", "--env", "dev", "config")
    source = f"policy of origin/main ({short(change)})"
    assert said.value("scan.fail-on") == ("medium", source)
    assert said.value("scan.unfixed") == ("fail", source)
    assert said.value("scan.without-db") == ("fail", source)
    assert said.value("bases.approved") == (["docker.io/library/python"], source)
    assert said.value("environments.dev.trust") == ("pull-request", source)
    assert said.value("environments.dev.credentials") == ({"TOKEN": "string:dev"}, source)
    assert said.value("scan.waivers") == ("waivers.toml", "default")
    assert said.value("environments.dev.registry") == ({"url": "registry.example.org/elsewhere", "insecure": False}, "file")


def test_what_differs_is_told_in_one_line_with_the_waivers_after_the_merge(change: Repository, run: Run) -> None:
    change.write("mine.toml", WAIVER.format("CVE-2") + WAIVER.format("CVE-3"))
    lines = [line for line in run(change, "--env", "dev", "config").told.splitlines() if "after the merge" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"policy of origin/main ({short(change)}); ")
    for name in ("scan.fail-on", "scan.unfixed", "scan.without-db", "scan.waivers", "bases.approved", "environments.dev.credentials"):
        assert name in lines[0]
    assert "the waivers (1 in force, 2 after the merge)" in lines[0]
    assert "scan.scanners" not in lines[0]


def test_a_pull_request_that_leaves_the_policy_alone_is_told_so(change: Repository, run: Run) -> None:
    change.git("checkout", "--quiet", "origin/main")
    assert f"policy of origin/main ({short(change)}); the tree's is the same" in run(change, "config").told


def test_the_waivers_in_force_are_the_targets_and_no_file_that_the_tree_planted(
    change: Repository, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = change.git("rev-parse", "origin/main")
    planted = [change.write(f".trainshed/policy/{commit}/{name}", WAIVER.format("CVE-2")) for name in ("waivers.toml", "none.toml")]
    assert run(change, "config").code == 0
    assert [waiver.id for waiver in waivers.load(planted[0])] == ["CVE-1"]
    monkeypatch.setenv("TRAINSHED_SCAN_WAIVERS", "none.toml")
    assert run(change, "config").code == 0
    assert not planted[1].exists()


def test_an_environment_that_a_pull_request_adds_has_the_targets_project_wide_policy_and_no_credentials(
    change: Repository, run: Run
) -> None:
    said = run(change, "--json", "--env", "mine", "config")
    assert said.value("scan.fail-on")[0] == "medium"
    assert said.value("environments.mine.credentials") == ({}, "default")
    assert run(change, "--env", "mine", "jenkins", "bindings").out == ""


def test_the_projects_folder_may_lie_below_the_repository(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Repository.new(tmp_path / "origin")
    origin.write("ml/trainshed.toml", TARGET)
    origin.write("ml/waivers.toml", WAIVER.format("CVE-1"))
    origin.write("waivers.toml", WAIVER.format("CVE-of-another-project"))
    origin.commit()
    change = origin.clone(tmp_path / "workspace")
    change.write("ml/trainshed.toml", EASY)
    for name, value in CHANGE.items():
        monkeypatch.setenv(name, value)
    assert run(change.root / "ml", "--json", "config").value("scan.fail-on")[0] == "medium"
    commit = change.git("rev-parse", "HEAD")
    assert [waiver.id for waiver in waivers.load(change.root / "ml" / ".trainshed" / "policy" / commit / "waivers.toml")] == ["CVE-1"]


def test_a_configuration_that_became_a_link_is_looked_up_by_its_own_name(change: Repository, run: Run) -> None:
    (change.root / "trainshed.toml").unlink()
    change.write("elsewhere/easy.toml", EASY)
    (change.root / "trainshed.toml").symlink_to("elsewhere/easy.toml")
    assert run(change, "--json", "config").value("scan.fail-on")[0] == "medium"


def test_a_folder_of_the_project_that_became_a_link_is_looked_up_by_its_own_name(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Repository.new(tmp_path / "origin")
    origin.write("ml/trainshed.toml", TARGET)
    origin.commit()
    change = origin.clone(tmp_path / "workspace")
    (change.root / "ml").rename(change.root / "moved")
    (change.root / "ml").symlink_to("moved")
    change.write("moved/trainshed.toml", EASY)
    for name, value in CHANGE.items():
        monkeypatch.setenv(name, value)
    said = run(change, "--json", "--config", "ml/trainshed.toml", "config")
    assert said.value("scan.fail-on")[0] == "medium"


def test_a_tag_that_is_called_like_the_target_branch_is_not_taken_for_it(change: Repository, run: Run) -> None:
    change.git("tag", "origin/main", "HEAD")
    assert run(change, "--json", "config").value("scan.fail-on")[0] == "medium"


def test_a_target_without_the_file_means_the_defaults_and_says_so(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Repository.new(tmp_path / "origin")
    origin.write("README.md", "nothing yet")
    origin.commit()
    change = origin.clone(tmp_path / "workspace")
    change.write("trainshed.toml", EASY)
    change.write("mine.toml", WAIVER.format("CVE-2"))
    for name, value in CHANGE.items():
        monkeypatch.setenv(name, value)
    said = run(change, "--json", "config")
    assert said.value("scan.fail-on") == ("high", "default")
    assert "which has no trainshed.toml: the defaults" in said.told
    assert "the waivers (0 in force, 1 after the merge)" in said.told


@pytest.mark.parametrize(
    ("variables", "said", "step"),
    [
        ({"CHANGE_TARGET": "release/2"}, "origin/release/2 is not in this checkout", "refs/remotes/origin/release/2"),
        ({"CHANGE_TARGET": ""}, "CHANGE_TARGET is not set", "multibranch job"),
        ({"CHANGE_ID": "", "TRAINSHED_POLICY_FROM": "v9"}, "TRAINSHED_POLICY_FROM: no revision v9", "Fetch it"),
    ],
)
def test_a_policy_that_is_not_there_is_an_error_with_the_next_step(
    change: Repository, run: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str, step: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run(change, "config")
    assert done.code == 2
    assert said in done.told
    assert step in done.told.partition("next:")[2]


def test_a_folder_without_git_has_no_target_branch(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "trainshed.toml").write_text(EASY)
    for name, value in CHANGE.items():
        monkeypatch.setenv(name, value)
    assert run(tmp_path, "config").code == 2


def test_a_link_in_the_target_is_no_policy(change: Repository, origin: Repository, run: Run) -> None:
    (origin.root / "waivers.toml").unlink()
    (origin.root / "waivers.toml").symlink_to("trainshed.toml")
    origin.commit()
    change.git("fetch", "--quiet")
    done = run(change, "config")
    assert (done.code, "waivers.toml is no plain file" in done.told) == (2, True)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("trainshed.toml", "[scan\n", ": trainshed.toml: not TOML"),
        ("trainshed.toml", '[scan]\nfail-on = "hgih"\n', ": trainshed.toml: scan.fail-on: expected one of"),
        ("trainshed.toml", "environments = 1\n", ": trainshed.toml: environments: expected tables"),
        ("waivers.toml", "[[waiver]]\nid = 'x'\n", "waivers.toml of origin/main"),
    ],
)
def test_a_wrong_policy_is_told_with_the_place_where_it_stands(
    change: Repository, origin: Repository, run: Run, path: str, text: str, said: str
) -> None:
    origin.write(path, text)
    origin.commit()
    change.git("fetch", "--quiet")
    done = run(change, "config")
    assert done.code == 2
    assert said in done.told
    assert f"({short(change)})" in done.told


def test_a_pull_request_that_breaks_the_policy_is_red_before_the_merge(change: Repository, run: Run) -> None:
    change.write("mine.toml", "[[waiver]]\nid = 'x'\n")
    assert "mine.toml: waiver 1 (x): owner is missing" in run(change, "config").told
    change.write("trainshed.toml", '[scan]\nfail-on = "hgih"\n')
    done = run(change, "config")
    assert (done.code, "scan.fail-on: expected one of" in done.told) == (2, True)


def test_a_variable_wins_over_the_policy_for_it_comes_from_who_runs_the_job(
    change: Repository, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_SCAN_FAIL_ON", "critical")
    assert run(change, "--json", "config").value("scan.fail-on") == ("critical", "environment")


def test_another_revision_is_taken_by_hand_but_weakens_no_pull_request(
    change: Repository, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_POLICY_FROM", "HEAD")
    assert run(change, "--json", "config").value("scan.fail-on")[0] == "medium"
    monkeypatch.delenv("CHANGE_ID")
    assert run(change, "--json", "config").value("scan.fail-on")[0] == "never"
    monkeypatch.setenv("TRAINSHED_POLICY_FROM", "origin/main")
    assert run(change, "--json", "config").value("scan.fail-on") == ("medium", f"policy of origin/main ({short(change)})")
    monkeypatch.delenv("TRAINSHED_POLICY_FROM")
    assert run(change, "--json", "config").value("scan.fail-on") == ("never", "file")


# --- who may work on what ------------------------------------------------------------------------------------------------------

OPEN = {
    "config",
    "doctor",
    "init",
    "report",
    "local up",
    "local down",
    "local status",
    "local logs",
    "status",
    "trace",
    "version",
    "audit",
    "jenkins trigger",
    "jenkins watch",
    "jenkins lock",
    "jenkins reproduce",
}


def test_every_command_that_works_on_an_environment_is_guarded() -> None:
    assert {command.name for command in commands.COMMANDS if not command.guarded} == OPEN


@pytest.mark.parametrize("command", [command.name for command in commands.COMMANDS if command.guarded])
def test_a_run_that_is_trusted_too_little_is_refused_before_anything_is_asked_or_written(
    change: Repository, run: Run, command: str
) -> None:
    before = sorted(path.relative_to(change.root) for path in change.root.iterdir())
    done = run(change, "--env", "prod", *command.split())
    assert done.code == 2
    assert "environment prod is for main and above, and this is a run of a pull request or branch" in done.told
    assert "next: It may use: local, dev, mine." in done.told
    assert done.out == ""
    after = sorted(path.relative_to(change.root) for path in change.root.iterdir())
    assert [path for path in after if path not in before] == [Path(".trainshed")]  # the copy of the target's waivers
    assert [path.name for path in (change.root / ".trainshed").iterdir()] == ["policy"]


def test_a_laptop_and_a_fork_may_use_only_what_is_open_to_all(origin: Repository, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "next: It may use: local." in run(origin, "--env", "dev", "plan").told
    clone = origin.clone(origin.root.parent / "fork")
    for name, value in {**CHANGE, "CHANGE_FORK": "somebody"}.items():
        monkeypatch.setenv(name, value)
    done = run(clone, "--env", "dev", "jenkins", "bindings")
    assert (done.code, done.out) == (2, "")


# --- what Jenkins binds --------------------------------------------------------------------------------------------------------


def test_a_pull_request_is_bound_what_its_target_grants(change: Repository, run: Run) -> None:
    assert run(change, "--env", "dev", "jenkins", "bindings").out == "string TOKEN dev\n"


def test_main_is_bound_all_that_the_environment_names(origin: Repository, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_URL", CHANGE["BUILD_URL"])
    monkeypatch.setenv("BRANCH_NAME", "main")
    done = run(origin, "--env", "prod", "jenkins", "bindings")
    assert done.out.splitlines() == ["file CONFIG prod", "username-password LOGIN ecr", "string TOKEN prod"]
    document = run(origin, "--env", "prod", "--json", "jenkins", "bindings").document
    assert document["schema"] == "trainshed/jenkins-bindings/v1"
    assert document["bindings"][0] == {"kind": "file", "variable": "CONFIG", "id": "prod"}


def test_a_fork_is_bound_nothing_whatever_its_tree_or_its_target_says(
    change: Repository, origin: Repository, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.write("trainshed.toml", TARGET.replace('trust = "pull-request"', 'trust = "laptop"'))
    origin.commit()
    change.git("fetch", "--quiet")
    assert run(change, "--env", "dev", "jenkins", "bindings").out == "string TOKEN dev\n"
    monkeypatch.setenv("CHANGE_FORK", "somebody")
    for environment in ("local", "dev", "mine"):
        done = run(change, "--env", environment, "jenkins", "bindings")
        assert (done.code, done.out) == (0, "")
    assert run(change, "--env", "dev", "--json", "jenkins", "bindings").document["bindings"] == []
