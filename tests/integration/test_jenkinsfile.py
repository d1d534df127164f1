"""This repository's Jenkinsfile and scripts on real Groovy, over a small project with real images: what occurs in each kind of build."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support import jenkins_world, postgres
from tests.support.jenkins_world import World
from tests.support.jenkinsfile import FORK, MAIN, PULL_REQUEST, TIMER, Events
from trainshed import formats

COMPONENTS = {"base", "prepare", "learn", "answer"}
CHECKS = ("build", "scan", "test")
STAGES = ("plan", "images", "stamp and verify", "upload", "launch", "deploy", "release")
OPTIONAL = ("warnings-ng", "htmlpublisher", "checks-api")
SLOW = "RUN sleep 600\n"


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    jenkins_classes: Path,
    docker_host: str,
    small_base: str,
    image_registry: str,
) -> Iterator[World]:
    with postgres.server() as server:
        made = jenkins_world.make(
            tmp_path_factory.mktemp("jenkinsfile"),
            jenkins_classes,
            engine=docker_host,
            base=small_base,
            registry=f"{image_registry}/jenkins",
            ledger=server.create("jenkins"),
        )
        yield made
        made.down()


@pytest.fixture(scope="module")
def pull_request(world: World) -> Events:
    """Return a pull request's build in the environment that all share, with a run that is followed and a deployment."""
    world.commit({"components/learn/src/extra.py": "LIMIT = 1\n"}, on="better")
    parameters = {
        "ENVIRONMENT": "shared",
        "LAUNCH": True,
        "LAUNCH_PARAMETERS": "rows: 3 # $(touch pwned) `touch pwned` ' \"\n",
        "WAIT": True,
        "GATES": "auc >= 0.1\nauc <= 1",
        "DEPLOY": True,
    }
    return world.job("PR-7").build(PULL_REQUEST, commit="better", parameters=parameters)


@pytest.fixture(scope="module")
def main(world: World) -> Events:
    """Return the first build of the main branch, on its own machine's services."""
    return world.job("main").build(MAIN, first_build=True)


@pytest.fixture(scope="module")
def fanned(world: World) -> Events:
    """Return a build whose components are made on an agent each."""
    world.commit({"components/base/base.txt": "new ground\n"}, on="ground")
    return world.job("PR-11").build(PULL_REQUEST, commit="ground", parameters={"ENVIRONMENT": "shared", "FANOUT_LABEL": "docker"})


def stages(**other: str) -> dict[str, str]:
    """Return what all stages are: green, but for the named ones (blanks as ``_``)."""
    return dict.fromkeys(STAGES, "SUCCESS") | {name.replace("_", " "): result for name, result in other.items()}


def skipped(*names: str) -> dict[str, str]:
    """Return the named stages as their condition skips them."""
    return dict.fromkeys(names, "SKIPPED")


def manifest(done: Events) -> dict[str, Any]:
    """Return the archived manifest, which is as its published schema says."""
    found: dict[str, Any] = json.loads((done.archive / "build/manifest.json").read_text())
    assert [error.message for error in Draft202012Validator(formats.schema("manifest", 1)).iter_errors(found)] == []
    return found


def checks(done: Events) -> dict[str, dict[str, str]]:
    """Return what the build did to each component by its own records: check → component → status; only `cached` gives way."""
    found: dict[str, dict[str, str]] = {check: {} for check in CHECKS}
    began = (done.home / "scenario.json").stat().st_mtime
    for file in (done.archive / "build/records").glob("images*.json"):
        record = json.loads(file.read_text())
        for result in record["results"] if record["made"] >= began else ():
            if found.get(result["stage"], {}).get(result["name"], "cached") == "cached":
                found.setdefault(result["stage"], {})[result["name"]] = result["status"]
    return found


def assert_nothing_runs(world: World, done: Events) -> None:
    """Neither Jenkins nor we find a process or a container of the build."""
    assert done.left_running == []
    assert world.processes() == []
    assert world.containers() == []


class TestPullRequest:
    """A pull request of the repository's own branch."""

    def test_it_is_green_and_releases_nothing(self, pull_request: Events) -> None:
        assert pull_request.result == "SUCCESS", str(pull_request)
        assert pull_request.stages == stages() | skipped("release")
        assert pull_request.branches == dict.fromkeys(COMPONENTS, "SUCCESS")
        assert pull_request.of("milestone") == []

    def test_a_newer_build_of_it_aborts_it_and_no_timer_starts_it(self, pull_request: Events) -> None:
        properties = pull_request.one("properties")
        assert properties["options"]["disableConcurrentBuilds"] == {"abortPrevious": True}
        assert properties["triggers"] == [{"symbol": "cron", "given": ""}]

    def test_it_binds_what_the_environment_asks_for_and_nothing_of_production(self, pull_request: Events) -> None:
        assert pull_request.bound == {"shared-text", "shared-file", "shared-login", "ledger"}
        assert [event["files_left"] for event in pull_request.of("unbind") if event["files_left"]] == []
        assert sum(event["leaked"] for event in pull_request.of("sh end")) == 0
        written = b"".join(file.read_bytes() for file in pull_request.archive.rglob("*") if file.is_file()).decode(errors="replace")
        assert [secret for secret in jenkins_world.SECRETS if secret in written + str(pull_request)] == []

    def test_its_page_says_versions_digests_and_what_ran(self, world: World, pull_request: Events) -> None:
        told, made = pull_request.description or "", manifest(pull_request)
        assert told.startswith(f"{world.project} in shared: green\n")
        assert set(made["images"]) == COMPONENTS
        assert f"built learn {made['images']['learn'].partition('@')[2][:19]}" in told
        assert f"pipeline sample_flow {made['pipelines']['sample_flow']['version']}" in told
        assert "run of sample_flow SUCCEEDED" in told
        assert f"service answer {made['services']['answer']['revision']}" in told
        assert (made["commit"], made["branch"]) == (world.revision("better"), "PR-7")

    def test_tests_findings_report_and_status_are_recorded(self, pull_request: Events) -> None:
        assert pull_request.one("junit")["failed"] == []
        assert pull_request.one("junit")["total"] > len(COMPONENTS)
        assert pull_request.one("issues")["files"] == ["build/reports/findings.sarif"]
        assert pull_request.one("html")["files"] == ["report.html"]
        assert pull_request.one("checks")["conclusion"] == "SUCCESS"
        assert "learn" in pull_request.one("checks")["summary"]

    def test_lock_and_manifest_are_archived_with_fingerprints_and_the_logs_without(self, pull_request: Events) -> None:
        marked = {file for event in pull_request.of("archive") for file in event["fingerprints"]}
        assert marked == {"build/images.lock.json", "build/manifest.json"}
        wanted = {f"build/logs/{name}.build.log" for name in COMPONENTS} | {"build/reports/summary.md", "build/pipelines/sample_flow.yaml"}
        assert pull_request.archived >= wanted | marked

    def test_parameters_of_runs_are_data(self, world: World, pull_request: Events) -> None:
        workspace = world.job("PR-7").workspace()
        assert manifest(pull_request)["runs"]["sample_flow"]["state"] == "SUCCEEDED"
        assert not (workspace / "pwned").exists()

    def test_nothing_of_it_goes_on(self, world: World, pull_request: Events) -> None:
        assert_nothing_runs(world, pull_request)


def test_shell_code_in_parameters_is_never_run(world: World, pull_request: Events) -> None:
    assert pull_request.result == "SUCCESS"
    code = "$(touch pwned) `touch pwned`; touch pwned"
    controller = world.job("PR-7")
    named = controller.build(PULL_REQUEST, commit="better", parameters={"ENVIRONMENT": "shared", "COMPONENTS": code})
    assert (named.result, named.stages["plan"]) == ("FAILURE", "FAILURE")
    gated = controller.build(
        PULL_REQUEST, commit="better", parameters={"ENVIRONMENT": "shared", "LAUNCH": True, "GATES": f'auc >= 0.1"; {code}; echo "'}
    )
    assert gated.stages == stages(launch="FAILURE", deploy="not reached", release="not reached")
    assert not list(controller.workspace().rglob("pwned"))


def test_a_pull_request_may_not_work_on_production(world: World, pull_request: Events) -> None:
    assert pull_request.result == "SUCCESS"
    done = world.job("PR-7").build(PULL_REQUEST, commit="better", parameters={"ENVIRONMENT": "production"})
    assert done.stages["plan"] == "FAILURE"
    assert "environment production is for main and above, and this is" in done.console
    assert done.bound == set()


class TestMain:
    """The main branch."""

    def test_it_is_green_and_says_that_nothing_is_released(self, main: Events) -> None:
        assert main.result == "SUCCESS", str(main)
        assert main.stages == stages() | skipped("launch", "deploy")
        assert main.shell("release")[0]["script"] == "exec scripts/release --bump 'auto'"
        assert "nothing was released" in main.shell("release")[0]["log"]

    def test_it_brings_the_schedules_up_to_date_after_the_upload(self, main: Events, pull_request: Events) -> None:
        assert main.shell("schedule")[0]["script"] == "exec scripts/schedule -- $PIPELINES"
        assert main.labels.index("upload") < main.labels.index("schedule")
        assert pull_request.shell("schedule") == []

    def test_it_passes_milestones_and_waits_for_no_other_build(self, main: Events) -> None:
        assert [(event["ordinal"], event["stage"]) for event in main.of("milestone")] == [(1, "upload"), (2, "release")]
        properties = main.one("properties")
        assert properties["options"]["disableConcurrentBuilds"] == {"abortPrevious": False}
        assert properties["triggers"] == [{"symbol": "cron", "given": "H 3 * * *"}]

    def test_what_it_needs_is_embedded_and_ends_with_it(self, world: World, main: Events) -> None:
        assert main.bound == set()
        assert set(checks(main)["build"].values()) == {"done"}
        assert_nothing_runs(world, main)

    def test_an_older_build_ends_at_a_milestone_that_a_newer_one_has_passed(self, world: World, main: Events) -> None:
        assert main.result == "SUCCESS"
        done = world.job("main").build(MAIN, superseded_at=1)
        assert (done.result, done.stages["upload"], done.stages["release"]) == ("NOT_BUILT", "NOT_BUILT", "not reached")
        assert done.shell("upload") == []
        assert "build/images.lock.json" in done.archived

    def test_the_timer_plans_and_makes_images_and_nothing_else(self, world: World, main: Events) -> None:
        assert main.result == "SUCCESS"
        done = world.job("main").build(MAIN, cause=TIMER)
        assert done.result == "SUCCESS", str(done)
        assert done.stages == stages() | skipped("stamp and verify", "upload", "launch", "deploy", "release")
        assert set(checks(done)["build"].values()) == {"cached"}
        assert manifest(done)["images"] == manifest(main)["images"]


def test_a_fork_gets_no_credentials_and_touches_nothing_outside(world: World) -> None:
    world.commit({"components/answer/src/extra.py": "WHO = 'stranger'\n"}, on="fork")
    controller = world.job("PR-8")
    parameters = {"ENVIRONMENT": "shared", "LAUNCH": True, "DEPLOY": True, "FANOUT_LABEL": "docker"}
    done = controller.build(FORK, commit="fork", parameters=parameters, missing_plugins=list(OPTIONAL))
    assert done.result == "SUCCESS", str(done)
    assert done.stages == stages() | skipped("upload", "launch", "deploy", "release")
    assert done.bound == set()
    assert (manifest(done)["environment"], len(done.of("node"))) == ("local", 1)
    assert all(image.startswith("127.0.0.1:") and "/jenkins/" not in image for image in manifest(done)["images"].values())
    # The controller of this build has none of the optional plugins.
    assert [done.of(kind) for kind in ("issues", "html", "checks")] == [[], [], []]
    assert {event["message"].partition(" found")[0] for event in done.of("echo")} == {
        f"not installed: No such DSL method '{name}'" for name in ("sarif", "publishHTML", "publishChecks")
    }
    assert_nothing_runs(world, done)


class TestAbort:
    """A build that a person stops."""

    def test_during_a_build_of_an_image(self, world: World) -> None:
        file = "components/learn/Dockerfile"
        text = world.text(file)
        world.commit({file: text.replace("COPY src /app/\n", f"COPY src /app/\n{SLOW}", 1)}, on="slow")
        controller = world.job("PR-9")
        log = controller.workspace() / "build/logs/learn.build.log"
        done = controller.build(PULL_REQUEST, commit="slow", parameters={"ENVIRONMENT": "shared"}, abort_when=f"grep -q 'sleep 600' {log}")
        assert (done.result, done.stages["images"], done.branches["learn"]) == ("ABORTED", "ABORTED", "ABORTED")
        assert {done.stages[name] for name in STAGES[2:]} == {"not reached"}
        assert done.of("killed") == []
        assert_nothing_runs(world, done)
        assert "interrupted" in (done.description or "")
        assert {"build/logs/learn.build.log", "build/reports/junit.xml"} <= done.archived
        assert "build/images.lock.json" not in done.archived

    def test_during_a_run_that_is_followed(self, world: World, pull_request: Events) -> None:
        assert pull_request.result == "SUCCESS"
        controller = world.job("PR-7")
        parameters = {"ENVIRONMENT": "shared", "LAUNCH": True, "LAUNCH_PARAMETERS": "rows: 4711", "WAIT": True}
        running = (
            f"docker -H {world.sample.engine} ps --no-trunc --format '{{{{.Image}}}} {{{{.Command}}}}' | grep -q '/{world.project}/.*4711'"
        )
        done = controller.build(PULL_REQUEST, commit="better", parameters=parameters, abort_when=running)
        assert (done.result, done.stages) == ("ABORTED", stages(launch="ABORTED", deploy="not reached", release="not reached"))
        assert done.of("killed") == []
        assert_nothing_runs(world, done)
        assert re.search(r"launch sample_flow: run \S+ terminated", done.shell("launch")[0]["log"])
        assert "build/images.lock.json" in done.archived


class TestFailure:
    """A branch that fails, and what is done about it."""

    def test_the_others_go_on_and_a_restart_does_only_what_lacks_a_verdict(self, world: World, tmp_path: Path) -> None:
        # What is outside of the tree decides: the value of a secret is no part of the inputs, nor of the engine's cache, so the project is.
        secret, dockerfile = tmp_path / "secret", "components/learn/Dockerfile"
        opens = f'test "$(cat /run/secrets/gate)" = open # {world.project}'
        needs = f"COPY src /app/\nRUN --mount=type=secret,id=gate,mode=0444 {opens}\n"
        files = {
            "trainshed.toml": world.text("trainshed.toml") + f'\n[build.secrets]\ngate = "{secret}"\n',
            dockerfile: world.text(dockerfile).replace("COPY src /app/\n", needs, 1),
            "components/base/base.txt": "ground behind a gate\n",
        }
        world.commit(files, on="gate")
        controller, branch, parameters = world.job("gate"), {"BRANCH_NAME": "gate"}, {"ENVIRONMENT": "shared"}
        secret.write_text("closed")
        failed = controller.build(branch, commit="gate", parameters=parameters)
        assert failed.branches == {"base": "SUCCESS", "prepare": "SUCCESS", "learn": "FAILURE", "answer": "SUCCESS"}
        assert failed.stages == stages(images="FAILURE") | dict.fromkeys(STAGES[2:], "not reached")
        assert "failed: build learn" in (failed.description or "")
        assert any("learn" in case for case in failed.one("junit")["failed"])
        assert (failed.result, failed.one("checks")["conclusion"]) == ("FAILURE", "FAILURE")
        assert "build/images.lock.json" not in failed.archived
        secret.write_text("open")
        again = controller.build(branch, commit="gate", parameters=parameters, restart_from="images")
        assert again.result == "SUCCESS", str(again)
        assert again.stages == stages(plan="not reached") | skipped("launch", "deploy", "release")
        assert again.branches == {"learn": "SUCCESS"}
        assert {name for check in CHECKS for name, status in checks(again)[check].items() if status == "done"} == {"learn"}
        assert set(manifest(again)["images"]) == COMPONENTS

    def test_a_base_that_fails_stops_what_stands_on_it_and_nothing_else(self, world: World) -> None:
        prepare = "components/prepare/src/main.py"
        files = {
            "components/spare/Dockerfile": world.text("components/base/Dockerfile").replace("COPY base.txt /base.txt\n", "RUN exit 1\n"),
            "components/onspare/Dockerfile": "ARG SPARE=x\nFROM ${SPARE}\nUSER 65534\n",
            prepare: f"{world.text(prepare)}# changed beside a base that fails\n",
        }
        world.commit(files, on="spare")
        done = world.job("PR-13").build(PULL_REQUEST, commit="spare", parameters={"ENVIRONMENT": "shared"})
        assert (done.result, done.stages["images"], done.stages["upload"]) == ("FAILURE", "FAILURE", "not reached")
        assert "prepare" in done.branches
        assert done.branches == dict.fromkeys(done.branches, "SUCCESS") | {"spare": "FAILURE", "onspare": "FAILURE"}
        told = (done.description or "").splitlines()
        assert (told[1], any(line.startswith("built prepare sha256:") for line in told)) == ("failed: build spare", True)
        assert checks(done)["build"]["onspare"] == "aborted"
        assert "build/images.lock.json" not in done.archived

    def test_with_fail_fast_the_others_are_stopped(self, world: World) -> None:
        broken, slow = "components/prepare/Dockerfile", "components/answer/Dockerfile"
        # What fails waits until the other is at work.
        files = {
            broken: world.text(broken).replace("COPY src /app/\n", "COPY src /app/\nRUN sleep 8; exit 1\n", 1),
            slow: world.text(slow).replace("COPY src /app/\n", f"COPY src /app/\n{SLOW}", 1),
        }
        world.commit(files, on="broken")
        controller = world.job("PR-10")
        done = controller.build(PULL_REQUEST, commit="broken", parameters={"ENVIRONMENT": "shared", "FAIL_FAST": True})
        assert (done.branches["prepare"], done.branches["answer"], done.result) == ("FAILURE", "ABORTED", "FAILURE")
        assert "failed: build prepare" in (done.description or "")
        assert_nothing_runs(world, done)


class TestFanOut:
    """A component on each agent: nothing is shared but the registry and the ledger."""

    def test_each_component_is_made_in_a_workspace_of_another_agent(self, fanned: Events) -> None:
        assert fanned.result == "SUCCESS", str(fanned)
        assert fanned.branches == dict.fromkeys(COMPONENTS, "SUCCESS")
        made = {event["branch"]: event for event in fanned.shell("images") if event["branch"]}
        assert {event["agent"] for name, event in made.items() if name != "base"} == {"agent-1", "agent-2", "agent-3"}
        assert {event["commit"] for event in fanned.of("checkout")} == {fanned.of("checkout")[0]["commit"]}

    def test_its_records_and_logs_come_back_and_the_rest_is_found_done(self, fanned: Events) -> None:
        for name in COMPONENTS:
            files = {event["name"]: event["files"] for event in fanned.of("unstash")}[f"images-{name}"]
            assert f"build/logs/{name}.build.log" in files
            assert any(file.startswith("build/records/") for file in files)
        assert set(checks(fanned)["build"].values()) == {"done"}
        last = [event for event in fanned.shell("images") if not event["branch"]][-1]
        assert "done in" not in last["log"]
        assert set(manifest(fanned)["images"]) == COMPONENTS
        assert "failed" not in (fanned.description or "")

    def test_no_agent_keeps_anything_running(self, world: World, fanned: Events) -> None:
        assert_nothing_runs(world, fanned)

    def test_what_agents_cannot_share_is_refused(self, world: World, fanned: Events) -> None:
        assert fanned.result == "SUCCESS"
        refused = world.job("PR-11").build(PULL_REQUEST, commit="ground", parameters={"FANOUT_LABEL": "docker"})
        assert (refused.stages["images"], refused.branches) == ("FAILURE", {})
        assert "agents on several machines cannot share it" in refused.console


def test_a_repository_without_scripts_builds_by_the_shared_library_alone(world: World, tmp_path: Path) -> None:
    world.commit({"Jenkinsfile": "@Library('trainshed') _\ntrainshed(environment: 'shared')\n"}, on="library", without="scripts")
    program = tmp_path / "trainshed"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trainshed "$@"\n')
    program.chmod(0o755)
    controller = world.job("library")
    controller.environment = {**controller.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    controller.libraries = {"trainshed": jenkins_world.ROOT / "ci/jenkins/library"}
    done = controller.build(MAIN, commit="library")
    assert done.result == "SUCCESS", str(done)
    assert done.stages == stages() | skipped("launch", "deploy", "release")  # a release is a script of the repository
    assert manifest(done)["environment"] == "shared"
    assert {event["script"].split()[1] for event in done.of("sh")} == {"trainshed"}
    assert_nothing_runs(world, done)
