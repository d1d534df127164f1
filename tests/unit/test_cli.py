from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainshed import cli, commands
from trainshed.errors import RemoteError, TrainshedError
from trainshed.results import Report, Result, Status


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_help_names_every_stage_and_loads_nothing_heavy() -> None:
    heavy = ("kfp", "boto3", "docker", "sqlalchemy", "yaml", "rich", "urllib3")
    loaded = f"[name for name in {heavy!r} if name in sys.modules]"
    program = f"import sys; from trainshed.cli import main; code = main(['--help']); print(code, {loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().endswith("0 []")
    for command in commands.COMMANDS:
        assert command.name.split()[0] in done.stdout


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert (code, out.split()[0]) == (0, "trainshed")


def test_every_command_names_a_function_that_takes_its_options() -> None:
    import inspect

    for command in commands.COMMANDS:
        parameters = inspect.signature(cli._function(command)).parameters
        wanted = {option.argument for option in command.options} | ({"names"} if command.names else set())
        assert wanted <= set(parameters), command.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plna",), "no stage 'plna'; perhaps you meant 'plan'"),
        ((), "the following arguments are required: STAGE"),
        (("plan", "--fast"), "unrecognized arguments: --fast"),
        (("launch", "-p", "auc"), "expected KEY=VALUE, not 'auc'"),
        (("launch", "-p", "a=1", "-p", "a=2"), "a is given twice"),
        (("deploy", "--deadline", "soon"), "expected a duration"),
        (("init", "--kind", "thing"), "invalid choice: 'thing'"),
        (("local",), "the following arguments are required: ACTION"),
        (("run", "--gate", "auc >= 0.8"), "say nothing without a run"),
    ],
)
def test_a_wrong_command_line_is_one_error_and_exit_code_2(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(project)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert "next: " in err


def test_with_json_an_error_is_a_document_too(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    code, out, err = run(capsys, "--json", "plan", "nobody")
    document = json.loads(out)
    assert (code, document["exit_code"], document["schema"], document["status"]) == (3, 3, "trainshed/plan/v1", "red")
    assert document["error"]["message"] in err
    assert document["results"] == []


def test_options_may_stand_before_or_after_the_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    file = str(project / "trainshed.toml")
    before = json.loads(run(capsys, "--config", file, "--json", "config")[1])
    after = json.loads(run(capsys, "config", "--config", file, "--json")[1])
    assert before == after
    assert before["values"]["project.name"] == {"value": "small", "source": "file"}


def test_variables_name_the_file_and_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "trainshed.toml").write_text(
        '[environments.dev]\nregistry = "registry.example.org/ml"\n[ledger]\nurl = "postgresql://u:hidden@h/d"\n'
    )
    monkeypatch.setenv("TRAINSHED_CONFIG", str(project / "trainshed.toml"))
    monkeypatch.setenv("TRAINSHED_ENV", "dev")
    code, out, err = run(capsys, "config", "--json")
    document = json.loads(out)
    assert (code, document["environment"]) == (0, "dev")
    assert document["values"]["environments.dev.registry"]["value"] == {"url": "registry.example.org/ml", "insecure": False}
    assert document["values"]["ledger.url"]["value"] == "postgresql://u:***@h/d"
    assert "hidden" not in out + err
    assert "registry.example.org/ml" in err


def test_a_registry_that_is_ecr_is_shown_with_its_account_and_region(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "trainshed.toml").write_text('[environments.dev]\nregistry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ml"\n')
    code, out, err = run(capsys, "--config", str(project / "trainshed.toml"), "--env", "dev", "--json", "config")
    assert code == 0, err
    shown = json.loads(out)["values"]["environments.dev.registry"]["value"]
    assert shown["ecr"] == {"account": "123456789012", "region": "eu-west-1"}
    assert "ecr = {account = 123456789012, region = eu-west-1}" in err


def test_what_to_run_next_is_for_the_environment_that_was_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "trainshed.toml").write_text('[environments.dev]\nregistry = "registry.example.org/ml"\n')
    file = str(project / "trainshed.toml")
    code, out, err = run(capsys, "--config", file, "--env", "dev", "--json", "upload", "nothing")
    assert (code, "--env" in out + err) == (2, False)
    code, _, err = run(capsys, "--config", file, "--env", "dev", "report")
    assert (code, "next: Run a stage, such as `trainshed --env dev images`." in err) == (3, True)


def test_a_bug_is_one_line_and_keeps_its_traceback_in_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    def broken(_command: commands.Command) -> object:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli, "_function", broken)
    code, _, err = run(capsys, "config")
    assert code == 70
    assert "this is a bug in Trainshed: ZeroDivisionError: by zero" in err
    file = Path(err.rpartition("Report it with ")[2].strip().rstrip("."))
    assert "Traceback" in file.read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "build/reports"), "build/reports: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_a_full_or_refused_folder_is_no_bug(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    monkeypatch.chdir(project)

    def full(_command: commands.Command) -> object:
        raise error

    monkeypatch.setattr(cli, "_function", full)
    code, out, err = run(capsys, "config", "--json")
    assert (code, json.loads(out)["error"]["message"]) == (2, said)
    assert "bug" not in err


def test_ctrl_c_is_exit_code_130(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)

    def interrupted(_command: commands.Command) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_function", interrupted)
    code, out, _ = run(capsys, "config", "--json")
    assert (code, json.loads(out)["status"]) == (130, "interrupted")


def test_a_reader_that_went_away_is_no_traceback(project: Path) -> None:
    command = [sys.executable, "-m", "trainshed", "--json", "config"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.close()
        _, said = child.communicate(timeout=120)
    assert (child.returncode, "Traceback" in said, "BrokenPipe" in said) == (1, False, False)


def result(status: Status, exit_code: int = 1) -> Result:
    return Result(name="a", stage="build", status=status, exit_code=exit_code)


def test_the_exit_code_of_a_report_is_that_of_its_worst_result() -> None:
    assert Report(stage="x", results=(result(Status.DONE), result(Status.CACHED))).exit_code == 0
    assert Report(stage="x", results=(result(Status.FAILED, 5), result(Status.FAILED, 1))).exit_code == 1
    assert Report(stage="x", results=(result(Status.FAILED, 4), result(Status.FAILED, 5))).exit_code == 5
    assert Report(stage="x", results=(result(Status.ABORTED),)).exit_code == 1
    assert Report(stage="x", interrupted=True).exit_code == 130


def test_the_status_of_a_report_follows_its_results() -> None:
    assert Report(stage="x").status == "green"
    assert Report(stage="x", results=(result(Status.ABORTED),)).status == "aborted"
    assert Report(stage="x", results=(result(Status.ABORTED), result(Status.FAILED))).status == "red"
    assert Report(stage="x", interrupted=True).document()["status"] == "interrupted"


def test_every_cause_has_its_own_documented_exit_code() -> None:
    import trainshed.errors as module

    classes: list[type[TrainshedError]] = [TrainshedError, *TrainshedError.__subclasses__()]
    codes = {cls.__name__: cls.exit_code for cls in classes if cls.__module__ == module.__name__}
    assert len(set(codes.values())) == len(codes)
    assert module.__doc__ is not None
    for name, code in codes.items():
        assert any(name in line and line.split(name)[1].split()[0] == str(code) for line in module.__doc__.splitlines() if name in line)
    assert RemoteError.exit_code == 5
