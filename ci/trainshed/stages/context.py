"""What every stage is handed: the configuration, the console, and clients that are opened when first used and closed once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from trainshed import owner, settings, values
from trainshed.errors import problems
from trainshed.images import references as image

if TYPE_CHECKING:
    from trainshed.config import Config
    from trainshed.console import Console
    from trainshed.ledger.store import Ledger
    from trainshed.local.services import Embedded
    from trainshed.settings import Tier
    from trainshed.tools.aws import Aws
    from trainshed.tools.builder import BuildClient
    from trainshed.tools.credentials import Login
    from trainshed.tools.docker import Engine
    from trainshed.tools.ecr import Ecr
    from trainshed.tools.ecs import Ecs
    from trainshed.tools.jenkins import Jenkins
    from trainshed.tools.kubeflow import KubeflowClient
    from trainshed.tools.registry import RegistryClient
    from trainshed.values import EcrPlace

T = TypeVar("T")


class opened(cached_property[T]):  # noqa: N801 - used as a decorator
    """A `cached_property` that several threads may ask first: Python 3.12 took the lock out of its own."""

    _lock = RLock()

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        """Open once, whoever comes first."""
        with self._lock:
            return super().__get__(instance, owner)


@dataclass
class Context:
    """One command's room. A property that opens something imports what it needs, so that nobody pays for what is not used.

    ``keeps`` is False in a dry run: the ledger is read, and nothing is kept in it.
    """

    config: Config
    console: Console
    tier: Tier
    keeps: bool = True
    closing: ExitStack = field(default_factory=ExitStack)
    _ecrs: dict[EcrPlace, Ecr] = field(default_factory=dict, repr=False)
    _lock: RLock = field(default_factory=RLock, repr=False)

    @opened
    def ledger(self) -> Ledger:
        """Open the ledger: SQLite under ``.trainshed/`` by default."""
        from trainshed.ledger.store import Ledger

        url = self.config.ledger_url or f"sqlite:///{self._own_ledger}"
        return self.closing.enter_context(Ledger.open(url, tier=self.tier, keeps=self.keeps))

    @property
    def has_ledger(self) -> bool:
        """Tell whether there is a ledger to read; the project's own file is made when the ledger is first opened."""
        return bool(self.config.ledger_url) or self._own_ledger.exists()

    @property
    def _own_ledger(self) -> Path:
        return self.config.project.state / "ledger.sqlite"

    @opened
    def embedded(self) -> Embedded:
        """Return the embedded services of this project; each is started when its address is first asked for."""
        from trainshed.local.services import Embedded

        return Embedded(self.config.project.state, notify=self.console.line)

    @opened
    def engine(self) -> Engine:
        """Connect to the container engine: the reachable one, else the project's own on its private socket."""
        from trainshed.tools.docker import Engine

        engine = self.closing.enter_context(Engine.connect(self.embedded.engine_host(), login=self.login))
        engine.sweep()  # what killed commands left behind
        return engine

    @opened
    def builder(self) -> BuildClient:
        """Find a client that can build with BuildKit."""
        from trainshed.tools.builder import BuildClient

        return BuildClient.probe(self.config.build.builder, engine_host=self.engine.host)

    @opened
    def repository_prefix(self) -> str:
        """Return ``registry/path/project``: a component's repository is this, a slash and its name."""
        registry = self.config.environment.registry
        address = registry.url if registry is not None else self.embedded.registry_address()
        return f"{address}/{self.config.project.name}"

    @opened
    def registry(self) -> RegistryClient:
        """Return the client of the registries: the environment's own and those of foreign bases."""
        from trainshed.tools.registry import RegistryClient

        registry = self.config.environment.registry
        if registry is None:
            self.embedded.registry_address()  # a lock names it by its address alone, so that nobody else may start it
        insecure = () if registry is None or not registry.insecure else (registry.url.partition("/")[0],)
        return self.closing.enter_context(RegistryClient(insecure=insecure, login=self.login))

    @opened
    def kubeflow(self) -> KubeflowClient:
        """Return the client of the environment's Kubeflow."""
        from trainshed.tools.kubeflow import KubeflowClient

        wanted = self.config.environment.kubeflow
        if wanted.host is None and self.config.environment.registry is None:
            self.embedded.registry_address()  # the tasks' images are pulled from it
        host = wanted.host or self.embedded.kubeflow_address()
        hide = self.console.add_secret
        client = KubeflowClient(
            host, namespace=wanted.namespace, auth=wanted.auth, timeout=wanted.timeout, on_secret=hide, pages=wanted.host is not None
        )
        return self.closing.enter_context(client)

    @opened
    def aws(self) -> Aws:
        """Return AWS in the environment's region, asked as its role."""
        from trainshed.tools.aws import Aws

        wanted, ecs = self.config.environment.aws, self.config.environment.prediction_service.endpoint_url
        endpoints = {name: address for name, address in (("*", wanted.endpoint_url), ("ecs", ecs)) if address}
        return Aws(region=wanted.region, endpoints=endpoints, role=wanted.role)

    @opened
    def ecr(self) -> Ecr | None:
        """Return the registry's side of AWS; None where the environment's registry is not ECR."""
        registry = self.config.environment.registry
        return None if registry is None or registry.ecr is None else self._ecr_of(registry.ecr)

    def login(self, host: str) -> Login | None:
        """Return the log-in for a registry (``host[:port]``), None for none: ECR's own, for others what Docker keeps.

        Raises:
            UsageError: AWS gives no token to these credentials; or Docker's ``config.json`` is broken.
            RemoteError: AWS could not be asked.
            ToolMissing: a credential helper is missing or fails.
        """
        from trainshed.tools import credentials

        return self.token(host) or credentials.lookup(host)

    def token(self, host: str) -> Login | None:
        """Return ECR's log-in for a registry, None where it is not ECR: what clients of Docker's do not find by themselves."""
        registry = self.config.environment.registry
        own = registry.ecr if registry is not None and registry.url.partition("/")[0] == host else None
        place = own or values.ecr_place(host)
        return None if place is None else self._ecr_of(place).login(host)

    def tokens(self, references: Iterable[str]) -> dict[str, Login]:
        """Return ECR's log-ins for what images are pulled from or pushed to, by host."""
        hosts = {image.parse(reference).host for reference in references}
        return {host: login for host in sorted(hosts) if (login := self.token(host)) is not None}

    def _ecr_of(self, place: EcrPlace) -> Ecr:
        """Return the one `Ecr` of a place: it keeps the token."""
        from trainshed.tools.ecr import Ecr

        with self._lock:
            if place not in self._ecrs:
                aws = self.aws.elsewhere(place.region)
                self._ecrs[place] = Ecr(aws, account=place.account, on_secret=self.console.add_secret)
            return self._ecrs[place]

    @opened
    def prediction(self) -> Ecs:
        """Return the client of the environment's Prediction Service."""
        from trainshed.tools.aws import Aws
        from trainshed.tools.ecs import Ecs

        wanted = self.config.environment.prediction_service
        if wanted.cluster is None:
            address = self.embedded.prediction_address()
            return Ecs(Aws(region=wanted.region, endpoints={"*": address}, anonymous=True), cluster="embedded", embedded=address)
        return Ecs(self.aws.elsewhere(wanted.region), cluster=wanted.cluster)

    @opened
    def jenkins(self) -> Jenkins:
        """Return the client of the controller that builds this repository.

        Raises:
            UsageError: none is configured, or user and token do not come together.
        """
        wanted = self.config.jenkins
        missing = [f"jenkins.{key} is not set" for key, value in (("url", wanted.url), ("job", wanted.job)) if not value]
        token = settings.variable(wanted.token_env) or ""
        if token and not wanted.user:
            missing.append(f"jenkins.user is not set: whose token is in {wanted.token_env}?")
        if wanted.user and not token:
            missing.append(f"jenkins.user is set, but {wanted.token_env} holds no API token")
        if wanted.url is None or missing:
            step = "Set it; see docs/how-to/follow-jenkins-from-here.md."
            raise problems([f"{self.config.file}: {each}" for each in missing], next_step=step)
        from trainshed.tools.jenkins import Jenkins

        self.console.add_secret(token)
        return self.closing.enter_context(Jenkins.connect(wanted.url, user=wanted.user, token=token))

    @property
    def build_url(self) -> str | None:
        """Return the Jenkins build that runs this."""
        return settings.build_url()

    @property
    def by(self) -> str:
        """Return who does this, as records tell it: the Jenkins build, else the person."""
        return self.build_url or owner.person()

    def close(self) -> None:
        """Close what was opened."""
        self.closing.close()
