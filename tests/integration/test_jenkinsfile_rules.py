"""What Jenkins would say of the Jenkinsfile and the shared library before and while they run: its parser, its sandbox, its CPS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import jenkinsfile

ROOT = jenkinsfile.ROOT
FILES = (ROOT / "Jenkinsfile", ROOT / "ci/jenkins/library/vars/trainshed.groovy")
GLOBALS = {"env", "params", "currentBuild", "scm"}
DIRECTIVES = {
    *(
        "pipeline",
        "agent",
        "label",
        "options",
        "triggers",
        "parameters",
        "environment",
        "stages",
        "stage",
        "when",
        "expression",
        "steps",
        "script",
    ),
    *("post", "always", "cleanup", "disableConcurrentBuilds", "buildDiscarder", "logRotator", "timeout", "cron"),
    *("string", "text", "booleanParam", "choice"),
}
STEPS: Mapping[str, set[str]] = {
    "workflow-basic-steps": {
        "archiveArtifacts",
        "catchError",
        "deleteDir",
        "dir",
        "echo",
        "error",
        "fileExists",
        "readFile",
        "stash",
        "unstash",
        "writeFile",
    },
    "workflow-durable-task-step": {"sh", "node"},
    "workflow-cps": {"parallel"},
    "workflow-scm-step": {"checkout"},
    "pipeline-milestone-step": {"milestone"},
    "credentials-binding": {"withCredentials", "string", "file", "usernamePassword"},
    "junit": {"junit"},
}
OPTIONAL = {"recordIssues", "sarif", "publishHTML", "publishChecks"}
# What the sandbox asks for, by the type as far as it is declared: each is on script-security's own list, or marked in Jenkins' code.
WHITELISTED: Mapping[tuple[str, str], str] = {
    ("java.util.List", "add"): "java.util.Collection add",
    ("java.util.List", "contains"): "java.util.Collection contains",
    ("java.lang.String", "tokenize"): "DefaultGroovyMethods tokenize java.lang.String java.lang.String",
    ("sh()", "tokenize"): "DefaultGroovyMethods tokenize java.lang.String java.lang.String",
    ("ElvisOperatorExpression", "tokenize"): "DefaultGroovyMethods tokenize java.lang.String java.lang.String",
    ("sh()", "trim"): "java.lang.String trim",
    ("PropertyExpression", "split"): "java.lang.String split, of a message",
    ("groovy.lang.Closure", "call"): "groovy.lang.Closure call",
    ("currentBuild", "getBuildCauses"): "RunWrapper of workflow-support",
    ("currentBuild.getBuildCauses()", "isEmpty"): "java.util.Collection isEmpty, of a list of JSON",
}
READ = {"java.util.Map": {"environment"}, "java.lang.NoSuchMethodError": {"message"}, "currentBuild": {"description", "currentResult"}}
# What lives across a step is saved with the build: these can be.
SAVED = {"java.lang.String", "[Ljava.lang.String;", "java.util.List", "java.util.Map", "boolean", "void", "java.lang.Object"}
OPERATORS = {"=", "==", "!=", "&&", "||", "+", "["}


@pytest.fixture(scope="module")
def events(jenkins_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    return jenkinsfile.uses(jenkins_classes, tmp_path_factory.mktemp("uses"), *FILES)


@pytest.fixture(params=FILES, ids=["Jenkinsfile", "library"])
def uses(request: pytest.FixtureRequest, events: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what one of the two files uses."""
    return [event for event in events if event["file"] == str(request.param)]


def of(uses: list[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    found = [event for event in uses if event["kind"] == kind]
    assert found or kind not in {"call", "method", "property"}, f"nothing of the kind {kind} was found: the reading is broken"
    return found


def test_the_declarative_parser_takes_it(uses: list[Mapping[str, Any]]) -> None:
    assert [event["error"] for event in uses if event["kind"] == "error"] == []


def test_it_calls_its_own_functions_known_steps_and_nothing_else(uses: list[Mapping[str, Any]]) -> None:
    known = DIRECTIVES | OPTIONAL | {name for names in STEPS.values() for name in names} | {event["name"] for event in of(uses, "method")}
    assert {event["name"] for event in of(uses, "call") if event["receiver"] == "this"} <= known


def test_steps_of_plugins_that_may_be_missing_are_only_called_where_that_is_caught(uses: list[Mapping[str, Any]]) -> None:
    lines = Path(uses[0]["file"]).read_text().splitlines()
    for event in of(uses, "call"):
        if event["name"] in OPTIONAL:
            assert any("ifInstalled {" in line for line in lines[event["line"] - 2 : event["line"]]), event


def test_it_asks_the_sandbox_for_nothing_that_needs_approval(uses: list[Mapping[str, Any]]) -> None:
    calls = {(event["receiver"], event["name"]) for event in of(uses, "call") if event["receiver"] != "this"}
    assert calls - set(WHITELISTED) == set()
    reads = {(event["receiver"], event["name"]) for event in of(uses, "property") if event["receiver"] not in {"env", "params"}}
    assert reads <= {(receiver, name) for receiver, names in READ.items() for name in names}
    for kind in ("new", "static", "cast", "pointer"):
        assert of(uses, kind) == []
    assert {event["name"] for event in of(uses, "operator")} <= OPERATORS


def test_it_reads_no_variable_that_is_not_there(uses: list[Mapping[str, Any]]) -> None:
    assigned = {"CI", "TRAINSHED_ENV", "TRAINSHED_PROJECT_WORK_DIR"}
    assert {event["name"] for event in of(uses, "global")} <= GLOBALS | assigned


def test_what_it_keeps_across_steps_can_be_saved_with_the_build(uses: list[Mapping[str, Any]]) -> None:
    assert {event["type"] for event in of(uses, "variable")} <= SAVED
    assert {event["type"] for event in of(uses, "method") if event["name"] != "run"} <= SAVED
    # Groovy's own methods that take a block (each, collect, …) run it outside of what Jenkins can interrupt and go on with.
    outside = [event for event in of(uses, "call") if event["blocks"] and event["receiver"] != "this"]
    assert outside == []
    assert [event for event in of(uses, "call") if event["spread"]] == []


def test_the_jenkinsfile_is_thin_and_the_library_is_written_from_it() -> None:
    assert len(FILES[0].read_text().splitlines()) < 200
    checked = subprocess.run([sys.executable, ROOT / "scripts/_library.py", "--check"], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
