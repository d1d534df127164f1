"""ECR's repositories: what each of them is set to, read as one record, and the calls that change it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainshed.errors import RemoteError
from trainshed.tools import process
from trainshed.tools.aws import Aws, Refused

T = TypeVar("T")

_SCANNING_AT_ONCE = 25
_READERS = 8
_SCANNED = frozenset({"SCAN_ON_PUSH", "CONTINUOUS_SCAN"})
_PREVIEW_SECONDS = 300.0
_FIRST_LOOK, _LONGEST_LOOK = 0.1, 5.0


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository as it is. ``lifecycle`` and ``policy`` are documents, None where there is none.

    ``mutability`` and ``encryption`` are ECR's words; ``kms_key`` is the key's ARN, empty without KMS; ``unread`` names what this
    caller may not read: its field says nothing then.
    """

    name: str
    arn: str
    scan_on_push: bool
    mutability: str
    encryption: str
    kms_key: str = ""
    lifecycle: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def immutable(self) -> bool:
        """Tell whether no tag can be moved, without an exception."""
        return self.mutability == "IMMUTABLE"


@dataclass(frozen=True, kw_only=True)
class PullThrough:
    """A rule of the pull-through cache: what is pulled as ``prefix/…`` comes from ``upstream``, there from below ``path`` if not empty."""

    prefix: str
    upstream: str
    credential: str = ""
    path: str = ""


class Repositories:
    """The repositories of one account in the region of ``aws``; every error is one of `Aws.call`."""

    def __init__(self, aws: Aws, account: str, *, preview_seconds: float = _PREVIEW_SECONDS) -> None:
        self._aws, self._account, self._preview_seconds = aws, account, preview_seconds

    def describe(self, names: Iterable[str]) -> dict[str, Repository]:
        """Return those of the named repositories that there are. Each is asked for by its name: a list would need leave over all."""
        documents = self._each(self._document, sorted(set(names)))
        found = {name: document for name, document in documents.items() if document is not None}
        scanned = self._scanned([name for name, document in found.items() if not _flag(document)])
        return self._each(lambda name: self._whole(found[name], scanned=name in scanned), list(found))

    def create(self, name: str, *, kms_key: str, tags: Mapping[str, str]) -> Repository:
        """Make a repository: scanned at every push, tags that cannot be moved, encrypted by KMS.

        Args:
            name: path in the registry.
            kms_key: ARN of the key; empty: AWS's own.
            tags: of the repository, not of images.
        """
        encryption = {"encryptionType": "KMS", **({"kmsKey": kms_key} if kms_key else {})}
        answer = self._call(
            "create_repository",
            repositoryName=name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration=encryption,
            tags=_tags(tags),
        )
        return _repository(answer["repository"], scanned=False, tags=tags)

    def scan_on_push(self, name: str) -> None:
        """Have every image scanned when it is pushed."""
        self._call("put_image_scanning_configuration", repositoryName=name, imageScanningConfiguration={"scanOnPush": True})

    def make_immutable(self, name: str) -> None:
        """Have no tag moved."""
        self._call("put_image_tag_mutability", repositoryName=name, imageTagMutability="IMMUTABLE")

    def put_lifecycle(self, name: str, policy: Mapping[str, Any]) -> None:
        """Set what expires."""
        self._call("put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=json.dumps(policy))

    def put_policy(self, name: str, policy: Mapping[str, Any] | None) -> None:
        """Set who may pull and push beside the account's own roles; None: nobody."""
        if policy is None:
            self._call("delete_repository_policy", repositoryName=name)
        else:
            self._call("set_repository_policy", repositoryName=name, policyText=json.dumps(policy))

    def put_tags(self, repository: Repository, tags: Mapping[str, str]) -> None:
        """Set tags of the repository; others stay."""
        self._aws.call("ecr", "tag_resource", resourceArn=repository.arn, tags=_tags(tags))

    def expiring(self, name: str, policy: Mapping[str, Any]) -> dict[str, int]:
        """Return the digests that a lifecycle policy would delete now, each with the priority of the rule; ECR evaluates it itself.

        Raises:
            RemoteError: the evaluation failed, or did not end in time.
        """
        text = json.dumps(policy)
        ends = time.monotonic() + self._preview_seconds
        self._started(name, text, ends)
        self._awaited(lambda: self._preview(name) != "IN_PROGRESS", ends, name)
        status = self._preview(name)
        if status != "COMPLETE":
            raise RemoteError(f"{name}: ECR did not evaluate the lifecycle policy ({status})", next_step="Run it again.")
        pages = self._aws.pages("ecr", "get_lifecycle_policy_preview", registryId=self._account, repositoryName=name)
        found: dict[str, int] = {}
        for page in pages:
            if json.loads(page["lifecyclePolicyText"]) != policy:
                raise RemoteError(f"{name}: somebody else evaluates another lifecycle policy", next_step="Run it again.")
            for result in page.get("previewResults", ()):
                if result.get("action", {}).get("type") == "EXPIRE":
                    found[result["imageDigest"]] = result.get("appliedRulePriority", 0)
        return found

    def pull_through_rules(self) -> dict[str, PullThrough]:
        """Return the rules of the registry's pull-through cache, by prefix."""
        return {
            rule["ecrRepositoryPrefix"]: PullThrough(
                prefix=rule["ecrRepositoryPrefix"],
                upstream=rule["upstreamRegistryUrl"],
                credential=rule.get("credentialArn", ""),
                path=rule.get("upstreamRepositoryPrefix", "").removesuffix("ROOT"),
            )
            for page in self._aws.pages("ecr", "describe_pull_through_cache_rules", registryId=self._account)
            for rule in page.get("pullThroughCacheRules", ())
        }

    def create_pull_through_rule(self, prefix: str, upstream: str) -> None:
        """Have ``prefix/…`` come from a registry that asks for no log-in."""
        self._call("create_pull_through_cache_rule", ecrRepositoryPrefix=prefix, upstreamRegistryUrl=upstream)

    def key_of(self, arn: str) -> str:
        """Return the ARN of the key behind the ARN of an alias; that of a key is itself."""
        if ":alias/" not in arn:
            return arn
        return str(self._aws.call("kms", "describe_key", KeyId=arn)["KeyMetadata"]["Arn"])

    def _call(self, operation: str, /, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - see the API
        return self._aws.call("ecr", operation, registryId=self._account, **parameters)

    def _each(self, read: Callable[[str], T], names: list[str]) -> dict[str, T]:
        """Read something of each repository, some at once."""

        def work() -> dict[str, T]:
            with ThreadPoolExecutor(_READERS, initializer=process.abandonable) as pool:
                return dict(zip(names, pool.map(read, names), strict=True))

        return process.interruptible(work)

    def _document(self, name: str) -> Mapping[str, Any] | None:
        asked = {"registryId": self._account, "repositoryNames": [name]}
        answer = self._aws.find("ecr", "describe_repositories", "RepositoryNotFoundException", **asked)
        return None if answer is None else dict(answer["repositories"][0])

    def _whole(self, document: Mapping[str, Any], *, scanned: bool) -> Repository:
        name, unread = document["repositoryName"], []

        def read(what: str, operation: str, key: str, **parameters: str) -> Any:  # noqa: ANN401 - as the key has it
            try:
                return self._aws.call("ecr", operation, **parameters)[key]
            except Refused as error:
                if error.denied:
                    unread.append(what)
                elif error.code not in {"LifecyclePolicyNotFoundException", "RepositoryPolicyNotFoundException"}:
                    raise
                return None

        place = {"registryId": self._account, "repositoryName": name}
        lifecycle = read("lifecycle", "get_lifecycle_policy", "lifecyclePolicyText", **place)
        policy = read("policy", "get_repository_policy", "policyText", **place)
        tags = read("tags", "list_tags_for_resource", "tags", resourceArn=document["repositoryArn"]) or ()
        return _repository(
            document,
            scanned=scanned,
            lifecycle=None if lifecycle is None else json.loads(lifecycle),
            policy=None if policy is None else json.loads(policy),
            tags={tag["Key"]: tag["Value"] for tag in tags},
            unread=tuple(unread),
        )

    def _scanned(self, names: list[str]) -> set[str]:
        """Return those that the registry's own rules have scanned at every push, whatever the repository's flag says."""
        found: set[str] = set()
        for start in range(0, len(names), _SCANNING_AT_ONCE):
            asked = names[start : start + _SCANNING_AT_ONCE]
            try:
                # Of whose registry is not ours to say: this operation knows none but the caller's.
                answer = self._aws.call("ecr", "batch_get_repository_scanning_configuration", repositoryNames=asked)
            except Refused:
                return found
            found |= {each["repositoryName"] for each in answer["scanningConfigurations"] if self._covers(each)}
        return found

    def _covers(self, scanning: Mapping[str, Any]) -> bool:
        own = f":{self._account}:" in scanning.get("repositoryArn", "")
        return own and scanning.get("scanFrequency") in _SCANNED

    def _started(self, name: str, text: str, ends: float) -> None:
        def start() -> bool:
            try:
                self._call("start_lifecycle_policy_preview", repositoryName=name, lifecyclePolicyText=text)
            except Refused as error:
                if error.code != "LifecyclePolicyPreviewInProgressException":
                    raise
                return False
            return True

        self._awaited(start, ends, name)

    def _preview(self, name: str) -> str:
        asked = {"registryId": self._account, "repositoryName": name}
        # Just after its start not every part of ECR knows of it.
        answer = self._aws.find("ecr", "get_lifecycle_policy_preview", "LifecyclePolicyPreviewNotFoundException", **asked)
        return "IN_PROGRESS" if answer is None else str(answer["status"])

    def _awaited(self, done: Callable[[], bool], ends: float, name: str) -> None:
        look = _FIRST_LOOK
        while not done():
            if time.monotonic() + look > ends:
                message = f"{name}: ECR has not evaluated the lifecycle policy within {self._preview_seconds:g} s"
                raise RemoteError(message, next_step="Run it again.")
            process.pause(look)
            look = min(_LONGEST_LOOK, look * 2)


def _repository(document: Mapping[str, Any], *, scanned: bool, **more: Any) -> Repository:  # noqa: ANN401 - fields of the record
    encryption = document.get("encryptionConfiguration") or {}
    return Repository(
        name=document["repositoryName"],
        arn=document["repositoryArn"],
        scan_on_push=scanned or _flag(document),
        mutability=document.get("imageTagMutability", "MUTABLE"),
        encryption=encryption.get("encryptionType", "AES256"),
        kms_key=encryption.get("kmsKey", ""),
        **more,
    )


def _flag(document: Mapping[str, Any]) -> bool:
    return bool((document.get("imageScanningConfiguration") or {}).get("scanOnPush"))


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in sorted(tags.items())]
