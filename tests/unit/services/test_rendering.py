from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from trainshed.services import difference, rendering
from trainshed.services.rendering import Model
from trainshed.services.spec import Autoscaling, Deployment, Health, Service
from trainshed.services.unit import unit_of

IMAGE = f"registry/answer@sha256:{'1' * 64}"
SHA = "a" * 64
MODEL = Model(uri="file:///state/runs/7/model.json", run_id="7", path="/state/runs/7/model.json", sha256=SHA)
GROUP = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/answer/73e2"
BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/all/50dc"


def service(**changed: Any) -> Service:
    return Service(**{"file": Path("service.yaml"), "name": "answer", "port": 8080, "environment": {"A": "1"}, "secrets": {}, **changed})


def definition(found: Service | None = None, *, image: str = IMAGE, model: Model | None = None, **secrets: str) -> dict[str, Any]:
    return rendering.task_definition(found or service(), image, model=model, secrets=secrets, region="us-east-1")


def test_a_definition_holds_image_health_secrets_roles_and_log() -> None:
    made = definition(service(execution_role="run", task_role="work", log_group="/logs"), KEY="arn:secret:key::")
    (container,) = made["containerDefinitions"]
    assert (made["executionRoleArn"], made["taskRoleArn"], made["cpu"], made["memory"]) == ("run", "work", "256", "512")
    assert container["image"] == IMAGE
    assert container["secrets"] == [{"name": "KEY", "valueFrom": "arn:secret:key::"}]
    assert container["dockerLabels"] == {rendering.HEALTH_LABEL: "/healthz"}
    assert "http://127.0.0.1:8080/healthz" in container["healthCheck"]["command"][-1]
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/logs"
    assert "volumes" not in made


def test_a_health_check_is_one_program_whatever_its_path_holds() -> None:
    program = definition(service(health=Health(path="/it's'+\"up\\")))["containerDefinitions"][0]["healthCheck"]["command"][-1]
    asked = [node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)]
    assert asked == ["http://127.0.0.1:8080/it's'+\"up\\", 2]


def test_a_model_on_this_machine_is_mounted_read_only_and_named_in_the_environment() -> None:
    made = definition(model=MODEL)
    (container,) = made["containerDefinitions"]
    assert made["volumes"] == [{"name": "model", "host": {"sourcePath": "/state/runs/7/model.json"}}]
    assert container["mountPoints"] == [{"sourceVolume": "model", "containerPath": "/opt/model/model.json", "readOnly": True}]
    variables = {pair["name"]: pair["value"] for pair in container["environment"]}
    told = {"MODEL_URI": MODEL.uri, "MODEL_RUN_ID": "7", "MODEL_SHA256": SHA, "MODEL_PATH": "/opt/model/model.json"}
    assert variables == {"A": "1", **told, "IMAGE_DIGEST": f"sha256:{'1' * 64}"}


def test_the_variable_that_repeats_the_images_digest_is_no_difference_and_no_other_unit() -> None:
    new = definition()
    old = definition()
    old["containerDefinitions"][0]["environment"] = [{"name": "A", "value": "1"}]
    assert difference.changes(old, new) == []
    assert unit_of(old) == unit_of(new)


def test_a_model_elsewhere_is_named_by_its_address_alone() -> None:
    made = definition(model=Model(uri="s3://bucket/model"))
    assert "volumes" not in made
    assert {"name": "MODEL_URI", "value": "s3://bucket/model"} in made["containerDefinitions"][0]["environment"]


def test_an_update_leaves_a_count_that_autoscaling_owns_alone() -> None:
    scaled = service(count=None, autoscaling=Autoscaling(min=2, max=4))
    assert rendering.service_parameters(scaled, exists=False)["desiredCount"] == 2
    assert "desiredCount" not in rendering.service_parameters(scaled, exists=True)
    assert rendering.service_parameters(service(count=3), exists=True)["desiredCount"] == 3


def test_network_and_load_balancer_are_asked_for_as_ecs_wants_them() -> None:
    made = rendering.service_parameters(service(subnets=("s",), security_groups=("g",), public_ip=True, target_group="arn:tg"), exists=True)
    assert made["networkConfiguration"]["awsvpcConfiguration"] == {"subnets": ["s"], "securityGroups": ["g"], "assignPublicIp": "ENABLED"}
    assert made["loadBalancers"] == [{"targetGroupArn": "arn:tg", "containerName": "answer", "containerPort": 8080}]
    assert made["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}


def test_platform_storage_and_time_to_stop_are_asked_for() -> None:
    made = definition(service(architecture="arm64", ephemeral_storage=50, stop_timeout=90))
    assert made["runtimePlatform"] == {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}
    assert made["ephemeralStorage"] == {"sizeInGiB": 50}
    assert made["containerDefinitions"][0]["stopTimeout"] == 90
    assert "ephemeralStorage" not in definition()
    assert "stopTimeout" not in definition()["containerDefinitions"][0]


def test_alarms_and_percents_are_of_the_deployment_and_no_alarms_take_those_of_before_away() -> None:
    wanted = service(deployment=Deployment(alarms=("errors",), minimum_healthy=50, maximum=150))
    asked = rendering.service_parameters(wanted, exists=False)["deploymentConfiguration"]
    assert asked["alarms"] == {"alarmNames": ["errors"], "enable": True, "rollback": True}
    assert (asked["minimumHealthyPercent"], asked["maximumPercent"]) == (50, 150)
    assert "alarms" not in rendering.service_parameters(service(), exists=False)["deploymentConfiguration"]
    none = rendering.service_parameters(service(), exists=True)
    assert none["deploymentConfiguration"]["alarms"] == {"alarmNames": [], "enable": False, "rollback": False}
    assert none["loadBalancers"] == []


def test_the_values_that_autoscaling_tracks_are_policies_within_its_bounds() -> None:
    scaled = service(count=None, autoscaling=Autoscaling(min=2, max=9, cpu=60, requests=500), target_group=GROUP, balancer=BALANCER)
    made = rendering.scaling(scaled, "arn:aws:ecs:eu-west-1:123456789012:cluster/production")
    assert made is not None
    assert made.target == {
        "ServiceNamespace": "ecs",
        "ResourceId": "service/production/answer",
        "ScalableDimension": "ecs:service:DesiredCount",
        "MinCapacity": 2,
        "MaxCapacity": 9,
    }
    processor, requests = (policy["TargetTrackingScalingPolicyConfiguration"] for policy in made.policies)
    assert processor["PredefinedMetricSpecification"] == {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}
    assert requests["TargetValue"] == 500.0
    assert requests["PredefinedMetricSpecification"]["ResourceLabel"] == "app/all/50dc/targetgroup/answer/73e2"
    assert rendering.scaling(service(), "production") is None


def test_tags_tell_unit_commit_and_build_in_signs_that_aws_takes() -> None:
    made = rendering.tags(unit="1234", commit="abc", build_url="https://ci/job/a%2Fb/7/")
    assert made == [
        {"key": "trainshed:unit", "value": "1234"},
        {"key": "trainshed:commit", "value": "abc"},
        {"key": "trainshed:build", "value": "https://ci/job/a_2Fb/7/"},
    ]
    assert rendering.tags(unit="1") == [{"key": "trainshed:unit", "value": "1"}]
