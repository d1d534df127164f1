"""The form login of Dex behind an OIDC proxy (oauth2-proxy, oidc-authservice), done as a browser does it.

The way: the API → the proxy's start → Dex: a choice of connectors, or the form at once → the form is posted → perhaps a page that asks
for consent → the proxy's callback sets the session → the API. The state that Dex and the proxy carry along is in addresses and cookies.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from trainshed import settings
from trainshed.errors import RemoteError, UsageError
from trainshed.tools import kubeflow_identity as identities
from trainshed.tools import process
from trainshed.tools.http import Http, Response, is_loopback
from trainshed.tools.kubeflow_identity import Identity
from trainshed.values import Auth

_MOST_REDIRECTS = 15
_MOST_CONNECTORS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PROBE = "/apis/v2beta1/pipelines?page_size=1"
_SHORTEST_SECRET = 8
_PASSWORD_CONNECTORS = ("local", "ldap")
_CHECK = "Check kubeflow.host and kubeflow.auth."


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """A cookie; ``until`` None for one without an end."""

    name: str
    value: str
    path: str = "/"
    secure: bool = False
    hidden: bool = False
    until: datetime | None = None

    def goes_to(self, parts: SplitResult) -> bool:
        """Tell whether a request of its origin has it: not what is over, below another path, or for HTTPS only."""
        path = parts.path or "/"
        below = path == self.path or path.startswith(self.path.rstrip("/") + "/")
        safe = not self.secure or parts.scheme == "https" or is_loopback(parts.hostname or "")
        return below and safe and not (self.until and self.until <= datetime.now(UTC))


class Jar:
    """Cookies by the origin that set them: what one host gave never reaches another, nor another port or scheme of it."""

    def __init__(self) -> None:
        self._cookies: dict[str, dict[str, Cookie]] = {}

    def keep(self, url: str, header: str) -> list[Cookie]:
        """Take in the ``Set-Cookie`` headers of an answer, joined by commas; return the new cookies."""
        jar = self._cookies.setdefault(origin(url), {})
        taken = []
        for line in re.split(r",\s*(?=[^\s;,=]+=)", header):
            cookie = _cookie(line, urlsplit(url).path)
            if cookie is None:
                continue
            if cookie.until and cookie.until <= datetime.now(UTC):
                jar.pop(cookie.name, None)
                continue
            jar[cookie.name] = cookie
            taken.append(cookie)
        return taken

    def header(self, url: str) -> dict[str, str]:
        """Return the ``Cookie`` header of a request; empty when there is none."""
        parts = urlsplit(url)
        sent = [f"{cookie.name}={cookie.value}" for cookie in self.of(url) if cookie.goes_to(parts)]
        return {"Cookie": "; ".join(sent)} if sent else {}

    def of(self, url: str) -> Iterable[Cookie]:
        """Return the cookies of an address's origin."""
        return self._cookies.get(origin(url), {}).values()


class DexLogin:
    """A session with a user's name and password. It is renewed when it ends, by one thread for all."""

    def __init__(self, auth: Auth, host: str, http: Http, *, on_secret: Callable[[str], None]) -> None:
        self._auth, self._host, self._http, self._on_secret = auth, host, http, on_secret
        self._jar, self._sessions, self._refused, self._needed = Jar(), 0, False, False
        self._lock, self._seen = threading.Lock(), threading.local()

    def headers(self) -> dict[str, str]:
        """Return the session's cookies; log in first where there is no session, or it has ended."""
        with self._lock:
            if not self._sessions or identities.over(self._until()):
                self._log_in()
            self._seen.session = self._sessions
            return self._jar.header(self._host + _PROBE)

    def renew(self) -> bool:
        """Log in anew, unless another thread has done so since this one took its headers."""
        with self._lock:
            if getattr(self._seen, "session", 0) == self._sessions:
                self._log_in()
            return True

    def identity(self) -> Identity:
        """Return the user who logged in, and the end of the session; nobody, where no login is asked for."""
        self.headers()
        plain = urlsplit(self._host).scheme == "http" and not is_loopback(urlsplit(self._host).hostname or "")
        warnings = (f"{self._host} is reached over plain HTTP: the password can be read on the way",) if plain else ()
        if not self._needed:
            told = f"{self._host} asks for no login: Dex, which kubeflow.auth names, was not needed"
            return Identity(source="Dex was not asked", warnings=(*warnings, told))
        return Identity(
            user=self._auth.username, until=self._until(), source="Dex, which took the password", renews=True, warnings=warnings
        )

    def _until(self) -> datetime | None:
        """Return when the first cookie of the session ends; a script's own cookies are no session."""
        kept = self._kept()
        session = [cookie for cookie in kept if cookie.hidden] or kept
        return min((end for cookie in session if (end := _end(cookie)) is not None), default=None)

    def _kept(self) -> list[Cookie]:
        """Return the host's cookies, without the proxy's own of a login that is under way."""
        return [cookie for cookie in self._jar.of(self._host) if "csrf" not in cookie.name.lower()]

    def _log_in(self) -> None:
        if self._refused:
            raise self._refusal()
        self._jar = Jar()
        url, page = self._follow("GET", self._host + _PROBE)
        self._needed = not self._let_in(url, page)
        if self._needed:
            url, page = self._form(*self._started(url, page))
            url, page = self._consented(*self._filled(url, page))
            self._must_be_in(url, page)
        self._sessions += 1

    def _let_in(self, url: str, page: Response) -> bool:
        """Tell whether the API itself answered, and no page before it."""
        return origin(url) == origin(self._host) and "json" in page.headers.get("content-type", "") and page.status != 401  # noqa: PLR2004

    def _started(self, url: str, page: Response) -> tuple[str, Response]:
        """Press the proxy's own button where it shows a page of its own before it sends to Dex."""
        found = re.search(r"""(?:href|action)=["']([^"']*/oauth2/start[^"']*)""", page.text)
        if found is None or _is_form(page):
            return url, page
        return self._follow("GET", urljoin(url, unescape(found[1])))

    def _form(self, url: str, page: Response) -> tuple[str, Response]:
        if _is_form(page):
            return url, page
        for link in _connectors(page)[:_MOST_CONNECTORS]:
            there, form = self._follow("GET", urljoin(url, link))
            if _is_form(form):
                return there, form
        place = _without_query(url)
        if origin(url) != origin(self._host) and urlsplit(url).netloc == urlsplit(self._host).netloc:
            raise RemoteError(f"{self._host}: sends to {origin(url)}", next_step="Write that scheme into kubeflow.host.")
        raise RemoteError(f"{self._host}: no login form of Dex found at {place} (HTTP {page.status})", next_step=_CHECK)

    def _filled(self, url: str, page: Response) -> tuple[str, Response]:
        """Post user and password where the form stands, and nowhere else."""
        target = urljoin(url, _action(page) or url)
        if origin(target) != origin(url):
            raise RemoteError(f"{self._host}: the login form of {origin(url)} sends the password to {origin(target)}", next_step=_CHECK)
        if urlsplit(self._host).scheme == "https" and urlsplit(target).scheme != "https":
            raise RemoteError(f"{self._host}: the login form at {origin(target)} is not on HTTPS: no password is sent", next_step=_CHECK)
        password = from_variable(self._auth.password_env, "password")
        self._on_secret(password)
        url, page = self._follow("POST", target, urlencode({"login": self._auth.username, "password": password}).encode())
        if _is_form(page) and url == target:  # at another address it is the way's next turn: the session was not taken
            self._refused = True
            raise self._refusal()
        return url, page

    def _refusal(self) -> RemoteError:
        """Say that the password is wrong. It is sent once: who asks again and again would have the account locked."""
        message = f"{self._host}: Dex refused the login of {self._auth.username}"
        return RemoteError(message, next_step=f"Check the user and the variable {self._auth.password_env}.")

    def _consented(self, url: str, page: Response) -> tuple[str, Response]:
        """Agree to what Dex asks a user on behalf of the proxy."""
        for form in re.findall(r"(?is)<form.*?</form>", page.text):
            fields = dict(_hidden(form))
            if fields.get("approval") == "approve":
                return self._follow("POST", urljoin(url, _form_action(form) or url), urlencode(fields).encode())
        return url, page

    def _must_be_in(self, url: str, page: Response) -> None:
        """Ask again from the start: the way back may have ended at the dashboard.

        Raises:
            RemoteError: Dex let the user in, and Kubeflow does not.
        """
        if self._let_in(url, page):
            return
        again, answer = self._follow("GET", self._host + _PROBE)
        if self._let_in(again, answer):
            return
        who = f"{self._host}: Dex took the password of {self._auth.username}"
        if not page.ok and origin(url) != origin(self._host):
            raise RemoteError(f"{who}, and then failed (HTTP {page.status})", next_step="Ask who runs this Kubeflow.")
        kept = self._kept()
        if any(cookie.secure for cookie in kept) and urlsplit(self._host).scheme == "http":
            message = f"{who}, but the session's cookie is for HTTPS only, and kubeflow.host is not"
            raise RemoteError(message, next_step="Write https:// into kubeflow.host.")
        told = (
            f"HTTP {page.status}" if not page.ok else ("no cookie of a session came" if not kept else "the session's cookie is not taken")
        )
        raise RemoteError(f"{who}, but Kubeflow does not let them in ({told})", next_step="Ask who runs this Kubeflow.")

    def _follow(self, method: str, url: str, body: bytes | None = None) -> tuple[str, Response]:
        for _ in range(_MOST_REDIRECTS):
            headers = {"Accept": "text/html, application/json;q=0.9", **self._jar.header(url)}
            if body is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            # After SIGTERM only a run's end is asked for, and that needs the login too.
            surely = process.stopping.is_set()
            answer = self._http.request(method, url, headers=headers, body=body, idempotent=body is None, surely=surely)
            for cookie in self._jar.keep(url, answer.headers.get("set-cookie", "")):
                if len(cookie.value) >= _SHORTEST_SECRET:
                    self._on_secret(cookie.value)
            target = answer.headers.get("location", "")
            if answer.status not in _REDIRECTS or not target:
                return url, answer
            following = urljoin(url, target)
            if urlsplit(following).scheme not in {"http", "https"}:
                raise RemoteError(f"{self._host}: the login leads to no web address", next_step=_CHECK)
            if answer.status in {307, 308} and body is not None and origin(following) != origin(url):
                raise RemoteError(f"{self._host}: {origin(url)} wants the password sent on to {origin(following)}", next_step=_CHECK)
            if answer.status not in {307, 308}:
                method, body = "GET", None
            url = following
        raise RemoteError(f"{self._host}: the login redirects without end", next_step=_CHECK)


def from_variable(name: str, what: str) -> str:
    """Return the value of a variable that the configuration names."""
    value = settings.variable(name)
    if not value:
        raise UsageError(f"the variable {name} is not set: the {what} for Kubeflow", next_step=f"Set {name}.")
    return value


def origin(url: str) -> str:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _cookie(line: str, path: str) -> Cookie | None:
    """Read one ``Set-Cookie`` header; None for what is none."""
    first, *attributes = line.split(";")
    name, equals, value = first.strip().partition("=")
    if not equals or not re.fullmatch(r"[!-~]+", name) or not re.fullmatch(r"[ -~]*", value):
        return None
    told = {key.strip().lower(): text.strip() for key, _, text in (each.partition("=") for each in attributes)}
    own = path.rpartition("/")[0] or "/"
    where = told.get("path", "")
    return Cookie(
        name=name,
        value=value.strip(),
        path=where if where.startswith("/") else own,
        secure="secure" in told,
        hidden="httponly" in told,
        until=_ends(told.get("max-age", ""), told.get("expires", "")),
    )


def _ends(age: str, expires: str) -> datetime | None:
    """Return when a cookie ends: ``Max-Age`` wins over ``Expires``."""
    if re.fullmatch(r"-?\d{1,12}", age):
        return identities.moment(time.time() + max(0, int(age)))
    try:
        found = parsedate_to_datetime(expires.replace("-", " "))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _end(cookie: Cookie) -> datetime | None:
    """Return the end of a cookie, or of the token in it, whichever is first."""
    ends = [cookie.until, identities.end_of(identities.claims(cookie.value) or {})]
    return min((end for end in ends if end is not None), default=None)


def _is_form(page: Response) -> bool:
    """Tell whether a page is Dex's form: other providers ask for a ``username``."""
    return all(re.search(rf"""(?i)name=["']?{name}["'\s/>]""", page.text) for name in ("login", "password"))


def _connectors(page: Response) -> list[str]:
    """Return the links to Dex's connectors, those that ask for a password first."""
    links = {unescape(link): name for link, name in re.findall(r"""href=["']([^"']*/auth/([\w.-]+)(?:[?/][^"']*)?)["']""", page.text)}
    return sorted(links, key=lambda link: links[link] not in _PASSWORD_CONNECTORS)


def _action(page: Response) -> str:
    form = next((form for form in re.findall(r"(?is)<form.*?(?:</form>|\Z)", page.text) if "password" in form), "")
    return _form_action(form)


def _form_action(form: str) -> str:
    found = re.search(r"""(?is)<form[^>]*\saction=["']([^"']*)["']""", form)
    return unescape(found[1]) if found else ""


def _hidden(form: str) -> Iterable[tuple[str, str]]:
    for field in re.findall(r"(?is)<input[^>]*>", form):
        name = re.search(r"""(?i)\sname=["']([^"']*)["']""", field)
        value = re.search(r"""(?i)\svalue=["']([^"']*)["']""", field)
        if name and value:
            yield unescape(name[1]), unescape(value[1])


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{origin(url)}{parts.path}"
