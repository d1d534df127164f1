"""What may not be released is refused before anything of production is touched: real registries, repository, ledger and scanner."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import shutil
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.green_build import ADVISORIES, LOW, WAIVED, GreenBuild, debian
from tests.support.registry import running_registry
from trainshed import cli, keys
from trainshed.errors import RemoteError, TrainshedError
from trainshed.ledger.records import Verdict
from trainshed.pipelines.lock import Lock
from trainshed.results import Report, Status
from trainshed.settings import Tier
from trainshed.stages import lookup
from trainshed.stages.checks import scanning
from trainshed.stages.images import images
from trainshed.stages.releasing import admission, journal, locked, planning
from trainshed.stages.releasing.room import opened

NAMES = ("base", "train")
LAST = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
"""The last day of the waiver: the clock is moved to it, and past it."""


@dataclass
class Refusal:
    """How a release that was refused ended."""

    code: int
    message: str
    step: str
    said: str = ""


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[tuple[str, str]]:
    assert docker_host  # the programs that tests start are there by then
    folder = tmp_path_factory.mktemp("registries")
    with running_registry(folder / "dev") as source, running_registry(folder / "prod") as target:
        yield source, target


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, registries: tuple[str, str]) -> GreenBuild:
    source, target = registries
    return GreenBuild.new(tmp_path_factory.mktemp("build") / "project", f"{source}/dev", f"{target}/prod", expires=LAST)


@pytest.fixture
def copy(made: GreenBuild, tmp_path: Path) -> GreenBuild:
    """Return a copy of the build's workspace and ledger; the registry is one for all, so a test puts back what it takes."""
    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    shutil.copytree(made.remote, tmp_path / "remote.git")
    found = GreenBuild(tmp_path / "project", made.source, made.target)
    found.git.git("remote", "set-url", "origin", str(found.remote))
    return found


@pytest.fixture
def build(copy: GreenBuild) -> Iterator[GreenBuild]:
    """Return the copy; at the end nothing of production has changed, and nobody has released."""
    before = copy.traces()
    yield copy
    after = copy.traces()
    assert (after["events"], after["published"]) == ([], before["published"])
    assert not catalog(copy.target), "something came to production"


def catalog(place: str) -> list[str]:
    connection = http.client.HTTPConnection(place.partition("/")[0], timeout=60)
    connection.request("GET", "/v2/_catalog")
    found: list[str] = json.loads(connection.getresponse().read())["repositories"]
    connection.close()
    return found


def admitted(build: GreenBuild, *, tier: Tier = Tier.MAIN) -> tuple[Lock, Report, str]:
    with build.context(tier) as context, opened(context, to=None) as room:
        lock = locked.lock(room)
        return lock, admission.require(room, lock, NAMES), context.console.stream.getvalue()  # type: ignore[attr-defined]


def refused(build: GreenBuild, *, tier: Tier = Tier.MAIN) -> Refusal:
    """Ask for admission, which is refused; what the build left in its workspace is as it was."""
    before = build.traces()
    try:
        _, report, said = admitted(build, tier=tier)
    except TrainshedError as error:
        told = Refusal(code=error.exit_code, message=error.message, step=error.next_step)
    else:
        bad = [result for result in report.results if result.status is Status.FAILED]
        told = Refusal(code=report.exit_code, message="\n".join(result.message for result in bad), step="", said=said)
        assert bad
    assert build.traces() == before
    return told


def production(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    """Have production another policy."""
    monkeypatch.setenv(keys.variable_of(f"environments.prod.{key}"), value)


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[dt.date], None]:
    """Return what moves the calendar to noon of a day."""

    def move(to: dt.date) -> None:
        class Moved(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Moved:
                return cls(to.year, to.month, to.day, 12, tzinfo=tz)

        for module in ("trainshed.stages.work", "trainshed.stages.releasing.admission"):
            monkeypatch.setattr(f"{module}.datetime", Moved)
        monkeypatch.setattr(scanning, "dt", types.SimpleNamespace(**{**vars(dt), "datetime": Moved}))

    return move


# --- what is let in ---------------------------------------------------------------------------------------------------------------


def test_a_green_main_build_is_admitted_by_its_verdicts_and_nothing_is_done_anew(build: GreenBuild) -> None:
    before = build.traces()
    lock, report, _ = admitted(build)
    assert lock == build.lock
    assert {(result.name, result.stage, result.status) for result in report.results} == {
        (name, f"release-{stage}", status)
        for name in NAMES
        for stage, status in (("image", Status.CACHED), ("scan", Status.CACHED), ("test", Status.SKIPPED))
    }
    assert report.exit_code == 0
    assert build.traces() == before


def test_without_the_workspaces_lock_the_ledgers_is_taken(build: GreenBuild) -> None:
    expected = build.lock
    build.file.unlink()
    lock, report, _ = admitted(build)
    assert (lock, report.exit_code) == (expected, 0)
    assert not build.file.exists()


def test_a_waiver_counts_on_its_last_day_and_is_told(build: GreenBuild, day: Callable[[dt.date], None]) -> None:
    day(LAST)
    _, report, said = admitted(build)
    assert report.exit_code == 0
    warning = f"waivers.toml: waiver {WAIVED}, models@example.org: expires on {LAST}, in 0 days"
    assert report.extra["warnings"] == [warning]
    assert warning in said


# --- the tree and the lock --------------------------------------------------------------------------------------------------------


def test_a_changed_tree_is_refused_with_what_changed(build: GreenBuild) -> None:
    build.git.write("new.txt", "untracked\n")
    told = refused(build)
    assert (told.code, told.step.partition(" ")[0]) == (2, "Commit")
    assert told.message.endswith("has it: ?? new.txt")


def test_another_commit_than_the_locks_is_refused(build: GreenBuild) -> None:
    first, second = build.git.git("rev-parse", "HEAD"), build.git.commit()
    told = refused(build)
    assert told.code == 2
    assert f"build/images.lock.json: of commit {first[:7]}, and {second[:7]} is checked out" in told.message
    assert "without the file the ledger's is taken" in told.step
    build.file.unlink()
    told = refused(build)
    assert told.message == f"the ledger has no lock of commit {second[:7]}: nobody has built, scanned and tested all of it green"
    assert told.step == "Have the main build run for this commit; then release again."


def test_a_tree_that_moved_on_is_refused_with_everything_that_is_wrong_at_once(build: GreenBuild) -> None:
    build.git.write("components/train/train.py", "print('otherwise')\n")
    told = refused(build, tier=Tier.MAIN)
    assert told.code == 2
    assert "the tree is not as commit" in told.message
    assert "stale: the components changed since it was written. Run `trainshed images`" in told.message
    assert told.step == "Nothing was released."


def test_no_repository_is_refused(build: GreenBuild) -> None:
    shutil.move(build.root / ".git", build.root.parent / "away")
    with build.context() as context, opened(context, to=None) as room, pytest.raises(TrainshedError) as raised:
        locked.lock(room)
    shutil.move(build.root.parent / "away", build.root / ".git")
    assert raised.value.exit_code == 2
    assert "no commit is checked out" in raised.value.message
    assert raised.value.next_step == "Commit the tree to git."


def test_an_edited_lock_is_refused_by_its_seal(build: GreenBuild) -> None:
    build.write({**build.lock.document(), "created": "2020-01-01T00:00:00Z"})
    told = refused(build)
    assert told.code == 2
    assert "edited after it was written: its seal does not fit" in told.message
    assert told.step


def test_a_lock_that_was_edited_and_sealed_anew_is_refused_with_what_differs(build: GreenBuild) -> None:
    lock, other = build.lock, debian(build.store("train"), ("zlib",), "forged")
    forged = replace(lock.images["train"], digest=other, reference=f"{build.source}/small/train@{other}")
    build.write(replace(lock, images={**lock.images, "train": forged}))
    told = refused(build)
    assert told.code == 2
    assert f"not what the ledger has of commit {lock.commit[:7] if lock.commit else ''}: train is {forged.reference}" in told.message
    assert f"{lock.images['train'].reference} of inputs {lock.images['train'].input_digest[:19]} in the ledger" in told.message
    assert "base is" not in told.message
    assert told.step.startswith("Take the lock of the main build's workspace")


def test_verdicts_forged_into_a_lock_do_not_come_into_the_release(build: GreenBuild) -> None:
    lock = build.lock
    forged = {name: replace(image, verdicts={"scan": {"version": "none", "tier": "main"}}) for name, image in lock.images.items()}
    build.write(replace(lock, images=forged))
    assert admitted(build)[0] == lock


def test_a_lock_of_some_components_is_refused(build: GreenBuild) -> None:
    lock = build.lock
    build.write(replace(lock, images={"base": lock.images["base"]}))
    told = refused(build)
    assert told.code == 2
    assert "of some components only; it lacks train" in told.message


def test_a_lock_of_another_environment_is_refused(build: GreenBuild) -> None:
    lock = build.lock
    images = {name: replace(image, origin={"environment": "test"}) for name, image in lock.images.items()}
    build.write(replace(lock, images=images))
    told = refused(build)
    assert told.code == 2
    assert "its images were made in another environment than dev: base in test, train in test" in told.message
    assert told.step == "Release from the environment of the build, with --env."


def test_a_lock_that_only_a_pull_request_wrote_is_refused(build: GreenBuild) -> None:
    commit = build.git.commit()
    with build.context(Tier.PULL_REQUEST) as context:
        assert images(context).status == "green"
    assert build.lock.commit == commit
    told = refused(build)
    assert told.code == 2
    assert f"commit {commit[:7]} was locked by a run of a pull request or branch only" in told.message
    assert told.step == "Have the main build run for this commit; then release again."


# --- who releases -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "who"), [(Tier.PULL_REQUEST, "a run of a pull request or branch"), (Tier.LAPTOP, "a run on a laptop or of a fork")]
)
def test_production_is_closed_to_another_branch_and_to_a_laptop(
    build: GreenBuild, tier: Tier, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused(build, tier=tier)
    assert (told.code, told.message) == (2, f"environment prod is for main and above, and this is {who}")
    assert told.step == "It may use: local, dev."
    production(monkeypatch, "trust", "laptop")  # others share its registry all the same
    told = refused(build, tier=tier)
    assert (told.code, told.message) == (2, f"a release to environment prod is made by a run of main alone, and this is {who}")
    assert told.step == "Merge, and let the main build release it."


# --- the images -------------------------------------------------------------------------------------------------------------------


@contextmanager
def moved(build: GreenBuild, name: str) -> Iterator[str]:
    content, tag = build.manifest(name), build.tagged(name)
    try:
        yield debian(build.store(name), ("zlib",), "moved", tag=tag)
    finally:
        build.put(name, tag, content)


def test_a_tag_that_was_moved_to_another_image_is_refused_by_name(build: GreenBuild) -> None:
    with moved(build, "train") as other:
        told = refused(build)
    digest = build.lock.images["train"].digest
    assert told.code == 1
    assert f"train: the lock has {digest}, and in the registry the tag of its inputs names {other}: it was moved" in told.message
    assert "Ask who moved it" in told.message
    assert "base" not in told.message


def test_an_image_that_vanished_is_refused_and_its_checks_are_not_run(build: GreenBuild) -> None:
    content, image = build.manifest("base"), build.lock.images["base"]
    build.delete("base", image.digest)
    try:
        told = refused(build)
    finally:
        build.put("base", build.tagged("base"), content)
    assert told.code == 1
    assert f"base: no image of its inputs is in {build.source}/small/base any more; the lock has {image.digest}" in told.message
    assert f"base: {image.reference} is not in its registry any more" in told.message
    assert "Have the main build run again" in told.message
    assert admitted(build)[1].exit_code == 0


def test_an_image_that_only_a_pull_request_pushed_is_refused_by_name(build: GreenBuild) -> None:
    content, image, tag = build.manifest("train"), build.lock.images["train"], build.tagged("train")
    build.delete("train", image.digest)
    build.put("train", f"{tag}-pr", content)
    try:
        told = refused(build)
    finally:
        build.delete("train", image.digest)
        build.put("train", tag, content)
    assert told.code == 1
    assert f"only a run of a pull request or branch pushed an image of its inputs ({image.digest}), which is never released" in told.message


def test_an_image_that_the_ledger_knows_from_a_pull_request_only_is_refused(build: GreenBuild) -> None:
    """In a registry where tags tell nothing, the ledger does: the digest was never built by main."""
    lock = build.lock
    digest = debian(build.store("train"), ("zlib", "bzip2"), "of a pull request")
    image = replace(lock.images["train"], digest=digest, reference=f"{build.source}/small/train@{digest}")
    with build.context(Tier.PULL_REQUEST) as context:
        context.ledger.record_verdict(Verdict(digest=digest, check="build", version="build/1", component="train", green=True))
    with build.context() as context, opened(context, to=None) as room:
        report = admission.require(room, replace(lock, images={**lock.images, "train": image}), ["train"])
    assert report.exit_code == 1
    assert f"train: the ledger knows no build of {digest} by a run of main" in report.results[0].message


# --- scans and policy -------------------------------------------------------------------------------------------------------------


def test_a_waiver_that_ran_out_since_the_build_is_refused_with_owner_and_date(build: GreenBuild, day: Callable[[dt.date], None]) -> None:
    day(LAST + dt.timedelta(days=1))
    told = refused(build)
    assert told.code == 1
    assert f"1 finding of severity high or worse: high {WAIVED} in bzip2 1.2-3" in told.message
    assert f"waivers.toml: the waiver for {WAIVED} in train by models@example.org expired on {LAST}. Mend the finding" in told.message


def test_a_stricter_production_refuses_what_the_build_let_pass(build: GreenBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, "scan.fail-on", "low")
    told = refused(build)
    assert told.code == 1
    assert [line.split(":")[0] for line in told.message.splitlines()] == ["1 finding of severity low or worse"] * 2
    assert LOW in told.message
    logs = {path.name for path in (build.root / "build/release/logs").iterdir()}
    assert logs == {"base.scan.log", "train.scan.log"}


def test_a_scan_by_a_database_that_is_too_old_for_production_is_made_again(build: GreenBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    old = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    build.database(ADVISORIES, made=old)
    with build.context() as context:
        age_scans(context.ledger, build, old)
    assert {result.status for result in scans(admitted(build)[1])} == {Status.CACHED}
    production(monkeypatch, "scan.max-db-age", "1h")
    told = refused(build)
    assert told.code == 5
    assert "no verdict without a vulnerability database" in told.message
    production(monkeypatch, "scan.without-db", "warn")
    _, report, said = admitted(build)
    assert report.exit_code == 0
    assert "vulnerabilities were NOT looked for" in said
    production(monkeypatch, "scan.without-db", "fail")
    build.database({**ADVISORIES, ("zlib", "CVE-2099-0003"): {"severity": "CRITICAL", "fixed": "99"}})
    told = refused(build)
    assert told.code == 1
    assert "critical CVE-2099-0003 in zlib 1.2-3" in told.message


def age_scans(ledger: Any, build: GreenBuild, made: dt.datetime) -> None:
    """Have the verdicts of the scans been made by an older database."""
    for (_, check, _), verdict in ledger.verdicts(image.digest for image in build.lock.images.values()).items():
        if check == "scan":
            ledger.record_verdict(replace(verdict, details={**verdict.details, "database": made.isoformat()}))


def scans(report: Report) -> list[Any]:
    return [result for result in report.results if result.stage == "release-scan"]


def test_a_verdict_of_a_pull_request_does_not_count(build: GreenBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scan says green under production's own policy, and main looks for itself."""
    production(monkeypatch, "scan.fail-on", "low")
    assert refused(build).code == 1
    with build.context() as context:
        strict = [
            verdict
            for verdict in context.ledger.verdicts(image.digest for image in build.lock.images.values()).values()
            if not verdict.green
        ]
    with build.context(Tier.PULL_REQUEST) as context:
        for verdict in strict:
            context.ledger.record_verdict(replace(verdict, green=True))
        assert all(context.ledger.verdict(each.digest, each.check, each.version).green for each in strict)  # type: ignore[union-attr]
    assert len(strict) == 2
    assert refused(build).code == 1


def test_a_base_that_production_does_not_approve_is_refused_with_the_list_and_the_other_checks_are_told(
    build: GreenBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    production(monkeypatch, "bases.approved", "docker.io/library/python")
    production(monkeypatch, "scan.fail-on", "low")
    told = refused(build)
    base = f"{build.source.partition('/')[0]}/bases/small:1"
    assert told.code == 1
    assert f"components/base/Dockerfile: base {base} is not approved for environment prod" in told.message
    assert "Build on one that prod approves: docker.io/library/python." in told.message
    assert "findings" in told.message or "finding of severity low" in told.message


def test_a_registry_that_does_not_answer_is_no_refusal(build: GreenBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise RemoteError("127.0.0.1:1: does not answer", next_step="Try again.")

    monkeypatch.setattr(lookup, "find", away)
    with pytest.raises(RemoteError, match=r"release-image base: .*does not answer"):
        admitted(build)
    production(monkeypatch, "bases.approved", "docker.io/library/python")
    assert refused(build).code == 1  # one refusal is enough


def test_the_lock_of_a_release_that_goes_on_is_held_to_the_rules_again(build: GreenBuild, day: Callable[[dt.date], None]) -> None:
    with build.context() as context, opened(context, to=None) as room:
        lock = locked.lock(room)
        assert admission.require(room, lock, NAMES).exit_code == 0
        day(LAST + dt.timedelta(days=1))
        assert admission.require(room, lock, NAMES).exit_code == 1


# --- the command ------------------------------------------------------------------------------------------------------------------


def command(build: GreenBuild, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the command as a build of main does; return its exit code and what people see."""
    for name, value in {"BUILD_URL": "http://127.0.0.1/job/main/8/", "BRANCH_NAME": "main"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(build.root)
    code = cli.main(["--env", "dev", *words])
    return code, capsys.readouterr().err


def test_the_command_refuses_before_it_touches_anything(
    build: GreenBuild, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, lock = build.traces(), build.lock
    production(monkeypatch, "scan.fail-on", "low")
    code, told = command(build, monkeypatch, capsys, "release")
    assert code == 1
    assert f"low {LOW} in zlib 1.2-3" in told
    build.write({**lock.document(), "created": "2020-01-01T00:00:00Z"})
    code, told = command(build, monkeypatch, capsys, "release")
    assert code == 2
    assert "build/images.lock.json: edited after it was written: its seal does not fit" in told
    assert "to make the lock again" in told
    build.write(lock)
    after = build.traces()
    assert (after["events"], after["refs"], after["published"]) == (before["events"], before["refs"], before["published"])


def test_a_release_that_was_killed_is_undone_when_its_waiver_has_run_out_since(
    copy: GreenBuild, day: Callable[[dt.date], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = copy.traces()
    with copy.context() as context, opened(context, to=None) as room:
        plan = planning.planned(room, bump="minor").plan
        assert plan is not None
        entry = journal.begin(room.there, plan)
        journal.doing(room.there, entry, "promote")
    day(LAST + dt.timedelta(days=1))
    code, told = command(copy, monkeypatch, capsys, "release", "--bump", "minor")
    assert code == 1
    assert f"the waiver for {WAIVED} in train by models@example.org expired on {LAST}" in told
    with copy.context() as context:
        states = [event.document["state"] for event in context.ledger.events("release", "prod")]
    assert states[0] == journal.UNDONE
    assert journal.RELEASED not in states
    after = copy.traces()
    assert (after["refs"], after["published"]) == (before["refs"], before["published"])
    assert not catalog(copy.target)
