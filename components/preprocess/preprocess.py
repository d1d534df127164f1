"""Split a table into training and test rows, with the same share of each diagnosis in both."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import train_test_split


def split(table: Path, *, test_share: float, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the training and the test rows, the header first in both.

    Raises:
        ValueError: the table has no rows, or too few of one diagnosis for the split.
    """
    with table.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    train, test = train_test_split(rows, test_size=test_share, random_state=seed, stratify=[row[-1] for row in rows])
    return [header, *train], [header, *test]


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows as CSV; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="CSV with a header; the last column is the diagnosis")
    parser.add_argument("--test-share", type=float, default=0.25, help="share of the rows to keep for the test")
    parser.add_argument("--seed", type=int, default=7, help="seed of the split")
    parser.add_argument("--train", type=Path, required=True, help="CSV of the training rows to write")
    parser.add_argument("--test", type=Path, required=True, help="CSV of the test rows to write")
    given = parser.parse_args(argv)
    if not 0 < given.test_share < 1:
        parser.error("--test-share: expected a number between 0 and 1")
    train, test = split(given.table, test_share=given.test_share, seed=given.seed)
    write(given.train, train)
    write(given.test, test)
    print(f"{len(train) - 1} training rows, {len(test) - 1} test rows")


if __name__ == "__main__":
    main()
