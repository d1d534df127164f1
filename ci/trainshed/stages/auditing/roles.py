"""What is promised of roles: named principals, named actions, named resources. No wildcard on what the platform uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainshed.errors import RemoteError
from trainshed.stages.auditing import statements
from trainshed.stages.auditing.promise import Audited, Promise, asked, judged, unknown
from trainshed.tools.aws import Refused
from trainshed.tools.iam import Iam, Policy, Role, role_name

USED = (
    "application-autoscaling",
    "cloudwatch",
    "ec2",
    "ecr",
    "ecs",
    "elasticloadbalancing",
    "iam",
    "kms",
    "logs",
    "s3",
    "secretsmanager",
    "ssm",
    "sts",
)
"""The services of AWS that the platform uses, by their prefix in actions."""
WITHOUT_RESOURCE = (
    "application-autoscaling:describe*",
    "cloudwatch:getmetricdata",
    "cloudwatch:getmetricstatistics",
    "cloudwatch:listmetrics",
    "cloudwatch:putmetricdata",
    "ec2:describe*",
    "ecr:describepullthroughcacherules",
    "ecr:describeregistry",
    "ecr:getauthorizationtoken",
    "ecr:getregistryscanningconfiguration",
    "ecs:createcluster",
    "ecs:deregistertaskdefinition",
    "ecs:describetaskdefinition",
    "ecs:listaccountsettings",
    "ecs:listclusters",
    "ecs:listservices",
    "ecs:listtaskdefinitionfamilies",
    "ecs:listtaskdefinitions",
    "elasticloadbalancing:describe*",
    "iam:getaccountsummary",
    "iam:listpolicies",
    "iam:listroles",
    "kms:generaterandom",
    "kms:listaliases",
    "kms:listkeys",
    "logs:describeloggroups",
    "s3:getaccountpublicaccessblock",
    "s3:listallmybuckets",
    "secretsmanager:batchgetsecretvalue",
    "secretsmanager:getrandompassword",
    "secretsmanager:listsecrets",
    "ssm:describeparameters",
    "sts:getcalleridentity",
    "sts:getsessiontoken",
)
"""Actions that AWS knows for no single resource: with them alone ``Resource: *`` is no wildcard.
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html."""
_WILD = re.compile(r"[*?]")
_ONLY_WILD = re.compile(r"[*?:/]*")
_ARN_PARTS = 6

_TRUST = "Name who may assume it."
_ACTIONS = "Name the actions that are needed."
_RESOURCES = "Name the resources that are meant, by ARN."
_OF_AWS = "It is AWS's own, which nobody can narrow: attach one in its place that names them; see docs/how-to/audit-the-platform.md."
"""What to do about a policy such as ``AmazonECSTaskExecutionRolePolicy``."""


def audit(iam: Iam, name: str) -> Audited:
    """Judge one role with all of its policies, inline and attached."""
    return Audited(kind="role", name=role_name(name), promises=tuple(_promises(iam, name)))


def _promises(iam: Iam, name: str) -> Iterator[Promise]:
    try:
        role = iam.role(name)
    except (Refused, RemoteError) as error:
        yield unknown("exists", error)
        return
    if role is None:
        yield judged("exists", f"there is no role '{name}'", "Create it, or mend the configuration.")
        return
    yield judged("trust names who may assume it", trust_wrong(role.trust), _TRUST)
    for kind, listed in (("inline", iam.inline), ("attached", iam.attached)):
        policies, problem = _listed(listed, role, kind)
        for policy in policies:
            yield from _policy(iam, role, policy)
        if problem is not None:
            yield problem


def _listed(ask: Callable[[Role], Iterator[Policy]], role: Role, kind: str) -> tuple[list[Policy], Promise | None]:
    """Return the policies that were told, and why there may be others."""
    found: list[Policy] = []
    try:
        found.extend(ask(role))
    except (Refused, RemoteError) as error:
        return found, unknown(f"its {kind} policies name actions and resources", error)
    return found, None


def _policy(iam: Iam, role: Role, policy: Policy) -> Iterator[Promise]:
    place = f"{policy.kind} policy {policy.name}"
    try:
        document = iam.document(role, policy)
    except (Refused, RemoteError) as error:
        yield unknown(f"{place} names actions and resources", error)
        return
    yield asked(f"{place} names its actions", lambda: actions_wrong(document), _OF_AWS if policy.of_aws else _ACTIONS)
    yield asked(f"{place} names its resources", lambda: resources_wrong(document), _OF_AWS if policy.of_aws else _RESOURCES)


def trust_wrong(document: Mapping[str, Any]) -> str:
    """Say who may assume a role without being named."""
    found = []
    for statement in statements.of(document, statements.ALLOW):
        found += [f"{kind}: {value}" for kind, value in statements.principals(statement) if _ONLY_WILD.fullmatch(value)]
        found += ["all but NotPrincipal"] * ("NotPrincipal" in statement)
    return f"it may be assumed by {', '.join(dict.fromkeys(found))}" if found else ""


def actions_wrong(document: Mapping[str, Any]) -> str:
    """Say which actions of what we use are allowed without being named."""
    found = []
    for statement in statements.of(document, statements.ALLOW):
        found += [action for action in statements.texts(statement.get("Action")) if _WILD.search(action) and _used(action)]
        found += [f"all but {', '.join(statements.texts(statement['NotAction']))}"] if "NotAction" in statement else []
    return f"it allows {', '.join(dict.fromkeys(found))}" if found else ""


def resources_wrong(document: Mapping[str, Any]) -> str:
    """Say which actions of what we use are allowed for every resource, though AWS could tell them apart."""
    found = []
    for statement in statements.of(document, statements.ALLOW):
        wild = [resource for resource in statements.texts(statement.get("Resource")) if _everything(resource)]
        wild += [f"all but {', '.join(statements.texts(statement['NotResource']))}"] if "NotResource" in statement else []
        actions = ["all but some"] if "NotAction" in statement else [one for one in statements.texts(statement.get("Action")) if _tied(one)]
        found += [f"{', '.join(actions)} on {', '.join(wild)}"] if wild and actions else []
    return f"it allows {'; '.join(dict.fromkeys(found))}" if found else ""


def _used(action: str) -> bool:
    """Tell whether an action, or a pattern of them, is of a service that we use."""
    service = action.partition(":")[0]
    return any(statements.matches(service, one, case=False) for one in USED)


def _tied(action: str) -> bool:
    """Tell whether an action of what we use could be tied to resources."""
    return _used(action) and not any(statements.matches(one, action, case=False) for one in WITHOUT_RESOURCE)


def _everything(resource: str) -> bool:
    """Tell whether a resource names nothing: ``*``, ``arn:aws:s3:::*``, ``arn:aws:ecr:eu-west-1:123456789012:repository/*``."""
    parts = resource.split(":", _ARN_PARTS - 1)
    if len(parts) < _ARN_PARTS:
        return bool(_WILD.search(resource))
    name = re.sub(r"^[a-z-]+[:/]|:log-stream\b", "", parts[-1]) if ":s3:" not in resource else parts[-1]
    return _ONLY_WILD.fullmatch(name) is not None
