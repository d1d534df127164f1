"""The steps that a Jenkinsfile runs on in these tests are as strict as Jenkins': what fails there must fail here."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import jenkinsfile
from tests.support.jenkinsfile import MAIN, Controller, Events

Run = Callable[..., Events]
GREEN = "stages { stage('one') { steps { echo 'done' } } }"
REFUSED: Mapping[str, tuple[str, str]] = {
    "unknown-section": (f"agent any\nnotifications {{ echo 'x' }}\n{GREEN}", "undefined section 'notifications'"),
    "twice": (f"agent any\nagent any\n{GREEN}", "multiple occurrences of 'agent'"),
    "no-agent": (GREEN, "section 'agent' is missing"),
    "no-stages": ("agent any", "section 'stages' is missing"),
    "code": (f"agent any\nString x = 'y'\n{GREEN}", "only calls may stand here"),
    "code-in-steps": ("agent any\nstages { stage('one') { steps { if (true) { echo 'x' } } } }", "code needs a script block"),
    "code-in-block": ("agent any\nstages { stage('one') { steps { dir('x') { String a = 'b' } } } }", "code needs a script block"),
    "empty-steps": ("agent any\nstages { stage('one') { steps { } } }", "no steps"),
    "stage-in-steps": ("agent any\nstages { stage('one') { steps { stage('two') { echo 'x' } } } }", "'stage' is not allowed here"),
    "unknown-stage-section": ("agent any\nstages { stage('one') { step { echo 'x' } } }", "undefined section 'step'"),
    "stage-without-steps": ("agent any\nstages { stage('one') { when { branch 'x' } } }", "expected one of steps"),
    "name-of-stage": ("agent any\nstages { stage(env.X) { steps { echo 'x' } } }", "expected stage('name')"),
    "unknown-option": (f"agent any\noptions {{ discard() }}\n{GREEN}", "there is no 'discard'"),
    "empty-options": (f"agent any\noptions {{ }}\n{GREEN}", "is empty"),
    "unknown-trigger": (f"agent any\ntriggers {{ crontab('H 3 * * *') }}\n{GREEN}", "there is no 'crontab'"),
    "unknown-parameter": (f"agent any\nparameters {{ number(name: 'X') }}\n{GREEN}", "there is no 'number'"),
    "environment": (f"agent any\nenvironment {{ X = params.Y ?: 'z' }}\n{GREEN}", "a value is a quoted text or a call"),
    "environment-code": (f"agent any\nenvironment {{ echo 'x' }}\n{GREEN}", "expected NAME = value"),
    "unknown-post": (f"agent any\n{GREEN}\npost {{ ended {{ echo 'x' }} }}", "undefined section 'ended'"),
    "unknown-when": (
        "agent any\nstages { stage('one') { when { condition { true } }\nsteps { echo 'x' } } }",
        "undefined section 'condition'",
    ),
    "unknown-agent": (f"agent {{ machine 'x' }}\n{GREEN}", "undefined section 'machine'"),
}
STEPS: Mapping[str, tuple[str, str]] = {
    "unknown": ("readJSON(file: 'x')", "NoSuchMethodError: No such DSL method 'readJSON' found among steps"),
    "unknown-global": ("echo(unknown)", "MissingPropertyException: No such property: unknown"),
    "unknown-argument": ("sh(script: 'true', name: 'x')", "IllegalArgumentException: sh: unknown parameters [name]"),
    "missing-argument": ("sh(label: 'x')", "IllegalArgumentException: sh: missing parameters [script]"),
    "unnamed-argument": ("stash('x')", "IllegalArgumentException: stash: expected named arguments"),
    "two-returns": ("sh(script: 'true', returnStdout: true, returnStatus: true)", "you may not use returnStdout and returnStatus"),
    "no-block": ("dir('x')", "IllegalArgumentException: dir: a block is missing"),
    "block": ("echo('x') { }", "IllegalArgumentException: echo: takes no block"),
    "exit-code": ("sh('exit 3')", "AbortException: script returned exit code 3"),
    "stops-at-the-first-error": ("sh('false\\ntrue')", "AbortException: script returned exit code 1"),
    "file": ("readFile('nowhere')", "NoSuchFileException"),
    "stash": ("stash(name: 'x', includes: 'nowhere/**')", "AbortException: No files included in stash 'x'"),
    "unstash": ("unstash('nothing')", "AbortException: No such saved stash 'nothing'"),
    "archive": ("archiveArtifacts(artifacts: 'nowhere')", "AbortException: No artifacts found"),
    "junit": ("junit('nowhere.xml')", "AbortException: No test report files were found"),
    "credentials": (
        "withCredentials([string(variable: 'X', credentialsId: 'none')]) { }",
        "Could not find credentials entry with ID 'none'",
    ),
    "kind": ("withCredentials([file(variable: 'X', credentialsId: 'token')]) { }", "'token' is of type 'string' where 'file' was expected"),
    "binding": ("withCredentials([string(name: 'X', credentialsId: 'token')]) { }", "no binding"),
    "parallel": ("parallel([:])", "No branches to run"),
    "milestone": ("milestone(2)\nmilestone(2)", "AbortException: Invalid ordinal 2"),
    "label": ("node('nowhere') { }", "there are no agents with the label 'nowhere'"),
    "checks": ("publishChecks(name: 'x', conclusion: 'GREEN')", "no conclusion: GREEN"),
    "plugin": ("recordIssues(tools: [])", "NoSuchMethodError: No such DSL method 'recordIssues'"),
    "symbol": ("sarif(pattern: 'x')", "NoSuchMethodError: No such DSL method 'sarif'"),
    "html": ("publishHTML([reportDir: 'x'])", "publishHTML: missing parameters"),
    "parameters": ("params.X = 'y'", "MissingPropertyException"),
    "build": ("currentBuild.rawBuild.delete()", "MissingPropertyException"),
}


@pytest.fixture
def controller(tmp_path: Path, jenkins_classes: Path) -> Controller:
    repository = tmp_path / "repository"
    repository.mkdir()
    jenkinsfile.git(repository, "init")
    (repository / "file.txt").write_text("of the repository\n")
    jenkinsfile.git(repository, "add", ".")
    jenkinsfile.git(repository, "commit", "-m", "first")
    agents = [
        {"name": name, "labels": labels, "executors": 2} for name, labels in (("built-in", []), ("one", ["docker"]), ("two", ["docker"]))
    ]
    return Controller(
        home=tmp_path / "controller",
        classes=jenkins_classes,
        repository=repository,
        environment={"PATH": os.environ["PATH"]},
        agents=agents,
        credentials={
            "token": {"kind": "string", "secret": "s3cret-text"},
            "key": {"kind": "file", "secret": "content of the file\n"},
            "login": {"kind": "username-password", "username": "me", "secret": "pa55word"},
        },
    )


@pytest.fixture
def run(controller: Controller, tmp_path: Path) -> Run:
    """Return what runs a pipeline's text and returns what happened."""

    def ran(text: str, **given: Any) -> Events:
        file = tmp_path / "Jenkinsfile"
        file.write_text(textwrap.dedent(text))
        return controller.build(MAIN, jenkinsfile=file, **given)

    return ran


def script(code: str, *, after: str = "", sections: str = "", functions: str = "") -> str:
    """Return a pipeline of one stage that runs a script."""
    return (
        f"pipeline {{\nagent any\n{sections}\nstages {{ stage('one') {{ steps {{ script {{\n{code}\n}} }} }} }}\n{after}\n}}\n{functions}"
    )


@pytest.fixture(scope="module")
def refusals(jenkins_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """Return what the declarative parser says of every text of `REFUSED`."""
    folder = tmp_path_factory.mktemp("refused")
    for name, (text, _) in REFUSED.items():
        (folder / name).write_text(f"pipeline {{\n{text}\n}}\n")
    (folder / "fine").write_text(f"pipeline {{\nagent any\n{GREEN}\n}}\n")
    files = sorted(folder.iterdir())
    said: dict[str, list[str]] = {file.name: [] for file in files}
    for event in jenkinsfile.uses(jenkins_classes, folder, *files):
        if event["kind"] == "error":
            said[Path(event["file"]).name].append(event["error"])
    return said


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_declarative_parser_refuses_is_refused(refusals: Mapping[str, list[str]], name: str) -> None:
    assert REFUSED[name][1] in "\n".join(refusals[name])
    assert refusals["fine"] == []


def test_a_file_that_is_refused_never_runs(run: Run) -> None:
    done = run(f"pipeline {{\nagent any\nunknown {{ }}\n{GREEN}\n}}\n")
    assert (done.result, done.of("node")) == ("FAILURE", [])
    assert "undefined section 'unknown'" in done.errors[0]


def test_steps_fail_as_those_of_jenkins_do(run: Run) -> None:
    attempts = "\n".join(
        f"try {{\n{code}\necho('{name}: nothing was wrong')\n}} catch (Throwable t) {{ echo('{name}: ' + t) }}"
        for name, (code, _) in STEPS.items()
    )
    done = run(script(attempts), missing_plugins=["warnings-ng"])
    told = {event["message"].partition(":")[0]: event["message"] for event in done.of("echo")}
    assert {name: expected in told[name] for name, (_, expected) in STEPS.items()} == dict.fromkeys(STEPS, True), told


def test_a_shell_step_gets_build_parameters_and_blocks_and_gives_back_what_is_asked_for(run: Run) -> None:
    sections = """
        parameters {
            string(name: 'WHO', defaultValue: 'you')
            booleanParam(name: 'YES', defaultValue: true)
        }
        environment { A = "${params.WHO}-a" }
    """
    code = """
        String out = sh(label: 'out', returnStdout: true, script: 'echo "$WHO $YES $A $B $STAGE_NAME $BRANCH_NAME"; echo told >&2')
        echo("<${out}>")
        echo("status ${sh(returnStatus: true, script: 'exit 7')} ${env.A} ${WHO} ${params.YES}")
        withEnv(['B=b']) { sh(label: 'inside', script: 'test "$B" = b') }
    """
    done = run(script(code, sections=sections), parameters={"WHO": "me"})
    assert [event["message"] for event in done.of("echo")] == ["<me true me-a  one main\n>", "status 7 me-a me true"]
    assert done.shell("out")[0]["log"].startswith("+ echo me true me-a")
    assert "told" in done.shell("out")[0]["log"]
    assert done.result == "SUCCESS"


def test_a_first_build_knows_its_parameters_in_groovy_but_not_in_the_shell(run: Run) -> None:
    code = "sh(label: 'told', returnStdout: true, script: 'echo \"<$WHO>\"')\necho(params.WHO)"
    text = script(code, sections="parameters { string(name: 'WHO', defaultValue: 'you') }")
    first, second = run(text, first_build=True), run(text)
    assert (first.shell("told")[0]["output"], second.shell("told")[0]["output"]) == ("<>\n", "<you>\n")
    assert [event["message"] for event in first.of("echo")] == ["you"]


def test_secrets_are_bound_masked_and_gone_after_the_block(run: Run) -> None:
    code = """
        List all = [string(variable: 'T', credentialsId: 'token'), file(variable: 'F', credentialsId: 'key'),
                    usernamePassword(usernameVariable: 'U', passwordVariable: 'P', credentialsId: 'login')]
        withCredentials(all) { sh(label: 'in', script: 'echo "$T $U $P"; cat "$F"; echo "$F" > where') }
        sh(label: 'after', script: 'test -z "$T$U$P$F"; test ! -e "$(cat where)"')
    """
    done = run(script(code))
    assert done.result == "SUCCESS", str(done)
    assert "**** me ****\n" in done.shell("in")[0]["log"]
    assert "content of the file" in done.shell("in")[0]["log"]
    assert done.shell("in")[0]["leaked"] == 3  # the path of the file too
    assert "s3cret-text" not in str(done)
    assert done.bound == {"token", "key", "login"}
    assert done.one("unbind")["files_left"] == []


def test_the_workspace_is_the_commit_and_each_agent_has_its_own(run: Run) -> None:
    code = """
        sh('cat file.txt > made.txt; mkdir -p out/deep; echo 1 > out/deep/a.txt; echo 2 > out/b.log')
        stash(name: 'kept', includes: 'out/**/*.txt,made.txt')
        node('docker') {
            sh(label: 'elsewhere', script: 'test ! -e file.txt')
            checkout(scm)
            unstash('kept')
            sh(label: 'there', script: 'diff file.txt made.txt; test -e out/deep/a.txt; test ! -e out/b.log')
        }
        archiveArtifacts(artifacts: 'out/**', fingerprint: true)
    """
    done = run(script(code))
    assert done.result == "SUCCESS", str(done)
    assert len({event["workspace"] for event in done.of("node")}) == 2
    assert done.archived == {"out/deep/a.txt", "out/b.log"}
    assert done.one("archive")["fingerprints"]["out/deep/a.txt"] == "b026324c6904b2a9cb4b88d6d61c81d1"


def test_conditions_after_the_stages_come_in_their_order_and_all_of_them(run: Run) -> None:
    after = "post {\ncleanup { echo('cleanup') }\nunsuccessful { echo('unsuccessful') }\nfailure { echo('failure') }\n"
    after += "success { echo('success') }\naborted { echo('aborted') }\nalways { error('of always') }\n}"
    done = run(script("sh('exit 1')", after=after))
    assert [event["message"] for event in done.of("echo")] == ["failure", "unsuccessful", "cleanup"]
    assert done.one("post failed")["error"] == "of always"
    assert done.result == "FAILURE"


BRANCHES = """
    Map branches = [failFast: FAST]
    branches['bad'] = { sh(label: 'bad', script: 'while ! test -e good; do sleep 0.05; done; exit 1') }
    branches['good'] = { sh(label: 'good', script: 'touch good; while test ! -e over && test -e good; do sleep 0.05; done') }
    branches['late'] = { sh(label: 'late', script: 'while ! test -e good; do sleep 0.05; done; sleep 1; touch over') }
    parallel(branches)
"""


def test_branches_run_at_the_same_time_and_one_failure_leaves_the_others_alone(run: Run) -> None:
    done = run(script(BRANCHES.replace("FAST", "false")))
    assert done.branches == {"bad": "FAILURE", "good": "SUCCESS", "late": "SUCCESS"}
    assert (done.result, done.stages) == ("FAILURE", {"one": "FAILURE"})


def test_fail_fast_stops_the_others(run: Run) -> None:
    done = run(script(BRANCHES.replace("FAST", "true").replace("sleep 1;", "sleep 600;")))
    assert done.branches == {"bad": "FAILURE", "good": "ABORTED", "late": "ABORTED"}
    assert done.result == "FAILURE"


def test_an_abort_ends_all_that_a_step_started_and_what_comes_after_still_runs(run: Run, tmp_path: Path) -> None:
    # One has left the group, one does not care for SIGTERM.
    programs = """
        setsid sleep 4711 &
        (trap "" TERM; touch BEGUN; while true; do sleep 0.2; done) &
        trap "echo ended; exit 1" TERM
        wait; wait
    """
    code = "sh('''" + programs.replace("BEGUN", f"{tmp_path}/begun") + "''')"
    after = "post {\naborted { echo('aborted') }\ncleanup { sh(label: 'after', script: 'true') }\n}"
    done = run(script(f"{code}\nsh(label: 'never', script: 'true')", after=after), abort_when=f"test -e {tmp_path}/begun", grace=1)
    assert (done.result, done.stages) == ("ABORTED", {"one": "ABORTED"})
    assert "never" not in done.labels
    assert done.shell("after")[0]["code"] == 0
    assert any("sleep 4711" in process["command"] for event in done.of("signal") for process in event["processes"])
    assert [event["message"] for event in done.of("echo")] == ["aborted"]


def test_what_a_build_leaves_running_is_ended_and_told(run: Run) -> None:
    code = "sh('setsid sleep 4712 >/dev/null 2>&1 &')\nsh('JENKINS_NODE_COOKIE=mine setsid sleep 4713 >/dev/null 2>&1 & echo $! > pid')"
    done = run(script(code + "\nsh(label: 'end', script: 'kill -0 $(cat pid); kill $(cat pid)')"))
    assert done.left_running == ["sleep 4712"]
    assert done.result == "SUCCESS", str(done)


def test_a_newer_build_at_a_milestone_ends_this_one(run: Run) -> None:
    done = run(script("milestone(1)\nmilestone(2)\necho('on')"), superseded_at=2)
    assert (done.result, done.of("echo")) == ("NOT_BUILT", [])
    assert [event["ordinal"] for event in done.of("milestone")] == [1, 2]


def test_a_library_is_asked_for_by_name_and_its_step_called(run: Run, controller: Controller, tmp_path: Path) -> None:
    folder = tmp_path / "library" / "vars"
    folder.mkdir(parents=True)
    (folder / "greet.groovy").write_text(
        "def call(Map given = [:]) {\n" + script("echo(words(given))") + '}\nString words(Map given) { return "hello ${given.who}" }\n'
    )
    controller.libraries = {"polite": folder.parent}
    assert [event["message"] for event in run("@Library('polite') _\ngreet(who: 'you')\n").of("echo")] == ["hello you"]
    assert run("@Library('rude') _\ngreet(who: 'you')\n").errors == ["No library named rude found"]
    assert "No such DSL method 'greet'" in run("greet(who: 'you')\n").errors[0]


def test_properties_of_the_job_are_told(run: Run) -> None:
    sections = """
        options {
            disableConcurrentBuilds(abortPrevious: env.CHANGE_ID != null)
            buildDiscarder(logRotator(numToKeepStr: '5'))
        }
        triggers { cron('H 3 * * *') }
    """
    told = run(script("echo('x')", sections=sections)).one("properties")
    assert told["options"]["disableConcurrentBuilds"] == {"abortPrevious": False}
    assert told["triggers"] == [{"symbol": "cron", "given": "H 3 * * *"}]
