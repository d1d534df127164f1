"""The tags that decide a release: pushed to a real bare repository, and through http to one that asks for a token."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from tests.support.versions import Clone, Guarded, cloned, released
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.results import Status
from trainshed.stages.releasing import tagging
from trainshed.tools import git_tags
from trainshed.tools.git_tags import PushUnknown, TagTaken

TOKEN = "s3cret-token-of-nobody"  # noqa: S105 - made up


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    """Return a clone whose first commit is pushed."""
    with cloned(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def remote(clone: Clone) -> Repository:
    """Return what it is a clone of."""
    return Repository(clone.root.parent / "remote.git")


def test_a_tag_that_was_never_pushed_is_no_release(clone: Clone) -> None:
    clone.tag("v1.0.0")
    clone.commit("fix: a")
    clone.git("tag", "v1.0.1")
    assert clone.version() == "1.0.1"  # as this clone knows it
    assert clone.next() == "1.0.1"
    tagging.tag(clone.room(), clone.plan("v1.0.1"), message="notes")
    assert clone.git("cat-file", "-t", "v1.0.1") == "tag"
    clone.git("tag", "v1.1.0")
    clone.commit("feat: b")
    with pytest.raises(UsageError, match=r"tag v1\.1\.0 is in the way: .* was never pushed \(only here\)"):
        clone.planned()


def test_a_release_is_decided_by_the_push_of_its_tags(clone: Clone, remote: Repository) -> None:
    plan = clone.plan("training/v1.0.0", "predictor/v2.1.0")
    assert not tagging.pushed(clone.room(), plan)
    assert tagging.undo(clone.room(), plan) == []
    report = tagging.tag(clone.room(), plan, message="# notes\n\n* it ä\n\nmanifest: sha256:12")
    assert [(result.name, result.status, result.details["tag"]) for result in report.results] == [
        ("training", Status.DONE, "training/v1.0.0"),
        ("predictor", Status.DONE, "predictor/v2.1.0"),
    ]
    for place in (remote, clone):
        told = place.git("cat-file", "tag", "predictor/v2.1.0")
        assert told.startswith(f"object {plan.commit}\ntype commit\ntag predictor/v2.1.0\ntagger Ada <ada@example.org> ")
        assert told.endswith("\n\n# notes\n\n* it ä\n\nmanifest: sha256:12")
    assert tagging.pushed(clone.room(), plan)
    again = tagging.tag(clone.room(), plan, message="others")
    assert {result.status for result in again.results} == {Status.CACHED}
    with pytest.raises(WorkFailed, match="is decided"):
        tagging.undo(clone.room(), plan)


def test_a_tag_of_another_commit_is_refused_and_its_maker_told(clone: Clone, remote: Repository) -> None:
    clone.tag("v1.0.0")
    first = clone.git("rev-parse", "HEAD")
    clone.git("tag", "--delete", "v1.0.0")
    clone.commit("fix: a")
    plan = clone.plan("v1.0.0", "other/v1.0.0")
    with pytest.raises(TagTaken, match=rf"tag v1\.0\.0 is on origin .* for commit {first[:7]}, made by t <t@example.org>"):
        tagging.tag(clone.room(), plan, message="notes")
    assert remote.git("tag") == "v1.0.0"
    assert clone.git("tag") == ""
    clone.git("tag", "v3.0.0", first)
    with pytest.raises(TagTaken, match=rf"tag v3\.0\.0 is here, and not on origin .* for commit {first[:7]}"):
        tagging.tag(clone.room(), clone.plan("v3.0.0"), message="notes")


def test_two_who_push_at_once_have_one_winner(clone: Clone, remote: Repository, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", f"file://{remote.root}", str(tmp_path / "second")], check=True)
    second = Clone(tmp_path / "second")
    second.commit("fix: theirs")
    ends = []

    def go(each: Clone) -> None:
        try:
            tagging.tag(each.room(), each.plan("v1.0.0"), message="notes")
            ends.append("won")
        except (TagTaken, RemoteError) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=go, args=[each]) for each in (clone, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert ends.count("won") == 1
    second.close()


def test_a_push_whose_answer_was_lost_is_found_done(clone: Clone, remote: Repository) -> None:
    hook = remote.write("hooks/post-receive", "#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    plan = clone.plan("v1.0.0")
    [result] = tagging.tag(clone.room(), plan, message="notes").results
    assert result.details["tag"] == "v1.0.0"
    assert remote.git("rev-parse", "v1.0.0^{commit}") == plan.commit


def test_a_push_that_nobody_can_be_asked_about_is_neither_done_nor_undone(clone: Clone, remote: Repository, tmp_path: Path) -> None:
    hook = remote.write("hooks/post-receive", f"#!/bin/sh\nmv {remote.root} {tmp_path}/away.git\nkill -9 $PPID\n")
    hook.chmod(0o755)
    plan = clone.plan("v1.0.0")
    with pytest.raises(PushUnknown, match="whether it arrived cannot be asked"):
        tagging.tag(clone.room(), plan, message="notes")
    with pytest.raises((RemoteError, UsageError)):
        tagging.undo(clone.room(), plan)
    shutil.move(tmp_path / "away.git", remote.root)
    hook.unlink()
    assert tagging.pushed(clone.room(), plan)


def test_what_would_end_a_release_at_its_last_step_is_found_before_its_first(
    clone: Clone, remote: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook = remote.write("hooks/pre-receive", "#!/bin/sh\necho tags of this name are protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UsageError, match="tags of this name are protected"):
        tagging.tag(clone.room(), clone.plan("v1.0.0"), message="notes")
    (tmp_path / "gitconfig").write_text("")
    with pytest.raises(UsageError, match="does not know who you are"):
        clone.planned()
    monkeypatch.setenv("CI", "true")
    assert clone.next() == "0.1.0"
    hook.unlink()
    tagging.tag(clone.room(), clone.plan("v1.0.0"), message="notes")
    assert "tagger trainshed <trainshed@" in remote.git("cat-file", "tag", "v1.0.0")


def test_nothing_but_the_tags_is_pushed(clone: Clone, remote: Repository) -> None:
    clone.git("config", "push.followTags", "true")
    clone.git("tag", "--annotate", "--message", "mine", "mine")
    hook = clone.write(".git/hooks/pre-push", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    tagging.tag(clone.room(), clone.plan("v1.0.0"), message="notes")
    assert remote.git("tag") == "v1.0.0"


def test_without_a_remote_the_tag_here_decides(clone: Clone) -> None:
    clone.git("remote", "remove", "origin")
    plan = clone.plan("v0.1.0")
    assert clone.next() == "0.1.0"
    assert tagging.undo(clone.room(), plan) == []
    tagging.tag(clone.room(), plan, message="notes")
    assert "no remote: the tags are only here" in clone.told.getvalue()
    assert tagging.pushed(clone.room(), plan)
    released(clone, "v0.1.0")
    assert clone.next() is None
    other = replace(plan, commit=clone.commit("fix: a"))
    with pytest.raises(TagTaken, match=r"tag v0\.1\.0 is here already"):
        tagging.tag(clone.room(), other, message="notes")


@pytest.fixture
def guarded(remote: Repository) -> Iterator[Guarded]:
    made = Guarded(remote.root.parent)
    yield made
    made.close()


@pytest.mark.parametrize(("user", "token"), [("", TOKEN), ("", f"bot:{TOKEN}"), ("bot@", TOKEN)])
def test_a_token_reaches_the_server_and_no_argument(
    clone: Clone, remote: Repository, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: str, token: str
) -> None:
    name = "bot" if user or ":" in token else "x-access-token"
    guarded.wanted = f"Basic {base64.b64encode(f'{name}:{TOKEN}'.encode()).decode()}"
    clone.git("remote", "set-url", "--push", "origin", guarded.url.replace("://", f"://{user}"))
    monkeypatch.setenv("GIT_TOKEN", token)
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "trainshed.theirs")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "kept")
    assert clone.next() == "0.1.0"
    plan = clone.plan("v0.1.0", "other/v0.1.0")
    tagging.tag(clone.room(), plan, message="notes")
    assert remote.git("rev-parse", "v0.1.0^{commit}", "other/v0.1.0^{commit}").split() == [plan.commit] * 2
    assert set(guarded.logins) == {guarded.wanted}
    trace = (tmp_path / "trace").read_text()
    assert "push" in trace
    assert TOKEN not in trace
    assert guarded.wanted.split()[1] not in trace


def test_a_wrong_token_is_told_and_never_shown(clone: Clone, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded.wanted = "Basic of nobody"
    clone.git("remote", "set-url", "origin", guarded.url.replace("://", "://bot:hidden-word@"))
    monkeypatch.setenv("GIT_TOKEN", "another-token")
    for ask in (clone.planned, lambda: tagging.tag(clone.room(), clone.plan("v1.0.0"), message="notes")):
        with pytest.raises(UsageError) as refused:
            ask()
        assert "release.token-env" in refused.value.next_step
        assert "origin (http://127.0.0.1" in refused.value.message
        assert not any(word in refused.value.told for word in ("another-token", "hidden-word"))


def test_a_token_goes_to_no_server_in_the_clear(guarded: Guarded) -> None:
    for url, place in (
        (guarded.url, guarded.url.removesuffix("remote.git")),
        ("https://bot@git.example.org:8443/a/b.git", "https://git.example.org:8443/"),
        ("http://git.example.org/a.git", ""),
        ("git@git.example.org:a.git", ""),
    ):
        assert git_tags._trusted(url) == place
