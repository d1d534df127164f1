"""Fit a logistic regression on standardised measurements and save it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def fit(table: Path, *, strength: float, iterations: int) -> Pipeline:
    """Return a model fitted on a CSV whose last column is the diagnosis; ``strength`` is the inverse of the regularisation."""
    rows = np.loadtxt(table, delimiter=",", skiprows=1, ndmin=2)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations))
    return model.fit(rows[:, :-1], rows[:, -1].astype(int))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="CSV of the training rows")
    parser.add_argument("--strength", type=float, default=1.0, help="inverse of the regularisation: smaller is smoother")
    parser.add_argument("--iterations", type=int, default=1000, help="limit of the solver's iterations")
    parser.add_argument("--model", type=Path, required=True, help="file to save the model in")
    given = parser.parse_args(argv)
    if given.strength <= 0 or given.iterations <= 0:
        parser.error("--strength and --iterations: expected a number above 0")
    model = fit(given.train, strength=given.strength, iterations=given.iterations)
    given.model.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, given.model)
    print(f"fitted in {int(model[-1].n_iter_[0])} iterations")


if __name__ == "__main__":
    main()
