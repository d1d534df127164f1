"""Triggers: what is sent, what is sent again, and what never is."""

from __future__ import annotations

import pytest

from tests.support.jenkins_client import PATIENT
from tests.support.jenkins_server import KEY, WORD, FakeJob, JenkinsServer
from trainshed.errors import RemoteError, UsageError
from trainshed.tools import jenkins as tool
from trainshed.tools.jenkins import Jenkins, Job

pytestmark = pytest.mark.sockets


class TestTriggers:
    def test_a_trigger_gives_the_parameters_and_returns_the_number_of_its_item(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        item = jenkins.trigger(job, {"ENVIRONMENT": "dev ä&=", "LAUNCH": "true", "BUMP": "none"})
        assert server.state.items[item].parameters == {
            "ENVIRONMENT": "dev ä&=",
            "LAUNCH": True,
            "GATES": "",
            "BUMP": "none",
            "SECRET": "hush",
        }
        assert main.builds[0].queue_id == item

    def test_a_job_without_parameters_is_built_by_the_other_address(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.root.job("small")
        jenkins.trigger(jenkins.job("small"), {})
        assert [asked.path for asked in server.asked("POST")] == ["/job/small/build"]

    def test_parameters_for_a_job_that_takes_none_are_refused_before_anything_is_sent(
        self, server: JenkinsServer, jenkins: Jenkins
    ) -> None:
        server.root.job("small")
        with pytest.raises(UsageError, match="small: takes no parameters, but got A"):
            jenkins.trigger(jenkins.job("small"), {"A": "1"})
        assert not server.asked("POST")

    def test_a_password_needs_a_crumb_and_gets_a_new_one_after_a_restart(self, server: JenkinsServer, main: FakeJob) -> None:
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins:
            job = jenkins.job("team/repo", "main")
            jenkins.trigger(job, {"ENVIRONMENT": "a"})
            server.stop()
            server.start()
            jenkins.trigger(job, {"ENVIRONMENT": "b"})
        assert [build.parameters["ENVIRONMENT"] for build in main.builds] == ["a", "b"]
        assert len(server.asked("GET /crumbIssuer")) == 2

    def test_a_controller_without_crumbs_is_triggered_all_the_same(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.crumbs = False
        assert jenkins.trigger(job, {}) == 41

    def test_equal_parameters_get_one_item_while_it_waits_and_one_build(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold = True
        first, second, other = (jenkins.trigger(job, {"GATES": gates}) for gates in ("a", "a", "b"))
        server.state.begin(first)
        assert first == second != other
        assert jenkins.build_of(job, second, deadline=PATIENT).number == 1

    def test_a_disabled_job_is_told(self, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        main.buildable = False
        with pytest.raises(UsageError, match="team/repo/main is not buildable"):
            jenkins.trigger(job, {})

    def test_a_user_who_may_not_build_is_told_which_permission_is_missing(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.users["ada"].permissions = {"hudson.model.Hudson.Read", "hudson.model.Item.Read"}
        with pytest.raises(RemoteError) as caught:
            jenkins.trigger(job, {})
        assert "user 'ada' lacks the permission Job/Build (HTTP 403)" in caught.value.message
        assert "Ask for the permission for 'ada'" in caught.value.next_step

    def test_a_crumb_that_is_refused_for_good_is_told_in_jenkins_words(self, server: JenkinsServer) -> None:
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins:
            job = jenkins.job("team/repo", "main")
            server.crumb_fits = lambda cookie, crumb: False  # type: ignore[method-assign]  # noqa: ARG005
            with pytest.raises(RemoteError, match="No valid crumb was included in the request"):
                jenkins.trigger(job, {})

    @pytest.mark.parametrize("fault", ["drop", "drop after doing", "502", "500", "stall"])
    def test_a_trigger_that_may_have_been_taken_is_never_sent_again(self, server: JenkinsServer, main: FakeJob, fault: str) -> None:
        with Jenkins.connect(server.url, user="ada", token=KEY, timeout=0.5 if fault == "stall" else 30) as jenkins:
            job = jenkins.job("team/repo", "main")
            match fault:
                case "drop" | "drop after doing":
                    server.drop("POST", do=fault != "drop", times=9)
                case "stall":
                    server.stall("POST", times=9)
                case status:
                    server.fail("POST", int(status), times=9)
            with pytest.raises(RemoteError) as caught:
                jenkins.trigger(job, {})
        assert "Jenkins may have taken it all the same" in caught.value.message
        assert f"Look at {server.url}/job/team/job/repo/job/main/ before you trigger again." in caught.value.next_step
        assert len(server.asked("POST")) == 1
        assert len(main.builds) == (fault == "drop after doing")

    def test_a_trigger_whose_answer_is_cut_off_after_its_headers_is_known_to_be_taken(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job
    ) -> None:
        server.cut_off("POST")
        assert jenkins.trigger(job, {}) == 41

    @pytest.mark.parametrize("fault", ["starting", "too many", "crumb cut off", "crumb 503", "crumb dropped"])
    def test_a_trigger_that_was_certainly_not_taken_is_sent_again(self, server: JenkinsServer, main: FakeJob, fault: str) -> None:
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins:
            job = jenkins.job("team/repo", "main")
            match fault:
                case "starting":
                    server.start_up("POST", times=2)
                case "too many":
                    server.fail("POST", 429)
                case "crumb cut off":
                    server.cut_off("crumbIssuer")
                case "crumb dropped":
                    server.drop("crumbIssuer")
                case _:
                    server.start_up("crumbIssuer")
            assert jenkins.trigger(job, {}) == 41
        assert len(main.builds) == 1

    def test_a_trigger_for_which_nothing_listens_is_safe_to_repeat_and_says_so(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainshed.tools.http.backoff", lambda attempt: 0.01 * (attempt + 1))
        controller = jenkins._controller
        server.stop()
        with pytest.raises(tool.Unavailable, match="no connection"):
            controller.post(f"{job.address}/build", {}, {}, look="the job")

    def test_an_answer_without_an_item_is_no_success(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.fail("POST", 201, headers={"Location": f"{server.url}/job/team/"})
        with pytest.raises(RemoteError, match="Jenkins named no queue item"):
            jenkins.trigger(job, {})
