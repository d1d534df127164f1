"""One prediction, traced to the data and the commit after a real run; and what status tells of registry, Kubeflow and git, and of drift."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.sample_project import SERVE, SERVICE, Done, Sample
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier
from trainshed.tools.kubeflow import KubeflowClient

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = SERVE.replace(
    'self.answer({"twice": 2 * body["x"]})',
    'self.answer({"twice": 2 * body["x"], "served_by": {"image": os.environ["IMAGE_DIGEST"], "model": os.environ["MODEL_SHA256"]}})',
)
Key = tuple[str, str]


def git(root: Path, *words: str) -> str:
    options = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    return subprocess.run(["git", *options, "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str) -> Iterator[Sample]:
    """Return the project after a run whose model is served."""
    made = Sample(tmp_path_factory.mktemp("trace") / "project", docker_host, base=small_base)
    made.write("components/answer/src/main.py", ANSWERS)
    made.write("components/answer/service.yaml", f"{SERVICE}model: {{pipeline: sample_flow, output: learn.model}}\n")
    made.write(".gitignore", ".trainshed/\nbuild/\n")
    git(made.root, "init", "-q", "-b", "main")
    git(made.root, "add", ".")
    git(made.root, "commit", "-q", "-m", "feat: everything")
    made.green("run", "--launch", "--wait", "--deploy")
    yield made
    made.down()


def predicted(sample: Sample) -> Path:
    """Ask the service as `scripts/predict` does; return the file that it was written to."""
    sample.write("build/question.json", '{"x": 21}')
    environment = {**os.environ, "DOCKER_HOST": sample.engine, "TRAINSHED_CONFIG": str(sample.root / "trainshed.toml")}
    command = [sys.executable, str(ROOT / "scripts" / "_predict.py"), "answer", "--data", str(sample.root / "build/question.json")]
    done = subprocess.run(command, env=environment, cwd=sample.root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sample.write("build/prediction.json", done.stdout)
    return sample.root / "build/prediction.json"


def edges(document: Any) -> set[tuple[Key, Key]]:
    return {tuple((edge[end]["kind"], edge[end]["id"]) for end in ("source", "target")) for edge in document["edges"]}  # type: ignore[misc]


def test_one_prediction_leads_back_to_data_and_commit(sample: Sample) -> None:
    traced = sample.green("trace", str(predicted(sample)), "--picture", "build/lineage.svg")
    (start,) = traced.document["starts"]
    assert start["kind"] == "revision"
    assert start["id"].endswith("answer:1")
    nodes = {(node["kind"], node["id"]): node for node in traced.document["nodes"]}
    of: dict[str, list[Key]] = {}
    for key in nodes:
        of.setdefault(key[0], []).append(key)
    commit: Key = ("commit", git(sample.root, "rev-parse", "HEAD"))
    image: Key = ("image", sample.locked()["answer"])
    ((run,), (model,), (version,)) = of["run"], of["model"], of["version"]
    artifacts = nodes[run]["facts"]["artifacts"]
    data: Key = ("data", artifacts["prepare.data"]["uri"])
    revision: Key = ("revision", start["id"])
    found = edges(traced.document)
    assert {(data, run), (version, run), (run, model), (model, revision), (image, revision)} <= found
    inputs = next(source for source, target in found if target == image and source[0] == "input")
    assert (commit, inputs) in found
    assert nodes[run]["facts"]["parameters"] == {}
    assert nodes[run]["facts"]["metrics"]["learn.metrics.auc"] == 0.5
    assert Path(data[1].removeprefix("file://")).exists()
    assert model[1] in json.loads((sample.root / "build/prediction.json").read_text())["answer"]["served_by"]["model"]
    for line in ("serves, as the ledger believes", "metrics: learn.metrics.auc 0.5", "feat: everything (Ada)", data[1], commit[1]):
        assert line in traced.told
    assert ET.parse(sample.root / "build/lineage.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own


def test_from_the_data_the_way_leads_to_the_service(sample: Sample) -> None:
    (data,) = (sample.root / ".trainshed" / "kubeflow" / "runs").glob("*/artifacts/prepare/data")
    down = sample.green("trace", f"file://{data}", "--direction", "down").document
    assert ("service", "local/answer") in {(node["kind"], node["id"]) for node in down["nodes"]}
    assert [serving["through"] for serving in down["serving"]] == [["model"]]


def test_all_stands_as_the_ledger_believes(sample: Sample) -> None:
    done = sample.green("status")
    assert {(result["kind"], result["name"]): result["status"] for result in done.document["results"]} == {
        ("service", "answer"): "done",
        ("pipeline", "sample_flow"): "done",
        ("images", "images of the lock"): "done",
        ("images", "images of running services"): "done",
        ("release", "release"): "skipped",
    }
    assert "nothing was released here" in json.dumps(done.document)


def drift(done: Done, kind: str) -> list[str]:
    return [line for result in done.document["results"] if result["kind"] == kind for line in result.get("drift", ())]


def test_what_registry_and_kubeflow_lost_is_drift_and_what_does_not_run_is_not_started(sample: Sample) -> None:
    digest = sample.locked()["prepare"]
    (link,) = (sample.root / ".trainshed" / "registry").rglob(f"prepare/_manifests/revisions/sha256/{digest.removeprefix('sha256:')}/link")
    link.unlink()
    services = {result["name"]: result for result in sample.green("local", "status").document["results"]}
    with Ledger.open(f"sqlite:///{sample.root}/.trainshed/ledger.sqlite", tier=Tier.LAPTOP) as ledger:
        (uploaded,) = ledger.events("upload", "local", "sample_flow")
    KubeflowClient(services["kubeflow"]["address"]).delete_version(uploaded.document["pipeline_id"], uploaded.document["version_id"])
    lost = sample.run("status")
    assert lost.code == 1
    assert drift(lost, "images") == [f"image prepare {digest} is gone from the registry"]
    (line,) = drift(lost, "pipeline")
    assert line.endswith("is gone from Kubeflow")
    sample.down()
    stopped = sample.run("status")
    assert (stopped.code, stopped.statuses("status")["release"]) == (1, "skipped")
    assert set(stopped.causes("status").values()) == {"stopped", "nothing was released here"}
    assert {result["state"] for result in sample.green("local", "status").document["results"] if result["name"] != "engine"} == {"stopped"}
