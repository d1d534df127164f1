"""Several checkouts and builders that share a registry, each with a ledger of its own: what is found, and who is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from tests.support.sample_project import Sample, docker

PULL_REQUEST = {"BUILD_URL": "http://127.0.0.1/job/7/", "CHANGE_ID": "7", "CHANGE_TARGET": "main", "BRANCH_NAME": "PR-7"}
MAIN = {"BUILD_URL": "http://127.0.0.1/job/8/", "BRANCH_NAME": "main"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str, image_registry: str) -> Iterator[Sample]:
    """Return a checkout whose images a laptop has built."""
    made = checkout(tmp_path_factory.mktemp("shared") / "first", docker_host, small_base, image_registry)
    made.green("images")
    yield made
    made.down()


def checkout(root: Path, engine: str, base: str, registry: str) -> Sample:
    made = Sample(root, engine, base=base)
    made.append("trainshed.toml", f'\n[environments.shared]\nregistry = {{ url = "{registry}/shared", insecure = true }}\n')
    made.environment["TRAINSHED_ENV"] = "shared"
    repository = Repository.new(root)
    repository.commit()
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")  # as Jenkins fetches the target of a pull request
    return made


@contextmanager
def given(sample: Sample, environment: Mapping[str, str]) -> Iterator[None]:
    """Have the commands of a block see these variables."""
    before = dict(sample.environment)
    sample.environment.update(environment)
    try:
        yield
    finally:
        sample.environment = before


def test_another_checkout_finds_the_images_by_their_inputs_and_only_checks_them(first: Sample, tmp_path: Path, image_registry: str) -> None:
    base = next(line.split()[1] for line in (first.root / "components/base/Dockerfile").read_text().splitlines() if line.startswith("FROM"))
    other = checkout(tmp_path / "elsewhere", first.engine, base, image_registry)
    done = other.green("images")
    assert set(done.statuses("build").values()) == {"cached"}
    assert done.statuses("test") == {"base": "skipped", "prepare": "done", "learn": "done", "answer": "done"}
    assert other.locked() == first.locked()


def test_a_base_is_pinned_to_the_digest_that_the_registry_has(first: Sample, small_base: str) -> None:
    digest = docker(first.engine, "image", "inspect", "--format", "{{index .RepoDigests 0}}", small_base).strip().partition("@")[2]
    import json

    lock = json.loads(first.lock.read_text())
    assert list(lock["images"]["base"]["base"].values()) == [digest]
    assert lock["images"]["learn"]["base"] == {"base": lock["images"]["base"]["digest"]}


def test_what_a_laptop_or_a_pull_request_built_is_not_found_by_main(first: Sample) -> None:
    for environment, builds in ((PULL_REQUEST, True), (PULL_REQUEST, False), (MAIN, True), (MAIN, False)):
        with given(first, environment):
            plan = first.green("plan")
        needed = [action["needed"] for action in plan.result("plan", "base")["actions"] if action["check"] == "build"]
        assert needed == [builds], environment
        if builds:
            with given(first, environment):
                first.green("build", "base")


def test_a_laptop_takes_what_main_built(first: Sample, tmp_path: Path, image_registry: str, small_base: str) -> None:
    other = checkout(tmp_path / "laptop", first.engine, small_base, image_registry)
    other.append("components/base/base.txt", "built by main\n")
    with given(other, MAIN):
        built = other.green("build", "base").result("build", "base")
    found = other.green("build", "base").result("build", "base")
    assert (built["status"], found["status"]) == ("done", "cached")
    assert found["digest"] == built["digest"]


def test_a_base_outside_the_approved_ones_is_refused_with_the_list(first: Sample) -> None:
    with given(first, {"TRAINSHED_BASES_APPROVED": "docker.io/library/python"}):
        done = first.run("plan")
    assert done.code == 2
    assert "is not approved" in done.told
    assert "Build on one of: docker.io/library/python." in done.told


def test_a_base_that_is_nowhere_is_named(first: Sample) -> None:
    file = "components/base/Dockerfile"
    text = (first.root / file).read_text()
    first.write(file, text.replace("python:3.11-slim-bookworm", "python:no-such-tag"))
    done = first.run("plan")
    first.write(file, text)
    assert done.code == 5
    assert "bases/python:no-such-tag is not in its registry" in done.told
