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
from tests.support.versions import CONFIGURATION, Clone, Guarded, cloned, released
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.results import Status
from trainshed.stages.releasing import tagging
from trainshed.tools import git_tags
from trainshed.tools.git_tags import PushUnknown, TagTaken
from trainshed.tools.process import Outcome

MANIFEST = "sha256:12"
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
    tagging.tag(clone.room(), clone.plan("v1.0.1"), notes="notes", manifest=MANIFEST)
    assert clone.git("cat-file", "-t", "v1.0.1") == "tag"
    clone.git("tag", "v1.1.0")
    clone.commit("feat: b")
    with pytest.raises(UsageError, match=r"tag v1\.1\.0 is in the way: .* was never pushed \(only here\)"):
        clone.planned()


def test_a_release_is_decided_by_the_push_of_its_tags(clone: Clone, remote: Repository) -> None:
    plan = clone.plan("training/v1.0.0", "predictor/v2.1.0")
    assert not tagging.pushed(clone.room(), plan, MANIFEST)
    assert tagging.undo(clone.room(), plan, MANIFEST) == []
    report = tagging.tag(clone.room(), plan, notes="# notes\n\n* it ä", manifest=MANIFEST)
    assert [(result.name, result.status, result.details["tag"]) for result in report.results] == [
        ("training", Status.DONE, "training/v1.0.0"),
        ("predictor", Status.DONE, "predictor/v2.1.0"),
    ]
    for place in (remote, clone):
        told = place.git("cat-file", "tag", "predictor/v2.1.0")
        assert told.startswith(f"object {plan.commit}\ntype commit\ntag predictor/v2.1.0\ntagger Ada <ada@example.org> ")
        assert told.endswith("\n\n# notes\n\n* it ä\n\nmanifest: sha256:12")
    assert tagging.pushed(clone.room(), plan, MANIFEST)
    again = tagging.tag(clone.room(), plan, notes="others", manifest=MANIFEST)
    assert {result.status for result in again.results} == {Status.CACHED}
    with pytest.raises(WorkFailed, match="is decided"):
        tagging.undo(clone.room(), plan, MANIFEST)


def test_a_tag_of_another_commit_is_refused_and_its_maker_told(clone: Clone, remote: Repository) -> None:
    clone.tag("v1.0.0")
    first = clone.git("rev-parse", "HEAD")
    clone.git("tag", "--delete", "v1.0.0")
    clone.commit("fix: a")
    plan = clone.plan("v1.0.0", "other/v1.0.0")
    with pytest.raises(TagTaken, match=rf"tag v1\.0\.0 is on origin .* for commit {first[:7]}, made by t <t@example.org>"):
        tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)
    assert remote.git("tag") == "v1.0.0"
    assert clone.git("tag") == ""
    clone.git("tag", "v3.0.0", first)
    with pytest.raises(TagTaken, match=rf"tag v3\.0\.0 is here, and not on origin .* for commit {first[:7]}"):
        tagging.tag(clone.room(), clone.plan("v3.0.0"), notes="notes", manifest=MANIFEST)


def test_two_who_push_at_once_have_one_winner(clone: Clone, remote: Repository, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", f"file://{remote.root}", str(tmp_path / "second")], check=True)
    second = Clone(tmp_path / "second")
    second.commit("fix: theirs")
    ends = []

    def go(each: Clone) -> None:
        try:
            tagging.tag(each.room(), each.plan("v1.0.0"), notes="notes", manifest=MANIFEST)
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


@pytest.mark.parametrize("annotated", [True, False])
def test_a_tag_that_somebody_else_gave_the_same_commit_decides_nothing(clone: Clone, *, annotated: bool) -> None:
    plan = clone.plan("v1.0.0")
    if annotated:  # such as that of the same version in another production
        tagging.tag(clone.room(), plan, notes="notes", manifest="sha256:34")
    else:
        clone.git("push", "--quiet", "origin", "HEAD:refs/tags/v1.0.0")
    assert not tagging.pushed(clone.room(), plan, MANIFEST)
    assert tagging.undo(clone.room(), plan, MANIFEST) == []
    with pytest.raises(TagTaken, match=rf"tag v1\.0\.0 is on origin .* for commit {plan.commit[:7]}, made by "):
        tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)


def test_a_tag_that_cannot_be_read_is_neither_ours_nor_anothers(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = clone.plan("v1.0.0"), git_tags._asked
    tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)

    def cut(root: Path, remote: git_tags.Remote, *words: str) -> Outcome:
        lost = Outcome(code=128, output="", errors="fatal: early EOF", seconds=0.0)
        return lost if words[0] == "fetch" else asked(root, remote, *words)

    monkeypatch.setattr(git_tags, "_asked", cut)
    with pytest.raises(RemoteError, match=r"tag v1\.0\.0 cannot be read"):
        tagging.undo(clone.room(), plan, MANIFEST)


def test_a_tag_that_is_called_as_the_folder_of_the_new_one_is_found_before_the_first_step(clone: Clone) -> None:
    clone.write("trainshed.toml", f'{CONFIGURATION}[release]\nversions = "each"\n')
    clone.write("pipeline_templates/training.py", "")
    clone.commit("feat: train")
    clone.git("push", "--quiet", "origin", "HEAD:refs/tags/training")
    with pytest.raises(UsageError, match=r"tag training is in the way: git keeps no tag training/v0\.1\.0 beside it \(on origin"):
        clone.planned()


def test_tags_are_signed_where_git_is_told_to_and_what_cannot_sign_is_found_before_the_first_step(
    clone: Clone, remote: Repository, tmp_path: Path
) -> None:
    signer = tmp_path / "signer"
    signer.write_text("#!/bin/sh\ncat > /dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho '-----BEGIN PGP SIGNATURE-----\nit is'\n")
    signer.chmod(0o755)
    clone.git("config", "tag.gpgSign", "true")
    clone.git("config", "gpg.program", str(signer))
    assert clone.next() == "0.1.0"
    plan = clone.plan("v0.1.0", "predictor/v0.1.0")
    tagging.tag(clone.room(), plan, notes="# notes", manifest=MANIFEST)
    for name in ("v0.1.0", "predictor/v0.1.0"):
        told = remote.git("cat-file", "tag", name)
        assert f"\ntag {name}\n" in told
        assert told.endswith("\n\n# notes\n\nmanifest: sha256:12\n-----BEGIN PGP SIGNATURE-----\nit is")
    assert tagging.pushed(clone.room(), plan, MANIFEST)
    clone.commit("fix: a")
    signer.write_text("#!/bin/sh\ncat > /dev/null\nexit 2\n")
    with pytest.raises(UsageError, match=r"git is told to sign tags, and cannot: (?s:.*)failed to sign"):
        clone.planned()


def test_neither_hooks_nor_settings_of_the_user_nor_another_repository_come_between(
    clone: Clone, remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.git("tag", "--message", "of the user", "mine")
    for name in ("pre-push", "reference-transaction"):
        clone.write(f".git/hooks/{name}", "#!/bin/sh\nexit 1\n").chmod(0o755)
    for key in ("push.followTags", "fetch.prune", "fetch.pruneTags", "log.showSignature"):
        clone.git("config", key, "true")
    clone.git("config", "push.recurseSubmodules", "only")
    plan = clone.plan("v0.1.0")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY"):  # as in a hook of another repository
        monkeypatch.setenv(name, str(tmp_path / "other"))
    assert clone.next() == "0.1.0"
    tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)
    assert tagging.pushed(clone.room(), plan, MANIFEST)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.delenv(name)
    assert clone.git("tag").split() == ["mine", "v0.1.0"]
    assert remote.git("tag") == "v0.1.0"


def test_a_push_whose_answer_was_lost_is_found_done(clone: Clone, remote: Repository) -> None:
    hook = remote.write("hooks/post-receive", "#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    plan = clone.plan("v1.0.0")
    [result] = tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST).results
    assert result.details["tag"] == "v1.0.0"
    assert remote.git("rev-parse", "v1.0.0^{commit}") == plan.commit


def test_a_push_that_nobody_can_be_asked_about_is_neither_done_nor_undone(clone: Clone, remote: Repository, tmp_path: Path) -> None:
    hook = remote.write("hooks/post-receive", f"#!/bin/sh\nmv {remote.root} {tmp_path}/away.git\nkill -9 $PPID\n")
    hook.chmod(0o755)
    plan = clone.plan("v1.0.0")
    with pytest.raises(PushUnknown, match="whether it arrived cannot be asked"):
        tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)
    with pytest.raises((RemoteError, UsageError)):
        tagging.undo(clone.room(), plan, MANIFEST)
    shutil.move(tmp_path / "away.git", remote.root)
    hook.unlink()
    assert tagging.pushed(clone.room(), plan, MANIFEST)


def test_what_would_end_a_release_at_its_last_step_is_found_before_its_first(
    clone: Clone, remote: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook = remote.write("hooks/pre-receive", "#!/bin/sh\necho tags of this name are protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UsageError, match=r"not pushed: .*tags of this name are protected"):  # in the line that tables show
        tagging.tag(clone.room(), clone.plan("v1.0.0"), notes="notes", manifest=MANIFEST)
    (tmp_path / "gitconfig").write_text("")
    with pytest.raises(UsageError, match="does not know who you are"):
        clone.planned()
    monkeypatch.setenv("CI", "true")
    assert clone.next() == "0.1.0"
    hook.unlink()
    tagging.tag(clone.room(), clone.plan("v1.0.0"), notes="notes", manifest=MANIFEST)
    assert "tagger trainshed <trainshed@" in remote.git("cat-file", "tag", "v1.0.0")


def test_nothing_but_the_tags_is_pushed(clone: Clone, remote: Repository) -> None:
    clone.git("config", "push.followTags", "true")
    clone.git("tag", "--annotate", "--message", "mine", "mine")
    hook = clone.write(".git/hooks/pre-push", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    tagging.tag(clone.room(), clone.plan("v1.0.0"), notes="notes", manifest=MANIFEST)
    assert remote.git("tag") == "v1.0.0"


def test_without_a_remote_the_tag_here_decides(clone: Clone) -> None:
    clone.git("remote", "remove", "origin")
    plan = clone.plan("v0.1.0")
    assert clone.next() == "0.1.0"
    assert tagging.undo(clone.room(), plan, MANIFEST) == []
    tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)
    assert "no remote: the tags are only here" in clone.told.getvalue()
    assert tagging.pushed(clone.room(), plan, MANIFEST)
    released(clone, "v0.1.0")
    assert clone.next() is None
    other = replace(plan, commit=clone.commit("fix: a"))
    with pytest.raises(TagTaken, match=r"tag v0\.1\.0 is here already"):
        tagging.tag(clone.room(), other, notes="notes", manifest=MANIFEST)


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
    tagging.tag(clone.room(), plan, notes="notes", manifest=MANIFEST)
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
    for ask in (clone.planned, lambda: tagging.tag(clone.room(), clone.plan("v1.0.0"), notes="notes", manifest=MANIFEST)):
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
