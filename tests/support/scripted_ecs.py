"""An ECS endpoint on loopback that plays a script: real boto3 speaks to it over a real socket.

It keeps one service as ECS does. ``steps`` are applied one at each look at the service, after a change and while a rollout goes on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainshed.tools.aws import Aws
from trainshed.tools.ecs import Ecs

Step = Callable[["ScriptedEcs"], None]
_ARN = "arn:aws:ecs:us-east-1:000000000000"
LOOKS = ("Describe", "List", "Get")


@dataclass(frozen=True)
class Refusal:
    """An error answer of ECS."""

    kind: str
    message: str = "as the script says"
    status: int = 400


@dataclass
class ScriptedEcs:
    """The state and the script. ``refusals`` maps an action to what it answers next, before it works.

    ``lost`` are actions that are done, and whose answer is lost, once each; ``past`` the deployments that ECS keeps, with their targets
    (service revisions are task definitions here, but for those in ``revisions``).
    """

    url: str = ""
    service: dict[str, Any] | None = None
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    task_log: str = "Traceback: no model\n"
    clusters: tuple[str, ...] = ("embedded",)
    secrets: dict[str, str] = field(default_factory=dict)
    deployments: int = 0
    scalable: dict[str, Any] | None = None
    past: list[dict[str, Any]] = field(default_factory=list)
    revisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Forget everything but the address."""
        self.__dict__.update(ScriptedEcs(url=self.url).__dict__)

    def changes(self) -> list[str]:
        """Return the actions that changed something."""
        return [action for action, _ in self.requests if not action.startswith(LOOKS)]

    def sent(self, action: str) -> list[dict[str, Any]]:
        """Return the requests of an action."""
        return [body for name, body in self.requests if name == action]

    def tell(self, message: str) -> None:
        """Add an event."""
        assert self.service is not None
        self.service["events"].insert(0, {"id": f"event-{len(self.service['events'])}", "createdAt": time.time(), "message": message})

    def act(self, action: str, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Answer one action."""
        self.requests.append((action, body))
        if self.refusals.get(action):
            return self.refusals[action].pop(0)
        answer: dict[str, Any] | Refusal = getattr(self, f"_{action}")(body)
        if action in self.lost:
            self.lost.remove(action)
            return Refusal("ServerException", "the answer is lost", status=500)
        return answer

    def _DescribeClusters(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"clusters": [{"clusterName": name, "status": "ACTIVE"} for name in body["clusters"] if name in self.clusters]}

    def _RegisterTaskDefinition(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        name = f"{_ARN}:task-definition/{body['family']}:{len(self.definitions) + 1}"
        self.definitions[name] = {**body, "taskDefinitionArn": name, "status": "ACTIVE"}
        return {"taskDefinition": self.definitions[name]}

    def _DescribeTaskDefinition(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:  # noqa: N802 - the action's name
        name = body["taskDefinition"]
        found = self.definitions.get(name) or self.definitions.get(f"{_ARN}:task-definition/{name}")
        return {"taskDefinition": found, "tags": found.get("tags", [])} if found else Refusal("ClientException", f"no {name}")

    def _ListTaskDefinitions(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        found = [name for name, one in self.definitions.items() if one["family"] == body["familyPrefix"] and one["status"] == "ACTIVE"]
        return {"taskDefinitionArns": found[::-1]}

    def _DeregisterTaskDefinition(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        self.definitions[body["taskDefinition"]]["status"] = "INACTIVE"
        return {"taskDefinition": self.definitions[body["taskDefinition"]]}

    def _ListServiceDeployments(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {
            "serviceDeployments": [
                {"serviceDeploymentArn": one["serviceDeploymentArn"], "targetServiceRevisionArn": one["targetServiceRevision"]["arn"]}
                for one in self.past
            ]
        }

    def _DescribeServiceDeployments(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"serviceDeployments": [one for one in self.past if one["serviceDeploymentArn"] in body["serviceDeploymentArns"]]}

    def _DescribeServiceRevisions(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        found = [{"serviceRevisionArn": arn, **self.revisions.get(arn, {"taskDefinition": arn})} for arn in body["serviceRevisionArns"]]
        return {"serviceRevisions": found}

    def _DescribeScalableTargets(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"ScalableTargets": [self.scalable] if self.scalable is not None else []}

    def _DescribeScalingPolicies(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"ScalingPolicies": []}

    def _RegisterScalableTarget(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        self.scalable = body
        return {}

    def _ListClusters(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"clusterArns": list(self.clusters)}

    def _ListServices(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"serviceArns": [self.service["serviceName"]] if self.service is not None else []}

    def _DescribeServices(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        moving = self.service is not None and (self._moving(self.service) or self.service["status"] == "DRAINING")
        if moving and self.steps and self.changes():
            self.steps.pop(0)(self)
        shown = [self.service] if self.service is not None and self.service["serviceName"] in body["services"] else []
        return {"services": shown, "failures": []}

    @staticmethod
    def _moving(service: dict[str, Any]) -> bool:
        rolling = any(one["rolloutState"] == "IN_PROGRESS" for one in service["deployments"])
        return rolling or service["runningCount"] < service.get("desiredCount", 0)

    def _CreateService(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        self.service = {"serviceName": body["serviceName"], "status": "ACTIVE", "deployments": [], "events": [], "runningCount": 0}
        return self._UpdateService(body)

    def _UpdateService(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        assert self.service is not None
        wanted = body.get("taskDefinition", self.service.get("taskDefinition"))
        anew = body.get("forceNewDeployment") or body.get("networkConfiguration", {}) not in ({}, self.service.get("networkConfiguration"))
        self.service |= {key: body[key] for key in ("desiredCount", "networkConfiguration", "loadBalancers") if key in body}
        if anew or wanted != self.service.get("taskDefinition"):
            for old in self.service["deployments"]:
                old["status"] = "ACTIVE"
            self.deployments += 1
            fresh = {"id": f"ecs-svc/{self.deployments}", "status": "PRIMARY", "taskDefinition": wanted, "rolloutState": "IN_PROGRESS"}
            fresh["createdAt"] = time.time()
            self.service["deployments"].insert(0, fresh)
            self.service["taskDefinition"] = wanted
        return {"service": self.service}

    def _DeleteService(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        assert self.service is not None
        assert body["force"] is True
        self.service |= {"status": "DRAINING", "desiredCount": 0}
        return {"service": self.service}

    def _DeregisterScalableTarget(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        self.scalable = None
        return {}

    def _ListTasks(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"taskArns": [task["taskArn"] for task in self.tasks if task["desiredStatus"] == body.get("desiredStatus", "RUNNING")]}

    def _DescribeTasks(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"tasks": [task for task in self.tasks if task["taskArn"] in body["tasks"]]}

    def _DescribeSecret(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"ARN": f"arn:aws:secretsmanager:us-east-1:000000000000:secret:{body['SecretId']}-AbCdEf", "Name": body["SecretId"]}

    def _GetSecretValue(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:  # noqa: N802 - the action's name
        if body["SecretId"] not in self.secrets:
            return Refusal("ResourceNotFoundException")
        return {**self._DescribeSecret(body), "SecretString": self.secrets[body["SecretId"]]}

    def _GetLogEvents(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the action's name
        return {"events": [{"timestamp": 0, "message": f"{body['logStreamName']}: {line}"} for line in self.task_log.splitlines()]}


def complete(ecs: ScriptedEcs) -> None:
    """The primary deployment's tasks run, with the image that it asks for."""
    assert ecs.service is not None
    primary = next(one for one in ecs.service["deployments"] if one["status"] == "PRIMARY")
    primary["rolloutState"] = "COMPLETED"
    ecs.service |= {"deployments": [primary], "runningCount": ecs.service.get("desiredCount", 0)}
    image = ecs.definitions[primary["taskDefinition"]]["containerDefinitions"][0]["image"]
    ecs.tasks = [task for task in ecs.tasks if task["desiredStatus"] == "STOPPED"]
    ecs.tasks.append(task_of(primary, "RUNNING", digest=image.partition("@")[2]))
    ecs.tell("(service answer) has reached a steady state.")


def wait(ecs: ScriptedEcs) -> None:
    """Nothing new, but an event."""
    ecs.tell("(service answer) has started 1 tasks.")


def trip(ecs: ScriptedEcs) -> None:
    """The circuit breaker trips: the deployment failed, and the one before it is the primary again."""
    assert ecs.service is not None
    failed, *before = ecs.service["deployments"]
    failed |= {"rolloutState": "FAILED", "rolloutStateReason": "ECS deployment circuit breaker: tasks failed to start."}
    ecs.tasks.append(task_of(failed, "STOPPED", exitCode=7, reason="no model"))
    if before:
        failed["status"], before[0]["status"], before[0]["rolloutState"] = "ACTIVE", "PRIMARY", "IN_PROGRESS"
        ecs.service["taskDefinition"] = before[0]["taskDefinition"]


def forget(ecs: ScriptedEcs) -> None:
    """ECS rolled back, and does not show the failed deployment any more: the service looks stable."""
    trip(ecs)
    assert ecs.service is not None
    ecs.service["deployments"].pop(0)
    complete(ecs)


def end(ecs: ScriptedEcs) -> None:
    """The last tasks of a service that was deleted are gone."""
    assert ecs.service is not None
    ecs.service["status"] = "INACTIVE"


def task_of(deployment: dict[str, Any], status: str, *, digest: str = "", **container: Any) -> dict[str, Any]:
    """Return a task of a deployment."""
    shown = {"name": "answer", "image": "any", "lastStatus": status, **({"imageDigest": digest} if digest else {}), **container}
    stopped = {"stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited"}
    return {
        "taskArn": f"{_ARN}:task/embedded/{deployment['id'].rpartition('/')[2]}{status.lower()}",
        "taskDefinitionArn": deployment["taskDefinition"],
        "startedBy": deployment["id"],
        "lastStatus": status,
        "desiredStatus": status,
        "containers": [shown],
        **(stopped if status == "STOPPED" else {}),
    }


def client(url: str, *, embedded: bool = True, poll: float = 0.01) -> Ecs:
    """Return our own client of an endpoint: as one of the embedded service, or as one of ECS."""
    aws = Aws(region="us-east-1", endpoints={"*": url}, anonymous=embedded)
    return Ecs(aws, cluster="embedded", embedded=url if embedded else "", poll=poll)


@contextmanager
def scripted() -> Iterator[ScriptedEcs]:
    """Yield an endpoint that listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = ScriptedEcs(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def state(self) -> ScriptedEcs:
        return self.server.state  # type: ignore[attr-defined,no-any-return]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        target = self.headers.get("X-Amz-Target")
        if target is None:
            self._send(*self.state.answers.get(self.path, (404, {})))
            return
        answer = self.state.act(target.rpartition(".")[2], body)
        if isinstance(answer, Refusal):
            self._send(answer.status, {"__type": answer.kind, "message": answer.message})
        else:
            self._send(200, answer)

    def do_GET(self) -> None:
        if self.path.startswith("/_embedded/services/"):
            self._send(*((200, {"url": self.state.url}) if self.state.service else (404, {})))
        elif self.path.startswith("/_embedded/tasks/"):
            self._send(200, self.state.task_log)
        else:
            self._send(*self.state.answers.get(self.path, (404, {})))

    def _send(self, status: int, document: Any) -> None:
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
