"""``.dockerignore``, with cases of moby/patternmatcher's own tests."""

from __future__ import annotations

import pytest

from trainshed.images.ignore import Ignore, of_text


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("**/dir", "dir", True),
        ("**/dir", "a/b/dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2/dir2/file", True),
        ("**/dir2/**", "dir2", False),
        ("**file", "file", True),
        ("**file", "dir/a.file", True),
        ("**/file", "afile", False),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/file*.txt*", "dir/dir/file.txtx", True),
        ("**/**/*.txt", "dir/dir/file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("a**/*.txt", "a/file.txt", True),
        ("a**/*.txt", "a/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        ("[[a]", "[", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("dist/*.whl", "dist/a.whl", True),
        ("?", "a", True),
        ("?", "/", False),
        ("a?c", "a/c", False),
        ("a", "a/b/c", True),
        ("a", "ab", False),
        ("/a", "a", True),
        ("/a/", "a/b", True),
        ("./a/../b", "b", True),
        (".", "a", False),
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("a\nb", "b", True),
        ("# a\na", "a", True),
        ("#a", "#a", False),
        ("  a  ", "a", True),
        ("\ufeffa", "a", True),
        ("a\r\nb\r\n", "a", True),
    ],
)
def test_one_pattern(pattern: str, path: str, excluded: bool) -> None:
    assert Ignore(pattern).excludes(path) is excluded


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ("*\n!README.md", "README.md", False),
        ("*\n!README.md", "a", True),
        ("!README.md\n*.md", "README.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("docs\n!docs/README.md", "docs/other.md", True),
        ("**\n!**/*.py", "src/deep/a.py", False),
        ("**\n!**/*.py", "src/deep/a.txt", True),
        ("*\n!src", "src/deep/a", False),
        ("a\n! b", "b", False),
    ],
)
def test_the_last_pattern_that_matches_a_path_or_a_folder_above_it_wins(patterns: str, path: str, excluded: bool) -> None:
    assert Ignore(patterns).excludes(path) is excluded


def test_it_is_known_whether_something_may_come_back_below_an_excluded_folder() -> None:
    assert Ignore("a\n!b").keeps
    assert not Ignore("a\nb").keeps


@pytest.mark.parametrize(
    ("text", "message"), [("a\n[a-", "2: the pattern '\\[a-' is broken"), ("!", "1: a pattern is missing"), ("[z-a]", "1: ")]
)
def test_a_broken_pattern_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ignore(text)


def test_the_same_text_is_read_once() -> None:
    assert of_text("a\nb") is of_text("a\nb")
