"""Dex and oauth2-proxy in front of an API, as Kubeflow has them: state, codes, cookies and redirects as the real ones make them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.kubeflow import Asked, Said, said
from trainshed.tools.http import Http

USER, PASSWORD = "me@example.org", "hush & hush"
SESSION, CSRF = "oauth2_proxy_kubeflow", "oauth2_proxy_kubeflow_csrf"
HTML = {"Content-Type": "text/html; charset=utf-8"}


def jwt(**claims: Any) -> str:
    """Make a token with claims; nobody checks its signature."""
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"])


@dataclass
class Dex:
    """The issuer: authorization requests by id, codes that count once.

    ``connectors`` are shown as a choice when there are several; ``approval`` asks for consent after the password.
    """

    connectors: tuple[str, ...] = ("local",)
    approval: bool = False
    requests: dict[str, dict[str, str]] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    logins: int = 0
    _numbers: Any = field(default_factory=lambda: count(1))

    def __call__(self, asked: Asked) -> Said:
        """Answer as Dex below ``/dex``."""
        parts = urlsplit(asked.path)
        query, path = _first(parts.query), parts.path.removeprefix("/dex")
        if path == "/auth" and len(self.connectors) == 1:
            return _to(f"/dex/auth/{self.connectors[0]}?{parts.query}")
        if path == "/auth":
            links = "".join(f'<a href="{html.escape(f"/dex/auth/{name}?{parts.query}")}">{name}</a>' for name in self.connectors)
            return 200, HTML, f"<h2>Log in to dex</h2>{links}".encode()
        if path == "/approval":
            return self._consent(asked, query)
        connector = path.removeprefix("/auth/").partition("/")[0]
        if connector not in {"local", "ldap"}:
            return _to(f"/elsewhere/{connector}")
        if path == f"/auth/{connector}":
            name = f"request{next(self._numbers)}"
            self.requests[name] = query
            return _to(f"/dex/auth/{connector}/login?" + urlencode({"back": "", "state": name}))
        return self._password(asked, query)

    def _password(self, asked: Asked, query: Mapping[str, str]) -> Said:
        if query.get("state") not in self.requests:
            return 400, HTML, b"Bad Request: User session error."
        fields = _first(asked.body.decode())
        if asked.method == "GET" or (fields.get("login"), fields.get("password")) != (USER, PASSWORD):
            wrong = '<div id="login-error">Invalid Email Address and password.</div>' if asked.method == "POST" else ""
            inputs = '<input id="login" name="login" type="text"/><input id="password" name="password" type="password"/>'
            return 200, HTML, f'<form method="post" action="{html.escape(asked.path)}">{inputs}{wrong}</form>'.encode()
        self.logins += 1
        request = query["state"]
        if self.approval:
            return _to(f"/dex/approval?req={request}&hmac={_hmac(request)}", 303)
        return self._back(request)

    def _consent(self, asked: Asked, query: Mapping[str, str]) -> Said:
        request = query.get("req", "")
        if query.get("hmac") != _hmac(request) or request not in self.requests:
            return 401, HTML, b"Unauthorized request"
        if asked.method == "GET":
            hidden = f'<input type="hidden" name="req" value="{request}"/><input type="hidden" name="approval" value='
            forms = (f'<form method="post">{hidden}"{word}"></form>' for word in ("approve", "rejected"))
            return 200, HTML, f"<h2>Grant Access</h2>{''.join(forms)}".encode()
        if _first(asked.body.decode()) != {"req": request, "approval": "approve"}:
            return 500, HTML, b"Approval rejected."
        return self._back(request)

    def _back(self, request: str) -> Said:
        told = self.requests.pop(request)
        code = f"code{next(self._numbers)}"
        self.codes.add(code)
        return _to(f"{told['redirect_uri']}?" + urlencode({"code": code, "state": told["state"]}), 303)


@dataclass
class Gate:
    """The proxy, and behind it an API that answers ``{"who": …}`` to whoever is let in.

    ``dex_at`` is Dex's own origin, empty where it is below ``/dex`` of this one; ``cookie`` is added to the session's cookie, such as
    ``; Secure``; ``button`` shows a page of the proxy's own first; ``home`` forgets where the way began. With an ``upstream`` what is let
    in is passed on to that address, with the user's name in a header.
    """

    dex: Dex = field(default_factory=Dex)
    dex_at: str = ""
    cookie: str = ""
    value: str = ""
    button: bool = False
    home: bool = False
    denied: bool = False
    upstream: str = ""
    scheme: str = "http"
    sessions: set[str] = field(default_factory=set)
    _numbers: Any = field(default_factory=lambda: count(1))

    def __call__(self, asked: Asked) -> Said:
        """Answer as the proxy."""
        parts = urlsplit(asked.path)
        query = _first(parts.query)
        if parts.path.startswith("/dex"):
            return self.dex(asked)
        if parts.path == "/oauth2/start":
            return self._start(asked, query.get("rd", "/"))
        return self._callback(asked, query) if parts.path == "/oauth2/callback" else self._guarded(asked, parts.path)

    def _guarded(self, asked: Asked, path: str) -> Said:
        let_in = _cookies(asked).get(SESSION) in self.sessions
        if path == "/oauth2/userinfo":
            return said({"user": "CgVh", "email": USER, "preferredUsername": "me"}) if let_in else (401, HTML, b"Unauthorized")
        if let_in and self.upstream and path.startswith("/apis/"):
            return self._passed_on(asked)
        if let_in:
            return said({"who": USER}) if path.startswith("/apis/") else (200, HTML, b"<title>Kubeflow</title>")
        if asked.headers.get("Accept") == "application/json":
            return said({}, 401)
        if self.button:
            rd = html.escape(asked.path)
            return 403, HTML, f'<form method="GET" action="/oauth2/start?rd={rd}"><button>Sign in with OIDC</button></form>'.encode()
        return self._start(asked, asked.path)

    def _passed_on(self, asked: Asked) -> Said:
        kept = {name: value for name, value in asked.headers.items() if name in {"Accept", "Content-Type"}}
        with Http(retries=0) as http:
            url = f"{self.upstream}{asked.path}"
            answer = http.request(asked.method, url, headers={**kept, "kubeflow-userid": USER}, body=asked.body or None)
        return answer.status, {"Content-Type": answer.headers.get("content-type", "")}, answer.body

    def _start(self, asked: Asked, target: str) -> Said:
        nonce = f"nonce{next(self._numbers)}"
        query = {
            "client_id": "kubeflow-oidc-authservice",
            "redirect_uri": f"{self.scheme}://{asked.headers['Host']}/oauth2/callback",
            "response_type": "code",
            "scope": "openid email",
            "state": f"{nonce}:{'/' if self.home else target}",
        }
        until = formatdate(time.time() + 900, usegmt=True)
        cookie = f"{CSRF}={nonce}; Path=/; Expires={until}; HttpOnly; SameSite=Lax"
        return _to(f"{self.dex_at}/dex/auth?{urlencode(query)}", cookies=[cookie])

    def _callback(self, asked: Asked, query: Mapping[str, str]) -> Said:
        nonce, _, target = query.get("state", "").partition(":")
        if query.get("code") not in self.dex.codes or _cookies(asked).get(CSRF) != nonce:
            return 403, HTML, b"Unable to find a valid CSRF token. Please try again."
        self.dex.codes.remove(query["code"])
        gone = f"{CSRF}=; Path=/; Expires={formatdate(0, usegmt=True)}; HttpOnly"
        if self.denied:
            return 403, {**HTML, "Set-Cookie": gone}, b"Permission Denied: Invalid Account"
        session = self.value or f"session-{next(self._numbers)}-of-the-proxy"
        self.sessions.add(session)
        return _to(target, cookies=[gone, f"{SESSION}={session}; Path=/; HttpOnly{self.cookie}"])


def _to(target: str, status: int = 302, *, cookies: list[str] | None = None) -> Said:
    headers = {**HTML, "Location": target}
    return status, {**headers, **({"Set-Cookie": "\n".join(cookies)} if cookies else {})}, b"<a>Found</a>."


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


def _cookies(asked: Asked) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in asked.headers.get("Cookie", "").split(";"))
    return {name: value for name, _, value in pairs}


def _hmac(text: str) -> str:
    return hashlib.sha256(f"key {text}".encode()).hexdigest()[:16]
