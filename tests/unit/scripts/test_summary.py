from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SUMMARY = Path(__file__).parents[3] / "scripts" / "_summary.py"

REPORT: dict[str, Any] = {
    "results": [
        {"name": "train", "stage": "build", "status": "done", "cause": "changed: train.py", "seconds": 4.0, "digest": "sha256:" + "a" * 64},
        {"name": "train", "stage": "scan", "status": "done", "cause": "new image", "seconds": 1.5},
        {"name": "train", "stage": "test", "status": "cached", "cause": "green for this digest", "seconds": 0.0},
        {"name": "base", "stage": "build", "status": "cached", "cause": "nothing changed", "seconds": 0.0},
        {"name": "flow", "stage": "upload", "status": "done", "cause": "new content", "seconds": 0.1, "version": "main-1234"},
        {
            "name": "flow",
            "stage": "launch",
            "status": "done",
            "cause": "",
            "seconds": 30.0,
            "run_id": "run-1",
            "state": "SUCCEEDED",
            "metrics": {"auc": 0.99312},
            "tasks": [{"name": "train", "state": "SUCCEEDED"}, {"name": "evaluate", "state": "SUCCEEDED"}],
        },
        {
            "name": "predictor",
            "stage": "deploy",
            "status": "done",
            "cause": "",
            "seconds": 9.0,
            "revision": "predictor:3",
            "url": "http://127.0.0.1:9",
        },
    ]
}
PREDICTION = {"url": "http://127.0.0.1:9/predict", "request": {}, "status": 200, "answer": {"predictions": [1]}}


def summary(tmp_path: Path, report: dict[str, Any]) -> list[str]:
    """Run the program; return the lines, blanks run together."""
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "prediction.json").write_text(json.dumps(PREDICTION))
    command = [sys.executable, str(SUMMARY), "report.json", "prediction.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_the_demo_ends_with_images_pipelines_runs_services_and_a_real_answer(tmp_path: Path) -> None:
    lines = summary(tmp_path, REPORT)
    assert "train sha256:aaaaaaaaaaaa done done cached changed: train.py 5.5" in lines
    assert "base - cached - - nothing changed 0.0" in lines
    assert "flow main-1234 done new content" in lines
    assert lines[lines.index("run run-1 in 30.0 s SUCCEEDED") + 2 :][:3] == [
        "task train SUCCEEDED",
        "task evaluate SUCCEEDED",
        "metric auc 0.9931",
    ]
    assert "predictor predictor:3 done http://127.0.0.1:9" in lines
    assert lines[-2:] == ["POST http://127.0.0.1:9/predict", '200 {"predictions": [1]}']


def test_a_stage_that_did_nothing_has_no_table(tmp_path: Path) -> None:
    lines = summary(tmp_path, {"results": []})
    assert lines == ["", "POST http://127.0.0.1:9/predict", '200 {"predictions": [1]}']
