"""``rollback --release`` against a scripted ECS: what is believed, what is refused, and what is asked for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import released
from tests.support.deploying import SERVICE, Desk
from tests.support.scripted_ecs import ScriptedEcs, complete, wait
from trainshed import files
from trainshed.errors import Interrupted, NothingSelected, UsageError, WorkFailed
from trainshed.releases.manifest import Manifest
from trainshed.results import Report, Status
from trainshed.stages import rollback as rolling
from trainshed.stages.deploying import records
from trainshed.stages.registry import referring
from trainshed.stages.releasing import composing, current, journal, serving
from trainshed.stages.releasing.room import Room
from trainshed.tools import git, process
from trainshed.tools.kubeflow_records import NotFound

ARN = "arn:aws:ecs:us-east-1:000000000000:task-definition/answer"
GOOD, WRONG = (200, {"twice": 42}), (200, {"twice": 63})


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Return a desk after two releases, 1.0.0 of the first image with golden requests, and 1.1.0 of the second one, which serves."""
    desk.service(SERVICE + "golden: golden.json\n")
    desk.ecs.answers["/predict"] = GOOD
    release(desk, "1.0.0", "1")
    desk.service(SERVICE)
    release(desk, "1.1.0", "2")
    desk.ecs.requests.clear()
    return desk


def release(desk: Desk, version: str, digit: str) -> Manifest:
    room = Room(here=desk.context, there=desk.context)
    desk.build(digit)
    plan = released.plan(room, version, ["answer"], serving.before(room, ["answer"]))
    desk.ecs.steps = [complete]
    report = serving.deploy(room, plan)
    assert report.exit_code == 0, report.results[0].message
    return released.recorded(desk.context, plan, [result.document() for result in report.results])


def rollback(desk: Desk, name: str, *names: str, dry_run: bool = False) -> Report:
    return rolling.rollback(desk.context, names, release=name, dry_run=dry_run, deadline=60.0)


@pytest.mark.parametrize("name", ["1.0.0", "v1.0.0"])
def test_the_revision_of_the_release_serves_again_proven_as_it_was_then(desk: Desk, name: str) -> None:
    desk.ecs.steps = [wait, complete]
    report = rollback(desk, name)
    (result,) = report.results
    assert (report.exit_code, result.status) == (0, Status.DONE), result.message
    assert (result.details["revision"], result.details["previous"], result.details["release"]) == ("answer:1", "answer:2", "1.0.0")
    assert desk.ecs.changes() == ["UpdateService"]
    found = current.in_force(desk.context)
    assert found is not None
    assert (found.release, found.back, found.whole, found.going, found.services) == ("1.0.0", True, True, "", {"answer": f"{ARN}:1"})
    event = desk.context.ledger.events("deployment", "local", "answer", limit=1)[0].document
    assert (event["release"], event["state"]) == ("1.0.0", "good")
    desk.ecs.requests.clear()
    assert rollback(desk, name).results[0].status is Status.CACHED
    assert desk.ecs.changes() == []


def test_the_golden_requests_of_that_release_are_asked(desk: Desk) -> None:
    desk.ecs.answers["/predict"] = WRONG
    desk.ecs.steps = [complete]
    report = rollback(desk, "1.0.0")
    assert report.exit_code == 1
    assert "answer.twice is 63 instead of 42" in report.results[0].message
    found = current.in_force(desk.context)
    assert found is not None
    assert (found.release, found.going) == ("1.1.0", "1.0.0")


@pytest.mark.parametrize("how", ["deregistered", "gone", "another"])
def test_what_is_no_longer_registered_is_registered_again_as_the_same_unit(desk: Desk, how: str) -> None:
    unit = records.history(desk.context, "answer")[-1].unit
    if how == "deregistered":
        desk.ecs.definitions[f"{ARN}:1"]["status"] = "INACTIVE"
    elif how == "another":
        desk.ecs.definitions[f"{ARN}:1"]["containerDefinitions"][0]["image"] = "127.0.0.1:5000/small/answer@sha256:" + "9" * 64
    else:
        desk.ecs.definitions[f"{ARN}:0"] = desk.ecs.definitions.pop(f"{ARN}:1") | {"status": "INACTIVE"}
    looked = rollback(desk, "1.0.0", dry_run=True)
    assert "back from answer:2 to answer:1, which is registered again" in looked.results[0].cause
    assert desk.ecs.changes() == []
    desk.ecs.steps = [complete]
    (result,) = rollback(desk, "1.0.0").results
    assert result.status is Status.DONE, result.message
    assert (result.details["revision"], result.details["unit"]) == ("answer:3", unit)
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]
    tags = {tag["key"] for tag in desk.ecs.sent("RegisterTaskDefinition")[0]["tags"]}
    assert "trainshed:unit" in tags
    desk.ecs.requests.clear()
    assert rollback(desk, "1.0.0").results[0].status is Status.CACHED
    assert desk.ecs.changes() == []


def test_a_service_that_the_tree_no_longer_has_is_told_with_what_to_do(desk: Desk) -> None:
    shutil.rmtree(desk.context.config.project.components / "answer")
    with pytest.raises(UsageError, match="deployed answer, and this tree has no such service") as caught:
        rollback(desk, "1.0.0")
    assert caught.value.next_step.startswith("Check out 1a2b3c4")
    assert desk.ecs.changes() == []


def test_killed_after_the_call_the_same_command_takes_it_up_and_proves_it(desk: Desk) -> None:
    def killed(_: ScriptedEcs) -> None:
        process.stopping.set()

    desk.client.deregister(f"{ARN}:1")
    desk.ecs.requests.clear()
    desk.ecs.steps = [killed]
    with pytest.raises(Interrupted):
        rollback(desk, "1.0.0")
    process.stopping.clear()
    found = current.in_force(desk.context)
    assert found is not None
    assert (found.release, found.going) == ("1.1.0", "1.0.0")
    complete(desk.ecs)
    desk.ecs.answers["/predict"] = WRONG
    assert rollback(desk, "1.0.0").exit_code == 1
    desk.ecs.answers["/predict"] = GOOD
    assert rollback(desk, "1.0.0").results[0].status is Status.DONE
    assert desk.ecs.changes() == ["RegisterTaskDefinition", "UpdateService"]


def test_a_service_that_cannot_go_back_is_found_before_any_is_touched(desk: Desk) -> None:
    desk.images.known.clear()
    report = rollback(desk, "1.0.0")
    assert report.exit_code == UsageError.exit_code
    assert "is not in the registry" in report.results[0].message
    assert desk.ecs.changes() == []
    found = current.in_force(desk.context)
    assert found is not None
    assert (found.release, found.back, found.going) == ("1.1.0", False, "")


def test_services_that_came_later_are_left_alone_and_told(desk: Desk) -> None:
    desk.write("components/later/Dockerfile", "FROM scratch\n")
    desk.write("components/later/service.yaml", SERVICE.replace("answer", "later"))
    rollback(desk, "1.0.0", dry_run=True)
    assert "later: release 1.0.0 did not deploy it: it is left alone" in desk.said.getvalue()
    with pytest.raises(UsageError, match=r"no service of release 1\.0\.0 'later'"):
        rollback(desk, "1.0.0", "later")


def test_who_asks_for_both_or_for_what_never_was_is_told(desk: Desk) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        rolling.rollback(desk.context, release="1.0.0", to="answer:1")
    with pytest.raises(UsageError, match=r"known: v1\.1\.0, v1\.0\.0"):
        rollback(desk, "7.0.0")
    room = Room(here=desk.context, there=desk.context)
    released.recorded(desk.context, released.plan(room, "1.2.0", [], {}), [])
    with pytest.raises(NothingSelected):
        rollback(desk, "1.2.0")


def test_a_release_at_the_same_time_and_one_that_is_open_come_first(desk: Desk) -> None:
    with desk.context.ledger.lease("release:local:small"), pytest.raises(WorkFailed, match="is being made in local by process"):
        rollback(desk, "1.0.0")
    room = Room(here=desk.context, there=desk.context)
    journal.begin(desk.context, released.plan(room, "1.2.0", ["answer"], {}))
    with pytest.raises(WorkFailed, match=r"release 1\.2\.0 was begun by .* and not ended"):
        rollback(desk, "1.0.0")
    assert desk.ecs.changes() == []


def test_the_versions_of_its_pipelines_are_told_with_whether_they_are_there(desk: Desk) -> None:
    class Kubeflow:
        def version(self, pipeline_id: str, version_id: str) -> str:
            if version_id == "v-2":
                raise NotFound("there is none")
            return f"{pipeline_id} {version_id}"

    desk.context.__dict__["kubeflow"] = Kubeflow()
    room = Room(here=desk.context, there=desk.context)
    plan = released.plan(room, "1.2.0", ["answer"], {})
    known = journal.entries(desk.context)[0].done["deploy"]
    made = released.recorded(desk.context, plan, known)
    pipelines = {
        name: {"pipeline": name, "pipeline_id": "p", "version": "1.2.0", "version_id": version_id, "content_digest": "sha256:1"}
        for name, version_id in (("training", "v-1"), ("tuning", "v-2"))
    }
    made = replace(made, pipelines=pipelines)  # type: ignore[arg-type]
    entry = replace(journal.begin(desk.context, plan), manifest=composing.keep(desk.context, made))
    journal.settled(desk.context, journal.done(desk.context, entry, "tag", []))
    report = rollback(desk, "1.2.0", dry_run=True)
    assert {name: told["state"] for name, told in report.extra["pipelines"].items()} == {
        "training": "which is in Kubeflow",
        "tuning": "which is no longer in Kubeflow",
    }


def file_of(desk: Desk, made: Manifest) -> str:
    path = desk.root / "release.json"
    path.write_bytes(made.content())
    return str(path)


def first(desk: Desk) -> Manifest:
    return composing.find(desk.context, "1.0.0")


def test_the_file_of_a_manifest_that_the_ledger_knows_is_as_good_as_its_name(desk: Desk) -> None:
    desk.ecs.steps = [complete]
    assert rollback(desk, file_of(desk, first(desk))).results[0].details["revision"] == "answer:1"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"commit": "f" * 40}, "is not that of release 1.0.0 which the ledger knows"),
        ({"project": "another"}, "a release of another to local"),
        ({"target": "prod"}, "a release of small to prod"),
        ({"release": "3.0.0"}, "nobody vouches for release 3.0.0"),
    ],
)
def test_a_sealed_file_that_nobody_vouches_for_is_refused(desk: Desk, changed: dict[str, str], said: str) -> None:
    git.run(desk.root, "init", "-q", check=True)
    forged = replace(first(desk), **changed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said):
        rollback(desk, file_of(desk, forged))
    assert desk.ecs.changes() == []


def test_an_edited_file_is_refused(desk: Desk) -> None:
    path = Path(file_of(desk, first(desk)))
    path.write_text(files.read_text(path, what="it").replace("answer:1", "answer:2"))
    with pytest.raises(UsageError, match="its seal does not fit"):
        rollback(desk, str(path))


def test_where_the_ledger_was_lost_the_tag_that_was_pushed_vouches(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("remote")
    git.run(elsewhere, "init", "-q", "--bare", check=True)
    for words in (["init", "-q"], ["remote", "add", "origin", str(elsewhere)], ["commit", "-q", "--allow-empty", "-m", "feat: all"]):
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        git.run(desk.root, *who, *words, check=True)
    commit = git.head(desk.root).commit or ""
    made = replace(first(desk), commit=commit, release="3.0.0", versions=(replace(first(desk).versions[0], version="3.0.0", tag="v3.0.0"),))
    name = file_of(desk, made)
    git.run(
        desk.root,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "tag",
        "-a",
        "v3.0.0",
        "-m",
        f"manifest: {made.digest}",
        check=True,
    )
    with pytest.raises(UsageError, match="nobody vouches"):  # a tag that nobody pushed can be made by anybody
        rollback(desk, name)
    git.run(desk.root, "push", "-q", "origin", "v3.0.0", check=True)
    desk.ecs.steps = [complete]
    (result,) = rollback(desk, name).results
    assert (result.status, result.details["revision"]) == (Status.DONE, "answer:1"), result.message


def test_images_of_releases_stay_kept(desk: Desk) -> None:
    found = referring._released(desk.context, "local")
    assert {reference.partition("@")[2] for reference in found} == {f"sha256:{digit * 64}" for digit in "12"}
