"""A controller with two branches of one repository, a client of it, and one of the branches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.jenkins_client import PARAMETERS, branch_of
from tests.support.jenkins_server import KEY, FakeJob, JenkinsServer, running_jenkins
from trainshed.tools.jenkins import Jenkins, Job


@pytest.fixture
def server() -> Iterator[JenkinsServer]:
    with running_jenkins() as running:
        repo = running.root.folder("team").multibranch("repo")
        repo.add_branch("main", PARAMETERS)
        repo.add_branch("feature/x", PARAMETERS)
        yield running


@pytest.fixture
def jenkins(server: JenkinsServer) -> Iterator[Jenkins]:
    with Jenkins.connect(server.url, user="ada", token=KEY) as client:
        yield client


@pytest.fixture
def main(server: JenkinsServer) -> FakeJob:
    return branch_of(server, "main")


@pytest.fixture
def job(jenkins: Jenkins) -> Job:
    return jenkins.job("team/repo", "main")
