"""Subnets and security groups (EC2): which of them exist, and in which VPC; read only."""

from __future__ import annotations

from collections.abc import Sequence

from trainshed.tools.aws import Aws


class Networks:
    """The networks of one region."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def subnets(self, identities: Sequence[str]) -> dict[str, str]:
        """Return the subnets that exist, each with its VPC."""
        return self._found("describe_subnets", "Subnets", "SubnetId", "subnet-id", identities)

    def security_groups(self, identities: Sequence[str]) -> dict[str, str]:
        """Return the security groups that exist, each with its VPC."""
        return self._found("describe_security_groups", "SecurityGroups", "GroupId", "group-id", identities)

    def _found(self, operation: str, group: str, key: str, filtered: str, identities: Sequence[str]) -> dict[str, str]:
        """Ask by a filter: by their ids, one that is missing would hide the others."""
        if not identities:
            return {}
        wanted = [{"Name": filtered, "Values": list(identities)}]
        pages = self.aws.pages("ec2", operation, Filters=wanted)
        return {found[key]: found.get("VpcId", "") for page in pages for found in page.get(group, [])}
