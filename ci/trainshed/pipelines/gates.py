"""Gates: what a run's metrics must be, such as ``auc >= 0.80``, or no worse than the last accepted run: ``auc >= best - 0.01``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainshed.errors import UsageError, suggestion

_EXPRESSION = re.compile(r"\s*(?P<metric>[A-Za-z_][\w./ -]*?)\s*(?P<operator>[<>=!]+)\s*(?P<threshold>\S.*?)\s*")
_RELATIVE = re.compile(r"best(?:\s*(?P<sign>[-+*])\s*(?P<amount>\S+))?")
_EXAMPLE = "Write it as 'auc >= 0.80' or 'auc >= best - 0.01'."
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_FROM_BEST: Mapping[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition.

    ``metric`` is a metric's name, or the end of its dotted path: ``auc`` means ``evaluate.metrics.auc``. ``best`` is empty for a fixed
    threshold, else the sign (``+``, ``-``, ``*``) between the metric of the last accepted run and ``threshold``.
    """

    metric: str
    operator: str
    threshold: float
    best: str = ""

    def __str__(self) -> str:
        if not self.best:
            return f"{self.metric} {self.operator} {_shown(self.threshold)}"
        amount = "" if self.best == "+" and not self.threshold else f" {self.best} {_shown(self.threshold)}"
        return f"{self.metric} {self.operator} best{amount}"


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """An earlier run that was accepted: what ``best`` means."""

    run_id: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one gate.

    ``value`` is None when no such metric, or more than one, was found; ``message`` tells. ``best`` is the value that it was compared
    with, of the run ``best_run``; None and empty for a fixed threshold, and where no accepted run has the metric.
    """

    gate: Gate
    passed: bool
    value: float | None
    message: str
    best: float | None = None
    best_run: str = ""


def parse(text: str) -> Gate:
    """Read one gate.

    Raises:
        UsageError: it is none.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None or match["operator"] not in _OPERATORS:
        expected = f"expected a metric, one of {' '.join(_OPERATORS)}, and a number or best"
        raise UsageError(f"gate '{text}': {expected}", next_step=_EXAMPLE)
    relative = _RELATIVE.fullmatch(match["threshold"])
    amount = match["threshold"] if relative is None else relative["amount"] or "0"
    try:
        threshold = float(amount)
    except ValueError:
        raise UsageError(f"gate '{text}': '{amount}' is not a number", next_step=_EXAMPLE) from None
    if not math.isfinite(threshold):
        raise UsageError(f"gate '{text}': the threshold must be a finite number", next_step=_EXAMPLE)
    best = "" if relative is None else relative["sign"] or "+"
    return Gate(metric=match["metric"], operator=match["operator"], threshold=threshold, best=best)


def evaluate(gates: Iterable[Gate], metrics: Mapping[str, float], accepted: Sequence[Accepted] = ()) -> list[Judged]:
    """Judge gates by metrics (name or dotted path → value).

    A missing, ambiguous, undefined (NaN) or infinite metric never passes. A gate against the last accepted run passes where there is
    none, and its message says so: there has to be a first one.

    Args:
        gates: what must hold.
        metrics: of the run.
        accepted: earlier runs, the newest first; ``best`` is of the first that has the metric.
    """
    return [_judge(gate, metrics, accepted) for gate in gates]


def _judge(gate: Gate, metrics: Mapping[str, float], accepted: Sequence[Accepted]) -> Judged:
    fitting = _fitting(gate.metric, metrics)
    if not fitting:
        known = ", ".join(sorted(metrics)) or "none"
        hint = suggestion(gate.metric, {name.rpartition(".")[2] for name in metrics})
        return Judged(gate=gate, passed=False, value=None, message=f"gate {gate}: the run has no metric '{gate.metric}'{hint} ({known})")
    values = {metrics[name] for name in fitting}
    if len(values) > 1:
        several = ", ".join(sorted(fitting))
        return Judged(gate=gate, passed=False, value=None, message=f"gate {gate}: '{gate.metric}' means several metrics: {several}")
    value = float(metrics[fitting[0]])
    if not gate.best:
        passed = math.isfinite(value) and _OPERATORS[gate.operator](value, gate.threshold)
        return Judged(gate=gate, passed=passed, value=value, message=f"gate {gate}: {gate.metric} is {value:g}")
    return _against_best(gate, value, [(run.run_id, _of(gate.metric, fitting, run.metrics)) for run in accepted])


def _against_best(gate: Gate, value: float, known: Iterable[tuple[str, float | None]]) -> Judged:
    found = next(((run_id, best) for run_id, best in known if best is not None), None)
    if found is None:
        message = f"gate {gate}: {gate.metric} is {value:g}; no accepted run has it yet, so there is nothing to compare with"
        return Judged(gate=gate, passed=math.isfinite(value), value=value, message=message)
    run_id, best = found
    limit = _FROM_BEST[gate.best](best, gate.threshold)
    passed = math.isfinite(value) and _OPERATORS[gate.operator](value, limit)
    message = f"gate {gate}: {gate.metric} is {value:g}, wanted {gate.operator} {limit:g}; best is {best:g}, of run {run_id}"
    return Judged(gate=gate, passed=passed, value=value, message=message, best=best, best_run=run_id)


def _shown(number: float) -> str:
    """Write a number short, and yet so that it is read back as the same one: a run that is taken up is judged by what is written."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _fitting(metric: str, metrics: Mapping[str, float]) -> list[str]:
    """Return the names that a gate may mean: the very name, else those that end with it."""
    return [name for name in metrics if name == metric] or [name for name in metrics if name.endswith(f".{metric}")]


def _of(metric: str, fitting: Sequence[str], metrics: Mapping[str, float]) -> float | None:
    """Return the same metric of an earlier run: by the full name that it has now, else as the gate names it; None when unclear."""
    names = [name for name in fitting if name in metrics] or _fitting(metric, metrics)
    values = {float(metrics[name]) for name in names}
    value = values.pop() if len(values) == 1 else math.nan
    return value if math.isfinite(value) else None
