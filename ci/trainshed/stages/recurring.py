"""A schedule as it is declared, as Kubeflow keeps it, and how the two differ. Pure: `trainshed.stages.schedule` acts on it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainshed.pipelines.content import normalised
from trainshed.pipelines.settings import Schedule
from trainshed.tools.kubeflow_records import DESCRIPTION_LIMIT, RecurringRun, Trigger, Version

_MARK = re.compile(
    r"^trainshed: project=(?P<project>\S+) environment=(?P<environment>\S+) pipeline=(?P<pipeline>\S+) schedule=(?P<schedule>\S+)$",
    re.MULTILINE,
)
_DIGEST = re.compile(r"^declared: ([0-9a-f]+)$", re.MULTILINE)
_SHORT = 16
SWITCHED = {True: "disabled → enabled", False: "enabled → disabled"}
"""The one difference that can be mended in place."""
_VERSION = re.compile(r"^version: (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Whose a recurring run is, as its description says; without one it is somebody else's."""

    project: str
    environment: str
    pipeline: str
    schedule: str

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.pipeline}.{self.schedule}"

    def __str__(self) -> str:
        return f"trainshed: project={self.project} environment={self.environment} pipeline={self.pipeline} schedule={self.schedule}"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A recurring run as it shall be. ``source`` says why it is this version; empty texts are left to the server."""

    mark: Mark
    schedule: Schedule
    place: str
    version: Version
    source: str
    parameters: Mapping[str, Any]
    experiment: str
    service_account: str = ""
    pipeline_root: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what Kubeflow shows; what tells it apart is in its description."""
        return f"{self.mark.pipeline} {self.mark.schedule}"

    @property
    def sdk(self) -> str:
        """Return what compiled the pipeline."""
        return str(self.version.spec.get("pipeline_spec", self.version.spec).get("sdkVersion", ""))

    @property
    def trigger(self) -> Trigger:
        """Return when it starts."""
        return Trigger(cron=self.schedule.cron, every=self.schedule.every, start=self.schedule.start, end=self.schedule.end)

    @property
    def digest(self) -> str:
        """Return the digest of all that was declared but whether it is enabled: that alone can be changed in Kubeflow."""
        plain = {name: value for name, value in self.fields().items() if name != "enabled"}
        told = {**plain, "experiment": self.experiment, "labels": dict(self.labels), "version": self.version.id}
        text = json.dumps({**told, "parameters": normalised(dict(self.parameters))}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]

    @property
    def description(self) -> str:
        """Return the text that says in Kubeflow whose it is, and further what there is room for; see `fits`."""
        more = [f"version: {self.version.name}", *(f"label {name}: {value}" for name, value in sorted(self.labels.items()))]
        text = self._least
        for line in (*more, f"from: {self.place}"):
            longer = f"{text}\n{line}"
            text = longer if len(longer) <= DESCRIPTION_LIMIT else text
        return text

    @property
    def fits(self) -> bool:
        """Tell whether Kubeflow can keep what it takes to find this again."""
        return len(self._least) <= DESCRIPTION_LIMIT

    @property
    def _least(self) -> str:
        return f"{self.mark}\ndeclared: {self.digest}"

    def fields(self) -> dict[str, Any]:
        """Return the plain fields that Kubeflow keeps, by the names of the settings file."""
        return {
            "cron": self.schedule.cron,
            "every": self.schedule.every,
            "start": self.schedule.start,
            "end": self.schedule.end,
            "enabled": self.schedule.enabled,
            "catch-up": self.schedule.catch_up,
            "max-concurrency": self.schedule.max_concurrency,
            "service-account": self.service_account,
            "pipeline-root": self.pipeline_root,
        }


def mark_of(kept: RecurringRun) -> Mark | None:
    """Return whose a recurring run is; None for one that Trainshed did not make."""
    found = _MARK.search(kept.description)
    return Mark(**found.groupdict()) if found else None


def digest_of(kept: RecurringRun) -> str:
    """Return the digest of what was declared when it was made."""
    found = _DIGEST.search(kept.description)
    return found[1] if found else ""


def differences(kept: RecurringRun, declared: Declared, *, experiment: str | None) -> list[str]:
    """Tell field by field what shall change, ``cron A → B``.

    Args:
        kept: the recurring run as it is.
        declared: as it shall be.
        experiment: the id of the declared experiment, None where it is not known.
    """
    found = list(_plain(kept, declared))
    if kept.version_id != declared.version.id:
        found.append(_moved(kept, declared.version))
    found += _parameters(normalised(dict(kept.parameters)), normalised(dict(declared.parameters)))
    if experiment is not None and kept.experiment_id != experiment:
        found.append(f"experiment {kept.experiment_id} → {declared.experiment}")
    if not found and digest_of(kept) != declared.digest:
        found.append("labels, experiment, or what is left to Kubeflow")
    return found


def _moved(kept: RecurringRun, version: Version) -> str:
    """Tell versions by their names, and by their ids where one was deleted and uploaded again under its name."""
    told = _VERSION.search(kept.description)
    if told and told[1] == version.name:
        return f"version {kept.version_id} → {version.id} of the same name"
    return f"version {told[1] if told else kept.version_id or 'the latest'} → {version.name}"


def _plain(kept: RecurringRun, declared: Declared) -> Iterator[str]:
    have: dict[str, Any] = {
        "cron": kept.trigger.cron,
        "every": kept.trigger.every,
        "start": kept.trigger.start,
        "end": kept.trigger.end,
        "enabled": kept.enabled,
        "catch-up": kept.catch_up,
        "max-concurrency": kept.max_concurrency,
        "service-account": kept.service_account,
        "pipeline-root": kept.pipeline_root,
    }
    for name, wanted in declared.fields().items():
        left_to_server = name in {"service-account", "pipeline-root"} and not wanted
        same = _moment(have[name]) == _moment(wanted) if name in {"start", "end"} else have[name] == wanted
        if not same and not left_to_server:
            yield f"{name} {_shown(have[name])} → {_shown(wanted)}" if name != "enabled" else SWITCHED[wanted]


def _parameters(have: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*have, *wanted}):
        if name not in have or name not in wanted or have[name] != wanted[name]:
            before, after = (json.dumps(side[name]) if name in side else "its default" for side in (have, wanted))
            yield f"parameter {name} {before} → {after}"


def _moment(text: str) -> float | None:
    """Return a time as one number: the server gives it back in UTC."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value else "none"
