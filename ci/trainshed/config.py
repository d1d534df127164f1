"""``trainshed.toml`` and its overrides as frozen structures: read once, checked whole, handed down.

Precedence, written once: command line, then ``TRAINSHED_…``, then the file, then the default. The table `keys.KEYS` is the only
list of keys: reading, overriding, suggestions and the reference page all come from it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainshed import keys, values
from trainshed.errors import UsageError, problems, suggestion
from trainshed.files import read_text
from trainshed.keys import Key, Source
from trainshed.values import Auth, Registry, Secret

FILE_NAME = "trainshed.toml"
LOCAL = "local"
STATE_FOLDER = ".trainshed"


@dataclass(frozen=True, kw_only=True)
class Project:
    """Where things are. ``components``, ``pipelines`` and ``work_dir`` are absolute."""

    name: str
    root: Path
    components: Path
    pipelines: Path
    work_dir: Path

    @property
    def state(self) -> Path:
        """Return the folder of what outlives a run and is nobody's source: ledger, caches, embedded services."""
        return self.root / STATE_FOLDER

    def shown(self, path: Path) -> str:
        """Return a path relative to the project where it lies inside, for messages and records."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True, kw_only=True)
class Build:
    """How images are built. ``parallel`` 0 takes the machine's cores."""

    parallel: int
    args: Mapping[str, str]
    secrets: Mapping[str, Secret]
    platforms: tuple[str, ...]
    builder: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The scan policy. ``max_db_age`` and ``ecr_timeout`` in seconds; ``waivers`` is absolute: the tree's file, or another revision's copy.

    ``sources`` and ``must_answer`` are of `values.SOURCES`, as they are told: empty for what fits the registry.
    """

    fail_on: str
    scanners: tuple[str, ...]
    waivers: Path
    trivy_db: str
    max_db_age: float
    without_db: str
    unfixed: str
    sources: tuple[str, ...]
    must_answer: tuple[str, ...]
    ecr_timeout: float


@dataclass(frozen=True, kw_only=True)
class Jenkins:
    """The controller that builds this repository. ``url`` None: none is configured; ``token_env`` names the token's variable."""

    url: str | None
    job: str
    user: str
    token_env: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """How releases are made. ``environment`` is empty for the one in force; ``versions`` is ``repository`` or ``each``."""

    environment: str
    versions: str
    remote: str
    token_env: str


@dataclass(frozen=True, kw_only=True)
class Kubeflow:
    """A Kubeflow endpoint. ``host`` None is the embedded one; ``timeout`` in seconds for one request.

    ``experiment`` is empty for the project's name, ``pipeline_root`` for the server's own.
    """

    host: str | None
    namespace: str
    auth: Auth
    service_account: str
    experiment: str
    pipeline_root: str
    labels: Mapping[str, str]
    timeout: float


@dataclass(frozen=True, kw_only=True)
class PredictionService:
    """An ECS cluster. ``cluster`` None is the embedded one."""

    cluster: str | None
    region: str
    endpoint_url: str
    keep_revisions: int


@dataclass(frozen=True, kw_only=True)
class Aws:
    """Where AWS is asked, and as whom. ``account`` is the one that work must be done in, empty when that is not checked."""

    region: str
    account: str
    role: str
    endpoint_url: str


@dataclass(frozen=True, kw_only=True)
class Ecr:
    """How repositories shall be. ``pull`` and ``push`` are accounts or roles; ``expire`` is in seconds."""

    kms_key: str
    pull: tuple[str, ...]
    push: tuple[str, ...]
    expire: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is audited beside what the environment names anyway: buckets, those of them whose data is sensitive, roles."""

    buckets: tuple[str, ...]
    sensitive: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the work goes. ``registry`` None is the embedded one.

    ``trust`` is the least tier that may work on it, of `values.TIERS`; ``credentials`` is what Jenkins binds: variable to ``kind:id``.
    """

    name: str
    trust: str
    credentials: Mapping[str, str]
    registry: Registry | None
    kubeflow: Kubeflow
    prediction_service: PredictionService
    aws: Aws
    ecr: Ecr
    audit: Audit


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The policy of another revision of the repository (see `keys.POLICY`): it holds instead of the tree's.

    ``shown`` is how people read the revision; ``document`` is its ``trainshed.toml``, None where it has none; ``fetch`` brings a file
    of it here, by its path in the project, and returns where the copy is: a place without a file when the revision has none.
    """

    shown: str
    document: Mapping[str, Any] | None
    fetch: Callable[[str], Path] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Governed:
    """What of the tree's own policy does not hold: the keys that differ, and where its waivers are."""

    policy: Policy
    differs: tuple[str, ...]
    waivers: Path


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one run, for one environment (its overrides of ``scan`` and ``bases`` already laid over).

    ``governed`` is set where the policy is that of another revision; ``sources`` says so of each value.
    """

    file: Path
    project: Project
    build: Build
    approved_bases: tuple[str, ...]
    mirrors: Mapping[str, str]
    scan: Scan
    ledger_url: str
    jenkins: Jenkins
    release: Release
    environment: Environment
    environments: tuple[str, ...]
    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)
    governed: Governed | None = None

    @property
    def waivers_place(self) -> str:
        """Return where the waivers in force stand, for messages."""
        if self.governed is None:
            return self.project.shown(self.scan.waivers)
        return f"{self.values['scan.waivers']} of {self.governed.policy.shown}"


def find(start: Path) -> Path:
    """Return the nearest ``trainshed.toml`` at or above a folder.

    Raises:
        UsageError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise UsageError(f"no {FILE_NAME} in {start} or above", next_step="Run `trainshed init` here, or name the file with --config.")


def load(file: Path, *, environment: str, overrides: Mapping[str, str] | None = None, policy: Policy | None = None) -> Config:
    """Read, check and freeze the configuration for one environment.

    Args:
        file: the ``trainshed.toml``; relative paths in it are relative to its folder.
        environment: the name of the environment to lay over.
        overrides: ``TRAINSHED_…`` variables, see `keys.variable_of`.
        policy: the policy to take instead of the file's own; the file's is checked all the same.

    Raises:
        UsageError: with all problems at once, each with file and key.
    """
    document = parse(read_text(file, what="the configuration"), place=str(file))
    own = _Reader(file, document, environment, overrides or {}).config()
    if policy is None:
        return own
    place = f"{policy.shown}: {FILE_NAME}"
    reader = _Reader(file, _with_policy(document, policy.document or {}, place), environment, overrides or {}, place=place)
    return _governed(own, reader.config(), policy)


def parse(text: str, *, place: str) -> dict[str, Any]:
    """Read a ``trainshed.toml`` as TOML gives it.

    Raises:
        UsageError: it is no TOML; ``place`` says where.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{place}: not TOML: {error}", next_step="Mend the line that is named.") from error


def _with_policy(document: Mapping[str, Any], trusted: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the tree's document with the policy of the trusted one, and with nothing of its own policy."""
    theirs = trusted.get("environments", {})
    if not isinstance(theirs, dict) or not all(isinstance(table, dict) for table in theirs.values()):
        raise UsageError(f"{place}: environments: expected tables such as [environments.dev]", next_step="Mend it there.")
    known = document.get("environments", {})
    tables = {name: _laid(known.get(name, {}), theirs.get(name, {})) for name in (*known, *({LOCAL} & set(theirs) - set(known)))}
    return {**_laid(document, trusted), "environments": tables}


def _laid(own: Mapping[str, Any], trusted: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in own.items() if name not in keys.POLICY}
    return kept | {name: trusted[name] for name in keys.POLICY if name in trusted}


def _governed(own: Config, taken: Config, policy: Policy) -> Config:
    """Say of each value where it comes from, of the waivers where they are, and what of the tree's policy does not hold."""
    told = f"policy of {policy.shown}"
    sources = {path: told if keys.is_policy(path) and source is Source.FILE else source for path, source in taken.sources.items()}
    environment = f"environments.{own.environment.name}."
    judged = [path for path in own.values if keys.is_policy(path) and not path.startswith("environments.")]
    judged += [f"{environment}trust", f"{environment}credentials"]
    differs = tuple(path for path in judged if own.values[path] != taken.values[path])
    return replace(
        taken,
        scan=replace(taken.scan, waivers=policy.fetch(taken.values["scan.waivers"])),
        sources=sources,
        governed=Governed(policy=policy, differs=differs, waivers=own.scan.waivers),
    )


def _flat(table: Mapping[str, Any], prefix: str, known: Mapping[str, Key]) -> Iterator[tuple[str, Any]]:
    """Walk a document down to the keys that are known as values."""
    for name, value in table.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and (path not in known or known[path].read is values.embedded):
            yield from _flat(value, f"{path}.", known)
        else:
            yield path, value


class _Reader:
    """One pass over one document: collects values, their sources, and every problem."""

    def __init__(self, file: Path, document: dict[str, Any], environment: str, overrides: Mapping[str, str], place: str = "") -> None:
        self.file, self.root, self.place = file, file.resolve().parent, place or str(file)
        self.environment, self.found = environment, []  # type: str, list[str]
        self.environments = self._environments(document)
        self.known = keys.known_for(self.environments)
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self._defaults()
        self._take_document(document)
        self._take_overrides(overrides)

    def _environments(self, document: dict[str, Any]) -> tuple[str, ...]:
        declared = document.get("environments", {})
        if not isinstance(declared, dict):
            self.found.append(f"{self.place}: environments: expected tables such as [environments.dev]")
            declared = document["environments"] = {}
        for name, table in declared.items():
            if not isinstance(table, dict):
                self.found.append(f"{self.place}: environments.{name}: expected a table")
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
                self.found.append(f"{self.place}: environments.{name}: a name has lower-case letters, digits and inner dashes")
        names = tuple(dict.fromkeys([LOCAL, *declared]))
        if self.environment not in names:
            hint = suggestion(self.environment, names)
            message = f"{self.place}: no environment '{self.environment}'{hint}"
            raise UsageError(message, next_step=f"Known: {', '.join(names)}.")
        return names

    def _defaults(self) -> None:
        for path, key in self.known.items():
            self.values[path] = key.default
            self.sources[path] = Source.DEFAULT

    def _take_document(self, document: dict[str, Any]) -> None:
        for path, value in _flat(document, "", self.known):
            self._take(path, value, Source.FILE, f"{self.place}: {path}")

    def _take_overrides(self, overrides: Mapping[str, str]) -> None:
        by_variable = {keys.variable_of(path): path for path in self.known}
        for variable, text in overrides.items():
            if variable in keys.PROCESS_VARIABLES:
                continue
            path = by_variable.get(variable)
            if path is None:
                hint = suggestion(variable, [*by_variable, *keys.PROCESS_VARIABLES])
                self.found.append(f"{variable}: no such setting{hint}")
                continue
            self._take(path, keys.from_text(self.known[path], text), Source.VARIABLE, variable)

    def _take(self, path: str, value: Any, source: Source, place: str) -> None:  # noqa: ANN401 - what TOML gives
        key = self.known.get(path)
        if key is None:
            self.found.append(f"{self.place}: unknown key {path}{suggestion(path, self.known)}")
            return
        try:
            self.values[path] = key.read(value)
            self.sources[path] = source
        except ValueError as error:
            self.found.append(f"{place}: {error}")

    def config(self) -> Config:
        """Lay the environment over, and freeze."""
        prefix = f"environments.{self.environment}."
        for path in self.known:
            base = path.removeprefix(prefix)
            if path.startswith(prefix) and base in self.known and self.sources[path] is not Source.DEFAULT:
                self.values[base], self.sources[base] = self.values[path], self.sources[path]
            elif path.startswith(prefix) and base in self.known and self.values[path] is not None and self.sources[base] is Source.DEFAULT:
                self.values[base] = self.values[path]
        if self.found:
            raise problems(self.found, next_step="Mend the configuration; `trainshed config` shows what is in force.")
        return self._frozen(prefix)

    def _frozen(self, prefix: str) -> Config:
        value = self.values
        project = Project(
            name=value["project.name"] or keys.project_name(self.root.name),
            root=self.root,
            components=self.root / value["project.components"],
            pipelines=self.root / value["project.pipelines"],
            work_dir=self.root / value["project.work-dir"],
        )
        build = Build(
            parallel=value["build.parallel"],
            args=value["build.args"],
            secrets=value["build.secrets"],
            platforms=value["build.platforms"],
            builder=value["build.builder"],
        )
        scan = Scan(
            fail_on=value["scan.fail-on"],
            scanners=value["scan.scanners"],
            waivers=self.root / value["scan.waivers"],
            trivy_db=value["scan.trivy-db"],
            max_db_age=value["scan.max-db-age"],
            without_db=value["scan.without-db"],
            unfixed=value["scan.unfixed"],
            sources=value["scan.sources"],
            must_answer=value["scan.must-answer"],
            ecr_timeout=value["scan.ecr-timeout"],
        )
        jenkins = Jenkins(
            url=value["jenkins.url"], job=value["jenkins.job"], user=value["jenkins.user"], token_env=value["jenkins.token-env"]
        )
        release = Release(
            environment=value["release.environment"],
            versions=value["release.versions"],
            remote=value["release.remote"],
            token_env=value["release.token-env"],
        )
        return Config(
            file=self.file,
            project=project,
            build=build,
            approved_bases=value["bases.approved"],
            mirrors=value["bases.mirrors"],
            scan=scan,
            ledger_url=value["ledger.url"],
            jenkins=jenkins,
            release=release,
            environment=self._environment(prefix),
            environments=self.environments,
            values=value,
            sources=self.sources,
        )

    def _environment(self, prefix: str) -> Environment:
        def of(name: str) -> Any:  # noqa: ANN401 - typed by the key
            return self.values[prefix + name]

        return Environment(
            name=self.environment,
            trust=of("trust"),
            credentials=of("credentials"),
            registry=of("registry"),
            kubeflow=Kubeflow(
                host=of("kubeflow.host"),
                namespace=of("kubeflow.namespace"),
                auth=of("kubeflow.auth"),
                service_account=of("kubeflow.service-account"),
                experiment=of("kubeflow.experiment"),
                pipeline_root=of("kubeflow.pipeline-root"),
                labels=of("kubeflow.labels"),
                timeout=of("kubeflow.timeout"),
            ),
            prediction_service=PredictionService(
                cluster=of("prediction-service.cluster"),
                region=of("prediction-service.region") or of("aws.region"),
                endpoint_url=of("prediction-service.endpoint-url"),
                keep_revisions=of("prediction-service.keep-revisions"),
            ),
            aws=Aws(region=of("aws.region"), account=of("aws.account"), role=of("aws.role"), endpoint_url=of("aws.endpoint-url")),
            ecr=Ecr(kms_key=of("ecr.kms-key"), pull=of("ecr.pull"), push=of("ecr.push"), expire=of("ecr.expire")),
            audit=Audit(buckets=of("audit.buckets"), sensitive=of("audit.sensitive"), roles=of("audit.roles")),
        )
