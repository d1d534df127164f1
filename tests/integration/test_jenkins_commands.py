"""``trainshed jenkins …`` as a user runs it, against a controller on a real socket and a real repository."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.jenkins_project import LOCK, Done, Project, failed, record, toml
from tests.support.jenkins_server import FakeBuild, running_jenkins
from tests.support.sample_project import until
from trainshed.stages import jenkins

STAGES = """[Pipeline] stage
[Pipeline] { (images)
[Pipeline] parallel
[Pipeline] { (Branch: learn)
test learn: failed in 0.4 s
Failed in branch learn
[Pipeline] // parallel
[Pipeline] }
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    assert jenkins.__doc__
    with running_jenkins() as server:
        yield Project(tmp_path, server)


def said(child: subprocess.Popen[str], text: str) -> str:
    """Read what a command says until a text comes."""
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"never said {text!r}:\n{''.join(lines)}")


def rest(child: subprocess.Popen[str], *, code: int) -> Done:
    """Wait for the end of a command that `said` something: what is buffered of its words is part of the rest."""
    assert child.stdout is not None
    assert child.stderr is not None
    with child:
        told, out = child.stderr.read(), child.stdout.read()
    assert child.returncode == code, told
    return Done(child.returncode, json.loads(out), told)


# -- trigger


def test_a_build_is_triggered_with_checked_parameters_and_how_to_follow_it_is_told(project: Project) -> None:
    project.main.add_build("SUCCESS")
    project.server.state.hold = True
    done = project.run("jenkins", "trigger", "-p", "LAUNCH=TRUE", "-p", "ENVIRONMENT=dev")
    (result,) = done.document["results"]
    item = project.server.state.items[result["queue_id"]]
    assert {name: item.parameters[name] for name in ("LAUNCH", "ENVIRONMENT")} == {"LAUNCH": True, "ENVIRONMENT": "dev"}
    assert f"trainshed jenkins watch --queue {result['queue_id']} --branch main" in done.told


def test_wrong_parameters_are_all_told_before_anything_is_sent(project: Project) -> None:
    project.main.add_build("SUCCESS")
    done = project.run("jenkins", "trigger", "-p", "LAUNC=true", "-p", "RELEASE_BUMP=huge", "-p", "LAUNCH=1", code=2)
    message = done.document["error"]["message"]
    assert ("perhaps you meant 'LAUNCH'" in message, "one of auto, patch, none" in message, "expected true or false" in message) == (
        True,
    ) * 3
    assert "ENVIRONMENT (string)" in done.document["error"]["next"]
    assert project.server.asked("^POST") == []


def test_a_branch_without_builds_is_said_and_takes_no_parameters(project: Project) -> None:
    project.multibranch.add_branch("feature/new")
    done = project.run("jenkins", "trigger", "--branch", "feature/new", "-p", "LAUNCH=true", code=2)
    assert "has no build yet" in done.told
    assert project.server.asked("^POST") == []
    done = project.run("jenkins", "trigger", "--branch", "feature/new")
    assert "the first one runs with the defaults" in done.told
    assert len(project.server.asked("^POST")) == 1


def test_a_branch_that_the_job_does_not_have_is_said_with_near_names(project: Project) -> None:
    project.branch("feature/training")
    done = project.run("jenkins", "trigger", "--branch", "feature/trainig", code=2)
    assert "feature/training" in done.told


def test_without_a_controller_the_missing_keys_are_named(project: Project) -> None:
    (project.root / "trainshed.toml").write_text('[project]\nname = "sample"\n')
    done = project.run("jenkins", "trigger", code=2)
    assert ("jenkins.url is not set" in done.told, "jenkins.job is not set" in done.told) == (True, True)


def test_a_user_without_a_token_and_a_wrong_token_are_told_apart(project: Project) -> None:
    project.environment = {"CI": "true"}
    assert "JENKINS_TOKEN holds no API token" in project.run("jenkins", "trigger", code=2).told
    project.environment = {"CI": "true", "JENKINS_TOKEN": "no-such-token"}
    done = project.run("jenkins", "trigger", code=5)
    assert "401" in done.told
    assert "no-such-token" not in done.told


def test_a_refusal_is_told_with_what_is_missing(project: Project) -> None:
    project.server.fail("^GET .*/api/json", 403, times=20)
    assert "403" in project.run("jenkins", "trigger", code=5).told


def test_triggered_and_killed_the_build_is_followed_by_the_item_of_the_queue(project: Project) -> None:
    project.main.add_build("SUCCESS")
    project.server.state.hold = True
    child = project.start("jenkins", "trigger", "--wait")
    told = said(child, "watch --queue")
    child.kill()
    with child:
        pass
    queue = told.partition("--queue ")[2].split()[0]
    project.main.add_build("FAILURE")  # somebody else's, and newer than the item
    child = project.start("jenkins", "watch", "--queue", queue, "--branch", "main")
    build = project.server.state.begin(int(queue))
    build.say("[Pipeline] stage\n[Pipeline] { (plan)\n")
    said(child, f"#{build.number} stage plan")
    build.end()
    done = rest(child, code=0)
    assert done.document["results"][0]["build"] == build.number


def test_an_interrupted_trigger_leaves_the_build_and_says_how_to_follow_it(project: Project) -> None:
    project.main.add_build("SUCCESS")
    project.server.state.hold = True
    child = project.start("jenkins", "trigger", "--wait")
    said(child, "watch --queue")
    child.send_signal(signal.SIGINT)
    done = rest(child, code=130)
    assert "next: Follow it again: trainshed jenkins watch --queue" in done.told
    assert [item.cancelled for item in project.server.state.items.values() if not item.left] == [False]


def test_a_trigger_that_is_interrupted_before_its_answer_does_not_say_to_trigger_again(project: Project) -> None:
    project.main.add_build("SUCCESS")
    project.server.stall("^POST")
    child = project.start("jenkins", "trigger")
    until(lambda: project.server.asked("^POST"), "the form")
    child.send_signal(signal.SIGINT)
    done = rest(child, code=130)
    assert "Jenkins may have taken it all the same" in done.told
    assert f"next: Look at {project.server.url}/job/team/job/sample/job/main/ before" in done.told


# -- watch


def play(build: FakeBuild, *texts: str, result: str = "SUCCESS") -> None:
    for text in texts:
        build.say(text)
    build.end(result)


def test_a_green_build_is_followed_live(project: Project) -> None:
    build = project.main.add_build(None, commit=project.first)
    child = project.start("jenkins", "watch")
    build.say("[Pipeline] stage\n[Pipeline] { (plan)\n[Pipeline] sh (pl")
    told = said(child, "stage plan")
    build.description = "sample in local: green\n3 images"
    play(build, "an)\n[Pipeline] }\n[Pipeline] // stage\nFinished: SUCCESS\n")
    done = rest(child, code=0)
    assert ("stage plan: ended" in done.told, "sample in local: green" in done.told) == (True, True)
    assert (told + done.told).count("#1 stage plan\n") == 1
    (result,) = done.document["results"]
    assert (result["result"], result["build"], result["commit"], result["status"]) == ("SUCCESS", 1, project.first, "done")


def test_a_failure_is_told_from_the_records_with_the_end_of_its_log(project: Project, tmp_path: Path) -> None:
    archived = record(tmp_path / "made", failed("learn", "1 of 3 tests failed", "build/logs/learn.test.log"))
    log = b"".join(b"line %d\n" % number for number in range(100)) + b"41 is not 42\n"
    build = project.main.add_build(None, artifacts={**archived, "build/logs/learn.test.log": log})
    play(build, STAGES, result="FAILURE")
    done = project.run("jenkins", "watch", "--build", "1", code=1)
    for text in ("branch learn: failed", "stage images: failed in branch learn", "1 of 3 tests failed", "│ 41 is not 42"):
        assert done.told.count(text) == 1
    assert "│ line 1\n" not in done.told
    judged, cause = done.document["results"]
    assert (judged["result"], cause["name"], cause["stage"], cause["archived_log"]) == (
        "FAILURE",
        "learn",
        "test",
        "build/logs/learn.test.log",
    )
    assert not list((project.root / ".trainshed").glob("*records*"))


@pytest.mark.parametrize("harm", ["nothing archived", "no record", "server failing"])
def test_without_records_the_end_of_the_console_is_told(project: Project, harm: str) -> None:
    build = project.main.add_build(None, artifacts={"build/records/images.json": b"{"} if harm == "no record" else {})
    play(build, "fatal: the agent has no disk left\n", result="FAILURE")
    if harm == "server failing":
        project.server.fail("^GET .*artifacts", 500, times=20)
    done = project.run("jenkins", "watch", code=1)
    assert "│ fatal: the agent has no disk left" in done.told


@pytest.mark.parametrize(("result", "word"), [("ABORTED", "aborted"), ("UNSTABLE", "unstable"), ("NOT_BUILT", "not built")])
def test_what_is_not_green_is_exit_code_1(project: Project, result: str, word: str) -> None:
    play(project.main.add_build(None), "Aborted by Ada\n" if result == "ABORTED" else "", result=result)
    done = project.run("jenkins", "watch", code=1)
    assert word in done.told
    assert done.document["results"][0]["result"] == result
    assert done.document["status"] == ("aborted" if result == "ABORTED" else "red")


def test_an_address_names_a_build_of_a_branch_with_a_slash(project: Project) -> None:
    build = project.branch("feature/x").add_build("SUCCESS", log=b"[Pipeline] { (plan)\n")
    assert "feature%252Fx" in build.url
    done = project.run("jenkins", "watch", "--build", f"{build.url}console")
    assert (done.document["results"][0]["branch"], "stage plan" in done.told) == ("feature/x", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--build", "https://other.example.org/job/team/job/sample/job/main/1/"), "not a build of"),
        (("--build", "last"), "'last' is no build"),
        (("--build", "99"), "99"),
        (("--queue", "1", "--build", "1"), "--queue and --build"),
        (("--branch", "gone"), "gone"),
    ],
)
def test_what_cannot_be_followed_is_refused(project: Project, words: tuple[str, ...], message: str) -> None:
    project.main.add_build("SUCCESS")
    assert message in project.run("jenkins", "watch", *words, code=2).told


def test_a_restart_of_the_controller_in_the_middle_loses_and_repeats_nothing(project: Project) -> None:
    build = project.main.add_build(None)
    child = project.start("jenkins", "watch")
    build.say("[Pipeline] stage\n[Pipeline] { (plan)\n[Pipeline] sh\n")
    told = said(child, "stage plan")
    project.server.stop()
    told += said(child, "waiting for it")
    project.server.start(starting=True)
    build.log = build.log[:-14]  # what was not on the disk yet is lost
    build.say("[Pipeline] sh\nResuming build at Sun Nov 22 13:00:00 UTC 2026 after Jenkins restart\n[Pipeline] }\n")
    project.server.ready()
    told += said(child, "stage plan: ended")
    build.end()
    told += rest(child, code=0).told
    for text in ("#1 stage plan\n", "#1 stage plan: ended\n", "the build goes on", "the controller answers again"):
        assert told.count(text) == 1, told


def test_a_deadline_leaves_the_build_alone(project: Project) -> None:
    build = project.main.add_build(None)
    done = project.run("jenkins", "watch", "--deadline", "1s", code=1)
    assert ("build #1 goes on" in done.told, build.building) == (True, True)


def test_records_and_logs_with_names_of_a_stranger_are_read_under_names_of_ours(project: Project) -> None:
    (told,) = record(project.root.parent / "made", failed("learn", "2 of 3 tests failed", "../../../../../../user/ada/api/json")).values()
    named = {f"build/records/{name}.json": told for name in ("n" * 300, "../../../evil", "a/b")}
    project.main.add_build("FAILURE", commit=project.first, artifacts=named)
    assert "2 of 3 tests failed" in project.run("jenkins", "watch", code=1).told
    assert [each.path for each in project.server.asked("/artifact/")] == [
        f"/job/team/job/sample/job/main/1/artifact/build/records/{'n' * 300}.json"
    ]
    assert not project.server.asked("/user/")


def test_an_interrupted_watch_leaves_the_build_alone(project: Project) -> None:
    build = project.main.add_build(None)
    child = project.start("jenkins", "watch")
    said(child, build.url)
    child.send_signal(signal.SIGTERM)
    done = rest(child, code=130)
    assert ("build #1 goes on" in done.told, "watch --build 1 --branch main" in done.told) == (True, True)
    assert (build.building, project.server.asked("^POST")) == (True, [])
    assert (done.document["schema"], done.document["status"]) == ("trainshed/jenkins-watch/v1", "interrupted")


def test_a_cancelled_item_of_the_queue_is_exit_code_1(project: Project) -> None:
    project.server.state.hold = True
    queue = project.server.state.schedule(project.main, {}).id
    project.server.state.cancel(queue)
    assert "cancelled" in project.run("jenkins", "watch", "--queue", str(queue), code=1).told


# -- lock


def locked(project: Project) -> Path:
    return project.root / LOCK


def test_the_lock_of_the_last_green_build_of_this_commit_is_taken(project: Project) -> None:
    build = project.green()
    project.green(commit="f" * 40)
    project.main.add_build("FAILURE", commit=project.first)
    done = project.run("jenkins", "lock")
    assert locked(project).read_bytes() == build.artifacts[LOCK]
    assert "build #1 of branch main" in done.told
    assert ("the last green build of this commit" in done.told, "the lock is of this tree" in done.told) == (True, True)
    (result,) = done.document["results"]
    assert (result["build"], result["of_commit"], result["of_this_tree"]) == (1, True, True)


def test_else_that_of_the_branch_is_taken_and_the_difference_is_said(project: Project) -> None:
    project.green()
    project.clone.write("components/base/base.txt", "moved\n")
    new = project.clone.commit()
    done = project.run("jenkins", "lock")
    assert f"commit {new[:8]} has none" in done.told
    assert "of another tree than this one (base differ): stamp will refuse it" in done.told
    assert done.document["results"][0]["of_this_tree"] is False
    assert locked(project).is_file()


def test_a_tree_on_a_base_that_the_lock_does_not_know_is_compared_without_a_registry(project: Project) -> None:
    project.green()
    project.clone.write("components/base/Dockerfile", "FROM registry.invalid/other:1\n")
    assert "(base differ)" in project.run("jenkins", "lock").told


def test_a_component_that_is_gone_here_differs(project: Project) -> None:
    project.green()
    shutil.rmtree(project.root / "components/learn")
    assert "(learn differ)" in project.run("jenkins", "lock").told


def test_a_dry_run_and_a_commit_without_a_green_build_write_nothing(project: Project) -> None:
    project.green(commit="f" * 40)
    assert project.run("jenkins", "lock", "--dry-run").document["results"][0]["status"] == "skipped"
    done = project.run("jenkins", "lock", "--commit", project.first, code=3)
    assert "no green build of commit" in done.told
    assert not locked(project).exists()


def test_a_short_commit_finds_its_build(project: Project) -> None:
    project.green()
    project.green(commit="f" * 40)
    assert project.run("jenkins", "lock", "--commit", project.first[:8]).document["results"][0]["build"] == 1
    assert project.run("jenkins", "lock", "--commit", "f" * 10).document["results"][0]["build"] == 2


@pytest.mark.parametrize("result", ["FAILURE", "UNSTABLE", "ABORTED", None])
def test_a_build_that_is_not_green_is_never_taken(project: Project, result: str | None) -> None:
    project.main.add_build(result, commit=project.first, artifacts={LOCK: project.lock()})
    done = project.run("jenkins", "lock", code=3)
    assert "has no green build" in done.told
    assert not locked(project).exists()


def test_a_build_of_a_pull_request_is_named_as_such(project: Project) -> None:
    project.green(project.branch("PR-7"), artifacts={LOCK: project.lock(tier="pull-request")})
    done = project.run("jenkins", "lock", "--branch", "PR-7")
    assert "it is a build of pull request PR-7; its verdicts are of tier pull-request" in done.told


def test_a_build_of_some_components_comes_after_one_of_all(project: Project) -> None:
    project.green(commit="e" * 40)
    project.green(commit="f" * 40, parameters={"COMPONENTS": "learn"})
    assert project.run("jenkins", "lock").document["results"][0]["build"] == 1
    project.green(parameters={"COMPONENTS": "learn"})
    assert "asked for some components alone (learn)" in project.run("jenkins", "lock").told


def test_a_green_build_without_a_lock_is_passed_over(project: Project) -> None:
    project.green()
    project.green(artifacts={})
    done = project.run("jenkins", "lock")
    assert ("it archived no lock" in done.told, done.document["results"][0]["build"]) == (True, 1)


def edited(content: bytes) -> bytes:
    document = json.loads(content)
    document["dirty"] = True
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("harm", "code", "message"),
    [
        (edited, 2, "its seal does not fit"),
        (lambda content: content[:-10], 5, "not whole"),
        (lambda content: b"<html>", 5, "not whole"),  # noqa: ARG005 - one shape for all
    ],
)
def test_a_lock_that_is_not_as_it_was_written_is_refused(project: Project, harm: Callable[[bytes], bytes], code: int, message: str) -> None:
    locked(project).parent.mkdir()
    locked(project).write_text("the one from before")
    project.green(artifacts={LOCK: harm(project.lock())})
    assert message in project.run("jenkins", "lock", code=code).told
    assert locked(project).read_text() == "the one from before"


def test_another_project_s_lock_is_refused(project: Project) -> None:
    project.green(artifacts={LOCK: project.lock(project="other")})
    assert "the lock of project 'other', not of 'sample'" in project.run("jenkins", "lock", code=2).told
    assert not locked(project).exists()


def test_a_download_that_is_cut_off_is_tried_again(project: Project) -> None:
    build = project.green()
    project.server.cut_off("^GET .*/artifact/")
    project.run("jenkins", "lock")
    assert locked(project).read_bytes() == build.artifacts[LOCK]


def test_a_detached_tree_needs_the_name_of_a_branch(project: Project) -> None:
    project.green()
    project.git("checkout", "--quiet", "--detach")
    assert "Name it with --branch" in project.run("jenkins", "lock", code=2).told
    assert project.run("jenkins", "lock", "--branch", "main").code == 0


# -- reproduce


def folder(project: Project, number: int = 1) -> Path:
    return project.root / ".trainshed/reproduce" / f"sample-main-{number}"


def test_a_build_is_set_up_beside_the_tree_and_its_plan_is_equal(project: Project) -> None:
    given = {"LAUNCH_PARAMETERS": "rate: 0.1\n", "LAUNCH": "true"}
    build = project.green(parameters=given)
    project.clone.write("components/base/base.txt", "moved\n")
    project.clone.commit()
    project.clone.write("components/learn/learn.py", "print('not committed')\n")
    done = project.run("jenkins", "reproduce", "--build", "1")
    there = folder(project)
    assert "the plan digest is equal" in done.told
    assert f"cd {there}" in done.told
    assert ((there / LOCK).read_bytes(), (there / "build/parameters.yaml").read_text()) == (build.artifacts[LOCK], "rate: 0.1\n")
    assert json.loads((there / "build/jenkins-parameters.json").read_text())["LAUNCH_PARAMETERS"] == "rate: 0.1\n"
    assert (there / "components/base/base.txt").read_text() == "ground\n"
    assert project.git("status", "--porcelain") == "M components/learn/learn.py"
    again = project.run("jenkins", "reproduce", "--build", "1")
    assert "there already" in again.told


def test_a_lock_of_another_tree_is_exit_code_1_with_what_differs(project: Project) -> None:
    project.clone.write("components/learn/learn.py", "print('as the lock knows it')\n")
    content = project.lock()
    project.git("checkout", "--quiet", ".")
    project.green(artifacts={LOCK: content})
    done = project.run("jenkins", "reproduce", code=1)
    assert "learn differ" in done.told
    assert done.document["results"][0]["differing"] == ["learn"]


def test_a_commit_that_is_not_here_is_fetched_and_a_deleted_folder_is_made_again(project: Project) -> None:
    content = project.lock()
    project.origin.write("README.md", "newer\n")
    new = project.origin.commit()
    project.green(commit=new, artifacts={LOCK: content})
    project.run("jenkins", "reproduce")
    shutil.rmtree(folder(project))
    project.run("jenkins", "reproduce")
    assert (folder(project) / "README.md").read_text() == "newer\n"


def test_a_folder_that_was_changed_is_left_alone(project: Project) -> None:
    project.green()
    project.run("jenkins", "reproduce")
    (folder(project) / "components/base/base.txt").write_text("mine\n")
    done = project.run("jenkins", "reproduce", code=2)
    assert ("changed since it was made" in done.told, "git worktree remove --force" in done.told) == (True, True)
    assert (folder(project) / "components/base/base.txt").read_text() == "mine\n"


def test_a_red_build_is_set_up_too_and_has_nothing_to_compare_with(project: Project) -> None:
    project.main.add_build("FAILURE", commit=project.first, parameters={"COMPONENTS": "learn"})
    done = project.run("jenkins", "reproduce")
    assert ("no lock to compare with" in done.told, "trainshed --env local images learn" in done.told) == (True, True)


def test_a_build_that_runs_or_has_no_commit_or_a_wrong_lock_sets_nothing_up(project: Project) -> None:
    project.main.add_build(None, commit=project.first)
    project.main.add_build("SUCCESS")
    project.green(artifacts={LOCK: edited(project.lock())})
    project.green(commit="1" * 40)
    for number, message in ((1, "still runs"), (2, "does not tell its commit"), (3, "seal"), (4, "not in this repository")):
        assert message in project.run("jenkins", "reproduce", "--build", str(number), code=2).told
    assert not (project.root / ".trainshed/reproduce").exists()


@pytest.mark.parametrize("name", ["build", ".trainshed", "trainshed.toml"])
def test_a_commit_whose_links_lead_elsewhere_has_nothing_written_there(project: Project, name: str) -> None:
    project.clone.write("build/images.lock.json", "mine\n")
    (project.origin.root / name).unlink(missing_ok=True)
    (project.origin.root / name).symlink_to(f"../../../{name}")
    project.origin.git("add", "--force", name)
    project.green(commit=project.origin.commit(), parameters={"LAUNCH_PARAMETERS": "theirs"})
    assert "the commit has a link" in project.run("jenkins", "reproduce", code=2).told
    assert [file.name for file in (project.root / "build").iterdir()] == ["images.lock.json"]
    assert (project.root / LOCK).read_text() == "mine\n"


def test_the_environment_of_the_build_is_taken_where_the_commit_knows_it(project: Project) -> None:
    project.origin.write("trainshed.toml", toml(project.server.url, '[environments.dev]\ntrust = "laptop"\n'))
    new = project.origin.commit()
    project.green(commit=new, parameters={"ENVIRONMENT": "dev"})
    assert "trainshed --env dev stamp" in project.run("jenkins", "reproduce").told
    project.green(parameters={"ENVIRONMENT": "no-more"})
    assert "trainshed --env local stamp" in project.run("jenkins", "reproduce").told
