"""The fake controller is a Jenkins to jenkinsapi itself, and as strict as the real one."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from jenkinsapi.custom_exceptions import JenkinsAPIException, UnknownJob
from jenkinsapi.jenkins import Jenkins
from jenkinsapi.utils.requester import Requester

from tests.support.jenkins_server import KEY, WORD, FakeJob, JenkinsServer, Parameter, running_jenkins
from tests.support.jenkins_tree import BadTree, as_python, parse

PARAMETERS = (Parameter("A", "1"), Parameter("B", default=False, kind="Boolean"), Parameter("C", None, "Choice", ("x", "y")))


@pytest.fixture
def server() -> Iterator[JenkinsServer]:
    with running_jenkins() as running:
        running.root.job("small")
        team = running.root.folder("team")
        team.job("nightly", PARAMETERS)
        team.multibranch("repo").add_branch("feature/x", PARAMETERS)
        yield running


@pytest.fixture
def api(server: JenkinsServer) -> Any:
    return Jenkins(server.url, "ada", WORD)


def nightly(server: JenkinsServer) -> FakeJob:
    return server.root.children["team"].children["nightly"]


def ask(server: JenkinsServer, path: str, method: str = "GET", *, key: str = KEY, **form: str) -> requests.Response:
    data = form or None
    return requests.request(method, f"{server.url}/{path}", auth=("ada", key), data=data, allow_redirects=False, timeout=30)


class TestJenkinsapi:
    def test_it_sees_the_jobs_of_all_folders(self, api: Any) -> None:
        assert sorted(api.keys()) == ["small", "team/nightly", "team/repo/feature%2Fx"]
        assert "team/nightly" in api
        with pytest.raises(UnknownJob):
            api["team/none"]

    def test_it_knows_the_version_and_who_may_not_come_in(self, server: JenkinsServer) -> None:
        with pytest.raises(requests.HTTPError, match="401"):
            Jenkins(server.url, "ada", "wrong")
        with pytest.raises(requests.HTTPError, match="403"):
            Jenkins(server.url)

    @pytest.mark.parametrize("name", ["team/nightly", "team/repo/feature%2Fx"])
    def test_it_triggers_with_parameters_and_waits_for_its_build(self, server: JenkinsServer, api: Any, name: str) -> None:
        server.state.null_reads = 2
        item = api[name].invoke(build_params={"A": "7"})
        build = item.block_until_building(delay=0.01)
        assert build.get_number() == 1
        assert build.get_params() == {"A": "7", "B": False, "C": "x"}
        assert build.is_running()
        assert [asked.path for asked in server.asked("GET /crumbIssuer")] == ["/crumbIssuer/api/python"]

    def test_it_triggers_a_job_without_parameters(self, server: JenkinsServer, api: Any) -> None:
        api.build_job("small")
        assert len(server.root.children["small"].builds) == 1

    def test_it_waits_while_the_item_waits_and_sees_why(self, server: JenkinsServer, api: Any) -> None:
        server.state.hold = True
        job = api["team/nightly"]
        item = job.invoke(build_params={"A": "7"})
        server.state.block(item.queue_id, "Build #1 is already in progress")
        item.poll()
        assert (item.is_blocked, item.why, item.is_queued()) == (True, "Build #1 is already in progress", True)
        assert item.get_parameters()["A"] == "7"
        assert job.is_queued()
        assert len(api.get_queue()) == 1
        timer = threading.Timer(0.05, server.state.begin, [item.queue_id])
        timer.start()
        assert item.block_until_building(delay=0.01).get_number() == 1
        timer.join()

    def test_it_reads_builds_console_and_result(self, server: JenkinsServer, api: Any) -> None:
        fake = nightly(server).add_build("FAILURE", commit="c1", description="v1")
        fake.say("one\ntwo\n")
        job = api["team/nightly"]
        build = job.get_build(1)
        assert (build.get_status(), build.get_revision(), build.get_description()) == ("FAILURE", "c1", "v1")
        assert build.get_console() == "one\ntwo\n"
        assert list(build.stream_logs()) == ["one\ntwo\n"]
        assert job.get_last_buildnumber() == job.get_last_failed_buildnumber() == 1
        assert not build.is_good()

    def test_it_reads_more_than_a_hundred_builds(self, server: JenkinsServer, api: Any) -> None:
        for number in range(130):
            nightly(server).add_build(parameters={"A": str(number)})
        assert sorted(api["team/nightly"].get_build_dict()) == list(range(1, 131))

    def test_it_fetches_files_and_proves_them_by_fingerprint(self, server: JenkinsServer, api: Any, tmp_path: Path) -> None:
        nightly(server).add_build(artifacts={"build/a.json": b"{}", "build/b c.log": b"log"})
        artifacts = api["team/nightly"].get_build(1).get_artifact_dict()
        assert sorted(artifacts) == ["build/a.json", "build/b c.log"]
        assert artifacts["build/b c.log"].get_data() == b"log"
        saved = Path(artifacts["build/a.json"].save_to_dir(str(tmp_path), strict_validation=True))
        assert saved.read_bytes() == b"{}"

    def test_it_reads_what_parameters_a_job_takes(self, api: Any) -> None:
        job = api["team/nightly"]
        assert job.get_params_list() == ["A", "B", "C"]
        assert not api["small"].has_params()

    def test_without_a_crumb_a_password_may_not_trigger_but_a_token_may(self, server: JenkinsServer) -> None:
        plain = Jenkins(server.url, "ada", WORD, requester=Requester("ada", WORD, baseurl=server.url))
        with pytest.raises(JenkinsAPIException, match="No valid crumb was included in the request"):
            plain["small"].invoke()
        by_key = Jenkins(server.url, "ada", KEY, requester=Requester("ada", KEY, baseurl=server.url))
        by_key["small"].invoke()
        assert len(server.root.children["small"].builds) == 1

    def test_ten_builds_at_once_are_ten_items_with_a_build_each(self, server: JenkinsServer) -> None:
        def trigger(number: int) -> tuple[str, str]:
            build = Jenkins(server.url, "ada", WORD)["team/nightly"].invoke(build_params={"A": f"{number}"}).block_until_building(0.01)
            return f"{number}", build.get_params()["A"]

        with ThreadPoolExecutor(10) as pool:
            assert all(asked == got for asked, got in pool.map(trigger, range(10)))
        assert len(nightly(server).builds) == 10


class TestStrictness:
    def test_a_crumb_of_another_session_is_refused(self, server: JenkinsServer) -> None:
        crumb = ask(server, "crumbIssuer/api/json", key=WORD).json()
        headers = {crumb["crumbRequestField"]: crumb["crumb"]}
        refused = requests.post(f"{server.url}/job/small/build", auth=("ada", WORD), headers=headers, timeout=30)
        assert (refused.status_code, "No valid crumb" in refused.text) == (403, True)

    @pytest.mark.parametrize(
        ("path", "form", "status"),
        [
            ("job/small/buildWithParameters", {}, 500),
            ("job/team/job/nightly/build", {}, 400),
            ("job/team/job/nightly/build", {"A": "1"}, 400),
            ("job/team/job/nightly/buildWithParameters", {"C": "z"}, 500),
            ("job/team/build", {}, 404),
            ("job/none/build", {}, 404),
        ],
    )
    def test_a_trigger_of_the_wrong_kind_is_refused(self, server: JenkinsServer, path: str, form: dict[str, str], status: int) -> None:
        assert ask(server, path, "POST", **form).status_code == status
        assert not server.state.items

    def test_a_trigger_must_be_posted(self, server: JenkinsServer) -> None:
        assert ask(server, "job/small/build").status_code == 405

    def test_unknown_parameters_are_passed_over(self, server: JenkinsServer) -> None:
        answer = ask(server, "job/team/job/nightly/buildWithParameters", "POST", A="2", NONE="3")
        assert (answer.status_code, answer.headers["Location"]) == (201, f"{server.url}/queue/item/41/")
        assert nightly(server).builds[0].parameters == {"A": "2", "B": False, "C": "x"}

    def test_a_tree_chooses_fields_and_ranges(self, server: JenkinsServer) -> None:
        for number in range(5):
            nightly(server).add_build(parameters={"A": str(number)})
        tree = urlencode({"tree": "name,none,builds[number]{1,3},lastBuild[actions[parameters[value]]]"})
        told = ask(server, f"job/team/job/nightly/api/json?{tree}").json()
        assert told["name"] == "nightly"
        assert [each["number"] for each in told["builds"]] == [4, 3]
        assert {"_class": "hudson.model.StringParameterValue", "value": "4"} in told["lastBuild"]["actions"][1]["parameters"]
        assert "color" not in told
        assert "none" not in told

    def test_depth_tells_more_and_all_builds_only_a_tree(self, server: JenkinsServer) -> None:
        nightly(server).add_build()
        flat, deep = (ask(server, f"job/team/job/nightly/api/json?depth={depth}").json() for depth in (0, 1))
        assert sorted(flat["builds"][0]) == ["_class", "number", "url"]
        assert deep["builds"][0]["result"] == "SUCCESS"
        assert "allBuilds" not in deep

    @pytest.mark.parametrize("expression", ["a[b", "a]", "[a]", "a,,b", "a{x}", ""])
    def test_a_tree_that_cannot_be_read_is_refused(self, expression: str) -> None:
        with pytest.raises(BadTree):
            parse(expression)

    @pytest.mark.parametrize(("limits", "kept"), [("{2}", [2]), ("{3,}", [3, 4]), ("{,2}", [0, 1]), ("{1,3}", [1, 2]), ("{9,}", [])])
    def test_a_range_is_read_as_stapler_reads_it(self, limits: str, kept: list[int]) -> None:
        chosen = parse(f"a{limits}")["a"]
        assert list(range(5))[chosen.start : chosen.end] == kept

    def test_the_python_flavour_is_python(self) -> None:
        assert as_python({"a": [None, True, 'q"ä', 1]}) == '{"a":[None,True,"q\\"\\u00e4",1]}'

    def test_an_item_that_left_can_be_read_until_it_vanishes_and_the_build_keeps_its_number(self, server: JenkinsServer) -> None:
        ask(server, "job/small/build", "POST")
        assert ask(server, "queue/item/41/api/json").json()["executable"]["number"] == 1
        server.state.item_seconds = 0
        assert ask(server, "queue/item/41/api/json").status_code == 404
        assert ask(server, "job/small/lastBuild/api/json").json()["queueId"] == 41

    def test_a_log_asked_for_beyond_its_end_begins_anew(self, server: JenkinsServer) -> None:
        build = server.root.children["small"].add_build(None)
        build.say("one\n")
        answer = ask(server, "job/small/1/logText/progressiveText?start=99")
        assert (answer.text, answer.headers["X-Text-Size"], answer.headers["X-More-Data"]) == ("one\n", "4", "true")
        build.end()
        assert "X-More-Data" not in ask(server, "job/small/1/logText/progressiveText?start=4").headers

    def test_permalinks_without_a_build_and_addresses_without_an_end(self, server: JenkinsServer) -> None:
        assert ask(server, "job/small/lastBuild/api/json").status_code == 404
        server.root.children["small"].add_build("FAILURE")
        assert ask(server, "job/small/lastSuccessfulBuild/api/json").status_code == 404
        assert ask(server, "job/small/lastBuild").headers["Location"] == f"{server.url}/job/small/lastBuild/"

    def test_a_restart_refuses_connections_keeps_what_waits_and_counts_on(self, server: JenkinsServer) -> None:
        server.state.hold = True
        ask(server, "job/team/job/nightly/buildWithParameters", "POST", A="1")
        ask(server, "job/team/job/nightly/buildWithParameters", "POST", A="2")
        server.state.begin(41)
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.1", server.port).request("GET", "/")
        server.start(starting=True)
        assert "getting ready to work" in ask(server, "api/json").text
        server.ready()
        assert [ask(server, f"queue/item/{number}/api/json").status_code for number in (41, 42)] == [404, 200]
        assert ask(server, "job/small/build", "POST").headers["Location"].endswith("/43/")

    @pytest.mark.parametrize("fault", ["cut_off", "drop"])
    def test_a_broken_answer_breaks(self, server: JenkinsServer, fault: str) -> None:
        break_it: Callable[[str], None] = getattr(server, fault)
        break_it("GET /api/json")
        with pytest.raises(requests.RequestException):
            ask(server, "api/json")
        assert json.loads(ask(server, "api/json").text)["_class"] == "hudson.model.Hudson"
