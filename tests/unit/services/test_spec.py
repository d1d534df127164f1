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
        spec.load(file, environment="local", known=("local", "dev"))
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


SAFE = """
name: predictor
port: 8080
architecture: arm64
ephemeral-storage: 50
stop-timeout: 2m
autoscaling: {min: 2, max: 9, cpu: 60, memory: 70, requests: 500}
deployment: {fail-early: true, alarms: [errors, latency], minimum-healthy: 50, maximum: 150}
load-balancer:
  target-group: arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/predictor/73e2
  arn: arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/all/50dc
environment: {PORT: "8080"}
"""


def test_what_makes_a_deploy_safe_is_read(file: Path) -> None:
    file.write_text(SAFE)
    service = spec.load(file, environment="local")
    assert (service.architecture, service.ephemeral_storage, service.stop_timeout) == ("arm64", 50, 120)
    assert service.autoscaling == spec.Autoscaling(min=2, max=9, cpu=60, memory=70, requests=500)
    assert service.deployment == spec.Deployment(fail_early=True, alarms=("errors", "latency"), minimum_healthy=50, maximum=150)
    assert service.target_group.endswith("targetgroup/predictor/73e2")
    assert service.balancer.endswith("loadbalancer/app/all/50dc")


def test_every_problem_has_its_line_also_those_of_overlays_and_is_told_once(file: Path) -> None:
    text = """name: a
port: 80
health:
  path: /ready
  retries: many
environments:
  dev: {count: -1}
  prod:
    health:
      retires: 3
    port: null
"""
    said = refused(file, text).splitlines()
    assert said == [
        f"{file}:5: health.retries: expected a whole number from 1 to 100, not 'many'",
        f"{file}:7: environments.dev: count: expected a whole number from 0 to 1000, not -1",
        f"{file}:10: environments.prod: health.retires: unknown key; perhaps you meant 'retries'",
        f"{file}:11: environments.prod: port: is missing",
    ]


def test_a_key_that_is_given_twice_is_a_problem(file: Path) -> None:
    said = refused(file, "name: a\nport: 80\nhealth: {retries: 1, retries: 2}\nname: b\nhealth: {path: /}\n")
    assert said.splitlines() == [
        f"{file}:3: health.retries: is given twice",
        f"{file}:4: name: is given twice",
        f"{file}:5: health: is given twice",
    ]


def test_an_anchor_may_be_used_again_within_bounds(file: Path) -> None:
    file.write_text("name: a\nport: 80\nhealth: &all {path: /ready}\nenvironments:\n  dev: {health: {<<: *all, retries: 5}}\n")
    dev = spec.load(file, environment="dev")
    assert (dev.health.path, dev.health.retries) == ("/ready", 5)
    assert ":3: the alias stands for a part of itself" in refused(file, "name: a\nport: 80\nhealth: &all {path: *all}\n")
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9))
    assert "its aliases stand for more than 20000 values" in refused(file, f"a0: &a0 x\n{levels}")


def test_an_overlay_whose_environment_is_nearly_one_that_is_known_is_a_mistake(file: Path) -> None:
    file.write_text("name: a\nport: 80\nenvironments: {prd: {count: 2}}\n")
    assert spec.load(file, environment="prod").count == 1
    assert spec.load(file, environment="local", known=("local", "test")).count == 1
    with pytest.raises(UsageError, match=r"environments\.prd: there is no such environment; perhaps you meant 'prod'"):
        spec.load(file, environment="prod", known=("local", "prod"))


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
        ("environment: {MODEL_URI: x}", "environment.MODEL_URI: variables that begin with MODEL_ are set by the deploy"),
        ("secrets: {MODEL_SHA256: x}", "secrets.MODEL_SHA256: variables that begin with MODEL_"),
        ('environment: {PORT: "81"}', "environment.PORT: the program would listen on 81, but port is 80"),
        ("environment: {A: x}\nsecrets: {A: y}", ":4: secrets.A: is set under environment too"),
        ("secrets: {A: 'x#'}", "secrets.A: expected the name or ARN of a secret"),
        ("architecture: arm", "architecture: expected one of x86_64, arm64, not 'arm'; perhaps you meant 'arm64'"),
        ("ephemeral-storage: 20", "ephemeral-storage: expected a whole number from 21 to 200, not 20"),
        ("stop-timeout: 3m", "stop-timeout: ECS on Fargate waits 120 s at most"),
        ("autoscaling: {cpu: 101}", "autoscaling.cpu: expected a whole number from 1 to 100"),
        ("deployment: {maximum: 100}", ":3: deployment.maximum: no task could be replaced: of 1, at least 1 must run, and at most 1 may"),
        ("deployment: {maximum: 150}", "no task could be replaced: of 1, at least 1"),
        ("count: 3\ndeployment: {maximum: 150, minimum-healthy: 90}\nenvironments: {dev: {count: 1}}", "of 1, at least 1 must run"),
        ("autoscaling: {min: 3, max: 9}\ndeployment: {maximum: 120}", "no task could be replaced: of 3, at least 3"),
        ("autoscaling: {min: 3}", ":3: autoscaling.max: is missing: nothing could be scaled"),
        ("health: {path: /ä}", "health.path: expected text such as /healthz"),
        ('environment: {A: "\\0"}', "environment.A: no variable can hold"),
        ("environment:\n  A: x\n  B.C: x", ":5: environment.B.C: a variable has letters"),
        ("cpu: 256\nhealth.path: /x", ":4: health.path: unknown key"),
        ("cpu: 256\nenvironments:\n  dev:", ":4: environments: expected a mapping"),
        ("cpu: 256\nenvironments:\n  locl: {count: 2}", ":5: environments.locl: there is no such environment"),
        ("deployment: {alarms: [a, a]}", "deployment.alarms: 'a' is in the list twice"),
        ("load-balancer: {target-group: tg}", "load-balancer.target-group: expected text such as arn:aws:"),
        (f"network: {{security-groups: [{', '.join('abcdef')}]}}", "network.security-groups: ECS takes 5 at most, not 6"),
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
    assert f"{file}:2: not YAML: month must be in 1..12" in refused(file, "name: a\nport: 2026-99-99\n")
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
    size = "Fargate has no size of cpu 256 with memory 300; memory for 256 is one of 512, 1024, 2048"
    assert f"{file}:3: memory: {size}" in said
    assert f"{file}:4: health.interval: ECS takes 5 to 300, not 1" in said
    assert "network.subnets" in said
    assert "roles.execution" in said
    file.write_text("name: a\nport: 80\ncpu: 300\n")
    assert "cpu is one of 256, 512" in spec.fargate_problems(spec.load(file, environment="dev"))[0]
    file.write_text("name: a\nport: 80\nautoscaling: {max: 3, requests: 5}\nnetwork: {subnets: [s]}\n")
    assert "load-balancer.arn are needed to count requests" in spec.fargate_problems(spec.load(file, environment="dev"))[0]
    file.write_text("name: a\nport: 80\nenvironments:\n  dev:\n    health: {interval: 1s}\n")
    assert f"{file}:5: environments.dev: health.interval: ECS" in spec.fargate_problems(spec.load(file, environment="dev"))[0]
    file.write_text(FULL)
    assert spec.fargate_problems(spec.load(file, environment="prod")) == []
