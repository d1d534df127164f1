"""A registry that behaves as ECR does: a proxy before a real one, with ECR's log-in, words and status codes."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.registry import Proxy, proxied

ACCOUNT, REGION = "123456789012", "eu-west-1"
PASSWORD = f"{ACCOUNT}-auth-token"
"""What moto's tokens say."""

CACHE = "docker-hub"
"""The prefix of the repositories that are a pull-through cache."""

_KINDS = ", ".join(
    f"application/vnd.{kind}+json" for kind in ("oci.image.manifest.v1", "oci.image.index.v1", "docker.distribution.manifest.v2")
)


@dataclass
class EcrRegistry:
    """What the registry is like, and what it has seen.

    ``repositories`` are those that there are, None for all; ``late`` is how many questions to the cache are answered with "missing"
    before it has an image; ``before_put`` gets path, content and media type of a manifest just before it is taken; ``ended`` is how
    many requests with the log-in are answered as if it had run out.
    """

    address: str = ""
    password: str = PASSWORD
    immutable: bool = True
    repositories: set[str] | None = None
    late: int = 0
    ended: int = 0
    before_put: Callable[[str, bytes, str], object] = lambda _path, _content, _kind: None
    agents: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    cached: set[str] = field(default_factory=set)


@contextmanager
def ecr(upstream: str) -> Iterator[EcrRegistry]:
    """Yield an ECR that keeps its images in the registry at ``upstream``."""
    state = EcrRegistry()
    with proxied(upstream, _Ecr, state) as address:
        state.address = address
        yield state


class _Ecr(Proxy):
    def serve(self) -> None:
        state: EcrRegistry = self.server.state  # type: ignore[attr-defined]
        body = self.body()
        found = re.fullmatch(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags)/(?P<rest>.*)", self.path.partition("?")[0])
        given = self.headers.get("Authorization", "")
        if given != f"Basic {base64.b64encode(f'AWS:{state.password}'.encode()).decode()}":
            realm = f'Basic realm="http://{state.address}/",service="ecr.amazonaws.com"'
            self._refuse(401, "UNAUTHORIZED", "Not Authorized", {"Www-Authenticate": realm})
            return
        state.agents.add(self.headers.get("User-Agent", "").partition("/")[0])
        if state.ended > 0:
            state.ended -= 1
            self._refuse(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        elif found is None:
            self.forward(body)
        elif not self._refused(state, found):
            if self.command == "PUT" and found["kind"] == "manifests":
                state.before_put(self.path, body, self.headers.get("Content-Type", ""))
                if self._taken(state, found):
                    return
            # ECR names the digest of a manifest in its answers to HEAD only.
            self.forward(body, ["docker-content-digest"] if self.command == "GET" and found["kind"] == "manifests" else [])

    def _refused(self, state: EcrRegistry, found: re.Match[str]) -> bool:
        name, rest = found["name"], found["rest"]
        if state.repositories is not None and name not in state.repositories:
            words = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            self._refuse(404, "NAME_UNKNOWN", words)
            return True
        if not name.startswith(f"{CACHE}/") or found["kind"] != "manifests" or name in state.cached:
            return False
        if rest.startswith("sha256:") or state.late > 0:  # it fetches by tag alone
            state.late -= not rest.startswith("sha256:")
            self._refuse(404, "MANIFEST_UNKNOWN", "Requested image not found")
            return True
        state.cached.add(name)
        return False

    def _taken(self, state: EcrRegistry, found: re.Match[str]) -> bool:
        if not state.immutable or found["rest"].startswith("sha256:"):
            return False
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)  # type: ignore[attr-defined]
        try:
            connection.request("HEAD", self.path, headers={"Accept": _KINDS, "Accept-Encoding": "identity"})
            there = connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
        if there:
            words = f"The image tag '{found['rest']}' already exists in the '{found['name']}' repository"
            self._refuse(400, "TAG_INVALID", f"{words} and cannot be overwritten because the tag is immutable.")
        return there

    def _refuse(self, status: int, code: str, words: str, headers: Mapping[str, str] | None = None) -> None:
        state: EcrRegistry = self.server.state  # type: ignore[attr-defined]
        state.refused.append(f"{self.command} {self.path} {code}")
        content = json.dumps({"errors": [{"code": code, "message": words}]}).encode()
        self.answer(status, {**(headers or {}), "Content-Length": str(len(content)), "Content-Type": "application/json"}, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815 - the library's names
