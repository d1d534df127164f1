"""``trainshed config``: what is in force, and where each value comes from."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any
from urllib.parse import urlsplit

from trainshed.keys import KEYS
from trainshed.results import Report
from trainshed.stages import policy
from trainshed.stages.context import Context


def config(context: Context) -> Report:
    """Print every key of the environment with its value and source; passwords in URLs are masked."""
    effective, environment = context.config, context.config.environment.name
    own = [path for path in effective.values if path.startswith(f"environments.{environment}.")]
    overlaid = {path for path in own if path.removeprefix(f"environments.{environment}.") in {key.path for key in KEYS}}
    shown = {}
    for path in [*(key.path for key in KEYS), *(path for path in own if path not in overlaid)]:
        shown[path] = {"value": _shown(path, effective.values[path]), "source": str(effective.sources[path])}
    rows = [(path, _text(entry["value"]), str(entry["source"])) for path, entry in shown.items() if _worth_a_row(path, shown)]
    governed = policy.told(effective)
    context.console.table(f"{effective.file}, environment {environment}", ("key", "value", "from"), rows)
    if governed:
        context.console.line(governed)
    return Report(stage="config", extra={"environment": environment, "values": shown, "policy": governed})


def _worth_a_row(path: str, shown: dict[str, dict[str, Any]]) -> bool:
    """Leave out the short forms (``environments.x.kubeflow``) that stand for their keys."""
    return not any(other.startswith(f"{path}.") for other in shown)


def _shown(path: str, value: Any) -> Any:  # noqa: ANN401 - any configured value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _shown(path, item) for name, item in asdict(value).items() if item not in ("", None)}
    if isinstance(value, dict):
        return {name: _shown(path, item) for name, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    if value is None:
        return "embedded" if path.startswith("environments.") else ""
    if isinstance(value, str) and "://" in value:
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def _text(value: Any) -> str:  # noqa: ANN401 - any configured value
    if isinstance(value, dict):
        return ", ".join(f"{name} = {f'{{{_text(item)}}}' if isinstance(item, dict) else item}" for name, item in value.items()) or "{}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "[]"
    return str(value) if value != "" else '""'
