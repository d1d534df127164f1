"""What Jenkins tells of jobs, parameters and builds, and how it writes their names into addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from trainshed.errors import RemoteError, UsageError

BUILD_TREE = "number,url,queueId,building,result,timestamp,description,actions[lastBuiltRevision[SHA1,branch[name]],parameters[name,value]]"
PARAMETERS_TREE = "property[parameterDefinitions[name,type,description,choices,defaultParameterValue[value]]]"
_ENCODED = {character: f"%{ord(character):02X}" for character in "#%/?[]\\"}
_KINDS = {
    "StringParameterDefinition": "string",
    "TextParameterDefinition": "text",
    "BooleanParameterDefinition": "boolean",
    "ChoiceParameterDefinition": "choice",
    "PasswordParameterDefinition": "password",
}


class NotFound(UsageError):
    """Jenkins has no such job, branch or build, or does not show it to this user."""


class Unavailable(RemoteError):
    """The controller is away, starts up or is busy; what was asked has not been done, and may be asked again."""


class Denied(RemoteError):
    """The controller does not know the user, or the user may not do that."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that can be built. ``path`` is its full name without the branch; ``address`` its place under the controller's address."""

    path: str
    branch: str | None
    address: str

    def __str__(self) -> str:
        return self.path if self.branch is None else f"{self.path} (branch {self.branch})"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A parameter that a job takes: ``kind`` is string, text, boolean, choice, password or other; no default where Jenkins tells none."""

    name: str
    kind: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Build:
    """A build as it stands. ``result`` is None while it runs, ``timestamp`` seconds since the epoch, ``url`` as Jenkins itself says it."""

    number: int
    url: str
    queue_id: int
    building: bool
    result: str | None
    commit: str | None
    branch: str
    parameters: Mapping[str, str]
    timestamp: float
    description: str


def encode_branch(name: str) -> str:
    """Return the name that a multibranch project gives to the job of a branch."""
    whole = {"": "%00", ".": "%2E", "..": "%2E."}
    return whole.get(name) or "".join(_ENCODED.get(character, character) for character in name)


def address_of(segments: Iterable[str]) -> str:
    """Return the address of a job below the controller's: ``job/team/job/repo``."""
    return "/".join(f"job/{quote(segment, safe='')}" for segment in segments)


def address_in(url: str) -> str:
    """Return the place of a job or build below the controller's address; the one that Jenkins believes to have may be another."""
    path = urlsplit(url).path
    start = path.find("/job/")
    if start < 0:
        raise UsageError(f"{url}: not the address of a job or a build", next_step="Give an address such as …/job/team/job/repository/7/.")
    return path[start:].strip("/")


def same_job(url: str, job: Job) -> bool:
    """Tell whether an address that Jenkins gave is that of a job."""
    return "/job/" in url and unquote(address_in(url)) == unquote(job.address)


def build_from(document: Mapping[str, Any], job: Job) -> Build:
    """Read a build that was asked for with `BUILD_TREE`."""
    actions = [action for action in document.get("actions") or () if action]
    commit, branch = _revision(actions, job.branch)
    try:
        return Build(
            number=int(document["number"]),
            url=str(document["url"]),
            queue_id=int(document.get("queueId") or -1),
            building=bool(document.get("building")),
            result=document.get("result"),
            commit=commit,
            branch=job.branch if job.branch is not None else branch,
            parameters=_parameters(actions),
            timestamp=float(document.get("timestamp") or 0) / 1000,
            description=document.get("description") or "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteError(f"{job}: Jenkins told of a build without number or address", next_step="Check the controller.") from error


def definitions_from(document: Mapping[str, Any]) -> list[Definition]:
    """Read the parameters of a job that was asked for with `PARAMETERS_TREE`."""
    told = [each for part in document.get("property") or () if part for each in part.get("parameterDefinitions") or ()]
    return [
        Definition(
            name=str(each["name"]),
            kind=_KINDS.get(str(each.get("type", "")), "other"),
            default=_text((each.get("defaultParameterValue") or {}).get("value")),
            choices=tuple(str(choice) for choice in each.get("choices") or ()),
            description=each.get("description") or "",
        )
        for each in told
    ]


def _parameters(actions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what a build was given; a password has no value here."""
    told = [each for action in actions for each in action.get("parameters") or ()]
    return {str(each["name"]): text for each in told if (text := _text(each.get("value"))) is not None}


def _revision(actions: Iterable[Mapping[str, Any]], branch: str | None) -> tuple[str | None, str]:
    """Return commit and branch that were built.

    A build that uses a shared library has a revision for that too, often before its own: the job's own branch tells them apart.
    """
    revisions = [action["lastBuiltRevision"] for action in actions if action.get("lastBuiltRevision")]
    named = [(revision.get("SHA1"), _branch_name(revision)) for revision in revisions]
    own = [each for each in named if branch is not None and each[1] == branch]
    return (own or named or [(None, "")])[0]


def _branch_name(revision: Mapping[str, Any]) -> str:
    names = [str(each.get("name", "")) for each in revision.get("branch") or ()]
    return names[0].removeprefix("refs/remotes/").removeprefix("origin/") if names else ""


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
