"""Without an upload that the tree or the ledger knows, launch runs what the last green build uploaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.jenkins_server import KEY, FakeJob, JenkinsServer, running_jenkins
from tests.support.kubeflow import embedded
from tests.support.kubeflow_project import FlowProject
from trainshed.errors import RemoteError, UsageError
from trainshed.reports import manifest
from trainshed.stages.launch import launch
from trainshed.stages.upload import upload

pytestmark = pytest.mark.sockets


@dataclass
class Lab:
    """A project whose version is in Kubeflow, but in no ledger and under no lock; and the job of its branch."""

    flows: FlowProject
    server: JenkinsServer
    job: FakeJob
    commit: str
    version: dict[str, Any]

    def green(self, **told: Any) -> None:
        facts = {key: self.version[key] for key in ("pipeline_id", "version", "version_id")}
        known = {
            "project": "flows",
            "environment": "local",
            **dict.fromkeys(("commit", "branch", "build_url", "plan_digest", "lock_digest")),
        }
        document = {**manifest.manifest([], images={}, **known), "pipelines": {"training": facts}, **told}
        archived = {"build/manifest.json": json.dumps(document).encode()}
        self.job.add_build("SUCCESS", commit=told.pop("commit", self.commit), artifacts=archived)

    def launch(self) -> str:
        with self.flows.open() as context:
            (result,) = launch(context, ()).results
        assert result.details["version"] == self.version["version"]
        return result.cause


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("JENKINS_TOKEN", KEY)
    with embedded(tmp_path / "kubeflow") as (address, _), running_jenkins() as server:
        flows = FlowProject(tmp_path / "project", address)
        file = flows.root / "trainshed.toml"
        file.write_text(file.read_text() + f'[jenkins]\nurl = "{server.url}"\njob = "flows"\nuser = "ada"\n')
        flows.commit()
        flows.settle()
        with flows.open() as context:
            version = dict(upload(context, ()).results[0].details)
        for path in (".trainshed/ledger.sqlite", "build/images.lock.json"):
            (flows.root / path).unlink()
        commit = (flows.root / ".git/refs/heads/main").read_text().strip()
        yield Lab(flows, server, server.root.multibranch("flows").add_branch("main"), commit, version)


def test_the_build_of_this_commit_comes_before_a_newer_one_of_the_branch(lab: Lab) -> None:
    lab.green()
    lab.green(commit="f" * 40)
    assert "uploaded by build #1 of branch main" in lab.launch()


def test_else_the_newest_green_build_of_the_branch_that_uploaded_it_here_counts(lab: Lab) -> None:
    lab.green(commit="e" * 40)
    lab.green(commit="f" * 40, environment="dev")
    lab.green(commit="f" * 40, pipelines={})
    lab.green(commit="f" * 40, pipelines={"training": {"version": "of another Trainshed"}})
    shapes: list[object] = [["training"], {"training": ["version"]}, {"training": {"pipeline_id": 1, "version_id": None, "version": {}}}]
    for strange in shapes:
        lab.green(commit="f" * 40, pipelines=strange)
    lab.job.add_build("SUCCESS", commit="f" * 40)
    lab.job.add_build("FAILURE", commit=lab.commit)
    cause = lab.launch()
    assert ("uploaded by build #1 of branch main" in cause, "this branch" in cause) == (True, True)


def test_a_manifest_that_cannot_be_read_is_an_error_never_another_version(lab: Lab) -> None:
    lab.green()
    wrong = {"trainshed/manifest/v2": "written by a newer Trainshed", "trainshed/lock/v1": "not a build's manifest: it is a lock"}
    for schema, said in wrong.items():
        lab.green(schema=schema)
        with lab.flows.open() as context, pytest.raises(UsageError, match=said):
            launch(context, ())


def test_nothing_green_is_said_and_nothing_is_run(lab: Lab) -> None:
    lab.job.add_build("FAILURE", commit=lab.commit)
    with lab.flows.open() as context, pytest.raises(UsageError, match="Jenkins was asked too: no green build"):
        launch(context, ())


def test_a_branch_that_jenkins_does_not_know_is_said(lab: Lab) -> None:
    lab.flows.git("checkout", "-q", "-b", "other")
    with lab.flows.open() as context, pytest.raises(UsageError, match=r"Jenkins was asked too: .*other"):
        launch(context, ())


def test_a_controller_that_cannot_be_asked_is_an_error_never_another_version(lab: Lab) -> None:
    lab.green()
    lab.server.fail("^GET", 403, times=50)
    with lab.flows.open() as context, pytest.raises(RemoteError, match="Jenkins cannot be asked for the last green build"):
        launch(context, ())
