from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import aws_door
from tests.support.aws_door import ACCOUNT, REGION, Door
from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, UsageError
from trainshed.pipelines.lock import LockedImage
from trainshed.services import spec
from trainshed.services.rendering import Model
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.deploying.verification import Verified, verify
from trainshed.tools.ecs import Ecs

DIGEST = "sha256:" + "7" * 64
PRODUCTION = f"""
[project]
name = "small"
[environments.prod]
registry = {{ url = "registry.example.org/team" }}
[environments.prod.prediction-service]
cluster = "serving"
[environments.prod.aws]
account = "{ACCOUNT}"
endpoint-url = "URL"
"""
TRUST = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}}
FAULTY = """name: answer
port: 8080
cpu: 256
memory: 100
roles:
  execution: execution
health: {path: /healthz}
secrets:
  TOKEN: absent
logs: {group: /none}
environments:
  prod:
    network: {subnets: [subnet-0aaa], public-ip: true}
    health: {path: /ready, interval: 301s}
"""
SECRET = "not-to-be-seen-anywhere"  # noqa: S105 - a test's


class Images:
    """A registry with one image."""

    def __init__(self) -> None:
        self.digests = {f"registry.example.org/team/small/answer@{DIGEST}": DIGEST}
        self.document: dict[str, Any] = {"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]}

    def digest(self, reference: str) -> str | None:
        return self.digests.get(reference)

    def manifest(self, _reference: str) -> tuple[bytes, str]:
        return json.dumps(self.document).encode(), "application/vnd.oci.image.index.v1+json"

    def config(self, _reference: str) -> bytes:
        return b'{"os": "linux", "architecture": "arm64"}'


class World:
    """A cluster with all that a service needs; tests take things away."""

    settings = PRODUCTION

    def __init__(self, folder: Path, door: Door) -> None:
        self.folder, self.door, self.aws, self.images = folder, door, door.aws, Images()
        self.aws.call("ecs", "create_cluster", clusterName="serving")
        self.vpc, self.subnet, self.group = self.network("10.1.0.0/16")
        self.role("execution", TRUST | {"Statement": {**TRUST["Statement"], "Action": "sts:AssumeRole"}})  # type: ignore[dict-item]
        self.aws.call("logs", "create_log_group", logGroupName="/ecs/answer")
        self.aws.call("logs", "create_log_group", logGroupName="/ecs/answer-of-others")
        self.secret = self.aws.call("secretsmanager", "create_secret", Name="token", SecretString=json.dumps({"key": SECRET}))["ARN"]
        self.aws.call("ssm", "put_parameter", Name="/answer/mode", Value=SECRET, Type="SecureString")
        self.target = self.target_group("answer", self.vpc)
        self.balancer = self.listened(self.target)
        self.alarm("errors", "OK")
        self.strange_things()

    def strange_things(self) -> None:
        """Make what no service should name."""
        self.role("strange", {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
        self.aws.call("secretsmanager", "create_secret", Name="plain", SecretString=SECRET)
        self.alarm("ringing", "ALARM")

    def network(self, block: str) -> tuple[str, str, str]:
        vpc = self.aws.call("ec2", "create_vpc", CidrBlock=block)["Vpc"]["VpcId"]
        subnet = self.aws.call("ec2", "create_subnet", VpcId=vpc, CidrBlock=block.replace("/16", "/24"))["Subnet"]["SubnetId"]
        group = self.aws.call("ec2", "create_security_group", VpcId=vpc, GroupName="tasks", Description="tasks")["GroupId"]
        return vpc, subnet, group

    def role(self, name: str, trust: dict[str, Any]) -> None:
        self.aws.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))

    def target_group(self, name: str, vpc: str, **more: Any) -> str:
        given = {"Protocol": "HTTP", "Port": 8080, "TargetType": "ip", "HealthCheckPath": "/healthz", **more}
        return str(self.aws.call("elbv2", "create_target_group", Name=name, VpcId=vpc, **given)["TargetGroups"][0]["TargetGroupArn"])

    def listened(self, target: str) -> str:
        made = self.aws.call("elbv2", "create_load_balancer", Name=target.split("/")[1], Subnets=[self.subnet])["LoadBalancers"][0]
        actions = [{"Type": "forward", "TargetGroupArn": target}]
        self.aws.call("elbv2", "create_listener", LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=actions)
        return str(made["LoadBalancerArn"])

    def alarm(self, name: str, state: str) -> None:
        rule = {"MetricName": "5xx", "Namespace": "AWS/ELB", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0, "Statistic": "Sum"}
        self.aws.call("cloudwatch", "put_metric_alarm", AlarmName=name, ComparisonOperator="GreaterThanThreshold", **rule)
        self.aws.call("cloudwatch", "set_alarm_state", AlarmName=name, StateValue=state, StateReason="the test says so")

    def service(self, **changed: Any) -> spec.Service:
        wanted: dict[str, Any] = {
            "file": self.folder / "service.yaml",
            "name": "answer",
            "port": 8080,
            "environment": {},
            "secrets": {"TOKEN": "token#key", "MODE": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/answer/mode"},
            "execution_role": "execution",
            "subnets": (self.subnet,),
            "security_groups": (self.group,),
            "target_group": self.target,
            "log_group": "/ecs/answer",
            "deployment": spec.Deployment(alarms=("errors",)),
        }
        return spec.Service(**(wanted | changed))

    def context(self) -> Context:
        (self.folder / "trainshed.toml").write_text(self.settings.replace("URL", self.door.url))
        loaded = config.load(self.folder / "trainshed.toml", environment="prod")
        context = Context(config=loaded, console=Console(io.StringIO(), root=self.folder), tier=Tier.LAPTOP)
        context.__dict__ |= {"registry": self.images, "aws": self.door.aws}
        return context

    def verify(self, *, model: Model | None = None, image: str = DIGEST, **changed: Any) -> Verified:
        reference = f"registry.example.org/team/small/answer@{image}"
        locked = LockedImage(reference=reference, digest=image, input_digest=image)
        return verify(self.context(), self.service(**changed), locked, model=model)

    def problems(self, **changed: Any) -> list[str]:
        with pytest.raises(UsageError) as told:
            self.verify(**changed)
        assert told.value.next_step
        return told.value.message.splitlines()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, aws_door.opened() as door:
        for name, value in aws_door.CREDENTIALS.items():
            patch.setenv(name, value)
        yield World(tmp_path_factory.mktemp("world"), door)


@pytest.fixture
def world(made: World) -> World:
    made.images = Images()
    made.door.open()
    return made


def test_a_service_that_has_all_it_needs_is_verified_as_its_execution_role(world: World) -> None:
    found = world.verify()
    assert found.notes == ()
    assert found.secrets == {"TOKEN": f"{world.secret}:key::", "MODE": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/answer/mode"}
    read = {asked.what: asked.assumed for asked in world.door.asked}
    assert read["secretsmanager GetSecretValue"]
    assert read["ssm GetParameter"]
    assert not read["iam GetRole"]


def test_verification_only_looks(world: World) -> None:
    world.verify()
    actions = [asked.what.split()[1] for asked in world.door.asked]
    assert actions
    assert [name for name in actions if not name.startswith(("Get", "List", "Describe", "AssumeRole"))] == []


def test_a_secret_is_named_in_each_of_the_ways_that_ecs_knows(world: World) -> None:
    found = world.verify(secrets={"WHOLE": "token", "ARN": world.secret, "NATIVE": f"{world.secret}:key:AWSCURRENT:"})
    assert found.secrets == {"WHOLE": world.secret, "ARN": world.secret, "NATIVE": f"{world.secret}:key:AWSCURRENT:"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"execution_role": "nobody"}, "roles.execution: there is no role 'nobody'"),
        ({"task_role": "nobody"}, "roles.task: there is no role 'nobody'"),
        ({"task_role": "arn:aws:iam::210987654321:role/execution"}, "there is no role 'arn:aws:iam::210987654321:role/execution'"),
        ({"task_role": "strange"}, "roles.task: role 'strange' does not trust ecs-tasks.amazonaws.com"),
        ({"image": "sha256:" + "8" * 64}, "is not in the registry. Run `trainshed images` again."),
        ({"architecture": "arm64"}, "architecture: linux/arm64 is asked for, and"),
        ({"secrets": {"TOKEN": "absent#key"}}, "secrets.TOKEN: there is no secret 'absent#key'"),
        ({"secrets": {"TOKEN": "token#other"}}, "secrets.TOKEN: secret 'token' has no JSON key 'other'"),
        ({"secrets": {"TOKEN": "plain#key"}}, "secrets.TOKEN: secret 'plain' is no JSON object"),
        ({"secrets": {"MODE": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/none"}}, "secrets.MODE: there is no parameter"),
        ({"log_group": "/ecs/answe"}, "logs.group: there is no log group '/ecs/answe'"),
        ({"subnets": ("subnet-0aaa",)}, "network.subnets: there is no subnet subnet-0aaa"),
        ({"security_groups": ("sg-0aaa",)}, "network.security-groups: there is no security group sg-0aaa"),
        ({"deployment": spec.Deployment(alarms=("errors", "none"))}, "deployment.alarms: 1 alarm missing: none"),
        ({"memory": 100}, "memory: Fargate has no size of cpu 256 with memory 100"),
        ({"golden": Path("golden.json")}, "load-balancer.address: is missing"),
        ({"target_group": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/x/73e2d6bc24d8a067"}, "there is no target group"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_problem_is_told_with_its_key(world: World, changed: dict[str, Any], told: str) -> None:
    lines = world.problems(**changed)
    assert len(lines) == 1, lines
    assert told in lines[0]
    assert SECRET not in lines[0]


def test_networks_that_do_not_fit_together_are_told(world: World) -> None:
    vpc, subnet, group = world.network("10.2.0.0/16")
    (line,) = world.problems(security_groups=(group,))
    assert f"network.security-groups: {group} is of {vpc}, and the subnets are in {world.vpc}" in line
    (line,) = world.problems(subnets=(world.subnet, subnet))
    assert "they lie in several networks" in line
    (line,) = world.problems(target_group=world.target_group("distant", vpc))[:1]
    assert f"load-balancer.target-group: it is of {vpc}" in line


def test_a_target_group_that_cannot_take_the_tasks_is_told(world: World) -> None:
    other = world.target_group("machines", world.vpc, TargetType="instance", HealthCheckPort="9000")
    lines = world.problems(target_group=other)
    assert [line.partition("target-group: ")[2].partition(",")[0].partition(";")[0] for line in lines] == [
        "its targets are of type 'instance'",
        "no load balancer sends it requests",
        "its health check asks port 9000",
    ]


def test_a_target_group_behind_another_load_balancer_is_told(world: World) -> None:
    other = world.listened(world.target_group("other", world.vpc))
    (line,) = world.problems(balancer=other)
    assert f"load-balancer.target-group: it is not behind load-balancer.arn, but behind {world.balancer}" in line


def test_each_problem_has_its_line_in_the_file_or_in_the_overlay(world: World) -> None:
    (world.folder / "service.yaml").write_text(FAULTY)
    service = spec.load(world.folder / "service.yaml", environment="prod")
    reference = f"registry.example.org/team/small/answer@{DIGEST}"
    with pytest.raises(UsageError) as caught:
        verify(world.context(), service, LockedImage(reference=reference, digest=DIGEST, input_digest=DIGEST), model=None)
    told = [line.removeprefix(f"{world.folder}/service.yaml:") for line in caught.value.message.splitlines()]
    assert [line.split(": ")[:2] for line in told] == [
        ["4", "memory"],
        ["14", "environments.prod"],
        ["9", "secrets.TOKEN"],
        ["10", "logs.group"],
        ["13", "environments.prod"],
    ]


def test_another_port_or_path_of_the_target_group_is_a_note(world: World) -> None:
    target = world.target_group("odd", world.vpc, Port=80, HealthCheckPath="/")
    world.listened(target)
    port, path = world.verify(target_group=target).notes
    assert "its own port" not in port
    assert "own port is 80; ECS registers tasks with 8080" in port
    assert "asks / for health" in path


def test_all_problems_are_told_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "settings", PRODUCTION.replace(ACCOUNT, "210987654321").replace('"serving"', '"none"'))
    lines = world.problems(
        execution_role="nobody",
        secrets={"TOKEN": "absent", "OTHER": "token#none"},
        log_group="none",
        subnets=("subnet-0aaa",),
        security_groups=("sg-0aaa",),
        target_group=world.target_group("lone", world.vpc),
        deployment=spec.Deployment(alarms=("none",)),
        image="sha256:" + "8" * 64,
    )
    assert len(lines) == 11, lines
    assert f"environments.prod.aws.account: expected 210987654321, but the credentials are of {ACCOUNT}" in lines[0]
    assert "environments.prod.prediction-service.cluster: no active ECS cluster 'none'" in lines[1]


def test_an_execution_role_that_may_not_be_assumed_is_a_note(world: World) -> None:
    world.door.deny("sts AssumeRole")
    found = world.verify()
    assert set(found.secrets) == {"TOKEN", "MODE"}
    (note,) = found.notes
    assert "roles.execution may not be assumed (AccessDenied)" in note
    assert not any(asked.assumed for asked in world.door.asked)


def test_an_execution_role_that_may_not_read_a_secret_is_a_problem(world: World) -> None:
    world.door.deny("secretsmanager GetSecretValue", code="AccessDeniedException", assumed=True)
    (line,) = world.problems()
    assert "secrets.TOKEN: the execution role may not read 'token#key'" in line


def test_what_nobody_lets_us_ask_is_a_note_each(world: World) -> None:
    denied = ("iam ", "ec2 ", "logs ", "monitoring ", "elasticloadbalancing ", "ecs ", "sts AssumeRole", "secretsmanager Get", "ssm ")
    world.door.deny(*denied)
    arn = f"arn:aws:iam::{ACCOUNT}:role/execution"
    found = world.verify(execution_role=arn, secrets={"TOKEN": "token#key"})
    assert found.secrets == {"TOKEN": f"{world.secret}:key::"}
    noted = " ".join(found.notes)
    for key in (
        "roles.execution",
        "network.subnets",
        "network.security-groups",
        "logs.group",
        "load-balancer.target-group",
        "deployment.alarms",
        "prediction-service.cluster",
        "secrets.TOKEN",
    ):
        assert f"answer: {key}" in noted


def test_a_secret_that_may_neither_be_read_nor_looked_up_is_a_problem(world: World) -> None:
    world.door.deny("sts AssumeRole", "secretsmanager ")
    (line,) = world.problems(secrets={"TOKEN": "token#key"})
    assert "may neither be read nor looked up" in line
    given = world.verify(secrets={"TOKEN": f"{world.secret}#key"})
    assert given.secrets == {"TOKEN": f"{world.secret}:key::"}


def test_wrong_credentials_end_it_at_once(world: World) -> None:
    world.door.deny("sts ", code="InvalidClientTokenId")
    with pytest.raises(UsageError, match="get_caller_identity was refused: InvalidClientTokenId"):
        world.verify()


def test_aws_out_of_order_is_no_problem_of_the_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.001)
    world.door.deny("logs ", code="ThrottlingException")
    with pytest.raises(RemoteError, match="ThrottlingException"):
        world.verify()
    assert "ThrottlingException" in "".join(world.problems(task_role="nobody")), "what is wrong is told beside it"


def test_an_alarm_that_rings_already_stands_in_the_way_of_neither_a_mend_nor_a_rollback(world: World) -> None:
    (note,) = world.verify(deployment=spec.Deployment(alarms=("errors", "ringing"))).notes
    assert note == "answer: deployment.alarms: in state ALARM already: ringing; ECS heeds no alarm during this deployment"


def test_a_single_image_is_held_to_the_architecture_too(world: World) -> None:
    world.images.document = {"config": {"digest": DIGEST}}
    (line,) = world.problems()
    assert "architecture: linux/amd64 is asked for" in line
    assert "is for linux/arm64" in line


def test_a_model_in_s3_without_a_task_role_is_a_note(world: World) -> None:
    (note,) = world.verify(model=Model(uri="s3://models/a", run_id="r")).notes
    assert "roles.task is not set" in note


def test_the_execution_role_must_be_able_to_pull(world: World) -> None:
    context = world.context()
    context.__dict__["ecr"] = SimpleNamespace(aws=world.aws, account=ACCOUNT)
    world.door.deny("ecr BatchGetImage", code="AccessDeniedException", assumed=True)
    reference = f"registry.example.org/team/small/answer@{DIGEST}"
    locked = LockedImage(reference=reference, digest=DIGEST, input_digest=DIGEST)
    with pytest.raises(UsageError, match=r"roles\.execution: it may not pull"):
        verify(context, world.service(), locked, model=None)
    with pytest.raises(UsageError, match=r"roles\.execution: is needed to pull from ECR"):
        verify(context, world.service(execution_role="", secrets={}, log_group=""), locked, model=None)


def test_the_embedded_service_is_asked_for_what_it_has(world: World) -> None:
    context = world.context()
    context.__dict__["prediction"] = Ecs(world.aws, cluster="serving", embedded=world.door.url)
    locked = LockedImage(reference=f"registry.example.org/team/small/answer@{DIGEST}", digest=DIGEST, input_digest=DIGEST)
    found = verify(context, world.service(memory=33, subnets=(), secrets={"TOKEN": "token#key"}), locked, model=None)
    assert found.secrets == {"TOKEN": f"{world.secret}:key::"}
    assert {asked.what.split()[0] for asked in world.door.asked} == {"ecs", "secretsmanager"}
    with pytest.raises(UsageError, match="there is no secret 'none'"):
        verify(context, world.service(secrets={"TOKEN": "none"}), locked, model=None)
