"""What is promised of a repository, whatever the form in which AWS gives it back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainshed.stages.registry import promises
from trainshed.stages.registry.promises import Wanted
from trainshed.tools.ecr_repositories import Repository
from trainshed.values import partition

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
ROLE = "arn:aws:iam::123456789012:role/build"
WANTED = Wanted(
    lifecycle=promises.lifecycle(30 * 86_400),
    policy=promises.policy(["210987654321"], [ROLE]),
    kms_key=KEY,
    tags={"project": "small", "component": "one"},
)
GOOD = Repository(
    name="team/small/one",
    arn="arn:aws:ecr:eu-west-1:123456789012:repository/team/small/one",
    scan_on_push=True,
    mutability="IMMUTABLE",
    encryption="KMS",
    kms_key=KEY,
    lifecycle=WANTED.lifecycle,
    policy=WANTED.policy,
    tags={**WANTED.tags, "owner": "somebody"},
)


def test_a_repository_that_keeps_every_promise_has_no_problem() -> None:
    assert promises.broken(GOOD, WANTED) == {}
    assert promises.broken(replace(GOOD, kms_key="arn:other"), replace(WANTED, kms_key="")) == {}


@pytest.mark.parametrize(
    ("changes", "aspect", "told"),
    [
        ({"scan_on_push": False}, "scan", "off"),
        ({"mutability": "IMMUTABLE_WITH_EXCLUSION"}, "immutable", "immutable with exclusion"),
        ({"mutability": "MUTABLE"}, "immutable", "mutable"),
        ({"encryption": "AES256", "kms_key": ""}, "encryption", "AES256"),
        ({"kms_key": "arn:other"}, "encryption", "arn:other"),
        ({"lifecycle": None}, "lifecycle", "none"),
        ({"lifecycle": {"rules": WANTED.lifecycle["rules"][1:]}}, "lifecycle", "4 rules of another kind"),
        ({"policy": None}, "policy", "adds"),
        ({"tags": {"project": "small"}}, "labels", "component=one"),
        ({"unread": ("policy",), "policy": None}, "policy", "may not be read"),
    ],
)
def test_each_broken_promise_is_told_alone(changes: dict[str, object], aspect: str, told: str) -> None:
    broken = promises.broken(replace(GOOD, **changes), WANTED)  # type: ignore[arg-type] # fields of the record
    assert list(broken) == [aspect]
    assert told in broken[aspect]


def test_policies_are_compared_by_what_they_say() -> None:
    pull, push = promises.policy(["210987654321"], [ROLE])["Statement"]  # type: ignore[index] # there is one
    rewritten = {
        "Version": "2008-10-17",
        "Statement": [
            {**push, "Sid": "other", "Principal": {"AWS": ROLE}, "Action": [action.upper() for action in reversed(push["Action"])]},
            {**pull, "Principal": {"AWS": ["210987654321"]}},
        ],
    }
    assert promises.statements(rewritten) == promises.statements(WANTED.policy)
    anybody = {"Version": "2012-10-17", "Statement": {**pull, "Principal": "*"}}
    assert promises.statements(anybody) != promises.statements({"Statement": [pull]})
    conditional = {"Statement": [{**pull, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}, push]}
    assert promises.statements(conditional) != promises.statements(WANTED.policy)


def test_a_policy_names_exact_actions_and_nobody_else() -> None:
    policy = promises.policy([ROLE, "210987654321"], [ROLE], part="aws-cn")
    assert policy is not None
    pull, push = policy["Statement"]
    assert pull["Principal"] == {"AWS": ["arn:aws-cn:iam::210987654321:root"]}
    assert pull["Action"] == ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    assert {"ecr:PutImage", "ecr:DescribeImageScanFindings", "ecr:StartImageScan"} < set(push["Action"]), "who pushes scans as well"
    assert push["Principal"] == {"AWS": [ROLE]}
    assert not [action for action in pull["Action"] + push["Action"] if "*" in action or "Delete" in action]
    assert promises.policy([], []) is None
    assert [partition(region) for region in ("eu-west-1", "cn-north-1", "us-gov-east-1")] == ["aws", "aws-cn", "aws-us-gov"]


def test_what_is_kept_comes_before_all_that_expires() -> None:
    first, *others = promises.lifecycle(86_400 * 7)["rules"]
    assert first["rulePriority"] == 1
    assert first["selection"]["tagPatternList"] == ["keep-*"]
    assert first["selection"]["countNumber"] > 10_000
    assert {rule["selection"]["countNumber"] for rule in others} == {7}
    assert all(len(rule["selection"].get("tagPatternList", ["one"])) == 1 for rule in others), "a list asks for all of its patterns"
    assert promises.lifecycle(60)["rules"][1]["selection"]["countNumber"] == 1
    assert promises.keep_tag("sha256:" + "a" * 64) == "keep-" + "a" * 64
