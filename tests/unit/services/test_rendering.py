from __future__ import annotations

from pathlib import Path
from typing import Any

from trainshed.services import difference, rendering
from trainshed.services.rendering import Model
from trainshed.services.spec import Autoscaling, Service

IMAGE = f"registry/answer@sha256:{'1' * 64}"
MODEL = Model(uri="file:///state/runs/7/model.json", run_id="7", path="/state/runs/7/model.json")


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


def test_a_model_on_this_machine_is_mounted_read_only_and_named_in_the_environment() -> None:
    made = definition(model=MODEL)
    (container,) = made["containerDefinitions"]
    assert made["volumes"] == [{"name": "model", "host": {"sourcePath": "/state/runs/7/model.json"}}]
    assert container["mountPoints"] == [{"sourceVolume": "model", "containerPath": "/opt/model/model.json", "readOnly": True}]
    variables = {pair["name"]: pair["value"] for pair in container["environment"]}
    assert variables == {"A": "1", "MODEL_URI": MODEL.uri, "MODEL_RUN_ID": "7", "MODEL_PATH": "/opt/model/model.json"}


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


def test_what_ecs_adds_to_a_definition_is_no_difference() -> None:
    wanted = definition(service(execution_role="run"))
    shown = {**wanted, "revision": 3, "status": "ACTIVE", "executionRoleArn": "arn:aws:iam::1:role/run", "volumes": []}
    (container,) = wanted["containerDefinitions"]
    ports = [{**container["portMappings"][0], "hostPort": 8080}]
    shown["containerDefinitions"] = [{**container, "cpu": 0, "mountPoints": [], "volumesFrom": [], "portMappings": ports}]
    assert difference.changes(shown, wanted) == []


def test_differences_name_place_old_and_new() -> None:
    wanted = definition(service(environment={"B": "2"}), image="other", model=MODEL)
    found = difference.changes(definition(), wanted)
    assert f"containerDefinitions.answer.image: {IMAGE} → other" in found
    assert "containerDefinitions.answer.environment.A.value: 1 → nothing" in found
    assert "containerDefinitions.answer.environment.B.value: nothing → 2" in found
    assert any(text.startswith("volumes.model.host.sourcePath: nothing → ") for text in found)
    assert difference.changes(None, wanted) == ["the service is new"]


def test_a_service_differs_in_count_network_and_balancer_only() -> None:
    network = {"awsvpcConfiguration": {"subnets": ["b", "a"], "securityGroups": [], "assignPublicIp": "DISABLED"}}
    same = {"awsvpcConfiguration": {"subnets": ["a", "b"], "assignPublicIp": "DISABLED"}}
    running = {"desiredCount": 2, "networkConfiguration": same, "loadBalancers": [], "deploymentConfiguration": {"any": 1}}
    assert difference.service_changes(running, {"desiredCount": 2, "networkConfiguration": network, "deploymentConfiguration": {}}) == []
    assert difference.service_changes(running, {"desiredCount": 3}) == ["desiredCount: 2 → 3"]
