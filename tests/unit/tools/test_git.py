"""The head of a real repository; of none; of one that belongs to somebody else; and a git that does not answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from trainshed.errors import UsageError, WorkFailed
from trainshed.tools import git


def repository(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_text("1")
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet", "--initial-branch", "topic"], ["add", "file"], [*named, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, timeout=60)
    return folder


def test_a_clean_tree_has_a_commit_and_a_branch_and_a_changed_one_is_dirty(tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    found = git.head(root)
    assert (len(found.commit or ""), found.branch, found.dirty) == (40, "topic", False)
    (root / "new").write_text("untracked files count")
    assert git.head(root).dirty


def test_a_commit_has_its_tags_and_the_one_that_jenkins_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path / "repo")
    for tag in ("v1.0.0", "nightly"):
        subprocess.run(["git", "-C", str(root), "tag", tag], check=True, timeout=60)
    commit = git.head(root).commit or ""
    assert git.tags_of(root, commit) == ("nightly", "v1.0.0")
    monkeypatch.setenv("TAG_NAME", "v1.0.1")
    assert git.tags_of(root, commit) == ("nightly", "v1.0.0", "v1.0.1")


def test_a_folder_without_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git.head(tmp_path) == git.Head(commit=None, branch=None, dirty=True)


def test_a_checkout_of_another_user_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path / "repo")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run(["git", "-C", str(root), "status"], capture_output=True, check=False, timeout=60)
    assert refused.returncode == 128
    assert git.head(root).commit is not None


def test_a_folder_of_the_tree_that_looks_like_a_repository_is_not_asked_and_runs_nothing(tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    folder, ran = root / "ml", tmp_path / "ran"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(root), str(folder)], check=True, timeout=60)
    subprocess.run(["git", "--git-dir", str(folder), "--work-tree", str(folder), "read-tree", "HEAD"], check=True, timeout=60)
    (folder / "file").write_text("changed")
    (folder / "attributes").write_text("* filter=theirs\n")
    settings = {
        "core.bare": "false",
        "core.worktree": str(folder),
        "core.attributesFile": str(folder / "attributes"),
        "filter.theirs.clean": f"touch {ran}",
    }
    for name, value in settings.items():
        subprocess.run(["git", "config", "--file", str(folder / "config"), name, value], check=True, timeout=60)
    assert git.head(folder).dirty
    assert git.commit_of(folder, "topic") is None  # its refs would say which policy the target branch has
    assert not ran.exists()


def test_a_git_that_does_not_answer_is_no_tree_without_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_LIMIT_SECONDS", 0.1)
    with pytest.raises(WorkFailed, match=r"git rev-parse took longer than 0\.1 s"):
        git.head(tmp_path)


def test_a_file_of_a_commit_is_read_by_its_place_in_the_repository(tmp_path: Path) -> None:
    made = Repository.new(tmp_path / "repo")
    file = made.write("ml/a file.toml", "old\n")
    commit = made.commit()
    file.write_text("new\n")
    (made.root / "ml" / "link").symlink_to("a file.toml")
    (tmp_path / "door").symlink_to(made.root)
    later = made.commit()
    assert git.commit_of(file.parent, "HEAD") == later
    assert git.commit_of(file.parent, "HEAD~1") == commit
    assert git.commit_of(file.parent, "--all") is None
    assert [git.place_of(place) for place in (file, tmp_path / "door" / "ml" / ".." / "ml" / "a file.toml")] == ["ml/a file.toml"] * 2
    assert git.content(file.parent, commit, "ml/a file.toml") == "old\n"
    assert git.content(file.parent, later, "ml/a file.toml") == "new\n"
    assert git.content(file.parent, commit, "a file.toml") is None
    for path in ("ml/link", "ml"):
        with pytest.raises(UsageError, match=f"{path} is no plain file in {git.short(later)}"):
            git.content(made.root, later, path)


def test_a_commit_that_cannot_be_read_is_no_commit_without_the_file(tmp_path: Path) -> None:
    made = Repository.new(tmp_path / "repo")
    made.commit()
    with pytest.raises(WorkFailed, match="ls-tree"):
        git.content(made.root, "1" * 40, "trainshed.toml")


def test_a_file_outside_of_a_repository_has_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git.place_of(tmp_path / "trainshed.toml") is None
    assert git.commit_of(tmp_path, "HEAD") is None
