"""The program extract, as the pipeline starts it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from extract import main


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_all_rows_are_written_with_the_diagnosis_last(tmp_path: Path) -> None:
    table = tmp_path / "new" / "table.csv"
    main(["--table", str(table)])
    header, *rows = rows_of(table)
    assert header[0] == "mean_radius"
    assert header[-1] == "diagnosis"
    assert len(header) == 31
    assert len(rows) == 569
    assert {row[-1] for row in rows} == {"0", "1"}


def test_rows_limits_what_is_written(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    main(["--table", str(table), "--rows", "20"])
    assert len(rows_of(table)) == 21


def test_a_negative_number_of_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--table", str(tmp_path / "table.csv"), "--rows", "-1"])
    assert "--rows" in capsys.readouterr().err
