"""ECS through boto3: typed records of what is looked at, one error for each thing that a person can mend."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainshed.errors import RemoteError, TrainshedError, UsageError
from trainshed.tools import process
from trainshed.tools.http import Http

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.loaders import Loader

_THROTTLED = ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded")
_DENIED = ("AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException")
_SERVER_ERROR = 500
_DESCRIBED_AT_ONCE = 100
_ATTEMPTS = 5
_POLL_EMBEDDED, _POLL_ECS = 0.25, 5.0
_FIRST_PAUSE = 0.2
_LOOKING = ("describe_", "list_", "get_")


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

    @property
    def primary(self) -> bool:
        """Tell whether this is the one that ECS works towards."""
        return self.status == "PRIMARY"


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
        cluster: its name or ARN.
        region: of AWS.
        endpoint_url: another address of the API; None for AWS's own.
        anonymous: send no credentials and ask no proxy: the embedded service.
        poll: seconds between two looks at a deployment; None: what the service bears.
    """

    def __init__(
        self, *, cluster: str, region: str, endpoint_url: str | None = None, anonymous: bool = False, poll: float | None = None
    ) -> None:
        self.cluster, self.region, self.endpoint_url, self.embedded = cluster, region, endpoint_url, anonymous
        self.poll = poll if poll is not None else _POLL_EMBEDDED if anonymous else _POLL_ECS

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
        """Return a service, None when there is none or it was deleted."""
        answer = self._call("describe_services", cluster=self.cluster, services=[name])
        found = [service for service in answer.get("services", []) if service["status"] != "INACTIVE"]
        return _service(found[0]) if found else None

    def task_definition(self, revision: str) -> dict[str, Any]:
        """Return a task definition by its ARN."""
        answer: dict[str, Any] = self._call("describe_task_definition", taskDefinition=revision)["taskDefinition"]
        return answer

    def register(self, definition: Mapping[str, Any]) -> str:
        """Register a new revision of a task definition; return its ARN."""
        return str(self._call("register_task_definition", **definition)["taskDefinition"]["taskDefinitionArn"])

    def create_service(self, name: str, revision: str, parameters: Mapping[str, Any]) -> ServiceState:
        """Create a service."""
        answer = self._call("create_service", cluster=self.cluster, serviceName=name, taskDefinition=revision, **parameters)
        return _service(answer["service"])

    def update_service(self, name: str, revision: str, parameters: Mapping[str, Any]) -> ServiceState:
        """Change a service with one call: two would make two deployments, of which the first is reported as failed."""
        answer = self._call("update_service", cluster=self.cluster, service=name, taskDefinition=revision, **parameters)
        return _service(answer["service"])

    def tasks(self, service: str, *, stopped: bool = False) -> tuple[Task, ...]:
        """Return a service's tasks: those that run or start, or those that stopped within the last hour."""
        wanted = "STOPPED" if stopped else "RUNNING"
        arns = list(self._pages("list_tasks", "taskArns", serviceName=service, desiredStatus=wanted))
        found: list[Task] = []
        for start in range(0, len(arns), _DESCRIBED_AT_ONCE):
            answer = self._call("describe_tasks", cluster=self.cluster, tasks=arns[start : start + _DESCRIBED_AT_ONCE])
            found += [_task(task) for task in answer.get("tasks", [])]
        return tuple(found)

    def address(self, service: str) -> str | None:
        """Return the embedded service's stable address; None on ECS, where the load balancer has it."""
        if not self.embedded:
            return None
        with Http(timeout=10) as http:
            answer = http.request("GET", f"{self.endpoint_url}/_embedded/services/{service}")
        return str(answer.json()["url"]) if answer.ok else None

    def log_tail(self, task: Task, container: str, group: str, *, lines: int = 20) -> list[str]:
        """Return the last lines of a task's log: CloudWatch's, or the embedded service's own. No log is no error."""
        try:
            if self.embedded:
                with Http(timeout=10) as http:
                    answer = http.request("GET", f"{self.endpoint_url}/_embedded/tasks/{task.id}/log")
                return answer.text.splitlines()[-lines:] if answer.ok else []
            if not group:
                return []
            stream = f"{container}/{container}/{task.id}"
            events = self._call("get_log_events", "logs", logGroupName=group, logStreamName=stream, limit=lines)
            return [str(event["message"]) for event in events.get("events", [])]
        except (RemoteError, UsageError) as error:
            return [f"(the log cannot be read: {error.message})"]

    def secret(self, reference: str) -> str:
        """Turn ``name#key`` into what a task definition's ``valueFrom`` takes, and prove that the key is there.

        Raises:
            UsageError: no such secret, no such key in its JSON, or it may not be read.
        """
        name, _, key = reference.partition("#")
        if self.embedded or name.startswith("arn:aws:ssm:"):
            return reference
        if not key:
            return str(self._call("describe_secret", "secretsmanager", SecretId=name)["ARN"])
        import json

        answer = self._call("get_secret_value", "secretsmanager", SecretId=name)
        try:
            present = key in json.loads(answer.get("SecretString", ""))
        except (ValueError, TypeError):
            present = False
        if not present:
            raise UsageError(f"secret '{name}' has no JSON key '{key}'", next_step="Add the key, or mend service.yaml.")
        return f"{answer['ARN']}:{key}::"

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def _client(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        if service not in self._clients:
            import boto3
            import botocore
            import botocore.session
            from botocore.config import Config

            settings: dict[str, Any] = {"signature_version": botocore.UNSIGNED, "proxies": {}} if self.embedded else {}
            # Repeats are ours: they end with SIGTERM, and a change is repeated only where ECS surely did not take it.
            config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60, **settings)
            core = botocore.session.Session()
            core.register_component("data_loader", _models())
            session = boto3.session.Session(region_name=self.region, botocore_session=core)
            self._clients[service] = session.client(service, endpoint_url=self.endpoint_url, config=config)  # type: ignore[call-overload]
        return self._clients[service]

    def _call(self, operation: str, api: str = "ecs", **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - see the API
        from botocore.exceptions import BotoCoreError, ClientError

        client, looking = self._client(api), operation.startswith(_LOOKING)
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                answer: dict[str, Any] = process.interruptible(lambda: getattr(client, operation)(**parameters))
            except ClientError as error:
                if last or not (_code(error) in _THROTTLED or (looking and _status(error) >= _SERVER_ERROR)):
                    raise self._refused(operation, error) from error
            except BotoCoreError as error:
                if last or not (looking and _passing(error)):
                    raise self._broken(error) from error
            else:
                return answer
            process.pause(_FIRST_PAUSE * 2.0**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
        raise AssertionError("the last attempt returns or raises")

    def _pages(self, operation: str, key: str, **parameters: Any) -> Iterator[str]:  # noqa: ANN401 - see the API
        following: dict[str, str] = {}
        while True:
            answer = self._call(operation, cluster=self.cluster, **parameters, **following)
            yield from answer.get(key, [])
            if not answer.get("nextToken"):
                return
            following = {"nextToken": answer["nextToken"]}

    def _refused(self, operation: str, error: ClientError) -> TrainshedError:
        code, said = _code(error), error.response.get("Error", {}).get("Message", "")
        message = f"ECS, cluster '{self.cluster}': {operation} was refused: {code}: {said}"
        if code in _THROTTLED or _status(error) >= _SERVER_ERROR:
            return RemoteError(message, next_step="Wait a minute, then run it again.")
        if code in _DENIED:
            return UsageError(message, next_step="Check the credentials and what their role may do.")
        return UsageError(message, next_step="Mend what the message names in service.yaml or the environment.")

    def _broken(self, error: BotoCoreError) -> TrainshedError:
        from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError

        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return UsageError(f"ECS in {self.region}: {error}", next_step="Give AWS credentials: a role, a profile or variables.")
        if isinstance(error, ParamValidationError):
            return UsageError(f"ECS, cluster '{self.cluster}': {error}", next_step="Mend what the message names in service.yaml.")
        where = self.endpoint_url or f"ECS in {self.region}"
        return RemoteError(f"{where}: {error}", next_step="Check the network and prediction-service.endpoint-url, then run it again.")


@functools.cache
def _models() -> Loader:
    """Return what botocore knows of AWS, read once and not for every client: a tenth of a second each."""
    from botocore.loaders import create_loader

    return create_loader()


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passing(error: BotoCoreError) -> bool:
    """Tell whether the network, and not the request, is to blame."""
    from botocore.exceptions import HTTPClientError

    return isinstance(error, HTTPClientError)


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
    )


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
