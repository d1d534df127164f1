"""Recurring runs: created, enabled, disabled, deleted; there is no way to change one, and two may have one name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.support.kubeflow_server import listing
from tests.support.kubeflow_server.records import INTERNAL, INVALID, Document, Record, Refused, State, fits, shown, timestamp
from tests.support.kubeflow_server.runs import Runs, check_parameters

_FIELD = re.compile(r"[0-9*/,?\-LW#A-Za-z]+")
_FIELDS = {
    *("recurring_run_id", "display_name", "description", "pipeline_version_id", "pipeline_spec", "pipeline_version_reference"),
    *("runtime_config", "service_account", "max_concurrency", "trigger", "mode", "created_at", "updated_at", "status", "error"),
    *("no_catchup", "namespace", "experiment_id", "plugins_input"),
}
_ENABLED = {"ENABLE": True, "DISABLE": False, "MODE_UNSPECIFIED": False, "": False}


class Schedules:
    """The service of recurring runs."""

    def __init__(self, state: State, runs: Runs) -> None:
        self.state, self._runs = state, runs

    def create(self, body: Document) -> Document:
        """Create a recurring run."""
        unknown = sorted(set(body) - _FIELDS)
        if unknown or body.get("mode", "") not in _ENABLED:
            raise Refused(
                INVALID, f'proto: (line 1:1): unknown field "{unknown[0]}"' if unknown else "proto: invalid value for enum field mode"
            )
        if not body.get("display_name"):
            raise Refused(INTERNAL, "Failed to convert a API recurring run: Recurring run's name cannot be empty")
        most = _int64(body.get("max_concurrency"))
        if not 1 <= most <= 10:
            raise Refused(INVALID, f"Max concurrency of a recurring run must be at least 1 and at most 10. Received {most}")
        trigger = _trigger(body.get("trigger") or {})
        experiment = self._runs.experiment_of(body)
        namespace = self.state.namespace(body.get("namespace") or "")
        if namespace and namespace != experiment.namespace:
            raise Refused(INVALID, f"Experiment {experiment.id} belongs to namespace '{experiment.namespace}' instead of '{namespace}'")
        reference, specification = self._runs.source(body, "recurring run")
        config = body.get("runtime_config") or {}
        check_parameters(specification, config.get("parameters") or {})
        fits(body)
        document = {
            "display_name": body["display_name"],
            "description": body.get("description") or "",
            "experiment_id": experiment.id,
            "service_account": body.get("service_account") or "pipeline-runner",
            "max_concurrency": str(most),
            "no_catchup": bool(body.get("no_catchup")),
            "trigger": trigger,
            "runtime_config": shown(config),
            "enabled": _ENABLED[body.get("mode", "")],
            **({"pipeline_version_reference": reference} if reference else {"pipeline_spec": body["pipeline_spec"]}),
        }
        row = self.state.add(
            self.state.schedules, body["display_name"], parent=experiment.id, namespace=experiment.namespace, document=document
        )
        return self.schedule_shown(row)

    def get(self, identifier: str) -> Document:
        """Return a recurring run."""
        return self.schedule_shown(self._need(identifier))

    def listed(self, query: Mapping[str, str]) -> Document:
        """List the recurring runs of an experiment, or of a namespace."""
        experiment, namespace = query.get("experiment_id", ""), self.state.namespace(query.get("namespace", ""))
        if experiment:
            self.state.need(self.state.experiments, "Experiment", experiment)
        elif self.state.multi_user and not namespace:
            raise Refused(INVALID, "A recurring run cannot have an empty namespace in multi-user mode")
        rows = [row for row in self.state.schedules.all(experiment or None) if experiment or row.namespace == namespace]
        return listing.page("recurringRuns", rows, query, self.schedule_shown)

    def enable(self, identifier: str, *, enabled: bool) -> Document:
        """Let a recurring run start runs, or no more."""
        row = self._need(identifier)
        row.document |= {"enabled": enabled, "updated": self.state.clock.now()}
        return {}

    def delete(self, identifier: str) -> Document:
        """Delete a recurring run."""
        self.state.schedules.remove(self._need(identifier))
        return {}

    def _need(self, identifier: str) -> Record:
        return self.state.need(self.state.schedules, "Job", identifier)

    def schedule_shown(self, row: Record) -> Document:
        """Return a recurring run's document."""
        told = {key: value for key, value in row.document.items() if key not in {"enabled", "updated"}}
        enabled = row.document["enabled"]
        told |= {"recurring_run_id": row.id, "created_at": timestamp(row.created), "namespace": row.namespace}
        told |= {"updated_at": timestamp(row.document.get("updated", row.created))}
        told |= {"mode": "ENABLE" if enabled else "DISABLE", "status": "ENABLED" if enabled else "DISABLED"}
        return shown(told)


def _int64(value: Any) -> int:
    """Read a number as proto JSON has it: as a text, or as itself."""
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        raise Refused(INVALID, f"proto: invalid value for int64 type: {value!r}") from None


def _trigger(given: Mapping[str, Any]) -> Document:
    if len(given) > 1 or set(given) - {"cron_schedule", "periodic_schedule"}:
        raise Refused(INVALID, "proto: error parsing trigger, oneof trigger is already set")
    cron, periodic = given.get("cron_schedule"), given.get("periodic_schedule")
    if cron is not None:
        words = str(cron.get("cron", "")).split()
        if not (len(words) in {5, 6} and all(map(_FIELD.fullmatch, words))) and not (len(words) == 1 and words[0].startswith("@")):
            raise Refused(INVALID, f"Schedule cron is not a supported format. Error: Expected 5 or 6 fields, found {len(words)}")
        return {"cron_schedule": shown(cron)}
    if periodic is not None:
        seconds = _int64(periodic.get("interval_second"))
        if seconds < 1:
            raise Refused(INVALID, f"Found invalid period schedule interval {seconds}. Set at interval to least 1 second")
        return {"periodic_schedule": shown({**periodic, "interval_second": str(seconds)})}
    return {}
