"""CloudWatch: the alarms that stop a deployment, and the log groups that tasks write to; read only."""

from __future__ import annotations

from collections.abc import Sequence

from trainshed.tools.aws import Aws

_KINDS = ("MetricAlarm", "CompositeAlarm")
_AT_ONCE = 100


class CloudWatch:
    """The alarms and log groups of one region."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def alarms(self, names: Sequence[str]) -> dict[str, str]:
        """Return the alarms that exist, each with its state: OK, ALARM or INSUFFICIENT_DATA."""
        found: dict[str, str] = {}
        for start in range(0, len(names), _AT_ONCE):
            asked = list(names[start : start + _AT_ONCE])
            for page in self.aws.pages("cloudwatch", "describe_alarms", AlarmNames=asked, AlarmTypes=list(_KINDS)):
                found |= {alarm["AlarmName"]: alarm["StateValue"] for kind in _KINDS for alarm in page.get(f"{kind}s", [])}
        return found

    def has_log_group(self, name: str) -> bool:
        """Tell whether there is a log group of exactly this name."""
        pages = self.aws.pages("logs", "describe_log_groups", logGroupNamePrefix=name)
        return any(group["logGroupName"] == name for page in pages for group in page.get("logGroups", []))
