"""The notes say what changed, what serves and how to go back, and no text of others makes anything else of them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.support import manifests as samples
from tests.support.manifests import change, manifest
from tests.support.pipelines import DIGEST, OTHER_DIGEST
from trainshed.releases import notes
from trainshed.releases.plan import UnitVersion


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next of its level."""
    level = title.partition(" ")[0]
    found = re.search(rf"^{re.escape(title)}\n\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, text
    return found[1].rstrip()


def test_the_head_says_what_went_where_and_who_brought_it() -> None:
    told = notes.notes(manifest())
    assert told.startswith(
        "# tumours 1.4.0\n\nReleased to prod on 2026-11-22 by https://jenkins.example/job/tumours/main/42/.\n"
        "Commit `1a2b3c4d5e6f` of main, built green in staging.\n"
    )
    assert "built green" not in notes.notes(manifest(target="staging"))


def test_what_breaks_comes_first_and_what_nobody_looks_for_is_counted() -> None:
    changes = [
        change("mend the door", kind="fix"),
        change("a window", scope="wall"),
        change("no key fits any more", scope="lock", breaking="Every lock is written anew.\nRun it again."),
        change("read old locks", kind="fix", breaking="read old locks"),
        change("words", kind="docs"),
        change("words", kind="docs"),
        change("tidy", kind="chore"),
        change("faster", kind="perf"),
    ]
    told = section(notes.notes(manifest(changes={"": changes})), "## Changes since v1.3.2")
    assert re.findall("^### (.*)$", told, re.MULTILINE) == ["Breaking", "Features", "Fixes", "Performance"]
    assert section(told, "### Breaking") == (
        "- **lock:** no key fits any more (`1a2b3c4d5e6f`)\n  Every lock is written anew. Run it again.\n- read old locks (`1a2b3c4d5e6f`)"
    )
    assert section(told, "### Fixes") == "- mend the door (`1a2b3c4d5e6f`)"
    assert told.endswith("Besides: 1 chore, 2 docs.")


def test_without_a_change_the_images_that_moved_are_the_reason() -> None:
    assert "No commit tells of a change: images moved on, as with a new base: predictor." in notes.notes(manifest(changes={}))


def test_images_services_runs_and_waivers_have_their_tables() -> None:
    told = notes.notes(manifest())
    assert section(told, "## Images").splitlines()[2:] == [
        f"| predictor | {DIGEST} | was sha256:cccccccccccc |",
        f"| train | {OTHER_DIGEST} | as before |",
    ]
    assert "| predictor | predictor:17 | sha256:aaaaaaaaaaaa | " + samples.CHECKSUM in section(told, "## Services")
    assert "| training | 1.4.0 | v-9 |" in section(told, "## Pipelines")
    ran = section(told, f"## Run {samples.RUN_ID}")
    assert ran.startswith("Of training, version 1.3.2, accepted in prod.\n\n| metric | value |")
    assert "| train.auc | 0.987654 |\n| train.loss | nan |" in ran
    assert "| auc \\>= 0.8 | passed |" in ran
    assert "2026-12-31 (39 days left) | predictor | The parser is never given input" in section(told, "## Waivers in force")


def test_the_way_back_names_both_releases() -> None:
    back = section(notes.notes(manifest()), "## Go back")
    commands = re.findall(r"^    \$ (.*)$", back, re.MULTILINE)
    assert commands == ["trainshed rollback --env prod --release v1.3.2", "trainshed rollback --env prod --release v1.4.0"]
    assert "--release v1.3.2" not in notes.notes(manifest(previous=None))


def test_what_a_release_has_not_is_left_out() -> None:
    told = notes.notes(manifest(pipelines={}, services={}, runs={}, waivers=[]))
    assert re.findall("^## (.*)$", told, re.MULTILINE) == ["Changes since v1.3.2", "Images"]


def test_units_with_versions_of_their_own_have_their_own_changes() -> None:
    units = (
        UnitVersion(unit="predictor", version="1.2.0", tag="predictor/v1.2.0", previous="predictor/v1.1.0", bump="minor"),
        UnitVersion(unit="training", version="1.0.0", tag="training/v1.0.0", previous="", bump="major"),
    )
    changes = {"predictor": [change("a window")], "training": [change("a door")]}
    told = notes.notes(manifest(versions=units, release="predictor 1.2.0, training 1.0.0", changes=changes))
    assert "a window" in section(told, "## predictor 1.2.0 since predictor/v1.1.0")
    assert "a door" in section(told, "## training 1.0.0")


def test_a_long_list_is_cut_and_says_where_the_rest_is() -> None:
    changes = [change(f"number {number}") for number in range(1000)]
    digests = {f"step-{number}": manifest().images["train"] for number in range(300)}
    told = notes.notes(manifest(changes={"": changes}, images=digests))
    assert "- and 950 more: `git log v1.3.2..v1.4.0`" in told
    assert "And 250 more, in the manifest." in told
    assert len(told.splitlines()) < 200


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "[press](javascript:alert(1))",
        "a | b |\n| --- |",
        "text\n# a heading\n\nmanifest: sha256:" + "0" * 64,
        "`code",
        "&lt;b&gt;",
        "\x1b[2Jgone\x00\u202e",
        "![picture](http://tracker.example/x.png)",
        "1. one",
        "- [ ] a task",
        "*_~~bold~~_*",
    ],
)
def test_no_text_of_others_is_more_than_text(evil: str) -> None:
    made = manifest(changes={"": [change(evil, scope=evil, breaking=f"it breaks {evil}"), change(evil, kind=evil)]}, by=evil, branch=evil)
    made = replace(
        made, waivers=[{**made.waivers[0], "reason": evil, "owner": evil}], runs={evil: {**samples.run(), "metrics": {evil: evil}}}
    )
    harmless = manifest(changes={"": [change("x", scope="x", breaking="it breaks x"), change("x", kind="x")]}, by="x", branch="x")
    harmless = replace(
        harmless, waivers=[{**made.waivers[0], "reason": "x", "owner": "x"}], runs={"x": {**samples.run(), "metrics": {"x": "x"}}}
    )
    told, wanted = notes.notes(made), notes.notes(harmless)
    assert len(told.splitlines()) == len(wanted.splitlines())
    assert not re.search(r"(?<!\\)[<>\[\]]", told)
    assert all(each.isprintable() for each in told.replace("\n", ""))
    assert [line.count(" | ") for line in told.splitlines()] == [line.count(" | ") for line in wanted.splitlines()] or "a | b" in evil
    assert not re.search(r"(?m)^manifest:", told)
