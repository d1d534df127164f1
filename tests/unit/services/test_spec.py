from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.services import spec

FULL = """
name: predictor
port: 8080
cpu: 256
memory: 512
count: 2
health: {path: /ready, interval: 10s, timeout: 2s, retries: 3, start: 1m}
environment: {LOG_LEVEL: info}
secrets: {API_KEY: "prediction/api#key"}
roles: {execution: run, task: work}
network: {subnets: [subnet-1], security-groups: [sg-1], public-ip: true}
load-balancer: {target-group: "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/tg/1", address: "https://predict.example.org/"}
logs: {group: /prediction/predictor}
model: {pipeline: diagnosis_training, output: train.model}
golden: golden.json
environments: {dev: {count: 1}, prod: {autoscaling: {min: 2, max: 9}, secrets: {API_KEY: null}, health: {retries: 5}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "golden.json").write_text("{}")
    return tmp_path / "service.yaml"


def refused(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        spec.load(file, environment="local")
    return caught.value.message


def test_everything_that_can_be_said_is_read(file: Path) -> None:
    file.write_text(FULL)
    service = spec.load(file, environment="local")
    assert (service.name, service.port, service.count, service.first_count) == ("predictor", 8080, 2, 2)
    assert service.health == spec.Health(path="/ready", interval=10, timeout=2, retries=3, start=60)
    assert (service.execution_role, service.task_role, service.public_ip) == ("run", "work", True)
    assert (service.subnets, service.security_groups) == (("subnet-1",), ("sg-1",))
    assert service.address == "https://predict.example.org"
    assert service.model == spec.ModelSource(pipeline="diagnosis_training", output="train.model")
    assert service.golden == file.parent / "golden.json"


def test_an_overlay_changes_what_it_names_and_null_takes_away(file: Path) -> None:
    file.write_text(FULL)
    assert spec.load(file, environment="dev").count == 1
    prod = spec.load(file, environment="prod")
    assert (prod.count, prod.autoscaling, prod.first_count) == (None, spec.Autoscaling(min=2, max=9), 2)
    assert (dict(prod.secrets), prod.health.retries, prod.health.path) == ({}, 5, "/ready")


def test_a_small_service_has_defaults(file: Path) -> None:
    file.write_text("name: a\nport: 80\n")
    service = spec.load(file, environment="local")
    assert (service.cpu, service.memory, service.count, service.model, service.golden) == (256, 512, 1, None, None)


def test_all_problems_are_told_at_once_with_their_keys(file: Path) -> None:
    said = refused(file, "nme: a\nport: 0\ncount: 1\nautoscaling: {min: 3, max: 2}\nhealth: {interval: 1.5s, pth: /}\nlogs: 3\n")
    assert "unknown key; perhaps you meant 'name'" in said
    assert "name: is missing" in said
    assert "port: expected a whole number from 1 to 65535, not 0" in said
    assert "count: autoscaling owns the count" in said
    assert "autoscaling.min: 3 is more than max, 2" in said
    assert "health.interval: expected whole seconds" in said
    assert "health.pth: unknown key; perhaps you meant 'path'" in said
    assert "logs: expected a mapping with group" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("environment: {A: 010}", 'expected text, not 8; quote it: "8"'),
        ("environment: {a-b: x}", "a variable has letters"),
        ("environment: [a]", "expected a mapping of variables"),
        ("network: {subnets: subnet-1}", "expected a list of texts"),
        ("network: {public-ip: 1}", "expected true or false"),
        ("health: {start: soon}", "health.start: expected a duration"),
        ("health: {path: ready}", "health.path: expected text such as /healthz"),
        ("model: {output: model}", "model.pipeline: is missing"),
        ("model: {pipeline: a, output: model}", "model.output: expected text such as train.model"),
        ("golden: ../golden.json", "lies outside of the component"),
        ("golden: none.json", "there is no none.json"),
        ("environments: [dev]", "expected a mapping of environments"),
        ("environments: {dev: {count: many}}", "environments.dev: count: expected a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(file: Path, line: str, said: str) -> None:
    assert said in refused(file, f"name: a\nport: 80\n{line}\n")


def test_what_is_no_mapping_in_yaml_is_refused_with_its_line(file: Path) -> None:
    assert f"{file}:2: not YAML" in refused(file, "name: a\nport: ]\n")
    assert f"{file}: not YAML: month must be in 1..12" in refused(file, "name: a\nport: 2026-99-99\n")
    assert "expected a mapping" in refused(file, "- name\n")
    assert "not UTF-8" in refused_bytes(file)
    assert "larger than" in refused(file, "#" * 300_000)


def refused_bytes(file: Path) -> str:
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(UsageError) as caught:
        spec.load(file, environment="local")
    return caught.value.message


def test_what_fargate_would_refuse_is_told_before_it_is_asked(file: Path) -> None:
    file.write_text("name: a\nport: 80\nmemory: 300\nhealth: {interval: 1s}\nlogs: {group: /a}\n")
    said = "\n".join(spec.fargate_problems(spec.load(file, environment="dev")))
    assert "cpu 256 with memory 300: Fargate has no such size; memory for 256 is one of 512, 1024, 2048" in said
    assert "health.interval: ECS takes 5 to 300, not 1" in said
    assert "network.subnets" in said
    assert "roles.execution" in said
    file.write_text("name: a\nport: 80\ncpu: 300\n")
    assert "cpu is one of 256, 512" in spec.fargate_problems(spec.load(file, environment="dev"))[0]
    file.write_text(FULL)
    assert spec.fargate_problems(spec.load(file, environment="prod")) == []
