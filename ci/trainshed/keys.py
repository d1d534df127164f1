"""Every key of ``trainshed.toml``: its kind, its default and what it does. The reference page is generated from here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from trainshed.errors import suggestion

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
SEVERITIES = ("low", "medium", "high", "critical")
SOURCES = ("trivy", "ecr")
"""Who looks for findings in images."""
SCANNERS = ("vulnerability", "secret", "misconfiguration")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Source(StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A build secret: the content of a file, or of a variable of the environment."""

    file: str = ""
    env: str = ""


@dataclass(frozen=True, kw_only=True)
class EcrPlace:
    """Which ECR a registry is."""

    account: str
    region: str


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registry with its prefix (``host/path``); ``insecure`` allows plain HTTP; ``ecr`` None where it is not ECR."""

    url: str
    insecure: bool = False
    ecr: EcrPlace | None = None


@dataclass(frozen=True, kw_only=True)
class Auth:
    """How to log in; what each kind needs is in `AUTH_KINDS`."""

    kind: str = "none"
    file: str = ""
    username: str = ""
    password_env: str = ""
    name: str = ""
    value_env: str = ""


AUTH_KINDS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "token": ("file",),
    "cookies": ("file",),
    "dex": ("username", "password-env"),
    "header": ("name", "value-env"),
    "service-account": (),
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key. ``read`` checks what TOML gives and raises `ValueError` with what was expected."""

    path: str
    shape: str
    default: Any
    read: Callable[[Any], Any]
    help: str


def duration(value: Any) -> float:  # noqa: ANN401 - checked here
    """Read ``"30s"``, ``"10m"``, ``"24h"`` or a number of seconds; return seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'expected a duration such as "30s", "10m" or "24h", not {value!r}')
    return float(match[1]) * _UNITS[match[2]]


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
            known[path] = Key(path=path, shape='"embedded"', default=None, read=embedded, help="`embedded`: served by this machine")
    return known


def embedded(value: Any) -> None:  # noqa: ANN401 - checked here
    """Read the short form of a service's table: ``kubeflow = "embedded"``."""
    if value != "embedded":
        raise ValueError('expected "embedded" or a table')


def _text(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    return value


def _name(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", value):
        raise ValueError(f"expected lower-case letters, digits and single inner dashes, not {value!r}")
    return value


def _folder(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or not value or value.startswith("/") or ".." in value.split("/"):
        raise ValueError(f"expected a folder inside the project, not {value!r}")
    return value


def _count(value: Any) -> int:  # noqa: ANN401 - checked here
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, 0 or more, not {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of texts, not {value!r}")
    return tuple(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:  # noqa: ANN401 - checked here
        if value not in words:
            hint = suggestion(value, words) if isinstance(value, str) else ""
            raise ValueError(f"expected one of {', '.join(words)}, not {value!r}{hint}")
        return str(value)

    return read


def _some_of(*words: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
        return tuple(_one_of(*words)(item) for item in _texts(value))

    return read


def _builder(value: Any) -> str:  # noqa: ANN401 - checked here
    if value in {"auto", "docker"} or (isinstance(value, str) and re.fullmatch(r"buildx:[\w.-]+", value)):
        return str(value)
    raise ValueError(f'expected "auto", "docker" or "buildx:<name>", not {value!r}')


def _platforms(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    platforms = _texts(value)
    if len(platforms) != 1 or not re.fullmatch(r"linux/[a-z0-9]+(/v\d)?", platforms[0]):
        raise ValueError(f'expected one platform such as ["linux/amd64"], not {value!r}')
    return platforms


def _arguments(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"expected a table of texts, not {value!r}")
    return dict(value)


def _secrets(value: Any) -> Mapping[str, Secret]:  # noqa: ANN401 - checked here
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of files or {{ env = NAME }}, not {value!r}")
    found = {}
    for name, item in value.items():
        if isinstance(item, str) and item:
            found[name] = Secret(file=item)
        elif isinstance(item, dict) and set(item) == {"env"} and isinstance(item["env"], str):
            found[name] = Secret(env=item["env"])
        else:
            raise ValueError(f"secret '{name}': expected a file or {{ env = NAME }}")
    return found


def _registry(value: Any) -> Registry | None:  # noqa: ANN401 - checked here
    if value == "embedded":
        return None
    table = {"url": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("url"), str) or set(table) - {"url", "insecure", "ecr"}:
        raise ValueError(f'expected "embedded" or {{ url = "host/path", insecure = false }}, not {value!r}')
    if not isinstance(table.get("insecure", False), bool):
        raise ValueError("insecure: expected true or false")
    url = table["url"].rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9]+([._/-][a-z0-9]+)*)?", url):
        raise ValueError(f"expected host[:port][/path] without scheme, not {url!r}")
    return Registry(url=url, insecure=table.get("insecure", False), ecr=_ecr(url, table.get("ecr", "")))


def _ecr(url: str, told: Any) -> EcrPlace | None:  # noqa: ANN401 - checked here
    """Tell which ECR a registry is: by its name, or as told for one that has another (a proxy, an emulator)."""
    if told:
        parts = re.fullmatch(r"(\d{12})/([a-z]{2}(?:-[a-z]+)+-\d)", told) if isinstance(told, str) else None
        if parts is None:
            raise ValueError(f'ecr: expected "ACCOUNT/REGION", such as "123456789012/eu-west-1", not {told!r}')
    else:
        parts = _ECR_HOST.fullmatch(url.partition("/")[0])
    return EcrPlace(account=parts[1], region=parts[2]) if parts is not None else None


def _account(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or not re.fullmatch(r"(\d{12})?", value):
        raise ValueError(f"expected an account's twelve digits as text, not {value!r}")
    return value


def _arn(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or (value and not re.fullmatch(r"arn:aws[a-z-]*:[a-z0-9-]+:[^:\s]*:[^:\s]*:\S+", value)):
        raise ValueError(f"expected an ARN such as arn:aws:iam::123456789012:role/build, not {value!r}")
    return value


def _principals(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    found = _texts(value)
    for principal in found:
        if not re.fullmatch(r"\d{12}", principal):
            _arn(principal or "none")
    return found


def _mirrors(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    found = _arguments(value)
    for host, place in found.items():
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host) or not re.fullmatch(
            r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9]+([._/-][a-z0-9]+)*)?", place
        ):
            raise ValueError(f'{host}: expected "docker.io" = "host[:port][/path]" without scheme, not {place!r}')
    return found


def _host(value: Any) -> str | None:  # noqa: ANN401 - checked here
    if value == "embedded":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s@?#]+", value):
        raise ValueError(f"expected an http or https address without credentials, ? and #, not {value!r}")
    try:
        urlsplit(value)
    except ValueError as error:  # brackets without an IPv6 address in them
        raise ValueError(f"{error}: {value!r}") from error
    return value.rstrip("/")


def _address(value: Any) -> str | None:  # noqa: ANN401 - checked here
    return None if value == "" else _host(value)


def _credentials(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    found = _arguments(value)
    for variable, told in found.items():
        if _OWNED.match(variable):
            raise ValueError(f"{variable}: a variable that steers the build is no credential")
        if not re.fullmatch(r"[A-Za-z_]\w*", variable) or not re.fullmatch(rf"({'|'.join(CREDENTIAL_KINDS)}):[\w.-]+", told):
            raise ValueError(f'{variable}: expected VARIABLE = "kind:id", the kind of {", ".join(CREDENTIAL_KINDS)}')
    return found


def _pipeline_root(value: Any) -> str:  # noqa: ANN401 - checked here
    if not isinstance(value, str) or (value and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s@]+", value)):
        raise ValueError(f"expected an address such as s3://bucket/prefix, not {value!r}")
    return value.rstrip("/")


def labels(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    """Read a table of labels as Kubernetes takes them."""
    found = _arguments(value)
    for name, text in found.items():
        if not LABEL.fullmatch(name) or (text and not LABEL.fullmatch(text)):
            raise ValueError(f"{name}: expected at most 63 letters, digits, '.', '_' and '-' in name and value, not {text!r}")
    return found


def _auth(value: Any) -> Auth:  # noqa: ANN401 - checked here
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f'expected a table such as {{ kind = "token", file = "…" }}, not {value!r}')
    kind = _one_of(*AUTH_KINDS)(value.get("kind"))
    needed = set(AUTH_KINDS[kind])
    given = set(value) - {"kind"}
    if given - needed:
        raise ValueError(f"kind {kind} takes no {', '.join(sorted(given - needed))}")
    if needed - given:
        raise ValueError(f"kind {kind} needs {', '.join(sorted(needed - given))}")
    return Auth(**{name.replace("-", "_"): item for name, item in value.items()})


CREDENTIAL_KINDS = ("string", "file", "username-password")
"""Kinds of credentials that Jenkins binds: secret text; a secret file, whose path it gives; VARIABLE_USR and VARIABLE_PSW."""
_OWNED = re.compile(
    r"(PATH|HOME|SHELL|ENV|BASH_ENV|CI|BUILD_URL|TAG_NAME)$|(LD|BRANCH|CHANGE)_|PYTHON|GIT_(SSH|EXEC|CONFIG|DIR)|TRAINSHED_(?!LEDGER_URL$)"
)
"""Variables that say what runs, and for whom: nobody's credentials."""
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""A label's name or value, as Kubernetes takes it."""
_ECR_HOST = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
TIERS = ("laptop", "pull-request", "main")

KEYS: tuple[Key, ...] = (
    Key(path="project.name", shape="text", default="", read=_name, help="prefix of image names; empty: the folder's name"),
    Key(path="project.components", shape="text", default="components", read=_folder, help="folder of the components"),
    Key(path="project.pipelines", shape="text", default="pipeline_templates", read=_folder, help="folder of the pipeline templates"),
    Key(
        path="project.work-dir",
        shape="text",
        default="build",
        read=_folder,
        help="records, logs and reports of the last run; never committed",
    ),
    Key(
        path="build.parallel",
        shape="number",
        default=0,
        read=_count,
        help="builds, scans and tests side by side, each, over all commands of one machine and user; 0: as many as cores",
    ),
    Key(path="build.args", shape="table of texts", default={}, read=_arguments, help="build arguments for every image"),
    Key(path="build.secrets", shape="table", default={}, read=_secrets, help="build secrets: id = file, or { env = NAME }"),
    Key(path="build.platforms", shape="list of texts", default=("linux/amd64",), read=_platforms, help="the platform to build for"),
    Key(path="build.builder", shape="text", default="auto", read=_builder, help="auto, docker or buildx:<name>"),
    Key(
        path="bases.approved",
        shape="list of texts",
        default=(),
        read=_texts,
        help="repositories that foreign bases may come from; empty: all",
    ),
    Key(
        path="bases.mirrors",
        shape="table of texts",
        default={},
        read=_mirrors,
        help="where foreign bases are pulled from instead, such as a pull-through cache: registry = host/prefix",
    ),
    Key(
        path="scan.fail-on",
        shape="text",
        default="high",
        read=_one_of(*SEVERITIES, "never"),
        help="severity from which a finding fails the scan",
    ),
    Key(path="scan.scanners", shape="list of texts", default=SCANNERS, read=_some_of(*SCANNERS), help="what to look for"),
    Key(path="scan.waivers", shape="text", default="waivers.toml", read=_folder, help="file of the waivers"),
    Key(path="scan.trivy-db", shape="text", default="", read=_text, help="OCI reference of a database mirror; empty: Trivy's own"),
    Key(
        path="scan.max-db-age",
        shape="duration",
        default=86400.0,
        read=duration,
        help="age from which a database, and a scan with it, is stale",
    ),
    Key(path="scan.without-db", shape="text", default="fail", read=_one_of("fail", "warn"), help="what a missing database does"),
    Key(
        path="scan.sources",
        shape="list of texts",
        default=(),
        read=_some_of(*SOURCES),
        help="whose findings are asked for: trivy, ecr; empty: Trivy's, and ECR's where the registry is ECR",
    ),
    Key(
        path="scan.must-answer",
        shape="list of texts",
        default=(),
        read=_some_of(*SOURCES),
        help="the sources without whose answer there is no verdict; empty: all that are asked",
    ),
    Key(path="scan.ecr-timeout", shape="duration", default=900.0, read=duration, help="how long ECR's findings are waited for"),
    Key(
        path="scan.unfixed",
        shape="text",
        default="tolerate",
        read=_one_of("fail", "tolerate"),
        help="what a finding does that nobody has mended yet; it is reported in any case",
    ),
    Key(path="ledger.url", shape="text", default="", read=_text, help="database of the ledger; empty: SQLite under .trainshed/"),
    Key(path="jenkins.url", shape="text", default=None, read=_address, help="address of the Jenkins controller"),
    Key(path="jenkins.job", shape="text", default="", read=_text, help="its multibranch job, with its folders: team/repository"),
    Key(path="jenkins.user", shape="text", default="", read=_text, help="who asks; the API token is in the variable of `token-env`"),
    Key(path="jenkins.token-env", shape="text", default="JENKINS_TOKEN", read=_text, help="variable that holds the API token"),
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
        read=_registry,
        help='`embedded`, or { url, insecure, ecr }; ecr = "ACCOUNT/REGION" for an ECR that has another name',
    ),
    Key(path="trust", shape="text", default="laptop", read=_one_of(*TIERS), help="who may work on it at least: laptop, pull-request, main"),
    Key(
        path="credentials",
        shape="table of texts",
        default={},
        read=_credentials,
        help="what Jenkins binds for it: VARIABLE = kind:id; kinds are string, file and username-password",
    ),
    Key(path="kubeflow.host", shape="text", default=None, read=_host, help="`embedded`, or the address of the Kubeflow Pipelines API"),
    Key(path="kubeflow.namespace", shape="text", default="", read=_text, help="namespace of a multi-user Kubeflow"),
    Key(path="kubeflow.auth", shape="table of texts", default=Auth(), read=_auth, help="how to log in: { kind, … }"),
    Key(path="kubeflow.service-account", shape="text", default="", read=_text, help="service account of the runs"),
    Key(path="kubeflow.experiment", shape="text", default="", read=_text, help="experiment of the runs; empty: the project's name"),
    Key(
        path="kubeflow.pipeline-root",
        shape="text",
        default="",
        read=_pipeline_root,
        help="where runs keep their artifacts, such as s3://bucket/prefix; empty: the server's own",
    ),
    Key(path="kubeflow.labels", shape="table of texts", default={}, read=labels, help="labels of every run, told in its description"),
    Key(path="kubeflow.timeout", shape="duration", default=30.0, read=duration, help="limit of one request"),
    Key(
        path="prediction-service.cluster",
        shape="text",
        default=None,
        read=lambda value: None if value == "embedded" else _text(value),
        help="`embedded`, or the ECS cluster",
    ),
    Key(path="prediction-service.region", shape="text", default="", read=_text, help="its AWS region; empty: aws.region"),
    Key(path="prediction-service.endpoint-url", shape="text", default="", read=_text, help="address of the ECS API, for emulators"),
    Key(
        path="prediction-service.keep-revisions",
        shape="number",
        default=10,
        read=_count,
        help="how many revisions of a service's task definition stay, beside those that run or can be gone back to",
    ),
    Key(path="aws.region", shape="text", default="us-east-1", read=_text, help="AWS region"),
    Key(path="aws.account", shape="text", default="", read=_account, help="the account that work must be done in; empty: not checked"),
    Key(path="aws.role", shape="text", default="", read=_arn, help="ARN of a role to assume for all that is asked of AWS"),
    Key(path="aws.endpoint-url", shape="text", default="", read=_text, help="address of AWS's APIs, for emulators"),
    Key(
        path="ecr.kms-key",
        shape="text",
        default="",
        read=_arn,
        help="ARN of the key that encrypts the repositories; empty: AWS's own KMS key",
    ),
    Key(path="ecr.pull", shape="list of texts", default=(), read=_principals, help="accounts and roles that may pull"),
    Key(path="ecr.push", shape="list of texts", default=(), read=_principals, help="accounts and roles that may push"),
    Key(
        path="ecr.expire",
        shape="duration",
        default=2_592_000.0,
        read=duration,
        help="age from which images are deleted that no lock and no running service refers to",
    ),
    Key(
        path="audit.buckets", shape="list of texts", default=(), read=_texts, help="artifact buckets beside that of kubeflow.pipeline-root"
    ),
    Key(path="audit.sensitive", shape="list of texts", default=(), read=_texts, help="those of the buckets whose data is sensitive"),
    Key(path="audit.roles", shape="list of texts", default=(), read=_texts, help="roles beside those of the services"),
    *(
        Key(path=key.path, shape=key.shape, default=None, read=key.read, help=f"overrides {key.path}")
        for key in KEYS
        if key.path in _OVERLAID
    ),
)
