"""An environment like production on loopback: one gateway for all of AWS, behind it the embedded Prediction Service and moto.

The gateway counts what reaches ECS, can cut the network, and can do something at a certain request, also lose or change it; at
``/front/NAME/…`` it has the service's own address, which is known before the service is.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.prediction import Running, ask, until
from tests.support.sample_project import Done, docker
from trainshed import cli, config
from trainshed.console import Console
from trainshed.ledger.store import Ledger
from trainshed.pipelines import lock as locks
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.tools import process

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing"}
EMBEDDED = ("AmazonEC2ContainerServiceV20141113", "Logs_20140328", "secretsmanager")
CHANGING = ("CreateService", "UpdateService")
CLUSTER, POLL = "default", 0.2
_OWN = frozenset({"connection", "transfer-encoding", "content-length"})
_DOCKERFILE = """FROM {base}
ENV IMAGE={number} {switches}
COPY program.py /program.py
CMD ["python3", "/program.py"]
"""
# Switches: EXIT (code), SICK, START_SECONDS, HOG (memory), FACTOR (2 is right).
_PROGRAM = """
import http.server, json, os, signal, sys, time
given = os.environ.get
print("starting image", given("IMAGE"), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if given("EXIT"):
    print("no model to serve", flush=True)
    sys.exit(int(given("EXIT")))
if given("HOG"):
    held = []
    while True:
        held.append(bytearray(b"x" * 2 ** 25))
time.sleep(float(given("START_SECONDS", "0")))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def log_message(self, *_): pass
    def do_GET(self):
        self.answer({}, 500 if self.path == "/healthz" and given("SICK") else 200)
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"twice": int(given("FACTOR", "2")) * body["x"]})
    def answer(self, more, status=200):
        told = {name.lower(): given(name) for name in ("IMAGE", "VERSION", "MODEL_URI", "TOKEN") if given(name)}
        text = json.dumps({**told, **more}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
Server(("0.0.0.0", 8080), Handler).serve_forever()
"""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
GOLDEN = {"requests": [{"name": "twice", "path": "/predict", "body": {"x": 21}, "answer": {"twice": 42}}]}


class Images:
    """Images of one program, made when first asked for: one for each number and its switches."""

    def __init__(self, engine: str, repository: str, base: str, folder: Path) -> None:
        self.engine, self.repository, self.base, self.folder = engine, repository, base, folder
        self._made: dict[tuple[str, ...], str] = {}

    def reference(self, number: int, **switches: str) -> str:
        """Return ``repository@sha256:…`` of an image in the registry."""
        key = (str(number), *(f"{name}={value}" for name, value in sorted(switches.items())))
        if key not in self._made:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "program.py").write_text(_PROGRAM)
            (self.folder / "Dockerfile").write_text(_DOCKERFILE.format(base=self.base, number=number, switches=" ".join(key[1:])))
            tag = f"{self.repository}:{'-'.join(key).replace('=', '.').lower()}"
            docker(self.engine, "build", "-q", "-t", tag, str(self.folder))
            docker(self.engine, "push", "-q", tag)
            known = json.loads(docker(self.engine, "inspect", "-f", "{{json .RepoDigests}}", tag))
            self._made[key] = next(one for one in known if one.startswith(f"{self.repository}@"))
        return self._made[key]


@dataclass
class Trap:
    """What is done once, at the next request of an action: before it is sent on, or after it was answered and before that is told.

    ``lost``: nobody hears of it: a request is not sent on, an answer not told.
    """

    action: str
    do: Callable[[], object]
    after: bool = False
    lost: bool = False


@dataclass
class Gateway:
    """The one address of AWS.

    ``furniture`` is what services stand on; ``requests`` are those that reached ECS, in their order; ``changed`` puts other words
    into its ears, by action.
    """

    upstream: str
    others: str
    url: str = ""
    furniture: Mapping[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    traps: list[Trap] = field(default_factory=list)
    changed: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    away: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Forget what was asked, and take traps and cuts away."""
        with self.lock:
            self.requests.clear()
            self.traps.clear()
            self.changed.clear()
        self.away.clear()

    def changes(self) -> list[str]:
        """Return the calls that made or changed a service, in their order."""
        return [action for action, _ in self.asked() if action in CHANGING]

    def asked(self, action: str = "") -> list[tuple[str, dict[str, Any]]]:
        """Return what was asked, of one action or of all."""
        with self.lock:
            return [one for one in self.requests if action in {"", one[0]}]

    def sprung(self, action: str, *, after: bool) -> bool:
        """Do what is to be done at a request, once; tell whether it goes no further."""
        with self.lock:
            found = [trap for trap in self.traps if (trap.action, trap.after) == (action, after)]
            self.traps = [trap for trap in self.traps if trap not in found]
        for trap in found:
            trap.do()
        return self.away.is_set() or any(trap.lost for trap in found)

    def heard(self, action: str, body: bytes) -> bytes:
        """Keep a request that reaches ECS; return it as ECS hears it."""
        document = json.loads(body or b"{}")
        with self.lock:
            self.requests.append((action, document))
            change = self.changed.get(action)
        return json.dumps(change(document)).encode() if change is not None else body


@contextlib.contextmanager
def gateway(upstream: str, others: str) -> Iterator[Gateway]:
    """Yield a gateway before the Prediction Service at ``upstream``, and moto at ``others``."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.gateway = Gateway(upstream=upstream, others=others, url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        server.gateway.furniture = furnished(others)
        yield server.gateway
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    gateway: Gateway

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: tests kill and cut clients."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        door = self.server.gateway
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service, _, action = self.headers.get("X-Amz-Target", "").rpartition(".")
        if self.path.startswith("/front/"):
            name, _, rest = self.path.removeprefix("/front/").partition("/")
            self._forward(_front(door.upstream, name), f"/{rest}", body)
            return
        ecs = action if service == EMBEDDED[0] else ""
        if door.sprung(ecs, after=False):
            self.close_connection = True
            return
        target = door.upstream if service in EMBEDDED else door.others
        self._forward(target, self.path, door.heard(ecs, body) if ecs else body, ecs)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

    def _forward(self, target: str, path: str, body: bytes, action: str = "") -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(target).netloc, timeout=120)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
            connection.request(self.command, path, body=body or None, headers=kept)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        finally:
            connection.close()
        if self.server.gateway.sprung(action, after=True):
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {*_OWN, "date", "server"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()


def _front(upstream: str, name: str) -> str:
    status, body = ask(urllib.parse.urlsplit(upstream).netloc, "GET", f"/_embedded/services/{name}")
    return str(json.loads(body)["url"]) if status == http.HTTPStatus.OK else "http://127.0.0.1:1"


def client(service: str, url: str) -> Any:
    """Return boto3's client of a service at an address."""
    import boto3

    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    keys = dict(zip(names, CREDENTIALS.values(), strict=True))
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **keys)  # type: ignore[call-overload]


def furnished(url: str) -> dict[str, Any]:
    """Make in moto what a service stands on: roles that ECS may take, and a network; return it as service.yaml has it."""
    iam, ec2 = client("iam", url), client("ec2", url)
    roles = {}
    for kind in ("execution", "task"):
        made = iam.create_role(RoleName=f"prediction-{kind}", AssumeRolePolicyDocument=json.dumps(TRUST))
        roles[kind] = made["Role"]["Arn"]
    subnet = ec2.describe_subnets()["Subnets"][0]
    group = ec2.create_security_group(GroupName="prediction", Description="tasks", VpcId=subnet["VpcId"])
    network = {"subnets": [subnet["SubnetId"]], "security-groups": [group["GroupId"]]}
    return {"roles": roles, "network": network}


class World:
    """One project with one service, deployed to that environment by the real command."""

    def __init__(self, root: Path, *, name: str, images: Images, server: Running, door: Gateway) -> None:
        self.root, self.name, self.images, self.server, self.gateway = root, name, images, server, door
        self.document: dict[str, Any] = {
            "name": name,
            "port": 8080,
            "cpu": 256,
            "memory": 512,
            "count": 1,
            "health": {"path": "/healthz", "interval": "5s", "timeout": "2s", "retries": 10, "start": "120s"},
            "environment": {"VERSION": "1"},
            "load-balancer": {"address": f"{door.url}/front/{name}"},
            **door.furniture,
        }
        registry = images.repository.partition("/")[0]
        self.write("trainshed.toml", _CONFIGURATION.format(registry=registry, url=door.url))
        self.write("components/answer/Dockerfile", "FROM scratch\nCOPY main.py /\n")
        self.write("components/answer/.dockerignore", "service.yaml\ngolden.json\n")
        self.write("components/answer/main.py", "")
        self.write("components/answer/golden.json", json.dumps(GOLDEN))
        self.service()
        self.lock(1)

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def service(self, **changes: Any) -> None:
        """Change the service; None takes a key away."""
        self.document = {key: value for key, value in {**self.document, **changes}.items() if value is not None}
        self.write("components/answer/service.yaml", json.dumps(self.document, indent=1))  # JSON is YAML

    def lock(self, number: int, **switches: str) -> str:
        """Lock an image of the program; return its digest."""
        return self.lock_reference(self.images.reference(number, **switches))

    def lock_reference(self, reference: str) -> str:
        """Lock any image; return its digest."""
        digest = reference.partition("@")[2]
        image = locks.LockedImage(reference=reference, digest=digest, input_digest=digest)
        with self.context() as context:
            plan = survey(context, ["answer"]).plan_digest()
            lock = locks.of(project="small", commit=None, dirty=False, plan_digest=plan, images={"answer": image})
            locks.write(locking.path(context), lock)
        return digest

    @contextlib.contextmanager
    def context(self) -> Iterator[Context]:
        """Yield the room of a command in this project."""
        loaded = config.load(self.root / "trainshed.toml", environment="prod")
        context = Context(config=loaded, console=Console(io.StringIO(), root=self.root), tier=Tier.LAPTOP)
        with contextlib.closing(context):
            yield context

    def run(self, *words: str) -> Done:
        """Run a command in this process, as the shell would."""
        out, told = io.StringIO(), io.StringIO()
        process.stopping.clear()
        with contextlib.chdir(self.root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            code = cli.main(["--env", "prod", "--json", *words])
        return Done(code=code, document=json.loads(out.getvalue()) if out.getvalue().strip() else None, told=told.getvalue())

    def deploy(self, *words: str) -> Done:
        """Run ``trainshed deploy answer``, with a deadline that only a mistake reaches."""
        return self.run("deploy", "answer", *([] if "--deadline" in words else ["--deadline", "4m"]), *words)

    def green(self, *words: str) -> dict[str, Any]:
        """Deploy what must succeed; return its result."""
        done = self.deploy(*words)
        assert done.code == 0, done.told + json.dumps(done.document, indent=1)
        return self.result(done)

    @staticmethod
    def result(done: Done) -> dict[str, Any]:
        """Return the one result of a command."""
        assert done.document is not None, done.told
        assert done.document["results"], done.told
        return dict(done.document["results"][0])

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        lines = ("import sys", "from trainshed import cli", "from trainshed.tools import ecs", f"ecs._POLL_ECS = {POLL}")
        program = "\n".join([*lines, "sys.exit(cli.main(sys.argv[1:]))"])
        return subprocess.Popen(
            [sys.executable, "-c", program, "--env", "prod", "--json", *words],
            cwd=self.root,
            env=os.environ.copy(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def answer(self, path: str = "/") -> dict[str, Any]:
        """Ask the service at its own address."""
        status, body = ask(self.address, "GET", path)
        assert status == http.HTTPStatus.OK, body
        return dict(json.loads(body))

    @property
    def address(self) -> str:
        """Return ``HOST:PORT`` of the service's front."""
        return self.server.address(self.name)

    def serves(self) -> tuple[str, str]:
        """Return the number of the image and the version that answer."""
        told = self.answer()
        return told["image"], told["version"]

    def state(self) -> dict[str, Any]:
        """Return the service as the Prediction Service has it now, past the gateway."""
        found = self.server.client().describe_services(cluster=CLUSTER, services=[self.name])["services"]
        return dict(found[0]) if found else {}

    def tasks(self, status: str = "RUNNING") -> list[dict[str, Any]]:
        """Return the service's tasks that shall run, or that shall not."""
        ecs = self.server.client()
        arns = ecs.list_tasks(cluster=CLUSTER, serviceName=self.name, desiredStatus=status)["taskArns"]  # type: ignore[arg-type]
        return [dict(task) for task in ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]] if arns else []

    def rollouts(self) -> list[str]:
        """Return how the service's deployments stand, all that ECS ever began, the newest first."""
        found = self.server.client().list_service_deployments(cluster=CLUSTER, service=self.name)["serviceDeployments"]
        return [one["status"] for one in found]

    def settled(self) -> dict[str, Any]:
        """Return the service once what it works towards is complete, and nothing else of it runs."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update(self.state())
            primary, *others = sorted(seen["deployments"], key=lambda one: str(one["status"]) != "PRIMARY")
            return primary["rolloutState"] == "COMPLETED" and not any(one["runningCount"] for one in others)

        until(look, f"a complete deployment of {self.name}")
        return seen

    def scalable(self) -> None:
        """Tell moto's ECS of the service: its Application Auto Scaling takes no other."""
        ecs = client("ecs", self.gateway.others)
        ecs.create_cluster(clusterName=CLUSTER)
        ecs.register_task_definition(family=self.name, containerDefinitions=[{"name": "any", "image": "any", "memory": 64}])
        ecs.create_service(cluster=CLUSTER, serviceName=self.name, taskDefinition=self.name, desiredCount=0)

    def active(self, revision: str) -> bool:
        """Tell whether a revision is registered."""
        found = self.server.client().describe_task_definition(taskDefinition=revision)["taskDefinition"]
        return found["status"] == "ACTIVE"

    def faults(self, *wanted: Mapping[str, Any]) -> None:
        """Have the Prediction Service fail so from now on; none takes all faults away."""
        self.server.faults(*wanted)

    def struck(self) -> list[dict[str, Any]]:
        """Return the faults that are on, with how often each was ``taken``."""
        status, body = ask(self.server.url.removeprefix("http://"), "GET", "/_embedded/faults")
        assert status == http.HTTPStatus.OK, body
        found: list[dict[str, Any]] = json.loads(body)
        return found

    def ledger(self) -> list[tuple[str, str]]:
        """Return the revisions and states that the ledger has of the service, the newest first."""
        with contextlib.closing(Ledger.open(f"sqlite:///{self.root}/.trainshed/ledger.sqlite", tier=Tier.LAPTOP)) as ledger:
            events = ledger.events("deployment", "prod", self.name)
        return [(event.key, str(event.document.get("state"))) for event in events]

    def end(self) -> None:
        """Take the service away, and wait until nothing of it runs."""
        self.gateway.reset()
        if self.state().get("status") == "ACTIVE":
            self.server.client().delete_service(cluster=CLUSTER, service=self.name, force=True)
        until(lambda: self.state().get("status") in {"INACTIVE", None}, f"the end of {self.name}")


_CONFIGURATION = """[project]
name = "small"

[environments.prod]
registry = {{ url = "{registry}", insecure = true }}
prediction-service = {{ cluster = "default", endpoint-url = "{url}" }}
aws = {{ endpoint-url = "{url}" }}
"""
