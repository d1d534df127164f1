"""Versions and their tags, with real repositories, a bare one as remote, and one behind http that asks for a token."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.repositories import Repository
from trainshed import config
from trainshed.console import Console
from trainshed.errors import NothingSelected, RemoteError, UsageError, WorkFailed
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.results import Report, Status
from trainshed.settings import Tier
from trainshed.stages import versioning
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal, tagging
from trainshed.stages.releasing.room import Room
from trainshed.stages.version import version
from trainshed.tools import git_tags
from trainshed.tools.git_tags import PushUnknown, TagTaken

CONFIGURATION = '[project]\nname = "small"\n'
EACH = CONFIGURATION + '[release]\nversions = "each"\n'
STEP = "ARG BASE={registry}/base:latest\nFROM ${{BASE}}\nUSER 65534\n"
TOKEN = "s3cret-token-of-nobody"  # noqa: S105 - made up
_LEAKING = ("GIT_", "BUILD_", "CHANGE_", "BRANCH_", "TAG_", "TRAINSHED_")


class Clone(Repository):
    """A clone with a project in it, and the rooms of commands that run there."""

    tier = Tier.LAPTOP

    def context(self) -> Context:
        self.told = io.StringIO()
        loaded = config.load(self.root / "trainshed.toml", environment="local")
        context = Context(config=loaded, console=Console(self.told, root=self.root), tier=self.tier)
        self.opened = [*getattr(self, "opened", []), context]
        return context

    def room(self) -> Room:
        context = self.context()
        return Room(here=context, there=context)

    def close(self) -> None:
        for context in getattr(self, "opened", []):
            context.close()

    def version(self, *names: str, **options: Any) -> str:
        """Return what `trainshed version` tells of one unit."""
        return str(self.report(*names, **options).results[0].details["version"])

    def report(self, *names: str, **options: Any) -> Report:
        return version(self.context(), names, **options)

    def planned(self, *names: str, **options: Any) -> list[UnitVersion | None]:
        """Return the versions that a release would give."""
        return [plan.unit_version() for plan in versioning.planned(self.context(), names, **options)]

    def next(self) -> str | None:
        """Return the version that a release would give the repository."""
        [unit] = self.planned()
        return None if unit is None else unit.version

    def tag(self, name: str, commit: str = "HEAD") -> None:
        self.git("tag", "--annotate", "--message", name, name, commit)
        self.git("push", "--quiet", "origin", f"refs/tags/{name}")

    def plan(self, *tags: str, commit: str = "") -> Plan:
        versions = tuple(
            UnitVersion(unit=tag.rpartition("/v")[0], version=tag.rpartition("v")[2], tag=tag, previous="", bump="minor") for tag in tags
        )
        return Plan(
            id=f"plan of {' '.join(tags)}",
            project="small",
            versions=versions,
            commit=commit or self.git("rev-parse", "HEAD"),
            branch="main",
            source="local",
            target="local",
            lock={},
            lock_digest="",
            components=(),
            pipelines=(),
            services=(),
            models={},
            before=Before(),
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            by="Ada",
        )


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(_LEAKING) or name == "CI":
            monkeypatch.delenv(name)
    settings = tmp_path / "gitconfig"
    settings.write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    """Return a bare repository."""
    folder = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(folder)], check=True)
    return Repository(folder)


@pytest.fixture
def clone(tmp_path: Path, remote: Repository) -> Iterator[Clone]:
    """Return a clone whose first commit is pushed."""
    made = Clone.new(tmp_path / "clone")
    assert isinstance(made, Clone)
    made.git("remote", "add", "origin", f"file://{remote.root}")
    made.write("trainshed.toml", CONFIGURATION)
    made.write(".gitignore", ".trainshed/\nbuild/\n")
    for folder in ("components", "pipeline_templates"):
        made.write(f"{folder}/.keep", "")
    made.commit("docs: begin")
    made.git("push", "--quiet", "origin", "main")
    yield made
    made.close()


def on_jenkins(monkeypatch: pytest.MonkeyPatch, **told: str) -> None:
    for name, value in {"BUILD_URL": "https://jenkins.example.org/job/small/7/", **told}.items():
        monkeypatch.setenv(name, value)


def test_versions_grow_by_what_commits_since_the_last_reachable_release_say(clone: Clone) -> None:
    assert clone.next() == "0.1.0"
    for name in ("v0.1.0", "v9.0.0-rc.1", "predictor/v7.0.0", "vintage", "8.0.0"):
        clone.tag(name)
    assert clone.next() is None
    clone.commit("fix: a")
    assert clone.next() == "0.1.1"
    clone.write("b.txt", "b")
    clone.commit("feat: b")
    clone.commit("docs: c")
    assert clone.next() == "0.2.0"
    assert clone.planned(bump="major")[0] == UnitVersion(unit="", version="1.0.0", tag="v1.0.0", previous="v0.1.0", bump="major")
    clone.git("revert", "--no-edit", "HEAD~1")
    assert clone.next() == "0.1.1"


def test_a_version_that_was_given_elsewhere_is_in_the_way(clone: Clone) -> None:
    clone.tag("v1.3.0")
    clone.git("checkout", "--quiet", "-b", "hotfix")
    clone.commit("fix: hot")
    clone.tag("v1.3.1")
    clone.git("checkout", "--quiet", "main")
    clone.commit("fix: on main")
    clone.git("tag", "--delete", "v1.3.1")
    with pytest.raises(UsageError, match=r"tag v1\.3\.1 is in the way: it is at .* not in this history \(on origin\)"):
        clone.planned()
    assert clone.version(why=True).startswith("1.3.1-dev.1+g")
    assert "warning: tag" not in clone.told.getvalue()  # nobody asked the remote here
    assert clone.planned(bump="minor")[0] == UnitVersion(unit="", version="1.4.0", tag="v1.4.0", previous="v1.3.0", bump="minor")
    clone.git("merge", "--quiet", "--no-edit", "hotfix")
    assert clone.next() == "1.3.2"


def test_an_old_commit_is_not_released_again_under_a_newer_name(clone: Clone) -> None:
    clone.tag("v1.0.0")
    old = clone.commit("feat: a")
    clone.commit("feat: b")
    clone.tag("v1.1.0")
    clone.git("checkout", "--quiet", old)
    with pytest.raises(UsageError, match=r"tag v1\.1\.0 is in the way"):
        clone.planned()
    assert clone.version(why=True).startswith("1.1.0-dev.1+g")
    assert "warning: tag v1.1.0 is in the way" in clone.told.getvalue()
    clone.tier = Tier.MAIN
    with pytest.raises(UsageError, match=r"tag v1\.1\.0 is in the way"):
        clone.version()


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


def components(clone: Clone) -> None:
    clone.write("trainshed.toml", EACH)
    clone.write("components/base/Dockerfile", "FROM scratch\n")
    for name, file in (("train", "component.yaml"), ("predictor", "service.yaml")):
        clone.write(f"components/{name}/Dockerfile", STEP.format(registry="127.0.0.1:5000"))
        clone.write(f"components/{name}/{file}", f"name: {name}\n")
    clone.write("pipeline_templates/training.py", 'import _shared\nIMAGE = "component.invalid/train:unstamped"\n')
    clone.write("pipeline_templates/_shared.py", "")
    clone.write("pipeline_templates/other.py", "")


@pytest.mark.parametrize(
    ("path", "touched"),
    [
        ("components/base/x.txt", {"training", "predictor"}),
        ("components/train/x.txt", {"training"}),
        ("components/predictor/x.txt", {"predictor"}),
        ("pipeline_templates/training.toml", {"training"}),
        ("pipeline_templates/_shared.py", {"training"}),
        ("pipeline_templates/other.py", {"other"}),
        ("waivers.toml", set()),
        ("docs/x.md", set()),
    ],
)
def test_each_unit_grows_by_the_commits_that_touch_its_own_files(clone: Clone, path: str, touched: set[str]) -> None:
    components(clone)
    clone.commit("feat: all of it")
    for unit in ("training", "predictor", "other"):
        clone.git("tag", f"{unit}/v1.0.0")
    clone.write(path, "# other\n")
    clone.commit("fix: it")
    plans = versioning.planned(clone.context(), strict=False)
    assert {plan.unit for plan in plans if plan.next.version == "1.0.1"} == touched
    assert {plan.unit for plan in plans if plan.next.version is None} == {"training", "predictor", "other"} - touched


def test_images_that_moved_make_patches_of_those_that_take_them(clone: Clone) -> None:
    components(clone)
    clone.commit("feat: all of it")
    for unit in ("training", "predictor", "other"):
        clone.tag(f"{unit}/v1.0.0")
    assert [unit and unit.tag for unit in clone.planned(moved=["train"])] == [None, "training/v1.0.1", None]
    assert [unit and unit.tag for unit in clone.planned("predictor", moved=["base"])] == ["predictor/v1.0.1"]


def test_units_of_one_name_cannot_have_versions_of_their_own(clone: Clone) -> None:
    clone.write("trainshed.toml", EACH)
    clone.commit()
    with pytest.raises(NothingSelected):
        clone.planned()
    components(clone)
    clone.write("pipeline_templates/predictor.py", "")
    with pytest.raises(UsageError, match="pipeline 'predictor' and the service of that name"):
        clone.planned()
    with pytest.raises(UsageError, match="no pipeline or service 'trainin'"):
        clone.planned("trainin")


@pytest.mark.parametrize(
    ("told", "tier", "expected"),
    [
        ({"CHANGE_ID": "123", "BRANCH_NAME": "PR-123"}, Tier.PULL_REQUEST, "1.1.0-pr.123.7+g{short}"),
        ({"BRANCH_NAME": "feature/Neue_Sache"}, Tier.PULL_REQUEST, "1.1.0-branch.feature-neue-sache.7+g{short}"),
        ({"BRANCH_NAME": "main"}, Tier.MAIN, "1.1.0"),
    ],
)
def test_a_build_is_called_after_what_it_builds(
    monkeypatch: pytest.MonkeyPatch, clone: Clone, told: Mapping[str, str], tier: Tier, expected: str
) -> None:
    clone.tag("v1.0.0")
    short = clone.commit("feat: a")[:7]
    on_jenkins(monkeypatch, **told)
    clone.tier = tier
    assert clone.version() == expected.format(short=short)


def test_a_laptop_tells_the_commits_since_and_what_was_released_by_its_name(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.tag("v1.0.0")
    assert clone.version() == "1.0.0"
    short = clone.commit("docs: a")[:7]
    assert clone.version() == f"1.0.1-dev.1+g{short}"
    clone.write("new.txt", "")
    assert clone.version() == f"1.0.1-dev.1+g{short}.dirty"
    assert clone.version(bump="major") == f"2.0.0-dev.1+g{short}.dirty"
    on_jenkins(monkeypatch, BRANCH_NAME="v1.0.0", TAG_NAME="v1.0.0")
    clone.tier = Tier.PULL_REQUEST
    clone.git("checkout", "--quiet", "v1.0.0")
    assert clone.version() == "1.0.0"


def test_why_shows_which_commits_ask(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.tag("v1.0.0")
    clone.commit("docs: nothing")
    asking = clone.commit("feat(x): it")
    report = clone.report(why=True)
    told = clone.told.getvalue()
    assert "small: v1.0.0 → 1.1.0" in told
    assert f"{asking[:7]}  minor     feat(x): it" in told
    assert "1 commit asks for a version since 1.0.0; the greatest growth is minor" in told
    assert "1 more of 2 commits ask for nothing" in told
    assert capsys.readouterr().out.strip() == report.results[0].details["version"]
    assert report.results[0].details["asked"] == [
        {"commit": asking, "subject": "feat(x): it", "author": "t", "type": "feat", "scope": "x", "breaking": "", "bump": "minor"}
    ]


def test_several_units_are_told_a_line_each(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    components(clone)
    clone.commit("feat: all of it")
    clone.tier = Tier.MAIN
    clone.report()
    assert capsys.readouterr().out.splitlines() == ["other 0.1.0", "training 0.1.0", "predictor 0.1.0"]
    clone.report("predictor")
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_tags_that_jenkins_did_not_fetch_are_asked_for_and_nothing_here_changes(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.tag("v1.0.0")
    clone.commit("fix: a")
    clone.git("tag", "--delete", "v1.0.0")
    assert clone.version().startswith("0.1.0-dev.")
    on_jenkins(monkeypatch, BRANCH_NAME="main")
    clone.tier = Tier.MAIN
    assert clone.version() == "1.0.1"
    assert clone.next() == "1.0.1"
    assert clone.git("tag") == ""


def test_a_remote_that_cannot_be_asked_is_a_warning_and_for_a_release_an_error(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    on_jenkins(monkeypatch)
    clone.git("remote", "set-url", "origin", "http://127.0.0.1:9/none.git")
    assert clone.version().startswith("0.1.0-branch.")
    assert "warning: the version is told from the tags that are here: origin (http://127.0.0.1:9/none.git)" in clone.told.getvalue()
    with pytest.raises(RemoteError, match="its tags cannot be read"):
        clone.planned()
    clone.git("remote", "rename", "origin", "upstream")
    with pytest.raises(UsageError, match="no remote 'origin'"):
        clone.planned()


def test_a_history_that_was_cut_off_is_refused_with_what_mends_it(clone: Clone, remote: Repository, tmp_path: Path) -> None:
    clone.tag("v1.0.0")
    clone.commit("feat: a")
    clone.commit("docs: b")
    clone.git("push", "--quiet", "origin", "main")
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{remote.root}", str(tmp_path / "cut")], check=True)
    cut = Clone(tmp_path / "cut")
    with pytest.raises(UsageError, match="cut off") as refused:
        cut.version()
    command = refused.value.next_step.split("`")[1]
    subprocess.run(command.split(), cwd=cut.root, check=True, capture_output=True)
    assert cut.next() == "1.1.0"
    cut.close()


def test_a_tag_that_was_moved_is_refused_with_its_commits(clone: Clone) -> None:
    first = clone.git("rev-parse", "HEAD")
    clone.tag("v1.0.0")
    second = clone.commit("fix: a")
    clone.git("tag", "--force", "--annotate", "--message", "moved", "v1.0.0")
    with pytest.raises(UsageError, match=r"tag v1\.0\.0 was moved") as refused:
        clone.planned()
    assert all(word in refused.value.message for word in (f"{second[:7]} here", f"{first[:7]} on origin", "made by t <t@example.org>"))


def released(clone: Clone, *tags: str, undone: bool = False) -> Plan:
    """Write into the ledger that a release was made, or undone."""
    context, plan = clone.context(), clone.plan(*tags)
    entry = journal.begin(context, plan)
    journal.settled(context, journal.undoing(context, entry, "a test") if undone else entry)
    return plan


def test_the_ledger_remembers_where_a_release_was_made_of(clone: Clone) -> None:
    clone.tag("v1.0.0")
    plan = released(clone, "v1.0.0")
    released(clone, "v1.1.0", undone=True)
    clone.commit("feat: a")
    assert clone.next() == "1.1.0"
    clone.git("tag", "--delete", "v1.0.0")
    clone.git("push", "--quiet", "--force", "origin", "HEAD:refs/tags/v1.0.0")
    with pytest.raises(UsageError, match="was moved") as refused:
        clone.planned()
    assert f"{plan.commit[:7]} in the ledger (released by " in refused.value.message
    clone.git("push", "--quiet", "--delete", "origin", "v1.0.0")
    with pytest.raises(UsageError, match=r"tag v1\.0\.0 was deleted on origin"):
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


def test_messages_of_any_bytes_and_thousands_of_commits_are_read(clone: Clone) -> None:
    clone.tag("v1.0.0")
    old = clone.git("rev-parse", "HEAD")
    strange = b"feat: \xff\xfe caf\xe9\r\n\r\nline\x01\r\n\r\nBREAKING CHANGE: \xe4\r\n"
    stream = b"".join(
        b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata %d\n%s\n%s"
        % (1_700_000_000 + number, len(message), message, f"from {old}\n".encode() if number == 0 else b"")
        for number, message in enumerate([strange, *[b"docs: words\n\nmore\n"] * 3000])
    )
    subprocess.run(["git", "-C", str(clone.root), "fast-import", "--quiet"], input=stream, check=True, capture_output=True)
    clone.git("reset", "--quiet", "--hard", "main")
    [plan] = versioning.planned(clone.context(), strict=False)
    assert plan.next.version == "2.0.0"
    assert len(plan.commits) == 3001
    assert len(plan.changes) == 3001
    assert plan.changes[-1].text.endswith("caf\ufffd")
    assert plan.commits[0].body == "more"


def test_paths_count_by_their_letters(clone: Clone) -> None:
    clone.write("a[b]/x", "")
    asked = clone.commit("feat: brackets")
    clone.write("ab/x", "")
    clone.commit("feat: letters")
    assert [commit.id for commit in git_tags.history(clone.root, None, "HEAD", ["a[b]"])] == [asked]


class Guarded:
    """A server of one repository over http that wants a token; it remembers what it was told."""

    def __init__(self, folder: Path) -> None:
        self.logins: list[str] = []
        self.wanted = ""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                given = self.headers.get("Authorization", "")
                told.logins.append(given)
                if given != told.wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "REMOTE_USER": "bot",
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True, timeout=120)
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(fields.pop("Status", "200").split()[0]))
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/remote.git"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


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
