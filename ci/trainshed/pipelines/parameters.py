"""A pipeline's parameters: what it defines, and whether what was given fits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from trainshed.errors import UsageError, problems, suggestion
from trainshed.pipelines import documents
from trainshed.pipelines.documents import Document

_TYPES = {
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "STRING": "str",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "dict",
    "INT": "int",  # of specifications before schema 2.1
    "DOUBLE": "float",
}
_TOLD = {
    "int": "a whole number (int)",
    "float": "a number (float)",
    "str": "a text (str)",
    "bool": "true or false (bool)",
    "list": "a JSON array (list)",
    "dict": "a JSON object (dict)",
    "any": "a value",
}
_LARGEST = 2**53
_SHOWN, _FEW_DIGITS = 200, 20


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter.

    ``type`` is ``int``, ``float``, ``str``, ``bool``, ``list``, ``dict``, or ``any`` for a type of Kubeflow's that is not known here;
    ``literals`` empty allows any value.
    """

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
        given: by name; a text is read as the parameter's type (``-p seed=7``), any other value must have it. None leaves an optional
            parameter without default out.
        pipeline: the pipeline's name, for messages.

    Raises:
        UsageError: with all problems at once: unknown, missing, of another type, not one of the allowed values.
    """
    wrong = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in defined:
            wrong.append(f"pipeline {pipeline} has no parameter '{name}'{suggestion(name, defined)}")
        elif value is not None or not _may_be_left_out(defined[name]):
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

    Words and numbers mean what YAML 1.2 says, so that ``no``, ``2024-01-31``, ``12:30`` and ``010`` are texts.

    Raises:
        UsageError: it is none, or names a parameter twice.
    """
    try:
        documents.bound(text, place)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader with fewer types
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{place}{where}: not YAML: {getattr(error, 'problem', None) or error}", next_step=_FILE_HELP) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not YAML: {error}", next_step=_FILE_HELP) from error
    except UsageError as error:
        raise UsageError(error.message, next_step=_FILE_HELP) from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise UsageError(f"{place}: expected a mapping of parameters", next_step=_FILE_HELP)
    return document


class _Loader(yaml.SafeLoader):
    """YAML with the plain words of version 1.2 only, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - declared so by its base

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a second value for a key: which of them was meant?"""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"line {line}: '{key.value}' was given before, in line {seen[key.value]}")
                seen[key.value] = line
        return super().construct_mapping(node, deep=deep)


_WORDS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)
_FLOAT = r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in _WORDS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT})\Z"), list("-+.0123456789"))

_FILE_HELP = "Write one `name: value` a line."


def _parameter(name: str, spec: Mapping[str, Any]) -> Parameter:
    kind = _TYPES.get(str(spec.get("parameterType") or spec.get("type")), "any")
    return Parameter(
        name=name,
        type=kind,
        default=_whole(kind, spec.get("defaultValue")),
        optional=bool(spec.get("isOptional", False)),
        literals=tuple(_whole(kind, literal) for literal in spec.get("literals") or ()),
        description=str(spec.get("description", "")),
    )


def _whole(kind: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a whole number as int: protobuf keeps every number as a double."""
    return int(value) if kind == "int" and isinstance(value, float) and value.is_integer() else value


def _may_be_left_out(parameter: Parameter) -> bool:
    return parameter.optional and parameter.default is None


def _typed(parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if value is None:
        default = f"; leave it out for the default, {parameter.default!r}" if parameter.default is not None else ""
        raise ValueError(f"expected {_TOLD[parameter.type]}, not null{default}")
    typed = _READERS[parameter.type](value)
    if parameter.literals and typed not in parameter.literals:
        hint = suggestion(typed, map(str, parameter.literals)) if isinstance(typed, str) else ""
        raise ValueError(f"expected one of {', '.join(map(str, parameter.literals))}, not {value!r}{hint}")
    return typed


def _refused(kind: str, value: Any, hint: str = "") -> ValueError:  # noqa: ANN401 - any JSON value
    shown = repr(value)
    return ValueError(f"expected {_TOLD[kind]}, not {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}…'}{hint}")


def _integer(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, str):
        return _integer_of_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and not value.is_integer()):
        raise _refused("int", value)
    return _exact(int(value))


def _integer_of_text(text: str) -> int:
    shown = text.strip()
    if re.fullmatch(r"[-+]?[0-9]{1,4000}", shown):  # more digits are more than Python reads
        return _exact(int(shown))
    try:
        number = Decimal(shown if re.fullmatch(_FLOAT, shown) else "")  # a float would round it first
    except InvalidOperation:
        raise _refused("int", text) from None
    if number.copy_abs() > _LARGEST:
        raise _rounded(shown)
    if number != number.to_integral_value():
        raise _refused("int", text)
    return int(number)


def _exact(number: int) -> int:
    if abs(number) > _LARGEST:
        raise _rounded(str(number))
    return number


def _rounded(shown: str) -> ValueError:
    shown = shown if len(shown) <= _FEW_DIGITS else f"{shown[:_FEW_DIGITS]}…"
    return ValueError(f"{shown} is more than 2^53, and Kubeflow would round it; hand it over as a text (str)")


def _number(value: Any) -> float:  # noqa: ANN401
    try:
        plain = isinstance(value, (int, float)) or (isinstance(value, str) and re.fullmatch(_FLOAT, value.strip()))
        number = float(value) if plain and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _refused("float", value)
    return number


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise _refused("str", value, "; put it in quotes" if isinstance(value, (bool, int, float)) else "")
    return value


def _boolean(value: Any) -> bool:  # noqa: ANN401
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise _refused("bool", value)
    return value


class _TwiceError(ValueError):
    """A name stands twice: which value was meant?"""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"'{next(name for name in names if names.count(name) > 1)}' is given twice")
    return found


def _json(name: str, kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:  # noqa: ANN401
        try:
            found = json.loads(value, object_pairs_hook=_once) if isinstance(value, str) else value
        except _TwiceError as error:
            raise ValueError(str(error)) from None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, kind):
            raise _refused(name, value)
        _plain(found, "")
        return found

    return read


def _any(value: Any) -> Any:  # noqa: ANN401
    _plain(value, "")
    return value


def _plain(value: Any, path: str) -> None:  # noqa: ANN401
    """Refuse what JSON cannot carry to the server as it is, at any depth."""
    at = f"at {path}: " if path else ""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{at}a key must be a text, not {key!r}; put it in quotes")
            _plain(item, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _plain(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{at}{value!r} is no number that JSON knows")
    elif isinstance(value, int) and not isinstance(value, bool):
        try:
            _exact(value)
        except ValueError as error:
            raise ValueError(f"{at}{error}") from None
    elif not isinstance(value, (str, bool, float, type(None))):
        raise ValueError(f"{at}expected what JSON knows, not {value!r}")


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _integer,
    "float": _number,
    "str": _text,
    "bool": _boolean,
    "list": _json("list", list),
    "dict": _json("dict", dict),
    "any": _any,
}


def _listed(parameters: Iterable[Parameter]) -> str:
    return ", ".join(f"{parameter.name} ({parameter.type})" for parameter in parameters) or "none"
