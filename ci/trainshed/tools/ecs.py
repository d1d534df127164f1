"""ECS through boto3: typed records of what is looked at, one error for each thing that a person can mend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.tools import process
from trainshed.tools.aws import Aws
from trainshed.tools.http import Http

_DESCRIBED_AT_ONCE = 100
_SERVICES_AT_ONCE = 10
_REVISIONS_AT_ONCE = 20
_POLL_EMBEDDED, _POLL_ECS = 0.25, 5.0
_PATIENCE_SECONDS = 300.0
_SETTLING_LOOKS = 24
_REGISTERED = (
    "family",
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "containerDefinitions",
    "volumes",
    "placementConstraints",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "pidMode",
    "ipcMode",
    "proxyConfiguration",
    "ephemeralStorage",
    "runtimePlatform",
)
"""What of a task definition is asked for; the rest ECS itself tells of it."""
_Seen = TypeVar("_Seen")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of what ECS tells about a service."""

    id: str
    message: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One deployment of a service. ``revision`` is its task definition's ARN; ``rollout`` IN_PROGRESS, COMPLETED or FAILED."""

    id: str
    status: str
    revision: str
    rollout: str
    reason: str
    desired: int
    running: int
    failed: int
    pending: int = 0
    created: datetime | None = None

    @property
    def primary(self) -> bool:
        """Tell whether this is the one that ECS works towards."""
        return self.status == "PRIMARY"

    @property
    def complete(self) -> bool:
        """Tell whether its rollout came to a good end."""
        return self.rollout == "COMPLETED"


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """A service as it is now. ``events`` are newest first; ``document`` is the whole answer."""

    name: str
    status: str
    revision: str
    desired: int
    running: int
    deployments: tuple[Deployment, ...]
    events: tuple[Event, ...]
    document: Mapping[str, Any] = field(repr=False)

    @property
    def primary(self) -> Deployment | None:
        """Return the deployment that ECS works towards."""
        return next((deployment for deployment in self.deployments if deployment.primary), None)

    def deployment(self, identity: str) -> Deployment | None:
        """Return a deployment by its id, None when ECS has forgotten it."""
        return next((deployment for deployment in self.deployments if deployment.id == identity), None)


@dataclass(frozen=True, kw_only=True)
class ServiceDeployment:
    """What ECS keeps of a deployment, also after the service no longer lists it. ``revision`` is the task definition's ARN.

    ``status`` such as SUCCESSFUL, STOPPED or ROLLBACK_SUCCESSFUL; ``alarms`` are those that went off.
    """

    status: str
    reason: str
    revision: str
    created: datetime | None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A task definition as ECS keeps it, with its tags."""

    arn: str
    active: bool
    document: Mapping[str, Any] = field(repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ContainerState:
    """A task's container. ``digest`` is of the image that really runs, empty before it is pulled."""

    name: str
    image: str
    digest: str
    status: str
    exit_code: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task. ``started_by`` is the id of the deployment that it belongs to."""

    arn: str
    revision: str
    started_by: str
    status: str
    health: str
    stop_code: str
    stopped_reason: str
    containers: tuple[ContainerState, ...]

    @property
    def id(self) -> str:
        """Return the last part of the ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def why(self) -> str:
        """Return why it stopped: the task's reason, and each container's exit code and reason."""
        parts = [self.stopped_reason or self.stop_code or "no reason given"]
        for container in self.containers:
            code = f"exit code {container.exit_code}" if container.exit_code is not None else ""
            said = ", ".join(filter(None, (code, container.reason)))
            if said:
                parts.append(f"{container.name}: {said}")
        return "; ".join(parts)


class Ecs:
    """One cluster.

    Args:
        aws: where it is asked, and as whom.
        cluster: its name or ARN.
        embedded: address of the embedded service, empty for ECS itself.
        poll: seconds between two looks at a deployment; None: what the service bears.

    Attributes:
        patience: seconds that ECS may give no answer before who follows a deployment gives up.
        settling: seconds within which an answer of ECS may be older than a change that was made.
    """

    def __init__(self, aws: Aws, *, cluster: str, embedded: str = "", poll: float | None = None) -> None:
        self.aws, self.cluster, self._own = aws, cluster, embedded
        self.poll = poll if poll is not None else _POLL_EMBEDDED if embedded else _POLL_ECS
        self.patience, self.settling = _PATIENCE_SECONDS, _SETTLING_LOOKS * self.poll

    @property
    def region(self) -> str:
        """Return the region of the cluster."""
        return self.aws.region

    @property
    def embedded(self) -> bool:
        """Tell whether this machine's own service answers."""
        return bool(self._own)

    def patiently(self, look: Callable[[], _Seen]) -> _Seen:
        """Return what a look tells; without an answer it is repeated for as long as `patience` says.

        Raises:
            RemoteError: there was none, or the credentials ran out.
        """
        ends = time.monotonic() + self.patience
        while True:
            try:
                return look()
            except RemoteError as error:
                if error.permanent or time.monotonic() >= ends:
                    raise
            process.pause(self.poll)

    def check_cluster(self) -> None:
        """Make sure that the cluster is there.

        Raises:
            UsageError: it is not.
        """
        answer = self._call("describe_clusters", clusters=[self.cluster])
        active = [found for found in answer.get("clusters", []) if found.get("status") == "ACTIVE"]
        if not active:
            raise UsageError(f"no active ECS cluster '{self.cluster}' in {self.region}", next_step="Mend prediction-service.cluster.")

    def service(self, name: str) -> ServiceState | None:
        """Return a service, None when there is none or it was deleted.

        Raises:
            WorkFailed: it was deleted, and its last tasks still end: with a count of 0 it looks complete, but nothing may change it.
        """
        answer = self._call("describe_services", cluster=self.cluster, services=[name])
        found = [service for service in answer.get("services", []) if service["status"] != "INACTIVE"]
        if found and found[0]["status"] == "DRAINING":
            raise WorkFailed(f"{name}: the service was deleted, its last tasks are ending", next_step="Run it again once it is gone.")
        return _service(found[0]) if found else None

    def clusters(self) -> Iterator[Ecs]:
        """Yield every cluster of the account in this region; the embedded service has its own alone."""
        if self.embedded:
            yield self
            return
        for page in self.aws.pages("ecs", "list_clusters"):
            yield from (Ecs(self.aws, cluster=arn, poll=self.poll) for arn in page.get("clusterArns", []))

    def running_revisions(self) -> set[str]:
        """Return the revisions that tasks of the cluster run, those that belong to no service as well."""
        pages = self.aws.pages("ecs", "list_tasks", cluster=self.cluster)
        arns = [arn for page in pages for arn in page.get("taskArns", [])]
        answers = (self._call("describe_tasks", cluster=self.cluster, tasks=some) for some in _batches(arns, _DESCRIBED_AT_ONCE))
        return {task["taskDefinitionArn"] for answer in answers for task in answer.get("tasks", [])}

    def services(self) -> Iterator[ServiceState]:
        """Yield every service of the cluster."""
        for page in self.aws.pages("ecs", "list_services", cluster=self.cluster):
            for names in _batches(page.get("serviceArns", []), _SERVICES_AT_ONCE):
                answer = self._call("describe_services", cluster=self.cluster, services=names)
                yield from (_service(found) for found in answer.get("services", []) if found["status"] != "INACTIVE")

    def task_definition(self, revision: str) -> dict[str, Any]:
        """Return a task definition by its ARN."""
        return dict(self.definition(revision).document)

    def definition(self, revision: str) -> Definition:
        """Return a task definition, by its ARN or ``family:revision``, with its tags."""
        answer = self._call("describe_task_definition", taskDefinition=revision, include=["TAGS"])
        document = answer["taskDefinition"]
        return Definition(
            arn=document["taskDefinitionArn"],
            active=document.get("status") == "ACTIVE",
            document=document,
            tags={tag["key"]: tag.get("value", "") for tag in answer.get("tags", [])},
        )

    def revisions(self, family: str) -> Iterator[str]:
        """Yield the ARNs of a family's active revisions, the newest first."""
        for page in self.aws.pages("ecs", "list_task_definitions", familyPrefix=family, status="ACTIVE", sort="DESC"):
            # The filter takes every family that begins so.
            yield from (arn for arn in page.get("taskDefinitionArns", []) if arn.rpartition("/")[2].rpartition(":")[0] == family)

    def deregister(self, revision: str) -> None:
        """Take a revision out of use: nothing new may be started from it."""
        self._call("deregister_task_definition", taskDefinition=revision)

    def service_deployments(self, service: str) -> list[ServiceDeployment]:
        """Return a service's deployments of the last weeks, the newest first, also those that it no longer lists."""
        briefs = self._call("list_service_deployments", cluster=self.cluster, service=service).get("serviceDeployments", [])
        briefs = briefs[:_REVISIONS_AT_ONCE]
        if not briefs:
            return []
        arns = [brief["serviceDeploymentArn"] for brief in briefs]
        answer = self._call("describe_service_deployments", serviceDeploymentArns=arns)
        targets = {found["targetServiceRevisionArn"] for found in briefs if "targetServiceRevisionArn" in found}
        revisions = {found["serviceRevisionArn"]: found.get("taskDefinition", "") for found in self._service_revisions(sorted(targets))}
        found = [_service_deployment(document, revisions) for document in answer.get("serviceDeployments", [])]
        return sorted(found, key=lambda one: one.created.timestamp() if one.created else 0.0, reverse=True)

    def resolved(self, state: ServiceState, revision: str) -> dict[str, str]:
        """Return the digests, by container, that ECS resolved for a revision that a service runs now; empty when it names none."""
        arns = [found["arn"] for found in state.document.get("currentServiceRevisions", []) if "arn" in found]
        return {
            image["containerName"]: image["imageDigest"]
            for found in self._service_revisions(arns)
            if found.get("taskDefinition") == revision
            for image in found.get("containerImages", [])
            if image.get("imageDigest")
        }

    def _service_revisions(self, arns: Sequence[str]) -> list[dict[str, Any]]:
        batches = (self._call("describe_service_revisions", serviceRevisionArns=some) for some in _batches(arns, _REVISIONS_AT_ONCE))
        return [found for answer in batches for found in answer.get("serviceRevisions", [])]

    def register(self, definition: Mapping[str, Any]) -> str:
        """Register a new revision of a task definition; return its ARN."""
        return str(self._call("register_task_definition", **definition)["taskDefinition"]["taskDefinitionArn"])

    def create_service(self, name: str, revision: str, parameters: Mapping[str, Any], *, token: str = "") -> ServiceState:
        """Create a service. The same ``token`` again creates no second one."""
        parameters = {**parameters, **({"clientToken": token} if token else {})}
        answer = self._call("create_service", cluster=self.cluster, serviceName=name, taskDefinition=revision, **parameters)
        return _service(answer["service"])

    def update_service(self, name: str, revision: str, parameters: Mapping[str, Any]) -> ServiceState:
        """Change a service with one call: two would make two deployments, of which the first is reported as failed."""
        answer = self._call("update_service", cluster=self.cluster, service=name, taskDefinition=revision, **parameters)
        return _service(answer["service"])

    def delete_service(self, name: str) -> None:
        """Take a service away with all its tasks, as far as it is there."""
        self._call("delete_service", cluster=self.cluster, service=name, force=True)

    def ending(self, name: str) -> bool:
        """Tell whether a service was deleted, and its last tasks still end."""
        answer = self._call("describe_services", cluster=self.cluster, services=[name])
        return any(service["status"] == "DRAINING" for service in answer.get("services", []))

    def tasks(self, service: str, *, stopped: bool = False) -> tuple[Task, ...]:
        """Return a service's tasks: those that run or start, or those that stopped within the last hour."""
        wanted = "STOPPED" if stopped else "RUNNING"
        pages = self.aws.pages("ecs", "list_tasks", cluster=self.cluster, serviceName=service, desiredStatus=wanted)
        arns = [arn for page in pages for arn in page.get("taskArns", [])]
        found: list[Task] = []
        for some in _batches(arns, _DESCRIBED_AT_ONCE):
            answer = self._call("describe_tasks", cluster=self.cluster, tasks=some)
            found += [_task(task) for task in answer.get("tasks", [])]
        return tuple(found)

    def address(self, service: str) -> str | None:
        """Return the embedded service's stable address; None on ECS, where the load balancer has it."""
        if not self.embedded:
            return None
        with Http(timeout=10) as http:
            answer = http.request("GET", f"{self._own}/_embedded/services/{service}")
        return str(answer.json()["url"]) if answer.ok else None

    def log_tail(self, task: Task, container: str, group: str, *, lines: int = 20) -> list[str]:
        """Return the last lines of a task's log: CloudWatch's, or the embedded service's own. No log is no error."""
        try:
            if self.embedded:
                with Http(timeout=10) as http:
                    answer = http.request("GET", f"{self._own}/_embedded/tasks/{task.id}/log")
                return answer.text.splitlines()[-lines:] if answer.ok else []
            if not group:
                return []
            stream = f"{container}/{container}/{task.id}"
            events = self.aws.call("logs", "get_log_events", logGroupName=group, logStreamName=stream, limit=lines)
            return [str(event["message"]) for event in events.get("events", [])]
        except (RemoteError, UsageError) as error:
            return [f"(the log cannot be read: {error.message})"]

    def _call(self, operation: str, /, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - see the API
        return self.aws.call("ecs", operation, **parameters)


def registrable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what RegisterTaskDefinition takes of a task definition as ECS describes it: registered so, it is the same unit again."""
    return {key: document[key] for key in _REGISTERED if document.get(key)}


def short(revision: str) -> str:
    """Return ``family:revision`` of a task definition's ARN."""
    return revision.rpartition("/")[2]


def _service(document: Mapping[str, Any]) -> ServiceState:
    return ServiceState(
        name=document["serviceName"],
        status=document["status"],
        revision=document.get("taskDefinition", ""),
        desired=document.get("desiredCount", 0),
        running=document.get("runningCount", 0),
        deployments=tuple(_deployment(found) for found in document.get("deployments", [])),
        events=tuple(_event(found) for found in document.get("events", [])),
        document=document,
    )


def _event(document: Mapping[str, Any]) -> Event:
    return Event(id=document["id"], message=document.get("message", ""), at=document["createdAt"])


def _deployment(document: Mapping[str, Any]) -> Deployment:
    return Deployment(
        id=document["id"],
        status=document["status"],
        revision=document["taskDefinition"],
        rollout=document.get("rolloutState", ""),
        reason=document.get("rolloutStateReason", ""),
        desired=document.get("desiredCount", 0),
        running=document.get("runningCount", 0),
        failed=document.get("failedTasks", 0),
        pending=document.get("pendingCount", 0),
        created=document.get("createdAt"),
    )


def _service_deployment(document: Mapping[str, Any], revisions: Mapping[str, str]) -> ServiceDeployment:
    target = document.get("targetServiceRevision", {}).get("arn", "")
    return ServiceDeployment(
        status=document.get("status", ""),
        reason=document.get("statusReason", ""),
        revision=revisions.get(target, ""),
        created=document.get("createdAt"),
        alarms=tuple(document.get("alarms", {}).get("triggeredAlarmNames", [])),
    )


def _batches(arns: Sequence[str], size: int) -> Iterator[list[str]]:
    return (list(arns[start : start + size]) for start in range(0, len(arns), size))


def _task(document: Mapping[str, Any]) -> Task:
    return Task(
        arn=document["taskArn"],
        revision=document["taskDefinitionArn"],
        started_by=document.get("startedBy", ""),
        status=document.get("lastStatus", ""),
        health=document.get("healthStatus", ""),
        stop_code=document.get("stopCode", ""),
        stopped_reason=document.get("stoppedReason", ""),
        containers=tuple(_container(found) for found in document.get("containers", [])),
    )


def _container(document: Mapping[str, Any]) -> ContainerState:
    return ContainerState(
        name=document.get("name", ""),
        image=document.get("image", ""),
        digest=document.get("imageDigest", ""),
        status=document.get("lastStatus", ""),
        exit_code=document.get("exitCode"),
        reason=document.get("reason", ""),
    )
