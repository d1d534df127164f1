"""Records: what many commands of a build found becomes one report and one manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.reports import manifest, records
from trainshed.results import Case, Report, Result, Status

DIGEST = f"sha256:{'a' * 64}"
TOLD = Result(
    name="train",
    stage="test",
    status=Status.FAILED,
    cause="new image",
    message="1 of 2 failed",
    seconds=1.5,
    log="build/logs/train.test.log",
    details={"digest": DIGEST, "findings": [{"id": "CVE-1"}]},
    cases=(Case(name="a", suite="s", seconds=0.5, failure="no"), Case(name="b")),
    exit_code=5,
)


def result(name: str, status: Status, stage: str = "build", message: str = "") -> Result:
    return Result(name=name, stage=stage, status=status, message=message)


def joined(*reports: Report) -> list[Report]:
    return records.join(records.Record(made=number, build="", report=report) for number, report in enumerate(reports))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = Report(stage="images", results=(TOLD,), extra={"waves": [["train"]]}, interrupted=True)
    path = records.write(tmp_path, report, ("train",))
    assert path == tmp_path / "records" / "images.train.json"
    assert [record.report for record in records.read(tmp_path)] == [report]


def test_a_command_run_again_replaces_its_record_and_others_stay(tmp_path: Path) -> None:
    for status, names in ((Status.FAILED, ("a",)), (Status.DONE, ("b",)), (Status.DONE, ("a",))):
        records.write(tmp_path, Report(stage="images", results=(result(names[0], status),)), names)
    assert [record.report.results[0].name for record in records.read(tmp_path)] == ["b", "a"]
    assert all(record.report.status == "green" for record in records.read(tmp_path))


def test_a_folder_without_records_has_none(tmp_path: Path) -> None:
    assert records.read(tmp_path) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "a b", "é"])
def test_any_name_makes_a_file_in_the_folder(tmp_path: Path, name: str) -> None:
    path = records.write(tmp_path, Report(stage="build"), (name,))
    assert path.resolve().parent == tmp_path / "records"
    assert len(records.read(tmp_path)) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": "trainshed/record/v2"}', '{"schema": "trainshed/record/v1"}'])
def test_what_is_no_record_is_refused_with_its_place(tmp_path: Path, content: str) -> None:
    path = records.write(tmp_path, Report(stage="build"))
    path.write_text(content)
    with pytest.raises(UsageError, match=r"build\.json: not a record") as caught:
        records.read(tmp_path)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra": []},
        {"stage": ["build"]},
        {"results": [{"name": "x", "stage": "build", "status": "failed", "cases": [], "log": "\ud800"}]},
        {"results": [{"name": "x", "stage": "build", "status": "failed", "cases": [], "log": 5}]},
        {"results": [{"name": "x", "stage": "build", "status": "failed", "cases": [], "details": []}]},
        {"results": [{"name": ["x"], "stage": "build", "status": "failed", "cases": []}]},
        {"results": [{"name": "x", "stage": "build", "status": "failed", "cases": [{"name": 1}]}]},
    ],
    ids=str,
)
def test_a_field_that_holds_something_else_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = records.write(tmp_path, Report(stage="build"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(UsageError, match=r"build\.json: not a record"):
        records.read(tmp_path)


def test_branches_of_one_stage_become_one_report() -> None:
    report = joined(
        Report(stage="images", results=(result("base", Status.DONE), result("train", Status.DONE))),
        Report(stage="images", results=(result("base", Status.CACHED), result("serve", Status.DONE))),
    )
    assert [(each.name, each.status) for each in report[0].results] == [("base", "done"), ("train", "done"), ("serve", "done")]
    assert len(report) == 1


def test_who_found_it_done_hides_neither_who_did_it_nor_who_failed_first() -> None:
    first = Report(stage="images", results=(result("a", Status.DONE), result("b", Status.FAILED), result("c", Status.FAILED)))
    later = Report(stage="images", results=(result("a", Status.CACHED), result("b", Status.CACHED), result("c", Status.ABORTED)))
    assert [each.status for each in joined(first, later)[0].results] == ["done", "cached", "failed"]


def test_a_failure_that_was_mended_later_is_no_failure() -> None:
    first, later = (Report(stage="images", results=(result("a", status),)) for status in (Status.FAILED, Status.DONE))
    assert joined(first, later)[0].status == "green"


def test_stages_come_in_their_order_and_an_interrupted_one_stays_so() -> None:
    reports = joined(Report(stage="images"), Report(stage="stamp", interrupted=True), Report(stage="upload"))
    assert [(each.stage, each.status) for each in reports] == [("images", "green"), ("stamp", "interrupted"), ("upload", "green")]


FACTS = {"project": "p", "environment": "dev", "commit": "c" * 40, "branch": "main", "build_url": None, "lock_digest": DIGEST}


def flow() -> list[Report]:
    build = Result(name="train", stage="build", status=Status.DONE, details={"digest": DIGEST})
    upload = Result(
        name="flow", stage="upload", status=Status.CACHED, details={"pipeline_id": "1", "version": "v-1", "version_id": "2", "other": 3}
    )
    launch = Result(
        name="flow",
        stage="launch",
        status=Status.DONE,
        details={"run_id": "r", "state": "SUCCEEDED", "link": "https://kf/r", "metrics": {"auc": 0.98765432}},
    )
    deploy = Result(name="answer", stage="deploy", status=Status.DONE, details={"revision": "answer:3", "url": None})
    return [Report(stage="images", results=(build,)), Report(stage="run", results=(upload, launch, deploy))]


def test_the_manifest_holds_what_the_commit_became() -> None:
    told = manifest.manifest(flow(), images={"train": f"r/train@{DIGEST}"}, **FACTS)
    assert told["schema"] == "trainshed/manifest/v1"
    assert told["status"] == "green"
    assert told["images"] == {"train": f"r/train@{DIGEST}"}
    assert told["pipelines"] == {"flow": {"pipeline_id": "1", "version": "v-1", "version_id": "2"}}
    assert told["runs"] == {"flow": {"run_id": "r", "state": "SUCCEEDED", "link": "https://kf/r", "metrics": {"auc": 0.98765432}}}
    assert told["services"] == {"answer": {"revision": "answer:3"}}
    assert json.loads(json.dumps(told)) == told


def test_the_description_says_versions_and_digests() -> None:
    told = manifest.manifest(flow(), images={"train": f"r/train@{DIGEST}", "base": f"r/base@{DIGEST}"}, **FACTS)
    assert manifest.description(flow(), told) == [
        "p in dev: green",
        "built train sha256:aaaaaaaaaaaa",
        "2 images, 1 of them new; lock sha256:aaaaaaaaaaaa",
        "pipeline flow v-1",
        "run of flow SUCCEEDED auc 0.9877",
        "service answer answer:3",
    ]


def test_the_description_of_a_red_build_begins_with_what_failed() -> None:
    reports = [Report(stage="images", results=(TOLD, result("serve", Status.ABORTED, message="needs train")))]
    told = manifest.manifest(reports, images={}, **{**FACTS, "lock_digest": None})
    assert manifest.description(reports, told) == ["p in dev: red", "failed: test train"]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.DONE, Status.CACHED], "green"),
        ([Status.DONE, Status.ABORTED], "aborted"),
        ([Status.FAILED, Status.ABORTED], "red"),
        ([], "green"),
    ],
)
def test_the_worst_status_is_the_build_s(statuses: list[Status], expected: str) -> None:
    assert manifest.status(Report(stage=str(number), results=(result("a", each),)) for number, each in enumerate(statuses)) == expected
    assert manifest.status([Report(stage="x", interrupted=True), Report(stage="y", results=(TOLD,))]) == "interrupted"
