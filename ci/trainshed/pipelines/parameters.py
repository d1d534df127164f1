"""A pipeline's parameters: what it defines, and whether what was given fits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.errors import UsageError, problems, suggestion
from trainshed.pipelines.documents import Document

_TYPES = {
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "STRING": "str",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "dict",
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter. ``type`` is ``int``, ``float``, ``str``, ``bool``, ``list`` or ``dict``; ``literals`` empty allows any value."""

    name: str
    type: str
    default: Any = None
    optional: bool = False
    literals: tuple[Any, ...] = field(default=())
    description: str = ""


def definitions(document: Document) -> dict[str, Parameter]:
    """Return the parameters that a pipeline's specification defines for a run, sorted by name."""
    table = document.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return {name: _parameter(name, table[name]) for name in sorted(table)}


def check(defined: Mapping[str, Parameter], given: Mapping[str, Any], *, pipeline: str) -> dict[str, Any]:
    """Return what was given with the types that the pipeline wants. Defaults are left to the server.

    Args:
        defined: see `definitions`.
        given: by name; a text is read as the parameter's type (``-p seed=7``), any other value must have it.
        pipeline: the pipeline's name, for messages.

    Raises:
        UsageError: with all problems at once: unknown, missing, of another type, not one of the allowed values.
    """
    wrong = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in defined:
            wrong.append(f"pipeline {pipeline} has no parameter '{name}'{suggestion(name, defined)}")
            continue
        try:
            values[name] = _typed(defined[name], value)
        except ValueError as error:
            wrong.append(f"pipeline {pipeline}: parameter '{name}': {error}")
    for name, parameter in defined.items():
        if name not in given and not parameter.optional and parameter.default is None:
            wrong.append(f"pipeline {pipeline}: parameter '{name}' ({parameter.type}) has no default and is not given")
    if wrong:
        raise problems(wrong, next_step=f"Known parameters: {_listed(defined.values())}.")
    return values


def read_file(text: str, *, place: str) -> dict[str, Any]:
    """Read a file of parameters: one mapping, as JSON or YAML.

    Raises:
        UsageError: it is none.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not YAML: {error}", next_step=_FILE_HELP) from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise UsageError(f"{place}: expected a mapping of parameters", next_step=_FILE_HELP)
    return document


_FILE_HELP = "Write one `name: value` a line."


def _parameter(name: str, spec: Mapping[str, Any]) -> Parameter:
    kind = _TYPES.get(str(spec.get("parameterType")), "str")
    default = spec.get("defaultValue")
    if kind == "int" and isinstance(default, float) and default.is_integer():
        default = int(default)  # protobuf keeps every number as a double
    return Parameter(
        name=name,
        type=kind,
        default=default,
        optional=bool(spec.get("isOptional", False)),
        literals=tuple(spec.get("literals", ())),
        description=str(spec.get("description", "")),
    )


def _typed(parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    read = _READERS[parameter.type]
    typed = read(value)
    if parameter.literals and typed not in parameter.literals:
        raise ValueError(f"expected one of {', '.join(map(str, parameter.literals))}, not {value!r}")
    return typed


def _integer(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"expected a whole number (int), not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"expected a whole number (int), not {value!r}")
    return int(value)


def _number(value: Any) -> float:  # noqa: ANN401
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number (float), not {value!r}")
    return number


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise ValueError(f"expected a text (str), not {value!r}")
    return value


def _boolean(value: Any) -> bool:  # noqa: ANN401
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false (bool), not {value!r}")
    return value


def _json(kind: type, told: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:  # noqa: ANN401
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        if not isinstance(found, kind):
            raise ValueError(f"expected a JSON {told}, not {value!r}")
        return found

    return read


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _integer,
    "float": _number,
    "str": _text,
    "bool": _boolean,
    "list": _json(list, "array (list)"),
    "dict": _json(dict, "object (dict)"),
}


def _listed(parameters: Iterable[Parameter]) -> str:
    return ", ".join(f"{parameter.name} ({parameter.type})" for parameter in parameters) or "none"
