"""Every fault at every request of upload, launch, schedule, login: an error or a right retry, no false success, no second thing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeflow_project import FlowProject
from tests.support.kubeflow_server import Fault, Script, StrictServer
from trainshed import cli
from trainshed.stages import following
from trainshed.tools import http

CREDENTIAL = "of-the-tests-0123456789-abcdef"
API, ID = "/apis/v2beta1", "[^/:]+"
HEALTH, LOGIN = ("GET", f"{API}/healthz"), ("GET", f"{API}/experiments")
VERSION = ("GET", f"{API}/pipelines/{ID}/versions/{ID}")
METADATA = "/ml_metadata.MetadataStoreService/"
SETTINGS = '[schedules.nightly]\nenvironments = ["local"]\ncron = "0 0 3 * * *"\nparameters = { rows = 5 }\n'


@dataclass(frozen=True)
class Operation:
    """A command, what must be there before it, and the requests that it makes when all is well.

    ``needed``: without an answer to these it cannot succeed. ``bystanders``: it can, with a warning.
    """

    words: tuple[str, ...]
    needed: tuple[tuple[str, str], ...]
    bystanders: tuple[tuple[str, str], ...] = ()
    after_upload: bool = True


NAMED, VERSIONS = ("GET", f"{API}/pipelines/names/training"), ("GET", f"{API}/pipelines/{ID}/versions")
EXPERIMENT, SCHEDULES = ("POST", f"{API}/experiments"), f"{API}/recurringruns"
ASKED_OF_THE_STORE = ("GetContextByTypeAndName", "GetExecutionsByContext", "GetArtifactsByContext", "GetEventsByExecutionIDs")
OPERATIONS = {
    "upload": Operation(
        ("upload",),
        (HEALTH, LOGIN, NAMED, ("POST", f"{API}/pipelines"), ("POST", f"{API}/pipelines/upload_version"), VERSION),
        after_upload=False,
    ),
    "launch": Operation(
        ("launch", "--wait", "--gate", "auc >= 0.8"),
        (
            *(HEALTH, LOGIN, NAMED, VERSIONS, VERSION, EXPERIMENT, ("POST", f"{API}/runs"), ("GET", f"{API}/runs/{ID}")),
            *(("POST", f"{METADATA}{method}") for method in ASKED_OF_THE_STORE),
        ),
    ),
    "schedule": Operation(
        ("schedule",),
        (
            *(HEALTH, LOGIN, NAMED, VERSIONS, VERSION, EXPERIMENT),
            *(("GET", SCHEDULES), ("POST", SCHEDULES), ("POST", f"{SCHEDULES}/{ID}:enable"), ("GET", f"{SCHEDULES}/{ID}")),
        ),
    ),
    "login": Operation(("login",), (HEALTH, LOGIN), (("GET", "/api/workgroup/env-info"), ("GET", "/oauth2/userinfo")), after_upload=False),
}
TRIED_AT = {HEALTH: "login", LOGIN: "login", NAMED: "launch", VERSIONS: "launch", VERSION: "upload", EXPERIMENT: "launch"}
"""What several commands ask for in the same way is tried at one of them."""
CASES = [(name, asked) for name, operation in OPERATIONS.items() for asked in operation.needed if TRIED_AT.get(asked, name) == name]


class World:
    """A project with its Kubeflow, which goes back to the same beginning before every try."""

    def __init__(self, folder: Path, server: StrictServer, address: str) -> None:
        self.server = server
        self.flows = FlowProject(folder / "project", address)
        self.root = self.flows.root
        (self.root / "pipeline_templates" / "training.toml").write_text(SETTINGS)
        (folder / "token").write_text(CREDENTIAL)
        auth = f'kubeflow.auth = {{ kind = "token", file = "{folder / "token"}" }}\n'
        (self.root / "trainshed.toml").write_text((self.root / "trainshed.toml").read_text() + auth)
        self.flows.settle()
        self.flows.commit()
        self.begins: dict[bool, tuple[Any, Path]] = {}

    def run(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> tuple[int, dict[str, Any], str]:
        """Run a command; return its exit code, its document and all that was seen."""
        code = cli.main(["--json", *words])
        out, err = capsys.readouterr()
        return code, json.loads(out), out + err

    def begin(self, capsys: pytest.CaptureFixture[str], *, after_upload: bool) -> None:
        """Go back to the beginning, with the pipeline uploaded or not."""
        if after_upload not in self.begins:
            if after_upload:
                self.begin(capsys, after_upload=False)
                assert self.run(capsys, ("upload",))[0] == 0
            kept = self.root.parent / f"kept-{after_upload}"
            shutil.copytree(self.root, kept)
            self.begins[after_upload] = self.server.kept(), kept
        server, kept = self.begins[after_upload]
        for folder in (".trainshed", "build"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
            if (kept / folder).exists():
                shutil.copytree(kept / folder, self.root / folder)
        self.server.back_to(server)

    def made(self) -> dict[str, list[str]]:
        """Return the names of what the server holds."""
        state = self.server.state
        tables = {"versions": state.versions, "runs": state.runs, "schedules": state.schedules, "pipelines": state.pipelines}
        return {name: [row.name for row in table.all()] for name, table in tables.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILD_URL", "https://ci.example.org/job/1/")
        patch.setenv("BRANCH_NAME", "main")
        patch.setattr(http, "_FIRST_PAUSE", 0.001)
        patch.setattr(following, "_FIRST_PAUSE", 0.005)
        patch.setattr(following, "_LONGEST_PAUSE", 0.02)
        patch.setattr(following, "_PATIENCE_SECONDS", 0.05)
        patch.setattr(following, "_LOOK_PAUSE", 0.001)
        server = StrictServer(allows=lambda headers: headers.get("authorization") == f"Bearer {CREDENTIAL}")
        server.runs.default = Script(parameters={"train": {"auc": 0.9}})
        with server.serve() as address:
            made = World(tmp_path_factory.mktemp("faults"), server, address)
            patch.chdir(made.root)
            yield made


DENIED = frozenset({"login", "html", "401", "403"})
KINDS_EVERYWHERE = ("login", "401", "403", "409", "429", "500", "503", "cut", "wrong-json")
MORE_AT_CREATIONS = ("html", "502", "504", "reset", "no-json", "empty")
FEW = ("login", "403", "429", "cut", "wrong-json")
"""For requests that go through the same door as those at which every kind is tried."""
PASSING = ("429", "500", "502", "503", "504", "cut", "reset")
MALFORMED = ("wrong-json", "no-json", "empty")
OPEN_ENDS = frozenset({"504", "cut", "reset", *MALFORMED})
"""After these the service may still be at it, so that what may have a second of its name is not asked for again."""
SLOW_SECONDS = "0.3s"


def creates(method: str, path: str) -> bool:
    return method == "POST" and not path.startswith(METADATA) and not path.endswith(":enable")


def faults(method: str, path: str) -> Iterator[Fault]:
    """Yield the faults for a request: for ever, once where that may pass, and at creations after the work was done."""
    creation = creates(method, path)
    every = path.endswith(("/upload_version", "/runs", "/recurringruns")) or (method, path) in {HEALTH, LOGIN}
    for kind in KINDS_EVERYWHERE if every else FEW:
        yield Fault(method, path, kind, times=None)
        if kind in PASSING or (kind in MALFORMED and creation):
            yield Fault(method, path, kind, times=1)
    after = (*KINDS_EVERYWHERE, *MORE_AT_CREATIONS) if every else (*FEW, "409", "500", "504")
    for kind in after if creation else ():
        yield Fault(method, path, kind, times=1, after=True)


def wanted(fault: Fault) -> set[int]:
    """Return the exit codes that a fault may lead to."""
    if fault.kind in DENIED:
        return {5}
    if fault.kind == "409":  # a name that is taken, and what was found under it is ours or nothing; to a question it is nonsense
        return {0} if fault.after else {2} if creates(fault.method, fault.path) else {2, 5}
    if fault.times is None:
        return {5}
    if fault.after or not creates(fault.method, fault.path):
        return {0}
    return {5} if fault.path.endswith(("/runs", "/recurringruns")) and fault.kind in OPEN_ENDS else {0}


def complaints(world: World, operation: Operation, outcome: tuple[int, dict[str, Any], str]) -> list[str]:
    """Return what is wrong with the end of a command: a success without the thing, a second one, an error that says nothing, a secret."""
    code, document, seen = outcome
    made = world.made()
    done = {"upload": made["versions"], "launch": made["runs"], "schedule": made["schedules"], "login": ["login"]}[operation.words[0]]
    found = [f"{len(names)} {what}" for what, names in made.items() if len(names) > 1]
    found += ["false success"] if code == 0 and len(done) != 1 else []
    told = [document["error"]["message"]] if "error" in document else [each["message"] for each in document["results"]]
    found += ["an error without a word"] if code != 0 and not any(told) else []
    found += ["the exit code of the document is another"] if document["exit_code"] != code else []
    return found + (["a secret was shown"] if CREDENTIAL in seen or CREDENTIAL[:12] in seen else [])


def tried(world: World, capsys: pytest.CaptureFixture[str], operation: Operation, fault: Fault) -> tuple[int, list[str]]:
    """Run a command with a fault; return its exit code and what is wrong."""
    world.begin(capsys, after_upload=operation.after_upload)
    world.server.faults.add(fault)
    outcome = world.run(capsys, operation.words)
    wrong = complaints(world, operation, outcome)
    wrong += [] if fault.seen else ["the fault was not met"]
    repeated = operation.words[0] in {"upload", "schedule"} and outcome[0] != 0 and fault.method == "POST"
    if repeated and (fault.after or fault.kind in {"403", "cut", "wrong-json"}):
        world.server.faults.clear()
        again = world.run(capsys, operation.words)
        wrong += [f"again: {each}" for each in complaints(world, operation, again)] + ([] if again[0] == 0 else [f"again: {again[0]}"])
    return outcome[0], wrong


def shown(fault: Fault) -> str:
    return f"{fault.kind} {'once' if fault.times is not None else 'always'}{' after' if fault.after else ''}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_table_has_every_request_that_a_command_makes(world: World, capsys: pytest.CaptureFixture[str], name: str) -> None:
    operation = OPERATIONS[name]
    world.begin(capsys, after_upload=operation.after_upload)
    assert world.run(capsys, operation.words)[0] == 0
    known = [*operation.needed, *operation.bystanders]
    made = [(each.method, each.path) for each in world.server.requests]
    assert [each for each in made if not any(each[0] == method and re.fullmatch(path, each[1]) for method, path in known)] == []
    assert [known_ for known_ in known if not any(known_[0] == method and re.fullmatch(known_[1], path) for method, path in made)] == []


@pytest.mark.parametrize(("name", "asked"), CASES, ids=[f"{name}-{method}-{path.rpartition('/')[2]}" for name, (method, path) in CASES])
def test_a_fault_ends_in_an_error_or_a_right_retry(
    world: World, capsys: pytest.CaptureFixture[str], name: str, asked: tuple[str, str]
) -> None:
    found = {}
    for prepared in faults(*asked):
        expected = wanted(prepared)
        code, wrong = tried(world, capsys, OPERATIONS[name], prepared)
        wrong += [] if code in expected else [f"exit code {code}, not {expected}"]
        if wrong:
            found[shown(prepared)] = wrong
    assert found == {}


@pytest.mark.parametrize("name", ["upload", "launch", "schedule"])
@pytest.mark.parametrize("asked", [HEALTH, LOGIN])
@pytest.mark.parametrize("kind", ["login", "503"])
def test_nothing_is_made_where_the_service_is_not_ready(
    world: World, capsys: pytest.CaptureFixture[str], name: str, asked: tuple[str, str], kind: str
) -> None:
    code, wrong = tried(world, capsys, OPERATIONS[name], Fault(*asked, kind, times=None))
    assert (code, wrong) == (5, [])
    assert [each.path for each in world.server.requests if each.method != "GET"] == []


@pytest.mark.parametrize(("name", "asked"), [case for case in CASES if creates(*case[1])])
def test_an_answer_that_never_comes_is_looked_behind(
    world: World, capsys: pytest.CaptureFixture[str], name: str, asked: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_ENVIRONMENTS_LOCAL_KUBEFLOW_TIMEOUT", SLOW_SECONDS)
    code, wrong = tried(world, capsys, OPERATIONS[name], Fault(*asked, "slow", after=True))
    assert (code in {0, 5}, wrong) == (True, [])  # 5: on a busy machine even the looks may take too long


@pytest.mark.parametrize("path", [path for _, path in OPERATIONS["login"].bystanders])
@pytest.mark.parametrize("kind", ["login", "500", "cut", "wrong-json"])
def test_a_login_is_told_without_what_only_a_dashboard_knows(
    world: World, capsys: pytest.CaptureFixture[str], path: str, kind: str
) -> None:
    assert tried(world, capsys, OPERATIONS["login"], Fault("GET", path, kind, times=None)) == (0, [])


ENDS = {"SUCCEEDED": 0, "FAILED": 1, "SKIPPED": 3, "CANCELED": 6}


@pytest.mark.parametrize("state", ENDS)
def test_each_end_of_a_run_has_its_exit_code(world: World, capsys: pytest.CaptureFixture[str], state: str) -> None:
    world.begin(capsys, after_upload=True)
    usual = world.server.runs.default
    world.server.runs.default = replace(usual, states=("PENDING", "RUNNING", state), logs={"train": f"the words of {state}\n"})
    try:
        code, document, seen = world.run(capsys, ("launch", "--wait"))
    finally:
        world.server.runs.default = usual
    assert (code, document["results"][0]["state"]) == (ENDS[state], state)
    assert ("the words of FAILED" in seen) == (state == "FAILED")
