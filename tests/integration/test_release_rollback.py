"""Releases of a service with its model to an environment like production: real containers serve, and what they answer is asked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support import released
from tests.support.prediction import until
from tests.support.production import CLUSTER, World, client
from trainshed import config
from trainshed.console import Console
from trainshed.errors import WorkFailed
from trainshed.pipelines import lock as locks
from trainshed.releases.manifest import Manifest
from trainshed.releases.plan import Before, Plan
from trainshed.results import Report
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.releasing import current, serving
from trainshed.stages.releasing.room import Room
from trainshed.stages.survey import survey
from trainshed.tools.kubeflow_records import Artifact

BUCKET = "releases"
MODEL = {"pipeline": "training", "output": "train.model"}


class Runs:
    """A Kubeflow that knows which artifact a run gave."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}

    def artifacts(self, run_id: str) -> dict[str, Artifact]:
        """Return the artifacts of a run."""
        return {"train.model": Artifact(name="model", uri=self.uris[run_id], type="system.Model")}


class Desk:
    """The rooms of releases in a world: ``staging`` has trained, ``prod`` serves."""

    def __init__(self, world: World, room: Room, runs: Runs) -> None:
        self.world, self.room, self.runs = world, room, runs

    def trained(self, run_id: str, environment: str) -> str:
        """Record a run that was accepted in an environment, with its model in S3; return the model's address."""
        store = client("s3", self.world.gateway.others)
        store.create_bucket(Bucket=BUCKET)
        key = f"{self.world.name}/{run_id}"
        store.put_object(Bucket=BUCKET, Key=key, Body=run_id.encode())
        self.runs.uris[run_id] = f"s3://{BUCKET}/{key}"
        document = {"run_id": run_id, "state": "SUCCEEDED", "good": True, "followed": True, "created": run_id}
        self.room.here.ledger.record_event("run", environment, "training", run_id, document)
        return self.runs.uris[run_id]

    def plan(self, version: str, images: Mapping[str, str]) -> Plan:
        """Lock images for production as `promote` does, and plan their release."""
        known = {name: reference.partition("@")[2] for name, reference in images.items()}
        locked = {name: locks.LockedImage(reference=images[name], digest=digest, input_digest=digest) for name, digest in known.items()}
        there = self.room.there
        plan = survey(there, sorted(images)).plan_digest()
        locks.write(locking.path(there), locks.of(project="small", commit=None, dirty=False, plan_digest=plan, images=locked))
        services = sorted(images)
        models = serving.models(self.room, services, digests=known)
        return released.plan(self.room, version, services, serving.before(self.room, services), models)

    def release(self, version: str, number: int) -> Manifest:
        """Release one image of the service; return the manifest."""
        plan = self.plan(version, {"answer": self.world.images.reference(number)})
        report = serving.deploy(self.room, plan)
        assert report.exit_code == 0, told(report)
        return released.recorded(self.room.there, plan, [result.document() for result in report.results])

    def serves(self) -> tuple[str, str]:
        """Return the number of the image and the run of the model that answer."""
        answer = self.world.answer()
        return answer["image"], answer["model_uri"].rpartition("/")[2]


def told(report: Report) -> str:
    return "\n".join(f"{result.name}: {result.message}" for result in report.results)


@pytest.fixture
def desk(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk whose production takes its first model from staging."""
    text = (world.root / "trainshed.toml").read_text()
    staging = text[text.index("[environments.prod]") :].replace("prod]", "staging]")
    world.write("trainshed.toml", f"{text}\n{staging}")
    world.service(model=MODEL)
    runs = Runs()
    monkeypatch.setattr(Context, "kubeflow", runs)
    with contextlib.ExitStack() as closing:
        rooms = []
        for name in ("staging", "prod"):
            with world.context() as opened:
                loaded = config.load(world.root / "trainshed.toml", environment=name)
            folder = loaded.project.work_dir / ("release" if name == "prod" else "")
            loaded = replace(loaded, project=replace(loaded.project, work_dir=folder))
            rooms.append(closing.enter_context(contextlib.closing(Context(config=loaded, console=opened.console, tier=Tier.LAPTOP))))
        yield Desk(world, Room(here=rooms[0], there=rooms[1]), runs)


def rollback(desk: Desk, *words: str) -> dict[str, Any]:
    done = desk.world.run("rollback", *words, "--deadline", "4m")
    assert done.code == 0, done.told + json.dumps(done.document, indent=1)
    return desk.world.result(done)


def test_image_and_model_of_an_earlier_release_serve_again_also_when_their_revision_is_gone(desk: Desk) -> None:
    world = desk.world
    desk.trained("run-1", "staging")
    first = desk.release("1.0.0", 1)
    assert desk.serves() == ("1", "run-1")
    sha256 = hashlib.sha256(b"run-1").hexdigest()
    assert first.services["answer"]["model"] == {"uri": desk.runs.uris["run-1"], "run_id": "run-1", "sha256": sha256}
    desk.trained("run-2", "prod")  # from now on production's own
    desk.trained("run-3", "staging")
    second = desk.release("2.0.0", 2)
    assert desk.serves() == ("2", "run-2")

    result = rollback(desk, "--release", "1.0.0")
    assert (result["revision"], result["release"]) == (first.services["answer"]["revision"], "1.0.0")
    assert desk.serves() == ("1", "run-1")
    said = io.StringIO()
    warned = replace(desk.room, there=replace(desk.room.there, console=Console(stream=said)))
    assert serving.models(warned, ["answer"])["answer"]["run_id"] == "run-2"
    left, back = (str(each.services["answer"]["revision"]) for each in (second, first))
    assert f"takes the model of run run-2, and {left}, which had it, was rolled back to {back}" in said.getvalue()

    world.server.client().deregister_task_definition(taskDefinition=second.services["answer"]["arn"])
    result = rollback(desk, "--release", "v2.0.0")
    assert result["revision"] not in {each.services["answer"]["revision"] for each in (first, second)}
    assert (result["unit"], desk.serves()) == (second.services["answer"]["unit"], ("2", "run-2"))
    found = current.in_force(desk.room.there)
    assert found is not None
    assert (found.release, found.back, found.services) == ("2.0.0", True, {"answer": world.state()["taskDefinition"]})
    registered = world.server.client().describe_task_definition(taskDefinition=found.services["answer"], include=["TAGS"])
    assert {tag["key"] for tag in registered["tags"]} >= {"trainshed:unit"}


def test_a_release_whose_second_service_fails_touches_no_third_one_and_is_undone(desk: Desk) -> None:
    world, images = desk.world, desk.world.images
    desk.trained("run-1", "staging")
    desk.release("1.0.0", 1)
    world.write("components/second/Dockerfile", "FROM scratch\n")
    document = {key: value for key, value in world.document.items() if key not in {"model", "load-balancer"}}
    name = f"{world.name}-second"
    world.write("components/second/service.yaml", json.dumps({**document, "name": name, "deployment": {"fail-early": True}}))
    world.write("components/third/Dockerfile", "FROM scratch\n")
    world.write("components/third/service.yaml", json.dumps({**document, "name": f"{world.name}-third"}))
    wanted = {"answer": images.reference(2), "second": images.reference(3, EXIT="3"), "third": images.reference(2)}
    plan = desk.plan("2.0.0", wanted)
    assert plan.before == Before(services={"answer": world.state()["taskDefinition"], "second": None, "third": None})
    try:
        report = serving.deploy(desk.room, plan)
        assert [str(result.status) for result in report.results] == ["done", "failed", "aborted"], told(report)
        assert desk.serves() == ("2", "run-1")
        lines = serving.undo(desk.room, plan)
        assert lines == [
            f"{name}: deleted: it was not there before",
            f"{world.name}: back to {str(plan.before.services['answer']).rpartition('/')[2]}",
        ]
        assert desk.serves() == ("1", "run-1")
        (gone,) = world.server.client().describe_services(cluster=CLUSTER, services=[name])["services"]
        assert gone["status"] == "INACTIVE"
        assert serving.undo(desk.room, plan)[-1].endswith("serves, as before")
    finally:
        with contextlib.suppress(world.server.client().exceptions.ClientError):
            world.server.client().delete_service(cluster=CLUSTER, service=name, force=True)
        until(lambda: not _tasks(world, name), f"the end of {name}")


def _tasks(world: World, name: str) -> list[str]:
    ecs = world.server.client()
    try:
        return list(ecs.list_tasks(cluster=CLUSTER, serviceName=name)["taskArns"])
    except ecs.exceptions.ClientError:
        return []


def test_production_takes_the_pair_that_was_proven_with_this_image(desk: Desk) -> None:
    world = desk.world
    desk.trained("run-1", "staging")
    digest = world.images.reference(1).partition("@")[2]
    document = {"state": "good", "good": True, "digest": digest, "model": {"run_id": "run-1"}}
    desk.room.here.ledger.record_event("deployment", "staging", world.name, "arn:…:1", document)
    desk.trained("run-2", "staging")
    proven = serving.models(desk.room, ["answer"], digests={"answer": digest})["answer"]
    assert (proven["run_id"], proven["environment"]) == ("run-1", "staging")
    assert serving.models(desk.room, ["answer"])["answer"]["run_id"] == "run-2"
    desk.trained("run-0", "prod")
    own = serving.models(desk.room, ["answer"], digests={"answer": digest})["answer"]
    assert (own["run_id"], own["environment"]) == ("run-0", "prod")
    plan = desk.plan("1.0.0", {"answer": world.images.reference(1)})
    client("s3", world.gateway.others).put_object(Bucket=BUCKET, Key=f"{world.name}/run-0", Body=b"poison")
    with pytest.raises(WorkFailed, match="was changed"):
        serving.deploy(desk.room, plan)
    assert world.gateway.changes() == []
