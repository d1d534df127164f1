"""The program evaluate, as the pipeline starts it."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import pytest
from evaluate import main
from sklearn.linear_model import LogisticRegression


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Return the arguments for a model that is right in all but one of the ten test rows."""
    model = LogisticRegression(C=1000).fit([[float(number)] for number in range(20)], [int(number >= 10) for number in range(20)])
    joblib.dump(model, tmp_path / "model")
    rows = ["radius,diagnosis", "0,1", *(f"{number},0" for number in range(1, 5)), *(f"{number},1" for number in range(15, 20))]
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    files = {"--model": "model", "--test": "test.csv", "--metrics": "new/metrics", "--auc": "new/auc"}
    return [word for option, name in files.items() for word in (option, str(tmp_path / name))]


def test_the_metrics_are_written_as_json_and_auc_by_itself(given: list[str], tmp_path: Path) -> None:
    main(given)
    metrics = json.loads((tmp_path / "new/metrics").read_text())
    assert metrics["accuracy"] == pytest.approx(0.9)
    assert metrics["auc"] == pytest.approx(20 / 24, abs=1e-6)
    assert metrics["rows"] == 10
    assert float((tmp_path / "new/auc").read_text()) == metrics["auc"]


def test_kubeflow_is_told_the_metrics_as_metadata(given: list[str], tmp_path: Path) -> None:
    artifact = {"name": "metrics", "uri": "file:///metrics", "metadata": {"kept": True}}
    handed = {"outputs": {"outputFile": str(tmp_path / "kfp/output.json"), "artifacts": {"metrics": {"artifacts": [artifact]}}}}
    main([*given, "--executor-input", json.dumps(handed)])
    said = json.loads((tmp_path / "kfp/output.json").read_text())
    (shown,) = said["artifacts"]["metrics"]["artifacts"]
    assert shown["uri"] == "file:///metrics"
    assert shown["metadata"]["kept"] is True
    assert shown["metadata"]["auc"] == said["parameterValues"]["auc"] == pytest.approx(20 / 24, abs=1e-6)
