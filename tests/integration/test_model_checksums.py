"""Models in S3, as moto answers: pages, folders, S3's own checksums, access denied, and an artifact that somebody changed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from trainshed import config
from trainshed.console import Console
from trainshed.errors import UsageError, WorkFailed
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.deploying.checksums import Source, checksum, of_files
from trainshed.tools import s3
from trainshed.tools.aws import Aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "models"
CONTENT = bytes(range(256)) * 100_000


@pytest.fixture(scope="module")
def aws(moto: str) -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        found = Aws(region="us-east-1", endpoints={"*": moto})
        found.call("s3", "create_bucket", Bucket=BUCKET)
        yield found


@pytest.fixture
def bucket(aws: Aws) -> S3Client:
    return cast("S3Client", aws._client("s3"))


@pytest.fixture
def context(tmp_path: Path, moto: str, aws: Aws) -> Iterator[Context]:
    (tmp_path / "trainshed.toml").write_text(f'[project]\nname = "small"\n[environments.dev]\naws.endpoint-url = "{moto}"\n')
    loaded = config.load(tmp_path / "trainshed.toml", environment="dev")
    said = io.StringIO()
    made = Context(config=loaded, console=Console(said, root=tmp_path), tier=Tier.LAPTOP)
    made.__dict__["aws"] = aws
    yield made
    made.close()


def source(key: str, scheme: str = "s3") -> Source:
    return Source(pipeline="training", run_id="run-1", uri=f"{scheme}://{BUCKET}/{key}")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_an_object_is_streamed_once_and_known_from_then_on(
    context: Context, bucket: S3Client, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    key = f"v2/artifacts/{scheme}/a model #1"
    bucket.put_object(Bucket=BUCKET, Key=key, Body=CONTENT, ChecksumAlgorithm="CRC32")
    assert checksum(context, source(key, scheme)) == digest(CONTENT)
    monkeypatch.setattr(s3.S3, "sha256", lambda *_, **__: pytest.fail("read again"))
    assert checksum(context, source(key, scheme)) == digest(CONTENT)


def test_s3s_own_checksum_of_the_whole_object_spares_the_reading(
    context: Context, bucket: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Bucket=BUCKET, Key="own", Body=CONTENT, ChecksumAlgorithm="SHA256")
    monkeypatch.setattr(s3.S3, "_opened", lambda *_: pytest.fail("read"))
    assert checksum(context, source("own")) == digest(CONTENT)


def test_a_model_uploaded_in_parts_is_read(context: Context, bucket: S3Client) -> None:
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="parts", ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, content in enumerate((CONTENT, b"the end"), start=1):
        sent = bucket.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=content, ChecksumAlgorithm="SHA256")
        parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": sent["ChecksumSHA256"]})
    bucket.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})  # type: ignore[typeddict-item]
    assert checksum(context, source("parts")) == digest(CONTENT + b"the end")


def test_a_folder_of_more_objects_than_a_page_holds_has_one_checksum(
    context: Context, bucket: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a/deep/er", "a-b", *(f"part-{number}" for number in range(7))]
    for name in names:
        bucket.put_object(Bucket=BUCKET, Key=f"folder/{name}", Body=name.encode())
    bucket.put_object(Bucket=BUCKET, Key="folder/", Body=b"")
    bucket.put_object(Bucket=BUCKET, Key="folder-of-another", Body=b"not mine")
    ask, pages = Aws.call, []

    def small_pages(self: Aws, service: str, operation: str, /, **parameters: object) -> dict[str, object]:
        if operation == "list_objects_v2":
            pages.append(parameters)
            parameters["MaxKeys"] = 4
        return ask(self, service, operation, **parameters)

    monkeypatch.setattr(Aws, "call", small_pages)
    assert checksum(context, source("folder")) == of_files((name, digest(name.encode())) for name in names)
    assert len(pages) == 3


def test_an_artifact_that_was_changed_after_its_run_is_an_error_and_the_first_checksum_stays(context: Context, bucket: S3Client) -> None:
    bucket.put_object(Bucket=BUCKET, Key="changed", Body=b"trained")
    assert checksum(context, source("changed")) == digest(b"trained")
    bucket.put_object(Bucket=BUCKET, Key="changed", Body=b"poison!")
    for _ in range(2):
        with pytest.raises(WorkFailed, match="the model of run run-1 was changed after the run") as caught:
            checksum(context, source("changed"))
        assert digest(b"trained") in caught.value.message
    bucket.put_object(Bucket=BUCKET, Key="changed", Body=b"trained")
    assert checksum(context, source("changed")) == digest(b"trained")


@pytest.mark.parametrize("uri", [f"s3://{BUCKET}/none", "s3://no-such-bucket/model"])
def test_a_model_that_is_missing_is_gone(context: Context, uri: str) -> None:
    with pytest.raises(WorkFailed, match="the model of run run-1 is gone"):
        checksum(context, Source(pipeline="training", run_id="run-1", uri=uri))


@pytest.mark.parametrize("key", ["cold", "cold-folder/part"])
def test_a_model_that_a_lifecycle_has_archived_is_refused_although_its_checksum_is_known(
    context: Context, bucket: S3Client, key: str
) -> None:
    bucket.put_object(Bucket=BUCKET, Key=key, Body=b"trained", ChecksumAlgorithm="SHA256")
    checksum(context, source(key.partition("/")[0]))
    for kind in ("GLACIER", "DEEP_ARCHIVE"):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=b"trained", ChecksumAlgorithm="SHA256", StorageClass=kind)
        with pytest.raises(UsageError, match=f"is archived: {key} is in {kind}") as caught:
            checksum(context, source(key.partition("/")[0]))
        assert "GLACIER_IR" in caught.value.next_step
    bucket.put_object(Bucket=BUCKET, Key=key, Body=b"trained", ChecksumAlgorithm="SHA256", StorageClass="GLACIER_IR")
    checksum(context, source(key.partition("/")[0]))


def test_a_model_that_may_not_be_read_is_told_with_the_permissions_that_are_missing(context: Context, bucket: S3Client) -> None:
    bucket.put_object(Bucket=BUCKET, Key="closed", Body=b"trained")
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/closed"}
    bucket.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    try:
        with pytest.raises(UsageError, match="may not be read") as caught:
            checksum(context, source("closed"))
    finally:
        bucket.delete_bucket_policy(Bucket=BUCKET)
    assert "s3:GetObject, s3:ListBucket" in caught.value.next_step
