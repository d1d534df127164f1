"""Uploaded pipelines: read within bounds, and checked as far as the API server checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainshed.errors import UsageError
from trainshed.pipelines import documents, paths

LARGEST = 32 * 1024 * 1024
_SHAPES: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
    "TASK_CONFIG": (dict,),
}


class Refused(ValueError):
    """The package or the parameters are not what the pipeline takes."""


def read(content: bytes) -> dict[str, Any]:
    """Return the document that the API shows: the specification, or both where there are platform settings.

    Raises:
        Refused: it is not a compiled pipeline.
    """
    if len(content) > LARGEST:
        raise Refused(f"the package is larger than {LARGEST >> 20} MiB")
    try:
        found = documents.load(content.decode(), place="the package")
    except UnicodeDecodeError as error:
        raise Refused("the package is not UTF-8") from error
    except UsageError as error:
        raise Refused(error.message) from error
    check(found[0])
    return joined(found)


def check(specification: Mapping[str, Any]) -> None:
    """Check the parts of a specification that a run cannot do without, and that its tasks' names can name files.

    Raises:
        Refused: it is no specification of a pipeline.
    """
    for key in ("pipelineInfo", "root", "deploymentSpec"):
        if not isinstance(specification.get(key), dict):
            raise Refused(f"no compiled pipeline: {key} is missing")
    components = specification.get("components", {})
    if not isinstance(components, dict):
        raise Refused("no compiled pipeline: components is not a mapping")
    for component in (specification["root"], *components.values()):
        tasks = (component.get("dag") or {}).get("tasks") or {} if isinstance(component, dict) else {}
        for name in tasks:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(name)):
                raise Refused(f"task '{name}' is not a name")
    try:
        paths.tasks([dict(specification)])  # a pipeline within itself has no end
    except UsageError as error:
        raise Refused(error.message) from error


def joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the documents of a compiled pipeline as the API shows them."""
    specification, *platform = found
    return {"pipeline_spec": specification, "platform_spec": platform[0]} if platform and platform[0] else specification


def parted(shown: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return specification and platform settings (empty when there are none) of what the API shows or is given."""
    if "pipeline_spec" in shown:
        return dict(shown["pipeline_spec"]), dict(shown.get("platform_spec") or {})
    return dict(shown), {}


def check_parameters(specification: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check a run's parameters as the API server does: none unknown, none missing, each of its type.

    Raises:
        Refused: they do not fit.
    """
    known = ((specification.get("root") or {}).get("inputDefinitions") or {}).get("parameters") or {}
    extra = sorted(set(given) - set(known))
    if extra:
        raise Refused(f"the pipeline has no parameter {', '.join(extra)}")
    for name, definition in known.items():
        if name in given:
            _check_type(name, definition.get("parameterType", ""), given[name])
        elif "defaultValue" not in definition and not definition.get("isOptional"):
            raise Refused(f"parameter {name} has neither a default nor a value")


def _check_type(name: str, kind: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    shapes = _SHAPES.get(kind)
    whole = isinstance(value, float) and value.is_integer() and kind == "NUMBER_INTEGER"
    fits = shapes is None or whole or (isinstance(value, shapes) and (kind == "BOOLEAN" or not isinstance(value, bool)))
    if not fits:
        raise Refused(f"parameter {name} is {kind}, not {value!r}")
