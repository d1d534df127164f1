"""Checks of the services that the environment names; embedded ones are told, not started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainshed.findings.ecr import BASIC
from trainshed.stages import accounts, login
from trainshed.stages.doctoring.finding import Finding
from trainshed.stages.doctoring.machine import registry_program

if TYPE_CHECKING:
    from trainshed.stages.context import Context


def registry(context: Context) -> Finding:
    """Check that the registry and the mirrors of others answer, and let us in."""
    wanted = context.config.environment.registry
    places = [*([wanted.url] if wanted is not None else []), *context.config.mirrors.values()]
    hosts = list(dict.fromkeys(place.partition("/")[0] for place in places))
    for host in hosts:
        context.registry.ping(host)
    found = [registry_program(context).text] if wanted is None else []
    return Finding(text=", ".join([*found, *(f"{host} answers" for host in hosts)]))


def aws(context: Context) -> Finding:
    """Check that the credentials are good, may take `aws.role`, and are of `aws.account`; say whose they are."""
    environment = context.config.environment
    wanted, registry = environment.aws, environment.registry
    used = (registry is not None and registry.ecr is not None) or environment.prediction_service.cluster is not None
    if not used and not any((wanted.account, wanted.role, wanted.endpoint_url, environment.audit.buckets, environment.audit.roles)):
        return Finding(text="not used")
    found = accounts.asking(context)
    return Finding(text=f"account {found.account}, as {found.arn}")


def scan_sources(context: Context) -> Finding:
    """Say whose findings a scan asks for, and whose answer it needs; of ECR which kind of scan, where we may know it."""
    from trainshed.stages.checks import sources
    from trainshed.stages.checks.scanners import Scanners

    config = context.config
    asked, needed = sources.asked(config), sources.required(config)
    kind, ecr = "", Scanners(context).ecr
    if ecr is not None:
        expected = ecr.expected()
        kind = f"; ECR makes {'basic' if expected == BASIC else 'enhanced'} scans" if expected else ""
    spared = [source for source in asked if source not in needed]
    note = f"; the answer of {', '.join(spared)} is not needed" if spared else ""
    return Finding(text=f"{', '.join(asked)}{note}{kind}")


def kubeflow(context: Context) -> Finding:
    """Check that Kubeflow answers and lets us in; say its version, who we are, and when the login ends."""
    wanted = context.config.environment.kubeflow
    if wanted.host is None:
        return _embedded(context, "kubeflow")
    client = context.kubeflow
    identity = client.login.identity()
    warnings = [*identity.warnings, *login.soon(identity), *client.require_ready()]
    version = client.server().version or "a version that it does not tell"
    who = f", as {login.who(identity.user, wanted.auth)}" if identity.user else ""
    end = "" if wanted.auth.kind == "none" else f", {login.end_of(identity)}"
    return Finding(text=f"{wanted.host} answers, Kubeflow Pipelines {version}{who}{end}", warning="; ".join(warnings))


def prediction_service(context: Context) -> Finding:
    """Check that the cluster is there."""
    wanted = context.config.environment.prediction_service
    if wanted.cluster is None:
        return _embedded(context, "prediction")
    context.prediction.check_cluster()
    return Finding(text=f"cluster {wanted.cluster} in {wanted.region} is active")


def _embedded(context: Context, name: str) -> Finding:
    found = next(one for one in context.embedded.status() if one.name == name)
    return Finding(text=f"embedded, {found.address}" if found.state == "running" else "embedded, started when needed")
