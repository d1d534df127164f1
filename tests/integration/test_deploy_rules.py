"""The nine rules of a safe deploy, each with real containers: what the deployers that people use got wrong, and ours may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.prediction import until
from tests.support.production import World, client
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.tools.kubeflow_records import Artifact, Run

BREAKER = 3
"""Failed tasks that trip the circuit breaker of ECS at the least."""


def test_one_call_changes_a_service_whatever_changes_of_it(world: World) -> None:
    """Rule 2: two calls make two deployments, of which the first is reported as failed about half the time."""
    world.green()
    assert world.gateway.changes() == ["CreateService"]
    world.gateway.requests.clear()
    world.lock(2)
    world.service(count=2, environment={"VERSION": "2"})
    world.green()
    assert world.gateway.changes() == ["UpdateService"]
    state = world.settled()
    assert (state["desiredCount"], state["runningCount"], world.serves()) == (2, 2, ("2", "2"))
    world.gateway.requests.clear()
    again = world.green()
    assert (again["status"], world.gateway.changes(), world.gateway.asked("RegisterTaskDefinition")) == ("cached", [], [])


def test_a_rollback_of_ecs_is_a_failure_though_the_service_is_stable_again(world: World) -> None:
    """Rules 3 and 4: stable is what a service also is after its circuit breaker; the reasons and the log are shown."""
    group = f"/small/{world.name}"
    client("logs", world.gateway.url).create_log_group(logGroupName=group)
    world.service(logs={"group": group})
    good = world.green()
    world.lock(2, EXIT="7")
    done = world.deploy()
    result = world.result(done)
    assert (done.code, result["status"]) == (1, "failed")
    assert "circuit breaker" in result["message"]
    assert "no model to serve" in (world.root / result["log"]).read_text()
    assert "exit code 7" in result["message"]
    assert good["revision"] in result["message"]
    state = world.settled()
    assert state["taskDefinition"].endswith(good["revision"])
    assert world.serves() == ("1", "1")
    states = dict(reversed(world.ledger()))
    assert {revision.rpartition("/")[2]: state for revision, state in states.items()} == {
        good["revision"]: "good",
        result["revision"]: "bad",
    }


def test_the_first_stopped_task_ends_a_deployment_that_shall_fail_early(world: World) -> None:
    """Rule 5: the breaker's threshold may take half an hour."""
    good = world.green()
    world.service(deployment={"fail-early": True})
    world.lock(2, EXIT="7")
    done = world.deploy()
    result = world.result(done)
    assert (done.code, result["status"]) == (1, "failed")
    assert "exit code 7" in result["message"]
    assert good["revision"] in result["message"]
    assert world.settled()["taskDefinition"].endswith(good["revision"])
    assert world.serves() == ("1", "1")
    assert sum(task["containers"][0].get("exitCode") == 7 for task in world.tasks("STOPPED")) < BREAKER


def test_a_count_that_autoscaling_owns_is_left_alone(world: World) -> None:
    """Rule 6: neither a deployment nor a rollback sets it back."""
    world.scalable()
    world.service(count=None, autoscaling={"min": 1, "max": 4, "cpu": 60})
    world.green()
    world.server.client().update_service(cluster="default", service=world.name, desiredCount=3)
    until(lambda: world.settled()["runningCount"] == 3, "three tasks")
    world.lock(2)
    world.gateway.requests.clear()
    world.green()
    assert [body.get("desiredCount") for _, body in world.gateway.asked("UpdateService")] == [None]
    assert (world.settled()["desiredCount"], world.serves()) == (3, ("2", "1"))
    done = world.run("rollback", "answer")
    assert done.code == 0, done.told
    assert (world.settled()["desiredCount"], world.serves()) == (3, ("1", "1"))


def test_old_revisions_are_deregistered_last_and_never_what_runs_or_is_gone_back_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 7, also after a rollback of ECS: others deregister the revision that runs."""
    monkeypatch.setenv("TRAINSHED_ENVIRONMENTS_PROD_PREDICTION_SERVICE_KEEP_REVISIONS", "1")
    made = []
    for number in (1, 2, 3):
        world.gateway.requests.clear()
        world.service(environment={"VERSION": str(number)}, golden="golden.json")
        world.green()
        made.append(world.state()["taskDefinition"])
    assert [world.active(revision) for revision in made] == [False, True, True]
    actions = [action for action, _ in world.gateway.asked()]
    assert world.gateway.asked("DeregisterTaskDefinition") == [("DeregisterTaskDefinition", {"taskDefinition": made[0]})]
    assert actions[-1] == "DeregisterTaskDefinition"
    world.service(environment={"VERSION": "4", "EXIT": "7"})
    assert world.deploy().code == 1
    assert world.settled()["taskDefinition"] == made[-1]
    assert [world.active(revision) for revision in made] == [False, True, True]
    assert world.serves() == ("1", "3")


def test_the_digest_that_runs_is_read_back(world: World) -> None:
    """Rule 8: success is the digest of the lock in the running tasks, not that ECS says so."""
    good = world.green()
    other = world.images.reference(3)

    def another(asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "containerDefinitions": [{**one, "image": other} for one in asked["containerDefinitions"]]}

    world.gateway.changed["RegisterTaskDefinition"] = another
    wanted = world.lock(2)
    done = world.deploy()
    result = world.result(done)
    assert (done.code, result["status"]) == (1, "failed")
    assert f"runs {other.partition('@')[2]}, not {wanted}" in result["message"]
    assert f"rolled back to {good['revision']}" in result["message"]
    assert world.serves() == ("1", "1")
    world.gateway.changed.clear()
    assert world.green()["digest"] == wanted
    (task,) = (one for one in world.tasks() if one["lastStatus"] == "RUNNING")
    assert task["containers"][0]["imageDigest"] == wanted
    assert world.serves() == ("2", "1")


def test_wrong_golden_predictions_bring_the_revision_before_back(world: World) -> None:
    world.service(golden="golden.json", deployment={"fail-early": True})
    good = world.green()
    world.lock(2, FACTOR="3")
    done = world.deploy()
    result = world.result(done)
    assert (done.code, result["status"]) == (1, "failed")
    assert "golden prediction twice: answer.twice is 63 instead of 42" in result["message"]
    assert f"rolled back to {good['revision']}" in result["message"]
    assert world.serves() == ("1", "1")


@dataclass
class Trained:
    """A Kubeflow that knows runs, each with a model."""

    models: dict[str, str] = field(default_factory=dict)

    def run(self, run_id: str) -> Run:
        """Return a run, which succeeded."""
        return Run(id=run_id, name=run_id, state="SUCCEEDED")

    def artifacts(self, run_id: str) -> dict[str, Artifact]:
        """Return its model."""
        return {"train.model": Artifact(name="model", uri=self.models[run_id], type="system.Model")}


@pytest.fixture
def train(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return what puts a model into S3, as a run that passed its gates would."""
    store = client("s3", world.gateway.url)
    store.create_bucket(Bucket=world.name)
    kubeflow = Trained()
    monkeypatch.setattr(Context, "kubeflow", kubeflow)

    def trained(run_id: str) -> str:
        store.put_object(Bucket=world.name, Key=run_id, Body=run_id.encode())
        kubeflow.models[run_id] = f"s3://{world.name}/{run_id}"
        (world.root / ".trainshed").mkdir(exist_ok=True)
        with Ledger.open(f"sqlite:///{world.root}/.trainshed/ledger.sqlite", tier=Tier.LAPTOP) as ledger:
            document = {"run_id": run_id, "state": "SUCCEEDED", "good": True, "followed": True}
            ledger.record_event("run", "prod", "training", run_id, document)
        return kubeflow.models[run_id]

    world.service(model={"pipeline": "training", "output": "train.model"}, golden="golden.json")
    return trained


def test_image_and_model_are_rolled_back_as_the_pair_that_they_were(world: World, train: Callable[[str], str]) -> None:
    """Rule 9, by a wrong answer and by hand."""
    pairs = []
    for number in (1, 2):
        uri = train(f"run-{number}")
        world.lock(number)
        result = world.green()
        assert (world.answer()["image"], world.answer()["model_uri"]) == (str(number), uri)
        assert result["model"]["run_id"] == f"run-{number}"
        pairs.append((str(number), uri))
    train("run-3")
    world.lock(3, FACTOR="3")
    assert world.deploy().code == 1
    assert (world.answer()["image"], world.answer()["model_uri"]) == pairs[1]
    done = world.run("rollback", "answer")
    assert done.code == 0, done.told
    assert (world.answer()["image"], world.answer()["model_uri"]) == pairs[0]
    told = world.result(world.run("status"))
    assert told["model"]["uri"] == pairs[0][1]


def refused(world: World, *needles: str) -> None:
    """Deploy what must be refused before anything is touched."""
    before = world.state()
    world.gateway.requests.clear()
    done = world.deploy()
    message = world.result(done)["message"] if done.document["results"] else json.dumps(done.document)
    assert done.code == 2, done.told
    for needle in needles:
        assert needle in message
    asked = [action for action, _ in world.gateway.asked()]
    assert not {"RegisterTaskDefinition", "CreateService", "UpdateService"} & set(asked), asked
    after = world.state()
    assert after.get("taskDefinition") == before.get("taskDefinition")
    assert len(after.get("deployments", ())) == len(before.get("deployments", ()))


def test_what_is_missing_is_found_before_anything_is_touched_all_at_once(world: World) -> None:
    """Rule 1."""
    world.green()
    right: dict[str, Any] = {key: world.document[key] for key in ("roles", "network")}
    world.service(
        roles={"execution": right["roles"]["execution"].replace("prediction-execution", "nobody"), "task": right["roles"]["task"]},
        network={**right["network"], "subnets": ["subnet-0123456789abcdef0"]},
        secrets={"TOKEN": "no-such-secret#token"},
    )
    refused(world, "nobody", "subnet-0123456789abcdef0", "no-such-secret")
    world.service(**right, secrets=None)
    assert world.green()["status"] == "cached"


def test_an_image_that_is_not_in_the_registry_is_found_before_anything_is_touched(world: World) -> None:
    world.green()
    repository = world.images.repository
    world.lock_reference(f"{repository}@sha256:{'0' * 64}")
    before = world.state()["taskDefinition"]
    done = world.deploy()
    assert done.code in {1, 2}
    assert "0" * 64 in world.result(done)["message"]
    assert world.gateway.changes() == ["CreateService"]
    assert world.state()["taskDefinition"] == before
