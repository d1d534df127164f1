"""Write the breast-cancer measurements that scikit-learn ships as one CSV table."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from sklearn.datasets import load_breast_cancer

DIAGNOSIS = "diagnosis"


def extract(table: Path, *, rows: int) -> int:
    """Write the first rows (0: all) with a header; return how many were written. The last column is 0 malignant, 1 benign."""
    data = load_breast_cancer()
    header = [*(str(name).replace(" ", "_") for name in data.feature_names), DIAGNOSIS]
    measured = list(zip(data.data.tolist(), data.target.tolist(), strict=True))[: rows or None]
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([*values, diagnosis] for values, diagnosis in measured)
    return len(measured)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0, help="rows to write, from the first; 0 writes all")
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    given = parser.parse_args(argv)
    if given.rows < 0:
        parser.error("--rows: expected 0 or more")
    print(f"{extract(given.table, rows=given.rows)} rows")


if __name__ == "__main__":
    main()
