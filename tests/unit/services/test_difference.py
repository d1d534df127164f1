from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.services.test_rendering import BALANCER, GROUP, IMAGE, MODEL, definition, service
from trainshed.services import difference, rendering
from trainshed.services.rendering import Model
from trainshed.services.spec import Autoscaling, Deployment, Service


def as_ecs_shows(wanted: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return a definition as DescribeTaskDefinition does: filled in, with ARNs for names, in another order."""
    shown, chance = copy.deepcopy(wanted), random.Random(seed)  # noqa: S311 - an order, no secret
    (container,) = shown["containerDefinitions"]
    for name in ("environment", "secrets", "portMappings"):
        chance.shuffle(container[name])
    for port in container["portMappings"]:
        port["hostPort"] = port["containerPort"]
    container |= {"cpu": 0, "volumesFrom": [], "systemControls": [], "mountPoints": container.get("mountPoints", [])}
    for role in ("executionRoleArn", "taskRoleArn"):
        if role in shown:
            shown[role] = f"arn:aws:iam::123456789012:role/{shown[role]}"
    shown |= {"taskDefinitionArn": "arn:any:3", "revision": 3, "status": "ACTIVE", "placementConstraints": [], "registeredBy": "any"}
    shown |= {"compatibilities": ["EC2", "FARGATE"], "requiresAttributes": [{"name": "any"}], "volumes": shown.get("volumes", [])}
    return shown


def test_what_ecs_adds_to_a_definition_is_no_difference() -> None:
    wanted = definition(service(execution_role="run", stop_timeout=30, ephemeral_storage=21), model=MODEL)
    assert difference.changes(as_ecs_shows(wanted), wanted) == []


NAMES = st.text("ABCDEF_", min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(
    environment=st.dictionaries(NAMES, st.text(max_size=5), max_size=4),
    secrets=st.dictionaries(NAMES, st.sampled_from(["arn:a", "arn:b:key::"]), max_size=3),
    roles=st.tuples(st.sampled_from(["", "run"]), st.sampled_from(["", "work"])),
    model=st.sampled_from([None, MODEL, Model(uri="s3://bucket/model", sha256="b" * 64)]),
    seed=st.integers(0, 100),
)
def test_the_same_is_no_difference_whatever_ecs_makes_of_it_and_another_image_is_one(
    environment: dict[str, str], secrets: dict[str, str], roles: tuple[str, str], model: Model | None, seed: int
) -> None:
    wanted = definition(service(environment=environment, execution_role=roles[0], task_role=roles[1]), model=model, **secrets)
    shown = as_ecs_shows(wanted, seed)
    assert difference.changes(shown, wanted) == []
    shown["containerDefinitions"][0]["image"] = "other"
    assert difference.changes(shown, wanted) == [f"containerDefinitions.answer.image: other → {IMAGE}"]


def test_differences_name_place_old_and_new() -> None:
    wanted = definition(service(environment={"B": "2"}), image="other", model=MODEL)
    found = difference.changes(definition(), wanted)
    assert f"containerDefinitions.answer.image: {IMAGE} → other" in found
    assert "containerDefinitions.answer.environment.A.value: 1 → nothing" in found
    assert "containerDefinitions.answer.environment.B.value: nothing → 2" in found
    assert any(text.startswith("volumes.model.host.sourcePath: nothing → ") for text in found)
    assert difference.changes(None, wanted) == ["the service is new"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": 512}, "cpu: 256 → 512"),
        ({"memory": 1024}, "memory: 512 → 1024"),
        ({"port": 9090}, "containerDefinitions.answer.portMappings.9090: nothing → True"),
        ({"architecture": "arm64"}, "runtimePlatform.cpuArchitecture: X86_64 → ARM64"),
        ({"ephemeral_storage": 30}, "ephemeralStorage.sizeInGiB: 20 → 30"),
        ({"stop_timeout": 60}, "containerDefinitions.answer.stopTimeout: 30 → 60"),
        ({"task_role": "work"}, "taskRoleArn: nothing → work"),
        ({"environment": {"A": ""}}, "containerDefinitions.answer.environment.A.value: 1 → nothing"),
    ],
)
def test_every_kind_of_change_is_shown(changed: dict[str, Any], said: str) -> None:
    assert said in difference.changes(as_ecs_shows(definition()), definition(service(**changed)))


def test_what_looks_like_a_secret_is_masked() -> None:
    old = service(environment={"API_TOKEN": "old", "DATABASE": "postgresql://me:one@host/a"})
    new = service(environment={"API_TOKEN": "new", "DATABASE": "postgresql://me:two@host/b"})
    found = difference.changes(definition(old), definition(new))
    assert found == [
        "containerDefinitions.answer.environment.API_TOKEN.value: *** → ***",
        "containerDefinitions.answer.environment.DATABASE.value: postgresql://***@host/a → postgresql://***@host/b",
    ]


def test_the_same_model_out_of_the_cache_of_another_run_is_no_difference() -> None:
    def model(run_id: str, digit: str) -> dict[str, Any]:
        return definition(model=Model(uri="s3://bucket/model", run_id=run_id, sha256=digit * 64))

    assert difference.changes(model("1", "a"), model("2", "a")) == []
    assert len(difference.changes(model("1", "a"), model("2", "b"))) == 2
    unchecked = [definition(model=Model(uri="s3://bucket/model", run_id=run_id)) for run_id in "12"]
    assert len(difference.changes(*unchecked)) == 1


def shown_service(wanted: Service) -> dict[str, Any]:
    """Return a service as DescribeServices does."""
    asked = rendering.service_parameters(wanted, exists=False)
    asked["deploymentConfiguration"] |= {"strategy": "ROLLING", "bakeTimeInMinutes": 0}
    return {"loadBalancers": [], "serviceRegistries": [], "healthCheckGracePeriodSeconds": 0, "status": "ACTIVE", **asked}


FULL = {
    "subnets": ("b", "a"),
    "security_groups": ("g",),
    "target_group": GROUP,
    "balancer": BALANCER,
    "deployment": Deployment(alarms=("errors", "latency")),
}


@pytest.mark.parametrize("wanted", [service(), service(**FULL), service(count=None, autoscaling=Autoscaling(min=1, max=2))])
def test_a_service_that_is_as_asked_for_does_not_differ(wanted: Service) -> None:
    shown = shown_service(wanted)
    assert difference.service_changes(shown, rendering.service_parameters(wanted, exists=True)) == []
    network = shown.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
    network |= {"subnets": network.get("subnets", [])[::-1]} if network else {}
    assert difference.service_changes(shown, rendering.service_parameters(wanted, exists=True)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"count": 3}, ["desiredCount: 1 → 3"]),
        ({"subnets": ("a", "c")}, ["networkConfiguration.awsvpcConfiguration.subnets: ['a', 'b'] → ['a', 'c']"]),
        ({"security_groups": ()}, ["networkConfiguration.awsvpcConfiguration.securityGroups: ['g'] → nothing"]),
        ({"public_ip": True}, ["networkConfiguration.awsvpcConfiguration.assignPublicIp: DISABLED → ENABLED"]),
        (
            {"target_group": ""},
            [f"loadBalancers.{GROUP}.containerName: answer → nothing", f"loadBalancers.{GROUP}.containerPort: 8080 → nothing"],
        ),
        (
            {"deployment": Deployment()},
            [
                "deploymentConfiguration.alarms.alarmNames: ['errors', 'latency'] → nothing",
                "deploymentConfiguration.alarms.enable: True → False",
                "deploymentConfiguration.alarms.rollback: True → False",
            ],
        ),
    ],
)
def test_what_differs_of_a_service_is_shown(changed: dict[str, Any], said: list[str]) -> None:
    wanted = rendering.service_parameters(service(**{**FULL, **changed}), exists=True)
    assert difference.service_changes(shown_service(service(**FULL)), wanted) == said


def test_what_an_emulation_does_not_show_of_a_service_is_not_compared() -> None:
    assert difference.service_changes({"desiredCount": 1}, rendering.service_parameters(service(), exists=True)) == []


def test_bounds_and_policies_of_autoscaling_are_compared() -> None:
    made = rendering.scaling(service(count=None, autoscaling=Autoscaling(min=2, max=9, cpu=60)), "production")
    assert made is not None
    known = {**made.policies[0], "PolicyARN": "any", "Alarms": []}
    assert difference.scaling_changes(made.target, [known], made) == []
    assert difference.scaling_changes(None, [], made)[:2] == ["autoscaling.min: nothing → 2", "autoscaling.max: nothing → 9"]
    other = {
        **known,
        "TargetTrackingScalingPolicyConfiguration": {**known["TargetTrackingScalingPolicyConfiguration"], "TargetValue": 50.0},
    }
    assert difference.scaling_changes(made.target, [other], made) == ["autoscaling.answer-cpu.TargetValue: 50.0 → 60.0"]
    left = {"PolicyName": "answer-memory", "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 70.0}}
    others = {"PolicyName": "at-night", "PolicyType": "StepScaling"}
    assert difference.scaling_changes(made.target, [known, left, others], made) == ["autoscaling.answer-memory: tracked → nothing"]
