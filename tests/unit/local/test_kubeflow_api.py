from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.support.kubeflow import embedded, specification, step, text
from trainshed.local.kubeflow.runs import Runs, write_status

pytestmark = pytest.mark.sockets

PARAMETERS = {
    "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5},
    "rows": {"parameterType": "NUMBER_INTEGER", "isOptional": True},
    "on": {"parameterType": "BOOLEAN", "isOptional": True},
    "where": {"parameterType": "STRING", "isOptional": True},
}
SPEC = specification("flow", {"train": step("pass")}, PARAMETERS)


class Web:
    def __init__(self, address: str, runs: Runs) -> None:
        self.address, self.runs, self.pool = address, runs, urllib3.PoolManager(retries=False)

    def __call__(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **form: Any) -> tuple[int, Any]:
        options: dict[str, Any] = {"headers": headers or {}}
        if form:
            options["fields"] = form
        elif body is not None:
            options["body"] = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.pool.request(method, f"{self.address}/apis/v2beta1{path}", **options)
        return answer.status, json.loads(answer.data) if "json" in answer.headers["Content-Type"] else answer.data

    def good(self, method: str, path: str, body: Any = None, **form: Any) -> Any:
        status, document = self(method, path, body, **form)
        assert status == 200, document
        return document

    def upload(self, query: str, content: str | bytes = text(SPEC), *, to: str = "upload") -> tuple[int, Any]:
        return self("POST", f"/pipelines/{to}?{query}", uploadfile=("flow.yaml", content))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with embedded(tmp_path) as (address, runs):
        made = Web(address, runs)
        yield made
        made.pool.clear()


def test_the_first_version_of_an_upload_takes_the_pipelines_name(web: Web) -> None:
    pipeline = web.upload("name=diagnosis&description=about")[1]
    assert (pipeline["display_name"], pipeline["description"], "namespace" in pipeline) == ("diagnosis", "about", False)
    versions = web.good("GET", f"/pipelines/{pipeline['pipeline_id']}/versions")
    assert [version["display_name"] for version in versions["pipeline_versions"]] == ["diagnosis"]
    assert web.upload("")[1]["name"] == "flow"


def test_both_documents_of_a_pipeline_with_platform_settings_are_shown(web: Web) -> None:
    platform: dict[str, Any] = {"platforms": {"kubernetes": {}}}
    pipeline = web.upload("name=p", text(SPEC, platform))[1]
    version = web.good("GET", f"/pipelines/{pipeline['pipeline_id']}/versions")["pipeline_versions"][0]
    assert version["pipeline_spec"] == {"pipeline_spec": SPEC, "platform_spec": platform}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "not UTF-8"),
        ("a: b", "no compiled pipeline"),
        ("]", "not YAML"),
        (text({**SPEC, "root": {"dag": {"tasks": {"../x": {}}}}}), "is not a name"),
        (text({**SPEC, "components": []}), "components is not a mapping"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_in_the_shape_of_the_upload_endpoints(web: Web, content: str | bytes, message: str) -> None:
    status, document = web.upload("name=x", content)
    assert (status, set(document)) == (400, {"error_message", "error_details"})
    assert message in document["error_message"]
    assert web.good("GET", "/pipelines") == {"total_size": 0}


def test_an_upload_without_its_form_part_or_pipeline_is_refused(web: Web) -> None:
    assert web("POST", "/pipelines/upload?name=x", other="1")[0] == 400
    assert web("POST", "/pipelines/upload?name=x", {})[0] == 400
    status, document = web.upload("name=x&pipelineid=nothing", to="upload_version")
    assert (status, document["error_message"]) == (400, "failed to create a pipeline version: invalid pipeline id")


def test_a_name_is_taken_once_in_its_namespace(web: Web) -> None:
    first = web.good("POST", "/pipelines", {"display_name": "p", "namespace": "a"})
    web.good("POST", "/pipelines", {"display_name": "p", "namespace": "b"})
    status, document = web("POST", "/pipelines", {"display_name": "p", "namespace": "a"})
    assert (status, document["code"], "already exists" in document["message"]) == (409, 6, True)
    assert web.good("GET", "/pipelines/names/p")["pipeline_id"] == first["pipeline_id"]
    assert web.good("GET", "/pipelines/names/p?namespace=b")["namespace"] == "b"
    assert web("GET", "/pipelines/names/q")[0] == 404
    assert web("POST", "/pipelines", {"display_name": "x" * 129})[0] == 400


def test_tags_are_kept_shown_and_found_within_their_limits(web: Web) -> None:
    made = web.good("POST", "/pipelines", {"display_name": "p", "tags": {"team": "risk"}})
    assert made["tags"] == {"team": "risk"}
    target = f"name=v1&pipelineid={made['pipeline_id']}&tags="
    assert web.upload(target + json.dumps({"commit": "abc"}), to="upload_version")[1]["tags"] == {"commit": "abc"}
    assert web.upload(f"name=v2&pipelineid={made['pipeline_id']}", to="upload_version")[0] == 200
    wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "tags.commit", "string_value": "abc"}]}).replace(" ", "")
    found = web.good("GET", f"/pipelines/{made['pipeline_id']}/versions?filter={wanted}")
    assert [version["name"] for version in found["pipeline_versions"]] == ["v1"]
    for bad in ("{", "[]", '{"a":1}', json.dumps({"a.b": "c"}), json.dumps({"a": "x" * 64}), json.dumps({f"k{n}": "v" for n in range(21)})):
        assert web.upload(target + bad, to="upload_version")[0] == 400


def test_recurring_runs_are_refused_in_the_servers_words(web: Web) -> None:
    for method, path in (("GET", "/recurringruns"), ("POST", "/recurringruns"), ("POST", "/recurringruns/a:enable")):
        status, document = web(method, path)
        assert (status, document["code"], "no recurring runs" in document["message"]) == (501, 12, True)


def test_tasks_of_nested_pipelines_name_what_holds_them(web: Web) -> None:
    run = run_of(web)[1]["run_id"]
    tasks = [{"name": "inner.train", "state": "FAILED", "started": "2026-01-01T00:00:00Z"}, {"name": "inner.deep.show", "state": "PENDING"}]
    write_status(web.runs.folder(run), {"state": "RUNNING", "error": "", "tasks": [*tasks, {"name": "train", "state": "SUCCEEDED"}]})
    told = web.good("GET", f"/runs/{run}")["run_details"]["task_details"]
    assert [(task["task_id"].partition("/")[2], task["display_name"], task["state"]) for task in told] == [
        ("inner", "inner", "FAILED"),
        ("inner.train", "train", "FAILED"),
        ("inner.deep", "deep", "PENDING"),
        ("inner.deep.show", "show", "PENDING"),
        ("train", "train", "SUCCEEDED"),
    ]
    assert [task.get("parent_task_id", "").partition("/")[2] for task in told] == ["", "inner", "inner", "inner.deep", ""]
    assert [task.get("pod_name") for task in told] == [None, "inner.train", None, None, None]


def test_a_pipeline_within_itself_is_refused(web: Web) -> None:
    spec = json.loads(json.dumps(SPEC))
    spec["components"]["comp-train"] = {"dag": {"tasks": {"again": {"componentRef": {"name": "comp-train"}}}}}
    assert "holds itself" in web.upload("name=x", text(spec))[1]["error_message"]


def test_versions_and_pipelines_are_deleted_in_that_order(web: Web) -> None:
    pipeline = web.upload("name=p")[1]["pipeline_id"]
    version = web.good("GET", f"/pipelines/{pipeline}/versions")["pipeline_versions"][0]["pipeline_version_id"]
    assert web.good("GET", f"/pipelines/{pipeline}/versions/{version}")["pipeline_spec"] == SPEC
    assert web("GET", f"/pipelines/other/versions/{version}")[0] == 404
    assert web("DELETE", f"/pipelines/{pipeline}")[0] == 400
    web.good("DELETE", f"/pipelines/{pipeline}/versions/{version}")
    web.good("DELETE", f"/pipelines/{pipeline}")
    assert web("GET", f"/pipelines/{pipeline}")[0] == 404
    again = web.upload("name=p")[1]["pipeline_id"]
    web.good("DELETE", f"/pipelines/{again}?cascade=true")
    assert web.good("GET", f"/pipelines/{again}/versions") == {"total_size": 0}


def run_of(web: Web, **more: Any) -> Any:
    return web("POST", "/runs", {"display_name": "r", "pipeline_spec": SPEC, **more})


def test_a_run_of_a_specification_lands_in_the_default_experiment(web: Web) -> None:
    status, run = run_of(web, runtime_config={"parameters": {"rate": 1}}, service_account="robot")
    assert (status, run["state"], run["finished_at"], run["service_account"]) == (200, "RUNNING", "1970-01-01T00:00:00Z", "robot")
    assert run["run_details"]["task_details"][0]["state"] == "PENDING"
    assert web.good("GET", f"/experiments/{run['experiment_id']}")["display_name"] == "Default"
    assert run_of(web)[1]["experiment_id"] == run["experiment_id"]
    assert run_of(web, experiment_id="nothing")[0] == 404


def test_a_run_of_a_pipeline_without_a_version_takes_the_newest(web: Web) -> None:
    pipeline = web.upload("name=p")[1]["pipeline_id"]
    reference = {"pipeline_id": pipeline}
    assert web("POST", "/runs", {"pipeline_version_reference": reference})[1]["display_name"] == "flow"
    assert web("POST", "/runs", {"pipeline_version_reference": {"pipeline_id": "nothing"}})[0] == 404


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rat": 1}, "no parameter rat"),
        ({"rate": "x"}, "rate is NUMBER_DOUBLE"),
        ({"rows": 1.5}, "rows is NUMBER_INTEGER"),
        ({"rows": True}, "rows is NUMBER_INTEGER"),
        ({"on": 1}, "on is BOOLEAN"),
        ({"where": 1}, "where is STRING"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(web: Web, given: Any, message: str) -> None:
    status, document = run_of(web, runtime_config={"parameters": given})
    assert (status, message in document["message"]) == (400, True)
    assert web.good("GET", "/runs") == {"total_size": 0}


def test_a_parameter_without_default_is_asked_for_and_whole_numbers_may_be_floats(web: Web) -> None:
    needs = specification("flow", {"train": step("pass")}, {"rows": {"parameterType": "NUMBER_INTEGER"}})
    assert "neither a default nor a value" in web("POST", "/runs", {"pipeline_spec": needs})[1]["message"]
    assert web("POST", "/runs", {"pipeline_spec": needs, "runtime_config": {"parameters": {"rows": 2.0}}})[0] == 200
    assert web("POST", "/runs", {"pipeline_spec": {"root": {}}})[0] == 400


def test_a_run_is_archived_terminated_and_deleted(web: Web) -> None:
    run = run_of(web)[1]["run_id"]
    web.good("POST", f"/runs/{run}:archive")
    assert web.good("GET", f"/runs/{run}")["storage_state"] == "ARCHIVED"
    web.good("POST", f"/runs/{run}:unarchive")
    web.good("POST", f"/runs/{run}:terminate")
    seen = web.good("GET", f"/runs/{run}")
    assert (seen["state"], seen["storage_state"]) == ("CANCELING", "AVAILABLE")
    write_status(
        web.runs.folder(run),
        {"state": "FAILED", "error": "task train: exit code 3", "tasks": [{"name": "train", "state": "FAILED", "error": "exit code 3"}]},
    )
    seen = web.good("GET", f"/runs/{run}")
    assert (seen["error"]["message"], seen["run_details"]["task_details"][0]["error"]["message"]) == (
        "task train: exit code 3",
        "exit code 3",
    )
    assert web("POST", f"/runs/{run}:terminate")[0] == 400
    web.good("DELETE", f"/runs/{run}")
    assert web("GET", f"/runs/{run}")[0] == 404


def test_a_log_is_text_and_only_of_tasks_that_there_are(web: Web) -> None:
    run = run_of(web)[1]["run_id"]
    log = web.runs.folder(run) / "logs" / "train.log"
    log.parent.mkdir()
    log.write_text("epoch 1\n")

    def asked(node: str) -> tuple[int, Any]:
        answer = web.pool.request("GET", f"{web.address}/apis/v1alpha1/runs/{run}/nodes/{node}/log")
        return answer.status, answer.data

    assert asked("train") == (200, b"epoch 1\n")
    status, body = asked("..%2F..%2Fkubeflow.sqlite")
    assert (status, set(json.loads(body))) == (500, {"error_message", "error_details"})


def test_lists_are_filtered_sorted_and_paged(web: Web) -> None:
    for name in ("b", "a", "c", "ab"):
        web.good("POST", "/experiments", {"display_name": name})

    def names(**query: str) -> list[str]:
        status, page = web("GET", "/experiments?" + "&".join(f"{key}={value}" for key, value in query.items()))
        assert status == 200, page
        return [experiment["display_name"] for experiment in page.get("experiments", [])]

    def wanted(operation: Any, value: Any, kind: str = "stringValue") -> str:
        return json.dumps({"predicates": [{"operation": operation, "key": "display_name", kind: value}]}).replace(" ", "")

    assert names() == ["b", "a", "c", "ab"]
    assert names(sort_by="display_name%20desc") == ["c", "b", "ab", "a"]
    assert names(filter=wanted("EQUALS", "a")) == ["a"]
    assert names(filter=wanted(1, "a", "string_value")) == ["a"]
    assert names(filter=wanted("NOT_EQUALS", "a"), sort_by="display_name") == ["ab", "b", "c"]
    assert names(filter=wanted(9, "b")) == ["b", "ab"]
    assert names(filter=wanted("IN", {"values": ["a", "c"]}, "string_values")) == ["a", "c"]
    assert names(filter=wanted("GREATER_THAN", "b")) == ["c"]
    assert names(filter=wanted("GREATER_THAN_EQUALS", "b")) == ["b", "c"]
    assert names(filter=wanted("LESS_THAN", "ab")) == ["a"]
    assert names(filter=wanted("LESS_THAN_EQUALS", "ab")) == ["a", "ab"]


def test_pages_follow_each_other_without_loss_and_a_strange_token_is_refused(web: Web) -> None:
    for number in range(5):
        web.good("POST", "/experiments", {"display_name": f"e{number}"})
    token, seen = "", []
    while True:
        page = web.good("GET", f"/experiments?page_size=2&page_token={token}")
        assert page["total_size"] == 5
        seen += [experiment["display_name"] for experiment in page["experiments"]]
        token = page.get("next_page_token", "")
        if not token:
            break
        assert web("GET", f"/experiments?page_size=2&sort_by=display_name&page_token={token}")[0] == 400
    assert seen == ["e0", "e1", "e2", "e3", "e4"]


BAD_FILTERS = [
    "filter=" + json.dumps({"predicates": [predicate]}).replace(" ", "")
    for predicate in (
        {"operation": 4, "key": "name", "string_value": "a"},
        {"operation": "EQUALS", "key": "size", "string_value": "a"},
        {"operation": "EQUALS", "key": "name"},
        {"operation": "IN", "key": "name", "string_value": "a"},
        {"operation": "EQUALS", "key": "name", "string_values": {"values": ["a"]}},
    )
]


@pytest.mark.parametrize(
    "query",
    ["page_token=x", "page_size=many", "sort_by=id;drop", "filter=x", "page_size=-1", "sort_by=size", *BAD_FILTERS],
)
def test_a_wrong_query_is_refused(web: Web, query: str) -> None:
    status, document = web("GET", f"/pipelines?{query}")
    assert (status, document["code"]) == (400, 3)


def test_what_a_web_page_could_send_is_refused(web: Web) -> None:
    assert web("GET", "/pipelines", headers={"Host": "evil.example.org"})[0] == 403
    assert web("POST", "/pipelines", {"display_name": "x"}, headers={"Origin": "http://evil.example.org"})[0] == 403
    assert web.good("GET", "/pipelines") == {"total_size": 0}


def test_broken_requests_are_refused_and_the_server_goes_on(web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    assert web("POST", "/pipelines", b"{")[0] == 400
    assert web("POST", "/pipelines", b"[]")[0] == 400
    assert web("GET", "/nothing")[0] == 404
    assert web("DELETE", "/healthz")[0] == 404
    assert web("POST", "/pipelines", headers={"Content-Length": "many"})[0] == 411
    assert web("POST", "/pipelines", headers={"Content-Length": str(2**40)})[0] == 413
    assert web("POST", "/runs", {"pipeline_spec": 7})[0] == 500
    assert "Traceback" in capfd.readouterr().err
    told = web.good("GET", "/healthz")
    assert (told["tag_name"].startswith("2."), told["multi_user"]) == (True, False)
