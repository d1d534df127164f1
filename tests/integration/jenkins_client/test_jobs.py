"""Jobs of Jenkins: names, folders, branches, parameters."""

from __future__ import annotations

import pytest

from tests.support.jenkins_client import PATIENT
from tests.support.jenkins_server import KEY, JenkinsServer, running_jenkins
from trainshed.errors import UsageError
from trainshed.tools.jenkins import Jenkins, Job, NotFound
from trainshed.tools.jenkins_records import encode_branch

pytestmark = pytest.mark.sockets


class TestJobs:
    def test_a_branch_with_a_slash_is_found_under_its_doubly_encoded_address(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        assert jenkins.job("team/repo", "feature/x") == Job(
            path="team/repo", branch="feature/x", address="job/team/job/repo/job/feature%252Fx"
        )
        assert server.requests[-1].path == "/job/team/job/repo/job/feature%252Fx/api/json"

    @pytest.mark.parametrize(
        ("branch", "name"), [("a/b", "a%2Fb"), ("a#b", "a%23b"), ("50%", "50%25"), ("a[1]?", "a%5B1%5D%3F"), (".", "%2E"), ("ä b", "ä b")]
    )
    def test_a_branch_is_named_as_the_branch_api_does(self, server: JenkinsServer, jenkins: Jenkins, branch: str, name: str) -> None:
        server.root.children["team"].children["repo"].add_branch(branch).name = name
        assert encode_branch(branch) == name
        if branch != ".":
            assert jenkins.job("team/repo", branch).branch == branch

    def test_a_branch_whose_job_has_another_name_is_found_by_the_name_that_people_see(
        self, server: JenkinsServer, jenkins: Jenkins
    ) -> None:
        repo = server.root.children["team"].children["repo"]
        odd = repo.children["odd.name"] = repo.add_branch("release/1")
        del repo.children["release%2F1"]
        odd.name = "odd.name"
        assert jenkins.job("team/repo", "release/1").address == "job/team/job/repo/job/odd.name"

    def test_a_plain_job_with_blanks_is_found_in_its_folders(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.root.folder("my team").job("nightly build")
        assert jenkins.job("/my team/nightly build/").address == "job/my%20team/job/nightly%20build"

    @pytest.mark.parametrize(
        ("path", "branch", "told"),
        [
            ("team/rep", None, "folder team has no job 'rep'; perhaps you meant 'repo'"),
            ("tean/repo", "main", "has no job 'tean'; perhaps you meant 'team'"),
            ("team/repo", "mian", "job team/repo has no branch 'mian'; perhaps you meant 'main' (it has feature/x, main)"),
            ("team/zzz", None, "folder team has no job 'zzz' (there are repo)"),
        ],
    )
    def test_what_is_missing_is_named_with_what_is_near(self, jenkins: Jenkins, path: str, branch: str | None, told: str) -> None:
        with pytest.raises(NotFound) as caught:
            jenkins.job(path, branch)
        assert told in caught.value.message
        assert isinstance(caught.value, UsageError)

    def test_the_next_step_of_a_missing_job_names_the_user_who_may_not_see_it(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.root.children["team"].children["repo"].hidden = True
        with pytest.raises(NotFound) as caught:
            jenkins.job("team/repo")
        assert "let 'ada' see it (Job/Read)" in caught.value.next_step

    @pytest.mark.parametrize(
        ("path", "branch", "told"),
        [
            ("team/repo", None, "job team/repo has a job for each branch: feature/x, main"),
            ("team", None, "team is a folder, not a job; it holds repo"),
            ("single", "main", "job single is a single job, without branches"),
            ("", None, "no job is named"),
        ],
    )
    def test_a_question_of_the_wrong_kind_is_refused(
        self, server: JenkinsServer, jenkins: Jenkins, path: str, branch: str | None, told: str
    ) -> None:
        server.root.job("single")
        with pytest.raises(UsageError) as caught:
            jenkins.job(path, branch)
        assert told in caught.value.message

    def test_no_request_asks_for_more_than_a_tree(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        jenkins.build_of(job, jenkins.trigger(job, {}), deadline=PATIENT)
        jenkins.builds(job)
        assert all(asked.query.get("tree") for asked in server.asked(r"GET .*/api/json"))

    def test_the_parameters_are_told_with_kind_default_and_choices(self, jenkins: Jenkins, job: Job) -> None:
        told = {each.name: each for each in jenkins.parameters(job)}
        assert [(each.kind, each.default) for each in told.values()] == [
            ("string", "local"),
            ("boolean", "false"),
            ("text", ""),
            ("choice", "auto"),
            ("password", None),
        ]
        assert told["BUMP"].choices == ("auto", "none")
        assert told["ENVIRONMENT"].description == "where to"

    def test_a_controller_below_a_path_is_spoken_to_there(self) -> None:
        with running_jenkins(prefix="/ci/jenkins") as server, Jenkins.connect(f"{server.url}/", user="ada", token=KEY) as jenkins:
            server.root.job("small")
            job = jenkins.job("small")
            build = jenkins.build_of(job, jenkins.trigger(job, {}), deadline=PATIENT)
            assert build.url == f"{server.url}/job/small/1/"
            assert jenkins.console(build, 0) == ("", 0, True)

    def test_a_controller_that_believes_in_another_address_is_still_asked_at_ours(self) -> None:
        with running_jenkins() as server, Jenkins.connect(server.url, user="ada", token=KEY) as jenkins:
            server.state.root_url = "https://jenkins.example.org/ci"
            server.root.folder("team").job("small")
            job = jenkins.job("team/small")
            build = jenkins.build_of(job, jenkins.trigger(job, {}), deadline=PATIENT)
            assert build.url == "https://jenkins.example.org/ci/job/team/job/small/1/"
            assert jenkins.artifacts(build) == []
