"""The model of this deployment: mounted or fetched, and proven to be the one that was deployed before anything is served.

``MODEL_PATH`` names a file or folder; without it the file at ``MODEL_URI`` (``s3://BUCKET/KEY``) is fetched with the credentials of the
task. ``MODEL_SHA256`` is its checksum. Nothing but the standard library is needed; any other client of S3 would do as well.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

ATTEMPTS = 4
TIMEOUT = 60
_EMPTY = hashlib.sha256().hexdigest()
_CREDENTIALS = "http://169.254.170.2"
"""Where ECS gives a task the credentials of its role."""


class ModelError(Exception):
    """There is no model, or it is not the one that was deployed."""


def ready(environment: Mapping[str, str], folder: Path) -> Path:
    """Return the path of the model; one that is fetched is put into ``folder``.

    Raises:
        ModelError: it is not named, cannot be had, or has another checksum.
    """
    path, uri = environment.get("MODEL_PATH"), environment.get("MODEL_URI")
    if not path and not uri:
        raise ModelError("MODEL_PATH is not set, nor is MODEL_URI: name the trained model")
    try:
        found = Path(path) if path else fetched(str(uri), folder / "model", environment)
        prove(found, environment.get("MODEL_SHA256", ""))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model cannot be read: {error}") from error
    return found


def prove(path: Path, wanted: str) -> None:
    """Compare a model with its checksum, where one is given."""
    if wanted and (found := checksum(path)) != wanted:
        raise ModelError(f"the model is not the one that was deployed: {path} has SHA-256 {found} instead of {wanted}")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of a line ``<SHA-256>  <path>`` for each file, in the order of the paths' bytes."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted((file.relative_to(path).as_posix().encode(), file) for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(f"{checksum(file)}  ".encode() + name + b"\n" for name, file in files)).hexdigest()


def fetched(uri: str, target: Path, environment: Mapping[str, str]) -> Path:
    """Fetch an object of S3; an error of the server or the network is tried again, a refusal is not."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise ModelError(f"MODEL_URI is {uri}: only s3://BUCKET/KEY can be fetched")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    address = f"{endpoint.rstrip('/')}/{quote(f'{bucket}/{key}', safe='/-_.~')}"
    for attempt in range(ATTEMPTS):
        try:
            _download(address, signed(address, region=region, credentials=_credentials(environment)), target)
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or attempt == ATTEMPTS - 1:
                raise ModelError(f"{uri}: S3 answered {error.code} {error.reason}; may the task's role read it?") from error
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise ModelError(f"{uri}: {error}") from error
        else:
            return target
        time.sleep(2**attempt)
    raise AssertionError("the last attempt returns or raises")


def signed(
    address: str,
    *,
    region: str,
    credentials: Mapping[str, str],
    now: dt.datetime | None = None,
    more: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Return the headers of a GET with AWS's signature, version 4:
    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
    """  # noqa: D205 - an address does not break
    at = (now or dt.datetime.now(dt.UTC)).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(address)
    headers = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": at, **dict(more)}
    if credentials.get("Token"):
        headers["x-amz-security-token"] = credentials["Token"]
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    request = "\n".join(["GET", parts.path, "", *lines, "", names, _EMPTY])
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    said = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{credentials['SecretAccessKey']}".encode()
    for part in (*scope.split("/"), said):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    own = f"AWS4-HMAC-SHA256 Credential={credentials['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**headers, "authorization": own}


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the credentials of the variables, else those of the task's role."""
    names = {"AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY", "Token": "AWS_SESSION_TOKEN"}
    given = {field: environment.get(name, "") for field, name in names.items()}
    if given["AccessKeyId"]:
        return given
    place = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if not place:
        raise ModelError("there are no AWS credentials to fetch the model with: give the task a role")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(_CREDENTIALS + place, timeout=TIMEOUT) as answer:
        return {str(field): str(value) for field, value in json.load(answer).items()}


def _download(address: str, headers: Mapping[str, str], target: Path) -> None:
    request = urllib.request.Request(address, headers=dict(headers))  # noqa: S310 - of S3, or of the endpoint that is set
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, target.open("wb") as stream:  # noqa: S310 - as above
        shutil.copyfileobj(answer, stream, 1024 * 1024)
        size, wanted = stream.tell(), answer.headers.get("Content-Length")
    if wanted is not None and size != int(wanted):
        raise OSError(f"the connection broke off after {size} of {wanted} bytes")
