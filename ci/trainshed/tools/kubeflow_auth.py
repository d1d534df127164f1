"""How to log in to Kubeflow without a person: headers made anew for every request, so that a rotated token is taken up."""

from __future__ import annotations

import re
from html import unescape
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from trainshed import settings
from trainshed.errors import RemoteError, UsageError
from trainshed.keys import Auth
from trainshed.tools.http import Http, Response

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Login(Protocol):
    """What a client needs of a login."""

    def headers(self) -> dict[str, str]:
        """Return the headers of one request."""
        ...

    def renew(self) -> bool:
        """Log in again after a refusal; False when this login cannot."""
        ...


def login_for(auth: Auth, host: str, http: Http) -> Login:
    """Return the login of a kind; nothing is read or sent before the first request."""
    if auth.kind == "dex":
        return _Dex(auth, host, http)
    return _Static(auth)


class _Static:
    """Everything that is read from a file or a variable."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def headers(self) -> dict[str, str]:
        auth = self._auth
        if auth.kind == "token":
            return {"Authorization": f"Bearer {_content(Path(auth.file), 'token')}"}
        if auth.kind == "service-account":
            return {"Authorization": f"Bearer {_content(SERVICE_ACCOUNT_TOKEN, 'service account token')}"}
        if auth.kind == "cookies":
            return {"Cookie": _content(Path(auth.file), "cookies").removeprefix("Cookie:").strip()}
        if auth.kind == "header":
            return {auth.name: _from_variable(auth.value_env, "header")}
        return {}

    def renew(self) -> bool:
        return False


class _Dex:
    """The form login of Dex behind an OIDC proxy: follow to the form, post it, keep the session cookies."""

    def __init__(self, auth: Auth, host: str, http: Http) -> None:
        self._auth, self._host, self._http = auth, host, http
        self._cookies: dict[str, dict[str, str]] = {}
        self._logged_in = False

    def headers(self) -> dict[str, str]:
        if not self._logged_in:
            self.renew()
        return self._cookie_header(self._host)

    def renew(self) -> bool:
        self._cookies, self._logged_in = {}, False
        url, page = self._follow("GET", self._host)
        if page.ok and url == self._host:
            return self._done()  # no login asked for
        choices = re.findall(r'href="([^"]*/auth/(?:local|ldap)[^"]*)"', page.text)
        if choices and not _has_password(page):
            url, page = self._follow("GET", urljoin(url, unescape(choices[0])))
        if not _has_password(page):
            raise RemoteError(f"{self._host}: no login form of Dex found", next_step="Check kubeflow.host and kubeflow.auth.")
        body = urlencode({"login": self._auth.username, "password": _from_variable(self._auth.password_env, "password")}).encode()
        _, page = self._follow("POST", urljoin(url, _form_action(page) or url), body)
        if _has_password(page) or not self._cookies.get(_origin(self._host)):
            raise RemoteError(
                f"{self._host}: Dex refused the login of {self._auth.username}",
                next_step=f"Check the user and the variable {self._auth.password_env}.",
            )
        return self._done()

    def _done(self) -> bool:
        self._logged_in = True
        return True

    def _follow(self, method: str, url: str, body: bytes | None = None) -> tuple[str, Response]:
        for _ in range(_MOST_REDIRECTS):
            headers = self._cookie_header(url)
            if body is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._http.request(method, url, headers=headers, body=body, idempotent=body is None)
            self._keep_cookies(url, answer)
            target = answer.headers.get("location", "")
            if answer.status not in _REDIRECTS or not target:
                return url, answer
            method, body, url = "GET", None, urljoin(url, target)
        raise RemoteError(f"{self._host}: the login redirects without end")

    def _keep_cookies(self, url: str, answer: Response) -> None:
        jar = self._cookies.setdefault(_origin(url), {})
        for line in re.split(r",\s*(?=[^\s;,=]+=)", answer.headers.get("set-cookie", "")):
            try:
                jar.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
            except CookieError:
                continue

    def _cookie_header(self, url: str) -> dict[str, str]:
        """Return the cookies of that origin only: a session must not reach another host."""
        jar = self._cookies.get(_origin(url), {})
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())} if jar else {}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _has_password(page: Response) -> bool:
    return re.search(rb"""name=["']password["']""", page.body) is not None


def _form_action(page: Response) -> str:
    found = re.search(rb"""<form[^>]*action=["']([^"']*)["']""", page.body)
    return unescape(found[1].decode(errors="replace")) if found else ""


def _content(file: Path, what: str) -> str:
    try:
        content = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(
            f"{file}: the {what} for Kubeflow cannot be read: {reason}", next_step="Mend environments.<name>.kubeflow.auth."
        ) from error
    if not content or "\n" in content:
        raise UsageError(f"{file}: expected one line with the {what} for Kubeflow")
    return content


def _from_variable(name: str, what: str) -> str:
    value = settings.variable(name)
    if not value:
        raise UsageError(f"the variable {name} is not set: the {what} for Kubeflow", next_step=f"Set {name}.")
    return value
