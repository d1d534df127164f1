"""The model is fetched, and proven."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import artifact
import pytest

CONTENT = b"a trained model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Bucket(ThreadingHTTPServer):
    """An S3 of one object, which first gives the answers of a list."""

    answers: list[int]
    asked: list[str]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            server.asked.append(self.path)
            signed = "AWS4-HMAC-SHA256 Credential=me/" in self.headers.get("Authorization", "")
            status = server.answers.pop(0) if server.answers else 200 if signed else 403
            self.send_response(status)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:3] if status == 206 else CONTENT)

    server = Bucket(("127.0.0.1", 0), Handler)
    server.answers, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact.time, "sleep", lambda _: None)


def environment(bucket: Bucket, **more: str) -> dict[str, str]:
    return {
        "MODEL_URI": "s3://models/v2/a model",
        "MODEL_SHA256": SHA256,
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{bucket.server_port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        **more,
    }


def test_a_model_is_fetched_and_proven_whatever_breaks_on_the_way(bucket: Bucket, tmp_path: Path) -> None:
    bucket.answers = [503, 206]  # an error, and an answer that breaks off
    assert artifact.ready(environment(bucket), tmp_path).read_bytes() == CONTENT
    assert bucket.asked == ["/models/v2/a%20model"] * 3


def test_a_refusal_is_told_at_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.answers = [403]
    with pytest.raises(artifact.ModelError, match="S3 answered 403 Forbidden; may the task's role read it"):
        artifact.ready(environment(bucket), tmp_path)
    assert len(bucket.asked) == 1


def test_another_content_than_the_deployed_one_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(artifact.ModelError, match=f"has SHA-256 {SHA256} instead of {'0' * 64}"):
        artifact.ready(environment(bucket, MODEL_SHA256="0" * 64), tmp_path)


def test_without_credentials_or_with_another_address_it_is_said(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(artifact.ModelError, match="no AWS credentials"):
        artifact.ready(environment(bucket, AWS_ACCESS_KEY_ID=""), tmp_path)
    with pytest.raises(artifact.ModelError, match="only s3://BUCKET/KEY"):
        artifact.ready(environment(bucket, MODEL_URI="gs://models/a"), tmp_path)


def test_the_checksum_of_a_folder_is_of_its_files_and_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(b"1")
    (tmp_path / "a-b").write_bytes(b"2")
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in (("a-b", b"2"), ("a/c", b"1"))]
    assert artifact.checksum(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_signature_is_that_of_the_example_in_the_documentation_of_s3() -> None:
    headers = artifact.signed(
        "https://examplebucket.s3.amazonaws.com/test.txt",
        region="us-east-1",
        credentials={"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
        now=dt.datetime(2013, 5, 24, tzinfo=dt.UTC),
        more=[("range", "bytes=0-9")],
    )
    assert headers["authorization"].endswith("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
