"""What is promised of a repository, as documents, and what of it does not hold: `ensure` mends it, the audit tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainshed.config import Config
from trainshed.console import counted
from trainshed.tools.ecr_repositories import Repository
from trainshed.values import partition

KEEP = "keep-"
"""Beginning of the tag of an image that a lock or a running service refers to; the digest's digits follow."""

_DAY = 86_400.0
_FOR_EVER_DAYS = 36_500
# To look whether a layer is there (HEAD) is a permission of its own: `registry copy` and some clients do that before they pull.
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_PUSH = (
    *_PULL,
    "ecr:CompleteLayerUpload",
    "ecr:DescribeImageScanFindings",  # who pushes scans: from another account that is allowed here or nowhere
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:StartImageScan",
    "ecr:UploadLayerPart",
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a repository shall be. ``kms_key`` is a key's ARN, empty: any KMS key; ``policy`` None: nobody beside the account's own roles."""

    lifecycle: Mapping[str, Any]
    policy: Mapping[str, Any] | None
    kms_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def wanted(config: Config, component: str, *, kms_key: str | None = None) -> Wanted:
    """Return what the configuration promises of a component's repository.

    Args:
        config: that of an environment whose registry is ECR.
        component: its name.
        kms_key: the key behind ``ecr.kms-key``, where that names an alias.
    """
    ecr, registry = config.environment.ecr, config.environment.registry
    region = registry.ecr.region if registry is not None and registry.ecr is not None else config.environment.aws.region
    return Wanted(
        lifecycle=lifecycle(ecr.expire),
        policy=policy(ecr.pull, ecr.push, part=partition(region)),
        kms_key=ecr.kms_key if kms_key is None else kms_key,
        tags={"project": config.project.name, "component": component},
    )


def keep_tag(digest: str) -> str:
    """Return the tag that keeps an image: unique for the digest, as tags that cannot be moved have to be."""
    return KEEP + digest.removeprefix("sha256:")


def lifecycle(expire: float) -> dict[str, Any]:
    """Return the lifecycle policy.

    An image that the tags of one rule match is never touched by a rule after it, so the first rule, whose age nothing reaches,
    protects what is kept. A list of patterns asks for all of them, so each has a rule of its own.
    """
    days = max(1, round(expire / _DAY))
    rules = [
        _rule(1, "kept: a lock or a service refers to it", _FOR_EVER_DAYS, tagStatus="tagged", tagPatternList=[f"{KEEP}*"]),
        _rule(2, "of a pull request", days, tagStatus="tagged", tagPatternList=["in-*-pr"]),
        _rule(3, "of a laptop", days, tagStatus="tagged", tagPatternList=["in-*-laptop"]),
        _rule(4, "untagged", days, tagStatus="untagged"),
        _rule(5, "in no lock", days, tagStatus="tagged", tagPatternList=["in-*"]),
    ]
    return {"rules": rules}


def policy(pull: Iterable[str], push: Iterable[str], *, part: str = "aws") -> dict[str, Any] | None:
    """Return the repository policy for accounts and roles that may pull and push; None where there are none."""
    pushing = sorted({_arn(each, part) for each in push})
    pulling = sorted({_arn(each, part) for each in pull} - set(pushing))
    named = (("TrainshedPull", pulling, _PULL), ("TrainshedPush", pushing, _PUSH))
    statements = [
        {"Sid": name, "Effect": "Allow", "Principal": {"AWS": principals}, "Action": sorted(actions)}
        for name, principals, actions in named
        if principals
    ]
    return {"Version": "2012-10-17", "Statement": statements} if statements else None


def broken(repository: Repository, wanted: Wanted) -> dict[str, str]:
    """Return what of the promise does not hold: ``scan``, ``tags``…, each with what is and what shall be."""
    told = {
        "scan": "" if repository.scan_on_push else "scan on push: off, shall be on",
        "immutable": "" if repository.immutable else f"tags: {repository.mutability.lower().replace('_', ' ')}, shall be immutable",
        "encryption": _encryption(repository, wanted),
        "lifecycle": _lifecycle(repository, wanted),
        "policy": _policy(repository, wanted),
        "labels": _labels(repository, wanted),
    }
    return {aspect: text for aspect, text in told.items() if text}


def statements(policy: Mapping[str, Any] | None) -> frozenset[str]:
    """Return what a policy says, whatever the order and form in which it is written: AWS gives it back in its own.

    An account's number is the ARN of its root; names of statements, and the version, decide nothing here.
    """
    told = (policy or {}).get("Statement", ())
    return frozenset(_statement(each) for each in ([told] if isinstance(told, Mapping) else told))


def _encryption(repository: Repository, wanted: Wanted) -> str:
    if not repository.encryption.startswith("KMS"):
        return f"encryption: {repository.encryption}, shall be KMS{f' with {wanted.kms_key}' if wanted.kms_key else ''}"
    if wanted.kms_key and repository.kms_key != wanted.kms_key:
        return f"encryption: KMS with {repository.kms_key or 'a key that is not told'}, shall be with {wanted.kms_key}"
    return ""


def _lifecycle(repository: Repository, wanted: Wanted) -> str:
    if "lifecycle" in repository.unread:
        return "lifecycle policy: may not be read"
    if _rules(repository.lifecycle) == _rules(wanted.lifecycle):
        return ""
    found = "none" if repository.lifecycle is None else f"{counted(_rules(repository.lifecycle), 'rule')} of another kind"
    return f"lifecycle policy: {found}, shall be ours"


def _policy(repository: Repository, wanted: Wanted) -> str:
    if "policy" in repository.unread:
        return "repository policy: may not be read"
    have, want = statements(repository.policy), statements(wanted.policy)
    said = [f"takes away {each}" for each in sorted(have - want)] + [f"adds {each}" for each in sorted(want - have)]
    return f"repository policy: {'; '.join(said)}" if said else ""


def _labels(repository: Repository, wanted: Wanted) -> str:
    if "tags" in repository.unread:
        return "tags of the repository: may not be read"
    missing = [f"{name}={value}" for name, value in sorted(wanted.tags.items()) if repository.tags.get(name) != value]
    return f"tags of the repository: {', '.join(missing)} missing" if missing else ""


def _statement(document: Mapping[str, Any]) -> str:
    kept: dict[str, Any] = {name: value for name, value in document.items() if name != "Sid"}
    for name in ("Action", "NotAction"):
        if name in kept:
            kept[name] = sorted({action.lower() for action in _listed(kept[name])})
    for name in ("Principal", "NotPrincipal"):
        if name in kept:
            kept[name] = _principals(kept[name])
    return json.dumps(kept, sort_keys=True)


def _principals(value: Any) -> dict[str, list[str]]:  # noqa: ANN401 - a policy's text or object
    kinds = {"AWS": value} if not isinstance(value, Mapping) else value
    return {kind: sorted({_arn(each) if kind == "AWS" else each for each in _listed(told)}) for kind, told in kinds.items()}


def _listed(value: Any) -> list[str]:  # noqa: ANN401 - one text or many
    return [value] if isinstance(value, str) else list(value)


def _arn(principal: str, part: str = "aws") -> str:
    return f"arn:{part}:iam::{principal}:root" if principal.isdecimal() else principal


def _rule(priority: int, description: str, days: int, **selection: Any) -> dict[str, Any]:  # noqa: ANN401 - see the format
    chosen = {**selection, "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    return {"rulePriority": priority, "description": description, "selection": chosen, "action": {"type": "expire"}}


def _rules(policy: Mapping[str, Any] | None) -> list[str]:
    """Return the rules in the order in which they hold, without what is for the reader alone."""
    rules = sorted((policy or {}).get("rules", ()), key=lambda rule: rule.get("rulePriority", 0))
    return [
        json.dumps({name: value for name, value in rule.items() if name not in {"description", "rulePriority"}}, sort_keys=True)
        for rule in rules
    ]
