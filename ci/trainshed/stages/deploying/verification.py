"""Verify first: all that a deployment needs is looked at before anything is touched, and every problem is told at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from trainshed.console import counted
from trainshed.errors import RemoteError, UsageError, problems
from trainshed.images import references
from trainshed.pipelines.lock import LockedImage
from trainshed.services import spec
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.stages import accounts
from trainshed.stages.auditing import statements
from trainshed.stages.context import Context
from trainshed.tools.aws import Aws, Identity, Refused
from trainshed.tools.balancers import Balancers, TargetGroup
from trainshed.tools.cloudwatch import CloudWatch
from trainshed.tools.iam import Iam
from trainshed.tools.networks import Networks
from trainshed.tools.secret_store import SecretStore

_TASKS = "ecs-tasks.amazonaws.com"
_NEXT = "Mend all that is named, then run it again; nothing was touched."
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}
"""Architectures as ``service.yaml`` calls them, and as images do."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found out on the way: each secret as a task definition refers to it, and what could not be verified, in words."""

    secrets: Mapping[str, str]
    notes: tuple[str, ...]


def verify(context: Context, service: Service, image: LockedImage, *, model: Model | None) -> Verified:
    """Look at everything that a service needs; change nothing.

    What we may not ask becomes a note. Secrets and image are read as the execution role where it may be assumed; a secret's value is
    not kept.

    Raises:
        UsageError: with all problems, a line each, with the key of ``service.yaml`` or of the environment, and what to do.
        RemoteError: something could not be asked, and nothing else is known to be wrong.
    """
    room = _Room(context=context, service=service)
    if context.prediction.embedded:
        _cluster(room)
        _image(room, image)
        _secrets(room, context.prediction.aws, None)
    else:
        _on_aws(room, image, model)
    return room.ended()


@dataclass(kw_only=True)
class _Room:
    """One verification: what it is about, and what it found so far."""

    context: Context
    service: Service
    identity: Identity | None = None
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[RemoteError] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def aws(self) -> Aws:
        return self.context.prediction.aws

    def problem(self, key: str, what: str, step: str) -> None:
        """Note what is wrong with a key of ``service.yaml``."""
        self.found.append(self.service.problem(key, f"{what}. {step}"))

    def elsewhere(self, key: str, what: str, step: str) -> None:
        """Note what is wrong with a key of the environment."""
        config = self.context.config
        self.found.append(f"{config.file}: environments.{config.environment.name}.{key}: {what}. {step}")

    def unknown(self, key: str, refusal: Refused) -> None:
        """Note what may not be asked."""
        self.notes.append(f"{self.service.name}: {key} is not verified, AWS does not let us ask: {refusal.said or refusal.code}")

    @contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """Look at one key: what goes wrong hides none of the others."""
        try:
            yield
        except Refused as refusal:
            if refusal.denied:
                self.unknown(key, refusal)
            else:
                self.problem(key, refusal.message, refusal.next_step)
        except UsageError as error:
            self.problem(key, error.message, error.next_step)
        except RemoteError as error:
            self.lost.append(error)

    def ended(self) -> Verified:
        """Raise what was found, or return what was learned."""
        unasked = [error.message for error in self.lost]
        if self.found:
            raise problems(dict.fromkeys([*self.found, *unasked]), next_step=_NEXT)
        if self.lost:
            raise RemoteError("\n".join(dict.fromkeys(unasked)), next_step=self.lost[0].next_step)
        return Verified(secrets=self.secrets, notes=tuple(dict.fromkeys(self.notes)))


def _on_aws(room: _Room, image: LockedImage, model: Model | None) -> None:
    service = room.service
    room.identity = room.aws.identity()  # which needs no permission: without an answer the credentials are wrong, and all else is
    if what := accounts.mismatch(room.context.config, room.identity):
        room.elsewhere(accounts.KEY, what, accounts.STEP)
    _cluster(room)
    room.found += spec.fargate_problems(service)
    if service.golden is not None and not service.address:
        room.problem("load-balancer.address", "is missing", "It is needed to check the golden predictions.")
    execution = _role(room, "roles.execution", service.execution_role)
    _role(room, "roles.task", service.task_role)
    if model is not None and model.uri.startswith("s3://") and not service.task_role:
        room.notes.append(f"{service.name}: roles.task is not set: the service reads {model.uri} only if everybody may")
    assumed = _assumed(room, execution)
    _image(room, image)
    _pullable(room, image, assumed)
    _secrets(room, room.aws, assumed)
    if service.log_group:
        with room.asking("logs.group"):
            if not CloudWatch(room.aws).has_log_group(service.log_group):
                room.problem(
                    "logs.group", f"there is no log group '{service.log_group}' in {room.aws.region}", "Create it, or mend the key."
                )
    _balancer(room, _network(room))
    _alarms(room)


def _cluster(room: _Room) -> None:
    try:
        room.context.prediction.check_cluster()
    except Refused as refusal:
        if not refusal.denied:
            room.elsewhere("prediction-service.cluster", refusal.message, refusal.next_step)
        else:
            room.unknown("prediction-service.cluster", refusal)
    except UsageError as error:
        room.elsewhere("prediction-service.cluster", error.message, error.next_step)
    except RemoteError as error:
        room.lost.append(error)


def _role(room: _Room, key: str, name: str) -> str:
    """Check that a role exists and that tasks may assume it; return its ARN, empty when it is not known."""
    if not name:
        return ""
    known = name if name.startswith("arn:") else ""
    with room.asking(key):
        role = Iam(room.aws).role(name)
        known = role.arn if role is not None else ""
        if role is None:
            room.problem(key, f"there is no role '{name}' in account {_account_of(room)}", "Create it, or mend the key.")
        elif not statements.trusts(role.trust, _TASKS):
            room.problem(key, f"role '{role.name}' does not trust {_TASKS}", "Allow it sts:AssumeRole in the role's trust policy.")
    return known


def _account_of(room: _Room) -> str:
    return room.identity.account if room.identity is not None else ""


def _assumed(room: _Room, role: str) -> Aws | None:
    """Become the execution role, where we may: what it can read is what counts."""
    if not role:
        return None
    asking = room.aws.assuming(role)
    try:
        asking.identity()
    except Refused as refusal:
        who = room.identity.arn if room.identity is not None else "us"
        room.notes.append(
            f"{room.service.name}: roles.execution may not be assumed ({refusal.code}): "
            f"what it may read is not verified; image and secrets were looked at as {who}"
        )
        return None
    except RemoteError as error:
        room.lost.append(error)
        return None
    return asking


def _image(room: _Room, image: LockedImage) -> None:
    """Check that the registry has the locked image, for the machines that it shall run on."""
    try:
        registry = room.context.registry
        if registry.digest(image.reference) != image.digest:
            room.found.append(f"{room.service.name}: {image.reference} is not in the registry. Run `trainshed images` again.")
            return
        if room.context.prediction.embedded:  # which runs what this machine runs
            return
        wanted = _MACHINES.get(room.service.architecture, room.service.architecture)
        document = json.loads(registry.manifest(image.reference)[0])
        if "manifests" in document:
            platforms = [entry.get("platform") or {} for entry in document["manifests"]]
        else:
            platforms = [json.loads(registry.config(image.reference))]
        kinds = sorted({f"{one.get('os', 'linux')}/{one['architecture']}" for one in platforms if one.get("architecture")})
        if kinds and f"linux/{wanted}" not in kinds:
            what = f"linux/{wanted} is asked for, and {image.reference} is for {', '.join(kinds)}"
            room.problem("architecture", what, "Mend it, or build.platforms.")
    except UsageError as error:
        room.found.append(f"{room.service.name}: {error.told}")
    except RemoteError as error:
        room.lost.append(error)


def _pullable(room: _Room, image: LockedImage, assumed: Aws | None) -> None:
    """Ask ECR for the image as the execution role, which will have to pull it."""
    ecr = room.context.ecr
    if ecr is not None and not room.service.execution_role:
        room.problem("roles.execution", "is needed to pull from ECR", "Name a role that may.")
    if ecr is None or assumed is None:
        return
    asked = {
        "registryId": ecr.account,
        "repositoryName": references.parse(image.reference).path,
        "imageIds": [{"imageDigest": image.digest}],
    }
    step = "Allow it ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer."
    with room.asking("roles.execution"):
        try:
            near = assumed.elsewhere(ecr.aws.region)
            near.call("ecr", "get_authorization_token")
            near.call("ecr", "batch_get_image", **asked)
        except Refused as refusal:
            if not refusal.denied:
                raise
            room.problem("roles.execution", f"it may not pull {image.reference}: {refusal.said or refusal.code}", step)


def _secrets(room: _Room, aws: Aws, assumed: Aws | None) -> None:
    for variable, reference in room.service.secrets.items():
        key = f"secrets.{variable}"
        with room.asking(key):
            try:
                room.secrets[variable] = SecretStore(assumed or aws).read(reference)
            except Refused as refusal:
                if not refusal.denied:
                    raise
                if assumed is not None:
                    step = "Allow it to read the secret, and to decrypt with its key."
                    room.problem(key, f"the execution role may not read '{reference}': {refusal.said or refusal.code}", step)
                    continue
                _unread(room, aws, variable, reference)


def _unread(room: _Room, aws: Aws, variable: str, reference: str) -> None:
    """Find at least the ARN of a secret that neither we nor the role, as far as we know, can read."""
    key = f"secrets.{variable}"
    try:
        room.secrets[variable] = SecretStore(aws).look_up(reference)
    except Refused as refusal:
        if not refusal.denied:
            raise
        room.problem(key, f"'{reference}' may neither be read nor looked up: {refusal.said or refusal.code}", "Give the secret's ARN.")
    else:
        room.notes.append(f"{room.service.name}: {key} is not verified: we may not read it, nor become the execution role")


def _network(room: _Room) -> str:
    """Check subnets and security groups; return their VPC, empty where it is not known."""
    service, networks, vpc = room.service, Networks(room.aws), ""
    with room.asking("network.subnets"):
        subnets = networks.subnets(service.subnets)
        _require(room, "network.subnets", "subnet", service.subnets, subnets)
        vpcs = sorted(set(subnets.values()))
        if len(vpcs) > 1:
            shown = ", ".join(f"{name} in {place}" for name, place in sorted(subnets.items()))
            room.problem("network.subnets", f"they lie in several networks: {shown}", "Name subnets of one VPC.")
        vpc = vpcs[0] if len(vpcs) == 1 else ""
    with room.asking("network.security-groups"):
        groups = networks.security_groups(service.security_groups)
        _require(room, "network.security-groups", "security group", service.security_groups, groups)
        for name, place in sorted(groups.items()):
            if vpc and place != vpc:
                step = "Name one of the subnets' VPC."
                room.problem("network.security-groups", f"{name} is of {place}, and the subnets are in {vpc}", step)
    return vpc


def _require(room: _Room, key: str, what: str, wanted: tuple[str, ...], found: Mapping[str, str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        room.problem(key, f"there is no {what} {', '.join(missing)} in {room.aws.region}", "Create it, or mend the key.")


def _balancer(room: _Room, vpc: str) -> None:
    arn, key = room.service.target_group, "load-balancer.target-group"
    if not arn:
        return
    with room.asking(key):
        group = Balancers(room.aws).target_group(arn)
        if group is None:
            room.problem(key, f"there is no target group {arn}", "Create it, or mend the key.")
            return
        for what, step in _misfits(room.service, group, vpc):
            room.problem(key, what, step)
        if group.port != room.service.port:  # which a registration overrides
            room.notes.append(
                f"{room.service.name}: the target group's own port is {group.port}; ECS registers tasks with {room.service.port}"
            )
        if group.health_path and group.health_path != room.service.health.path:
            paths = f"{group.health_path} for health, the container's own check {room.service.health.path}"
            room.notes.append(f"{room.service.name}: the load balancer asks {paths}")


def _misfits(service: Service, group: TargetGroup, vpc: str) -> Iterator[tuple[str, str]]:
    """Say why a target group cannot take the tasks of a service, and what to do."""
    if group.target_type != "ip":
        yield f"its targets are of type '{group.target_type}'; a task on Fargate has an address of its own", "Make one of type ip."
    if vpc and group.vpc and group.vpc != vpc:
        yield f"it is of {group.vpc}, and the subnets are in {vpc}", "Name a target group of the subnets' VPC."
    if service.balancer and group.balancers and service.balancer not in group.balancers:
        yield f"it is not behind load-balancer.arn, but behind {', '.join(group.balancers)}", "Mend one of both."
    if not group.balancers:
        yield "no load balancer sends it requests, and ECS refuses it so", "Give it a listener or a rule."
    if group.health_port not in {"traffic-port", str(service.port)}:
        yield f"its health check asks port {group.health_port}, and the service listens on {service.port}", "Let it ask traffic-port."


def _alarms(room: _Room) -> None:
    names, key = room.service.deployment.alarms, "deployment.alarms"
    if not names:
        return
    with room.asking(key):
        states = CloudWatch(room.aws).alarms(names)
        missing = [name for name in names if name not in states]
        if missing:
            room.problem(key, f"{counted(missing, 'alarm')} missing: {', '.join(missing)}", "Create them, or mend the key.")
        ringing = [name for name, state in states.items() if state == "ALARM"]
        if ringing:  # the deployment may be what mends it, or goes back from what rings
            said = f"in state ALARM already: {', '.join(ringing)}; ECS heeds no alarm during this deployment"
            room.notes.append(f"{room.service.name}: {key}: {said}")
