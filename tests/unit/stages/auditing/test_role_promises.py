from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainshed.stages.auditing import statements
from trainshed.stages.auditing.promise import State
from trainshed.stages.auditing.roles import actions_wrong, audit, resources_wrong, trust_wrong
from trainshed.tools.iam import Iam, Policy, Role

ACCOUNT = "eu-west-1:123456789012"


def allowing(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource, **more}]}


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("*", "it allows *"),
        ("s3:*", "it allows s3:*"),
        ("S3:Get*", "it allows S3:Get*"),
        ("e?r:*", "it allows e?r:*"),
        (["s3:GetObject", "ecs:*", "iam:Pass*"], "it allows ecs:*, iam:Pass*"),
        (["s3:GetObject", "ecr:BatchGetImage"], ""),
        ("gamelift:*", ""),
    ],
)
def test_actions_of_what_we_use_are_to_be_named(action: Any, told: str) -> None:
    assert actions_wrong(allowing(action, "arn:aws:s3:::data/*")) == told


def test_allowing_all_but_some_names_nothing() -> None:
    document = {"Statement": {"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"}}
    assert actions_wrong(document) == "it allows all but iam:*"
    assert resources_wrong(document) == "it allows all but some on *"
    other = {"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "arn:aws:s3:::payroll/*"}}
    assert resources_wrong(other) == "it allows s3:GetObject on all but arn:aws:s3:::payroll/*"


def test_the_execution_role_that_the_documentation_shows_names_all_it_uses() -> None:
    page = Path(__file__).parents[4] / "docs/how-to/audit-the-platform.md"
    document = json.loads(page.read_text().partition("```json\n")[2].partition("```")[0])
    assert (actions_wrong(document), resources_wrong(document)) == ("", "")
    assert "secretsmanager:GetSecretValue" in str(document)


class _OfAws(Iam):
    """A role with the policy that AWS keeps for the execution of tasks."""

    def __init__(self) -> None:
        """Ask nobody."""

    def role(self, name: str) -> Role:
        return Role(name=name, arn=f"arn:aws:iam::123456789012:role/{name}", trust={})

    def inline(self, _role: Role) -> Iterator[Policy]:
        return iter(())

    def attached(self, _role: Role) -> Iterator[Policy]:
        name = "AmazonECSTaskExecutionRolePolicy"
        yield Policy(name=name, kind="attached", arn=f"arn:aws:iam::aws:policy/service-role/{name}")

    def document(self, _role: Role, _policy: Policy) -> dict[str, Any]:
        return allowing(["ecr:GetAuthorizationToken", "ecr:BatchGetImage", "logs:PutLogEvents"], "*")


def test_a_policy_that_aws_keeps_is_judged_alike_and_is_to_be_replaced() -> None:
    (broken,) = (promise for promise in audit(_OfAws(), "execution").promises if promise.state is State.BROKEN)
    assert broken.found == "it allows ecr:BatchGetImage, logs:PutLogEvents on *"
    assert broken.step.startswith("It is AWS's own, which nobody can narrow: attach one in its place")


def test_a_denial_is_no_permission() -> None:
    document = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    assert actions_wrong(document) == ""
    assert resources_wrong(document) == ""


@pytest.mark.parametrize(
    "resource",
    [
        "*",
        ["arn:aws:s3:::data", "*"],
        "arn:aws:s3:::*",
        "arn:aws:s3:::*/*",
        f"arn:aws:ecr:{ACCOUNT}:repository/*",
        f"arn:aws:secretsmanager:{ACCOUNT}:secret:*",
        f"arn:aws:ecs:{ACCOUNT}:service/*/*",
        f"arn:aws:logs:{ACCOUNT}:log-group:*:*",
        f"arn:aws:logs:{ACCOUNT}:log-group:*:log-stream:*",
        "arn:aws:*",
    ],
)
def test_a_resource_that_names_nothing_is_told(resource: Any) -> None:
    assert "it allows ecr:PutImage on " in resources_wrong(allowing("ecr:PutImage", resource))


@pytest.mark.parametrize(
    "resource",
    [
        "arn:aws:s3:::data/*",
        "arn:aws:s3:::data*",
        f"arn:aws:ecr:{ACCOUNT}:repository/team/*",
        f"arn:aws:secretsmanager:{ACCOUNT}:secret:token-??????",
        f"arn:aws:logs:{ACCOUNT}:log-group:/ecs/answer:*",
        f"arn:aws:logs:{ACCOUNT}:log-group:/ecs/answer:log-stream:*",
        "arn:aws:ecr:*:123456789012:repository/team/answer",
        [],
    ],
)
def test_a_resource_that_has_a_name_is_named(resource: Any) -> None:
    assert resources_wrong(allowing("ecr:PutImage", resource)) == ""


def test_everything_is_meant_only_where_aws_knows_no_single_resource() -> None:
    assert resources_wrong(allowing(["ecr:GetAuthorizationToken", "ec2:DescribeSubnets", "sts:GetCallerIdentity"], "*")) == ""
    told = resources_wrong(allowing(["ecr:GetAuthorizationToken", "ecr:BatchGetImage"], "*"))
    assert told == "it allows ecr:BatchGetImage on *"
    assert resources_wrong(allowing("ec2:*", "*")) == "it allows ec2:* on *", "a pattern is more than the questions that it covers"


@pytest.mark.parametrize(
    ("principal", "told"),
    [
        ("*", "it may be assumed by AWS: *"),
        ({"AWS": ["arn:aws:iam::123456789012:root", "*"]}, "it may be assumed by AWS: *"),
        ({"Service": "ecs-tasks.amazonaws.com"}, ""),
        ({"AWS": "123456789012"}, ""),
    ],
)
def test_a_trust_policy_names_who_may_assume(principal: Any, told: str) -> None:
    conditions = {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", "Condition": conditions}
    assert trust_wrong({"Statement": [statement]}) == told


def test_trusting_all_but_some_names_nobody() -> None:
    statement = {"Effect": "Allow", "NotPrincipal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
    assert trust_wrong({"Statement": statement}) == "it may be assumed by all but NotPrincipal"


def test_a_trust_policy_is_read_as_aws_reads_it() -> None:
    tasks = "ecs-tasks.amazonaws.com"

    def trusted(**change: Any) -> bool:
        statement = {"Effect": "Allow", "Principal": {"Service": [tasks, "x"]}, "Action": ["sts:AssumeRole"], **change}
        return statements.trusts({"Statement": statement}, tasks)

    assert trusted()
    assert trusted(Action="STS:assumerole")
    assert not trusted(Effect="Deny")
    assert not trusted(Action="sts:TagSession")
    assert not trusted(Principal={"Service": "ec2.amazonaws.com"})
    assert not trusted(Principal={"AWS": tasks})
