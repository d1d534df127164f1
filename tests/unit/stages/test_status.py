from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support import released
from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import Refusal, complete, task_of
from trainshed.errors import NothingSelected, RemoteError, UsageError
from trainshed.local.services import PREDICTION, REGISTRY
from trainshed.releases.manifest import Pipeline
from trainshed.results import Report, Result, Status
from trainshed.services.unit import unit_of
from trainshed.stages import locking
from trainshed.stages.recurring import Mark
from trainshed.stages.releasing import journal
from trainshed.stages.releasing.room import Room
from trainshed.stages.standing import pipelines, telling
from trainshed.stages.status import status
from trainshed.stages.upload import digest_of
from trainshed.tools.git_tags import Remote
from trainshed.tools.kubeflow_records import Denied, NotFound, RecurringRun, Trigger, Version

pytestmark = pytest.mark.sockets


@pytest.fixture
def desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk whose script stands in for this machine's own services."""
    monkeypatch.setattr(telling, "stopped", lambda _context: frozenset())
    return desk


def asked(desk: Desk) -> tuple[Report, Result]:
    report = status(desk.context)
    (found,) = [result for result in report.results if result.details["kind"] == "service"]
    return report, found


def other(report: Report, name: str) -> Result:
    (found,) = [result for result in report.results if result.name == name]
    return found


def test_what_serves_as_the_ledger_the_lock_and_the_file_say_is_good(serving: Desk) -> None:
    report, result = asked(serving)
    assert (report.exit_code, result.status) == (0, Status.DONE), result.message
    told = result.details
    assert (told["desired"], told["running"], told["rollout"], told["revision"]) == (1, 1, "completed", "answer:1")
    assert told["digests"] == [f"sha256:{'1' * 64}"]
    assert told["deployed"]["revision"] == "answer:1"
    assert told["url"] == serving.ecs.url
    assert told["drift"] == []


def test_it_changes_nothing_and_asks_little(serving: Desk) -> None:
    asked(serving)
    assert serving.ecs.changes() == []
    assert [action for action, _ in serving.ecs.requests] == ["DescribeServices", "DescribeTaskDefinition", "ListTasks", "DescribeTasks"]


def test_a_service_that_was_never_deployed_is_told_so(desk: Desk) -> None:
    report, result = asked(desk)
    assert (report.exit_code, result.status, result.cause) == (0, Status.SKIPPED, "never deployed")
    assert "never deployed" in desk.said.getvalue()


def test_another_image_in_the_lock_is_drift_with_the_next_step(serving: Desk) -> None:
    serving.build("2")
    report, result = asked(serving)
    assert report.exit_code == 1
    assert result.details["drift"] == [f"image: sha256:{'1' * 64} runs, the lock has sha256:{'2' * 64}"]
    assert "`trainshed deploy answer`" in result.message
    assert f"answer: image: sha256:{'1' * 64} runs" in serving.said.getvalue()


def test_a_revision_that_somebody_deployed_by_hand_is_drift(serving: Desk) -> None:
    (arn, definition), *_ = serving.ecs.definitions.items()
    other = arn.replace("answer:1", "answer:9")
    serving.ecs.definitions[other] = {**definition, "taskDefinitionArn": other}
    assert serving.ecs.service is not None
    serving.ecs.service["taskDefinition"] = other
    _, result = asked(serving)
    assert "answer:9 is asked for, the ledger says answer:1" in result.details["drift"]


def test_a_service_that_the_ledger_does_not_know_is_drift(serving: Desk) -> None:
    serving.context.ledger.record_event("deployment", "other", "answer", "any", {"good": True})
    assert serving.ecs.service is not None
    serving.ecs.service["serviceName"] = "second"
    serving.service(SERVICE.replace("name: answer", "name: second"))
    _, result = asked(serving)
    assert "answer:1 is asked for, and the ledger knows of no deployment that ended well" in result.details["drift"]


def test_settings_that_differ_from_the_file_are_drift(serving: Desk) -> None:
    serving.service(SERVICE.replace("count: 1", "count: 3") + "environment: {LEVEL: info}\n")
    _, result = asked(serving)
    assert any(line.startswith("service.yaml: desiredCount: 1 → 3") for line in result.details["drift"])
    assert any("LEVEL" in line for line in result.details["drift"])


def test_a_service_that_is_gone_is_drift(serving: Desk) -> None:
    serving.ecs.service = None
    report, result = asked(serving)
    assert report.exit_code == 1
    assert result.details["drift"] == ["the service is gone: the ledger says that answer:1 serves"]


def test_a_digest_that_is_not_the_revisions_is_drift(serving: Desk) -> None:
    assert serving.ecs.service is not None
    serving.ecs.tasks = [task_of(serving.ecs.service["deployments"][0], "RUNNING", digest=f"sha256:{'7' * 64}")]
    _, result = asked(serving)
    assert f"sha256:{'7' * 64} runs, answer:1 asks for sha256:{'1' * 64}" in result.details["drift"]


def test_tasks_that_are_missing_and_a_rollout_under_way_are_told(serving: Desk) -> None:
    assert serving.ecs.service is not None
    serving.ecs.service["runningCount"] = 0
    assert "0 of 1 tasks run" in asked(serving)[1].details["drift"]
    serving.ecs.service["deployments"][0] |= {"rolloutState": "IN_PROGRESS", "rolloutStateReason": "ECS deployment in progress."}
    assert "its deployment is in progress: ECS deployment in progress." in asked(serving)[1].details["drift"]


def test_without_a_lock_the_rest_is_compared_and_that_is_said(serving: Desk) -> None:
    locking.path(serving.context).unlink()
    report, result = asked(serving)
    assert (report.exit_code, result.details["drift"]) == (0, [])
    assert "images are not compared" in serving.said.getvalue()
    assert "there is no lock" in report.extra["note"]


def test_a_refusal_is_the_result_of_its_service(serving: Desk) -> None:
    serving.ecs.refusals["DescribeServices"] = [Refusal("AccessDeniedException", "not yours")]
    report, result = asked(serving)
    assert (report.exit_code, result.status) == (2, Status.FAILED)
    assert "not yours" in result.message
    assert "not known" in serving.said.getvalue()


def test_a_secret_is_compared_by_its_name_and_key(serving: Desk) -> None:
    (definition,) = serving.ecs.definitions.values()
    arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:keys-AbCdEf"
    cases = {
        ("keys#token", f"{arn}:token::"): True,
        ("keys", arn): True,
        (arn, arn): True,
        ("keys#token", f"{arn}:other::"): False,
        ("locks#token", f"{arn}:token::"): False,
    }
    for (reference, deployed), same in cases.items():
        definition["containerDefinitions"][0]["secrets"] = [{"name": "TOKEN", "valueFrom": deployed}]
        serving.service(SERVICE + f"secrets: {{TOKEN: '{reference}'}}\n")
        _, result = asked(serving)
        assert (result.details["drift"] == []) is same, (reference, deployed, result.message)


def test_wrong_names_and_no_services_are_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="anser"):
        status(desk.context, ["anser"])
    (desk.root / "components/answer/service.yaml").unlink()
    with pytest.raises(NothingSelected, match="no service"):
        status(desk.context)


def test_an_embedded_service_that_does_not_run_is_not_started(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch)
    monkeypatch.setattr(telling, "stopped", lambda _context: frozenset({PREDICTION, REGISTRY}))
    report, result = asked(serving)
    assert (report.exit_code, result.cause) == (1, "stopped")
    assert other(report, "release").details["drift"] == []  # what serves is not known
    assert "trainshed local up" in result.message
    assert serving.ecs.requests == []


class Kubeflow:
    """A Kubeflow that has some versions."""

    def __init__(self) -> None:
        self.versions: dict[str, Version] = {}
        self.schedules: list[RecurringRun] | RemoteError = []
        self.away: RemoteError | None = None
        self.asked = 0

    def recurring_runs(self) -> list[RecurringRun]:
        if isinstance(self.schedules, RemoteError):
            raise self.schedules
        return self.schedules

    def version(self, pipeline_id: str, version_id: str) -> Version:
        self.asked += 1
        if self.away is not None:
            raise self.away
        if version_id not in self.versions:
            raise NotFound(f"no version {version_id} of {pipeline_id}")
        return self.versions[version_id]


SPEC = {"pipeline_spec": {"pipelineInfo": {"name": "training"}, "root": {}}}


def with_pipelines(desk: Desk, *names: str) -> Kubeflow:
    """Give the project pipelines whose last upload the ledger knows and Kubeflow has."""
    kubeflow = Kubeflow()
    desk.context.__dict__["kubeflow"] = kubeflow
    for name in names:
        desk.write(f"pipeline_templates/{name}.yaml", "")
        kubeflow.versions[name] = Version(id=name, pipeline_id="p", name="main-1", spec=SPEC)
        told = {"pipeline_id": "p", "version_id": name, "version": "main-1", "content_digest": digest_of(kubeflow.versions[name])}
        desk.context.ledger.record_event("upload", "local", name, told["content_digest"], {**told, "commit": "c" * 40})
    return kubeflow


def test_a_version_that_is_gone_or_was_changed_in_kubeflow_is_drift(serving: Desk) -> None:
    kubeflow = with_pipelines(serving, "training", "scoring")
    serving.write("pipeline_templates/fresh.yaml", "")
    report = status(serving.context)
    assert report.exit_code == 0
    assert (other(report, "training").status, other(report, "fresh").cause) == (Status.DONE, "never uploaded")
    kubeflow.versions["training"] = Version(id="training", pipeline_id="p", name="main-1", spec={"pipeline_spec": {"root": {"dag": {}}}})
    del kubeflow.versions["scoring"]
    report = status(serving.context, ["training", "scoring"])
    assert {result.details["kind"] for result in report.results} == {"pipeline"}
    assert other(report, "training").details["drift"] == ["version main-1 has other content in Kubeflow than was uploaded"]
    assert other(report, "scoring").details["drift"] == ["version main-1 is gone from Kubeflow"]
    assert (report.exit_code, "trainshed upload scoring" in other(report, "scoring").message) == (1, True)


def test_a_kubeflow_that_does_not_answer_is_asked_once_and_hides_no_service(serving: Desk) -> None:
    kubeflow = with_pipelines(serving, "training", "scoring")
    kubeflow.away = RemoteError("nobody answers")
    report, service = asked(serving)
    assert (kubeflow.asked, service.status) == (1, Status.DONE)
    assert {other(report, name).exit_code for name in ("training", "scoring")} == {5}
    assert report.exit_code == 5


def test_a_version_that_an_undone_release_took_away_is_not_missed(serving: Desk) -> None:
    with_pipelines(serving, "training")
    told = {"pipeline_id": "p", "version_id": "undone", "version": "v1.4.0", "content_digest": f"sha256:{'7' * 64}"}
    serving.context.ledger.record_event("upload", "local", "training", told["content_digest"], told)
    assert other(status(serving.context), "training").cause == "drifted"
    serving.context.ledger.record_event("version-deleted", "local", "training", "undone", {"version": "v1.4.0"})
    found = other(status(serving.context), "training")
    assert (found.status, found.details["version"]) == (Status.DONE, "main-1")


def test_the_version_of_the_release_in_force_is_asked_for_after_another_upload(serving: Desk) -> None:
    kubeflow = with_pipelines(serving, "training")
    digest = digest_of(kubeflow.versions["training"])
    told = Pipeline(pipeline="training", pipeline_id="p", version="v1.4.0", version_id="old", content_digest=digest)
    (found,) = pipelines.results(serving.context, ["training"], {"training": told}, stopped=False)
    assert found.details["drift"] == ["the release's version v1.4.0 is gone from Kubeflow"]
    kubeflow.versions["old"] = kubeflow.versions["training"]
    (found,) = pipelines.results(serving.context, ["training"], {"training": told}, stopped=False)
    assert found.status is Status.DONE


def scheduled(desk: Desk, version: str, *, pipeline: str = "training", project: str = "") -> RecurringRun:
    own = project or desk.context.config.project.name
    mark = Mark(project=own, environment="local", pipeline=pipeline, schedule="nightly")
    trigger = Trigger(cron="0 0 2 * * *")
    return RecurringRun(id="1", name="nightly", enabled=True, trigger=trigger, pipeline_id="p", version_id=version, description=str(mark))


def test_a_schedule_of_a_version_that_is_gone_is_drift_of_its_own_pipeline(serving: Desk) -> None:
    kubeflow = with_pipelines(serving, "training", "scoring")
    hosted = replace(serving.context.config.environment.kubeflow, host="https://kubeflow.example")
    serving.context.config = replace(serving.context.config, environment=replace(serving.context.config.environment, kubeflow=hosted))
    latest = replace(scheduled(serving, "", pipeline="scoring"), id="2")
    foreign = scheduled(serving, "gone", pipeline="scoring", project="other")
    kubeflow.schedules = [scheduled(serving, "training"), latest, foreign, replace(foreign, description="somebody's own")]
    report = status(serving.context)
    assert [other(report, name).details["schedules"] for name in ("training", "scoring")] == [1, 1]
    assert report.exit_code == 0
    kubeflow.schedules = [scheduled(serving, "gone"), latest]
    report = status(serving.context)
    assert other(report, "training").details["drift"] == ["schedule nightly runs version gone, which is gone from Kubeflow"]
    assert other(report, "scoring").status is Status.DONE
    kubeflow.schedules = Denied("the account may not list them")
    report = status(serving.context)
    assert report.exit_code == 0
    notes = [note for name in ("scoring", "training") for note in other(report, name).details["notes"]]
    assert notes == ["schedules are not known: the account may not list them"]


def test_an_image_that_is_gone_from_the_registry_is_drift_of_all_who_refer_to_it(serving: Desk) -> None:
    report = status(serving.context)
    assert {result.name: result.details["there"] for result in report.results if result.details["kind"] == "images"} == {
        "images of the lock": 1,
        "images of running services": 1,
    }
    serving.images.known.clear()
    report = status(serving.context)
    gone = f"image answer sha256:{'1' * 64} is gone from the registry"
    assert other(report, "images of the lock").details["drift"] == other(report, "images of running services").details["drift"] == [gone]
    assert report.exit_code == 1


def test_what_was_never_released_or_locked_is_said_and_not_red(desk: Desk) -> None:
    locking.path(desk.context).unlink()
    report = status(desk.context)
    assert {result.name: result.cause for result in report.results} == {
        "answer": "never deployed",
        "images": "nothing refers to any",
        "release": "nothing was released here",
    }
    assert report.exit_code == 0


def release(desk: Desk, monkeypatch: pytest.MonkeyPatch, *, source: str = "local") -> None:
    """Record a release of what serves; its tag is in this clone."""
    known = {f"refs/tags/{tag}": commit for tag, commit in (("v1.4.0", released.COMMIT), ("v1.5.0", "b" * 40))}
    monkeypatch.setattr("trainshed.tools.git.commit_of", lambda _root, name: known.get(name))
    monkeypatch.setattr("trainshed.tools.git_tags.remote", lambda *_, **__: None)
    ((arn, definition),) = desk.ecs.definitions.items()
    room = Room(here=desk.context, there=desk.context)
    told: dict[str, Any] = {
        "name": "answer",
        "service": "answer",
        "revision": "answer:1",
        "arn": arn,
        "model": None,
        "golden": "",
        "definition": {},
    }
    unit = unit_of(definition)
    result = {**told, "unit": unit.document(), "digest": unit.digest}
    released.recorded(desk.context, replace(released.plan(room, "1.4.0", ["answer"], {}), source=source), [result])


def test_the_release_in_force_stands_while_its_tag_its_images_and_its_units_do(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch)
    report = status(serving.context)
    told = other(report, "release")
    assert (report.exit_code, told.status, told.details["release"], told.details["commit"]) == (0, Status.DONE, "1.4.0", released.COMMIT)
    assert other(report, "images of release 1.4.0").details["there"] == 1


def test_a_newer_build_of_another_environment_is_no_drift_of_production(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch, source="dev")
    serving.build("2")
    report, service = asked(serving)
    assert (report.exit_code, service.details["drift"]) == (0, []), serving.said.getvalue()
    assert "the lock is not compared: what dev builds comes to local by a release" in serving.said.getvalue()


def test_a_moved_tag_and_a_service_that_serves_something_else_since_are_drift(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch)
    monkeypatch.setattr("trainshed.tools.git.commit_of", lambda *_: "b" * 40)
    serving.build("2")
    serving.ecs.steps = [complete]
    assert serving.result().status is Status.DONE
    told = other(status(serving.context), "release")
    moved, since = told.details["drift"]
    assert moved == f"tag v1.4.0 names commit {'b' * 40} here, the release is of {released.COMMIT}"
    assert since.startswith("answer: answer:2 serves since ")
    assert since.endswith("the release has answer:1")
    assert "`trainshed rollback --release v1.4.0`" in told.message


def test_the_tag_on_the_remote_is_compared_too(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch)
    monkeypatch.setattr("trainshed.tools.git_tags.remote", lambda *_, **__: Remote(name="origin", url="https://git.example/x"))
    cases: list[tuple[dict[str, str], list[str]]] = [
        ({"v1.4.0": released.COMMIT}, []),
        ({}, ["tag v1.4.0 is gone from the remote"]),
        ({"v1.4.0": "b" * 40}, [f"tag v1.4.0 names commit {'b' * 40} on the remote, the release is of {released.COMMIT}"]),
    ]
    for remote, drift in cases:
        monkeypatch.setattr("trainshed.tools.git_tags.remote_tags", lambda *_, told=remote: told)
        report = status(serving.context)
        told = other(report, "release")
        assert (told.details["drift"], told.details["notes"], report.exit_code) == (drift, [], 1 if drift else 0)


def test_a_remote_that_does_not_answer_is_noted_and_no_drift(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def tags(*_: object) -> dict[str, str]:
        raise RemoteError("it does not answer")

    release(serving, monkeypatch)
    monkeypatch.setattr("trainshed.tools.git_tags.remote", lambda *_, **__: Remote(name="origin", url="https://git.example/x"))
    monkeypatch.setattr("trainshed.tools.git_tags.remote_tags", tags)
    report = status(serving.context)
    told = other(report, "release")
    assert (report.exit_code, told.details["drift"]) == (0, [])
    assert told.details["notes"] == ["the remote's tags are not known: it does not answer"]


def test_a_release_that_nobody_finished_is_drift(serving: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    release(serving, monkeypatch)
    room = Room(here=serving.context, there=serving.context)
    entry = journal.begin(serving.context, released.plan(room, "1.5.0", ["answer"], {}))
    journal.doing(serving.context, entry, "upload")
    (line,) = other(status(serving.context), "release").details["drift"]
    assert line.startswith("release 1.5.0 was begun by ")
    assert line.endswith("is open, at the step upload")
