"""The program train, as the pipeline starts it."""

from __future__ import annotations

from pathlib import Path

import joblib
import pytest
from train import main


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    rows = [f"{number}.0,{number % 3}.0,{int(number >= 20)}" for number in range(40)]
    path.write_text("\n".join(["radius,texture,diagnosis", *rows]) + "\n")
    return path


def test_the_saved_model_tells_the_diagnoses_apart(table: Path) -> None:
    saved = table.parent / "new" / "model"
    main(["--train", str(table), "--model", str(saved)])
    model = joblib.load(saved)
    assert list(model.predict([[0.0, 1.0], [39.0, 1.0]])) == [0, 1]
    assert model.n_features_in_ == 2


def test_the_same_rows_give_the_same_model(table: Path) -> None:
    for name in ("one", "two"):
        main(["--train", str(table), "--model", str(table.parent / name)])
    one, two = (joblib.load(table.parent / name)[-1].coef_.tolist() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("option", ["--strength", "--iterations"])
def test_a_number_that_is_not_above_0_is_refused(table: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--train", str(table), "--model", str(table.parent / "model"), option, "0"])
    assert option in capsys.readouterr().err
