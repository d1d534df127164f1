from __future__ import annotations

from typing import Any

import pytest

from trainshed.stages.auditing.buckets import encryption_wrong, key_wrong, lifecycle_wrong, transport_wrong

BUCKET = "arn:aws:s3:::data"
DENY: dict[str, Any] = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [BUCKET, f"{BUCKET}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
COLD: dict[str, Any] = {"Status": "Enabled", "Filter": {"Prefix": ""}, "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}]}


def encrypted(algorithm: str, *, key: bool = False) -> list[dict[str, Any]]:
    return [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}, "BucketKeyEnabled": key}]


def test_only_kms_counts_as_encrypted() -> None:
    assert encryption_wrong(encrypted("aws:kms")) == ""
    assert encryption_wrong(encrypted("aws:kms:dsse")) == ""
    assert encryption_wrong(encrypted("AES256")) == "default encryption: AES256"
    assert encryption_wrong([]) == "default encryption: none"


def test_the_bucket_key_is_asked_for_where_there_can_be_one() -> None:
    assert key_wrong(encrypted("aws:kms", key=True)) == ""
    assert key_wrong(encrypted("aws:kms:dsse")) == ""
    assert key_wrong(encrypted("aws:kms")) == "the bucket key is off"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"Principal": {"AWS": "*"}},
        {"Principal": {"AWS": ["*"]}},
        {"Action": ["S3:*"]},
        {"Action": "*"},
        {"Resource": "*"},
        {"Resource": f"{BUCKET}*"},
        {"Resource": ["arn:aws-cn:s3:::data", "arn:aws-cn:s3:::data/*"]},
        {"Condition": {"BoolIfExists": {"AWS:securetransport": False}}},
        {"Condition": {"Bool": {"aws:SecureTransport": ["false"]}}},
        {"Condition": {"StringEquals": {"aws:SecureTransport": "false"}}},
    ],
    ids=repr,
)
def test_a_denial_of_all_without_tls_is_known_in_every_form(change: dict[str, Any]) -> None:
    assert transport_wrong({"Statement": DENY | change}, "data") == ""
    assert transport_wrong({"Statement": [DENY | change]}, "data") == ""


@pytest.mark.parametrize(
    "change",
    [
        {"Effect": "Allow"},
        {"Principal": {"AWS": "arn:aws:iam::123456789012:root"}},
        {"Principal": {"Service": "*"}},
        {"Action": "s3:Get*"},
        {"Action": ["s3:GetObject", "s3:PutObject"]},
        {"Resource": ["arn:aws:s3:::other", "arn:aws:s3:::other/*"]},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"Bool": {"aws:ViaAWSService": "false"}}},
        {"Condition": {"BoolIfExists": {"aws:SecureTransport": "false", "aws:PrincipalIsAWSService": "false"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:SourceVpc": "vpc-1"}}},
        {"Condition": {"StringNotEquals": {"aws:SecureTransport": "false"}}},
        {"Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}}},
    ],
    ids=repr,
)
def test_a_denial_that_lets_some_through_is_none(change: dict[str, Any]) -> None:
    told = transport_wrong({"Statement": [DENY | change]}, "data")
    assert told == "requests without TLS are not denied for the bucket and its objects"


def test_bucket_and_objects_may_be_denied_by_two_statements() -> None:
    one, other = DENY | {"Resource": BUCKET}, DENY | {"Resource": f"{BUCKET}/*"}
    assert transport_wrong({"Statement": [one, other]}, "data") == ""
    assert transport_wrong({"Statement": [other]}, "data") == "requests without TLS are not denied for the bucket"
    assert transport_wrong({"Statement": [one]}, "data") == "requests without TLS are not denied for its objects"
    assert transport_wrong(None, "data") == "there is no bucket policy: requests without TLS are served"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"Filter": {}},
        {"Filter": {"And": {"Prefix": ""}}},
        {"Transitions": [{"Days": 0, "StorageClass": "DEEP_ARCHIVE"}]},
        {"Transitions": [{"Days": 90, "StorageClass": "DEEP_ARCHIVE"}, {"Days": 7, "StorageClass": "GLACIER_IR"}]},
    ],
    ids=repr,
)
def test_a_lifecycle_to_glacier_is_known(change: dict[str, Any]) -> None:
    assert lifecycle_wrong([COLD | change]) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"Status": "Disabled"},
        {"Filter": {"Prefix": "logs/"}},
        {"Filter": {"Tag": {"Key": "cold", "Value": "yes"}}},
        {"Filter": {"And": {"Prefix": "", "ObjectSizeGreaterThan": 131072}}},
        {"Transitions": [{"Days": 31, "StorageClass": "GLACIER"}]},
        {"Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}]},
        {"Transitions": [{"Date": "2030-01-01", "StorageClass": "GLACIER"}]},
        {"Transitions": []},
    ],
    ids=repr,
)
def test_a_lifecycle_that_leaves_some_warm_is_told(change: dict[str, Any]) -> None:
    assert "moves all of it to Glacier within 30 days" in lifecycle_wrong([COLD | change])


def test_a_lifecycle_is_held_to_the_place_of_the_artifacts() -> None:
    assert lifecycle_wrong([COLD | {"Filter": {"Prefix": "runs/"}}], "runs/prod/") == ""
    assert lifecycle_wrong([{**{key: COLD[key] for key in ("Status", "Transitions")}, "Prefix": "runs"}], "runs/") == ""
    assert "all below runs/" in lifecycle_wrong([COLD | {"Filter": {"Prefix": "runs/dev/"}}], "runs/")
    assert lifecycle_wrong([]) == "there is no lifecycle"
