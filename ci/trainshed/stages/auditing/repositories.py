"""What is promised of the components' repositories: what ``trainshed registry ensure`` brings about, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainshed.errors import RemoteError
from trainshed.stages.auditing.promise import Audited, Promise, State, judged, unknown
from trainshed.stages.context import Context
from trainshed.stages.registry import promises
from trainshed.stages.registry.promises import Wanted
from trainshed.tools.aws import Refused
from trainshed.tools.ecr import Ecr
from trainshed.tools.ecr_repositories import Repositories, Repository

_WORDS = {
    "scan": "scanned at every push",
    "immutable": "tags cannot be moved",
    "encryption": "encrypted with KMS",
    "lifecycle": "lifecycle spares what somebody refers to",
    "policy": "policy names who may pull and push",
    "labels": "tagged with project and component",
}
_READ_AS = {"labels": "tags"}
_MEND = "Run `trainshed registry ensure`."
_READ = "Give the auditor leave to read it."


def audit(context: Context, ecr: Ecr, components: Iterable[str]) -> list[Audited]:
    """Judge the repository of each component."""
    prefix = context.repository_prefix.partition("/")[2]
    names = {f"{prefix}/{component}": component for component in components}
    repositories = Repositories(ecr.aws, ecr.account)
    try:
        key = repositories.key_of(context.config.environment.ecr.kms_key)
        found = repositories.describe(names)
    except (Refused, RemoteError) as error:
        return [Audited(kind="repository", name=name, promises=(unknown("as promised", error),)) for name in names]
    return [_one(name, found, promises.wanted(context.config, component, kms_key=key)) for name, component in names.items()]


def _one(name: str, found: Mapping[str, Repository], wanted: Wanted) -> Audited:
    repository = found.get(name)
    if repository is None:
        return Audited(kind="repository", name=name, promises=(judged("exists", "there is no such repository", _MEND),))
    broken = promises.broken(repository, wanted)
    aspects = dict.fromkeys([*_WORDS, *broken])
    return Audited(kind="repository", name=name, promises=tuple(_promise(aspect, broken.get(aspect, ""), repository) for aspect in aspects))


def _promise(aspect: str, wrong: str, repository: Repository) -> Promise:
    what = _WORDS.get(aspect, aspect)
    if _READ_AS.get(aspect, aspect) in repository.unread:
        return Promise(what=what, state=State.UNKNOWN, found=wrong or "it may not be read", step=_READ, exit_code=Refused.exit_code)
    return judged(what, wrong, _MEND)
