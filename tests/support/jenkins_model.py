"""The state of a controller: folders, multibranch projects, jobs, a queue and builds, which a test moves on by hand."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.support.jenkins_tree import Bean

FOLDER = "com.cloudbees.hudson.plugins.folder.Folder"
MULTIBRANCH = "org.jenkinsci.plugins.workflow.multibranch.WorkflowMultiBranchProject"
PIPELINE = "org.jenkinsci.plugins.workflow.job.WorkflowJob"
RUN = "org.jenkinsci.plugins.workflow.job.WorkflowRun"
PERMALINKS: dict[str, Callable[[FakeBuild], bool]] = {
    "lastBuild": lambda build: True,  # noqa: ARG005 - one shape for all
    "lastCompletedBuild": lambda build: not build.building,
    "lastSuccessfulBuild": lambda build: build.result in {"SUCCESS", "UNSTABLE"},
    "lastStableBuild": lambda build: build.result == "SUCCESS",
    "lastUnsuccessfulBuild": lambda build: build.result not in {"SUCCESS", None},
    "lastFailedBuild": lambda build: build.result == "FAILURE",
}
_COLOURS = {"SUCCESS": "blue", "UNSTABLE": "yellow", "FAILURE": "red", "ABORTED": "aborted", "NOT_BUILT": "notbuilt"}
_ESCAPED = str.maketrans({character: f"%{ord(character):02X}" for character in "#%/?[]\\"})


@dataclass(frozen=True)
class Parameter:
    """A parameter of a job; ``kind`` as in ``StringParameterDefinition``: String, Text, Boolean, Choice, Password."""

    name: str
    default: str | bool | None = ""
    kind: str = "String"
    choices: tuple[str, ...] = ()
    description: str = ""

    def value(self, given: str | None) -> str | bool | None:
        """Return the value for what a form holds, None given: the default."""
        if self.kind == "Choice":
            chosen = self.choices[0] if given is None else given
            if chosen not in self.choices:
                raise ValueError(f"Illegal choice for parameter {self.name}: {chosen}")
            return chosen
        if self.kind == "Boolean":
            return bool(self.default) if given is None else given.lower() == "true"
        return self.default if given is None else given

    def bean(self) -> Bean:
        """Return the definition as Jenkins exports it; a password's default is not told."""
        kind = f"hudson.model.{self.kind}ParameterValue"
        default = None if self.kind == "Choice" and not self.choices else self.value(None)
        told = {"name": self.name} if self.kind == "Password" else {"name": self.name, "value": default}
        values = {
            "defaultParameterValue": Bean(kind, told),
            "description": self.description,
            "name": self.name,
            "type": f"{self.kind}ParameterDefinition",
        }
        if self.kind == "Choice":
            values["choices"] = list(self.choices)
        return Bean(f"hudson.model.{self.kind}ParameterDefinition", values, brief=tuple(values))


@dataclass(eq=False)
class FakeBuild:
    """A build; a test changes its fields as it likes."""

    job: FakeJob
    number: int
    queue_id: int
    parameters: dict[str, Any]
    building: bool = True
    result: str | None = None
    commit: str | None = None
    library_commit: str | None = None
    description: str | None = None
    log: bytes = b""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    timestamp: float = field(default_factory=time.time)

    @property
    def url(self) -> str:
        return f"{self.job.url}{self.number}/"

    def say(self, text: str | bytes) -> None:
        """Write to the log."""
        self.log += text.encode() if isinstance(text, str) else text

    def end(self, result: str = "SUCCESS") -> None:
        """End the build."""
        self.result, self.building = result, False

    def bean(self) -> Bean:
        """Return the build as Jenkins exports it."""
        values: dict[str, Any] = {
            "actions": self._actions,
            "artifacts": lambda: [_artifact(path) for path in self.artifacts],
            "building": self.building,
            "description": self.description,
            "displayName": f"#{self.number}",
            "duration": 0,
            "estimatedDuration": -1,
            "executor": None,
            "fullDisplayName": f"{self.job.full_name} #{self.number}",
            "id": str(self.number),
            "inProgress": self.building,
            "keepLog": False,
            "number": self.number,
            "queueId": self.queue_id,
            "result": self.result,
            "timestamp": int(self.timestamp * 1000),
            "url": self.url,
            "changeSets": [],
        }
        return Bean(RUN, values, brief=("number", "url"))

    def _actions(self) -> list[Bean]:
        told = [Bean("jenkins.metrics.impl.TimeInQueueAction", {})]
        if self.parameters:
            given = [self._parameter(name) for name in self.parameters]
            told.append(Bean("hudson.model.ParametersAction", {"parameters": given}, brief=("parameters",)))
        for commit, branch in ((self.library_commit, "library"), (self.commit, self.job.branch or "refs/remotes/origin/main")):
            if commit is not None:
                names = [Bean("", {"SHA1": commit, "name": branch}, brief=("SHA1", "name"))]
                revision = Bean("", {"SHA1": commit, "branch": names}, brief=("SHA1", "branch"))
                told.append(Bean("hudson.plugins.git.util.BuildData", {"lastBuiltRevision": revision}, brief=("lastBuiltRevision",)))
        return told

    def _parameter(self, name: str) -> Bean:
        kind = next((each.kind for each in self.job.parameters if each.name == name), "String")
        told = {"name": name} if kind == "Password" else {"name": name, "value": self.parameters[name]}
        return Bean(f"hudson.model.{kind}ParameterValue", told, brief=tuple(told))


@dataclass(eq=False)
class FakeJob:
    """A folder, a multibranch project or a job."""

    controller: FakeController
    parent: FakeJob | None
    name: str
    kind: str = PIPELINE
    branch: str | None = None
    parameters: Sequence[Parameter] = ()
    buildable: bool = True
    hidden: bool = False
    children: dict[str, FakeJob] = field(default_factory=dict)
    builds: list[FakeBuild] = field(default_factory=list)
    on_begin: Callable[[FakeBuild], None] | None = None

    @property
    def full_name(self) -> str:
        above = self.parent.full_name if self.parent is not None else ""
        return f"{above}/{self.name}".lstrip("/")

    @property
    def url(self) -> str:
        if self.parent is None:
            return f"{self.controller.root_url}/"
        return f"{self.parent.url}job/{quote(self.name, safe='')}/"

    @property
    def newest(self) -> list[FakeBuild]:
        return sorted(self.builds, key=lambda build: -build.number)

    def folder(self, name: str) -> FakeJob:
        return self._add(FakeJob(self.controller, self, name, FOLDER))

    def multibranch(self, name: str) -> FakeJob:
        return self._add(FakeJob(self.controller, self, name, MULTIBRANCH))

    def job(self, name: str, parameters: Sequence[Parameter] = ()) -> FakeJob:
        return self._add(FakeJob(self.controller, self, name, parameters=parameters))

    def add_branch(self, name: str, parameters: Sequence[Parameter] = ()) -> FakeJob:
        """Add the job of a branch, named as the branch API names it."""
        assert self.kind == MULTIBRANCH
        return self._add(FakeJob(self.controller, self, name.translate(_ESCAPED), branch=name, parameters=parameters))

    def _add(self, child: FakeJob) -> FakeJob:
        self.children[child.name] = child
        return child

    def find(self, which: str) -> FakeBuild | None:
        """Return a build by number or permalink."""
        link = PERMALINKS.get(which)
        return next((build for build in self.newest if (str(build.number) == which if link is None else link(build))), None)

    def add_build(self, result: str | None = "SUCCESS", **fields: Any) -> FakeBuild:
        """Add a build that no trigger of the test began."""
        item = self.controller.schedule(self, dict(fields.pop("parameters", {})), hold=True)
        build = self.controller.begin(item.id)
        for name, value in fields.items():
            assert hasattr(build, name), name
            setattr(build, name, value)
        if result is not None:
            build.end(result)
        return build

    def bean(self) -> Bean:
        """Return the item as Jenkins exports it."""
        if self.kind != PIPELINE:
            return self._folder_bean()
        definitions = [each.bean() for each in self.parameters]
        told = {"parameterDefinitions": definitions}
        held = [Bean("hudson.model.ParametersDefinitionProperty", told, brief=tuple(told))] if definitions else []
        waiting = next((item for item in self.controller.items.values() if item.job is self and not item.left), None)
        values: dict[str, Any] = {
            "actions": [Bean("", {}), *held],
            "description": "",
            "displayName": self.branch or self.name,
            "fullName": self.full_name,
            "name": self.name,
            "url": self.url,
            "buildable": self.buildable,
            "allBuilds": lambda: [build.bean() for build in self.newest],
            "builds": lambda: [build.bean() for build in self.newest[:100]],
            "color": self._colour(),
            "firstBuild": lambda: self.newest[-1].bean() if self.builds else None,
            "inQueue": waiting is not None,
            "nextBuildNumber": len(self.builds) + 1,
            "property": held,
            "queueItem": lambda: waiting.bean() if waiting is not None else None,
            **{name: self._permalink(name) for name in PERMALINKS},
        }
        return Bean(PIPELINE, values, brief=("name", "url", "color"), hidden=("allBuilds",))

    def _folder_bean(self) -> Bean:
        values = {
            "actions": [],
            "displayName": self.name,
            "fullName": self.full_name,
            "name": self.name,
            "url": self.url,
            "jobs": lambda: [child.bean() for child in self.children.values() if not child.hidden],
        }
        if self.parent is None:
            values = {"nodeName": "", "mode": "NORMAL", "useSecurity": True, "url": self.url, "jobs": values["jobs"]}
        return Bean("hudson.model.Hudson" if self.parent is None else self.kind, values)

    def _permalink(self, name: str) -> Bean | None:
        found = self.find(name)
        return None if found is None else found.bean()

    def _colour(self) -> str:
        if not self.buildable:
            return "disabled"
        last = next((build for build in self.newest if not build.building), None)
        running = "_anime" if any(build.building for build in self.builds) else ""
        return (_COLOURS.get(last.result or "", "notbuilt") if last else "notbuilt") + running


@dataclass(eq=False)
class FakeItem:
    """An item of the queue. ``null_reads``: how often its executable is told as null after its build has begun."""

    id: int
    job: FakeJob
    parameters: dict[str, Any]
    why: str | None = "Waiting for next available executor"
    blocked: bool = False
    cancelled: bool = False
    left: bool = False
    left_at: float = 0.0
    build: FakeBuild | None = None
    null_reads: int = 0
    since: float = field(default_factory=time.time)

    def bean(self) -> Bean:
        """Return the item as Jenkins exports it; reading it uses up one of ``null_reads``."""
        build = self.build
        if build is not None and self.null_reads > 0:
            self.null_reads, build = self.null_reads - 1, None
        values: dict[str, Any] = {
            "actions": [
                Bean(
                    "hudson.model.ParametersAction",
                    {"parameters": [_value(*each) for each in self.parameters.items()]},
                    brief=("parameters",),
                )
            ],
            "blocked": self.blocked,
            "buildable": not self.left and not self.blocked,
            "id": self.id,
            "inQueueSince": int(self.since * 1000),
            "params": "".join(f"\n{name}={value}" for name, value in self.parameters.items()),
            "stuck": False,
            "task": self.job.bean,
            "url": f"queue/item/{self.id}/",
            "why": None if self.left else self.why,
        }
        if not self.left:
            return Bean("hudson.model.Queue$BlockedItem" if self.blocked else "hudson.model.Queue$BuildableItem", values)
        values |= {"cancelled": self.cancelled, "executable": build.bean() if build is not None else None}
        return Bean("hudson.model.Queue$LeftItem", values)


@dataclass(eq=False)
class FakeController:
    """A controller without its network.

    Attributes:
        hold: triggered items wait until the test lets them begin (`begin`, `leave`, `cancel`, `block`); else they begin at once.
        item_seconds: how long an item that has left the queue can be read; five minutes in Jenkins.
        null_reads: for new items, see `FakeItem`.
    """

    root_url: str = ""
    hold: bool = False
    item_seconds: float = 300.0
    null_reads: int = 0
    items: dict[int, FakeItem] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _last_id: int = 40

    def __post_init__(self) -> None:
        self.root = FakeJob(self, None, "", FOLDER)

    def jobs(self) -> Iterator[FakeJob]:
        """Walk over all items."""
        left = [self.root]
        while left:
            left += (node := left.pop()).children.values()
            yield node

    def schedule(self, job: FakeJob, parameters: dict[str, Any], *, hold: bool | None = None) -> FakeItem:
        """Put a build into the queue, or find the item that waits there with the same parameters."""
        with self.lock:
            for item in self.items.values():
                if not item.left and item.job is job and item.parameters == parameters:
                    return item
            self._last_id += 1
            item = self.items[self._last_id] = FakeItem(self._last_id, job, parameters, null_reads=self.null_reads)
            if not (self.hold if hold is None else hold):
                self.begin(item.id)
            return item

    def begin(self, number: int) -> FakeBuild:
        """Let the build of an item begin."""
        with self.lock:
            item = self.items[number]
            assert item.build is None, "has begun"
            build = FakeBuild(item.job, max((each.number for each in item.job.builds), default=0) + 1, item.id, dict(item.parameters))
            item.job.builds.append(build)
            item.build = build
            self.leave(number)
            if item.job.on_begin is not None:
                item.job.on_begin(build)
            return build

    def leave(self, number: int) -> None:
        """Take an item from the queue; without a build of it yet, its executable is null."""
        item = self.items[number]
        item.left, item.left_at = True, time.monotonic()

    def cancel(self, number: int) -> None:
        """Cancel an item."""
        self.leave(number)
        self.items[number].cancelled = True

    def block(self, number: int, why: str) -> None:
        """Let an item wait for something."""
        self.items[number].blocked, self.items[number].why = True, why

    def item(self, number: int) -> FakeItem | None:
        """Return an item while it can be read."""
        item = self.items.get(number)
        if item is not None and item.left and time.monotonic() - item.left_at >= self.item_seconds:
            return None
        return item

    def forget(self) -> None:
        """Forget what left the queue, as a restart does; what waits is kept, and the numbers go on."""
        self.items = {number: item for number, item in self.items.items() if not item.left}

    def fingerprint(self, digest: str) -> Bean | None:
        """Return which build made a file, by the MD5 of its content."""
        for job in self.jobs():
            for build in job.builds:
                for path, content in build.artifacts.items():
                    if hashlib.md5(content, usedforsecurity=False).hexdigest() == digest:
                        return _fingerprint(build, path)
        return None


def _fingerprint(build: FakeBuild, path: str) -> Bean:
    ranges = Bean("", {"ranges": [Bean("", {"start": build.number, "end": build.number + 1}, brief=("start", "end"))]}, brief=("ranges",))
    return Bean(
        "hudson.model.Fingerprint",
        {
            "fileName": path.rpartition("/")[2],
            "original": Bean("", {"name": build.job.full_name, "number": build.number}, brief=("name", "number")),
            "usage": [Bean("", {"name": build.job.full_name, "ranges": ranges}, brief=("name", "ranges"))],
        },
    )


def _artifact(path: str) -> Bean:
    values: Mapping[str, str] = {"displayPath": path, "fileName": path.rpartition("/")[2], "relativePath": path}
    return Bean("", values, brief=tuple(values))


def _value(name: str, value: object) -> Bean:
    return Bean("hudson.model.StringParameterValue", {"name": name, "value": value}, brief=("name", "value"))
