"""The step cache of one run: set in every task of every DAG, where the server reads it. A switch beside the specification changes less."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from trainshed.pipelines.documents import Document


def with_caching(specification: Mapping[str, Any], *, enabled: bool) -> dict[str, Any] | None:
    """Return a pipeline's specification whose steps take from the cache, or do not; None when it says so already.

    Groups of kfp's own (loops, conditions, exit handlers) carry no such option; the steps in them do, wherever they stand.

    Args:
        specification: the IR, alone or with its platform document: ``{"pipeline_spec": …, "platform_spec": …}``. It is not changed.
        enabled: what every step shall do.
    """
    changed = copy.deepcopy(dict(specification))
    moved = False
    for task in _steps(changed.get("pipeline_spec", changed)):
        options = task.setdefault("cachingOptions", {})
        moved = moved or bool(options.get("enableCache", False)) != enabled
        options["enableCache"] = enabled
    return changed if moved else None


def _steps(document: Document) -> Iterator[dict[str, Any]]:
    """Yield the tasks of every DAG that the cache can serve."""
    components = document.get("components") or {}
    for component in (document.get("root") or {}, *components.values()):
        for task in ((component.get("dag") or {}).get("tasks") or {}).values():
            called = components.get((task.get("componentRef") or {}).get("name", ""), {})
            if "dag" not in called or "cachingOptions" in task:
                yield task
