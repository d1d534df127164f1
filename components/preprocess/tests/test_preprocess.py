"""The program preprocess, as the pipeline starts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from preprocess import main

HEADER = "radius,diagnosis"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *(f"{number}.5,{number % 2}" for number in range(40))]) + "\n")
    return path


def split(table: Path, *options: str) -> tuple[list[str], list[str]]:
    folder = table.parent / "new"
    main(["--table", str(table), "--train", str(folder / "train.csv"), "--test", str(folder / "test.csv"), *options])
    return (folder / "train.csv").read_text().splitlines(), (folder / "test.csv").read_text().splitlines()


def test_every_row_lands_in_exactly_one_part(table: Path) -> None:
    train, test = split(table)
    assert train[0] == test[0] == HEADER
    assert sorted(train[1:] + test[1:]) == sorted(table.read_text().splitlines()[1:])
    assert len(test) - 1 == 10


def test_both_parts_have_the_same_share_of_each_diagnosis(table: Path) -> None:
    train, test = split(table, "--test-share", "0.5")
    assert sum(row.endswith(",1") for row in train) == 10
    assert sum(row.endswith(",1") for row in test) == 10


def test_the_seed_decides_the_split(table: Path) -> None:
    assert split(table, "--seed", "1") == split(table, "--seed", "1")
    assert split(table, "--seed", "1") != split(table, "--seed", "2")


def test_a_share_outside_0_and_1_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        split(table, "--test-share", "1.5")
    assert "--test-share" in capsys.readouterr().err
