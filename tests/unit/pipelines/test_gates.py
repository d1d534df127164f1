from __future__ import annotations

import pytest

from trainshed.errors import UsageError
from trainshed.pipelines import gates
from trainshed.pipelines.gates import Accepted, Gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("auc >= 0.80", Gate(metric="auc", operator=">=", threshold=0.8)),
        ("auc>0", Gate(metric="auc", operator=">", threshold=0.0)),
        ("  evaluate.metrics.log-loss <= 1e-3 ", Gate(metric="evaluate.metrics.log-loss", operator="<=", threshold=0.001)),
        ("x < -1", Gate(metric="x", operator="<", threshold=-1.0)),
        ("x == 1", Gate(metric="x", operator="==", threshold=1.0)),
        ("x != 1", Gate(metric="x", operator="!=", threshold=1.0)),
        ("auc >= best - 0.01", Gate(metric="auc", operator=">=", threshold=0.01, best="-")),
        ("auc>=best", Gate(metric="auc", operator=">=", threshold=0.0, best="+")),
        ("loss <= best*1.1", Gate(metric="loss", operator="<=", threshold=1.1, best="*")),
        ("best > best + 1e-3", Gate(metric="best", operator=">", threshold=0.001, best="+")),
    ],
)
def test_a_gate_is_metric_operator_number(text: str, gate: Gate) -> None:
    assert gates.parse(text) == gate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auc",
        "auc >=",
        ">= 1",
        "auc => 1",
        "auc = 1",
        "auc >= much",
        "auc >= nan",
        "auc >= inf",
        "a >= 1 2",
        "auc >= best 1",
        "auc >= best - nan",
        "auc >= best /2",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        gates.parse(text)
    assert caught.value.message.startswith(f"gate '{text}': ")
    assert "auc >= 0.80" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("auc >= 0.9", True),
        ("auc > 0.9", False),
        ("auc <= 0.9", True),
        ("auc < 0.9", False),
        ("auc == 0.9", True),
        ("auc != 0.9", False),
    ],
)
def test_the_operators_mean_what_they_say(text: str, passed: bool) -> None:
    (judged,) = gates.evaluate([gates.parse(text)], {"auc": 0.9})
    assert (judged.passed, judged.value) == (passed, 0.9)
    assert judged.message == f"gate {gates.parse(text)}: auc is 0.9"


def test_a_short_name_means_the_end_of_a_dotted_path() -> None:
    (judged,) = gates.evaluate([gates.parse("auc > 0.5")], {"evaluate.metrics.auc": 0.9, "evaluate.metrics.my_auc": 0.1})
    assert judged.passed


def test_the_exact_name_wins_over_paths() -> None:
    (judged,) = gates.evaluate([gates.parse("auc > 0.5")], {"auc": 0.9, "other.auc": 0.1})
    assert judged.value == 0.9


def test_an_ambiguous_name_fails_unless_all_say_the_same() -> None:
    gate = gates.parse("auc > 0.5")
    (judged,) = gates.evaluate([gate], {"a.auc": 0.9, "b.auc": 0.8})
    assert not judged.passed
    assert judged.message.endswith("'auc' means several metrics: a.auc, b.auc")
    assert gates.evaluate([gate], {"a.auc": 0.9, "b.auc": 0.9})[0].passed


def test_a_missing_metric_fails_with_what_there_is() -> None:
    (judged,) = gates.evaluate([gates.parse("acu > 0.5")], {"evaluate.auc": 0.9})
    assert not judged.passed
    assert judged.value is None
    assert judged.message == "gate acu > 0.5: the run has no metric 'acu'; perhaps you meant 'auc' (evaluate.auc)"
    assert gates.evaluate([gates.parse("auc > 0.5")], {})[0].message.endswith("(none)")


@pytest.mark.parametrize("text", ["auc >= 0", "auc <= 1", "auc != 1"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_undefined_or_infinite_metric_never_passes(text: str, value: str) -> None:
    assert not gates.evaluate([gates.parse(text)], {"auc": float(value)})[0].passed


@pytest.mark.parametrize("text", ["auc >= 0.8000000001", "auc >= best - 1e-09", "auc > best", "auc < best * 0.5", "auc > best + 2"])
def test_a_gate_that_is_written_down_is_read_back_as_the_same(text: str) -> None:
    assert gates.parse(str(gates.parse(text))) == gates.parse(text)


BEFORE = (Accepted(run_id="r2", metrics={"train.rows": 3.0}), Accepted(run_id="r1", metrics={"train.auc": 0.9, "other.auc": 0.1}))


@pytest.mark.parametrize(
    ("text", "passed", "limit"),
    [
        ("train.auc >= best - 0.01", True, "0.89"),
        ("train.auc >= best", False, "0.9"),
        ("auc >= best * 0.9", True, "0.81"),
        ("auc >= best + 0.05", False, "0.95"),
    ],
)
def test_best_is_the_same_metric_of_the_last_accepted_run_that_has_it(text: str, passed: bool, limit: str) -> None:
    (judged,) = gates.evaluate([gates.parse(text)], {"train.auc": 0.895}, BEFORE)
    assert (judged.passed, judged.best, judged.best_run) == (passed, 0.9, "r1")
    assert judged.message.endswith(f"is 0.895, wanted >= {limit}; best is 0.9, of run r1")


@pytest.mark.parametrize("before", [(), (Accepted(run_id="r", metrics={"auc": float("nan")}),), (Accepted(run_id="r", metrics={}),)])
def test_the_first_run_with_a_metric_passes_and_says_so(before: tuple[Accepted, ...]) -> None:
    (judged,) = gates.evaluate([gates.parse("auc >= best")], {"train.auc": 0.1}, before)
    assert (judged.passed, judged.best) == (True, None)
    assert "no accepted run has it yet" in judged.message


@pytest.mark.parametrize("before", [(), BEFORE])
def test_neither_a_missing_nor_an_undefined_metric_passes_against_best(before: tuple[Accepted, ...]) -> None:
    assert not gates.evaluate([gates.parse("auc >= best")], {"train.auc": float("nan")}, before)[0].passed
    assert not gates.evaluate([gates.parse("auc >= best")], {}, before)[0].passed
