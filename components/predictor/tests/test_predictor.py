"""The service, asked over HTTP."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import joblib
import predictor
import pytest
import uvicorn
from sklearn.linear_model import LogisticRegression

IMAGE = f"sha256:{'1' * 64}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model"
    joblib.dump(LogisticRegression(C=1000).fit([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [10.0, 0.0]], [0, 0, 1, 1]), path)
    return path


@pytest.fixture(scope="module")
def port(model: Path) -> Iterator[int]:
    """Serve the model on loopback until the module's tests are done."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(predictor.create(model, image=IMAGE, run="run-7"), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:  # noqa: ANN401 - JSON
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_each_instance_gets_its_diagnosis(port: int) -> None:
    status, answer = ask(port, "POST", "/predict", {"instances": [[0.0, 1.0], [10.0, 1.0]]})
    assert status == 200
    assert [prediction["diagnosis"] for prediction in answer["predictions"]] == ["malignant", "benign"]
    assert answer["predictions"][0]["benign"] < 0.01
    assert answer["predictions"][1]["benign"] > 0.99


def test_an_answer_names_the_image_the_model_and_the_run_that_gave_it(port: int, model: Path) -> None:
    _, answer = ask(port, "POST", "/predict", {"instances": [[0.0, 1.0]]})
    checksum = f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    assert answer["served_by"] == {"service": "predictor", "image": IMAGE, "model": checksum, "run": "run-7"}


def test_health_is_ok_once_the_model_is_loaded(port: int) -> None:
    assert ask(port, "GET", "/healthz") == (200, {"status": "ok"})


def test_version_names_the_model_that_answers(port: int) -> None:
    status, answer = ask(port, "GET", "/version")
    assert status == 200
    assert answer["model"].startswith("sha256:")
    assert len(answer["model"]) == 71


@pytest.mark.parametrize(
    "body",
    [{}, {"instances": []}, {"instances": [[1.0]]}, {"instances": [["x", 1.0]]}, {"instances": 3}, {"instances": [[1.0, float("inf")]]}],
)
def test_what_is_no_list_of_measurements_is_refused(port: int, body: Any) -> None:  # noqa: ANN401 - JSON
    status, answer = ask(port, "POST", "/predict", body)
    assert status == 422
    assert answer["detail"]


def test_a_missing_model_ends_the_program_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL_PATH", "MODEL_URI", "MODEL_SHA256"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="MODEL_PATH is not set"):
        predictor.main()
    monkeypatch.setenv("MODEL_PATH", "/nowhere/model")
    with pytest.raises(SystemExit, match="cannot be read"):
        predictor.main()


def test_a_model_that_is_not_the_deployed_one_ends_the_program_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("MODEL_PATH", str(model))
    monkeypatch.setenv("MODEL_SHA256", "0" * 64)
    monkeypatch.setattr(joblib, "load", lambda _: pytest.fail("loaded"))
    with pytest.raises(SystemExit, match="the model is not the one that was deployed"):
        predictor.main()
