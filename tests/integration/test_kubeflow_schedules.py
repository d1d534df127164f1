"""Recurring runs brought to what is declared, on a strict server that fails at every step; and what is not ours stays."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from tests.support.kubeflow_project import FlowProject, told
from tests.support.kubeflow_server import Fault, StrictServer
from trainshed.errors import TrainshedError, UsageError
from trainshed.ledger.leases import Lease
from trainshed.results import Report, Result, Status
from trainshed.settings import Tier
from trainshed.stages.schedule import schedule
from trainshed.stages.upload import upload
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import RecurringRun, Trigger

DECLARED = '[schedules.nightly]\nenvironments = ["local"]\ncron = "0 0 3 * * *"\nparameters = { rows = 5 }\n'
LATER = DECLARED.replace("0 0 3", "0 0 4")
RUNS = "/apis/v2beta1/recurringruns"


class World:
    """A project with an uploaded pipeline, and the server."""

    def __init__(self, folder: Path, server: StrictServer, address: str) -> None:
        self.server, self.flows = server, FlowProject(folder / "project", address)
        self.flows.settle()
        self.flows.commit()
        self.upload()

    def upload(self) -> None:
        with self.flows.open(Tier.MAIN) as context:
            assert upload(context).exit_code == 0

    def configure_without(self, word: str) -> None:
        """Take the lines with a word out of the configuration."""
        file = self.flows.root / "trainshed.toml"
        file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if word not in line))

    def declare(self, text: str, name: str = "training") -> None:
        (self.flows.root / "pipeline_templates" / f"{name}.toml").write_text(text)

    def run(self, *, dry_run: bool = False, names: tuple[str, ...] = ()) -> Report:
        with self.flows.open(Tier.MAIN) as context:
            return schedule(context, names, dry_run=dry_run)

    def one(self, *, dry_run: bool = False) -> Result:
        (result,) = self.run(dry_run=dry_run).results
        return result

    def kept(self) -> list[RecurringRun]:
        with self.flows.open(Tier.MAIN) as context:
            return list(context.kubeflow.recurring_runs())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("BUILD_URL", "https://ci.example.org/job/1/")
    monkeypatch.setenv("BRANCH_NAME", "main")
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)
    server = StrictServer()
    with server.serve() as address:
        yield World(tmp_path, server, address)


def test_a_declared_schedule_is_created_once_and_then_left_alone(world: World) -> None:
    world.declare(DECLARED)
    world.server.requests.clear()
    assert (world.one(dry_run=True).status, world.kept()) == (Status.SKIPPED, [])
    assert {each.method for each in world.server.requests} == {"GET"}
    created = world.one()
    assert (created.name, created.status, created.cause) == ("training.nightly", Status.DONE, "created")
    (kept,) = world.kept()
    assert (kept.enabled, kept.trigger, dict(kept.parameters)) == (True, Trigger(cron="0 0 3 * * *"), {"rows": 5})
    assert kept.version_id
    assert kept.description.splitlines()[0] == "trainshed: project=flows environment=local pipeline=training schedule=nightly"
    assert len(kept.description) <= 255  # the column of a real server
    again = world.one()
    assert (again.status, again.cause, again.details["recurring_run_id"]) == (Status.CACHED, "unchanged", kept.id)


def test_a_change_is_told_field_by_field_and_the_old_one_goes_last(world: World) -> None:
    world.declare(DECLARED)
    (old,) = [world.one().details["recurring_run_id"]]
    world.declare(LATER.replace("rows = 5", "rows = 6") + "max-concurrency = 2\n")
    wanted = "changed: cron 0 0 3 * * * → 0 0 4 * * *, max-concurrency 1 → 2, parameter rows 5 → 6"
    assert world.one(dry_run=True).cause == f"dry run: {wanted}"
    assert [each.id for each in world.kept()] == [old]
    world.server.requests.clear()
    assert world.one().cause == wanted
    (kept,) = world.kept()
    new = kept.id
    done = [(each.method, each.path.removeprefix(RUNS)) for each in world.server.requests if each.method != "GET"]
    assert done == [("POST", ""), ("POST", f"/{new}:enable"), ("POST", f"/{old}:disable"), ("DELETE", f"/{old}")]
    assert world.one().cause == "unchanged"


def test_a_new_version_moves_the_schedule(world: World) -> None:
    world.declare(DECLARED)
    before = world.one().details["version"]
    world.flows.template("training", "print('other')")
    world.flows.settle()
    world.flows.commit()
    world.upload()
    moved = world.one()
    assert moved.cause == f"changed: version {before} → {moved.details['version']}"
    assert len(world.kept()) == 1


@pytest.mark.parametrize("how", ["disabled", "deleted", "copied", "edited"])
def test_what_somebody_did_in_kubeflow_is_shown_and_mended(world: World, how: str) -> None:
    world.declare(DECLARED)
    identifier = world.one().details["recurring_run_id"]
    with world.flows.open(Tier.MAIN) as context:
        client, (kept,) = context.kubeflow, list(context.kubeflow.recurring_runs())
        version = client.version(kept.pipeline_id, kept.version_id)
        if how == "disabled":
            client.disable_recurring_run(identifier)
        if how in {"deleted", "edited"}:
            client.delete_recurring_run(identifier)
        if how in {"copied", "edited"}:
            client.create_recurring_run(
                name=kept.name,
                version=version,
                trigger=Trigger(cron="0 0 5 * * *") if how == "edited" else kept.trigger,
                enabled=True,
                experiment=kept.experiment_id,
                parameters=kept.parameters,
                description=kept.description,
            )
    wanted = {
        "disabled": "changed in Kubeflow since: disabled → enabled",
        "deleted": "created: it was deleted in Kubeflow",
        "copied": "changed in Kubeflow since: 1 more of it",
        "edited": "changed in Kubeflow since: cron 0 0 5 * * * → 0 0 3 * * *",
    }
    assert world.one(dry_run=True).cause == f"dry run: {wanted[how]}"
    assert world.one().cause == wanted[how]
    (mended,) = world.kept()
    assert (mended.enabled, mended.trigger.cron) == (True, "0 0 3 * * *")
    assert world.one().cause == "unchanged"


def test_what_is_no_longer_declared_is_removed_and_others_stay(world: World) -> None:
    world.declare(DECLARED + DECLARED.replace("nightly", "second"))
    assert [result.cause for result in world.run().results] == ["created", "created"]
    with world.flows.open(Tier.MAIN) as context:
        client, kept = context.kubeflow, world.kept()[0]
        foreign = client.create_recurring_run(
            name=kept.name,
            version=client.version(kept.pipeline_id, kept.version_id),
            trigger=kept.trigger,
            enabled=True,
            experiment=kept.experiment_id,
            parameters={},
            description=kept.description.replace("project=flows", "project=other"),
        )
    world.declare(DECLARED)
    assert [result.cause for result in world.run(dry_run=True).results] == ["unchanged", "dry run: removed"]
    assert len(world.kept()) == 3
    assert [(result.name, result.cause) for result in world.run().results][1] == ("training.second", "removed")
    (world.flows.root / "pipeline_templates" / "training.toml").unlink()
    assert [result.cause for result in world.run().results] == ["removed"]
    assert [each.id for each in world.kept()] == [foreign.id]
    assert world.run().results == ()


def test_declared_disabled_is_kept_disabled_and_changed_in_place(world: World) -> None:
    world.declare(DECLARED + "enabled = false\n")
    identifier = world.one().details["recurring_run_id"]
    assert not world.kept()[0].enabled
    world.declare(DECLARED)
    result = world.one()
    assert (result.cause, result.details["recurring_run_id"]) == ("changed: disabled → enabled", identifier)
    assert world.one().cause == "unchanged"


STEPS = [
    ("POST", RUNS),
    ("POST", f"{RUNS}/[^/]+:enable"),
    ("POST", f"{RUNS}/[^/]+:disable"),
    ("DELETE", f"{RUNS}/[^/]+"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_whatever_step_fails_one_schedule_is_enabled_and_the_next_run_finishes(world: World, step: int, *, after: bool) -> None:
    world.declare(DECLARED)
    assert world.one().status is Status.DONE
    world.declare(LATER)
    method, path = STEPS[step]
    fault = world.server.faults.add(Fault(method, path, kind="403", times=None, after=after))
    failed = world.one()
    assert fault.seen
    assert failed.status is Status.FAILED
    assert [each for each in world.kept() if each.enabled], "nothing would run tonight"
    world.server.faults.clear()
    finished = world.one()
    assert finished.status in {Status.DONE, Status.CACHED}
    assert "in Kubeflow since" not in finished.cause  # nobody did anything there
    (kept,) = world.kept()
    assert (kept.enabled, kept.trigger.cron) == (True, "0 0 4 * * *")
    assert world.one().cause == "unchanged"


@pytest.mark.parametrize("kind", ["cut", "503", "500", "wrong-json"])
@pytest.mark.parametrize("step", range(4))
def test_a_lost_answer_makes_no_second_schedule(world: World, step: int, kind: str) -> None:
    world.declare(DECLARED)
    world.run()
    world.declare(LATER)
    method, path = STEPS[step]
    fault = world.server.faults.add(Fault(method, path, kind=kind, times=1, after=True))
    first = world.one()
    assert fault.seen
    if first.status is Status.FAILED:
        assert world.one().status in {Status.DONE, Status.CACHED}
    (kept,) = world.kept()
    assert (kept.enabled, kept.trigger.cron) == (True, "0 0 4 * * *")


def test_a_schedule_of_another_name_is_there_before_the_old_one_goes(world: World) -> None:
    world.declare(DECLARED)
    world.run()
    world.declare(DECLARED.replace("nightly", "renamed"))
    world.server.faults.add(Fault("POST", f"{RUNS}.*", kind="403", times=None))
    assert [result.status for result in world.run().results] == [Status.FAILED, Status.FAILED]
    assert [each.enabled for each in world.kept()] == [True]
    world.server.faults.clear()
    causes = {result.name: result.cause for result in world.run().results}
    assert causes == {"training.renamed": "created", "training.nightly": "removed"}
    assert len(world.kept()) == 1


def test_two_at_once_end_with_one_schedule(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.declare(DECLARED)
    world.run()
    world.declare(LATER)
    together, look = Barrier(2), KubeflowClient.recurring_runs

    def looked(self: KubeflowClient) -> Iterator[RecurringRun]:
        """Look, and go on when both have looked, which never happens when they come one after another."""
        found = list(look(self))
        with suppress(BrokenBarrierError):
            together.wait(0.5)
        yield from found

    monkeypatch.setattr(KubeflowClient, "recurring_runs", looked)
    with ThreadPoolExecutor(2) as pool:
        causes = sorted(job.result().cause for job in [pool.submit(world.one) for _ in range(2)])
    assert causes == ["changed: cron 0 0 3 * * * → 0 0 4 * * *", "unchanged"]
    assert len(world.kept()) == 1


def test_wrong_parameters_and_wrong_files_are_refused_before_anything_is_changed(world: World) -> None:
    world.declare(DECLARED)
    world.run()
    for text, message in (
        (
            DECLARED.replace("rows = 5", 'rowz = "x"'),
            "schedules.nightly: pipeline training has no parameter 'rowz'; perhaps you meant 'rows'",
        ),
        (DECLARED.replace('"local"', '"lcal"'), "no environment 'lcal'; perhaps you meant 'local'"),
    ):
        world.declare(text)
        with pytest.raises(UsageError) as caught:
            world.run()
        assert message in caught.value.message
    assert len(world.kept()) == 1


def test_gates_of_a_profile_are_said_to_be_nobodys(world: World) -> None:
    world.declare('[profiles.full]\ngates = ["auc >= 0.8"]\n' + DECLARED + 'profile = "full"\n')
    with world.flows.open(Tier.MAIN) as context:
        schedule(context)
        assert "the gates of profile full are judged by `trainshed launch`" in told(context)


def test_a_schedule_for_the_embedded_kubeflow_is_refused_and_none_is_no_error(world: World) -> None:
    world.configure_without("host")
    world.server.requests.clear()
    assert (world.run().exit_code, world.run().results) == (0, ())
    world.declare(DECLARED)
    with pytest.raises(UsageError, match="runs no schedules"):
        world.run()
    assert world.server.requests == []


def test_a_project_named_by_its_folder_has_no_schedules_for_another_checkout_would_make_its_own(world: World) -> None:
    world.configure_without("name =")
    assert world.run().exit_code == 0
    world.declare(DECLARED)
    with pytest.raises(UsageError, match=r"project\.name is not set"):
        world.run()


def test_who_may_not_see_recurring_runs_and_declares_none_is_warned(world: World) -> None:
    world.server.faults.add(Fault("GET", RUNS, kind="403", times=None))
    with world.flows.open(Tier.MAIN) as context:
        assert schedule(context).exit_code == 0
        assert "not looked for schedules that are no longer declared" in told(context)
    world.declare(DECLARED)
    with pytest.raises(TrainshedError, match="not permitted"):
        world.run()


def test_a_command_that_stood_still_too_long_goes_no_further(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.declare(DECLARED)
    monkeypatch.setattr(Lease, "lost", True)
    result = world.one()
    assert (result.status, "stood still" in result.message, world.kept()) == (Status.FAILED, True, [])


def test_an_older_server_than_the_pipeline_s_sdk_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_URL", "https://ci.example.org/job/1/")
    server = StrictServer(version="2.5.0")
    with server.serve() as address:
        world = World(tmp_path, server, address)
        world.declare(DECLARED)
        with world.flows.open(Tier.MAIN) as context:
            assert schedule(context).results[0].cause == "created"
            assert told(context).count("older than the SDK") == 1


def test_long_names_and_many_labels_are_kept_as_far_as_there_is_room(world: World) -> None:
    labels = ", ".join(f'label-{number} = "{"v" * 60}"' for number in range(9))
    world.declare(f'[profiles.full]\nlabels = {{ {labels} }}\n{DECLARED.replace("nightly", "n" * 63)}profile = "full"\n')
    assert world.one().cause == "created"
    assert world.one().cause == "unchanged"


def test_an_expired_login_changes_nothing(world: World) -> None:
    world.declare(DECLARED)
    world.server.faults.add(Fault("*", ".*", kind="login", times=None))
    with pytest.raises(TrainshedError, match=r"session expired|login"):
        world.run()
    world.server.faults.clear()
    assert world.kept() == []
