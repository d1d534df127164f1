"""``trainshed report``, and what the commands record for it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from trainshed import cli, config, session
from trainshed.commands import by_name
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.reports import records
from trainshed.results import Case, Report, Result, Status

ADDRESS = "https://jenkins.example.org/job/team/job/repo/job/main/7/"
FAILED = Result(
    name="train",
    stage="test",
    status=Status.FAILED,
    message="1 of 1 failed",
    cases=(Case(name="answer", suite="s", failure="41 is not 42"),),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trainshed.toml").write_text('[project]\nname = "small"\n')
    (tmp_path / "components" / "train").mkdir(parents=True)
    (tmp_path / "components" / "train" / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BUILD_URL", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_one_report_is_made_of_what_many_commands_recorded(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = Result(name="serve", stage="build", status=Status.DONE, details={"digest": f"sha256:{'b' * 64}"})
    records.write(project / "build", Report(stage="images", results=(FAILED,)), ("train",))
    records.write(project / "build", Report(stage="images", results=(done,)), ("serve",))
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out.splitlines() == ["small in local: red", "failed: test train", "built serve sha256:bbbbbbbbbbbb"]
    reports = project / "build" / "reports"
    assert "41 is not 42" in (reports / "junit.xml").read_text()
    assert "serve" in (reports / "summary.md").read_text()
    manifest = json.loads((project / "build" / "manifest.json").read_text())
    assert (manifest["status"], manifest["images"], manifest["commit"]) == ("red", {}, None)


def test_with_json_stdout_holds_the_document_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write(project / "build", Report(stage="images"))
    assert cli.main(["report", "--json"]) == 0
    assert told(capsys)["manifest"]["schema"] == "trainshed/manifest/v1"


def test_a_build_reports_what_it_did_itself(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(project / "build", Report(stage="images", results=(FAILED,)), build="https://jenkins.example.org/job/team/6/")
    records.write(project / "build", Report(stage="upload"), build=ADDRESS)
    monkeypatch.setenv("BUILD_URL", ADDRESS)
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out.splitlines() == ["small in local: green"]


def test_without_records_there_is_nothing_to_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report"]) == 3
    assert "build: nothing is recorded there" in capsys.readouterr().err
    assert not (project / "build" / "reports").exists()


def test_a_file_that_is_no_record_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "build" / "records").mkdir(parents=True)
    (project / "build" / "records" / "images.json").write_text("half")
    assert cli.main(["report"]) == 2
    assert "images.json: not a record of a command" in capsys.readouterr().err


def test_a_refusal_is_on_the_page_of_a_build_and_leaves_nothing_behind_by_hand(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["images", "trian"]) == 2
    assert not (project / "build").exists()
    monkeypatch.setenv("BUILD_URL", ADDRESS)
    assert cli.main(["images", "trian"]) == 2
    capsys.readouterr()
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out.splitlines() == ["small in local: red", "failed: images images"]
    assert "perhaps you meant 'train'" in (project / "build" / "reports" / "summary.md").read_text().replace("\\", "")
    assert json.loads((project / "build" / "manifest.json").read_text())["build_url"] == ADDRESS


def test_a_plan_for_several_machines_needs_what_they_share(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--branches", "--distributed"]) == 2
    said = capsys.readouterr()
    assert "environment local: its registry is the embedded one: agents on several machines cannot share it" in said.err
    assert f"{project}/trainshed.toml: ledger.url: the ledger is a file" in said.err
    assert said.out == ""


def test_a_dry_run_leaves_the_record_of_the_real_run(project: Path) -> None:
    with session.opened(config.load(project / "trainshed.toml", environment="local"), Console(io.StringIO())) as context:
        command = by_name("registry copy")
        session.reported(command, context, lambda: Report(stage="registry-copy", results=(FAILED,)))
        dry = session.reported(command, context, lambda: Report(stage="registry-copy"), dry_run=True)
    assert dry.extra == {"dry_run": True}
    assert [record.report.results for record in records.read(project / "build")] == [(FAILED,)]


def test_a_command_that_is_refused_is_recorded_under_the_name_of_its_reports(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_URL", ADDRESS)

    def refused() -> Report:
        raise UsageError("no lock")

    with (
        session.opened(config.load(project / "trainshed.toml", environment="local"), Console(io.StringIO())) as context,
        pytest.raises(UsageError),
    ):
        session.reported(by_name("registry copy"), context, refused)
    assert [record.report.stage for record in records.read(project / "build")] == ["registry-copy"]
