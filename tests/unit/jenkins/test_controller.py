"""The controller's configuration is what the plugins take, holds no secret, and is explained in the guide."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[3]
FILE = ROOT / "ci" / "jenkins" / "controller.yaml"
JOB = ROOT / "ci" / "jenkins" / "jobs" / "trainshed.groovy"
GUIDE = ROOT / "docs" / "how-to" / "run-on-jenkins.md"
SCHEMA = json.loads((ROOT / "tests" / "data" / "jenkins" / "casc.schema.json").read_text(encoding="utf-8"))
VARIABLE = re.compile(r"\$\{([A-Z][A-Z_]*)(:-([^}]*))?\}")

PLUGINS = {  # symbol: the plugin that brings it; Jenkins itself where it is empty
    "crumbIssuer.standard": "",
    "markupFormatter.plainText": "",
    "securityRealm.local": "",
    "globalNodeProperties.envVars": "",
    "nodes.permanent": "",
    "launcher.inbound": "",
    "retentionStrategy.always": "",
    "authorizationStrategy.globalMatrix": "matrix-auth",
    "credentials.usernamePassword": "credentials",
    "credentials.string": "plain-credentials",
    "credentials.file": "plain-credentials",
    "unclassified.location": "",
    "unclassified.globalLibraries": "pipeline-groovy-lib",
    "retriever.modernSCM": "pipeline-groovy-lib",
    "scm.git": "git",
    "traits.gitBranchDiscovery": "git",
    "jobs.file": "job-dsl",
    "jobs.providedEnv": "job-dsl",
    "folder": "cloudbees-folder",
    "periodicFolderTrigger": "cloudbees-folder",
    "multibranchPipelineJob": "workflow-multibranch",
    "workflowBranchProjectFactory": "workflow-multibranch",
    "branchSource": "branch-api",
    "github": "github-branch-source",
    "gitHubBranchDiscovery": "github-branch-source",
    "gitHubPullRequestDiscovery": "github-branch-source",
    "gitHubForkDiscovery": "github-branch-source",
    "gitHubTrustNobody": "github-branch-source",
    "headWildcardFilter": "scm-api",
    "buildRegularBranches": "basic-branch-build-strategies",
    "buildChangeRequests": "basic-branch-build-strategies",
    "withCredentials": "credentials-binding",
    "junit": "junit",
    "milestone": "workflow-aggregator",
    "recordIssues": "warnings-ng",
    "publishHTML": "htmlpublisher",
    "publishChecks": "github-checks",
}
SYMBOL_AT = (
    "crumbIssuer",
    "markupFormatter",
    "securityRealm",
    "authorizationStrategy",
    "launcher",
    "retentionStrategy",
    "retriever",
    "scm",
)
SYMBOLS_IN = ("globalNodeProperties", "nodes", "credentials", "traits", "jobs")
JOB_DSL = {"description", "displayName", "branchSources", "source", "traits", "trust", "id", "remote", "repository", "repositoryUrl"} | {
    *("configuredByUrl", "repoOwner", "credentialsId", "strategyId", "includes", "excludes", "buildStrategies", "factory", "scriptPath"),
    *("ignoreTargetOnlyChanges", "ignoreUntrustedChanges", "orphanedItemStrategy", "discardOldItems", "daysToKeep", "numToKeep"),
    *("triggers", "interval", "multibranch", "tokenize", "replace", "git", "gitBranchDiscovery"),
}


def text() -> str:
    return FILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def configuration() -> Any:
    return yaml.safe_load(text())


def scalars(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar with its place."""
    if isinstance(value, dict):
        for name, held in value.items():
            yield from scalars(held, f"{place}.{name}")
    elif isinstance(value, list):
        for held in value:
            yield from scalars(held, place)
    else:
        yield place, value


def symbols(value: Any) -> Iterator[str]:
    """Yield the symbols of descriptors, as ``attribute.symbol``."""
    if isinstance(value, list):
        for held in value:
            yield from symbols(held)
    elif isinstance(value, dict):
        for name, held in value.items():
            if name in SYMBOL_AT:
                yield from (f"{name}.{key}" for key in (held if isinstance(held, dict) else [held]))
            if name in SYMBOLS_IN and isinstance(held, list):
                keys = [key for item in held for key in (item if isinstance(item, dict) else [item])]
                yield from (f"{name}.{key}" for key in keys if key != "credentials")
            if name == "unclassified":
                yield from (f"{name}.{key}" for key in held)
            yield from symbols(held)


def plugins() -> tuple[set[str], set[str]]:
    """Return the required and the optional plugins."""
    lines = (ROOT / "ci" / "jenkins" / "plugins.txt").read_text(encoding="utf-8").splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    return required, {line[1:] for line in lines if re.fullmatch(r"#[a-z][a-z-]+", line)}


def declared(configuration: Any) -> dict[str, str]:
    """Return the kind of each credential of the global store."""
    store = configuration["credentials"]["system"]["domainCredentials"]
    return {held["id"]: kind for domain in store for item in domain["credentials"] for kind, held in item.items()}


def test_the_plugins_would_take_it(configuration: Any) -> None:
    assert list(Draft7Validator(SCHEMA).iter_errors(configuration)) == []


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        (lambda found: found["jenkins"].update(agentProtocols=[]), "$.jenkins", "'agentProtocols' was unexpected"),
        (
            lambda found: found["jenkins"]["nodes"][0]["permanent"].pop("remoteFS"),
            "$.jenkins.nodes[0].permanent",
            "'remoteFS' is a required property",
        ),
        (
            lambda found: found["jenkins"].update(numExecutors="none"),
            "$.jenkins.numExecutors",
            "is not valid under any of the given schemas",
        ),
        (lambda found: found["jobs"][0].update(file="x"), "$.jobs[0]", "has too many properties"),
        (
            lambda found: found["jenkins"]["securityRealm"]["local"]["users"][0].update({"password": "${PASSWORD:-admin}"}),
            "$.jenkins.securityRealm.local.users[0].password",
            "'${PASSWORD:-admin}' does not match",
        ),
    ],
)
def test_the_check_finds_what_is_wrong(change: Any, place: str, message: str) -> None:
    broken = yaml.safe_load(text())
    change(broken)
    found = [(error.json_path, error.message) for error in Draft7Validator(SCHEMA).iter_errors(broken)]
    assert any(where == place and message in said for where, said in found), found


def test_nothing_runs_on_the_controller_and_agents_need_no_port(configuration: Any) -> None:
    jenkins = configuration["jenkins"]
    assert jenkins["numExecutors"] == 0
    assert jenkins["slaveAgentPort"] == -1
    assert jenkins["crumbIssuer"]["standard"]
    assert {"key": "AGENT_LABEL", "value": "${AGENT_LABEL:-trainshed}"} in jenkins["globalNodeProperties"][0]["envVars"]["env"]
    (node,) = (held["permanent"] for held in jenkins["nodes"])
    assert node["labelString"] == "${AGENT_LABEL:-trainshed}"
    assert f"WORKDIR {node['remoteFS']}\n" in (ROOT / "components" / "jenkins-agent" / "Dockerfile").read_text(encoding="utf-8")


def test_only_administrators_configure_and_nobody_unknown_reads(configuration: Any) -> None:
    entries = configuration["jenkins"]["authorizationStrategy"]["globalMatrix"]["entries"]
    granted = {held["name"]: held["permissions"] for entry in entries for held in entry.values()}
    administrators = [name for name, permissions in granted.items() if "Overall/Administer" in permissions]
    assert administrators == ["${JENKINS_ADMIN_ID}"]
    assert not [permission for permissions in granted.values() for permission in permissions if permission.startswith("Credentials/")]
    assert "anonymous" not in granted


def test_no_secret_is_written_down(configuration: Any) -> None:
    secret = re.compile(r"password|secret|token|key$|bytes", re.IGNORECASE)
    named = [(place, value) for place, value in scalars(configuration) if secret.search(place.rpartition(".")[2]) and place[-4:] != ".key"]
    assert len(named) >= 4
    for place, value in named:
        assert re.fullmatch(r"\$\{[A-Z_]+\}|\$\{base64:\$\{[A-Z_]+\}\}", value), place


def test_every_variable_is_explained_with_its_default() -> None:
    used = {match[1]: match[3] for match in VARIABLE.finditer(re.sub(r"(?m)^\s*#.*$", "", text()))}
    assert len(used) > 10
    told = {match[1]: match[2].strip(" `") for match in re.finditer(r"(?m)^\| `([A-Z_]+)` \|([^|]*)\|", GUIDE.read_text(encoding="utf-8"))}
    assert {name: told.get(name, "not told") for name in used} == {name: default or "" for name, default in used.items()}


def test_what_the_guides_bind_is_declared_and_production_s_is_not(configuration: Any) -> None:
    kinds = {"string": "string", "file": "file", "username-password": "usernamePassword"}
    bound: dict[str, str] = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for environment in tomllib.loads(block).get("environments", {}).values():
                bound |= {told.partition(":")[2]: kinds[told.partition(":")[0]] for told in environment.get("credentials", {}).values()}
    assert bound
    production = {name for name in bound if name.endswith("-prod")}
    assert {name: kind for name, kind in bound.items() if name not in production} == {
        name: kind for name, kind in declared(configuration).items() if name != "trainshed-github"
    }
    assert production
    assert not production & set(declared(configuration))


def test_the_job_uses_a_credential_that_is_declared(configuration: Any) -> None:
    used = set(re.findall(r"credentialsId\('([^']+)'\)", JOB.read_text(encoding="utf-8")))
    used |= {value for place, value in scalars(configuration) if place.endswith(".credentialsId")}
    assert used == {"trainshed-github"}
    assert declared(configuration)["trainshed-github"] == "usernamePassword"


def test_the_shared_library_is_asked_for_and_lies_where_it_is_said(configuration: Any) -> None:
    (library,) = configuration["unclassified"]["globalLibraries"]["libraries"]
    assert library["name"] == "trainshed"
    assert library["implicit"] is False
    assert (ROOT / library["retriever"]["modernSCM"]["libraryPath"] / "vars" / "trainshed.groovy").is_file()


def test_the_job_s_variables_are_the_ones_that_are_provided(configuration: Any) -> None:
    (provided,) = (held["providedEnv"] for held in configuration["jobs"] if "providedEnv" in held)
    code = re.sub(r"//.*", "", JOB.read_text(encoding="utf-8"))
    assert set(re.findall(r"\b[A-Z][A-Z]+(?:_[A-Z]+)*\b", re.sub(r"'[^']*'", "", code))) == set(provided)
    assert [next(iter(held)) for held in configuration["jobs"]] == ["providedEnv", "file"], (
        "variables come before the script that reads them"
    )


def test_a_plugin_stands_for_every_symbol_and_no_plugin_for_nothing(configuration: Any) -> None:
    called = set(re.findall(r"\b([a-zA-Z]+)\s*(?:\(|\{)", re.sub(r"//.*", "", JOB.read_text(encoding="utf-8")))) - {"if", "List"} - JOB_DSL
    jenkinsfile = (ROOT / "Jenkinsfile").read_text(encoding="utf-8")
    steps = {
        step
        for step in ("withCredentials", "junit", "milestone", "recordIssues", "publishHTML", "publishChecks")
        if f"{step}(" in jenkinsfile
    }
    used = {*symbols(configuration), *called, *steps}
    assert used == set(PLUGINS)
    required, optional = plugins()
    assert not required & optional
    wanted = {PLUGINS[symbol] for symbol in used} - {""}
    assert wanted <= required | optional
    probed = {PLUGINS[step] for step in steps if re.search(rf"ifInstalled \{{[^}}]*{step}\(", jenkinsfile, flags=re.DOTALL)}
    assert wanted & optional == probed, "only what the Jenkinsfile can do without is optional"
    assert required - wanted == {"configuration-as-code"}
