"""The example's own client of S3 (`components/predictor/artifact.py`) agrees with botocore, with moto and with what a deploy registers."""

from __future__ import annotations

import datetime as dt
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from trainshed.errors import WorkFailed
from trainshed.stages.deploying import checksums

FILE = Path(__file__).resolve().parents[2] / "components/predictor/artifact.py"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture(scope="module")
def artifact() -> ModuleType:
    description = importlib.util.spec_from_file_location("artifact", FILE)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


@pytest.mark.parametrize("token", ["", "a session/with+signs="])
@pytest.mark.parametrize("key", ["model", "v2/artifacts/a model (1)+~é.pkl"])
def test_a_request_is_signed_as_botocore_signs_it(artifact: ModuleType, key: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    now = dt.datetime(2026, 11, 22, 8, 30, tzinfo=dt.UTC)
    address = f"https://s3.eu-west-1.amazonaws.com/{artifact.quote(f'models/{key}', safe='/-_.~')}"
    given = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hidden", "Token": token}
    own = artifact.signed(address, region="eu-west-1", credentials=given, now=now)
    request = AWSRequest("GET", address)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now.replace(tzinfo=None), raising=False)
    signer = botocore.auth.S3SigV4Auth(Credentials("AKIDEXAMPLE", "hidden", token or None), "s3", "eu-west-1")
    monkeypatch.setattr(signer, "payload", lambda _: own["x-amz-content-sha256"])
    signer.add_auth(request)
    assert request.headers["X-Amz-Date"] == own["x-amz-date"]
    assert request.headers["Authorization"] == own["authorization"]


def test_an_object_is_fetched_from_s3(artifact: ModuleType, moto: str, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")  # noqa: S106
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="v2/a model #1", Body=b"trained")
    sha256 = checksums.of_path(FILE, gone=WorkFailed("gone"))
    environment = {**KEYS, "MODEL_URI": "s3://models/v2/a model #1", "AWS_ENDPOINT_URL_S3": moto}
    assert artifact.ready(environment, tmp_path).read_bytes() == b"trained"
    with pytest.raises(artifact.ModelError, match=f"instead of {sha256}"):
        artifact.ready({**environment, "MODEL_SHA256": sha256}, tmp_path)
    with pytest.raises(artifact.ModelError, match="S3 answered 404"):
        artifact.ready({**environment, "MODEL_URI": "s3://models/none"}, tmp_path)


def test_both_sides_make_the_same_checksum_of_a_folder(artifact: ModuleType, tmp_path: Path) -> None:
    for name in ("b", "a/c", "a-b", "a/ü/d e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert artifact.checksum(tmp_path) == checksums.of_path(tmp_path, gone=WorkFailed("gone"))
