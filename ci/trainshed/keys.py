"""Every key of ``trainshed.toml``: its kind, its default and what it does. The reference page is generated from here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trainshed import values

PROCESS_VARIABLES = {
    "TRAINSHED_ENV": "the environment, as --env",
    "TRAINSHED_CONFIG": "the configuration file, as --config",
    "TRAINSHED_POLICY_FROM": "a git revision whose policy and waivers hold instead of the tree's; a pull request takes its target branch",
    "TRAINSHED_SLOTS": "folder of the slots that commands of one machine share (see build.parallel); default: one in /tmp for each user",
    "TRAINSHED_MAIN_BRANCH": "main branches where Jenkins does not set BRANCH_IS_PRIMARY, with blanks between; default: main master",
    "KF_PIPELINES_SA_TOKEN_PATH": "file of the token that the login kind service-account reads, as in the SDK of Kubeflow Pipelines",
}

POLICY = ("scan", "bases", "trust", "credentials")

"""The policy: these tables and keys, of the project and of each environment, come from the target branch of a pull request."""


class Source(StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key. ``read`` checks what TOML gives and raises `ValueError` with what was expected."""

    path: str
    shape: str
    default: Any
    read: Callable[[Any], Any]
    help: str


def variable_of(path: str) -> str:
    """Return the variable that overrides a key: ``scan.fail-on`` → ``TRAINSHED_SCAN_FAIL_ON``."""
    return "TRAINSHED_" + re.sub(r"[.-]", "_", path).upper()


def from_text(key: Key, text: str) -> Any:  # noqa: ANN401 - the shape decides
    """Turn a variable's text into what TOML would give for the key: lists by comma, tables as ``A=1,B=2``."""
    if key.shape.startswith("list"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if key.shape.startswith("table"):
        return dict(part.partition("=")[::2] for part in text.split(",") if part.strip())
    if key.shape == "number":
        return int(text) if re.fullmatch(r"\d+", text) else text
    return text


def is_policy(path: str) -> bool:
    """Tell whether a key is policy: ``scan.fail-on``, ``environments.dev.trust``."""
    parts = path.split(".")
    return (parts[2:3] if parts[0] == "environments" else parts[:1]) in [[name] for name in POLICY]


def project_name(folder: str) -> str:
    """Make a project name of a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "project"


def known_for(environments: Iterable[str]) -> dict[str, Key]:
    """Return all keys by path, the environment's ones once per environment."""
    known = {key.path: key for key in KEYS}
    for environment in environments:
        for key in ENVIRONMENT_KEYS:
            path = f"environments.{environment}.{key.path}"
            known[path] = Key(path=path, shape=key.shape, default=key.default, read=key.read, help=key.help)
        if environment == "local":
            without = known["environments.local.scan.without-db"]
            known[without.path] = Key(path=without.path, shape=without.shape, default="warn", read=without.read, help=without.help)
        # The short form: environments.dev.kubeflow = "embedded" stands for all of its keys at their defaults.
        for name in ("kubeflow", "prediction-service"):
            path = f"environments.{environment}.{name}"
            known[path] = Key(path=path, shape='"embedded"', default=None, read=values.embedded, help="`embedded`: served by this machine")
    return known


KEYS: tuple[Key, ...] = (
    Key(path="project.name", shape="text", default="", read=values.name, help="prefix of image names; empty: the folder's name"),
    Key(path="project.components", shape="text", default="components", read=values.folder, help="folder of the components"),
    Key(path="project.pipelines", shape="text", default="pipeline_templates", read=values.folder, help="folder of the pipeline templates"),
    Key(
        path="project.work-dir",
        shape="text",
        default="build",
        read=values.folder,
        help="records, logs and reports of the last run; never committed",
    ),
    Key(
        path="build.parallel",
        shape="number",
        default=0,
        read=values.count,
        help="builds, scans and tests side by side, each, over all commands of one machine and user; 0: as many as cores",
    ),
    Key(path="build.args", shape="table of texts", default={}, read=values.arguments, help="build arguments for every image"),
    Key(path="build.secrets", shape="table", default={}, read=values.secrets, help="build secrets: id = file, or { env = NAME }"),
    Key(path="build.platforms", shape="list of texts", default=("linux/amd64",), read=values.platforms, help="the platform to build for"),
    Key(path="build.builder", shape="text", default="auto", read=values.builder, help="auto, docker or buildx:<name>"),
    Key(
        path="bases.approved",
        shape="list of texts",
        default=(),
        read=values.texts,
        help="repositories that foreign bases may come from; empty: all",
    ),
    Key(
        path="bases.mirrors",
        shape="table of texts",
        default={},
        read=values.mirrors,
        help="where foreign bases are pulled from instead, such as a pull-through cache: registry = host/prefix",
    ),
    Key(
        path="scan.fail-on",
        shape="text",
        default="high",
        read=values.one_of(*values.SEVERITIES, "never"),
        help="severity from which a finding fails the scan",
    ),
    Key(
        path="scan.scanners", shape="list of texts", default=values.SCANNERS, read=values.some_of(*values.SCANNERS), help="what to look for"
    ),
    Key(path="scan.waivers", shape="text", default="waivers.toml", read=values.folder, help="file of the waivers"),
    Key(path="scan.trivy-db", shape="text", default="", read=values.text, help="OCI reference of a database mirror; empty: Trivy's own"),
    Key(
        path="scan.max-db-age",
        shape="duration",
        default=86400.0,
        read=values.duration,
        help="age from which a database, and a scan with it, is stale",
    ),
    Key(path="scan.without-db", shape="text", default="fail", read=values.one_of("fail", "warn"), help="what a missing database does"),
    Key(
        path="scan.sources",
        shape="list of texts",
        default=(),
        read=values.some_of(*values.SOURCES),
        help="whose findings are asked for: trivy, ecr; empty: Trivy's, and ECR's where the registry is ECR",
    ),
    Key(
        path="scan.must-answer",
        shape="list of texts",
        default=(),
        read=values.some_of(*values.SOURCES),
        help="the sources without whose answer there is no verdict; empty: all that are asked",
    ),
    Key(path="scan.ecr-timeout", shape="duration", default=900.0, read=values.duration, help="how long ECR's findings are waited for"),
    Key(
        path="scan.unfixed",
        shape="text",
        default="tolerate",
        read=values.one_of("fail", "tolerate"),
        help="what a finding does that nobody has mended yet; it is reported in any case",
    ),
    Key(path="ledger.url", shape="text", default="", read=values.text, help="database of the ledger; empty: SQLite under .trainshed/"),
    Key(path="jenkins.url", shape="text", default=None, read=values.address, help="address of the Jenkins controller"),
    Key(path="jenkins.job", shape="text", default="", read=values.text, help="its multibranch job, with its folders: team/repository"),
    Key(path="jenkins.user", shape="text", default="", read=values.text, help="who asks; the API token is in the variable of `token-env`"),
    Key(path="jenkins.token-env", shape="text", default="JENKINS_TOKEN", read=values.text, help="variable that holds the API token"),
    Key(
        path="release.environment",
        shape="text",
        default="",
        read=values.text,
        help="the environment that `release` brings the lock's images to: production; empty: the one that it is called with",
    ),
    Key(
        path="release.versions",
        shape="text",
        default="repository",
        read=values.one_of("repository", "each"),
        help="repository: one version, tagged v1.4.0; each: one for each pipeline and service, tagged NAME/v1.4.0",
    ),
    Key(path="release.remote", shape="text", default="origin", read=values.text, help="the git remote that tags are pushed to"),
    Key(
        path="release.token-env",
        shape="text",
        default="GIT_TOKEN",
        read=values.text,
        help="variable that holds the token to push tags with over https; unset: git's own credentials",
    ),
)

_OVERLAID = (
    "bases.approved",
    "bases.mirrors",
    "scan.fail-on",
    "scan.scanners",
    "scan.trivy-db",
    "scan.max-db-age",
    "scan.without-db",
    "scan.sources",
    "scan.must-answer",
    "scan.ecr-timeout",
    "scan.unfixed",
)

ENVIRONMENT_KEYS: tuple[Key, ...] = (
    Key(
        path="registry",
        shape="text or table",
        default=None,
        read=values.registry,
        help='`embedded`, or { url, insecure, ecr }; ecr = "ACCOUNT/REGION" for an ECR that has another name',
    ),
    Key(
        path="trust",
        shape="text",
        default="laptop",
        read=values.one_of(*values.TIERS),
        help="who may work on it at least: laptop, pull-request, main",
    ),
    Key(
        path="credentials",
        shape="table of texts",
        default={},
        read=values.credentials,
        help="what Jenkins binds for it: VARIABLE = kind:id; kinds are string, file and username-password",
    ),
    Key(
        path="kubeflow.host", shape="text", default=None, read=values.host, help="`embedded`, or the address of the Kubeflow Pipelines API"
    ),
    Key(path="kubeflow.namespace", shape="text", default="", read=values.text, help="namespace of a multi-user Kubeflow"),
    Key(path="kubeflow.auth", shape="table of texts", default=values.Auth(), read=values.auth, help="how to log in: { kind, … }"),
    Key(path="kubeflow.service-account", shape="text", default="", read=values.text, help="service account of the runs"),
    Key(path="kubeflow.experiment", shape="text", default="", read=values.text, help="experiment of the runs; empty: the project's name"),
    Key(
        path="kubeflow.pipeline-root",
        shape="text",
        default="",
        read=values.pipeline_root,
        help="where runs keep their artifacts, such as s3://bucket/prefix; empty: the server's own",
    ),
    Key(
        path="kubeflow.labels", shape="table of texts", default={}, read=values.labels, help="labels of every run, told in its description"
    ),
    Key(path="kubeflow.timeout", shape="duration", default=30.0, read=values.duration, help="limit of one request"),
    Key(
        path="prediction-service.cluster",
        shape="text",
        default=None,
        read=lambda value: None if value == "embedded" else values.text(value),
        help="`embedded`, or the ECS cluster",
    ),
    Key(path="prediction-service.region", shape="text", default="", read=values.text, help="its AWS region; empty: aws.region"),
    Key(path="prediction-service.endpoint-url", shape="text", default="", read=values.text, help="address of the ECS API, for emulators"),
    Key(
        path="prediction-service.keep-revisions",
        shape="number",
        default=10,
        read=values.count,
        help="how many revisions of a service's task definition stay, beside those that run or can be gone back to",
    ),
    Key(path="aws.region", shape="text", default="us-east-1", read=values.text, help="AWS region"),
    Key(
        path="aws.account", shape="text", default="", read=values.account, help="the account that work must be done in; empty: not checked"
    ),
    Key(path="aws.role", shape="text", default="", read=values.arn, help="ARN of a role to assume for all that is asked of AWS"),
    Key(path="aws.endpoint-url", shape="text", default="", read=values.text, help="address of AWS's APIs, for emulators"),
    Key(
        path="ecr.kms-key",
        shape="text",
        default="",
        read=values.arn,
        help="ARN of the key that encrypts the repositories; empty: AWS's own KMS key",
    ),
    Key(path="ecr.pull", shape="list of texts", default=(), read=values.principals, help="accounts and roles that may pull"),
    Key(path="ecr.push", shape="list of texts", default=(), read=values.principals, help="accounts and roles that may push"),
    Key(
        path="ecr.expire",
        shape="duration",
        default=2_592_000.0,
        read=values.duration,
        help="age from which images are deleted that no lock and no running service refers to",
    ),
    Key(
        path="audit.buckets",
        shape="list of texts",
        default=(),
        read=values.texts,
        help="artifact buckets beside that of kubeflow.pipeline-root",
    ),
    Key(path="audit.sensitive", shape="list of texts", default=(), read=values.texts, help="those of the buckets whose data is sensitive"),
    Key(path="audit.roles", shape="list of texts", default=(), read=values.texts, help="roles beside those of the services"),
    *(
        Key(path=key.path, shape=key.shape, default=None, read=key.read, help=f"overrides {key.path}")
        for key in KEYS
        if key.path in _OVERLAID
    ),
)
