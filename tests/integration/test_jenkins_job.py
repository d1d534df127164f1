"""The job definition, run on Groovy 2.4 with exactly the methods that Job DSL and the plugins offer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import groovy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "ci" / "jenkins" / "jobs" / "trainshed.groovy"
HARNESS = ROOT / "tests" / "data" / "jenkins" / "job_dsl.groovy"
VARIABLES = {"REPOSITORY_URL": "https://github.com/example/diagnosis", "MAIN_BRANCH": "main", "FOLDER": "trainshed", "MAIN_FOLDER": ""}


def made(script: Path = SCRIPT, **changed: str) -> dict[str, Any]:
    done = groovy.run(HARNESS, script, json.dumps({**VARIABLES, **changed}))
    assert done.returncode == 0, done.stderr
    items = json.loads(done.stdout)
    found = {item["name"]: {"kind": item["kind"], **item["body"]} for item in items}
    assert len(found) == len(items), "two items of one name"
    return found


def source(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["branchSources"]["branchSource"]["source"]["github"]
    return found


@pytest.fixture(scope="module")
def items() -> dict[str, Any]:
    return made()


@pytest.fixture(scope="module")
def apart() -> dict[str, Any]:
    return made(MAIN_FOLDER="production", REPOSITORY_URL="https://github.example/team/diagnosis.git/")


def test_one_multibranch_job_stands_in_its_folder(items: dict[str, Any]) -> None:
    assert {name: item["kind"] for name, item in items.items()} == {"trainshed": "folder", "trainshed/diagnosis": "multibranchPipelineJob"}
    job = items["trainshed/diagnosis"]
    assert job["factory"] == {"workflowBranchProjectFactory": {"scriptPath": "Jenkinsfile"}}
    assert job["orphanedItemStrategy"]["discardOldItems"]["daysToKeep"] > 0
    assert job["triggers"] == {"periodicFolderTrigger": {"interval": "1d"}}
    assert (ROOT / "Jenkinsfile").is_file()


def test_the_source_is_the_repository_with_a_named_credential(items: dict[str, Any]) -> None:
    found = source(items["trainshed/diagnosis"])
    assert {key: value for key, value in found.items() if key != "traits"} == {
        "id": "trainshed-trainshed-diagnosis",
        "repositoryUrl": "https://github.com/example/diagnosis",
        "configuredByUrl": True,
        "repoOwner": "example",
        "repository": "diagnosis",
        "credentialsId": "trainshed-github",
    }


def test_pull_requests_are_merged_with_their_target_and_forks_are_trusted_in_nothing(items: dict[str, Any]) -> None:
    assert source(items["trainshed/diagnosis"])["traits"] == {
        "gitHubBranchDiscovery": {"strategyId": 1},
        "gitHubPullRequestDiscovery": {"strategyId": 1},
        "gitHubForkDiscovery": {"strategyId": 1, "trust": {"gitHubTrustNobody": True}},
        "headWildcardFilter": {"includes": "*", "excludes": ""},
    }


def test_a_fork_s_pull_request_waits_for_somebody_to_start_it(items: dict[str, Any]) -> None:
    strategies = items["trainshed/diagnosis"]["branchSources"]["branchSource"]["buildStrategies"]
    assert strategies == {
        "buildRegularBranches": True,
        "buildChangeRequests": {"ignoreTargetOnlyChanges": True, "ignoreUntrustedChanges": True},
    }


def test_main_can_stand_in_a_folder_of_its_own_with_production_s_credentials(apart: dict[str, Any]) -> None:
    assert set(apart) == {"trainshed", "trainshed/diagnosis", "production", "production/diagnosis"}
    others, main = (source(apart[f"{folder}/diagnosis"]) for folder in ("trainshed", "production"))
    assert others["traits"]["headWildcardFilter"] == {"includes": "*", "excludes": "main"}
    assert main["traits"]["headWildcardFilter"] == {"includes": "main", "excludes": ""}
    assert others["id"] != main["id"]
    assert (main["repoOwner"], main["repository"]) == ("team", "diagnosis")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("folder('x') { colour('red') }", "folder.colour: no such method"),
        ("pipelineJob('x') { }", "pipelineJob: no such item"),
        ("multibranchPipelineJob('x') { factory { workflowBranchProjectFactory { scriptPath(1) } } }", "takes a String, not a Integer"),
        ("multibranchPipelineJob('x') { displayName(\"${FOLDER}\") }", "takes a String, not a GStringImpl"),
    ],
)
def test_the_stand_in_refuses_what_job_dsl_would(tmp_path: Path, line: str, message: str) -> None:
    script = tmp_path / "script.groovy"
    script.write_text(line)
    done = groovy.run(HARNESS, script, json.dumps(VARIABLES))
    assert done.returncode != 0
    assert message in done.stderr


def test_the_alternative_for_plain_git_is_sound_too(tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    before, rest = text.split("                    github {\n", 1)
    after = rest.split("                    // Any other server", 1)[1].split("\n", 1)[1]
    script = tmp_path / "git.groovy"
    script.write_text(before + after.replace("                    // ", "                    "))
    found = made(script)["trainshed/diagnosis"]["branchSources"]["branchSource"]["source"]["git"]
    assert found["remote"] == VARIABLES["REPOSITORY_URL"]
    assert found["traits"]["gitBranchDiscovery"] is True
