"""The embedded Prediction Service beside moto and botocore's own model: the same calls, the same shapes, the same refusals."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from tests.support.prediction import Running, client, definition, running, until

CLUSTER = "shapes"
BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}, "minimumHealthyPercent": 100, "maximumPercent": 200}
TARGET_GROUP = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/answer/0123456789abcdef"
TARGETS = {
    "AmazonEC2ContainerServiceV20141113": "ecs",
    "Logs_20140328": "logs",
    "secretsmanager": "secretsmanager",
    "AnyScaleFrontendService": "application-autoscaling",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Iterator[Running]:
    assert base_image
    with running(tmp_path_factory.mktemp("prediction"), docker_host, "--faults") as started:
        yield started


def shape(found: object) -> object:
    """Return the types of an answer, by key; of a list the types of its first member."""
    if isinstance(found, Mapping):
        return {str(key): shape(value) for key, value in found.items() if key != "ResponseMetadata"}
    if isinstance(found, list):
        return [shape(found[0])] if found else []
    return "time" if isinstance(found, datetime) else type(found).__name__


def differences(ours: object, others: object, place: str = "") -> set[str]:
    """Return where two shapes differ: ``+`` only we have it, ``-`` only the others, ``!`` another type. An empty list fits any."""
    if isinstance(ours, dict) and isinstance(others, dict):
        missing = {f"-{place}.{key}".replace("-.", "-") for key in others.keys() - ours.keys()}
        more = {f"+{place}.{key}".replace("+.", "+") for key in ours.keys() - others.keys()}
        shared = (differences(ours[key], others[key], f"{place}.{key}" if place else key) for key in ours.keys() & others.keys())
        return missing.union(more, *shared)
    if isinstance(ours, list) and isinstance(others, list):
        return differences(ours[0], others[0], f"{place}[]") if ours and others else set()
    return set() if ours == others else {f"!{place}: {ours}, {others}"}


def wanted(image: str) -> dict[str, Any]:
    """Return a task definition with all that we give one."""
    made = definition(image, "one")
    made |= {"executionRoleArn": "arn:aws:iam::000000000000:role/execution", "taskRoleArn": "arn:aws:iam::000000000000:role/task"}
    options = {"awslogs-group": "/ecs/answer", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "answer"}
    made["containerDefinitions"][0]["logConfiguration"] = {"logDriver": "awslogs", "options": options}
    made["tags"] = [{"key": "trainshed:build", "value": "1"}]
    return made


def calls(ecs: Any, image: str, subnet: str, group: str) -> dict[str, Any]:
    """Make the calls that a deploy makes; return their answers."""
    found = {"CreateCluster": ecs.create_cluster(clusterName=CLUSTER)}
    first = found["RegisterTaskDefinition"] = ecs.register_task_definition(**wanted(image))
    second = ecs.register_task_definition(**wanted(image))["taskDefinition"]["taskDefinitionArn"]
    revision = first["taskDefinition"]["taskDefinitionArn"]
    found["DescribeTaskDefinition"] = ecs.describe_task_definition(taskDefinition=revision, include=["TAGS"])
    found["ListTaskDefinitions"] = ecs.list_task_definitions(familyPrefix="answer", sort="DESC", status="ACTIVE")
    found["ListTagsForResource"] = ecs.list_tags_for_resource(resourceArn=revision)
    found["CreateService"] = ecs.create_service(
        cluster=CLUSTER,
        serviceName="answer",
        taskDefinition=revision,
        desiredCount=0,
        launchType="FARGATE",
        deploymentConfiguration=BREAKER,
        networkConfiguration={"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group], "assignPublicIp": "DISABLED"}},
        loadBalancers=[{"targetGroupArn": TARGET_GROUP, "containerName": "answer", "containerPort": 8080}],
    )
    found["DescribeServices"] = ecs.describe_services(cluster=CLUSTER, services=["answer", "none"])
    found["ListServices"] = ecs.list_services(cluster=CLUSTER)
    found["ListTasks"] = ecs.list_tasks(cluster=CLUSTER, serviceName="answer", desiredStatus="STOPPED")
    found["UpdateService"] = ecs.update_service(cluster=CLUSTER, service="answer", taskDefinition=second)
    found["DescribeTasks"] = ecs.describe_tasks(cluster=CLUSTER, tasks=["0" * 32])
    found["DescribeClusters"] = ecs.describe_clusters(clusters=[CLUSTER, "none"])
    found["DeregisterTaskDefinition"] = ecs.deregister_task_definition(taskDefinition=revision)
    found["DeleteService"] = ecs.delete_service(cluster=CLUSTER, service="answer", force=True)
    return found


def _places(place: str, *keys: str) -> set[str]:
    return {f"+{place}.{key}" for key in keys}


_CLUSTER = ("capacityProviders", "defaultCapacityProviderStrategy", "statistics", "tags")
_CONTAINER = "taskDefinition.containerDefinitions[]"
_REVISION = (
    "taskDefinition.registeredAt",
    "taskDefinition.registeredBy",
    f"{_CONTAINER}.systemControls",
    f"{_CONTAINER}.portMappings[].hostPort",
)
_SERVICE = (
    "createdAt",
    "createdBy",
    "currentServiceRevisions",
    "deploymentConfiguration",
    "deployments[].platformVersion",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "placementConstraints",
    "placementStrategy",
    "platformFamily",
    "platformVersion",
)
KNOWN = {  # ECS gives all of these, as its own model has them, and moto 5.2 does not; nothing that moto gives is missing
    "CreateCluster": _places("cluster", *_CLUSTER),
    "DescribeClusters": _places("clusters[]", *_CLUSTER),
    "RegisterTaskDefinition": {f"+{key}" for key in ("tags", *_REVISION)},
    "DescribeTaskDefinition": {f"+{key}" for key in _REVISION},
    "DeregisterTaskDefinition": {f"+{key}" for key in ("taskDefinition.deregisteredAt", *_REVISION)},
    "CreateService": _places("service", *_SERVICE, "currentServiceDeployment"),
    "UpdateService": _places("service", *_SERVICE, "currentServiceDeployment"),
    "DeleteService": _places("service", *_SERVICE),
    "DescribeServices": _places("services[]", *_SERVICE),
}


def test_the_same_calls_have_the_same_shapes_as_motos(server: Running, moto: str, base_image: str) -> None:
    network = client("ec2", moto)
    subnet = network.describe_subnets()["Subnets"][0]["SubnetId"]
    group = network.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    ours, others = (calls(ecs, base_image, subnet, group) for ecs in (server.client(), client("ecs", moto)))
    found = {name: differences(shape(ours[name]), shape(others[name])) for name in ours}
    assert {name: sorted(one) for name, one in found.items() if one} == {name: sorted(one) for name, one in KNOWN.items()}


MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("describe_services", {"cluster": "none", "services": ["answer"]}),
    ("list_services", {"cluster": "none"}),
    ("list_tasks", {"cluster": "none"}),
    ("describe_tasks", {"cluster": "none", "tasks": ["0" * 32]}),
    ("describe_tasks", {"cluster": "default", "tasks": []}),
    ("update_service", {"cluster": "default", "service": "none"}),
    ("delete_service", {"cluster": "default", "service": "none"}),
    ("create_service", {"cluster": "default", "serviceName": "some", "taskDefinition": "none:1", "desiredCount": 1}),
    ("describe_task_definition", {"taskDefinition": "none:1"}),
    ("describe_task_definition", {"taskDefinition": "none"}),
    ("deregister_task_definition", {"taskDefinition": "none"}),
    ("delete_cluster", {"cluster": "none"}),
]


@pytest.mark.parametrize(("operation", "parameters"), MISTAKES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(MISTAKES)])
def test_the_same_mistakes_are_refused_by_the_same_name_as_motos(
    server: Running, moto: str, operation: str, parameters: dict[str, Any]
) -> None:
    codes = []
    for ecs in (server.client(), client("ecs", moto)):
        if "cluster" in parameters:
            ecs.create_cluster(clusterName="default")
        with pytest.raises(ClientError) as caught:
            getattr(ecs, operation)(**parameters)
        codes.append(caught.value.response["Error"]["Code"])
    assert codes[0] == codes[1]


def unknown(document: object, model: Shape | None, place: str) -> Iterator[str]:
    """Yield the places of a raw answer that botocore's model does not know."""
    if model is None:
        return
    if model.type_name == "structure" and isinstance(document, dict):
        for key, value in document.items():
            if key not in model.members:  # type: ignore[attr-defined] # a structure
                yield f"{place}.{key}"
            else:
                yield from unknown(value, model.members[key], f"{place}.{key}")  # type: ignore[attr-defined] # a structure
    elif model.type_name == "list" and isinstance(document, list):
        for value in document:
            yield from unknown(value, model.member, f"{place}[]")  # type: ignore[attr-defined] # a list
    elif getattr(model, "enum", None) and document not in model.enum:  # type: ignore[attr-defined] # a string
        yield f"{place}: {document}"
    elif model.type_name == "string" and not isinstance(document, str):
        yield f"{place}: {document!r} is no text"


class Raw:
    """Sends actions, and notes what of their answers botocore's model does not know."""

    def __init__(self, address: str) -> None:
        self._host = address.removeprefix("http://")
        self._models: dict[str, ServiceModel] = {}
        self.wrong: list[str] = []

    def __call__(self, target: str, **request: Any) -> dict[str, Any]:
        prefix, _, action = target.partition(".")
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.request("POST", "/", json.dumps(request), {"X-Amz-Target": target})
        answer = connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read())
        connection.close()
        assert answer.status == http.client.OK, document
        name = TARGETS[prefix]
        if name not in self._models:
            self._models[name] = ServiceModel(Loader().load_service_model(name, "service-2"))
        self.wrong += unknown(document, self._models[name].operation_model(action).output_shape, action)
        return document


def test_every_answer_is_known_to_botocores_model(server: Running, base_image: str) -> None:
    raw = Raw(server.url)

    def ecs(action: str, **request: Any) -> dict[str, Any]:
        return raw(f"AmazonEC2ContainerServiceV20141113.{action}", **request)

    made = wanted(base_image) | {"family": "model"}
    revision = ecs("RegisterTaskDefinition", **made)["taskDefinition"]["taskDefinitionArn"]
    ecs("DescribeTaskDefinition", taskDefinition=revision, include=["TAGS"])
    balancers = [{"targetGroupArn": TARGET_GROUP, "containerName": "answer", "containerPort": 8080}]
    more = {"deploymentConfiguration": BREAKER, "loadBalancers": balancers, "tags": [{"key": "team", "value": "blue"}]}
    ecs("CreateService", serviceName="model", taskDefinition=revision, desiredCount=1, **more)

    def service() -> dict[str, Any]:
        (found,) = ecs("DescribeServices", services=["model"], include=["TAGS"])["services"]
        return dict(found)

    until(lambda: service()["deployments"][0]["rolloutState"] == "COMPLETED", "the first deployment")
    tasks = ecs("ListTasks", serviceName="model")["taskArns"]
    (task,) = ecs("DescribeTasks", tasks=tasks)["tasks"]
    (told,) = ecs("ListServiceDeployments", service="model")["serviceDeployments"]
    (whole,) = ecs("DescribeServiceDeployments", serviceDeploymentArns=[told["serviceDeploymentArn"]])["serviceDeployments"]
    assert whole["status"] == "SUCCESSFUL"
    (known,) = ecs("DescribeServiceRevisions", serviceRevisionArns=[told["targetServiceRevisionArn"]])["serviceRevisions"]
    assert known["containerImages"][0]["imageDigest"] == task["containers"][0]["imageDigest"]
    events = [event["message"] for event in service()["events"]]
    assert f"(service model) registered 1 targets in (target-group {TARGET_GROUP})" in events
    raw("Logs_20140328.DescribeLogGroups", logGroupNamePrefix="/ecs/")
    (stream,) = raw("Logs_20140328.DescribeLogStreams", logGroupName="/ecs/answer", logStreamNamePrefix="answer/")["logStreams"]
    lines = raw("Logs_20140328.GetLogEvents", logGroupName="/ecs/answer", logStreamName=stream["logStreamName"])["events"]
    assert [line["message"] for line in lines] == ["starting one"]
    raw("secretsmanager.CreateSecret", Name="model", SecretString="hush")
    raw("secretsmanager.PutSecretValue", SecretId="model", SecretString="new")
    raw("secretsmanager.DescribeSecret", SecretId="model")
    assert raw("secretsmanager.GetSecretValue", SecretId="model")["SecretString"] == "new"
    which = {"ServiceNamespace": "ecs", "ResourceId": "service/default/model", "ScalableDimension": "ecs:service:DesiredCount"}
    for action, request in (
        ("RegisterScalableTarget", {"MinCapacity": 1, "MaxCapacity": 2}),
        ("DescribeScalableTargets", {}),
        ("PutScalingPolicy", {"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling"}),
        ("DescribeScalingPolicies", {}),
    ):
        raw(f"AnyScaleFrontendService.{action}", **which, **request)
    ecs("DeleteService", service="model", force=True)
    until(lambda: "stoppedAt" in ecs("DescribeTasks", tasks=tasks)["tasks"][0], "the task's end")
    assert raw.wrong == []
