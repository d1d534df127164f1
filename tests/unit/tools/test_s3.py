"""How objects are read from S3, on its answers as boto3 gives them; the requests themselves are tested against moto."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, cast

import pytest

from trainshed.errors import RemoteError, WorkFailed
from trainshed.tools import process, s3
from trainshed.tools.aws import Aws, Refused
from trainshed.tools.s3 import S3, Stored

CONTENT = b"0123456789"
SHA = hashlib.sha256(CONTENT)


class Body:
    """A stream that may break off."""

    def __init__(self, content: bytes, *, good: int | None) -> None:
        self.content, self.good, self.closed = content, good, False

    def read(self, size: int) -> bytes:
        """Return the next bytes; break off after so many good reads."""
        if self.good == 0:
            raise OSError("connection reset")
        self.good = None if self.good is None else self.good - 1
        found, self.content = self.content[:size], self.content[size:]
        return found

    def close(self) -> None:
        """Close it."""
        self.closed = True


class Scripted:
    """An AWS that holds one object. ``good`` tells of each connection how many reads go well, None for all."""

    def __init__(self, *good: int | None, head: dict[str, Any] | None = None) -> None:
        self.good, self.head, self.asked = list(good), head, list[dict[str, Any]]()
        self.bodies: list[Body] = []

    def call(self, _: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Answer one operation."""
        self.asked.append(parameters)
        if operation == "head_object":
            if self.head is None:
                raise Refused("no", code="404", said="Not Found", next_step="")
            return {"ETag": '"e"', "ContentLength": len(CONTENT), **self.head}
        if not self.good:
            raise Refused("no", code="PreconditionFailed", said="", next_step="")
        start = int(parameters["Range"].removeprefix("bytes=").removesuffix("-"))
        self.bodies.append(Body(CONTENT[start:], good=self.good.pop(0)))
        return {"Body": self.bodies[-1]}

    def store(self) -> S3:
        """Return the client."""
        return S3(cast("Aws", self))


STORED = Stored(key="model", size=len(CONTENT), etag='"e"', stamp="s")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_CHUNK", 4)
    monkeypatch.setattr(process, "pause", lambda _: None)


def test_a_broken_connection_is_taken_up_where_it_left_off() -> None:
    aws = Scripted(1, 0, 1, None)
    seen: list[int] = []
    assert aws.store().sha256("bucket", STORED, on_progress=seen.append) == SHA.hexdigest()
    assert [each["Range"] for each in aws.asked] == ["bytes=0-", "bytes=4-", "bytes=4-", "bytes=8-"]
    assert all(each["IfMatch"] == '"e"' for each in aws.asked)
    assert all(body.closed for body in aws.bodies)
    assert seen == [4, 8, 10]


def test_a_connection_that_never_goes_on_ends_with_how_far_it_came() -> None:
    with pytest.raises(RemoteError, match="s3://bucket/model: broke off after 4 of 10 bytes: connection reset"):
        Scripted(1, 0, 0, 0, 0, 0).store().sha256("bucket", STORED)


def test_an_object_that_changes_while_it_is_read_is_an_error() -> None:
    with pytest.raises(WorkFailed, match="was changed while it was read"):
        Scripted(1).store().sha256("bucket", STORED)


@pytest.mark.parametrize(
    ("head", "known"),
    [
        ({"ChecksumSHA256": base64.b64encode(SHA.digest()).decode(), "ChecksumType": "FULL_OBJECT"}, SHA.hexdigest()),
        ({"ChecksumSHA256": base64.b64encode(SHA.digest()).decode()}, SHA.hexdigest()),
        ({"ChecksumSHA256": f"{base64.b64encode(SHA.digest()).decode()}-2", "ChecksumType": "COMPOSITE"}, ""),
        ({"ChecksumSHA256": base64.b64encode(SHA.digest()).decode(), "ETag": '"e-2"'}, ""),
        ({"ChecksumSHA256": "no base64"}, ""),
        ({"ChecksumCRC32": "AAAAAA=="}, ""),
    ],
)
def test_the_checksum_that_s3_keeps_counts_where_it_is_of_the_whole_object(head: dict[str, Any], known: str) -> None:
    aws = Scripted(None, head=head)
    found = aws.store().object("bucket", "model")
    assert found is not None
    assert found.sha256 == known
    assert aws.store().sha256("bucket", found) == SHA.hexdigest()
    assert (len(aws.bodies) == 0) is bool(known)


def test_what_is_missing_is_none_and_what_is_empty_needs_no_request() -> None:
    aws = Scripted()
    assert aws.store().object("bucket", "model") is None
    empty = Stored(key="model", size=0, etag='"e"', stamp="s")
    assert aws.store().sha256("bucket", empty) == hashlib.sha256().hexdigest()
