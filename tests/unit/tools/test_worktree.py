"""Working trees beside the user's own, of real repositories."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.tools import worktree


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *named, *words], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "first")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


def test_an_old_commit_is_set_up_beside_a_tree_that_stays_as_it_is(clone: Path, tmp_path: Path) -> None:
    first = git(clone, "rev-parse", "HEAD")
    commit(clone, "second")
    (clone / "file").write_text("not committed")
    (clone / ".git/hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    (clone / ".git/hooks/post-checkout").chmod(0o755)
    assert worktree.ensure(worktree.top(clone), tmp_path / "beside", first)
    assert (tmp_path / "beside/file").read_text() == "first"
    assert ((clone / "file").read_text(), git(clone, "symbolic-ref", "--short", "HEAD")) == ("not committed", "main")
    assert not (tmp_path / "hooked").exists()


def test_a_tree_that_is_there_is_used_again_while_only_our_folders_changed(clone: Path, tmp_path: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    worktree.ensure(clone, tmp_path / "beside", head)
    (tmp_path / "beside/build").mkdir()
    (tmp_path / "beside/build/lock").write_text("ours")
    assert not worktree.ensure(clone, tmp_path / "beside", head)


def test_a_changed_tree_another_commit_or_another_folder_is_refused(clone: Path, tmp_path: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    worktree.ensure(clone, tmp_path / "beside", head)
    (tmp_path / "beside/notes").write_text("mine")
    with pytest.raises(UsageError, match=r"changed since it was made:\n.*notes") as caught:
        worktree.ensure(clone, tmp_path / "beside", head)
    assert "git worktree remove --force" in caught.value.next_step
    with pytest.raises(UsageError, match="at commit"):
        worktree.ensure(clone, tmp_path / "beside", commit(clone, "second"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="no working tree"):
        worktree.ensure(clone, tmp_path / "plain", head)
    assert (tmp_path / "beside/notes").read_text() == "mine"


def test_a_folder_that_was_deleted_by_hand_is_made_again(clone: Path, tmp_path: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    worktree.ensure(clone, tmp_path / "beside", head)
    shutil.rmtree(tmp_path / "beside")
    assert worktree.ensure(clone, tmp_path / "beside", head)
    assert (tmp_path / "beside/file").read_text() == "first"


def test_a_commit_that_is_missing_here_comes_from_origin(origin: Path, clone: Path) -> None:
    new = commit(origin, "second")
    git(origin, "branch", "topic")
    assert worktree.resolve(clone, new) is None
    before = git(clone, "for-each-ref")
    worktree.fetch(clone, new)
    assert worktree.resolve(clone, new[:8]) == new
    assert git(clone, "for-each-ref") == before


def test_a_commit_that_nobody_has_is_said(clone: Path) -> None:
    with pytest.raises(UsageError, match="commit 1111111111111111111111111111111111111111 is not in this repository"):
        worktree.fetch(clone, "1" * 40)


def test_what_is_no_commit_at_all_is_no_option_of_git(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not in this repository"):
        worktree.fetch(clone, f"--upload-pack=touch {tmp_path}/pwned;git-upload-pack")
    assert not (tmp_path / "pwned").exists()


def test_a_folder_outside_of_a_repository_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="not in a git repository"):
        worktree.top(tmp_path)
