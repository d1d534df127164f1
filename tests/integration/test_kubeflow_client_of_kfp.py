"""The same scenes with the SDK's own client and with ours: the SDK's is as the facts say, ours ends better."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.support import kubeflow_flows as flows
from tests.support.kubeflow import OUTPUTS, specification, step, text
from tests.support.kubeflow_server import Fault, Script, StrictServer
from trainshed.errors import RemoteError, UsageError
from trainshed.pipelines import documents
from trainshed.tools import http
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Conflict, Trigger, Version

RATE = {"rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5}}
SPEC = specification("flow", {"train": step("pass", outputs=OUTPUTS), "judge": step("pass", needs=["train"])}, RATE)
API = "/apis/v2beta1"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import kfp

    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "no-context.json"))
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def package(tmp_path: Path) -> str:
    (tmp_path / "flow.yaml").write_text(text(SPEC))
    return str(tmp_path / "flow.yaml")


@contextmanager
def both(server: StrictServer, namespace: str = "") -> Iterator[tuple[Any, KubeflowClient]]:
    """Yield the SDK's client and ours, of one server."""
    import kfp

    with server.serve() as address, KubeflowClient(address, namespace=namespace) as client:
        yield kfp.Client(host=address, namespace=namespace or "kubeflow"), client


def version_of(client: KubeflowClient, name: str = "flow") -> Version:
    return client.upload_version(client.create_pipeline(name).id, "v1", text(SPEC))


def refusal(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """Return status and document with which the SDK's client fails."""
    import kfp_server_api

    with pytest.raises(kfp_server_api.ApiException) as caught:
        call()
    return caught.value.status, json.loads(caught.value.body)


def test_the_first_version_takes_the_name_of_the_pipeline_unless_it_is_made_empty_first(package: str) -> None:
    with both(StrictServer()) as (sdk, client):
        pipeline = sdk.upload_pipeline(package, "theirs")
        first = sdk.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
        assert [version.display_name for version in first] == ["theirs"]
        sdk.upload_pipeline_version(package, "second", pipeline_id=pipeline.pipeline_id)
        assert sdk.get_pipeline_id("theirs") == pipeline.pipeline_id
        assert version_of(client, "ours").name == "v1"
        assert [version.name for version in client.versions(client.create_pipeline("none").id)] == []


def test_versions_of_one_second_are_listed_in_any_order(package: str) -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        server.clock.stop()
        pipeline = sdk.upload_pipeline(package, "flow")
        sdk.upload_pipeline_version(package, "second", pipeline_id=pipeline.pipeline_id)
        listed = sdk.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc").pipeline_versions
        assert [version.display_name for version in listed] == ["flow", "second"]  # "the newest first"
        assert [version.name for version in client.versions(pipeline.pipeline_id, name="second")] == ["second"]


@pytest.mark.parametrize(("version", "status"), [("2.17.0", 409), ("2.2.0", 409), ("2.1.0", 500)])
def test_a_name_that_is_taken_tells_the_sdk_nothing_and_ours_what_is_there(package: str, version: str, status: int) -> None:
    server = StrictServer(version=version)
    with both(server) as (sdk, client):
        pipeline = sdk.upload_pipeline(package, "flow")
        opaque = "Failed to create a pipeline version"
        told = {"error_message": opaque, "error_details": opaque}
        assert refusal(lambda: sdk.upload_pipeline_version(package, "flow", pipeline_id=pipeline.pipeline_id)) == (status, told)
        with pytest.raises(Conflict):
            client.upload_version(pipeline.pipeline_id, "flow", text(SPEC), description="other content")
        assert len(server.state.versions) == 1


def test_an_unknown_id_is_an_opaque_400_to_the_sdk_and_named_by_ours(package: str) -> None:
    with both(StrictServer()) as (sdk, client):
        status, _ = refusal(lambda: sdk.upload_pipeline_version(package, "v", pipeline_id="nothing"))
        with pytest.raises(UsageError, match="pipeline nothing"):
            client.upload_version("nothing", "v", text(SPEC))
    assert status == 400


def test_both_read_lists_to_their_end_by_opaque_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.kubeflow._PAGE", 3)
    with both(StrictServer()) as (sdk, client):
        pipeline = client.create_pipeline("flow")
        names = [f"v{number}" for number in range(7)]
        for name in names:
            client.upload_version(pipeline.id, name, text(SPEC))
        found, token = [], ""
        while True:
            page = sdk.list_pipeline_versions(pipeline.id, page_token=token, page_size=3, sort_by="name")
            found += [version.display_name for version in page.pipeline_versions]
            token = page.next_page_token
            if not token:
                break
        assert (found, page.total_size) == (names, 7)
        assert sorted(version.name for version in client.versions(pipeline.id)) == names


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "SKIPPED"])
def test_waiting_returns_as_if_all_were_well_whatever_the_end(state: str) -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        run = start(client)
        server.runs.play(run, "PENDING", "RUNNING", state)
        assert sdk.wait_for_run_completion(run, timeout=60, sleep_duration=0.01).state == state
        ours = client.run(run)
        assert (ours.state, ours.finished) == (state, True)


def test_waiting_for_a_cancelled_run_never_ends() -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        run = start(client)
        sdk.terminate_run(run)
        with pytest.raises(TimeoutError, match="Run timeout"):
            sdk.wait_for_run_completion(run, timeout=0.3, sleep_duration=0.01)
        assert server.runs.plays[run].state == "CANCELED"
        assert client.run(run).finished
        assert refusal(lambda: sdk.terminate_run(run))[0] == 400
        client.terminate(run)  # it has ended: that is what was wanted


def start(client: KubeflowClient, name: str = "flow", **parameters: Any) -> str:
    return client.create_run(version_of(client, name), parameters, name=f"{name}-1", experiment=client.experiment("lab")).id


def test_an_expired_login_is_an_empty_success_to_the_sdk_and_an_error_to_ours(package: str) -> None:
    inside = True
    server = StrictServer(allows=lambda _: inside)
    with both(server) as (sdk, client):
        run = start(client)
        inside = False
        assert sdk.upload_pipeline(package, "flow-2").pipeline_id is None
        assert sdk.list_pipelines().pipelines is None
        assert sdk.get_pipeline_id("flow") is None
        assert sdk.get_run(run).state is None
        calls: list[Callable[[], Any]] = [
            lambda: client.pipeline_by_name("flow"),
            lambda: list(client.versions("p")),
            lambda: client.create_pipeline("flow-2"),
            lambda: client.upload_version("p", "v", text(SPEC)),
            lambda: client.experiment("lab"),
            lambda: client.run(run),
            lambda: client.terminate(run),
            lambda: client.task_log(run, "node"),
            client.require_ready,
        ]
        for call in calls:
            with pytest.raises(RemoteError, match="session expired") as caught:
                call()
            assert caught.value.next_step
    assert len(server.state.pipelines) == 1


def test_the_sdk_finds_no_pipeline_of_a_namespace_but_ours_does(package: str) -> None:
    with both(StrictServer(multi_user=True), "risk") as (sdk, client):
        pipeline = sdk.upload_pipeline(package, "flow", namespace="risk")
        assert sdk.get_pipeline_id("flow") is None
        found = client.pipeline_by_name("flow")
        assert found is not None
        assert (found.id, found.namespace) == (pipeline.pipeline_id, "risk")
        experiment = sdk.create_experiment("lab", namespace="risk")
        assert client.experiment("lab") == experiment.experiment_id


def test_many_users_need_a_namespace_and_one_has_none() -> None:
    many = StrictServer(multi_user=True)
    with both(many) as (sdk, client):
        assert refusal(sdk._experiment_api.experiment_service_list_experiments)[1]["message"].startswith("An experiment cannot")
        with pytest.raises(UsageError, match="wants a namespace"):
            client.require_ready()
    with both(StrictServer(), "risk") as (_, client), pytest.raises(UsageError, match="no namespaces"):
        client.require_ready()


def test_recurring_runs_are_made_switched_and_deleted_by_both() -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        version = version_of(client)
        experiment = client.experiment("lab")
        told: dict[str, Any] = {"pipeline_id": version.pipeline_id, "cron_expression": "0 0 3 * * *", "max_concurrency": 2}
        with pytest.raises(ValueError, match="both `pipeline_id` and `version_id` are required"):
            sdk.create_recurring_run(experiment, "nightly", **told)
        theirs = sdk.create_recurring_run(experiment, "nightly", version_id=version.id, enabled=False, **told)
        assert (theirs.mode, theirs.status, theirs.max_concurrency) == ("DISABLE", "DISABLED", "2")
        latest = Version(id="", pipeline_id=version.pipeline_id, name="")
        cron = Trigger(every=3600)
        ours = client.create_recurring_run(
            name="hourly", version=latest, trigger=cron, enabled=True, experiment=experiment, parameters={"rate": 0.1}
        )
        assert (ours.enabled, ours.trigger.every, ours.version_id, ours.parameters) == (True, 3600, "", {"rate": 0.1})
        client.enable_recurring_run(theirs.recurring_run_id)
        sdk.disable_recurring_run(ours.id)
        listed = {each.name: each.enabled for each in client.recurring_runs(experiment=experiment)}
        assert listed == {"nightly": True, "hourly": False}
        sdk.delete_recurring_run(theirs.recurring_run_id)
        client.delete_recurring_run(ours.id)
        client.delete_recurring_run(ours.id)  # it is gone: that is what was wanted
        assert len(server.state.schedules) == 0


def test_versions_and_pipelines_are_deleted_by_both_and_only_ours_takes_what_is_gone_for_deleted(package: str) -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        version = version_of(client)
        run = client.create_run(version, {}, name="job", experiment=client.experiment("lab"))
        assert refusal(lambda: sdk.delete_pipeline(version.pipeline_id))[0] == 400
        with pytest.raises(UsageError, match="existing pipeline versions"):
            client.delete_pipeline(version.pipeline_id)
        sdk.upload_pipeline_version(package, "second", pipeline_id=version.pipeline_id)
        (second,) = client.versions(version.pipeline_id, name="second")
        client.delete_version(version.pipeline_id, version.id)  # nobody asks whether it has runs
        assert client.run(run.id).version_id == version.id
        sdk.delete_pipeline_version(version.pipeline_id, second.id)
        client.delete_version(version.pipeline_id, second.id)
        assert refusal(lambda: sdk.delete_pipeline_version(version.pipeline_id, second.id))[0] == 404
        client.delete_pipeline(version.pipeline_id)
        client.delete_pipeline(version.pipeline_id)
        assert client.pipeline_by_name("flow") is None
        assert refusal(lambda: sdk.delete_pipeline(version.pipeline_id))[0] == 404


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_a_deletion_whose_answer_is_lost_is_asked_for_again(kind: str) -> None:
    server = StrictServer()
    with both(server) as (_, client):
        version = version_of(client)
        lost = [server.faults.add(Fault("DELETE", path, kind, after=True)) for path in (".*/versions/.*", ".*/pipelines/[^/]*")]
        client.delete_version(version.pipeline_id, version.id)
        client.delete_pipeline(version.pipeline_id)
        assert [fault.seen for fault in lost] == [1, 1]
        assert client.pipeline_by_name("flow") is None


def test_before_2_5_a_recurring_run_names_its_version() -> None:
    with both(StrictServer(version="2.4.0")) as (_, client):
        version = version_of(client)
        latest = Version(id="", pipeline_id=version.pipeline_id, name="")
        trigger, experiment = Trigger(cron="0 0 3 * * *"), client.experiment("lab")
        with pytest.raises(UsageError, match="version id is required"):
            client.create_recurring_run(name="n", version=latest, trigger=trigger, enabled=True, experiment=experiment, parameters={})


STEPS = ["tell", "exit-handler-1.inner.say", "exit-handler-1.inner.keep", "exit-handler-1.for-loop-3.0.keep"]
STEPS += ["exit-handler-1.for-loop-3.1.keep", "exit-handler-1.for-loop-3.0.read", "exit-handler-1.for-loop-3.1.read"]
STEPS += ["exit-handler-1.importer", "exit-handler-1.read-2", "exit-handler-1.condition-4"]


def test_the_sdk_sees_argos_nodes_where_ours_sees_the_tasks_with_what_they_gave(tmp_path: Path) -> None:
    server, compiled = StrictServer(), flows.write(flows.whole, tmp_path).read_text()
    server.runs.default = Script(
        states=("RUNNING", "SUCCEEDED"),
        skipped=["exit-handler-1.condition-4"],
        cached=["exit-handler-1.inner.say"],
        parameters={"exit-handler-1.inner.say": {"said": "first"}},
        metadata={"exit-handler-1.inner.keep.model": {"auc": 0.9, "rows": 7}},
        logs={"exit-handler-1.for-loop-3.1.keep": "kept b\n"},
    )
    with both(server) as (sdk, client):
        version = client.upload_version(client.create_pipeline("whole").id, "v", compiled)
        run = client.create_run(version, {}, name="one", experiment=client.experiment("lab"))
        assert sdk.get_run(run.id).state == "RUNNING"
        nodes = [task.display_name for task in sdk.get_run(run.id).run_details.task_details]
        assert {"root-driver", "executor", "say-driver", "iteration-iterations(1:1)", "exit-handler-1.onExit"} <= set(nodes)
        seen = client.with_outputs(client.run(run.id))
        tasks = {task.name: task for task in seen.tasks}
        log = client.task_log(run.id, tasks["exit-handler-1.for-loop-3.1.keep"].node)
    assert sorted(tasks) == sorted(STEPS)
    assert {name: task.state for name, task in tasks.items() if task.state != "SUCCEEDED"} == {"exit-handler-1.condition-4": "SKIPPED"}
    assert [name for name, task in tasks.items() if task.cached] == ["exit-handler-1.inner.say"]
    assert tasks["exit-handler-1.inner.say"].parameters == {"said": "first"}
    model = tasks["exit-handler-1.inner.keep"].artifacts["model"]
    assert (model.type, model.metadata) == ("system.Model", {"auc": 0.9, "rows": 7})
    assert log == "kept b\n"


def test_a_failed_task_is_told_and_what_needed_it_is_left_out(tmp_path: Path) -> None:
    server, compiled = StrictServer(), flows.write(flows.whole, tmp_path).read_text()
    server.runs.default = Script(states=("FAILED",), failed=["exit-handler-1.inner.say"])
    assert documents.load(compiled, place="whole")
    with both(server) as (_, client):
        version = client.upload_version(client.create_pipeline("whole").id, "v", compiled)
        run = client.run(client.create_run(version, {}, name="one", experiment=client.experiment("lab")).id)
    states = {task.name: task.state for task in run.tasks}
    assert (run.state, run.error) == ("FAILED", "")  # the server says no more than that
    assert (states["exit-handler-1.inner.say"], states["exit-handler-1.inner.keep"], states["tell"]) == ("FAILED", "SKIPPED", "SUCCEEDED")


RULES: list[tuple[str, str, dict[str, str], Any, int, str]] = [
    ("POST", "/pipelines", {}, {"name": "n" * 129}, 500, "Pipeline.Name length cannot exceed 128"),
    ("POST", "/pipelines", {}, {}, 400, "name is required"),
    ("POST", "/experiments", {}, {"display_name": ""}, 500, "non-empty name"),
    ("POST", "/experiments", {}, {"display_name": "Lab", "colour": "red"}, 400, "unknown field"),
    ("POST", "/runs", {}, {"display_name": "r"}, 500, "invalid pipeline spec manifest"),
    ("POST", "/runs", {}, {"display_name": "r", "experiment_id": "x"}, 404, "not found"),
    ("POST", "/recurringruns", {}, {"display_name": "r"}, 400, "Max concurrency"),
    ("POST", "/recurringruns", {}, {"display_name": "r", "max_concurrency": "11"}, 400, "Max concurrency"),
    ("POST", "/recurringruns", {}, {"display_name": "r", "max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "x"}}}, 400, "cron"),
    ("PATCH", "/recurringruns/x", {}, {}, 501, "Method Not Allowed"),
    ("GET", "/pipelines/names/none", {}, None, 404, "not found"),
    ("GET", "/elsewhere", {}, None, 404, "Not Found"),
    ("GET", "/runs", {"sort_by": "version"}, None, 400, "Invalid sorting field"),
    ("GET", "/runs", {"sort_by": "name up"}, None, 400, "Received invalid sort by format"),
    ("GET", "/runs", {"page_token": "no token"}, None, 400, "Invalid package token"),
    ("GET", "/runs", {"filter": "name = 1"}, None, 400, "failed to parse valid filter"),
    ("GET", "/runs", {"filter": '{"predicates": [{"operation": "EQUALS", "key": "x", "string_value": "y"}]}'}, None, 400, "unrecognized"),
    ("GET", "/runs", {"page_size": "-1"}, None, 400, "page size"),
]


@pytest.mark.parametrize(("method", "path", "query", "body", "status", "message"), RULES)
def test_the_server_of_the_tests_refuses_as_the_real_one_does(
    method: str, path: str, query: dict[str, str], body: Any, status: int, message: str
) -> None:
    with StrictServer().serve() as address, urllib3.PoolManager() as pool:
        fields = {"fields": query} if body is None else {"json": body}
        answer = pool.request(method, f"{address}{API}{path}", **fields)
    assert answer.status == status
    assert message in answer.json()["message"]
    assert set(answer.json()) == {"error", "code", "message", "details"}


def test_a_name_too_long_for_the_upload_is_refused_in_plain_text() -> None:
    with StrictServer().serve() as address, urllib3.PoolManager() as pool:
        sent = {"uploadfile": ("flow.yaml", text(SPEC))}
        answer = pool.request("POST", f"{address}{API}/pipelines/upload?name={'n' * 129}", fields=sent)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")


def test_the_sdk_makes_a_second_run_when_an_answer_is_lost_and_tried_again_but_ours_does_not() -> None:
    server = StrictServer()
    with both(server) as (sdk, client):
        version, experiment = version_of(client), client.experiment("lab")
        server.faults.add(Fault("POST", f"{API}/runs", kind="503", after=True))
        told = {"pipeline_id": version.pipeline_id, "version_id": version.id}
        with pytest.raises(Exception, match="503"):
            sdk.run_pipeline(experiment, "theirs", **told)
        sdk.run_pipeline(experiment, "theirs", **told)
        server.faults.add(Fault("POST", f"{API}/runs", kind="503", after=True))
        client.create_run(version, {}, name="ours", experiment=experiment)
        assert [row.name for row in server.state.runs.all()] == ["theirs", "theirs", "ours"]
