from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow import Asked, Said, Scripted, embedded, specification, step
from trainshed.errors import RemoteError
from trainshed.local.kubeflow.runs import write_status
from trainshed.tools import kubeflow_metadata, process
from trainshed.tools.http import Http
from trainshed.tools.kubeflow_auth import login_for
from trainshed.tools.kubeflow_metadata import Execution, MetadataStore, outputs
from trainshed.tools.kubeflow_records import Artifact, Run, Task
from trainshed.tools.metadata_messages import frame, frames, message
from trainshed.values import Auth

pytestmark = pytest.mark.sockets

GRPC = {"Content-Type": "application/grpc-web+proto"}
GOOD = frame(b"grpc-status:0\r\ngrpc-message:\r\n", trailers=True)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of making them."""
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    return made


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(timeout=30, retries=0) as made:
        yield made


def store(address: str, http: Http, **auth: Any) -> MetadataStore:
    return MetadataStore(address, http, login_for(Auth(**auth), address, http), timeout=30)


def told(**answers: Callable[[Any], Any]) -> Callable[[Asked], Said]:
    """Answer calls by functions from request to fields of the response."""

    def answer(asked: Asked) -> Said:
        method = asked.path.rpartition("/")[2]
        request = message(f"{method}Request").FromString(frames(asked.body)[0][1])
        fields = answers[method](request) if method in answers else {}
        return 200, GRPC, frame(message(f"{method}Response")(**fields).SerializeToString()) + GOOD

    return answer


def properties(made: Any, **values: Any) -> Any:
    for name, value in values.items():
        if isinstance(value, dict):
            made.custom_properties[name].struct_value.update(value)
        else:
            setattr(made.custom_properties[name], f"{type(value).__name__}_value".replace("str_", "string_"), value)
    return made


def test_the_outputs_of_the_embedded_kubeflows_tasks_are_told_by_their_paths(tmp_path: Path, http: Http) -> None:
    with embedded(tmp_path) as (address, runs):
        spec = specification("flow", {"train": step("pass")})
        run = http.request("POST", f"{address}/apis/v2beta1/runs", json={"display_name": "r", "pipeline_spec": spec}).json()["run_id"]
        asked = store(address, http)
        assert asked.executions(run) == []
        assert asked.executions("nobody") == []
        metadata = {"auc": 0.9, "rows": 3, "note": "x", "good": True, "list": [1, {"a": None}], "all": {"b": 2}}
        model = {"uri": "file:///m", "type": "system.Model", "metadata": metadata}
        times: Any = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:05Z"}
        tasks = [
            {"name": "train", "state": "SUCCEEDED", "parameters": {"n": 3, "words": ["a"], "struct": {"c": 1}}, **times},
            {"name": "inner.train", "state": "SUCCEEDED", "artifacts": {"model": model}, **times},
            *({"name": f"for-loop-1.{n}.train", "state": "FAILED" if n else "RUNNING", "started": times["started"]} for n in range(150)),
            {"name": "later", "state": "PENDING"},
        ]
        write_status(runs.folder(run), {"state": "RUNNING", "error": "", "tasks": tasks})
        found = {each.path: each for each in asked.executions(run)}
    assert len(found) == 1 + 1 + 2 + 1 + 150 * 2
    assert found["train"] == Execution(
        id=found["train"].id,
        path="train",
        node="train",
        parameters={"n": 3, "words": ["a"], "struct": {"c": 1}},
        state="SUCCEEDED",
        **times,
    )
    known = {**metadata, "good": 1}
    assert found["inner.train"].artifacts == {"model": Artifact(name="model", uri="file:///m", type="system.Model", metadata=known)}
    assert [found[path].dag for path in ("", "inner", "for-loop-1", "for-loop-1.7", "train")] == [True, True, True, True, False]
    assert (found["for-loop-1.0.train"].state, found["for-loop-1.149.train"].state) == ("RUNNING", "FAILED")


def test_a_cache_hit_has_the_outputs_of_the_run_that_it_came_from(http: Http) -> None:
    execution, artifact, event = message("Execution"), message("Artifact"), message("Event")
    wrote = {"auc": 0.5, "loss": math.inf, "f1": math.nan, "names": ["a", None, {"deep": True}]}
    cached = properties(execution(id=7, last_known_state=5), task_name="train", cached_execution_id="3", outputs=wrote)
    several = [
        properties(artifact(id=n, uri=f"s3://b/{n}", type="system.Model"), display_name="m", store_session_info="{}") for n in (1, 2)
    ]
    events = [event(artifact_id=n, execution_id=7, type=4, path={"steps": [{"key": "models"}, {"index": n}]}) for n in (1, 2)]
    events += [event(artifact_id=1, execution_id=7, type=3, path={"steps": [{"key": "read"}]})]
    answers = told(
        GetContextByTypeAndName=lambda asked: {"context": {"id": 5}} if asked.context_name == "r" else {},
        GetExecutionsByContext=lambda asked: {"executions": [cached] if asked.context_id == 5 else []},
        GetArtifactsByContext=lambda _: {"artifacts": several},
        GetEventsByExecutionIDs=lambda asked: {"events": events if list(asked.execution_ids) == [7] else []},
    )
    with Scripted(answers).serve() as address:
        (found,) = store(address, http).executions("r")
    assert (found.cached, found.state, math.isnan(found.parameters["f1"])) == (True, "SUCCEEDED", True)
    assert {**found.parameters, "f1": 0} == {**wrote, "f1": 0}
    assert {name: (one.uri, dict(one.metadata)) for name, one in found.artifacts.items()} == {
        "models-0": ("s3://b/1", {}),
        "models-1": ("s3://b/2", {}),
    }


def test_a_circle_of_parents_ends(http: Http) -> None:
    both = [properties(message("Execution")(id=n), task_name=f"t{n}", parent_dag_id=3 - n) for n in (1, 2)]
    both.append(properties(message("Execution")(id=4), task_name="lost", parent_dag_id=99))
    for one in both:
        one.custom_properties["parent_dag_id"].int_value = int(one.custom_properties["parent_dag_id"].int_value)
    with Scripted(
        told(GetContextByTypeAndName=lambda _: {"context": {"id": 5}}, GetExecutionsByContext=lambda _: {"executions": both})
    ).serve() as address:
        assert {each.path for each in store(address, http).executions("r")} == {"t2.t1", "t2", "lost"}


def test_outputs_are_joined_to_the_tasks_of_the_run() -> None:
    model = Artifact(name="model", uri="s3://b/m")
    known = [
        Execution(id=1, path="", state="RUNNING", dag=True),
        Execution(id=2, path="train", state="FAILED", node="old"),
        Execution(id=3, path="train", state="SUCCEEDED", node="pod", cached=True, parameters={"auc": 1.0}, artifacts={"model": model}),
    ]
    tasks = (Task(id="1", name="train", state="SUCCEEDED", node="guess"), Task(id="2", name="other", state="PENDING", node="n"))
    joined = outputs(Run(id="r", name="r", state="RUNNING", tasks=tasks), known)
    assert joined.tasks[0] == Task(
        id="1", name="train", state="SUCCEEDED", node="pod", cached=True, parameters={"auc": 1.0}, artifacts={"model": model}
    )
    assert joined.tasks[1] == tasks[1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ((302, {"Location": "/login"}, b""), "session expired"),
        ((403, GRPC, b""), "not permitted"),
        ((404, {"Content-Type": "text/plain"}, b"404"), "HTTP 404"),
        ((503, {"Content-Type": "text/html"}, b"busy"), "HTTP 503"),
        ((200, {"Content-Type": "text/html"}, b"<form>"), "not ML Metadata"),
        ((200, GRPC, GOOD[:-3]), "cut off"),
        ((200, GRPC, frame(b"")), "no status"),
        ((200, GRPC, frame(b"\xff\xff") + GOOD), "cannot be read"),
        ((200, {**GRPC, "grpc-status": "13", "grpc-message": "no%20database"}, b""), "status 13: no database"),
        ((200, GRPC, frame(b"grpc-status: 14\r\ngrpc-message: away\r\n", trailers=True)), "status 14: away"),
        ((200, {"Content-Type": "application/grpc", "grpc-status": "14", "grpc-message": "no upstream"}, b""), "status 14: no upstream"),
        ((200, GRPC, frame(b"grpc-status: 16\r\ngrpc-message: who?\r\n", trailers=True)), "status 16: who?"),
    ],
)
def test_what_is_no_answer_of_ml_metadata_is_an_error_that_says_so(http: Http, said: Said, message: str) -> None:
    with Scripted(lambda _: said).serve() as address, pytest.raises(RemoteError) as raised:
        store(address, http).executions("r")
    assert message in raised.value.message
    assert raised.value.next_step


def test_an_answer_without_end_is_given_up(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = count()
    endless = told(
        GetContextByTypeAndName=lambda _: {"context": {"id": 1}},
        GetExecutionsByContext=lambda _: {"next_page_token": str(next(pages))},
    )
    with Scripted(endless).serve() as address:
        monkeypatch.setattr(kubeflow_metadata, "_MOST_PAGES", 3)
        with pytest.raises(RemoteError, match="more than 3 pages of one run"):
            store(address, http).executions("r")
        assert next(pages) == 3
        monkeypatch.setattr(kubeflow_metadata, "_LARGEST", 1)
        with pytest.raises(RemoteError, match="an answer of more than"):
            store(address, http).executions("r")


@pytest.mark.parametrize(
    "passing",
    [
        (200, {**GRPC, "grpc-status": "14", "grpc-message": "restarting"}, b""),
        (200, GRPC, frame(b"grpc-status: 13\r\ngrpc-message: MySQL server has gone away\r\n", trailers=True)),
        (200, GRPC, frame(b"")),
        (200, GRPC, GOOD[:-3]),
    ],
    ids=["headers-only", "trailers", "no-status", "cut"],
)
def test_a_store_that_is_away_for_a_moment_is_asked_again(http: Http, passing: Said, pauses: list[float]) -> None:
    good = told(GetContextByTypeAndName=lambda _: {})
    answers = iter([passing, passing])
    script = Scripted(lambda asked: next(answers, None) or good(asked))
    with script.serve() as address:
        assert store(address, http).executions("r") == []
    assert (len(script.asked), len(pauses)) == (3, 2)


@pytest.mark.parametrize(
    "elsewhere", [(404, {"Content-Type": "text/html"}, b"Cannot POST"), (200, {"Content-Type": "text/html"}, b"<app>")]
)
@pytest.mark.parametrize("under", ["", "/pipeline"])
def test_the_store_is_found_at_the_root_of_the_host_as_the_pages_do_or_under_the_path(http: Http, under: str, elsewhere: Said) -> None:
    good = told(GetContextByTypeAndName=lambda _: {"context": {"id": 5}})
    script = Scripted(lambda asked: good(asked) if asked.path.startswith(f"{under}/ml_metadata.") else elsewhere)
    with script.serve() as address:
        assert store(f"{address}/pipeline", http).executions("r") == []
    assert len(script.asked) == 3 + bool(under)  # where it was found is asked from then on


def test_a_run_that_the_store_does_not_know_has_no_executions_and_each_call_is_allowed(http: Http, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    script = Scripted(lambda _: (200, GRPC, frame(b"grpc-status: 5\r\n", trailers=True)))
    with script.serve() as address:
        assert store(f"{address}/pipeline/", http, kind="token", file=str(tmp_path / "token")).executions("r") == []
    (asked,) = script.asked
    assert asked.path == "/ml_metadata.MetadataStoreService/GetContextByTypeAndName"
    assert {name.lower(): value for name, value in asked.headers.items()}["authorization"] == "Bearer secret"
    assert message("GetContextByTypeAndNameRequest").FromString(frames(asked.body)[0][1]).type_name == "system.PipelineRun"


def test_strange_calls_to_the_embedded_store_are_refused(tmp_path: Path, http: Http) -> None:
    with embedded(tmp_path) as (address, _):
        place = f"{address}/ml_metadata.MetadataStoreService"
        unknown = http.request("POST", f"{place}/PutArtifacts", body=frame(b""), headers=GRPC)
        broken = http.request("POST", f"{place}/GetArtifactsByContext", body=b"\0\0\0", headers=GRPC)
        plain = http.request("POST", f"{place}/GetArtifactsByContext", body=frame(b""))
    assert (b"grpc-status: 12" in unknown.body, b"grpc-status: 3" in broken.body, plain.status) == (True, True, 415)
