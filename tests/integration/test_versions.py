"""Versions as real repositories tell them: their tags, their remote, their commits and the ledger."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.repositories import Repository
from tests.support.versions import CONFIGURATION, Clone, cloned, released
from trainshed.errors import NothingSelected, RemoteError, UsageError
from trainshed.releases.plan import UnitVersion
from trainshed.settings import Tier
from trainshed.stages import versioning
from trainshed.tools import git_tags

EACH = CONFIGURATION + '[release]\nversions = "each"\n'
STEP = "ARG BASE={registry}/base:latest\nFROM ${{BASE}}\nUSER 65534\n"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    """Return a clone whose first commit is pushed."""
    with cloned(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def remote(clone: Clone) -> Repository:
    """Return what it is a clone of."""
    return Repository(clone.root.parent / "remote.git")


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
    assert [unit and unit.tag for unit in clone.planned(moved={"training": ["train"], "predictor": ["train"]})] == [
        None,
        "training/v1.0.1",
        None,
    ]
    assert [unit and unit.tag for unit in clone.planned("predictor", moved={"predictor": ["base"]})] == ["predictor/v1.0.1"]


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


def test_tags_of_tags_count_and_those_of_files_are_nobodys(clone: Clone) -> None:
    clone.tag("v1.0.0")
    clone.tag("v1.1.0", "v1.0.0")
    for what in ("HEAD^{tree}", "HEAD:trainshed.toml"):
        clone.tag(f"v{len(what)}.0.0", what)
    clone.commit("fix: a")
    assert clone.next() == "1.1.1"


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
