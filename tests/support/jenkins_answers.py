"""What a controller answers to one request: who may, what it does, how it is written."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from tests.support import jenkins_tree
from tests.support.jenkins_model import PERMALINKS, PIPELINE, FakeBuild, FakeController, FakeItem, FakeJob
from tests.support.jenkins_tree import Bean

READ, ITEM_READ, BUILD = "hudson.model.Hudson.Read", "hudson.model.Item.Read", "hudson.model.Item.Build"
ALL = frozenset({READ, ITEM_READ, BUILD})
COOKIE = "JSESSIONID.fake"


@dataclass
class User:
    """Somebody: a password, API tokens, permissions."""

    password: str
    tokens: Collection[str] = ()
    permissions: Collection[str] = ALL


@dataclass(frozen=True)
class Asked:
    """A request that came. ``path`` is encoded as it was sent, without context path and query."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    user: str


class Refusal(Exception):
    """An answer other than a good one."""

    def __init__(self, status: int, page: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.page, self.headers = status, page, dict(headers or {})


class Here(Protocol):
    """The controller that answers."""

    state: FakeController
    users: dict[str, User]
    anonymous: Collection[str]
    crumbs: bool
    prefix: str
    url: str

    def session(self, cookie: str) -> tuple[str, str]:
        """Return session and crumb for a cookie."""
        ...

    def crumb_fits(self, cookie: str, crumb: str) -> bool:
        """Tell whether a crumb is that of the cookie's session."""
        ...


Made = tuple[int, bytes, str, dict[str, str]]


class Answer:
    """One request, answered from the state."""

    def __init__(self, here: Here, asked: Asked) -> None:
        self.here, self.asked, self.state = here, asked, here.state
        self.user, self.permissions, self.by_token = self._who()

    def made(self) -> Made:
        segments = [unquote(part) for part in self.asked.path.split("/")[1:]]
        self._need(READ)
        if self.asked.method == "POST":
            self._check_crumb()
        return self._route(segments)

    def _who(self) -> tuple[str, Collection[str], bool]:
        name, secret = user_of(self.asked.headers.get("authorization", ""))
        if not name:
            return "anonymous", self.here.anonymous, False
        user = self.here.users.get(name)
        if user is None or (secret != user.password and secret not in user.tokens):
            raise Refusal(401, page_of(401, f"Invalid password/token for user: {name}"), {"WWW-Authenticate": 'Basic realm="Jenkins"'})
        return name, user.permissions, secret in user.tokens

    def _need(self, permission: str) -> None:
        if permission in self.permissions:
            return
        words = permission.split(".")
        shown = f"{words[-2].replace('Hudson', 'Overall').replace('Item', 'Job')}/{words[-1]}"
        page = f"<html><head><title>Access Denied</title></head><body><p>{self.user} is missing the {shown} permission</p></body></html>"
        if self.user == "anonymous":
            page = "<html><head><meta http-equiv='refresh' content='1;url=/login'/></head><body>Authentication required</body></html>"
        raise Refusal(403, page, {"X-You-Are-Authenticated-As": self.user, "X-Required-Permission": permission})

    def _check_crumb(self) -> None:
        headers = self.asked.headers
        if not self.here.crumbs or self.by_token:
            return
        crumb = headers.get("jenkins-crumb") or self.asked.form.get("Jenkins-Crumb", "")
        if not self.here.crumb_fits(headers.get("cookie", ""), crumb):
            raise Refusal(403, page_of(403, "No valid crumb was included in the request"))

    def _route(self, segments: list[str]) -> Made:  # noqa: C901, PLR0911 - one line for each address
        match segments:
            case ["crumbIssuer", "api", flavour] if self.here.crumbs:
                return self._crumb(flavour)
            case ["queue", "api", flavour]:
                waiting = [item.bean() for item in self.state.items.values() if not item.left]
                return self._export(Bean("hudson.model.Queue", {"discoverableItems": [], "items": waiting}), flavour)
            case ["queue", "item", number, "api", flavour]:
                return self._export(self._item(number).bean(), flavour)
            case ["fingerprint", digest, "api", flavour]:
                found = self.state.fingerprint(digest)
                if found is None:
                    raise Refusal(404)
                return self._export(found, flavour)
        node, rest = self._node(segments)
        match rest:
            case ["api", flavour]:
                return self._export(node.bean(), flavour)
            case ["build"] | ["build", ""] if node.kind == PIPELINE:
                return self._build(node)
            case ["buildWithParameters"] | ["buildWithParameters", ""] if node.kind == PIPELINE:
                return self._build_with_parameters(node)
            case [which, *below] if node.kind == PIPELINE and below:
                return self._in_build(node, which, below)
            case [which] if node.kind == PIPELINE and (which.isdigit() or which in PERMALINKS):
                raise Refusal(302, "", {"Location": f"{self.here.url}{self.asked.path}/"})
        raise Refusal(404)

    def _node(self, segments: list[str]) -> tuple[FakeJob, list[str]]:
        node, rest = self.state.root, segments
        while len(rest) > 1 and rest[0] == "job":
            found = node.children.get(rest[1])
            if found is None or found.hidden or ITEM_READ not in self.permissions:
                raise Refusal(404)
            node, rest = found, rest[2:]
        return node, rest

    def _item(self, number: str) -> FakeItem:
        item = self.state.item(int(number)) if number.isdigit() else None
        if item is None or ITEM_READ not in self.permissions:
            raise Refusal(404)
        return item

    def _export(self, bean: Bean, flavour: str) -> Made:
        tree = self.asked.query.get("tree", "")
        try:
            told = (
                jenkins_tree.by_tree(bean, jenkins_tree.parse(tree))
                if tree
                else jenkins_tree.by_depth(bean, int(self.asked.query.get("depth", "0")))
            )
        except ValueError as error:
            raise Refusal(400, page_of(400, f"{error}")) from error
        if flavour not in {"json", "python"}:
            raise Refusal(404)
        text, kind = (json.dumps(told), "application/json") if flavour == "json" else (jenkins_tree.as_python(told), "text/x-python")
        return 200, text.encode(), f"{kind};charset=utf-8", {"X-Jenkins": "2.516.3", "X-Jenkins-Session": "0123abcd"}

    def _crumb(self, flavour: str) -> Made:
        session, crumb = self.here.session(self.asked.headers.get("cookie", ""))
        status, body, kind, headers = self._export(
            Bean("hudson.security.csrf.DefaultCrumbIssuer", {"crumb": crumb, "crumbRequestField": "Jenkins-Crumb"}), flavour
        )
        return status, body, kind, {**headers, "Set-Cookie": f"{COOKIE}={session}; Path={self.here.prefix or '/'}; HttpOnly"}

    def _may_build(self, job: FakeJob) -> None:
        self._need(BUILD)
        if self.asked.method != "POST":
            raise Refusal(405, page_of(405, "This URL requires POST"), {"Allow": "POST"})
        if not job.buildable:
            raise Refusal(409, page_of(409, f"{job.full_name} is not buildable"))

    def _build(self, job: FakeJob) -> Made:
        self._may_build(job)
        if not job.parameters:
            return self._queued(job, {})
        if not self.asked.form.get("json"):
            raise Refusal(400, page_of(400, "Nothing is submitted" if not self.asked.form else "This page expects a form submission"))
        told = json.loads(self.asked.form["json"]).get("parameter", [])
        values: dict[str, Any] = {}
        for each in told if isinstance(told, list) else [told]:
            found = next((parameter for parameter in job.parameters if parameter.name == each["name"]), None)
            if found is None:
                raise Refusal(500, page_of(500, f"No such parameter definition: {each['name']}"))
            values[found.name] = found.value(str(each["value"]))
        return self._queued(job, values)

    def _build_with_parameters(self, job: FakeJob) -> Made:
        self._may_build(job)
        if not job.parameters:
            raise Refusal(500, page_of(500, "This build is not parameterized!"))
        given = {**self.asked.query, **self.asked.form}
        try:
            values = {parameter.name: parameter.value(given.get(parameter.name)) for parameter in job.parameters}
        except ValueError as error:
            raise Refusal(500, page_of(500, f"{error}")) from error
        return self._queued(job, values)

    def _queued(self, job: FakeJob, values: dict[str, Any]) -> Made:
        item = self.state.schedule(job, values)
        return 201, b"", "text/plain", {"Location": f"{self.state.root_url}/queue/item/{item.id}/"}

    def _in_build(self, job: FakeJob, which: str, below: list[str]) -> Made:
        build = job.find(which)
        if build is None:
            raise Refusal(404)
        match below:
            case ["api", flavour]:
                return self._export(build.bean(), flavour)
            case [""]:
                return 200, b"<html></html>", "text/html", {"X-Jenkins": "2.516.3"}
            case ["consoleText"]:
                return 200, build.log, "text/plain;charset=utf-8", {}
            case ["logText", "progressiveText"]:
                return self._log(build)
            case ["artifact", *path] if (content := build.artifacts.get("/".join(path))) is not None:
                return 200, content, "application/octet-stream", {}
        raise Refusal(404)

    def _log(self, build: FakeBuild) -> Made:
        start = int(self.asked.query.get("start", "0"))
        if start > len(build.log):
            start = 0  # Jenkins takes it for a log that was begun anew
        more = {"X-More-Data": "true"} if build.building else {}
        return 200, build.log[start:], "text/plain;charset=utf-8", {"X-Text-Size": str(len(build.log)), **more}


def user_of(header: str) -> tuple[str, str]:
    """Return user and secret of a basic log-in."""
    kind, _, coded = header.partition(" ")
    if kind.lower() != "basic":
        return "", ""
    name, _, secret = base64.b64decode(coded).decode().partition(":")
    return name, secret


def page_of(status: int, reason: str = "") -> str:
    words = reason or {404: "Not Found", 500: "Oops! A problem occurred while processing the request"}.get(status, "")
    return (
        f"<html><head><title>Error {status} {html.escape(words)}</title></head><body><h2>HTTP ERROR {status} {html.escape(words)}</h2>"
        "<hr/><i><small>Powered by Jetty:// 12.0.22</small></i></body></html>"
    )
