"""The stage deploy with real images on the real engine, as a user runs it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.sample_project import Sample

GOLDEN = {"requests": [{"name": "twice", "path": "/predict", "body": {"x": 21}, "answer": {"twice": 42}}]}
BROKEN = 'print("no model to serve", flush=True)\nif __name__ == "__main__":\n    raise SystemExit(7)\n'
MAIN, GOLDEN_FILE = "components/answer/src/main.py", "components/answer/golden.json"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str) -> Iterator[Sample]:
    made = Sample(tmp_path_factory.mktemp("deploy") / "project", docker_host, base=small_base)
    made.append("components/answer/service.yaml", "golden: golden.json\n")
    made.write(GOLDEN_FILE, json.dumps(GOLDEN))
    made.write("components/answer/.dockerignore", "golden.json\nservice.yaml\n")
    yield made
    made.down()


@pytest.fixture
def deployed(sample: Sample) -> Iterator[dict[str, Any]]:
    """Return the result of a deployment that holds; the sources are put back afterwards."""
    kept = {path: (sample.root / path).read_text() for path in (MAIN, GOLDEN_FILE)}
    sample.green("images", "answer")
    yield sample.green("deploy", "answer").result("deploy", "answer")
    for path, text in kept.items():
        sample.write(path, text)


def predict(result: dict[str, Any], number: int) -> Any:
    request = urllib.request.Request(f"{result['url']}/predict", json.dumps({"x": number}).encode())  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def test_the_locked_image_serves_and_a_second_deployment_does_nothing(sample: Sample, deployed: dict[str, Any]) -> None:
    assert deployed["digest"] == sample.locked()["answer"]
    assert predict(deployed, 4) == {"twice": 8}
    again = sample.green("deploy", "answer").result("deploy", "answer")
    assert again["status"] == "cached"
    assert (again["revision"], again["url"]) == (deployed["revision"], deployed["url"])
    dry = sample.green("deploy", "--dry-run").result("deploy", "answer")
    assert dry["changes"] == []


def test_a_revision_that_exits_gets_no_traffic_and_is_reported_with_reason_and_log(sample: Sample, deployed: dict[str, Any]) -> None:
    sample.write(MAIN, BROKEN)
    sample.green("images", "answer")
    done = sample.run("deploy", "answer")
    result = done.result("deploy", "answer")
    assert (done.code, result["status"]) == (1, "failed")
    assert "circuit breaker" in result["message"]
    assert "exit code 7" in result["message"]
    assert f"ECS rolled back to {deployed['revision']}" in result["message"]
    assert "no model to serve" in done.told
    assert predict(deployed, 5) == {"twice": 10}


def test_a_revision_that_answers_wrongly_is_rolled_back(sample: Sample, deployed: dict[str, Any]) -> None:
    sample.write(MAIN, (sample.root / MAIN).read_text().replace("2 * body", "3 * body"))
    sample.green("images", "answer")
    done = sample.run("deploy", "answer")
    result = done.result("deploy", "answer")
    assert (done.code, result["status"]) == (1, "failed")
    assert "golden prediction twice: answer.twice is 63 instead of 42" in result["message"]
    assert f"rolled back to {deployed['revision']}" in result["message"]
    assert predict(deployed, 6) == {"twice": 12}


def test_autoscaling_owns_the_count_on_this_machine_too(sample: Sample, deployed: dict[str, Any]) -> None:
    file = "components/answer/service.yaml"
    kept = (sample.root / file).read_text()
    lines = [line for line in kept.splitlines() if not line.startswith("count:")]
    try:
        sample.write(file, "\n".join([*lines, "autoscaling: {min: 1, max: 3, cpu: 60}", ""]))
        scaled = sample.green("deploy", "answer").result("deploy", "answer")
        assert any("autoscaling" in change for change in scaled["changes"])
        assert sample.green("deploy", "answer").result("deploy", "answer")["status"] == "cached"
    finally:
        sample.write(file, kept)
    assert predict(deployed, 7) == {"twice": 14}
