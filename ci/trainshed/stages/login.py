"""``trainshed login``: who we are for the environment's Kubeflow, until when, and whether it lets us in."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from trainshed import settings
from trainshed.console import spoken
from trainshed.errors import TrainshedError
from trainshed.results import Report, Result, Status, failed
from trainshed.stages.context import Context

if TYPE_CHECKING:
    from trainshed.tools.kubeflow import KubeflowClient
    from trainshed.tools.kubeflow_identity import Account, Identity
    from trainshed.values import Auth

STAGE = "login"
SOON_SECONDS = 86_400.0
_UNSAID = "the server does not say"


@dataclass
class Findings:
    """What was found out so far, for people and as the details of the result; an error keeps what stands before it."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, what: str, text: str, **details: Any) -> None:  # noqa: ANN401 - any JSON value
        """Note one thing."""
        self.rows.append((what, text))
        self.details.update(details)


def login(context: Context) -> Report:
    """Tell who the credential and the server say that we are, until when, and whether the server accepts it; change nothing."""
    name, found = context.config.environment.name, Findings()
    try:
        _look(context, found)
    except TrainshedError as error:
        result = failed(name, STAGE, error)
    else:
        result = Result(name=name, stage=STAGE, status=Status.DONE, cause=found.details["told"])
    details = {**found.details, "warnings": found.warnings}
    result = Result(**{**vars(result), "details": details})
    if found.rows:
        context.console.table(f"login to Kubeflow, environment {name}", ("what", "finding"), found.rows)
    for warning in found.warnings:
        context.console.warning(warning)
    context.console.end(result)
    return Report(stage=STAGE, results=(result,))


def _look(context: Context, found: Findings) -> None:
    wanted = context.config.environment.kubeflow
    if wanted.host is None:
        found.add("server", "embedded: it has one user, and asks for no login", host="embedded", kind="none", told="embedded, no login")
        return
    found.add("server", wanted.host, host=wanted.host, kind=wanted.auth.kind)
    client = context.kubeflow
    identity = client.login.identity()
    _credential(identity, wanted.auth, found)
    found.warnings += [*identity.warnings, *soon(identity)]
    found.warnings += client.require_ready(sdk=f"kfp-{metadata.version('kfp')}")
    account = client.account()
    _server(client, account, wanted.auth, found)
    user = account.user or identity.user
    found.details["told"] = f"{who(user, wanted.auth) if user else 'nothing names the user'}, {end_of(identity)}"


def _credential(identity: Identity, auth: Auth, found: Findings) -> None:
    if auth.kind == "none":
        found.add("credential", "none is configured", user="", user_from="", until=None)
        return
    user = f"{who(identity.user, auth)} ({identity.source})" if identity.user else f"{auth.kind}, which names nobody"
    until = None if identity.until is None else identity.until.isoformat()
    found.add("credential", user, user=identity.user, user_from=identity.source)
    found.add("valid", end_of(identity), until=until, audience=list(identity.audience), renews=identity.renews)


def _server(client: KubeflowClient, account: Account, auth: Auth, found: Findings) -> None:
    server, space = client.server(), client.namespace
    user = f"{who(account.user, auth)} ({account.source})" if account.user else _UNSAID
    found.add("user", user, server_user=account.user, server_from=account.source)
    found.add("version", server.version or _UNSAID, version=server.version)
    found.add("users", "many, in namespaces" if server.multi_user else "one", multi_user=server.multi_user)
    if space:
        role = account.namespaces.get(space, "")
        found.add("namespace", f"{space} ({role})" if role else space, namespace=space, role=role)
        if account.namespaces and not role:
            shown = ", ".join(sorted(account.namespaces))
            found.warnings.append(f"{account.source} does not count namespace {space} among yours: {shown}")
    found.add("accepted", "yes, experiments can be listed", accepted=True)


def who(user: str, auth: Auth) -> str:
    """Name a user; one that is masked, because a variable holds it in confidence, by the variable."""
    return f"the user in {auth.value_env}" if auth.value_env and user == (settings.variable(auth.value_env) or "").strip() else user


def end_of(identity: Identity) -> str:
    """Tell when a login ends, and what then."""
    from trainshed.tools.kubeflow_identity import seconds_left, shown

    end = f"{_UNSAID} until when"
    if identity.until is not None:
        end = f"until {shown(identity.until)}, {spoken(max(0.0, seconds_left(identity.until)))} from now"
    return f"{end}, then renewed by itself" if identity.renews else end


def soon(identity: Identity) -> list[str]:
    """Warn of a login that ends within a day, and that nobody renews."""
    from trainshed.tools.kubeflow_identity import seconds_left

    if identity.renews or identity.until is None or seconds_left(identity.until) >= SOON_SECONDS:
        return []
    return [f"the login ends soon: {end_of(identity)}"]
