"""``trainshed trace`` on a ledger that holds one way from commit to service, written by the records that the stages write."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.ledger.records import Verdict
from trainshed.ledger.store import Ledger
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock, LockedImage
from trainshed.results import Report
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.trace import trace

COMMIT, BASE, INPUT, IMAGE = "c0ffee" * 6 + "beef", *(f"sha256:{digit * 64}" for digit in "123")
MODEL, URI, DATA = "a" * 64, "s3://models/7/model", "s3://data/tumours.csv"
ARN = "arn:aws:ecs:us-east-1:1:task-definition/answer:17"
REFERENCE = f"registry.example/small/answer@{IMAGE}"


def the_lock() -> Lock:
    image = LockedImage(reference=REFERENCE, digest=IMAGE, input_digest=INPUT, base={"python:3.11": BASE})
    return locks.of(project="small", commit=COMMIT, dirty=False, plan_digest=f"sha256:{'9' * 64}", images={"answer": image})


LOCK = the_lock()


def fill(ledger: Ledger) -> None:
    ledger.record_image(
        component="answer",
        repository="registry.example/small/answer",
        input_digest=INPUT,
        digest=IMAGE,
        manifest={"bases": {"python:3.11": BASE}},
        seconds=1.0,
    )
    finding = {"id": "CVE-2026-0001", "severity": "high", "package": "libfoo", "installed": "1.0", "aliases": ["GHSA-aaaa-bbbb-cccc"]}
    ledger.record_verdict(
        Verdict(digest=IMAGE, check="scan", version="1", component="answer", green=True, details={"findings": [{**finding, "kind": "v"}]})
    )
    ledger.record_lock(LOCK.plan_digest, COMMIT, "main", LOCK.document())
    version = {"pipeline_id": "p", "version": "main-c0ffee", "version_id": "v-1", "content_digest": f"sha256:{'8' * 64}"}
    uploaded = {**version, "commit": COMMIT, "branch": "main", "dirty": False, "lock_digest": locks.lock_digest(LOCK), "build_url": None}
    ledger.record_event("upload", "local", "training", version["content_digest"], {**uploaded, "images": {"answer": REFERENCE}})
    run: dict[str, Any] = {"run_id": "run-7", "name": "training 7", "version": "main-c0ffee", "version_id": "v-1", "state": "SUCCEEDED"}
    artifacts = {"train.model": {"uri": URI, "type": "system.Model"}, "extract.table": {"uri": DATA, "type": "system.Dataset"}}
    judged = {"gates": [{"gate": "auc >= 0.8", "passed": True}], "metrics": {"auc": 0.9}, "parameters": {"rows": 3}, "good": True}
    ledger.record_event("run", "local", "training", "run-7", {**run, **judged, "artifacts": artifacts})
    ledger.record_event("model", "local", "training", URI, {"uri": URI, "run_id": "run-7", "sha256": MODEL, "stamp": ""})
    model = {"uri": URI, "run_id": "run-7", "sha256": MODEL}
    deployed = {"component": "answer", "image": REFERENCE, "digest": IMAGE, "model": model, "state": "good", "good": True, "by": "ada"}
    ledger.record_event("deployment", "local", "answer", ARN, deployed)
    done = {"upload": [{"name": "training", **version}], "deploy": [{"name": "answer", "arn": ARN, "revision": "answer:17"}]}
    told = {
        "state": "released",
        "release": "1.4.0",
        "tags": ["v1.4.0"],
        "commit": COMMIT,
        "lock_digest": locks.lock_digest(LOCK),
        "by": "ada",
    }
    ledger.record_event("release", "prod", "small", "id-1", {**told, "source": "local", "done": done, "manifest": f"sha256:{'5' * 64}"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trace")
    (root / "trainshed.toml").write_text('[project]\nname = "small"\n')
    (root / "components").mkdir()
    with Ledger.open(f"sqlite:///{root}/.trainshed/ledger.sqlite", tier=Tier.LAPTOP) as ledger:
        fill(ledger)
    return root


@pytest.fixture(scope="module")
def shared(root: Path) -> Iterator[Context]:
    loaded = config.load(root / "trainshed.toml", environment="local")
    made = Context(config=loaded, console=Console(io.StringIO()), tier=Tier.LAPTOP)
    yield made
    made.close()


@pytest.fixture
def context(shared: Context) -> Context:
    shared.console = Console(io.StringIO())
    return shared


def said(context: Context) -> str:
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def kinds(report: Report, *starts: str) -> set[str]:
    assert {start["kind"] for start in report.extra["starts"]} == set(starts)
    return {node["kind"] for node in report.extra["nodes"]}


def test_one_prediction_leads_to_revision_image_commit_model_run_and_data(context: Context, tmp_path: Path) -> None:
    answer = {"greeting": "hello", "served_by": {"image": IMAGE, "model": f"sha256:{MODEL}", "run": "run-7"}}
    (tmp_path / "prediction.json").write_text(json.dumps({"service": "answer", "request": {}, "answer": answer}))
    report = trace(context, [str(tmp_path / "prediction.json")], direction="up")
    assert report.extra["starts"] == [{"kind": "revision", "id": ARN}]
    named = {(node["kind"], node["id"]) for node in report.extra["nodes"]}
    chain = {("image", IMAGE), ("input", INPUT), ("commit", COMMIT), ("model", MODEL), ("run", "run-7"), ("data", DATA), ("version", "v-1")}
    assert chain <= named
    (run,) = [node for node in report.extra["nodes"] if node["kind"] == "run"]
    assert (run["facts"]["parameters"], run["facts"]["metrics"]) == ({"rows": 3}, {"auc": 0.9})
    told = said(context)
    for line in ("metrics: auc 0.9", "parameters: rows 3", "gates: auc >= 0.8 holds", "serves, as the ledger believes", "by ada", DATA):
        assert line in told
    assert not report.extra["cut"]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        (COMMIT, "commit"),
        (COMMIT[:8], "commit"),
        (INPUT, "input"),
        (IMAGE, "image"),
        (REFERENCE, "image"),
        ("CVE-2026-0001", "finding"),
        ("cve-2026-0001", "finding"),
        ("GHSA-aaaa-bbbb-cccc", "finding"),
        (locks.lock_digest(LOCK), "lock"),
        ("v-1", "version"),
        ("main-c0ffee", "version"),
        ("training", "pipeline"),
        ("run-7", "run"),
        (DATA, "data"),
        (MODEL, "model"),
        (f"sha256:{MODEL}", "model"),
        (ARN, "revision"),
        ("answer:17", "revision"),
        ("answer", "service"),
        ("component:answer", "component"),
        ("v1.4.0", "release"),
        ("1.4.0", "release"),
        (f"image:{IMAGE}", "image"),
    ],
)
def test_whatever_it_is_it_leads_to_what_serves_and_back_to_the_commit(context: Context, name: str, start: str) -> None:
    report = trace(context, [name])
    found = kinds(report, start)
    assert found >= ({"revision", "version"} if start == "release" else {"service", "revision"})
    if start not in {"finding", "data", "component", "pipeline"}:  # nothing made these
        assert "commit" in found


def test_files_of_a_lock_name_it_and_one_that_was_edited_is_refused(context: Context, tmp_path: Path) -> None:
    file = tmp_path / "images.lock.json"
    file.write_text(json.dumps(LOCK.document()))
    kinds(trace(context, [str(file)]), "lock")
    file.write_text(json.dumps({**LOCK.document(), "project": "other"}))
    with pytest.raises(UsageError, match="seal"):
        trace(context, [str(file)])


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ("{", "not JSON"),
        ("[]", "names nothing"),
        ('{"served_by": {"image": 7}}', "names nothing"),
        ('{"served_by": {"run": "8"}}', "nothing of"),
    ],
)
def test_a_file_that_names_nothing_known_is_refused(context: Context, tmp_path: Path, document: str, match: str) -> None:
    (tmp_path / "answer.json").write_text(document)
    with pytest.raises(UsageError, match=match):
        trace(context, [str(tmp_path / "answer.json")])


def test_what_is_not_known_is_refused_with_the_kinds_that_there_are(context: Context) -> None:
    with pytest.raises(UsageError, match="'trainign' is not known") as caught:
        trace(context, ["trainign"])
    assert "a run" in caught.value.next_step
    with pytest.raises(UsageError, match=r"answers\.json: the file that names what to trace cannot be read"):
        trace(context, ["answers.json"])
    with pytest.raises(UsageError, match="is not known"):
        trace(context, ["s3://data/of-nobody.json"])
    with pytest.raises(UsageError, match="is not known"):
        trace(context, ["a/" * 3000])
    with pytest.raises(UsageError, match="nothing is named"):
        trace(context)


def test_a_name_of_too_many_things_is_refused_with_a_list(context: Context) -> None:
    for number in range(8):
        context.ledger.record_event(
            "run", "local", "many", f"many-{number}", {"run_id": f"many-{number}", "name": "same", "version_id": "w"}
        )
    with pytest.raises(UsageError, match="may be any of 8 things") as caught:
        trace(context, ["same"])
    assert "run:many-3" in caught.value.message
    kinds(trace(context, ["run:many-3"]), "run")


def test_what_serves_now_is_told_apart_from_what_served(context: Context) -> None:
    story = {"component": "worn", "digest": f"sha256:{'6' * 64}", "good": True, "state": "good"}
    for number, digit in ((1, "6"), (2, "7")):
        context.ledger.record_event("deployment", "prod", "worn", f"arn/worn:{number}", {**story, "digest": f"sha256:{digit * 64}"})
    report = trace(context, [f"sha256:{'6' * 64}"])
    assert report.extra["serving"] == []
    assert "serves now, as the ledger believes: nothing of it" in said(context)
    report = trace(context, [f"sha256:{'7' * 64}"])
    (serving,) = report.extra["serving"]
    worn = {"revision": {"kind": "revision", "id": "arn/worn:2"}, "service": "worn", "environment": "prod"}
    assert serving == {**worn, "through": ["image"]}
    assert "serves now, as the ledger believes: worn of prod (worn:2, through its image)" in said(context)
    trace(context, [DATA], direction="down")
    assert "answer of local (answer:17, through its model)" in said(context)
    trace(context, [DATA], direction="up")
    assert said(context).count("serves now") == 3


def test_a_tag_is_the_release_and_not_each_of_its_many_versions(context: Context) -> None:
    for number in range(8):
        context.ledger.record_event(
            "upload", "prod", f"many-{number}", f"d-{number}", {"version": "v1.4.0", "version_id": f"many-{number}"}
        )
    assert "release" in kinds(trace(context, ["v1.4.0"]), "release")
    assert "version" in kinds(trace(context, ["version:many-3"]), "version")
    assert "finding" in kinds(trace(context, ["ghsa-AAAA-bbbb-cccc"]), "finding")


def test_one_way_is_followed_and_a_limit_is_told(context: Context) -> None:
    assert "commit" not in kinds(trace(context, [IMAGE], direction="down"), "image")
    assert "service" not in kinds(trace(context, [IMAGE], direction="up"), "image")
    report = trace(context, ["answer:17"], limit=4)
    assert len(report.extra["nodes"]) <= 4
    assert report.extra["cut"]
    assert "not all is shown" in said(context)


def test_the_picture_is_written_whole_and_masked(context: Context, tmp_path: Path) -> None:
    context.console.add_secret("ada")
    trace(context, ["answer:17"], picture=tmp_path / "deep" / "lineage.svg")
    text = (tmp_path / "deep" / "lineage.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own
    assert "answer:17" in text
    assert "ada" not in text
    with pytest.raises(UsageError, match="SVG"):
        trace(context, ["answer:17"], picture=tmp_path / "lineage.png")


def test_without_a_ledger_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "trainshed.toml").write_text('[project]\nname = "small"\n')
    made = Context(config=config.load(tmp_path / "trainshed.toml", environment="local"), console=Console(io.StringIO()), tier=Tier.LAPTOP)
    with pytest.raises(UsageError, match="no ledger yet"):
        trace(made, ["answer"])
    assert not (tmp_path / ".trainshed").exists()
