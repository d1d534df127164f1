"""What commits say of themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from trainshed.releases.commits import Change, Commit, changes


def commit(subject: str, body: str = "", *, number: int = 1, merge: bool = False) -> Commit:
    return Commit(id=f"{number:040x}", subject=subject, body=body, merge=merge)


def told(subject: str, body: str = "", *, merge: bool = False) -> tuple[str, str, str, str] | None:
    found = changes([commit(subject, body, merge=merge)])
    return (found[0].type, found[0].scope, found[0].text, found[0].breaking) if found else None


def history(*subjects: str) -> list[str]:
    """Return the titles that stand of a history, the newest first; ``REVERT n`` reverts the n-th subject by its id."""
    made = []
    for number, subject in enumerate(subjects, 1):
        word, _, other = subject.partition(" ")
        if word == "REVERT":
            title = subjects[int(other) - 1]
            made.append(commit(f'Revert "{title}"', f"This reverts commit {int(other):040x}.\n", number=number))
        else:
            made.append(commit(subject, number=number))
    return [change.text for change in changes(reversed(made))]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("feat: add x", ("feat", "", "add x", "")),
        ("Feat(scope one): add x (#12)", ("feat", "scope one", "add x (#12)", "")),
        ("fix():x", ("fix", "", "x", "")),
        ("feat!: drop y", ("feat", "", "drop y", "drop y")),
        ("chore(api)!: drop y", ("chore", "api", "drop y", "drop y")),
        ("feat!(api): drop y", ("feat", "api", "drop y", "drop y")),
        ("docs: say it", ("docs", "", "say it", "")),
        ("fix: a: b", ("fix", "", "a: b", "")),
        ("fix: windows\r", ("fix", "", "windows", "")),
        ("Merged PR 12: feat: x", ("feat", "", "x", "")),
        ("add x", None),
        ("feat:", None),
        ("feat : x", None),
        ("https://example.org", None),
        ("feat(a: x", None),
        ("fixup! feat: x", None),
        ("squash! fix: x", None),
        ("", None),
    ],
)
def test_a_conventional_title_is_read(subject: str, expected: tuple[str, str, str, str] | None) -> None:
    assert told(subject) == expected


@pytest.mark.parametrize(
    ("body", "breaks"),
    [
        ("text\n\nBREAKING CHANGE: the key is gone", "the key is gone"),
        ("BREAKING-CHANGE: the key\n is gone\nRefs: #1", "the key is gone"),
        ("x\r\n\r\nBREAKING CHANGE: gone\r\n\r\nReviewed-by: Z\r\n", "gone"),
        ("BREAKING CHANGE:", "x"),
        ("BREAKING CHANGE #12", "12"),
        ("no BREAKING CHANGE: within a line", ""),
        ("breaking change: in small letters", ""),
    ],
)
def test_a_footer_says_what_breaks(body: str, breaks: str) -> None:
    assert told("fix: x", body) == ("fix", "", "x", breaks)


def test_what_breaks_counts_below_any_title() -> None:
    assert told("Drop it", "BREAKING CHANGE: gone") == ("", "", "Drop it", "gone")


@pytest.mark.parametrize("header", ["Merge pull request #12 from a/b", "Merged in topic (pull request #3)", "Merge branch 'x' into main"])
def test_a_squashed_branch_has_its_title_below_and_a_merge_tells_nothing_anew(header: str) -> None:
    assert told(header, "feat: x\n\nmore") == ("feat", "", "x", "")
    assert told(header, "feat: x\n\nmore", merge=True) is None
    assert told(header, "no title") is None
    assert told("feat: x (#12)", merge=True) == ("feat", "", "x (#12)", "")


@pytest.mark.parametrize(
    ("subjects", "standing"),
    [
        (["feat: a", "fix: b", "REVERT 1"], ["b"]),
        (["feat: a", "REVERT 1", "REVERT 2"], ["a"]),
        (["feat: a", "REVERT 1", "REVERT 2", "REVERT 3"], []),
        (["feat: a", "feat: a", "REVERT 1"], ["a"]),
        (["fix: b", 'Revert "feat: of an earlier release"'], ["feat: of an earlier release", "b"]),
        (["feat: a (#1)", 'Revert "feat: a (#1)" (#2)'], []),
        (["feat: a", "revert: feat: a"], []),
        (["feat: a", 'Revert "feat: a"', 'Reapply "feat: a"'], ["a"]),
        (["revert: something old"], ["something old"]),
        (['Revert "feat: a"', "feat: a"], ["a", "feat: a"]),
    ],
)
def test_a_commit_and_its_revert_cancel_each_other(subjects: list[str], standing: list[str]) -> None:
    assert history(*subjects) == standing


def test_a_revert_names_commits_in_its_footer() -> None:
    first, second = commit("feat: a", number=1 << 130), commit("fix: b", number=2 << 130)
    revert = commit("revert: let us not", f"Refs: {first.id[:9]}, {second.id[:9]}", number=3 << 130)
    assert changes([revert, second, first]) == []
    assert [change.type for change in changes([revert])] == ["revert"]


TITLES = st.sampled_from(["feat: a", "fix: b", "work", "feat(x)!: c", 'Revert "feat: a"', 'Revert "Revert "feat: a""', "fixup! fix: b"])


@limits(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TITLES, st.booleans()), max_size=8), st.text(max_size=20))
def test_no_history_makes_it_stumble(made: list[tuple[str, bool]], body: str) -> None:
    commits = [commit(title, body, number=number, merge=merge) for number, (title, merge) in enumerate(made)]
    found = changes(commits)
    places = [commits.index(change.commit) for change in found]
    assert places == sorted(set(places))
    assert all(isinstance(change, Change) for change in found)
