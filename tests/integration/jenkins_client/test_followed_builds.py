"""The build of a trigger and no other, whatever becomes of its queue item."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.jenkins_client import PATIENT, in_background, wait_for
from tests.support.jenkins_server import WORD, FakeJob, JenkinsServer
from trainshed.errors import Interrupted, RemoteError, UsageError, WorkFailed
from trainshed.tools import jenkins as tool
from trainshed.tools import process
from trainshed.tools.jenkins import Build, Jenkins, Job

pytestmark = pytest.mark.sockets


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
            jenkins.build_of(job, item, deadline=PATIENT)

    def test_an_item_of_another_job_is_refused(self, jenkins: Jenkins, job: Job) -> None:
        item = jenkins.trigger(jenkins.job("team/repo", "feature/x"), {})
        with pytest.raises(UsageError, match=f"queue item {item} is of team/repo/feature/x, not of team/repo"):
            jenkins.build_of(job, item, deadline=PATIENT)

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

    def test_no_question_outlasts_the_end_that_is_set_for_all(self, server: JenkinsServer, jenkins: Jenkins, job: Job) -> None:
        server.stall("GET", times=99)
        started = time.monotonic()
        jenkins.end_at(started)
        with pytest.raises(RemoteError, match="no whole answer in time"):
            jenkins.build(job, "lastBuild")
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
