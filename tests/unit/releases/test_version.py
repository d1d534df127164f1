"""The version that comes next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from semver import Version

from trainshed.releases import version
from trainshed.releases.commits import Commit, changes

COMMIT = "1a2b3c4" + "0" * 33


def following(previous: str | None, *subjects: str, bump: str = "auto", moved: tuple[str, ...] = ()) -> version.Next:
    commits = [Commit(id=f"{number:040x}", subject=subject) for number, subject in enumerate(subjects, 1)]
    return version.next_version(previous, changes(commits), bump, moved=moved)


@pytest.mark.parametrize(
    ("previous", "subjects", "expected"),
    [
        ("1.3.2", ["fix: a"], ("1.3.3", "patch")),
        ("1.3.2", ["perf: a"], ("1.3.3", "patch")),
        ("1.3.2", ["revert: an old one"], ("1.3.3", "patch")),
        ("1.3.2", ["fix: a", "feat: b", "fix: c"], ("1.4.0", "minor")),
        ("1.3.2", ["feat: a", "chore!: b"], ("2.0.0", "major")),
        ("1.3.2", ["docs: a", "chore: b", "words"], (None, "")),
        ("1.3.2", [], (None, "")),
        ("0.3.2", ["feat!: a"], ("0.4.0", "minor")),
        ("0.3.2", ["fix: a"], ("0.3.3", "patch")),
        (None, ["docs: a"], ("0.1.0", "minor")),
        (None, ["feat!: a"], ("0.1.0", "minor")),
    ],
)
def test_the_greatest_growth_that_commits_ask_for_counts(
    previous: str | None, subjects: list[str], expected: tuple[str | None, str]
) -> None:
    found = following(previous, *subjects)
    assert (found.version, found.bump) == expected


@pytest.mark.parametrize(
    ("previous", "bump", "expected"),
    [
        ("1.3.2", "patch", "1.3.3"),
        ("1.3.2", "minor", "1.4.0"),
        ("0.3.2", "major", "1.0.0"),
        (None, "major", "1.0.0"),
        (None, "patch", "0.1.0"),
    ],
)
def test_a_growth_can_be_asked_for_by_hand(previous: str | None, bump: str, expected: str) -> None:
    assert following(previous, "docs: a", bump=bump).version == expected


def test_other_images_without_a_commit_that_asks_make_a_patch() -> None:
    found = following("1.3.2", "docs: a", moved=("train", "base-python"))
    assert (found.version, found.bump) == ("1.3.3", "patch")
    assert "base-python, train" in found.why
    assert following("1.3.2", "feat: a", moved=("train",)).version == "1.4.0"


def test_the_reason_names_the_commit_that_decides() -> None:
    found = following("1.3.2", "fix: a", "feat: b", "docs: c")
    assert [(change.text, growth) for change, growth in found.asked] == [("a", "patch"), ("b", "minor")]
    assert found.why == "2 commits ask for a version since 1.3.2; the greatest growth is minor, by 0000000 (feat: b)."
    assert "--bump major leaves 0.x" in following("0.3.2", "feat!: a").why
    assert "by hand; the commits since 1.3.2 ask for major" in following("1.3.2", "feat!: a", bump="patch").why


@pytest.mark.parametrize(
    ("tag", "unit", "expected"),
    [
        ("v1.4.0", "", "1.4.0"),
        ("v1.4.0+build.7", "", "1.4.0"),
        ("predictor/v1.4.0", "predictor", "1.4.0"),
        ("predictor/v1.4.0", "", None),
        ("v1.4.0", "predictor", None),
        ("v1.5.0-rc.1", "", None),
        ("1.4.0", "", None),
        ("v1.4", "", None),
        ("v01.4.0", "", None),
        ("v1.4.0\n", "", None),
        ("vintage", "", None),
        ("v" + "9" * 5000 + ".0.0", "", None),
    ],
)
def test_only_a_units_own_releases_count_among_tags(tag: str, unit: str, expected: str | None) -> None:
    found = version.released(tag, unit)
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize(
    ("previous", "subjects", "label", "dirty", "expected"),
    [
        ("1.3.2", ["feat: a"], "pr.123.7", False, "1.4.0-pr.123.7+g1a2b3c4"),
        ("1.3.2", ["docs: a"], "branch.topic.7", False, "1.3.3-branch.topic.7+g1a2b3c4"),
        (None, ["docs: a"], "dev.1", True, "0.1.0-dev.1+g1a2b3c4.dirty"),
    ],
)
def test_a_build_that_is_no_release_has_a_pre_release(
    previous: str | None, subjects: list[str], label: str, dirty: bool, expected: str
) -> None:
    assert version.pre_release(previous, following(previous, *subjects), label, commit=COMMIT, dirty=dirty) == expected


@limits(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_every_branch_makes_a_version(branch: str) -> None:
    made = version.pre_release("1.3.2", following("1.3.2"), f"branch.{version.slug(branch)}.7", commit=COMMIT)
    assert Version.parse(made) < Version.parse("1.3.3")


@pytest.mark.parametrize(
    ("branch", "slug"), [("feature/Neue_Äpfel", "feature-neue-pfel"), ("007", "b-007"), ("123", "123"), ("--", "b"), ("x" * 60, "x" * 40)]
)
def test_a_branch_is_written_so_that_a_version_takes_it(branch: str, slug: str) -> None:
    assert version.slug(branch) == slug
