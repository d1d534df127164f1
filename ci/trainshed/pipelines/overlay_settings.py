"""The settings of an overlay: read strictly, and judged as Kubernetes would when the pod starts, which is too late."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.errors import suggestion

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
Key = tuple[str, ...]
"""A setting: ``("cpu", "limit")``, ``("node-selector", "pool")``; later ones take the place of earlier ones of the same key."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
_LABEL_VALUE = re.compile(rf"(?:{_NAME})?")
_LABEL_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_DOMAIN}/)?{_NAME}")
_SECRET = re.compile(rf"(?P<name>(?=[^#]{{1,253}}#){_DOMAIN})#(?P<key>[A-Za-z0-9._-]{{1,253}})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CPU = re.compile(r"[0-9]{1,9}m|[0-9]{1,6}(?:\.[0-9]{1,3})?")
_MEMORY = re.compile(r"(?P<number>[0-9]{1,12})(?P<unit>Ki|Mi|Gi|Ti|Pi|Ei|M|G|T|P|E)")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS = ("Exists", "Equal")
_POLICIES = ("Always", "IfNotPresent", "Never")
_GIGA = 1e9
_UNITS = {unit: 1000 ** (power + 2) for power, unit in enumerate("MGTPE")} | {f"{u}i": 1024 ** (n + 1) for n, u in enumerate("KMGTPE")}


@dataclass(kw_only=True)
class Read:
    """What one overlay says, and what is wrong with it, each problem with its key."""

    values: dict[Key, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read(settings: Mapping[str, Any]) -> Read:
    """Read the settings of one overlay as TOML gives them."""
    found = Read()
    if not settings:
        found.problems.append("sets nothing")
    for key in sorted(settings, key="instance-type".__eq__):  # the word that is meant for it wins over the plain label
        try:
            _take(found, key, settings[key])
        except ValueError as error:
            found.problems.append(f"{key}: {error}")
    return found


def cpus(text: str) -> float:
    """Return a checked amount of CPU as kfp counts it."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def gigabytes(text: str) -> float:
    """Return a checked amount of memory as kfp counts it: in 10⁹ bytes, by the same steps, so that the digits are the same."""
    match = _MEMORY.fullmatch(text)
    assert match is not None  # noqa: S101 - it was checked when it was read
    number, unit = float(match["number"]), match["unit"]
    return number if unit == "G" else number * _UNITS[unit] / _GIGA


def _take(found: Read, key: str, value: Any) -> None:  # noqa: ANN401 - any TOML value
    if key in _TABLES:
        for name, item in _table(value).items():
            try:
                found.values[(key, name)] = _TABLES[key](name, item)
            except ValueError as error:
                found.problems.append(f"{key}.{name}: {error}")
    elif key in ("cpu", "memory"):
        check = _cpu if key == "cpu" else _memory
        amounts = value if isinstance(value, dict) else {"request": value, "limit": value}
        found.values |= {(key, name): check(item) for name, item in _known(amounts, ("request", "limit")).items()}
    elif key == "accelerator":
        found.values |= {(key, name): _ACCELERATOR[name](item) for name, item in _known(_table(value), tuple(_ACCELERATOR)).items()}
    elif key == "tolerations":
        tolerations: dict[Key, list[dict[str, Any]]] = {}
        for told in _tolerations(value):  # several values of one taint may be tolerated
            tolerations.setdefault((key, told.get("key", ""), told.get("effect", "")), []).append(told)
        found.values |= tolerations
    elif key == "instance-type":
        found.values[("node-selector", INSTANCE_TYPE)] = _filled(_label_value(value))
    elif key == "pull-policy":
        found.values[(key,)] = _one_of(value, _POLICIES)
    else:
        nested = '; the path of a nested step is quoted as a whole, such as "inner.train"' if isinstance(value, dict) else ""
        raise ValueError(f"no such setting{suggestion(key, KEYS)}{nested}")


def _table(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any TOML value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"expected a table, not {value!r}")
    return value


def _known(table: Mapping[str, Any], known: tuple[str, ...]) -> Mapping[str, Any]:
    for name in table:
        if name not in known:
            raise ValueError(f"no key '{name}'{suggestion(name, known)}; known: {', '.join(known)}")
    if not table:
        raise ValueError(f"expected one of {', '.join(known)}")
    return table


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise ValueError(f"expected a text, not {value!r}")
    return value


def _filled(text: str) -> str:
    if not text:
        raise ValueError("expected a text that is not empty")
    return text


def _one_of(value: Any, known: tuple[str, ...]) -> str:  # noqa: ANN401
    if value not in known:
        raise ValueError(f"expected one of {', '.join(known)}, not {value!r}{suggestion(str(value), known)}")
    return str(value)


def _label_key(name: str) -> str:
    if not _LABEL_KEY.fullmatch(name):
        raise ValueError("no name of a Kubernetes label: at most 63 letters, digits, -, _ and inner dots, perhaps after a domain and /")
    return name


def _label(name: str, value: Any) -> str:  # noqa: ANN401
    _label_key(name)
    return _label_value(value)


def _label_value(value: Any) -> str:  # noqa: ANN401
    if not _LABEL_VALUE.fullmatch(_text(value)):
        raise ValueError(f"'{value}' is no value of a Kubernetes label: at most 63 letters, digits, -, _ and inner dots")
    return _text(value)


def _annotation(name: str, value: Any) -> str:  # noqa: ANN401
    _label_key(name)
    return _text(value)


def _secret(name: str, value: Any) -> tuple[str, str]:  # noqa: ANN401
    if not _VARIABLE.fullmatch(name):
        raise ValueError("no name of an environment variable: letters, digits and _, no digit first")
    match = _SECRET.fullmatch(_text(value))
    if match is None:  # never the value: it may be the secret itself, written here by mistake
        raise ValueError('expected the name of a Kubernetes secret and a key of it, as in "secret-name#key"; never the secret itself')
    return match["name"], match["key"]


def _cpu(value: Any) -> str:  # noqa: ANN401
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _CPU.fullmatch(text) or not cpus(text):
        raise ValueError(f'expected an amount of CPU such as "500m", "2" or "1.5", not {value!r}')
    return text


def _memory(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or not _MEMORY.fullmatch(value) or not gigabytes(value):
        raise ValueError(f'expected an amount of memory, a whole number with its unit, such as "512Mi" or "4Gi", not {value!r}')
    return value


def _accelerator(value: Any) -> str:  # noqa: ANN401
    if "/" not in _text(value) or not _LABEL_KEY.fullmatch(value):  # Kubernetes knows no other resource without a domain
        raise ValueError(f"type: '{value}' is no name of a resource such as nvidia.com/gpu")
    return _text(value)


def _count(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_ACCELERATORS:
        raise ValueError(f"count: expected a whole number from 0 to {_MOST_ACCELERATORS}, not {value!r}")
    return value


def _tolerations(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise ValueError("expected a list of tables")
    return [_toleration(item) for item in value]


def _toleration(table: Mapping[str, Any]) -> dict[str, Any]:
    _known(table, ("key", "operator", "value", "effect", "toleration-seconds"))
    told = {name: _text(value) for name, value in table.items() if name != "toleration-seconds"}
    if told.get("key"):
        _label_key(told["key"])
    operator = _one_of(told.get("operator", "Equal"), _OPERATORS)
    if operator == "Exists" and told.get("value"):
        raise ValueError("operator Exists takes no value; it tolerates all of them")
    if operator == "Equal" and not told.get("key"):
        raise ValueError("operator Equal needs a key; without one, only Exists has a meaning")
    _label_value(told.get("value", ""))
    if told.get("effect"):
        _one_of(told["effect"], _EFFECTS)
    if "toleration-seconds" in table:
        if told.get("effect") != "NoExecute":
            raise ValueError("toleration-seconds has a meaning with effect NoExecute only")
        told["tolerationSeconds"] = str(_seconds(table["toleration-seconds"]))
    return {name: text for name, text in told.items() if text}


def _seconds(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"toleration-seconds: expected a whole number of seconds, not {value!r}")
    return value


_MOST_ACCELERATORS = 1024
_ACCELERATOR: Mapping[str, Callable[[Any], Any]] = {"type": _accelerator, "count": _count}
_TABLES: Mapping[str, Callable[[str, Any], Any]] = {
    "node-selector": _label,
    "labels": _label,
    "annotations": _annotation,
    "secrets": _secret,
}
KEYS = ("instance-type", "accelerator", "cpu", "memory", "tolerations", "pull-policy", *_TABLES)
