"""The flow of `run`: a stage that is not green ends it, and what the stages before it found is never lost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from trainshed.console import Console
from trainshed.errors import Interrupted, RemoteError, TrainshedError
from trainshed.results import Report, Result, Status
from trainshed.stages.context import Context
from trainshed.stages.run import _Flow, _launch, _Runs

GREEN = Report(stage="images", results=(Result(name="train", stage="build", status=Status.DONE),))


def flow(said: io.StringIO) -> _Flow:
    return _Flow(Console(said), None)


def raised(error: TrainshedError) -> Report:
    raise error


def test_an_error_of_a_later_stage_becomes_its_result_beside_those_of_the_earlier_ones() -> None:
    said = io.StringIO()
    made = flow(said)
    made.go("images", lambda: GREEN)
    made.go("upload", lambda: raised(RemoteError("Kubeflow is away", next_step="Run again.")))
    made.go("launch", lambda: raised(AssertionError("not reached")))  # type: ignore[arg-type]
    report = made.report()
    assert (report.exit_code, report.status) == (5, "red")
    assert [(result.name, str(result.status)) for result in report.results] == [("train", "done"), ("upload", "failed")]
    assert report.extra["stages"] == [{"stage": "images", "status": "green"}, {"stage": "upload", "status": "red"}]
    assert "Kubeflow is away. Run again." in said.getvalue()


def test_an_interruption_keeps_what_was_found_before_it() -> None:
    made = flow(io.StringIO())
    made.go("images", lambda: GREEN)
    made.go("upload", lambda: raised(Interrupted("interrupted")))
    assert (made.report().exit_code, made.report().results) == (130, GREEN.results)


@pytest.mark.parametrize("error", [RemoteError("away"), Interrupted("interrupted")])
def test_an_error_of_the_first_stage_is_raised(error: TrainshedError) -> None:
    with pytest.raises(type(error)):
        flow(io.StringIO()).go("images", lambda: raised(error))


def test_no_stage_begins_after_the_deadline() -> None:
    said = io.StringIO()
    made = _Flow(Console(said), 0.0)
    made.go("images", lambda: GREEN)
    made.go("launch", lambda: raised(AssertionError("not reached")))  # type: ignore[arg-type]
    assert (made.report().exit_code, made.report().results[-1].name) == (1, "launch")
    assert "the deadline passed before launch, which was not begun. Give more time with --deadline." in said.getvalue()


def test_what_was_just_built_is_launched_with_all_that_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def launch(_: Context, names: Sequence[str], **options: Any) -> Report:
        given.update(options, names=names)
        return GREEN

    monkeypatch.setattr("trainshed.stages.launch.launch", launch)
    wanted = _Runs(parameters={"rate": "1"}, params_file=Path("p.yaml"), profile="quick", gates=["auc > 0"], wait=True)
    assert _launch(cast(Context, None), ["training"], flow(io.StringIO()), wanted) is GREEN
    told = {"parameters": {"rate": "1"}, "params_file": Path("p.yaml"), "profile": "quick", "gates": ["auc > 0"], "wait": True}
    assert given == {"names": ["training"], "local_images": True, "deadline": None, **told}
