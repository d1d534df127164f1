"""Gates: what a run's metrics must be, such as ``auc >= 0.80``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from trainshed.errors import UsageError, suggestion

_EXPRESSION = re.compile(r"\s*(?P<metric>[A-Za-z_][\w./ -]*?)\s*(?P<operator>[<>=!]+)\s*(?P<threshold>\S+)\s*")
_EXAMPLE = "Write it as 'auc >= 0.80'."
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition. ``metric`` is a metric's name, or the end of its dotted path: ``auc`` means ``evaluate.metrics.auc``."""

    metric: str
    operator: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.threshold:g}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one gate. ``value`` is None when no such metric, or more than one, was found; ``message`` tells."""

    gate: Gate
    passed: bool
    value: float | None
    message: str


def parse(text: str) -> Gate:
    """Read one gate.

    Raises:
        UsageError: it is none.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None or match["operator"] not in _OPERATORS:
        raise UsageError(f"gate '{text}': expected a metric, one of {' '.join(_OPERATORS)}, and a number", next_step=_EXAMPLE)
    try:
        threshold = float(match["threshold"])
    except ValueError:
        raise UsageError(f"gate '{text}': '{match['threshold']}' is not a number", next_step=_EXAMPLE) from None
    if not math.isfinite(threshold):
        raise UsageError(f"gate '{text}': the threshold must be a finite number", next_step=_EXAMPLE)
    return Gate(metric=match["metric"], operator=match["operator"], threshold=threshold)


def evaluate(gates: Iterable[Gate], metrics: Mapping[str, float]) -> list[Judged]:
    """Judge gates by metrics (name or dotted path → value). A missing, ambiguous or undefined (NaN) metric never passes."""
    return [_judge(gate, metrics) for gate in gates]


def _judge(gate: Gate, metrics: Mapping[str, float]) -> Judged:
    fitting = [name for name in metrics if name == gate.metric] or [name for name in metrics if name.endswith(f".{gate.metric}")]
    if not fitting:
        known = ", ".join(sorted(metrics)) or "none"
        hint = suggestion(gate.metric, {name.rpartition(".")[2] for name in metrics})
        return Judged(gate=gate, passed=False, value=None, message=f"gate {gate}: the run has no metric '{gate.metric}'{hint} ({known})")
    values = {metrics[name] for name in fitting}
    if len(values) > 1:
        several = ", ".join(sorted(fitting))
        return Judged(gate=gate, passed=False, value=None, message=f"gate {gate}: '{gate.metric}' means several metrics: {several}")
    value = float(metrics[fitting[0]])
    passed = not math.isnan(value) and _OPERATORS[gate.operator](value, gate.threshold)
    return Judged(gate=gate, passed=passed, value=value, message=f"gate {gate}: {gate.metric} is {value:g}")
