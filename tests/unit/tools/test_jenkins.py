"""Jenkins: jobs, triggers, the build of a trigger and no other, logs and files, and all that goes wrong on the way."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.jenkins_server import KEY, WORD, FakeBuild, FakeJob, JenkinsServer, Parameter, running_jenkins
from trainshed.errors import Interrupted, RemoteError, UsageError, WorkFailed
from trainshed.tools import jenkins as tool
from trainshed.tools import process
from trainshed.tools.jenkins import Build, Jenkins, Job, NotFound
from trainshed.tools.jenkins_records import encode_branch

pytestmark = pytest.mark.sockets

PARAMETERS = (
    Parameter("ENVIRONMENT", "local", description="where to"),
    Parameter("LAUNCH", default=False, kind="Boolean"),
    Parameter("GATES", "", "Text"),
    Parameter("BUMP", None, "Choice", ("auto", "none")),
    Parameter("SECRET", "hush", "Password"),
)
PATIENT = 60.0


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


def branch_of(server: JenkinsServer, name: str) -> FakeJob:
    return server.root.children["team"].children["repo"].children[name]


def in_background(call: Callable[[], Build]) -> tuple[threading.Thread, list[Build | BaseException]]:
    ended: list[Build | BaseException] = []

    def run() -> None:
        try:
            ended.append(call())
        except BaseException as error:  # noqa: BLE001 - handed on to the test
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)


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

    def test_the_branches_of_a_multibranch_job_are_told_by_their_names_in_git(self, jenkins: Jenkins) -> None:
        assert jenkins.branches("team/repo") == ["main", "feature/x"]

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


class TestTheBuildOfATrigger:
    def test_it_is_looked_for_at_once(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        told: list[str] = []
        build = jenkins.build_of(job, jenkins.trigger(job, {"GATES": "mine"}), deadline=PATIENT, on_wait=told.append)
        assert (build.number, build.parameters["GATES"], build.branch, build.building) == (1, "mine", "main", True)
        assert not told
        assert len(server.asked("GET /queue/")) == 1

    def test_while_it_waits_the_reason_is_told_once(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold = True
        item = jenkins.trigger(job, {})
        server.state.items[item].why = "In the quiet period. Expires in 4.9 sec"
        told: list[str] = []
        thread, ended = in_background(lambda: jenkins.build_of(job, item, deadline=PATIENT, on_wait=told.append))
        wait_for(lambda: told)
        server.state.items[item].why = "In the quiet period. Expires in 3.7 sec"
        asked = len(server.asked("GET /queue/"))
        wait_for(lambda: len(server.asked("GET /queue/")) > asked + 1)
        server.state.block(item, "Build #1 is already in progress")
        wait_for(lambda: len(told) > 1)
        server.state.begin(item)
        thread.join()
        assert told == ["In the quiet period. Expires in 4.9 sec", "Build #1 is already in progress"]
        assert isinstance(ended[0], Build)

    def test_an_executable_that_is_null_for_a_while_is_waited_for(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold, server.state.null_reads = True, 2
        item = jenkins.trigger(job, {})
        server.state.leave(item)
        told: list[str] = []
        thread, ended = in_background(lambda: jenkins.build_of(job, item, deadline=PATIENT, on_wait=told.append))
        wait_for(lambda: told)
        server.state.begin(item)
        thread.join()
        assert isinstance(ended[0], Build)
        assert (ended[0].queue_id, told[0]) == (item, "its build is about to begin")

    def test_a_build_that_began_is_found_although_the_executable_is_null(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.null_reads = 10**6
        item = jenkins.trigger(job, {})
        assert jenkins.build_of(job, item, deadline=PATIENT).queue_id == item

    def test_a_vanished_item_leads_to_the_build_that_keeps_its_number(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        server.state.item_seconds = 0
        item = jenkins.trigger(job, {"GATES": "mine"})
        for _ in range(120):
            main.add_build(parameters={"GATES": "mine", "N": len(main.builds)})
        found = jenkins.build_of(job, item, deadline=PATIENT)
        assert (found.number, found.queue_id) == (1, item)
        assert len(server.asked(r"GET .*/main/api/json")) < 8

    def test_the_newest_build_counts_where_numbers_of_items_began_anew(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        server.state.item_seconds = 0
        main.add_build(queue_id=42)
        item = jenkins.trigger(job, {})
        assert item == 42
        assert jenkins.build_of(job, item, deadline=PATIENT).number == 2

    def test_an_executable_with_another_number_is_not_followed(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        item = jenkins.trigger(job, {})
        main.builds[0].queue_id = 7
        with pytest.raises(WorkFailed, match="the deadline passed"):
            jenkins.build_of(job, item, deadline=0.5)
        assert server.asked(f"GET /queue/item/{item}/")

    def test_a_vanished_item_without_a_build_is_told_after_a_while(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tool, "VANISHED_SECONDS", 0.3)
        server.state.hold = True
        item = jenkins.trigger(job, {})
        server.state.cancel(item)
        server.state.forget()
        with pytest.raises(RemoteError, match=f"queue item {item} is gone, and no build of the job is its own"):
            jenkins.build_of(job, item, deadline=None)

    def test_a_cancelled_item_is_told(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold = True
        item = jenkins.trigger(job, {})
        server.state.cancel(item)
        with pytest.raises(WorkFailed, match=f"queue item {item} was cancelled"):
            jenkins.build_of(job, item, deadline=None)

    def test_an_item_of_another_job_is_refused(self, jenkins: Jenkins, job: Job) -> None:
        item = jenkins.trigger(jenkins.job("team/repo", "feature/x"), {})
        with pytest.raises(UsageError, match=f"queue item {item} is of team/repo/feature/x, not of team/repo"):
            jenkins.build_of(job, item, deadline=None)

    def test_the_deadline_ends_the_waiting_with_the_reason(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold = True
        item = jenkins.trigger(job, {})
        with pytest.raises(WorkFailed, match="the deadline passed: Waiting for next available executor"):
            jenkins.build_of(job, item, deadline=0.4)

    def test_a_controller_that_never_answers_does_not_outlast_the_deadline(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        item = jenkins.trigger(job, {})
        server.stall("GET", times=99)
        started = time.monotonic()
        with pytest.raises(RemoteError, match="no whole answer in time"):
            jenkins.build_of(job, item, deadline=0.5)
        assert time.monotonic() - started < 20

    def test_sigterm_ends_the_waiting_at_once(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.state.hold = True
        item = jenkins.trigger(job, {})
        told: list[str] = []
        thread, ended = in_background(lambda: jenkins.build_of(job, item, deadline=None, on_wait=told.append))
        wait_for(lambda: told)
        process.stopping.set()
        thread.join()
        assert isinstance(ended[0], Interrupted)

    def test_sigterm_ends_a_request_that_hangs(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.stall("GET", times=99)
        thread, ended = in_background(lambda: jenkins.build(job, 1))
        wait_for(lambda: len(server.requests) > 1)
        process.stopping.set()
        thread.join()
        assert isinstance(ended[0], Interrupted)

    def test_a_restart_in_the_middle_is_survived_with_the_item_still_waiting(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job
    ) -> None:
        server.state.hold = True
        item = jenkins.trigger(job, {})
        told: list[str] = []
        thread, ended = in_background(lambda: jenkins.build_of(job, item, deadline=PATIENT, on_wait=told.append))
        wait_for(lambda: told)
        server.stop()
        wait_for(lambda: any("no connection" in line or "broke" in line for line in told))
        server.start(starting=True)
        wait_for(lambda: any("getting ready to work" in line for line in told))
        server.ready()
        server.state.begin(item)
        thread.join()
        assert isinstance(ended[0], Build)
        assert ended[0].queue_id == item

    def test_a_restart_that_forgets_the_item_is_survived(self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        item = jenkins.trigger(job, {"GATES": "mine"})
        jenkins.trigger(job, {"GATES": "other"})
        server.stop()
        thread, ended = in_background(lambda: jenkins.build_of(job, item, deadline=PATIENT))
        server.start(starting=True)
        wait_for(lambda: server.asked(f"GET /queue/item/{item}/"))
        server.ready()
        thread.join()
        assert isinstance(ended[0], Build)
        assert (ended[0].queue_id, ended[0].parameters["GATES"]) == (item, "mine")
        assert len(main.builds) == 2

    def test_a_controller_that_stays_away_is_told_after_the_deadline(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        item = jenkins.trigger(job, {})
        server.stop()
        with pytest.raises(tool.Unavailable, match="no connection"):
            jenkins.build_of(job, item, deadline=0.5)

    @pytest.mark.parametrize("vanish", [False, True], ids=["items stay", "items vanish"])
    def test_ten_triggers_at_once_are_each_followed_to_their_own_build(
        self, server: JenkinsServer, main: FakeJob, job: Job, vanish: bool
    ) -> None:
        server.state.hold = True
        server.state.item_seconds = 0 if vanish else 300
        main.add_build(parameters={"ENVIRONMENT": "older"})
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins, ThreadPoolExecutor(10) as pool:
            wanted = [f"environment-{number}" for number in range(10)]
            items = list(pool.map(lambda name: jenkins.trigger(job, {"ENVIRONMENT": name}), wanted))
            followed = [pool.submit(jenkins.build_of, job, item, deadline=PATIENT) for item in items]
            for item in sorted(items, key=lambda item: (item * 7) % 10):  # they begin in another order
                server.state.begin(item)
            builds = [each.result() for each in followed]
        assert len(set(items)) == 10
        assert [build.queue_id for build in builds] == items
        assert [build.parameters["ENVIRONMENT"] for build in builds] == wanted
        assert [build.number for build in builds] != sorted(build.number for build in builds)


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

    def test_stages_are_told_where_the_stage_view_is_installed(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob
    ) -> None:
        main.add_build(stages=[{"id": "6", "name": "plan", "status": "SUCCESS", "durationMillis": 1500}])
        build = jenkins.build(job, 1)
        stages = jenkins.stages(build)
        assert stages is not None
        assert [(stage.id, stage.name, stage.status, stage.seconds) for stage in stages] == [("6", "plan", "SUCCESS", 1.5)]
        server.state.stage_view = False
        assert jenkins.stages(build) is None


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


class TestWhatGoesWrong:
    @pytest.mark.parametrize("fault", ["502", "503", "504", "500", "429", "drop", "cut off", "starting"])
    def test_a_question_is_asked_again_when_the_controller_falters(
        self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob, fault: str
    ) -> None:
        main.add_build()
        match fault:
            case "drop":
                server.drop("main/1/", times=2)
            case "cut off":
                server.cut_off("main/1/", times=2)
            case "starting":
                server.start_up("main/1/", times=2)
            case status:
                server.fail("main/1/", int(status), times=2)
        assert jenkins.build(job, 1).number == 1

    def test_a_controller_that_stays_broken_is_told_in_its_own_words(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.fail("main/1/", 502, times=99, page="<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body>")
        with pytest.raises(tool.Unavailable, match="HTTP 502: 502 Bad Gateway"):
            jenkins.build(job, 1)

    def test_a_restart_is_waited_for_by_any_call(self, server: JenkinsServer, jenkins: Jenkins, job: Job, main: FakeJob) -> None:
        main.add_build()
        server.stop()
        told: list[str] = []
        thread, ended = in_background(lambda: jenkins.patiently(lambda: jenkins.build(job, 1), deadline=PATIENT, on_wait=told.append))
        wait_for(lambda: told)
        server.start()
        thread.join()
        assert isinstance(ended[0], Build)

    def test_patience_ends_with_the_deadline(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.stop()
        with pytest.raises(tool.Unavailable):
            jenkins.patiently(lambda: jenkins.build(job, 1), deadline=0.2)

    def test_a_wrong_token_is_told_without_showing_it(self, server: JenkinsServer) -> None:
        wrong = "wrong-one"
        with Jenkins.connect(server.url, user="ada", token=wrong) as jenkins, pytest.raises(tool.Denied) as caught:
            jenkins.job("team/repo", "main")
        assert "does not accept user 'ada' or the API token (HTTP 401)" in caught.value.message
        assert wrong not in caught.value.told
        assert wrong not in repr(jenkins) + str(vars(jenkins))

    def test_nobody_in_particular_is_told_to_log_in(self, server: JenkinsServer) -> None:
        with Jenkins.connect(server.url) as jenkins, pytest.raises(tool.Denied) as caught:
            jenkins.job("team/repo", "main")
        assert "user 'anonymous' lacks the permission Overall/Read (HTTP 403)" in caught.value.message
        assert "jenkins.token-env" in caught.value.next_step

    def test_anybody_may_ask_a_controller_that_is_open(self, server: JenkinsServer) -> None:
        server.anonymous = {"hudson.model.Hudson.Read", "hudson.model.Item.Read", "hudson.model.Item.Build"}
        with Jenkins.connect(server.url) as jenkins:
            job = jenkins.job("team/repo", "main")
            assert jenkins.build_of(job, jenkins.trigger(job, {}), deadline=PATIENT).number == 1

    @pytest.mark.parametrize(("user", "token", "told"), [("ada", "", "jenkins.token-env"), ("", "11aa", "jenkins.user")])
    def test_a_user_without_a_token_or_the_other_way_round_is_refused(self, user: str, token: str, told: str) -> None:
        with pytest.raises(UsageError) as caught:
            Jenkins.connect("http://127.0.0.1:1", user=user, token=token)
        assert told in caught.value.next_step

    @pytest.mark.parametrize("url", ["ftp://jenkins", "jenkins.example.org", "https://ada:11aa@jenkins.example.org"])
    def test_an_address_of_another_kind_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(UsageError) as caught:
            Jenkins.connect(url)
        assert "11aa" not in caught.value.told

    def test_a_log_in_page_is_not_taken_for_an_answer(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.log_in()
        with pytest.raises(tool.Denied, match=r"got text/html \('Sign in'\): a log-in page, or not a Jenkins controller"):
            jenkins.job("team/repo", "main")

    def test_a_redirect_to_a_log_in_page_is_not_followed(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.fail("", 302, headers={"Location": "https://login.example.org/sso?back=11aa"})
        with pytest.raises(tool.Denied, match=r"redirected to https://login.example.org/sso: a log-in page"):
            jenkins.job("team/repo", "main")
        assert len(server.requests) == 1

    def test_a_redirect_to_https_says_which_address_to_write_down(self, server: JenkinsServer, jenkins: Jenkins) -> None:
        server.fail("", 301, headers={"Location": f"https://127.0.0.1:{server.port}/"})
        with pytest.raises(UsageError) as caught:
            jenkins.job("team/repo", "main")
        assert caught.value.next_step == "Correct jenkins.url."

    def test_a_trigger_that_meets_a_log_in_page_is_told(self, server: JenkinsServer) -> None:
        with Jenkins.connect(server.url, user="ada", token=WORD) as jenkins:
            job = jenkins.job("team/repo", "main")
            server.log_in("crumbIssuer", times=99)
            with pytest.raises(tool.Denied, match="a log-in page"):
                jenkins.trigger(job, {})
        assert not server.asked("POST")

    def test_a_server_that_is_no_jenkins_is_told(self, server: JenkinsServer) -> None:
        with (
            Jenkins.connect(f"{server.url}/wrong/path", user="ada", token=KEY) as jenkins,
            pytest.raises(RemoteError, match="/wrong/path: no Jenkins controller answers there"),
        ):
            jenkins.job("team/repo", "main")

    def test_a_proxy_is_asked_for_what_is_not_on_this_machine(self, server: JenkinsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        server.fail("", 200, page='{"name": "main"}')
        with Jenkins.connect("http://jenkins.invalid", user="ada", token=KEY) as jenkins:
            assert jenkins.job("team/repo", "main").branch == "main"
        assert server.requests[0].headers["host"] == "jenkins.invalid"

    def test_a_controller_without_tls_is_no_trusted_connection(self, server: JenkinsServer) -> None:
        with (
            Jenkins.connect(server.url.replace("http:", "https:"), user="ada", token=KEY) as jenkins,
            pytest.raises(RemoteError, match="no trusted connection") as caught,
        ):
            jenkins.job("team/repo", "main")
        assert "SSL_CERT_FILE" in caught.value.next_step

    def test_a_password_of_netrc_is_not_used(self, server: JenkinsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password 11aa\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        with Jenkins.connect(server.url) as jenkins, pytest.raises(tool.Denied):
            jenkins.job("team/repo", "main")

    def test_the_library_is_loaded_only_when_a_controller_is_spoken_to(self) -> None:
        program = "import sys, trainshed.tools.jenkins; sys.exit('jenkinsapi' in sys.modules or 'requests' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
