"""Load balancers: the target group that a service is put behind; read only."""

from __future__ import annotations

from dataclasses import dataclass

from trainshed.tools.aws import Aws


@dataclass(frozen=True, kw_only=True)
class TargetGroup:
    """A target group. ``balancers`` are the ARNs of the load balancers that send requests to it.

    ``health_port`` is ``traffic-port`` for whichever port a target has; ``health_path`` is empty where the check is not HTTP.
    """

    arn: str
    target_type: str
    port: int
    vpc: str
    health_port: str
    health_path: str
    balancers: tuple[str, ...]


class Balancers:
    """The load balancers of one region."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def target_group(self, arn: str) -> TargetGroup | None:
        """Return a target group, None when there is none."""
        answer = self.aws.find("elbv2", "describe_target_groups", "TargetGroupNotFound", TargetGroupArns=[arn])
        found = (answer or {}).get("TargetGroups", [])
        if not found:
            return None
        one = found[0]
        return TargetGroup(
            arn=one["TargetGroupArn"],
            target_type=one.get("TargetType", ""),
            port=one.get("Port", 0),
            vpc=one.get("VpcId", ""),
            health_port=one.get("HealthCheckPort", "traffic-port"),
            health_path=one.get("HealthCheckPath", ""),
            balancers=tuple(one.get("LoadBalancerArns", ())),
        )
