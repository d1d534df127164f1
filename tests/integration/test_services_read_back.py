"""What is asked of ECS is shown by it again without a difference: by moto, and by the embedded Prediction Service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import prediction
from trainshed.services import difference, rendering
from trainshed.services.rendering import Model
from trainshed.services.spec import Autoscaling, Deployment, Service
from trainshed.services.unit import unit_of
from trainshed.stages.deploying import scaling
from trainshed.tools.aws import Aws
from trainshed.tools.ecs import Ecs

IMAGE = f"registry/answer@sha256:{'1' * 64}"
ARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012"
GROUP = f"{ARN}:targetgroup/answer/73e2d6bc24d8a067"
BALANCER = f"{ARN}:loadbalancer/app/all/50dc6c495c0c9188"


@pytest.fixture(scope="module")
def aws(moto: str) -> Iterator[Aws]:
    """Return AWS as moto answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield Aws(region="us-east-1", endpoints={"*": moto})


def service(**changed: Any) -> Service:
    full = {
        "file": Path("service.yaml"),
        "name": "answer",
        "port": 8080,
        "count": 0,
        "architecture": "arm64",
        "ephemeral_storage": 40,
        "stop_timeout": 60,
        "environment": {"B": "2", "A": ""},
        "secrets": {},
        "execution_role": "run",
        "task_role": "work",
        "log_group": "/logs",
        "subnets": ("subnet-1",),
        "security_groups": ("sg-1",),
        "target_group": GROUP,
        "deployment": Deployment(alarms=("errors",)),
    }
    return Service(**{**full, **changed})


def read_back(ecs: Ecs, wanted: Service, model: Model) -> tuple[list[str], list[str]]:
    """Register and create; return the differences of the definition and of the service."""
    definition = rendering.task_definition(wanted, IMAGE, model=model, secrets={"KEY": "arn:aws:secret:a:key::"}, region="us-east-1")
    tags = rendering.tags(unit=unit_of(definition).key, commit="abc", build_url="https://ci/a%2Fb/")
    revision = ecs.register({**definition, "tags": tags})
    shown = ecs.task_definition(revision)
    assert unit_of(shown) == unit_of(definition)
    ecs.create_service(wanted.name, revision, rendering.service_parameters(wanted, exists=False))
    state = ecs.service(wanted.name)
    assert state is not None
    asked = rendering.service_parameters(wanted, exists=True)
    first = difference.service_changes(state.document, asked)
    updated = ecs.update_service(wanted.name, revision, asked)
    assert difference.service_changes(updated.document, asked) == []
    return difference.changes(shown, definition), first


def test_moto_shows_what_was_asked_for(aws: Aws) -> None:
    aws.call("ecs", "create_cluster", clusterName="production")
    subnet = aws.call("ec2", "describe_subnets")["Subnets"][0]["SubnetId"]
    group = aws.call("ec2", "describe_security_groups")["SecurityGroups"][0]["GroupId"]
    wanted = service(subnets=(subnet,), security_groups=(group,))
    model = Model(uri="s3://bucket/model", run_id="7", sha256="a" * 64)
    assert read_back(Ecs(aws, cluster="production"), wanted, model) == ([], [])


def test_the_embedded_prediction_service_shows_what_was_asked_for(docker_host: str, tmp_path: Path) -> None:
    model = Model(uri="file:///state/model", run_id="7", path="/state/model", sha256="a" * 64)
    with prediction.running(tmp_path / "state", docker_host) as server:
        aws = Aws(region="us-east-1", endpoints={"*": server.url}, anonymous=True)
        assert read_back(Ecs(aws, cluster="embedded", embedded=server.url), service(), model) == ([], [])


def test_the_parameters_of_autoscaling_are_taken_and_shown(aws: Aws) -> None:
    ecs, bounds = Ecs(aws, cluster="scaled"), Autoscaling(min=2, max=9, cpu=60, memory=70, requests=500)
    aws.call("ecs", "create_cluster", clusterName="scaled")
    scaled = service(name="scaled", count=None, autoscaling=bounds, balancer=BALANCER, subnets=())
    definition = rendering.task_definition(scaled, IMAGE, model=None, secrets={}, region="us-east-1")
    ecs.create_service("scaled", ecs.register(definition), rendering.service_parameters(scaled, exists=False))
    wanted = rendering.scaling(scaled, "scaled")
    assert wanted is not None
    aws.call("application-autoscaling", "register_scalable_target", **wanted.target)
    for policy in wanted.policies:
        aws.call("application-autoscaling", "put_scaling_policy", **policy)
    (target,) = aws.call("application-autoscaling", "describe_scalable_targets", ServiceNamespace="ecs")["ScalableTargets"]
    policies = aws.call("application-autoscaling", "describe_scaling_policies", ServiceNamespace="ecs")["ScalingPolicies"]
    assert difference.scaling_changes(target, policies, wanted) == []
    fewer = replace(scaled, autoscaling=Autoscaling(min=2, max=9, cpu=60))
    found = scaling.look(ecs, fewer)
    assert found.changes == ("autoscaling.scaled-memory: tracked → nothing", "autoscaling.scaled-requests: tracked → nothing")
    scaling.apply(ecs, found)
    after = scaling.look(ecs, fewer)
    assert (after.changes, after.owns) == ((), True)
