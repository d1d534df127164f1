"""AWS on loopback: moto behind a door that keeps what is asked, refuses what a test forbids, and sends a bucket's callers to its region."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tests.support import moto_server
from tests.support.registry import Proxy, proxied
from trainshed.tools.aws import Aws

ACCOUNT, REGION = "123456789012", "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
_JSON = "application/x-amz-json-1.1"


@dataclass(frozen=True)
class Asked:
    """One request: who asked (an access key), where, and what: ``s3 GET encryption``, ``iam GetRole``."""

    key: str
    region: str
    what: str
    path: str = ""
    body: str = ""

    @property
    def assumed(self) -> bool:
        """Tell whether it was asked as an assumed role."""
        return self.key != CREDENTIALS["AWS_ACCESS_KEY_ID"]


@dataclass
class Door:
    """What stands between a test and moto. ``refused`` answers with AWS's error code, or nothing to let a request through.

    ``replaced`` and ``computed`` answer in moto's place: always the same, or by what was asked.
    ``page_size`` is that of IAM's lists, 0 for moto's own.
    """

    upstream: str
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    refused: Callable[[Asked], str] = lambda _asked: ""
    page_size: int = 0
    homes: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    computed: dict[str, Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]] = field(default_factory=dict)

    @cached_property
    def aws(self) -> Aws:
        """Return AWS through this door, whose clients take a tenth of a second each to make."""
        return Aws(region=REGION, endpoints={"*": self.url})

    def deny(self, *what: str, code: str = "AccessDenied", assumed: bool | None = None) -> None:
        """Refuse what begins with one of these words, asked as an assumed role, as ourselves, or by anybody."""
        self.refused = lambda one: code if one.what.startswith(what) and assumed in {None, one.assumed} else ""

    def open(self) -> None:
        """Forget what was asked, and forbid nothing."""
        self.asked.clear()
        self.homes.clear()
        self.replaced.clear()
        self.computed.clear()
        self.page_size = 0
        self.refused = lambda _asked: ""

    def reset(self) -> None:
        """Forget everything, moto too."""
        self.open()
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        connection.request("POST", "/moto-api/reset", headers={"Content-Length": "0"})
        connection.getresponse().read()
        connection.close()


@contextmanager
def opened() -> Iterator[Door]:
    """Start moto and the door before it."""
    with moto_server.running() as address:
        door = Door(upstream=address)
        with proxied(urlsplit(address).netloc, _Handler, door) as host:
            door.url = f"http://{host}"
            yield door


class _Handler(Proxy):
    wbufsize = -1  # headers and body in one packet: nobody waits for an acknowledgement

    @property
    def behind(self) -> Door:
        door: Door = self.server.state  # type: ignore[attr-defined]
        return door

    def _answer(self) -> None:
        body = self.body()
        asked = self._read(body)
        self.behind.asked.append(asked)
        code = self.behind.refused(asked)
        home = self.behind.homes.get(asked.path.strip("/"))
        if code:
            self._send(403, *_refusal(asked.what, code, json_answer="X-Amz-Target" in self.headers))
        elif asked.what.startswith("s3 ") and home not in {None, asked.region}:
            self._send(301, b"<Error><Code>PermanentRedirect</Code></Error>", "application/xml", {"x-amz-bucket-region": str(home)})
        elif asked.what in self.behind.replaced:
            status, document = self.behind.replaced[asked.what]
            self._send(status, json.dumps(document).encode(), _JSON)
        elif asked.what in self.behind.computed:
            status, document = self.behind.computed[asked.what](json.loads(body or b"{}"))
            self._send(status, json.dumps(document).encode(), _JSON)
        else:
            if self.behind.page_size and asked.what.startswith("iam List"):
                body += f"&MaxItems={self.behind.page_size}".encode()
                self.headers.replace_header("Content-Length", str(len(body)))
            self.forward(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server asks for

    def _read(self, body: bytes) -> Asked:
        scope = _SCOPE.search(self.headers.get("Authorization", ""))
        key, region, service = scope.groups() if scope else ("", "", "")
        parts = urlsplit(self.path)
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        action = target or parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        if not action:
            action = " ".join([self.command, *(part.partition("=")[0] for part in parts.query.split("&") if part)])
        return Asked(key, region, f"{service} {action}".strip(), parts.path, body.decode(errors="replace"))

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}, body)


def _refusal(what: str, code: str, *, json_answer: bool) -> tuple[bytes, str]:
    """Write an error as the service of the request would."""
    said = f"not authorized to perform {what}"
    if json_answer:
        return json.dumps({"__type": code, "message": said}).encode(), _JSON
    error = f"<Code>{code}</Code><Message>{said}</Message>"
    if what.startswith("s3 "):
        return f"<Error>{error}<RequestId>{uuid4()}</RequestId></Error>".encode(), "application/xml"
    if what.startswith("ec2 "):
        return f"<Response><Errors><Error>{error}</Error></Errors></Response>".encode(), "text/xml"
    return f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>".encode(), "text/xml"
