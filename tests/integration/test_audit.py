from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support import aws_door
from tests.support.aws_door import ACCOUNT, REGION, Door
from trainshed import cli, config
from trainshed.console import Console
from trainshed.errors import NothingSelected, UsageError
from trainshed.results import Report
from trainshed.settings import Tier
from trainshed.stages import audit as auditing
from trainshed.stages.context import Context
from trainshed.stages.registry import ensure

SETTINGS = f"""
[project]
name = "small"
[environments.prod]
registry = {{ url = "127.0.0.1:1/team", insecure = true, ecr = "{ACCOUNT}/{REGION}" }}
[environments.prod.kubeflow]
host = "https://kubeflow.example.org"
pipeline-root = "s3://artifacts/runs"
[environments.prod.prediction-service]
cluster = "serving"
[environments.prod.aws]
account = "{ACCOUNT}"
endpoint-url = "URL"
[environments.prod.audit]
buckets = ["patients"]
sensitive = ["patients"]
roles = ["build"]
"""
SERVICE = "name: answer\nport: 8080\nroles: {execution: execution, task: task}\n"
BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
TASKS = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
GOOD = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/*"}]}


def policy(document: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", **document})


class World:
    """A platform that keeps what it promises; tests break it."""

    def __init__(self, folder: Path, door: Door) -> None:
        self.folder, self.door, self.aws, self.settings = folder, door, door.aws, SETTINGS
        (folder / "components/answer").mkdir(parents=True)
        (folder / "components/answer/Dockerfile").write_text("FROM scratch\n")
        (folder / "components/answer/service.yaml").write_text(SERVICE)
        for bucket in ("artifacts", "patients"):
            self.bucket(bucket)
        self.lifecycle("patients")
        self.aws.call("s3control", "put_public_access_block", AccountId=ACCOUNT, PublicAccessBlockConfiguration=BLOCKED)
        for role in ("execution", "task", "build"):
            self.aws.call("iam", "create_role", RoleName=role, AssumeRolePolicyDocument=json.dumps(TASKS))
            self.inline(role, "own", GOOD)
        assert ensure.ensure(self.context()).exit_code == 0

    def bucket(self, name: str) -> None:
        arn = f"arn:aws:s3:::{name}"
        denial = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [arn, f"{arn}/*"]}
        condition = {"Bool": {"aws:SecureTransport": "false"}}
        self.aws.call("s3", "create_bucket", Bucket=name)
        self.encryption(name, "aws:kms", key=True)
        self.aws.call("s3", "put_bucket_policy", Bucket=name, Policy=json.dumps({"Statement": [denial | {"Condition": condition}]}))
        self.aws.call("s3", "put_public_access_block", Bucket=name, PublicAccessBlockConfiguration=BLOCKED)

    def encryption(self, bucket: str, algorithm: str, *, key: bool = False) -> None:
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}, "BucketKeyEnabled": key}
        self.aws.call("s3", "put_bucket_encryption", Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})

    def lifecycle(self, bucket: str, *, days: int = 30) -> None:
        moves = [{"Days": days, "StorageClass": "GLACIER"}]
        rules = {"Rules": [{"ID": "cold", "Status": "Enabled", "Filter": {"Prefix": ""}, "Transitions": moves}]}
        self.aws.call("s3", "put_bucket_lifecycle_configuration", Bucket=bucket, LifecycleConfiguration=rules)

    def inline(self, role: str, name: str, document: dict[str, Any]) -> None:
        self.aws.call("iam", "put_role_policy", RoleName=role, PolicyName=name, PolicyDocument=policy(document))

    def attached(self, role: str, name: str, *documents: dict[str, Any]) -> None:
        made = self.aws.call("iam", "create_policy", PolicyName=name, PolicyDocument=policy(documents[0]))["Policy"]["Arn"]
        for document in documents[1:]:
            self.aws.call("iam", "create_policy_version", PolicyArn=made, PolicyDocument=policy(document), SetAsDefault=True)
        self.aws.call("iam", "attach_role_policy", RoleName=role, PolicyArn=made)

    def context(self, environment: str = "prod") -> Context:
        (self.folder / "trainshed.toml").write_text(self.settings.replace("URL", self.door.url))
        loaded = config.load(self.folder / "trainshed.toml", environment=environment)
        context = Context(config=loaded, console=Console(io.StringIO(), root=self.folder), tier=Tier.LAPTOP)
        context.__dict__["aws"] = self.aws
        return context

    def audit(self) -> Report:
        return auditing.audit(self.context())

    def told(self) -> dict[str, str]:
        """Return what is not kept: ``bucket patients: TLS only`` → ``broken: …``."""
        found = {result.name: result.details["promises"] for result in self.audit().results}
        return {
            f"{name}: {one['promise']}": f"{one['state']}: {one['found']}"
            for name, promises in found.items()
            for one in promises
            if one["state"] != "kept"
        }


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch, aws_door.opened() as door:
        for name, value in aws_door.CREDENTIALS.items():
            patch.setenv(name, value)
        yield door


@pytest.fixture
def world(door: Door, tmp_path: Path) -> World:
    door.reset()
    made = World(tmp_path, door)
    door.asked.clear()
    return made


def test_a_platform_that_keeps_its_promises_is_green_and_was_only_asked(world: World) -> None:
    report = world.audit()
    assert world.told() == {}
    assert report.exit_code == 0
    assert report.extra["promises"] == {"kept": 25, "broken": 0, "not known": 0}
    assert [result.name for result in report.results] == [
        f"account {ACCOUNT}",
        "bucket artifacts",
        "bucket patients",
        "repository team/small/answer",
        "role execution",
        "role task",
        "role build",
    ]
    actions = {asked.what.split()[1] for asked in world.door.asked}
    assert actions
    assert {name for name in actions if not name.startswith(("Get", "GET", "HEAD", "List", "Describe"))} == set()


def test_each_broken_promise_of_a_bucket_is_told_and_hides_no_other(world: World) -> None:
    world.encryption("patients", "AES256")
    world.lifecycle("patients", days=60)
    world.aws.call("s3", "delete_bucket_policy", Bucket="patients")
    half = BLOCKED | {"BlockPublicPolicy": False}
    world.aws.call("s3", "put_public_access_block", Bucket="patients", PublicAccessBlockConfiguration=half)
    world.aws.call("s3control", "delete_public_access_block", AccountId=ACCOUNT)
    assert world.told() == {
        f"account {ACCOUNT}: public access blocked for the account": f"broken: off: {', '.join(BLOCKED)}",
        "bucket patients: encrypted with KMS": "broken: default encryption: AES256",
        "bucket patients: with a bucket key": "broken: the bucket key is off",
        "bucket patients: TLS only": "broken: there is no bucket policy: requests without TLS are served",
        "bucket patients: public access blocked": "broken: off: BlockPublicPolicy",
        "bucket patients: to Glacier after 30 days": "broken: no rule in force moves all of it to Glacier within 30 days (1 rules)",
    }
    assert world.audit().exit_code == 1


def test_a_bucket_without_any_setting_and_a_missing_one_are_told(world: World) -> None:
    world.aws.call("s3", "create_bucket", Bucket="bare-one")
    world.settings = SETTINGS.replace('buckets = ["patients"]', 'buckets = ["patients", "s3://bare-one", "arn:aws:s3:::absent-one"]')
    told = world.told()
    assert [name for name in told if name.startswith("bucket bare-one")] == [
        "bucket bare-one: encrypted with KMS",
        "bucket bare-one: with a bucket key",
        "bucket bare-one: TLS only",
        "bucket bare-one: public access blocked",
    ]
    assert told["bucket absent-one: exists"] == "broken: there is no bucket 'absent-one'"


def test_a_bucket_of_another_region_is_found_there(world: World) -> None:
    world.bucket("distant")
    world.settings = SETTINGS.replace('buckets = ["patients"]', 'buckets = ["patients", "distant"]')
    world.door.asked.clear()
    world.door.homes["distant"] = "eu-central-1"
    assert world.told() == {}
    regions = {asked.region for asked in world.door.asked if asked.path.strip("/") == "distant"}
    assert regions == {REGION, "eu-central-1"}


def test_what_may_not_be_asked_is_not_known_and_not_green(world: World) -> None:
    world.door.deny("s3 GET policy", "iam ListAttachedRolePolicies", "ecr GetLifecyclePolicy")
    told = world.told()
    assert set(told) == {
        "bucket artifacts: TLS only",
        "bucket patients: TLS only",
        "repository team/small/answer: lifecycle spares what somebody refers to",
        *(f"role {name}: its attached policies name actions and resources" for name in ("execution", "task", "build")),
    }
    assert all(text.startswith("not known: ") for text in told.values())
    assert "AccessDenied" in told["bucket patients: TLS only"]
    assert world.audit().exit_code == UsageError.exit_code


def test_nothing_may_be_asked_but_who_we_are(world: World) -> None:
    world.door.deny("s3", "iam", "ecr")
    states = {one["state"] for result in world.audit().results for one in result.details["promises"]}
    assert states == {"not known"}


def test_a_broken_promise_weighs_more_than_one_that_is_not_known(world: World) -> None:
    world.encryption("patients", "AES256")
    world.door.deny("s3 GET policy")
    assert world.audit().exit_code == 1


def test_aws_out_of_order_is_not_known_and_may_be_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    world.door.deny("s3 GET lifecycle", code="SlowDown")
    assert list(world.told()) == ["bucket patients: to Glacier after 30 days"]
    assert world.audit().exit_code == 5


def test_wildcards_of_roles_are_told_by_policy(world: World) -> None:
    world.inline("execution", "broad", {"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::artifacts/*"}})
    everything = {"Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "ecr:GetAuthorizationToken"], "Resource": "*"}]}
    world.attached("task", "mended", everything, GOOD)
    world.attached("task", "worsened", GOOD, everything)
    anyone = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    world.aws.call("iam", "update_assume_role_policy", RoleName="build", PolicyDocument=policy(anyone))
    assert world.told() == {
        "role execution: inline policy broad names its actions": "broken: it allows s3:*",
        "role task: attached policy worsened names its resources": "broken: it allows s3:GetObject on *",
        "role build: trust names who may assume it": "broken: it may be assumed by AWS: *",
    }


def test_policies_are_read_to_the_last_page(world: World) -> None:
    for number in range(3):
        world.attached("build", f"policy-{number}", GOOD)
    world.attached("build", "policy-9", {"Statement": {"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}})
    world.door.page_size = 1
    place = "role build: attached policy policy-9"
    assert set(world.told()) == {f"{place} names its actions", f"{place} names its resources"}
    pages = [asked for asked in world.door.asked if asked.what == "iam ListAttachedRolePolicies" and "RoleName=build" in asked.body]
    assert ["Marker=" in asked.body for asked in pages][:4] == [False, True, True, True]


def test_a_missing_role_and_a_service_that_cannot_be_read_hide_nobody(world: World) -> None:
    elsewhere = "arn:aws:iam::210987654321:role/build"
    world.settings = SETTINGS.replace('"build"', f'"absent", "arn:aws:iam::{ACCOUNT}:role/build", "{elsewhere}"')
    (world.folder / "components/answer/service.yaml").write_text("name: [")
    told = world.told()
    assert told["role absent: exists"] == "broken: there is no role 'absent'"
    assert told["role build: exists"] == f"broken: there is no role '{elsewhere}'"
    assert told["service answer: its roles name actions and resources"].startswith("not known: ")
    assert len(told) == 3


def test_the_role_that_the_environment_assumes_is_judged_too(world: World) -> None:
    world.aws.call("iam", "create_role", RoleName="deployer", AssumeRolePolicyDocument=json.dumps(TASKS))
    world.inline("deployer", "broad", {"Statement": {"Effect": "Allow", "Action": "ecs:*", "Resource": "arn:aws:ecs:*:*:service/x/y"}})
    account = f'account = "{ACCOUNT}"'
    world.settings = SETTINGS.replace(account, f'{account}\nrole = "arn:aws:iam::{ACCOUNT}:role/deployer"')
    assert world.told() == {"role deployer: inline policy broad names its actions": "broken: it allows ecs:*"}


def test_repositories_are_held_to_what_ensure_promises(world: World) -> None:
    name = "team/small/answer"
    world.aws.call("ecr", "put_image_tag_mutability", repositoryName=name, imageTagMutability="MUTABLE")
    world.aws.call("ecr", "put_image_scanning_configuration", repositoryName=name, imageScanningConfiguration={"scanOnPush": False})
    world.aws.call("ecr", "delete_lifecycle_policy", repositoryName=name)
    told = world.told()
    assert set(told) == {
        f"repository {name}: {what}"
        for what in ("scanned at every push", "tags cannot be moved", "lifecycle spares what somebody refers to")
    }
    world.aws.call("ecr", "delete_repository", repositoryName=name, force=True)
    assert world.told() == {f"repository {name}: exists": "broken: there is no such repository"}


def test_another_account_is_not_audited(world: World) -> None:
    world.settings = SETTINGS.replace(f'account = "{ACCOUNT}"', 'account = "210987654321"')
    with pytest.raises(UsageError, match=f"aws.account: expected 210987654321, but the credentials are of {ACCOUNT}"):
        world.audit()


def test_a_sensitive_bucket_that_is_not_audited_is_a_mistake(world: World) -> None:
    world.settings = SETTINGS.replace('sensitive = ["patients"]', 'sensitive = ["patient"]')
    with pytest.raises(UsageError, match="'patient' is no audited bucket; perhaps you meant 'patients'"):
        world.audit()


def test_the_embedded_environment_has_nothing_to_audit(world: World) -> None:
    with pytest.raises(NothingSelected, match="there is nothing to audit") as told:
        auditing.audit(world.context("local"))
    assert "--env" in told.value.next_step


def test_the_command_reports_table_json_and_junit(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.encryption("patients", "AES256")
    world.context()
    monkeypatch.chdir(world.folder)
    assert cli.main(["audit", "--env", "prod", "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["schema"] == "trainshed/audit/v1"
    assert document["promises"]["broken"] == 2
    assert "bucket patients" in said.err
    assert "default encryption: AES256" in said.err
    assert "Set the bucket's default encryption to SSE-KMS." in said.err
    suite = ET.parse(world.folder / "build/reports/junit.xml").getroot()  # noqa: S314 - our own
    cases = {(case.get("classname"), case.get("name")): case for case in suite.iter("testcase")}
    assert len(cases) == 25
    failed = cases["audit.bucket patients", "encrypted with KMS"].find("failure")
    assert failed is not None
    assert "default encryption: AES256" in (failed.text or "")
    assert cases["audit.bucket patients", "TLS only"].find("failure") is None
