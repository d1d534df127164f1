from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainshed.local.prediction import deployments, rollout
from trainshed.local.prediction.faults import Faults
from trainshed.local.prediction.protocol import RefusedError, page
from trainshed.local.prediction.records import Service, Store, Task
from trainshed.local.prediction.vault import Vault

DEFINITION = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer:1"


def test_a_fault_strikes_as_often_as_it_was_asked_to_and_is_counted() -> None:
    faults = Faults(allowed=True)
    faults.put([{"kind": "throttle", "action": "DescribeServices", "times": 1}, {"kind": "cut", "action": "*"}])
    assert faults.strike("ListTasks") is faults.strike("ListTasks")  # the second one, as often as it is asked
    first = faults.strike("DescribeServices")
    assert first is not None
    refusal = first.refusal("ecs:DescribeServices")
    assert refusal is not None
    assert (refusal.kind, refusal.status) == ("ThrottlingException", 400)
    after = faults.strike("DescribeServices")
    assert after is not None
    assert after.kind == "cut"
    assert after.refusal("any") is None
    assert [one["taken"] for one in faults.shown()] == [1, 3]


@pytest.mark.parametrize(
    "wrong", [{}, [1], [{"kind": "none"}], [{"kind": "cut", "times": "2"}], [{"kind": "cut", "unknown": 1}], [{"kind": "cut", "action": 1}]]
)
def test_what_is_no_fault_is_refused(wrong: Any) -> None:
    with pytest.raises(RefusedError):
        Faults(allowed=True).put(wrong)


def test_faults_of_tasks_do_not_touch_answers() -> None:
    faults = Faults(allowed=True)
    faults.put([{"kind": "alarm", "name": "errors"}, {"kind": "role", "name": "execution", "times": 1}, {"kind": "capacity", "times": 1}])
    assert faults.strike("DescribeServices") is None
    assert faults.named("alarm") == {"errors"}
    assert [faults.task("role", name) for name in ("other", "execution", "execution")] == [False, True, False]
    assert [faults.task("capacity"), faults.task("capacity")] == [True, False]


def test_a_secret_is_found_by_name_arn_and_json_key_and_lies_where_only_its_owner_reads(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "secrets.json")
    arn = vault.actions["CreateSecret"]({"Name": "prod/db", "SecretString": '{"password": "hush", "port": 5432}'})["ARN"]
    assert vault.value("prod/db") == vault.value(arn) == '{"password": "hush", "port": 5432}'
    assert (vault.value(f"{arn}:password::"), vault.value(f"{arn}:port::")) == ("hush", "5432")
    assert vault.value(arn.rpartition("-")[0] + ":password::") == "hush"  # ECS takes an ARN without the random end
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    vault.actions["PutSecretValue"]({"SecretId": arn, "SecretString": "new"})
    assert Vault(tmp_path / "secrets.json").value("prod/db") == "new"
    assert "SecretString" not in vault.actions["DescribeSecret"]({"SecretId": "prod/db"})


def test_a_secret_that_is_missing_is_told_in_the_words_of_ecs_and_a_wrong_key_without_the_value(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "secrets.json")
    with pytest.raises(RefusedError, match="ResourceNotFoundException: Secrets Manager can't find") as missing:
        vault.value("none")
    assert missing.value.kind == "ResourceInitializationError"
    arn = vault.actions["CreateSecret"]({"Name": "plain", "SecretString": "hush"})["ARN"]
    with pytest.raises(RefusedError, match="did not contain json key password") as wrong:
        vault.value(f"{arn}:password::")
    assert "hush" not in str(wrong.value)
    with pytest.raises(RefusedError, match="already exists"):
        vault.actions["CreateSecret"]({"Name": "plain"})


def test_an_answer_can_be_that_of_some_seconds_ago(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.json")
    store.remember()
    with store.changing():
        store.clusters.append("first")
    with store.changing():
        store.clusters.append("second")
    assert store.past(0).clusters[-1] == "second"
    assert store.past(60).clusters[-1] == "first"  # the oldest that is remembered


def test_pages_refuse_what_is_no_token() -> None:
    assert page([1, 2, 3], "found", {"maxResults": 2}) == {"found": [1, 2], "nextToken": "2"}
    for wrong in ({"nextToken": "x"}, {"nextToken": "-1"}, {"maxResults": 0.5}):
        with pytest.raises(RefusedError):
            page([1], "found", wrong)


class Book:
    """A service with records of its deployments, and what is asked about them."""

    def __init__(self, file: Path) -> None:
        self.store = Store(file)
        self.service = Service(name="answer", cluster="embedded", desired=1, port=0)
        self.service.configuration = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
        self.store.services["embedded/answer"] = self.service
        self.actions = deployments.Deployments(self.store).actions

    def roll_out(self, number: int, *, good: bool) -> None:
        """Deploy a revision to its end."""
        made = self.service.deploy(f"{DEFINITION[:-1]}{number}", {"answer": f"image:{number}"})
        for _ in range(4):
            steps = rollout.decide(self.service, list(self.store.tasks.values()), 1e12)
            for task, reason in steps.stop:
                task.ask_stop(reason)
            for _ in range(steps.start):
                self._start(made.revision)
            for task in self.store.tasks.values():
                if task.wanted and task.deployment == made.id and not good:
                    task.ask_stop("Essential container in task exited", "EssentialContainerExited")
                    rollout.failed(self.service, task, 0.0)
                task.status, task.health = ("RUNNING", "HEALTHY") if task.wanted else ("STOPPED", "UNKNOWN")
        rollout.decide(self.service, list(self.store.tasks.values()), 1e12)

    def _start(self, revision: str) -> None:
        name, primary = f"task{len(self.store.tasks)}", self.service.primary.id
        self.store.tasks[name] = Task(
            id=name, cluster="embedded", service="answer", deployment=primary, revision=revision, image="image", container="answer"
        )

    def deployment(self) -> dict[str, Any]:
        """Return the newest service deployment."""
        name = self.actions["ListServiceDeployments"]({"cluster": "embedded", "service": "answer"})["serviceDeployments"][0]
        shown = self.actions["DescribeServiceDeployments"]({"serviceDeploymentArns": [name["serviceDeploymentArn"]]})
        return dict(shown["serviceDeployments"][0])


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "state.json")


def test_a_service_deployment_is_told_from_its_begin_to_its_success(book: Book) -> None:
    book.service.deploy(DEFINITION, {"answer": "image:1"})
    begun = book.deployment()
    assert (begun["status"], begun["deploymentCircuitBreaker"]["status"], begun["alarms"]["status"]) == (
        "IN_PROGRESS",
        "MONITORING",
        "DISABLED",
    )
    book.roll_out(2, good=True)
    done = book.deployment()
    assert (done["status"], done["deploymentCircuitBreaker"]["status"]) == ("SUCCESSFUL", "MONITORING_COMPLETE")
    superseded = book.actions["ListServiceDeployments"]({"cluster": "embedded", "service": "answer", "status": ["STOPPED"]})
    assert len(superseded["serviceDeployments"]) == 1
    assert done["finishedAt"] >= done["createdAt"]
    found = book.actions["DescribeServiceRevisions"]({"serviceRevisionArns": [done["targetServiceRevision"]["arn"], "a/b/c/d"]})
    assert found["serviceRevisions"][0]["containerImages"] == [{"containerName": "answer", "image": "image:2"}]
    assert found["failures"][0]["reason"] == "MISSING"
    json.dumps(done)


def test_a_service_deployment_that_the_breaker_ends_is_told_as_a_rollback(book: Book) -> None:
    book.roll_out(1, good=True)
    target = book.service.primary.number
    book.roll_out(2, good=False)
    told = book.deployment()
    assert told["status"] == "ROLLBACK_SUCCESSFUL"
    assert told["deploymentCircuitBreaker"] == {"status": "TRIGGERED", "failureCount": 3, "threshold": 3}
    assert told["rollback"]["serviceRevisionArn"].endswith(f"/{target}")
    assert told["sourceServiceRevisions"][0]["arn"].endswith(f"/{target}")
    assert book.service.primary.number == target


def test_a_service_deployment_with_nothing_to_go_back_to_says_that_its_rollback_failed(book: Book) -> None:
    book.roll_out(1, good=False)
    assert book.deployment()["status"] == "ROLLBACK_FAILED"


def test_a_service_deployment_can_be_stopped_once_and_goes_back(book: Book) -> None:
    book.roll_out(1, good=True)
    book.service.deploy(f"{DEFINITION[:-1]}2", {"answer": "image:2"})
    name = book.deployment()["serviceDeploymentArn"]
    assert book.actions["StopServiceDeployment"]({"serviceDeploymentArn": name}) == {"serviceDeploymentArn": name}
    assert book.deployment()["status"] == "ROLLBACK_IN_PROGRESS"
    with pytest.raises(RefusedError) as again:
        book.actions["StopServiceDeployment"]({"serviceDeploymentArn": name})
    assert again.value.kind == "ConflictException"
    with pytest.raises(RefusedError) as missing:
        book.actions["StopServiceDeployment"]({"serviceDeploymentArn": "none"})
    assert missing.value.kind == "ServiceDeploymentNotFoundException"
