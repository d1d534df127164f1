"""S3's buckets: how they are set up, not what is in them; read only. A bucket of another region is found by S3's own redirects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainshed.errors import UsageError
from trainshed.tools.aws import Aws, Refused

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_NO_BLOCK = "NoSuchPublicAccessBlockConfiguration"


class MissingBucket(UsageError):
    """There is no such bucket."""


class Buckets:
    """The buckets that an identity can ask about. Every method raises `MissingBucket` where there is none."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def encryption(self, bucket: str) -> list[Mapping[str, Any]]:
        """Return the rules of the default encryption."""
        missing = "ServerSideEncryptionConfigurationNotFoundError"
        answer = self._find("get_bucket_encryption", bucket, missing)
        return list(answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", []))

    def policy(self, bucket: str) -> Mapping[str, Any] | None:
        """Return the bucket's policy, None when it has none."""
        answer = self._find("get_bucket_policy", bucket, "NoSuchBucketPolicy")
        document = json.loads(answer["Policy"]) if answer.get("Policy") else None
        return document if isinstance(document, dict) else None

    def lifecycle(self, bucket: str) -> list[Mapping[str, Any]]:
        """Return the rules of the lifecycle."""
        return list(self._find("get_bucket_lifecycle_configuration", bucket, "NoSuchLifecycleConfiguration").get("Rules", []))

    def unblocked(self, bucket: str) -> list[str]:
        """Return which of the four blocks of public access a bucket lacks."""
        return _lacking(self._find("get_public_access_block", bucket, _NO_BLOCK))

    def account_unblocked(self, account: str) -> list[str]:
        """Return which of the four blocks of public access an account lacks."""
        return _lacking(self.aws.find("s3control", "get_public_access_block", _NO_BLOCK, AccountId=account) or {})

    def _find(self, operation: str, bucket: str, missing: str) -> Mapping[str, Any]:
        try:
            return self.aws.find("s3", operation, missing, Bucket=bucket) or {}
        except Refused as refusal:
            if refusal.code == "NoSuchBucket":
                raise MissingBucket(f"there is no bucket '{bucket}'", next_step="Create it, or mend the configuration.") from refusal
            raise


def _lacking(answer: Mapping[str, Any]) -> list[str]:
    found = answer.get("PublicAccessBlockConfiguration", {})
    return [name for name in _BLOCKS if found.get(name) is not True]
