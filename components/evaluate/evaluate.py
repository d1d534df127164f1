"""Measure a model on the test rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.metrics import accuracy_score, roc_auc_score


def measure(model: Path, table: Path) -> dict[str, float]:
    """Return ``auc`` and ``accuracy`` (both 0 to 1) and ``rows`` for a CSV whose last column is the diagnosis."""
    rows = np.loadtxt(table, delimiter=",", skiprows=1, ndmin=2)
    measured, truth = rows[:, :-1], rows[:, -1].astype(int)
    benign = joblib.load(model).predict_proba(measured)[:, 1]
    return {
        "auc": round(float(roc_auc_score(truth, benign)), 6),
        "accuracy": round(float(accuracy_score(truth, benign >= 0.5)), 6),
        "rows": len(truth),
    }


def write(path: Path, text: str) -> None:
    """Write text; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def executor_output(executor_input: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return what Kubeflow reads after the step: the metrics as metadata of their artifact, so that its pages show them."""
    (artifact,) = executor_input["outputs"]["artifacts"]["metrics"]["artifacts"]
    shown = {**artifact, "metadata": {**artifact.get("metadata", {}), **metrics}}
    return {"artifacts": {"metrics": {"artifacts": [shown]}}, "parameterValues": {"auc": metrics["auc"]}}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model that train saved")
    parser.add_argument("--test", type=Path, required=True, help="CSV of the test rows")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file to write the metrics to")
    parser.add_argument("--auc", type=Path, required=True, help="file to write the area under the ROC curve to")
    parser.add_argument("--executor-input", type=json.loads, help="what Kubeflow hands to a step, as JSON")
    given = parser.parse_args(argv)
    metrics = measure(given.model, given.test)
    write(given.metrics, json.dumps(metrics))
    write(given.auc, str(metrics["auc"]))
    if given.executor_input:
        write(Path(given.executor_input["outputs"]["outputFile"]), json.dumps(executor_output(given.executor_input, metrics)))
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
