"""IAM: what roles may do, and who may assume them; read only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from trainshed.tools.aws import Aws

_MISSING = "NoSuchEntity"


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role. ``trust`` is the policy document that says who may assume it."""

    name: str
    arn: str
    trust: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy of a role. ``kind`` is ``inline`` or ``attached``; ``arn`` is empty for an inline one."""

    name: str
    kind: str
    arn: str = ""

    @property
    def of_aws(self) -> bool:
        """Tell whether AWS itself keeps the policy, for all accounts."""
        return ":iam::aws:policy/" in self.arn


class Iam:
    """The roles of an account, which are the same in all of its regions."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def role(self, name: str) -> Role | None:
        """Return a role by its name or ARN, None when there is none; one that only has the name of an ARN is another role."""
        answer = self.aws.find("iam", "get_role", _MISSING, RoleName=role_name(name))
        if answer is None or (name.startswith("arn:") and answer["Role"]["Arn"] != name):
            return None
        role = answer["Role"]
        return Role(name=role["RoleName"], arn=role["Arn"], trust=_document(role.get("AssumeRolePolicyDocument")))

    def inline(self, role: Role) -> Iterator[Policy]:
        """Return the policies that are part of a role."""
        for page in self.aws.pages("iam", "list_role_policies", RoleName=role.name):
            yield from (Policy(name=name, kind="inline") for name in page["PolicyNames"])

    def attached(self, role: Role) -> Iterator[Policy]:
        """Return the policies, AWS's own or the account's, that are attached to a role."""
        for page in self.aws.pages("iam", "list_attached_role_policies", RoleName=role.name):
            yield from (Policy(name=one["PolicyName"], kind="attached", arn=one["PolicyArn"]) for one in page["AttachedPolicies"])

    def document(self, role: Role, policy: Policy) -> Mapping[str, Any]:
        """Return the document of a policy: of an attached one the version in force."""
        if policy.kind == "inline":
            answer = self.aws.call("iam", "get_role_policy", RoleName=role.name, PolicyName=policy.name)
            return _document(answer["PolicyDocument"])
        version = self.aws.call("iam", "get_policy", PolicyArn=policy.arn)["Policy"]["DefaultVersionId"]
        answer = self.aws.call("iam", "get_policy_version", PolicyArn=policy.arn, VersionId=version)
        return _document(answer["PolicyVersion"]["Document"])


def role_name(name: str) -> str:
    """Return the name of a role of its ARN, whose path is not part of it."""
    return name.rpartition("/")[2] if name.startswith("arn:") else name


def _document(given: object) -> Mapping[str, Any]:
    """Read a document, which botocore has read already unless it came without its quoting."""
    found = json.loads(unquote(given)) if isinstance(given, str) else given
    return found if isinstance(found, Mapping) else {}
