"""The console: one line per start and end, one block per failure, secrets masked whatever their way to the screen."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pytest

from trainshed.console import _ROWS, TAIL_LINES, Console, spoken
from trainshed.errors import TrainshedError, UsageError
from trainshed.results import Case, Result, Status


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def result(
    status: Status = Status.DONE, *, cause: str = "", message: str = "", log: str | None = None, cases: tuple[Case, ...] = ()
) -> Result:
    return Result(name="train", stage="test", status=status, cause=cause, message=message, seconds=2.34, log=log, cases=cases)


def test_a_job_has_one_line_at_its_start_and_one_at_its_end(stream: io.StringIO) -> None:
    console = Console(stream)
    console.start("train", "build", "changed: src/train.py")
    console.start("train", "scan")
    console.end(result(cause="changed: src/train.py"))
    assert stream.getvalue().splitlines() == [
        "build train … (changed: src/train.py)",
        "scan train …",
        "test train: done in 2.3 s (changed: src/train.py)",
    ]


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (result(Status.CACHED, cause="verdict of main"), "test train: cached (verdict of main)"),
        (
            result(Status.ABORTED, cause="new", message="needs build train, which failed"),
            "test train: aborted (needs build train, which failed)",
        ),
        (result(Status.SKIPPED), "test train: skipped"),
    ],
)
def test_a_job_that_did_not_run_says_why_instead_of_how_long(stream: io.StringIO, ended: Result, line: str) -> None:
    Console(stream).end(ended)
    assert stream.getvalue() == line + "\n"


def test_a_failure_is_one_block_with_message_failing_cases_and_the_tail_of_the_log(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "test.log").write_text("".join(f"line {number}\n" for number in range(TAIL_LINES + 10)))
    cases = (Case(name="test_auc", suite="tests.test_train", failure="0.5"), Case(name="test_fine"))
    ended = result(Status.FAILED, message="1 of 2 tests failed\nsee below", log="test.log", cases=cases)
    Console(stream, root=tmp_path).end(ended)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "test train: failed in 2.3 s"
    assert lines[1].startswith("── test train failed ")
    assert lines[2:6] == ["   1 of 2 tests failed", "   see below", "   ✗ tests.test_train test_auc", "   the end of test.log:"]
    assert lines[6:-1] == [f"   │ line {number}" for number in range(10, TAIL_LINES + 10)]


def test_a_failure_whose_log_is_missing_or_empty_shows_no_tail(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("\n")
    console = Console(stream, root=tmp_path)
    console.end(result(Status.FAILED, message="why", log="nowhere.log"))
    console.end(result(Status.FAILED, message="why", log="empty.log"))
    assert "the end of" not in stream.getvalue()


def test_of_a_long_log_only_the_end_is_read(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "long.log").write_bytes(b"x" * 200_000 + b"\nthe last line\n")
    Console(stream, root=tmp_path).end(result(Status.FAILED, log="long.log"))
    assert len(stream.getvalue()) < 70_000
    assert "   │ the last line\n" in stream.getvalue()


def test_of_a_progress_bar_the_log_shows_what_stood_there_last(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "pip.log").write_bytes(b"10 %\r50 %\r100 %\r\nwindows line\r\n")
    Console(stream, root=tmp_path).end(result(Status.FAILED, log="pip.log"))
    assert [line for line in stream.getvalue().splitlines() if "│" in line] == ["   │ 100 %", "   │ windows line"]


def test_nothing_that_others_wrote_can_steer_the_terminal(stream: io.StringIO) -> None:
    Console(stream).line("a\x1b[31mred\x1b[0m \x1b]0;title\x07b\x1bMc\x08d\x9be\tf")
    assert stream.getvalue() == "ared bcde\tf\n"


def test_nor_turn_what_is_read_around_or_begin_a_line(stream: io.StringIO) -> None:
    Console(stream).line("a\u202eb\u2066c\u200fd\u2028e\u061cf \u05d0 ä")
    assert stream.getvalue() == "abcdef \u05d0 ä\n"


def test_an_error_says_what_is_wrong_line_by_line_and_what_to_do_next(stream: io.StringIO) -> None:
    console = Console(stream)
    console.error(UsageError("trainshed.toml: unknown key a\ntrainshed.toml: unknown key b", next_step="Mend them."))
    console.error(TrainshedError(""))
    assert stream.getvalue().splitlines() == [
        "error: trainshed.toml: unknown key a",
        "error: trainshed.toml: unknown key b",
        "next: Mend them.",
        "error: TrainshedError",
    ]


def test_headings_and_warnings_stand_out(stream: io.StringIO) -> None:
    console = Console(stream)
    console.heading("Images")
    console.warning("no database")
    assert stream.getvalue() == "\nImages\nwarning: no database\n"


def test_a_table_is_aligned_and_shows_empty_cells(stream: io.StringIO) -> None:
    Console(stream).table("Images", ("name", "digest"), [("base-python", "sha256:1"), ("train", "")])
    assert stream.getvalue() == "\nImages\nname         digest\nbase-python  sha256:1\ntrain        -\n"


def test_colours_are_there_when_asked_for(stream: io.StringIO) -> None:
    Console(stream, color=True).end(result())
    assert stream.getvalue() == "test train: \x1b[32mdone\x1b[0m in 2.3 s\n"


def test_secrets_are_masked_in_all_that_is_printed(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the log has geheim+1 and gehe\x1b[1mim+1\n")
    console = Console(stream, secrets=["geheim+1", ""], root=tmp_path)
    console.add_secret("other")
    console.heading("geheim+1")
    console.line("https://u:geheim%2B1@host and other")
    console.warning("geheim+1")
    console.error(UsageError("geheim+1", next_step="geheim+1"))
    console.start("geheim+1", "build", "other")
    console.end(result(Status.FAILED, cause="geheim+1", message="other", log="log", cases=(Case(name="other", failure="other"),)))
    console.table("other", ("geheim+1",), [("geheim+1",)])
    assert "geheim" not in stream.getvalue()
    assert "other" not in stream.getvalue()
    assert "https://u:***@host and ***" in stream.getvalue()


def test_of_two_secrets_the_longer_one_is_masked_first(stream: io.StringIO) -> None:
    Console(stream, secrets=["pass", "password"]).line("password pass")
    assert stream.getvalue() == "*** ***\n"


def test_a_document_is_masked_inside_its_texts_and_stays_json() -> None:
    out = io.StringIO()
    console = Console(io.StringIO(), secrets=['a"b', "1", "null"])
    document = MappingProxyType({'key a"b': ['say a"b', 11, None, True], "nested": ({"x": "null"},)})
    console.document(document, out=out)
    assert json.loads(out.getvalue()) == {"key ***": ["say ***", 11, None, True], "nested": [{"x": "***"}]}


def test_people_read_on_stderr_and_programs_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.line("for people")
    console.document({"for": "programs"})
    captured = capsys.readouterr()
    assert captured.err == "for people\n"
    assert json.loads(captured.out) == {"for": "programs"}


def test_a_document_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(TypeError):
        Console(io.StringIO()).document({"path": PurePosixPath("a")}, out=io.StringIO())


def test_lines_of_many_threads_are_never_mixed(stream: io.StringIO) -> None:
    console = Console(stream)

    def speak(letter: str) -> None:
        for _ in range(50):
            console.line(letter * 50)

    threads = [threading.Thread(target=speak, args=letter) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stream.getvalue().splitlines()) == [letter * 50 for letter in "abcd" for _ in range(50)]


def test_a_live_table_shows_what_runs_while_lines_go_on_above_it(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(stream, live=True, secrets=["geheim"])
    console.line("before")
    console.start("train", "build", "changed: geheim")
    console.start("evaluate", "build")
    console.end(result(message="late"))
    console.line("between")
    shown = stream.getvalue()
    assert "changed: ***" in shown
    assert "between" in shown
    console.close()
    console.line("after")
    assert stream.getvalue().endswith("after\n")


def test_a_narrow_live_table_leaves_the_cause_out_before_the_names(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "48")
    console = Console(stream, live=True)
    console.show("diagnosis_training: preprocess", "task", "version main-29c4e287-adc9b74b of this tree (its own images)")
    console.line("above it")
    console.close()
    assert "task  diagnosis_training: preprocess  0 s" in stream.getvalue()


def test_what_to_run_next_names_the_environment(stream: io.StringIO) -> None:
    console = Console(stream)
    error = UsageError("environments.<name>.kubeflow.namespace is missing", next_step="Run `trainshed stamp`; see `trainshed --help`.")
    console.error(error)
    console.environment, console.option = "dev", "--env dev"
    console.error(error)
    out = io.StringIO()
    console.document({"next": error.next_step}, out=out)
    assert stream.getvalue().splitlines() == [
        "error: environments.<name>.kubeflow.namespace is missing",
        "next: Run `trainshed stamp`; see `trainshed --help`.",
        "error: environments.dev.kubeflow.namespace is missing",
        "next: Run `trainshed --env dev stamp`; see `trainshed --help`.",
    ]
    assert json.loads(out.getvalue()) == {"next": "Run `trainshed --env dev stamp`; see `trainshed --help`."}


def test_a_live_table_is_drawn_while_many_threads_speak(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(stream, live=True, secrets=["geheim"])

    def speak(name: str) -> None:
        for _ in range(20):
            console.start(name, "test", "geheim")
            console.line(f"{name} says geheim")
            console.end(Result(name=name, stage="test", status=Status.DONE))

    threads = [threading.Thread(target=speak, args=letter, daemon=True) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert stream.getvalue().count("says ***") == 80
    assert "geheim" not in stream.getvalue()


def test_a_live_table_goes_with_the_last_job(stream: io.StringIO) -> None:
    console = Console(stream, live=True)
    console.start("train", "test")
    console.end(result())
    console.line("plain again")
    assert stream.getvalue().endswith("test train: done in 2.3 s\nplain again\n")
    console.close()


def test_what_goes_on_elsewhere_is_shown_in_the_table_only(stream: io.StringIO) -> None:
    assert not Console(stream).show("training: train", "task")
    Console(stream).hide("training: train", "task")
    assert stream.getvalue() == ""
    console = Console(stream, live=True)
    assert console._jobs is not None
    assert console.show("training: train", "task", "attempt 2")
    assert console._jobs._table().row_count == 1
    console.hide("training: train", "task")
    assert console._jobs._table().row_count == 0
    console.close()


def test_a_table_of_a_thousand_jobs_stays_short() -> None:
    stream = io.StringIO()
    console = Console(stream, live=True)
    for number in range(1000):
        console.show(f"task-{number:04}", "task")
    assert console._jobs is not None
    shown = console._jobs._table()
    console.close()
    assert shown.row_count == _ROWS + 1


def test_the_end_of_a_log_is_shown_by_itself(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("one\ntwo\x1b[2J\nthree\n")
    console = Console(stream, root=tmp_path)
    console.tail("train.log", lines=2)
    console.tail("nothing.log")
    assert stream.getvalue().splitlines() == ["   the end of train.log:", "   │ two", "   │ three"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.44, "0.4 s"),
        (89, "89 s"),
        (91, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (18000, "5 h"),
        (100_000, "27.8 h"),
        (200_000, "2 days"),
    ],
)
def test_spans_are_told_as_people_say_them(seconds: float, said: str) -> None:
    assert spoken(seconds) == said
