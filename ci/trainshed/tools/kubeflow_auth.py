"""How to log in to Kubeflow without a person: headers made anew for every request, so that a rotated token is taken up."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from trainshed import settings
from trainshed.errors import UsageError
from trainshed.files import read_text
from trainshed.tools import kubeflow_identity as identities
from trainshed.tools.http import Http
from trainshed.tools.kubeflow_dex import DexLogin, from_variable
from trainshed.tools.kubeflow_identity import Identity
from trainshed.values import Auth

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
PIPELINES_AUDIENCE = "pipelines.kubeflow.org"
_MOUNTED = (Path("/var/run/secrets"), Path("/run/secrets"))
_LOAD_BALANCER = re.compile(r"AWSELBAuthSessionCookie-(\d+)")
_SHORTEST = 4  # as in masking: a shorter text is part of so many others that masking it hides the log and not the secret
_SHORTEST_COOKIE = 8  # a cookie such as theme=dark is no secret, and masking it would hide the log
_KEY = "environments.<name>.kubeflow.auth"

OnSecret = Callable[[str], None]


class Login(Protocol):
    """What a client needs of a login."""

    def headers(self) -> dict[str, str]:
        """Return the headers of one request.

        Raises:
            UsageError: the credential is missing or cannot be one.
            RemoteError: it has expired, or the server refused it.
        """
        ...

    def renew(self) -> bool:
        """Log in again after a refusal; False when this login cannot, or has nothing newer."""
        ...

    def identity(self) -> Identity:
        """Return who the credential says that we are, and until when; raises as `headers` does."""
        ...


def login_for(auth: Auth, host: str, http: Http, *, on_secret: OnSecret = lambda _: None) -> Login:
    """Return the login of a kind; nothing is read or sent before the first request.

    Args:
        on_secret: is told every secret as soon as it is read, so that nothing shows it.
    """

    def hide(value: str) -> None:
        if len(value) >= _SHORTEST:
            on_secret(value)

    if auth.kind == "dex":
        return DexLogin(auth, host, http, on_secret=hide)
    kinds: Mapping[str, Callable[[], Login]] = {
        "token": lambda: _Token(lambda: Path(auth.file).expanduser(), hide),
        "service-account": lambda: _ServiceAccount(hide),
        "cookies": lambda: _Cookies(Path(auth.file).expanduser(), hide),
        "header": lambda: _Header(auth.name, auth.value_env, hide),
    }
    return kinds.get(auth.kind, _Nothing)()


class _Nothing:
    """No login at all."""

    def headers(self) -> dict[str, str]:
        return {}

    def renew(self) -> bool:
        return False

    def identity(self) -> Identity:
        return Identity()


class _Token:
    """A bearer token in a file that somebody else renews."""

    _what = "token"

    def __init__(self, file: Callable[[], Path], on_secret: OnSecret) -> None:
        self._file, self._on_secret, self._seen = file, on_secret, threading.local()

    def headers(self) -> dict[str, str]:
        self._seen.sent, told = self._read()
        next_step = f"Write a new {self._what} to the file."
        identities.refuse_expired(told.until, f"{self._file()}: the {self._what} for Kubeflow", next_step=next_step)
        return {"Authorization": f"Bearer {self._seen.sent}"}

    def renew(self) -> bool:
        """Look whether the file was written anew since the token was read that the server refused."""
        return self._read()[0] != getattr(self._seen, "sent", "")

    def identity(self) -> Identity:
        self.headers()
        return self._read()[1]

    def _read(self) -> tuple[str, Identity]:
        file = self._file()
        token = _line(file, self._what, r"[!-~]+").removeprefix("Bearer ")
        self._on_secret(token)
        return token, _of_token(token, f"the {self._what}'s claims", (*_exposed(file, self._what), *self._doubts(token)))

    def _doubts(self, token: str) -> tuple[str, ...]:  # noqa: ARG002 - of the one below
        return ()


class _ServiceAccount(_Token):
    """The token that Kubernetes projects into a pod for Kubeflow Pipelines, and rotates."""

    _what = "service account token"

    def __init__(self, on_secret: OnSecret) -> None:
        super().__init__(lambda: settings.pipelines_token() or SERVICE_ACCOUNT_TOKEN, on_secret)

    def identity(self) -> Identity:
        told = super().identity()
        return Identity(user=told.user, until=told.until, source=told.source, audience=told.audience, renews=True, warnings=told.warnings)

    def _read(self) -> tuple[str, Identity]:
        file = self._file()
        if not file.exists():
            raise _not_mounted(file)
        return super()._read()

    def _doubts(self, token: str) -> tuple[str, ...]:
        audience = identities.audience_of(identities.claims(token) or {})
        if not audience or PIPELINES_AUDIENCE in audience:
            return ()
        return (f"the token is for {', '.join(audience)}, and Kubeflow Pipelines asks for {PIPELINES_AUDIENCE} by default",)


class _Cookies:
    """One Cookie header in a file, taken out of a browser by a person."""

    def __init__(self, file: Path, on_secret: OnSecret) -> None:
        self._file, self._on_secret, self._seen = file, on_secret, threading.local()

    def headers(self) -> dict[str, str]:
        self._seen.sent, told = self._read()
        next_step = "Log in with a browser, and write its new Cookie header to the file."
        identities.refuse_expired(told.until, f"{self._file}: the login to Kubeflow in the cookies", next_step=next_step)
        return {"Cookie": self._seen.sent}

    def renew(self) -> bool:
        return self._read()[0] != getattr(self._seen, "sent", "")

    def identity(self) -> Identity:
        self.headers()
        return self._read()[1]

    def _read(self) -> tuple[str, Identity]:
        header = re.sub(r"(?i)^cookie:\s*", "", _line(self._file, "Cookie header", "[ -~]+"))
        self._on_secret(header)
        cookies = self._parsed(header)
        for value in cookies.values():
            if len(value) >= _SHORTEST_COOKIE:
                self._on_secret(value)
        self._whole(cookies)
        return header, self._identity(cookies)

    def _parsed(self, header: str) -> dict[str, str]:
        pairs = [part.strip().partition("=") for part in header.split(";") if part.strip()]
        if not pairs or not all(name and equals for name, equals, _ in pairs):
            message = f"{self._file}: expected one Cookie header, such as 'name=value; other=value'"
            raise UsageError(message, next_step="Copy the request header Cookie out of the browser's developer tools.")
        return {name.strip(): value.strip() for name, _, value in pairs}

    def _whole(self, cookies: Mapping[str, str]) -> None:
        """Refuse half of a session: a load balancer with Cognito cuts it in two, and answers one half with its login page."""
        found = {int(match[1]) for name in cookies if (match := _LOAD_BALANCER.fullmatch(name))}
        missing = sorted(set(range(max(2, max(found) + 1))) - found) if found else []
        if missing:
            names = " and ".join(f"AWSELBAuthSessionCookie-{number}" for number in missing)
            message = f"{self._file}: {names} is missing: the load balancer takes AWSELBAuthSessionCookie-0 and -1 together only"
            raise UsageError(message, next_step="Copy the whole header Cookie out of the browser.")

    def _identity(self, cookies: Mapping[str, str]) -> Identity:
        """Read the cookies that are tokens. One may be of something else, so that only when all have ended the login has."""
        tokens = {name: told for name, value in cookies.items() if (told := identities.claims(value)) is not None}
        ends = {name: end for name, told in tokens.items() if (end := identities.end_of(told)) is not None}
        stale = {name: end for name, end in ends.items() if identities.over(end)}
        doubts = [f"the cookie {name} expired at {identities.shown(end)}" for name, end in stale.items()]
        live = [end for name, end in ends.items() if name not in stale]
        until = min(live, default=None) or (max(stale.values()) if len(stale) == len(cookies) else None)
        user = next((user for name, told in tokens.items() if name not in stale and (user := identities.user_of(told))), "")
        source = "the claims in the cookies" if user or until else ""
        return Identity(user=user, until=until, source=source, warnings=(*_exposed(self._file, "cookies"), *doubts))


class _Header:
    """A header that a proxy would set, such as ``kubeflow-userid``; its value is in a variable."""

    def __init__(self, name: str, variable: str, on_secret: OnSecret) -> None:
        self._name, self._variable, self._on_secret = name, variable, on_secret

    def headers(self) -> dict[str, str]:
        value = self._value()
        what = f"the variable {self._variable}: the token in the header {self._name}"
        identities.refuse_expired(self._told(value).until, what, next_step=f"Set {self._variable} to a new one.")
        return {self._name: value}

    def renew(self) -> bool:
        return False

    def identity(self) -> Identity:
        return self._told(next(iter(self.headers().values())))

    def _value(self) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", self._name):
            raise UsageError(f"'{self._name}' is no name of a header", next_step=f"Mend name in {_KEY}.")
        value = from_variable(self._variable, "header").strip()
        if not re.fullmatch("[ -~]+", value):
            message = f"the variable {self._variable}: expected one line of plain characters for the header {self._name}"
            raise UsageError(message, next_step=f"Set {self._variable} anew.")
        return value

    def _told(self, value: str) -> Identity:
        token = value.removeprefix("Bearer ")
        if identities.claims(token) is None:
            return Identity(user=value, source=f"the header {self._name}")
        self._on_secret(token)
        return _of_token(token, f"the claims in the header {self._name}")


def _of_token(token: str, source: str, warnings: Iterable[str] = ()) -> Identity:
    told = identities.claims(token)
    if told is None:
        return Identity(warnings=tuple(warnings))
    user, until = identities.user_of(told), identities.end_of(told)
    return Identity(user=user, until=until, source=source, audience=identities.audience_of(told), warnings=tuple(warnings))


def _line(file: Path, what: str, shape: str) -> str:
    """Return the one line of a file. The message never holds any of it: it is a secret, or was meant to be one."""
    lines = read_text(file, what=f"the {what} for Kubeflow").split("\n")
    content = [line.strip() for line in lines if line.strip()]
    told = {0: "the file is empty", 1: "it holds other than plain characters"}.get(len(content), f"it has {len(content)} lines")
    if len(content) != 1 or not re.fullmatch(shape, content[0].removeprefix("Bearer ")):
        raise UsageError(f"{file}: expected one line with the {what} for Kubeflow; {told}", next_step=f"Write it anew, or mend {_KEY}.")
    return content[0]


def _exposed(file: Path, what: str) -> tuple[str, ...]:
    """Warn of a file that all may read; what Kubernetes mounts is in the pod alone."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return ()
    if not mode & 0o004 or any(file.is_relative_to(folder) for folder in _MOUNTED):
        return ()
    return (f"{file}: everybody on this machine may read the {what} (mode {mode & 0o777:o}); chmod 600",)


def _not_mounted(file: Path) -> UsageError:
    if not settings.in_cluster():
        message = f"{file}: there is no service account token: this does not run inside of a cluster"
        return UsageError(message, next_step=f"Run it in a pod, or choose another kind in {_KEY}.")
    message = f"{file}: no service account token for Kubeflow Pipelines is mounted in this pod"
    step = f"Mount a projected token with the audience {PIPELINES_AUDIENCE} there; KF_PIPELINES_SA_TOKEN_PATH names another place."
    return UsageError(message, next_step=step)
