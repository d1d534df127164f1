from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.support.kubeflow import Asked, Said, Scripted, embedded, said, specification, step, text
from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.local.kubeflow.runs import Runs, write_status
from trainshed.tools import process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_metadata import Execution, MetadataStore
from trainshed.tools.kubeflow_records import (
    Artifact,
    Conflict,
    Denied,
    MalformedAnswer,
    NotFound,
    Run,
    Server,
    Task,
    Trigger,
    recurring_run_of,
    run_of,
)
from trainshed.tools.kubeflow_requests import Unclear

pytestmark = pytest.mark.sockets

SPEC = specification("flow", {"train": step("pass")}, {"rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5}})
HTML = {"Content-Type": "text/html"}
DOWN, BROKEN = said({"message": "down"}, 503), said({"message": "x"}, 500)
CUT = (200, {"Content-Type": "application/json", "Content-Length": "999"}, b"{")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of making them."""
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    monkeypatch.setattr("time.sleep", made.append)
    return made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[KubeflowClient, Runs]]:
    with embedded(tmp_path) as (address, runs), KubeflowClient(address) as client:
        yield client, runs


def refused(answer: Said, call: Any = None) -> Exception:
    with Scripted(lambda _: answer).serve() as address, KubeflowClient(address) as client:
        with pytest.raises((RemoteError, UsageError)) as caught:
            (call or (lambda client: client.healthz()))(client)
        return caught.value


def test_a_pipeline_gets_versions_with_names_of_their_own_and_their_content_back(served: tuple[KubeflowClient, Runs]) -> None:
    client, _ = served
    assert client.healthz()["multi_user"] is False
    assert client.pipeline_by_name("flow") is None
    pipeline = client.create_pipeline("flow", description="d")
    version = client.upload_version(pipeline.id, "main-1", text(SPEC), description="commit 1")
    assert client.pipeline_by_name("flow") == pipeline
    kept = client.version(pipeline.id, version.id)
    assert (kept.name, kept.description, kept.spec) == ("main-1", "commit 1", SPEC)
    assert [each.name for each in client.versions(pipeline.id)] == ["main-1"]


def test_a_name_that_is_taken_is_a_conflict(served: tuple[KubeflowClient, Runs]) -> None:
    client, _ = served
    pipeline = client.create_pipeline("flow")
    with pytest.raises(Conflict, match="pipeline 'flow' already exists"):
        client.create_pipeline("flow")
    client.upload_version(pipeline.id, "v", text(SPEC))
    with pytest.raises(Conflict, match="version 'v' already exists"):
        client.upload_version(pipeline.id, "v", text(SPEC))


def test_all_pages_of_versions_are_read_the_newest_first(served: tuple[KubeflowClient, Runs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.kubeflow._PAGE", 2)
    client, _ = served
    pipeline = client.create_pipeline("flow")
    for number in range(5):
        client.upload_version(pipeline.id, f"v{number}", text(SPEC))
    assert [each.name for each in client.versions(pipeline.id)] == ["v4", "v3", "v2", "v1", "v0"]


def test_a_run_tells_states_outputs_and_metrics_of_its_tasks(served: tuple[KubeflowClient, Runs], monkeypatch: pytest.MonkeyPatch) -> None:
    client, runs = served
    pipeline = client.create_pipeline("flow")
    version = client.upload_version(pipeline.id, "v", text(SPEC))
    experiment = client.experiment("lab")
    assert client.experiment("lab") == experiment
    run = client.create_run(version, {"rate": 0.25}, name="one", experiment=experiment, pipeline_root="/x", service_account="robot")
    assert (run.state, run.parameters, run.version_id, run.finished) == ("RUNNING", {"rate": 0.25}, version.id, False)
    model: dict[str, Any] = {"uri": "file:///m", "type": "system.Model", "metadata": {"rows": 3, "note": "x", "flag": True}}
    told = {"name": "train", "state": "SUCCEEDED"}
    write_status(runs.folder(run.id), {"state": "SUCCEEDED", "error": "", "tasks": [told]})
    seen = client.run(run.id)
    assert seen.finished
    assert seen.metrics == {}
    artifact = Artifact(name="model", **model)
    execution = Execution(id=1, path="train", state="SUCCEEDED", cached=True, parameters={"auc": 0.9}, artifacts={"model": artifact})
    monkeypatch.setattr(MetadataStore, "executions", lambda _, asked: [execution] if asked == run.id else [])
    assert client.with_outputs(seen).metrics == {"train.auc": 0.9, "train.model.rows": 3.0}
    assert client.with_outputs(seen).tasks[0].cached
    assert client.artifacts(run.id) == {"train.model": artifact}
    assert [each.id for each in client.runs(experiment=experiment)] == [run.id]


def test_a_run_is_terminated_even_after_sigterm(served: tuple[KubeflowClient, Runs]) -> None:
    client, runs = served
    version = client.upload_version(client.create_pipeline("flow").id, "v", text(SPEC))
    run = client.create_run(version, {}, name="one", experiment=client.experiment("lab"))
    process.stopping.set()
    client.terminate(run.id)
    process.stopping.clear()
    assert runs.terminating(run.id)
    assert client.run(run.id).state == "CANCELING"


TEXT = {"Content-Type": "text/plain"}


@pytest.mark.parametrize(
    ("answer", "log"),
    [
        ((200, TEXT, b"epoch 1\n"), "epoch 1\n"),
        (said({"error_message": "no pod", "error_details": "stack"}, 500), None),
        (said({"message": "no run", "code": 5}, 404), None),
        (said({}), None),
    ],
)
def test_the_log_of_a_task_is_asked_for_by_its_node_and_once(answer: Said, log: str | None) -> None:
    script = Scripted(lambda _: answer)
    with script.serve() as address, KubeflowClient(address) as client:
        assert client.task_log("r/1", "pod-1") == log
    assert [asked.path for asked in script.asked] == ["/apis/v1alpha1/runs/r%2F1/nodes/pod-1/log"]


def test_the_pages_in_front_of_the_api_have_a_way_of_their_own_to_logs() -> None:
    script = Scripted(lambda asked: (200, TEXT, b"epoch 1") if "/k8s/" in asked.path else (404, HTML, b"Cannot GET"))
    with script.serve() as address, KubeflowClient(address, namespace="ours") as client:
        assert client.task_log("r", "pod-1") == "epoch 1"
    assert script.asked[1].path == "/k8s/pod/logs?podname=pod-1&runid=r&podnamespace=ours"


def test_a_login_page_is_no_log() -> None:
    assert "session expired" in str(refused((200, HTML, b"<html>"), lambda client: client.task_log("r", "n")))


def test_an_unknown_run_is_not_found(served: tuple[KubeflowClient, Runs]) -> None:
    with pytest.raises(NotFound, match="not found"):
        served[0].run("nothing")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((302, {"Location": "https://login.example.org/"}, b""), "session expired"),
        ((200, HTML, b"<html>log in</html>"), "session expired"),
        (said({"message": "no"}, 401), "not permitted .HTTP 401.: no"),
        (said({"message": "no"}, 403), "not permitted .HTTP 403.: no"),
        ((500, HTML, b"<h1>broken</h1>"), "HTTP 500: broken$"),
        ((404, HTML, b"default backend - 404"), "no Kubeflow Pipelines there .HTTP 404.: default backend - 404"),
        (said([1]), "expected a JSON object"),
        ((200, {"Content-Type": "application/json"}, b"{"), "expected JSON"),
    ],
)
def test_what_is_not_the_api_is_said(answer: Said, message: str) -> None:
    error = refused(answer)
    assert isinstance(error, RemoteError)
    assert re.search(message, str(error))


def test_an_answer_without_an_id_is_an_error_and_not_an_empty_object() -> None:
    for answer in ({}, {"pipeline_id": ""}, {"pipeline_id": 7}):
        error = refused(said(answer), lambda client: client.create_pipeline("x"))
        assert "without pipeline_id" in str(error)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (said({"error_message": "m", "error_details": "already exists\nstack"}, 500), Conflict, "already exists: m$"),
        (said({"error_message": "bad", "error_details": "bad\nstack"}, 400), UsageError, r"version 'v' \(pipeline p\): refused: bad$"),
        (said([], 400), UsageError, "refused: no message"),
        ((400, {"Content-Type": "text/plain"}, b"Name too long\n"), UsageError, "refused: Name too long$"),
        (said({"error_message": "permission to create pipelines is required"}, 400), Denied, "not permitted .HTTP 400."),
    ],
)
def test_errors_of_the_upload_endpoints_are_read_in_their_own_shape(answer: Said, kind: type, message: str) -> None:
    error = refused(answer, lambda client: client.upload_version("p", "v", "{}"))
    assert type(error) is kind
    assert re.search(message, str(error))


def test_names_and_files_that_kubeflow_would_cut_are_refused_before_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.kubeflow.PACKAGE_LIMIT", 10)
    script = Scripted(lambda _: said({}))
    with script.serve() as address, KubeflowClient(address) as client:
        with pytest.raises(UsageError, match="expected 1 to 128 characters"):
            client.create_pipeline("x" * 129)
        with pytest.raises(UsageError, match="expected 1 to 127 characters"):
            client.upload_version("p", "", "")
        with pytest.raises(UsageError, match="more than Kubeflow takes"):
            client.upload_version("p", "v", "x" * 11)
    assert script.asked == []


def test_a_pipeline_of_another_namespace_is_not_taken_for_ours() -> None:
    script = Scripted(lambda _: said({"pipeline_id": "1", "display_name": "x", "namespace": "theirs"}))
    with script.serve() as address, KubeflowClient(address, namespace="ours") as client:
        assert client.pipeline_by_name("x") is None
    assert script.asked[0].path == "/apis/v2beta1/pipelines/names/x?namespace=ours"


def test_an_experiment_that_another_launch_creates_meanwhile_is_taken() -> None:
    listed = iter([{}, {"experiments": [{"experiment_id": "7", "display_name": "lab"}]}])
    script = Scripted(lambda asked: said({"message": "exists"}, 409) if asked.method == "POST" else said(next(listed)))
    with script.serve() as address, KubeflowClient(address) as client:
        assert client.experiment("lab") == "7"


def test_metrics_are_the_numbers_of_parameters_and_metadata() -> None:
    task = Task(id="1", name="t", state="SUCCEEDED", parameters={"n": 3, "on": True, "text": "4"})
    assert Run(id="r", name="r", state="SUCCEEDED", tasks=(task,)).metrics == {"t.n": 3.0}


def test_recurring_runs_are_enabled_disabled_and_deleted_and_gone_is_deleted() -> None:
    on, off = said({"recurring_run_id": "a", "mode": "ENABLE"}), said({"recurring_run_id": "a", "mode": "DISABLE"})
    answers = iter([said({"message": "x"}, 503), said({}), on, said({}), off, said({"message": "none", "code": 5}, 404)])
    script = Scripted(lambda _: next(answers))
    with script.serve() as address, KubeflowClient(address) as client:
        client.enable_recurring_run("a")
        client.disable_recurring_run("a")
        client.delete_recurring_run("a")
    path = "/apis/v2beta1/recurringruns/a"
    assert [(asked.method, asked.path) for asked in script.asked] == [
        ("POST", f"{path}:enable"), ("POST", f"{path}:enable"), ("GET", path), ("POST", f"{path}:disable"), ("GET", path), ("DELETE", path),
    ]  # fmt: skip


def test_versions_and_pipelines_are_deleted_though_an_answer_is_lost_and_gone_is_deleted() -> None:
    none = said({"message": "none", "code": 5}, 404)
    answers = iter([said({"message": "x"}, 503), none, said({}), said({"message": "has versions", "code": 9}, 400)])
    script = Scripted(lambda _: next(answers))
    with script.serve() as address, KubeflowClient(address) as client:
        client.delete_version("p/1", "v")
        client.delete_pipeline("p")
        with pytest.raises(UsageError, match="pipeline q: refused: has versions"):
            client.delete_pipeline("q")
    paths = ["p%2F1/versions/v", "p%2F1/versions/v", "p", "q"]
    assert [(asked.method, asked.path.partition("/pipelines/")[2]) for asked in script.asked] == [("DELETE", path) for path in paths]


def test_a_recurring_run_that_is_not_what_it_was_switched_to_is_told_though_the_answer_was_good() -> None:
    def answer(asked: Asked) -> Said:
        return said({} if asked.method == "POST" else {"recurring_run_id": "a", "mode": "DISABLE", "status": "ENABLED"})

    with Scripted(answer).serve() as address, KubeflowClient(address) as client, pytest.raises(RemoteError, match="is disabled, though"):
        client.enable_recurring_run("a")


def test_what_a_proxy_does_not_know_is_neither_deleted_nor_missing() -> None:
    kong = said({"message": "no Route matched with those values"}, 404)
    for call in (
        lambda client: client.delete_recurring_run("a"),
        lambda client: client.delete_version("a", "b"),
        lambda client: client.delete_pipeline("a"),
        lambda client: client.pipeline_by_name("flow"),
    ):
        assert "no Kubeflow Pipelines there" in str(refused(kong, call))


def test_nothing_exists_already_where_nothing_is_made() -> None:
    aborted = said({"code": 10, "message": "aborted"}, 409)
    for call in (lambda client: client.healthz(), lambda client: client.run("1"), lambda client: client.enable_recurring_run("1")):
        error = refused(aborted, call)
        assert isinstance(error, Unclear)
        assert "HTTP 409: aborted" in error.message


@pytest.mark.parametrize(("version", "sent"), [("2.17.0", True), ("2.18.1", True), ("2.16.9", False), ("unknown", False)])
def test_tags_are_sent_to_servers_that_know_them(version: str, sent: bool) -> None:
    def answer(asked: Asked) -> Said:
        kept = {"pipeline_version_id": "x", "pipeline_id": "p1", "display_name": "v", "tags": {"commit": "1"}}
        return said({"tag_name": version, "multi_user": False} if asked.path.endswith("healthz") else kept)

    script = Scripted(answer)
    with script.serve() as address, KubeflowClient(address) as client:
        for name in ("v", "w"):
            assert client.upload_version("p1", name, "{}", tags={"commit": "1"}).tags == {"commit": "1"}
        with pytest.raises(UsageError, match="at most 63 characters"):
            client.upload_version("p1", "v", "{}", tags={"commit": "1" * 64})
    health, *uploads = script.asked  # asked once
    assert health.path.endswith("healthz")
    assert ["tags" in dict(parse_qsl(asked.path.partition("?")[2])) for asked in uploads] == [sent, sent]


# what is read


def test_versions_are_filtered_by_the_server_and_again_as_it_ignores_case_and_takes_underscores_for_any_letter() -> None:
    listed = [{"pipeline_version_id": name, "pipeline_id": "p", "display_name": name} for name in ("a_b", "A_b", "axb")]
    script = Scripted(lambda _: said({"pipeline_versions": listed}))
    with script.serve() as address, KubeflowClient(address) as client:
        assert [found.name for found in client.versions("p", name="a_b")] == ["a_b"]
        assert [found.name for found in client.versions("p", containing="_b")] == ["a_b", "A_b"]
    filters = [json.loads(dict(parse_qsl(asked.path.partition("?")[2]))["filter"])["predicates"] for asked in script.asked]
    assert filters[0] == [{"operation": "EQUALS", "key": "display_name", "string_value": "a_b"}]
    assert filters[1] == [{"operation": "IS_SUBSTRING", "key": "display_name", "string_value": "_b"}]


def test_pages_that_go_in_a_circle_are_not_taken_for_all_there_is() -> None:
    tokens = cycle(["a", "b"])
    script = Scripted(lambda _: said({"next_page_token": next(tokens)}))
    again = pytest.raises(RemoteError, match="the runs: the same page is named again")
    with script.serve() as address, KubeflowClient(address) as client, again:
        list(client.runs())
    assert len(script.asked) == 3


def test_proto_json_is_read_with_what_it_leaves_out_and_with_its_own_ways() -> None:
    run = run_of({"run_id": "1", "state": "RUNTIME_STATE_UNSPECIFIED", "finished_at": "1970-01-01T00:00:00Z", "error": None})
    assert (run.state, run.ended, run.error, run.finished) == ("PENDING", "", "", False)
    assert run_of({"run_id": "1"}).state == "PENDING"
    history = [{"state": "FAILED", "error": {"message": "the driver failed"}}]
    failed = run_of(
        {"run_id": "1", "state": "FAILED", "finished_at": "2026-01-01T00:00:00Z", "state_history": history, "pipeline_version_id": "v"}
    )
    assert (failed.error, failed.ended, failed.version_id) == ("the driver failed", "2026-01-01T00:00:00Z", "v")
    recurring = recurring_run_of(
        {"recurring_run_id": "1", "status": "ENABLED", "trigger": {"periodic_schedule": {"interval_second": "60"}}}
    )
    assert (recurring.enabled, recurring.trigger, recurring.max_concurrency) == (True, Trigger(every=60), 1)
    assert recurring_run_of({"recurring_run_id": "1", "status": "STATUS_UNSPECIFIED", "mode": "ENABLE"}).enabled
    assert not recurring_run_of({"recurring_run_id": "1", "mode": "DISABLE", "no_catchup": True}).catch_up
    assert recurring_run_of({"recurring_run_id": "1", "mode": "ENABLE", "status": "DISABLED"}).enabled  # the cluster comes after
    assert not recurring_run_of({"recurring_run_id": "1", "mode": "DISABLE", "status": "ENABLED"}).enabled


@pytest.mark.parametrize(
    "document",
    [
        {"run_id": 7},
        {"run_id": "1", "state": 3},
        {"run_id": "1", "runtime_config": []},
        {"run_id": "1", "error": "x"},
        {"run_id": "1", "run_details": {"task_details": ["x"]}},
        {"run_id": "1", "run_details": {"task_details": {}}},
    ],
)
def test_a_field_of_another_type_is_an_error_and_not_a_crash(document: dict[str, Any]) -> None:
    error = refused(said(document), lambda client: client.run("1"))
    assert isinstance(error, MalformedAnswer)


def test_a_number_that_is_none_is_an_error() -> None:
    values: list[Any] = ["many", [], 1.5]
    for value in values:
        with pytest.raises(MalformedAnswer, match="max_concurrency"):
            recurring_run_of({"recurring_run_id": "1", "max_concurrency": value})


def test_an_archived_experiment_is_said() -> None:
    listed = {"experiments": [{"experiment_id": "1", "display_name": "lab", "storage_state": "ARCHIVED"}]}
    assert "is archived" in str(refused(said(listed), lambda client: client.experiment("lab")))


# before any work


def ready(health: Any, *, namespace: str = "", sdk: str = "", others: Said | None = None) -> tuple[list[str], list[str]]:
    script = Scripted(lambda asked: said(health) if asked.path.endswith("healthz") else others or said({}))
    with script.serve() as address, KubeflowClient(address, namespace=namespace) as client:
        return client.require_ready(sdk=sdk), [asked.path for asked in script.asked]


def test_a_service_is_ready_when_it_answers_something_that_needs_a_login() -> None:
    warnings, asked = ready({"tag_name": "2.17.0", "multi_user": True}, namespace="ours", sdk="kfp-2.17.0")
    assert warnings == []
    assert asked == ["/apis/v2beta1/healthz", "/apis/v2beta1/experiments?namespace=ours&page_size=1"]
    with pytest.raises(Denied, match="session expired") as caught:
        ready({"multi_user": False}, others=(302, {"Location": "/login"}, b""))
    assert caught.value.permanent
    with pytest.raises(Denied, match="not permitted"):
        ready({"multi_user": True}, namespace="theirs", others=said({"message": "RBAC"}, 403))


@pytest.mark.parametrize(
    ("version", "sdk", "warned"),
    [("2.5.0", "kfp-2.17.0", True), ("v2.16.1-rc.1", "kfp-2.17.3", True), ("2.17.0", "kfp-2.17.3", False), ("3.0.0", "kfp-2.17.0", False),
     ("unknown", "kfp-2.17.0", False), ("2.5.0", "", False)],
)  # fmt: skip
def test_a_server_older_than_the_sdk_is_warned_of(version: str, sdk: str, warned: bool) -> None:
    warnings, _ = ready({"tag_name": version, "multi_user": False}, sdk=sdk)
    assert bool(warnings) is warned
    assert all(f"the SDK that compiled the pipeline ({sdk})" in warning for warning in warnings)


@pytest.mark.parametrize(("multi_user", "namespace", "message"), [(True, "", "wants a namespace"), (False, "ours", "names 'ours'")])
def test_a_namespace_that_is_missing_or_too_many_is_said_before_any_work(multi_user: bool, namespace: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ready({"tag_name": "2.17.0", "multi_user": multi_user}, namespace=namespace)
    assert "environments.<name>.kubeflow.namespace" in caught.value.next_step


def test_the_pages_in_front_of_the_api_tell_its_health_in_their_own_words() -> None:
    told = {"apiServerTagName": "2.5.0", "apiServerMultiUser": True, "apiServerReady": True, "frontendTagName": "2.6.0"}
    script = Scripted(lambda _: said(told))
    with script.serve() as address, KubeflowClient(address) as client:
        assert client.server() == Server(version="2.5.0", multi_user=True)
        assert client.server().multi_user
    assert len(script.asked) == 1
    with pytest.raises(Unclear, match="the API behind them does not"):
        ready({**told, "apiServerReady": False})


@pytest.mark.parametrize("health", [{}, {"status": "ok"}, {"multi_user": "yes"}, {"tag_name": 2, "multi_user": False}])
def test_what_answers_but_is_not_kubeflow_is_said(health: Any) -> None:
    with pytest.raises(MalformedAnswer):
        ready(health)


# the end of a run


@pytest.mark.parametrize("state", ["SUCCEEDED", "CANCELED", "CANCELING"])
def test_a_run_that_has_ended_cannot_be_terminated_and_need_not(state: str) -> None:
    def answer(asked: Asked) -> Said:
        return said({"message": "Row not found", "code": 3}, 400) if asked.method == "POST" else said({"run_id": "1", "state": state})

    script = Scripted(answer)
    with script.serve() as address, KubeflowClient(address) as client:
        client.terminate("1")
    assert [asked.method for asked in script.asked] == ["POST", "GET"]


def test_a_refused_or_lost_termination_is_told_or_repeated() -> None:
    answers = iter([DOWN, CUT, said({})])
    with Scripted(lambda _: next(answers)).serve() as address, KubeflowClient(address) as client:
        client.terminate("1")
    broken = Scripted(lambda _: DOWN)
    with broken.serve() as address, KubeflowClient(address) as client, pytest.raises(Unclear):
        client.terminate("1")
    assert len(broken.asked) == 3
    running = Scripted(lambda asked: said({"message": "no"}, 400) if asked.method == "POST" else said({"run_id": "1", "state": "RUNNING"}))
    with running.serve() as address, KubeflowClient(address) as client, pytest.raises(UsageError, match="refused: no"):
        client.terminate("1")


@pytest.mark.parametrize(("first", "certain"), [(BROKEN, False), (CUT, True), (DOWN, True)])
def test_a_run_that_is_marked_as_ending_may_not_end_when_the_server_failed_at_it(first: Said, certain: bool) -> None:
    posts = iter([first, said({"code": 3, "message": "Row not found"}, 400)])

    def answer(asked: Asked) -> Said:
        return next(posts) if asked.method == "POST" else said({"run_id": "1", "state": "CANCELING"})

    with Scripted(answer).serve() as address, KubeflowClient(address) as client:
        if certain:
            client.terminate("1")
            return
        with pytest.raises(RemoteError, match="its workflow may not have been told"):
            client.terminate("1")


def test_a_run_is_looked_at_even_after_sigterm_when_that_is_asked() -> None:
    process.stopping.set()
    with Scripted(lambda _: said({"run_id": "1", "state": "RUNNING"})).serve() as address, KubeflowClient(address) as client:
        assert client.run("1", surely=True).state == "RUNNING"
        with pytest.raises(Interrupted):
            client.run("1")
    process.stopping.clear()


def test_a_link_leads_to_the_page_of_the_run() -> None:
    with KubeflowClient("https://kubeflow.example.org/pipeline/") as client:
        assert client.link("7") == "https://kubeflow.example.org/pipeline/#/runs/details/7"
    with KubeflowClient("http://127.0.0.1:8888", pages=False) as client:
        assert client.link("7") == ""


def test_what_a_look_fails_at_once_is_repeated(pauses: list[float]) -> None:
    answers = iter([BROKEN, CUT, said({"run_id": "1", "state": "RUNNING"})])
    with Scripted(lambda _: next(answers)).serve() as address, KubeflowClient(address) as client:
        assert client.run("1").state == "RUNNING"
    assert len(pauses) == 2
