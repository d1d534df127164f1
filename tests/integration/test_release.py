"""A release between two accounts: the same digests with all that refers to them, one at a time, told in git, ledger and files."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

import pytest

from tests.support.oci import digest_of
from tests.support.registry import wait_until
from tests.support.releasing import COMPONENTS, PIPELINE, SERVICE, STEP, Ended, World, children, world
from trainshed.stages.releasing import journal
from trainshed.stages.releasing.journal import STEPS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[World]:
    assert docker_host  # the programs that tests start are there by then
    with world(tmp_path_factory.mktemp("release")) as built:
        yield built


@pytest.fixture
def production(made: World) -> World:
    made.restore()
    return made


def content(address: str, path: str) -> bytes:
    """Return what a registry has, past all clients of ours."""
    connection = http.client.HTTPConnection(address, timeout=60)
    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
    connection.request("GET", f"/v2/{path}", headers={"Accept": kinds})
    answer = connection.getresponse()
    found = answer.read()
    connection.close()
    assert answer.status == 200, (address, path, found)
    return found


def waiting(production: World) -> subprocess.Popen[str]:
    """Begin a release that waits for the rollout of its service; return the process that is its parent."""
    production.ecs.steps = []  # nothing comes to an end
    child = production.begin("release")

    def deploying() -> bool:
        with production.context("prod") as context:
            entry = journal.newest(context)
        return entry is not None and entry.doing == "deploy" and "UpdateService" in production.ecs.changes()

    production.ecs.requests.clear()
    wait_until(deploying, what="the release's deploy", seconds=120)
    return child


def test_a_release_brings_the_same_digests_and_what_refers_to_them_and_tells_it_everywhere(production: World) -> None:
    ended = production.release("--json")
    assert ended.code == 0, ended.said
    told, locked, found = ended.document, production.locked(), production.production()
    assert (told["release"], told["state"], told["versions"]) == ("0.2.0", "released", {"": "0.2.0"})
    for name in COMPONENTS:
        digest = locked[name]
        here, there = (content(place, f"{path}/small/{name}/manifests/{digest}") for place, path in production.sides)
        assert here == there
        assert digest_of(there) == digest
        index = json.loads(content(production.target, f"prod/small/{name}/manifests/{digest.replace(':', '-')}"))
        (referrer,) = index["manifests"]
        assert b"what is in" not in content(production.target, f"prod/small/{name}/manifests/{referrer['digest']}")
        (layer,) = json.loads(content(production.target, f"prod/small/{name}/manifests/{referrer['digest']}"))["layers"]
        assert content(production.target, f"prod/small/{name}/blobs/{layer['digest']}") == f"what is in {digest}".encode()
    assert found["versions"]["v0.2.0"] == locked[STEP]
    assert production.scheduled() == ["v0.2.0"]
    assert found["serves"][1] == locked[SERVICE]
    manifest = production.root / "build/release/release.json"
    assert digest_of(manifest.read_bytes()) == told["manifest"]
    tag = production.remote.git("cat-file", "-p", "v0.2.0")
    assert f"object {production.second}" in tag
    assert f"manifest: {told['manifest']}" in tag
    assert "better answers" in tag


def test_the_same_again_is_told_as_released_and_writes_the_files_anew(production: World) -> None:
    assert production.release().code == 0
    before, files = production.production(), ("release.json", "notes.md")
    contents = [(production.root / "build/release" / name).read_bytes() for name in files]
    production.checkout(production.second)
    production.ecs.requests.clear()
    again = production.release("--json")
    (*_, told) = again.document["results"]
    assert (again.code, told["status"], told["cause"]) == (0, "cached", "is released as 0.2.0")
    assert [(production.root / "build/release" / name).read_bytes() for name in files] == contents
    assert (production.production(), production.ecs.changes()) == (before, [])
    nothing, undo = production.release("--dry-run"), production.release("--dry-run", "--undo")
    assert "skipped (dry run: no commit asks for a version, and the images are those of 0.2.0)" in nothing.said
    assert "skipped (dry run: no release is open)" in undo.said


def test_a_dry_run_shows_the_notes_and_leaves_everything_as_it_is(production: World) -> None:
    with ledger(production) as connection:
        assert connection.execute("DELETE FROM verdicts WHERE check_name = 'scan'").rowcount > 0  # so it scans anew
        connection.commit()
        kept = list(connection.iterdump())
    before, refs = production.production(), production.git.git("for-each-ref")
    shown = production.release("--dry-run", "--json")
    (*_, told) = shown.document["results"]
    assert (shown.code, told["status"], told["release"]) == (0, "skipped", "0.2.0")
    assert "better answers" in told["notes"]
    assert {result["status"] for result in shown.document["results"] if result["stage"] == "release-scan"} == {"done"}
    assert (production.production(), production.git.git("for-each-ref")) == (before, refs)
    assert not (production.root / "build/release/release.json").exists()
    with ledger(production) as connection:
        assert list(connection.iterdump()) == kept


def ledger(production: World) -> AbstractContextManager[sqlite3.Connection]:
    return closing(sqlite3.connect(production.root / ".trainshed/ledger.sqlite"))


def test_two_at_once_one_wins_and_the_other_says_who_and_how_far(production: World) -> None:
    child = waiting(production)
    second = production.release()
    assert second.code == 1
    told = f"release 0.2.0 of {production.second[:7]} is being made by https://jenkins.example.org/job/small/job/main/7/ on "
    assert told in second.said
    assert "(step deploy, since " in second.said
    production.goes_on()
    first = production.ended(child)
    assert first.code == 0, first.said
    assert production.production()["release"] == ("0.2.0", "released")


def test_interrupted_it_says_so_and_the_next_command_goes_on(production: World) -> None:
    child = waiting(production)
    (command,) = children(child)
    os.kill(command, signal.SIGTERM)
    first = production.ended(child)
    assert (first.code, production.production()["release"]) == (130, ("0.2.0", "open"))
    assert "release 0.2.0 stays open (step deploy)" in first.said
    production.goes_on()
    again = production.release()
    assert again.code == 0, again.said
    assert production.production()["release"] == ("0.2.0", "released")


def test_a_rollout_that_fails_takes_the_whole_release_back(production: World) -> None:
    before = production.production()
    production.fails()
    ended: Ended = production.release()
    after = production.production()
    assert (ended.code, after["release"]) == (1, ("0.2.0", "undone"))
    assert {key: after[key] for key in ("versions", "tags")} == {key: before[key] for key in ("versions", "tags")}
    assert after["serves"] == before["serves"]
    production.goes_on()
    again = production.release()
    assert (again.code, production.production()["release"]) == (0, ("0.2.0", "released")), again.said


def test_a_schedule_that_does_not_fit_is_found_before_anything_is_deployed(production: World) -> None:
    file = production.root / f"pipeline_templates/{PIPELINE}.toml"
    file.write_text(file.read_text() + "parameters = { rows = 5 }\n")
    production.green("feat: more rows")
    before = production.production()
    production.ecs.requests.clear()
    ended = production.release()
    after = production.production()
    assert (ended.code, after["release"]) == (2, ("0.2.0", "undone")), ended.said
    assert "schedules.nightly: pipeline training has no parameter 'rows'" in ended.said
    assert {key: after[key] for key in ("versions", "serves", "tags")} == {key: before[key] for key in ("versions", "serves", "tags")}
    assert (production.ecs.changes(), production.scheduled()) == ([], ["v0.1.0"])


def test_a_service_that_is_gone_from_the_tree_serves_on_and_is_told(production: World) -> None:
    production.git.git("rm", "-r", "--quiet", "components/answer")
    production.green("feat: no answers")
    before = production.serves()
    ended = production.release()
    assert (ended.code, production.production()["release"]) == (0, ("0.2.0", "released")), ended.said
    assert "answer: release 0.1.0 brought it to prod, and this tree has it no more" in ended.said
    assert (production.serves(), production.scheduled()) == (before, ["v0.2.0"])


def test_an_old_build_that_is_replayed_is_refused(production: World) -> None:
    production.checkout(production.third)
    assert production.release().code == 0
    before = production.production()
    production.checkout(production.second)
    refused = production.release()
    assert (refused.code, production.production()) == (2, before)
    assert f"{production.second[:7]} is older than {production.third[:7]}, which is released as 0.2.0" in refused.said
    assert "`trainshed --env prod rollback --release VERSION`" in refused.said


# --- killed at any point: finished or undone by the next command, never left half: each step, before, during and after ------------

WHEN = ("before", "during", "after")
NUMBER = {"deploy": 2}
"""``during`` is after the first thing that a step did outside; of a deploy, after the call that changes the service."""


def decided(step: str, when: str) -> bool:
    return step in {"record", "schedule"} or (step == "tag" and when != "before")


def killed(production: World, step: str, when: str) -> None:
    ended = production.release(kill=f"{step}:{when}:{NUMBER.get(step, 1)}")
    assert ended.code == -9, ended.said
    production.keep("killed")


def assert_whole(production: World, release: str, commit: str, ended: Ended) -> None:
    """Assert that a release is in production: registry, Kubeflow, service, git, ledger and files tell the same."""
    assert ended.code == 0, ended.said
    found, locked = production.production(), production.locked(commit)
    assert found["release"] == (release, "released")
    assert all(locked[name] in found["images"][name] for name in locked)
    assert found["versions"][f"v{release}"] == locked[STEP]
    assert found["serves"][1] == locked[SERVICE]
    assert production.scheduled() == [f"v{release}"]
    remote = production.remote
    assert remote.git("rev-parse", f"v{release}^{{commit}}") == commit
    content = (production.root / "build/release/release.json").read_bytes()
    manifest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert f"manifest: {manifest}" in remote.git("tag", "--list", "--format", "%(contents)", f"v{release}")
    assert json.loads(content)["commit"] == commit
    with production.context("prod") as context:
        entry = journal.newest(context)
    assert entry is not None
    assert (entry.manifest, entry.doing, set(entry.done)) == (manifest, "", set(STEPS))
    assert (production.root / "build/release/notes.md").read_text().startswith(f"# small {release}")


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_release_is_whole_or_not_there_after_the_next_command(production: World, step: str, when: str) -> None:
    before = production.production()
    killed(production, step, when)

    again = production.release()
    assert_whole(production, "0.2.0", production.second, again)
    assert set(production.production()["versions"]) == {"v0.1.0", "v0.2.0"}

    production.restore("killed")
    undone = production.release("--undo")
    if decided(step, when):
        assert_whole(production, "0.2.0", production.second, undone)
    else:
        after = production.production()
        assert undone.code == 0, undone.said
        assert {key: after[key] for key in ("versions", "serves", "tags")} == {key: before[key] for key in ("versions", "serves", "tags")}
        assert after["release"] == ("0.2.0", "undone")
        assert not production.git.git("tag", "--points-at", production.second)


@pytest.mark.parametrize(
    ("step", "when"), [("upload", "during"), ("deploy", "during"), ("tag", "before"), ("tag", "during"), ("schedule", "before")]
)
def test_a_newer_build_undoes_or_finishes_what_an_older_one_left_and_is_released(production: World, step: str, when: str) -> None:
    killed(production, step, when)
    production.checkout(production.third)
    ended = production.release()
    release = "0.2.1" if decided(step, when) else "0.2.0"
    assert_whole(production, release, production.third, ended)
    tags = {"v0.1.0", "v0.2.0", "v0.2.1"} if decided(step, when) else {"v0.1.0", "v0.2.0"}
    assert set(production.production()["tags"]) == set(production.production()["versions"]) == tags
