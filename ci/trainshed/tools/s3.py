"""S3 through boto3: what lies under an address, and its SHA-256, streamed where S3 does not know it itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trainshed.errors import RemoteError, WorkFailed
from trainshed.tools import process
from trainshed.tools.aws import Aws, Refused

_CHUNK = 4 * 1024 * 1024
_FAILURES = 5
_PAUSE = 0.2
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket"})
_CHANGED = "PreconditionFailed"
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object as it is now. ``stamp`` changes with its content; ``sha256`` is S3's own, empty where it has none of the whole.

    ``archive`` is the class of storage out of which it has to be restored before it is read, empty where there is no need.
    """

    key: str
    size: int
    etag: str
    stamp: str
    sha256: str = ""
    archive: str = ""


class S3:
    """The objects that one identity may read."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def object(self, bucket: str, key: str) -> Stored | None:
        """Return an object, None where there is none.

        Raises:
            Refused: it may not be looked at; also of one that is missing, where the bucket may not be listed.
        """
        try:
            found = self._aws.call("s3", "head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except Refused as error:
            if error.code in _ABSENT:
                return None
            raise
        stamp = "/".join((found["ETag"], str(found["ContentLength"]), found.get("VersionId", "")))
        return Stored(key=key, size=found["ContentLength"], etag=found["ETag"], stamp=stamp, sha256=_own(found), archive=_archive(found))

    def below(self, bucket: str, prefix: str) -> Iterator[Stored]:
        """Yield the objects whose keys begin so, page by page; what only marks a folder is none."""
        try:
            for page in self._aws.pages("s3", "list_objects_v2", Bucket=bucket, Prefix=prefix):
                for found in page.get("Contents", []):
                    if not found["Key"].endswith("/"):
                        stamp = "/".join((found["ETag"], str(found["Size"]), found["LastModified"].isoformat()))
                        yield Stored(key=found["Key"], size=found["Size"], etag=found["ETag"], stamp=stamp, archive=_archive(found))
        except Refused as error:
            if error.code not in _ABSENT:
                raise

    def sha256(self, bucket: str, stored: Stored, *, on_progress: Callable[[int], None] | None = None) -> str:
        """Return the SHA-256 of an object as it was looked at; read on where a broken connection left off.

        Raises:
            WorkFailed: it was changed meanwhile.
            RemoteError: the connection broke again and again.
        """
        if stored.sha256 or not stored.size:
            return stored.sha256 or hashlib.sha256().hexdigest()
        digest, done, failures = hashlib.sha256(), 0, 0
        while done < stored.size:
            before = done
            try:
                for chunk in self._chunks(bucket, stored, done):
                    digest.update(chunk)
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress(done)
                if done < stored.size:
                    raise _Broken("the connection was closed")  # noqa: TRY301 - as if it had said so
            except _Broken as error:
                failures = failures + 1 if done == before else 1
                if failures == _FAILURES:
                    message = f"s3://{bucket}/{stored.key}: broke off after {done} of {stored.size} bytes: {error}"
                    raise RemoteError(message, next_step="Run it again.") from error
                process.pause(_PAUSE * failures)
        return digest.hexdigest()

    def _chunks(self, bucket: str, stored: Stored, start: int) -> Iterator[bytes]:
        body = self._opened(bucket, stored, start)
        try:
            while chunk := process.interruptible(lambda: _read(body)):
                yield chunk
        finally:
            body.close()

    def _opened(self, bucket: str, stored: Stored, start: int) -> Any:  # noqa: ANN401 - botocore's stream
        try:
            answer = self._aws.call("s3", "get_object", Bucket=bucket, Key=stored.key, IfMatch=stored.etag, Range=f"bytes={start}-")
        except Refused as error:
            if error.code == _CHANGED or error.code in _ABSENT:
                message = f"s3://{bucket}/{stored.key} was changed while it was read"
                raise WorkFailed(message, next_step="Find out who writes there, then run it again.") from error
            raise
        return answer["Body"]


class _Broken(Exception):
    """The connection ended before the object did."""


def _read(body: Any) -> bytes:  # noqa: ANN401 - botocore's stream
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        chunk: bytes = body.read(_CHUNK)
    except (BotoCoreError, HTTPError, OSError) as error:
        raise _Broken(str(error)) from error
    return chunk


def _archive(found: dict[str, Any]) -> str:
    """Return the class of storage that keeps an object from being read, or did until a copy was restored for some days.

    GLACIER_IR does not; of Intelligent-Tiering it is the archive that an object is in.
    """
    kind = str(found.get("StorageClass", ""))
    return str(found.get("ArchiveStatus", "")) or (kind if kind in _ARCHIVES else "")


def _own(found: dict[str, Any]) -> str:
    """Return the SHA-256 that S3 keeps of a whole object; that of an upload in parts, told by its ETag, is of the parts' checksums."""
    value = found.get("ChecksumSHA256", "")
    if found.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT" or "-" in value or "-" in found["ETag"]:
        return ""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return raw.hex() if len(raw) == hashlib.sha256().digest_size else ""
