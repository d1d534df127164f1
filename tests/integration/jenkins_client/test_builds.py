"""Builds, their files and their logs."""

from __future__ import annotations

import pytest

from tests.support.jenkins_server import FakeBuild, FakeJob, JenkinsServer, running_jenkins
from trainshed.tools.jenkins import Build, Jenkins, Job, NotFound

pytestmark = pytest.mark.sockets


class TestBuilds:
    def test_a_build_is_read_by_number_and_by_name(self, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        main.add_build(commit="c1", description="v1", parameters={"GATES": "x", "SECRET": "hush", "LAUNCH": True}, timestamp=1700000000.5)
        main.add_build("FAILURE", commit="c2")
        main.add_build(result=None)
        first = jenkins.build(job, 1)
        assert first == jenkins.build(job, "lastSuccessfulBuild")
        assert (first.commit, first.description, first.result, first.timestamp) == ("c1", "v1", "SUCCESS", 1700000000.5)
        assert first.parameters == {"GATES": "x", "LAUNCH": "true"}
        assert (jenkins.build(job, "lastBuild").building, jenkins.build(job, "lastFailedBuild").commit) == (True, "c2")

    def test_the_commit_is_the_jobs_own_not_that_of_a_shared_library(self, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        main.add_build(commit="own", library_commit="library")
        assert jenkins.build(job, 1).commit == "own"

    def test_a_job_without_branches_has_the_branch_that_git_built(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.root.job("small").add_build(commit="c1")
        assert jenkins.build(jenkins.job("small"), 1).branch == "main"

    @pytest.mark.parametrize(("which", "told"), [(7, "has no build 7"), ("lastSuccessfulBuild", "has no 'lastSuccessfulBuild'")])
    def test_a_build_that_is_not_there_is_told(self, jenkins: Jenkins, job: Job, main: FakeJob, which: int | str, told: str) -> None:
        main.add_build("FAILURE")
        with pytest.raises(NotFound, match=told):
            jenkins.build(job, which)

    def test_the_newest_builds_come_first_and_beyond_a_hundred(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        for number in range(230):
            main.add_build(parameters={"N": str(number)})
        assert [build.number for build in jenkins.builds(job, limit=5)] == [230, 229, 228, 227, 226]
        before = len(server.requests)
        assert [build.number for build in jenkins.builds(job, limit=225)] == list(range(230, 5, -1))
        assert len(server.requests) - before == 3

    def test_a_job_without_builds_has_an_empty_list(self, jenkins: Jenkins, job: Job) -> None:
        assert jenkins.builds(job) == []

    def test_files_are_listed_and_fetched_also_with_odd_names(self, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        main.add_build(artifacts={"build/images.lock.json": b"{}", "build/logs/a b#ä.log": b"\x00\xff"})
        build = jenkins.build(job, 1)
        assert jenkins.artifacts(build) == ["build/images.lock.json", "build/logs/a b#ä.log"]
        assert jenkins.artifact(build, "build/images.lock.json") == b"{}"
        assert jenkins.artifact(build, "build/logs/a b#ä.log") == b"\x00\xff"
        assert jenkins.artifact(build, "build/none.json") is None

    @pytest.mark.parametrize("path", ["../../../../../user/ada", "build/../../api/json", "/build/a.log", "./a", ""])
    def test_a_path_that_leads_out_of_the_files_is_not_asked_for(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob, path: str
    ) -> None:
        main.add_build(artifacts={"build/a.log": b"a"})
        build = jenkins.build(job, 1)
        before = len(server.requests)
        assert jenkins.artifact(build, path) is None
        assert len(server.requests) == before

    def test_a_file_that_is_kept_elsewhere_is_fetched_there_without_the_log_in(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        main.add_build(artifacts={"a.json": b"{}"})
        build = jenkins.build(job, 1)
        with running_jenkins(anonymous={"hudson.model.Hudson.Read", "hudson.model.Item.Read"}) as store:
            store.root.job("bucket").add_build(artifacts={"key": b"from the store"})
            server.fail("artifact/a.json", 302, headers={"Location": f"{store.url}/job/bucket/1/artifact/key?signature=s"})
            assert jenkins.artifact(build, "a.json") == b"from the store"
            assert "authorization" not in store.requests[-1].headers


class TestLogs:
    @pytest.fixture
    def running(self, jenkins: Jenkins, job: Job, main: FakeJob) -> tuple[Build, FakeBuild]:
        main.add_build(result=None)
        return jenkins.build(job, 1), main.builds[0]

    def test_a_log_is_read_on_from_where_it_stopped(self, jenkins: Jenkins, running: tuple[Build, FakeBuild]) -> None:
        build, fake = running
        fake.say("one\n")
        assert jenkins.console(build, 0) == ("one\n", 4, True)
        assert jenkins.console(build, 4) == ("", 4, True)
        fake.say("two\n")
        fake.end()
        assert jenkins.console(build, 4) == ("two\n", 8, False)

    def test_a_character_that_is_cut_in_two_is_left_for_the_next_time(self, jenkins: Jenkins, running: tuple[Build, FakeBuild]) -> None:
        build, fake = running
        for text in ("ä", "€", "🚂"):
            whole = text.encode()
            fake.log = b"go " + whole[:-1]
            assert jenkins.console(build, 0) == ("go ", 3, True)
            fake.log = b"go " + whole
            assert jenkins.console(build, 3) == (text, 3 + len(whole), True)
        fake.log, fake.building = b"end \xc3", False
        assert jenkins.console(build, 0) == ("end �", 5, False)

    def test_bytes_that_are_no_text_do_not_hold_the_log_up(self, jenkins: Jenkins, running: tuple[Build, FakeBuild]) -> None:
        build, fake = running
        fake.say(b"\xff\x80\x80\x80\x80")
        text, after, _ = jenkins.console(build, 0)
        assert (len(text), after) == (5, 5)

    def test_a_log_that_has_become_shorter_is_not_told_again(self, jenkins: Jenkins, running: tuple[Build, FakeBuild]) -> None:
        build, fake = running
        fake.say("one\n")
        assert jenkins.console(build, 400) == ("", 4, True)

    def test_a_discarded_build_has_no_log(self, jenkins: Jenkins, running: tuple[Build, FakeBuild], main: FakeJob) -> None:
        main.builds.clear()
        with pytest.raises(NotFound, match="has no log"):
            jenkins.console(running[0], 0)
