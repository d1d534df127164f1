"""Three places tell where a tag is: they have to agree."""

from __future__ import annotations

import pytest

from trainshed.stages.versioning import Tags
from trainshed.tools.git_tags import Tag

ONE, TWO = "1" * 40, "2" * 40


def tags(*, local: str = "", remote: str | None = None, recorded: str = "", asked: bool = True) -> Tags:
    return Tags(
        local={"v1.0.0": Tag(name="v1.0.0", commit=local, tagger="Ada <ada@example.org>")} if local else {},
        remote=({"v1.0.0": remote} if remote else {}) if asked else None,
        recorded={"v1.0.0": (recorded, "https://jenkins/7")} if recorded else {},
        place="origin",
    )


@pytest.mark.parametrize(
    "told",
    [
        tags(local=ONE, remote=ONE, recorded=ONE),
        tags(remote=ONE, recorded=ONE),
        tags(local=ONE, asked=False),
        tags(recorded=ONE, asked=False),
        tags(local=ONE),
    ],
)
def test_places_that_agree_are_well(told: Tags) -> None:
    assert told.wrong(["v1.0.0"]) == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (tags(local=ONE, remote=TWO), ["was moved", "1111111 here", "2222222 on origin", "Ada"]),
        (
            tags(local=ONE, recorded=TWO, asked=False),
            ["was moved", "1111111 here", "2222222 in the ledger (released by https://jenkins/7)"],
        ),
        (tags(remote=ONE, recorded=TWO), ["was moved", "1111111 on origin"]),
        (tags(recorded=ONE), ["was deleted on origin", "1111111", "https://jenkins/7"]),
        (tags(local=ONE, recorded=ONE), ["was deleted on origin"]),
    ],
)
def test_a_tag_that_was_moved_or_deleted_is_told_with_its_commits_and_who(told: Tags, words: list[str]) -> None:
    [problem] = told.wrong(["v1.0.0"])
    assert all(word in problem for word in ["v1.0.0", *words])


def test_what_the_remote_has_counts_more_than_what_is_only_here() -> None:
    assert tags(local=ONE, remote=TWO).commits() == {"v1.0.0": TWO}
    assert "only here, made by Ada" in tags(local=ONE).where("v1.0.0")
