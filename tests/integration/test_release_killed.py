"""A release that is killed at any point is finished or undone by the next command, never left half: each step, before, during and after.

What is killed is a real process, by SIGKILL, between real registries, git, a strict Kubeflow and a scripted ECS.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.support.releasing import SERVICE, STEP, Ended, World
from trainshed.stages.releasing import journal
from trainshed.stages.releasing.journal import STEPS

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
