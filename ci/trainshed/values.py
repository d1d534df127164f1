"""How values are read: each function takes what TOML gives, and raises `ValueError` with what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trainshed.errors import suggestion

SEVERITIES = ("low", "medium", "high", "critical")

SOURCES = ("trivy", "ecr")

"""Who looks for findings in images."""

SCANNERS = ("vulnerability", "secret", "misconfiguration")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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


def duration(value: Any) -> float:  # noqa: ANN401 - checked here
    """Read ``"30s"``, ``"10m"``, ``"24h"`` or a number of seconds; return seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'expected a duration such as "30s", "10m" or "24h", not {value!r}')
    return float(match[1]) * _UNITS[match[2]]


def embedded(value: Any) -> None:  # noqa: ANN401 - checked here
    """Read the short form of a service's table: ``kubeflow = "embedded"``."""
    if value != "embedded":
        raise ValueError('expected "embedded" or a table')


def text(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read a text."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    return value


def name(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read the name of a project."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", value):
        raise ValueError(f"expected lower-case letters, digits and single inner dashes, not {value!r}")
    return value


def folder(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read a folder inside of the project."""
    if not isinstance(value, str) or not value or value.startswith("/") or ".." in value.split("/"):
        raise ValueError(f"expected a folder inside the project, not {value!r}")
    return value


def count(value: Any) -> int:  # noqa: ANN401 - checked here
    """Read a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, 0 or more, not {value!r}")
    return value


def texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    """Read a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of texts, not {value!r}")
    return tuple(value)


def one_of(*words: str) -> Callable[[Any], str]:
    """Return a reader of one of some words."""

    def read(value: Any) -> str:  # noqa: ANN401 - checked here
        if value not in words:
            hint = suggestion(value, words) if isinstance(value, str) else ""
            raise ValueError(f"expected one of {', '.join(words)}, not {value!r}{hint}")
        return str(value)

    return read


def some_of(*words: str) -> Callable[[Any], tuple[str, ...]]:
    """Return a reader of a list of some words."""

    def read(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
        return tuple(one_of(*words)(item) for item in texts(value))

    return read


def builder(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read which builder builds."""
    if value in {"auto", "docker"} or (isinstance(value, str) and re.fullmatch(r"buildx:[\w.-]+", value)):
        return str(value)
    raise ValueError(f'expected "auto", "docker" or "buildx:<name>", not {value!r}')


def platforms(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    """Read the one platform, as a list."""
    platforms = texts(value)
    if len(platforms) != 1 or not re.fullmatch(r"linux/[a-z0-9]+(/v\d)?", platforms[0]):
        raise ValueError(f'expected one platform such as ["linux/amd64"], not {value!r}')
    return platforms


def arguments(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    """Read a table of texts."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"expected a table of texts, not {value!r}")
    return dict(value)


def secrets(value: Any) -> Mapping[str, Secret]:  # noqa: ANN401 - checked here
    """Read build secrets."""
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


def registry(value: Any) -> Registry | None:  # noqa: ANN401 - checked here
    """Read a registry, None for the embedded one."""
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
        return EcrPlace(account=parts[1], region=parts[2])
    return ecr_place(url.partition("/")[0])


def ecr_place(host: str) -> EcrPlace | None:
    """Tell which ECR a registry is by its name; None for another registry."""
    parts = _ECR_HOST.fullmatch(host)
    return EcrPlace(account=parts[1], region=parts[2]) if parts is not None else None


def partition(region: str) -> str:
    """Return the first part of a region's ARNs after ``arn``."""
    return next((name for start, name in _PARTITIONS.items() if region.startswith(f"{start}-")), "aws")


def account(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read an account's number; empty for none."""
    if not isinstance(value, str) or not re.fullmatch(r"(\d{12})?", value):
        raise ValueError(f"expected an account's twelve digits as text, not {value!r}")
    return value


def arn(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read an ARN; empty for none."""
    if not isinstance(value, str) or (value and not re.fullmatch(r"arn:aws[a-z-]*:[a-z0-9-]+:[^:\s]*:[^:\s]*:\S+", value)):
        raise ValueError(f"expected an ARN such as arn:aws:iam::123456789012:role/build, not {value!r}")
    return value


def principals(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    """Read accounts and ARNs of roles."""
    found = texts(value)
    for principal in found:
        if not re.fullmatch(r"\d{12}", principal):
            arn(principal or "none")
    return found


def mirrors(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    """Read where registries are mirrored."""
    found = arguments(value)
    for host, place in found.items():
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host) or not re.fullmatch(
            r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9]+([._/-][a-z0-9]+)*)?", place
        ):
            raise ValueError(f'{host}: expected "docker.io" = "host[:port][/path]" without scheme, not {place!r}')
    return found


def host(value: Any) -> str | None:  # noqa: ANN401 - checked here
    """Read the address of a service, None for the embedded one."""
    if value == "embedded":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s@?#]+", value):
        raise ValueError(f"expected an http or https address without credentials, ? and #, not {value!r}")
    try:
        urlsplit(value)
    except ValueError as error:  # brackets without an IPv6 address in them
        raise ValueError(f"{error}: {value!r}") from error
    return value.rstrip("/")


def address(value: Any) -> str | None:  # noqa: ANN401 - checked here
    """Read an address, None when it is empty."""
    return None if value == "" else host(value)


def credentials(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    """Read what Jenkins binds."""
    found = arguments(value)
    for variable, told in found.items():
        if _OWNED.match(variable):
            raise ValueError(f"{variable}: a variable that steers the build is no credential")
        if not re.fullmatch(r"[A-Za-z_]\w*", variable) or not re.fullmatch(rf"({'|'.join(CREDENTIAL_KINDS)}):[\w.-]+", told):
            raise ValueError(f'{variable}: expected VARIABLE = "kind:id", the kind of {", ".join(CREDENTIAL_KINDS)}')
    return found


def pipeline_root(value: Any) -> str:  # noqa: ANN401 - checked here
    """Read where runs keep their artifacts."""
    if not isinstance(value, str) or (value and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s@]+", value)):
        raise ValueError(f"expected an address such as s3://bucket/prefix, not {value!r}")
    return value.rstrip("/")


def labels(value: Any) -> Mapping[str, str]:  # noqa: ANN401 - checked here
    """Read a table of labels as Kubernetes takes them."""
    found = arguments(value)
    for name, text in found.items():
        if not LABEL.fullmatch(name) or (text and not LABEL.fullmatch(text)):
            raise ValueError(f"{name}: expected at most 63 letters, digits, '.', '_' and '-' in name and value, not {text!r}")
    return found


def auth(value: Any) -> Auth:  # noqa: ANN401 - checked here
    """Read how to log in."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f'expected a table such as {{ kind = "token", file = "…" }}, not {value!r}')
    kind = one_of(*AUTH_KINDS)(value.get("kind"))
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

_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
_ECR_HOST = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")

TIERS = ("laptop", "pull-request", "main")
