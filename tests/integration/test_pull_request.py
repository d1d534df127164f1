"""A pull request that makes its own checks easier, built by the real command in a real clone: it gets none of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from tests.support.sample_project import CONFIGURATION, PATIENCE_SECONDS, Sample

KEY = "AKIA" + "QWERTYUIOPASDFGH"
CHANGE = {"BUILD_URL": "http://127.0.0.1/job/7/", "CHANGE_ID": "7", "CHANGE_TARGET": "main", "BRANCH_NAME": "PR-7"}
TARGET = """
[bases]
approved = ["docker.io/library/python"]

[environments.dev]
credentials = { TOKEN = "string:dev-token" }

[environments.prod]
trust = "main"
credentials = { TOKEN = "string:prod-token" }
"""
EASY = """
fail-on = "never"

[bases]
approved = ["docker.io/library/python", "docker.io/library/alpine"]

[environments.dev]
credentials = { TOKEN = "string:dev-token", MORE = "string:prod-token" }

[environments.prod]
credentials = { TOKEN = "string:prod-token" }
"""
WAIVER = """[[waiver]]
id = "aws-access-key-id"
owner = "whoever opened this"
reason = "because"
expires = 2099-12-31
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Repository:
    """Return the repository whose main branch has the policy."""
    assert base_image
    made = Sample(tmp_path_factory.mktemp("pull-request") / "origin", docker_host)
    made.append("trainshed.toml", TARGET)
    made.write(".gitignore", "build/\n.trainshed/\n")
    repository = Repository.new(made.root)
    repository.commit()
    return repository


@pytest.fixture(scope="module")
def change(origin: Repository, docker_host: str) -> Iterator[Sample]:
    """Return the checkout of a pull request with a secret in it, and all that could make it green."""
    repository = origin.clone(origin.root.parent / "workspace")
    made = Sample(repository.root, docker_host)
    made.write("trainshed.toml", CONFIGURATION + EASY)
    made.write("waivers.toml", WAIVER)
    made.append("components/learn/src/main.py", f'\naws_access_key_id = "{KEY}"\n')
    repository.commit()
    made.environment.update(CHANGE)
    yield made
    made.down()


def test_it_is_held_to_the_threshold_and_the_waivers_of_its_target(change: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    done = change.run("images")
    assert done.code == 1
    assert done.statuses("scan") == {"base": "done", "prepare": "done", "answer": "done", "learn": "failed"}
    assert "waiver" not in next(found for found in done.result("scan", "learn")["findings"] if found["id"] == "aws-access-key-id")
    assert not change.lock.exists()
    for name in CHANGE:
        monkeypatch.delitem(change.environment, name)
    assert change.green("scan", "learn").statuses("scan")["learn"] == "done"  # its own policy would have let it through


def test_its_plan_says_what_would_count_after_the_merge(change: Sample) -> None:
    told = [line for line in change.green("plan").told.splitlines() if line.startswith("policy of origin/main (")]
    assert len(told) == 1
    assert "differs in bases.approved, scan.fail-on, the waivers (0 in force, 1 after the merge)" in told[0]


def test_a_base_that_it_approves_itself_is_refused(change: Sample) -> None:
    file = "components/base/Dockerfile"
    text = (change.root / file).read_text()
    change.write(file, text.replace("python:3.11-slim-bookworm", "alpine:3", 1))
    done = change.run("plan")
    change.write(file, text)
    assert done.code == 2
    assert "is not approved" in done.told
    assert "Build on one of: docker.io/library/python." in done.told


def bindings(change: Sample, environment: str) -> tuple[int, str, str]:
    child = change.start("--env", environment, "jenkins", "bindings")
    out, told = child.communicate(timeout=PATIENCE_SECONDS)
    return child.returncode, out, told


def test_it_is_bound_only_the_credentials_that_its_target_grants(change: Sample) -> None:
    assert bindings(change, "dev")[:2] == (0, "string TOKEN dev-token\n")
    code, out, told = bindings(change, "prod")
    assert (code, out) == (2, "")
    assert "environment prod is for main and above" in told
    assert "It may use: local, dev." in told


def test_a_fork_is_bound_nothing(change: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(change.environment, "CHANGE_FORK", "somebody")
    assert bindings(change, "dev")[:2] == (0, "")


def test_a_checkout_without_the_target_branch_is_refused_with_the_next_step(change: Sample, origin: Repository, tmp_path: Path) -> None:
    repository = origin.clone(tmp_path / "lonely")
    repository.git("update-ref", "-d", "refs/remotes/origin/main")
    made = Sample(repository.root, change.engine)
    made.environment.update(CHANGE)
    child = made.start("config")
    try:
        _, told = child.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    assert child.returncode == 2
    assert "origin/main is not in this checkout" in told
    assert "discover pull requests merged with their target" in told
