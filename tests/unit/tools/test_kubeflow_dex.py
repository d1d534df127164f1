"""The form login of Dex, against an imitation of Dex and oauth2-proxy that keeps to their states, codes, cookies and redirects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.dex import CSRF, HTML, PASSWORD, SESSION, USER, Dex, Gate, jwt
from tests.support.kubeflow import Asked, Said, Scripted, said
from trainshed.errors import RemoteError, UsageError
from trainshed.tools import process
from trainshed.tools.http import Http
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_auth import Login, login_for
from trainshed.tools.kubeflow_dex import Jar
from trainshed.tools.kubeflow_requests import Fate, Unclear
from trainshed.values import Auth

pytestmark = pytest.mark.sockets

AUTH = Auth(kind="dex", username=USER, password_env="DEX_PASSWORD")  # noqa: S106 - the name of a variable


class Served:
    """A served gate, and a login to it."""

    def __init__(self, gate: Gate, script: Scripted, address: str) -> None:
        self.gate, self.script, self.address, self.secrets = gate, script, address, list[str]()
        self.http = Http(retries=0)
        self.login: Login = login_for(AUTH, address, self.http, on_secret=self.secrets.append)

    def status(self) -> int:
        """Ask the API with the login's headers, as the client does."""
        headers = {"Accept": "application/json", **self.login.headers()}
        return self.http.request("GET", f"{self.address}/apis/v2beta1/healthz", headers=headers).status


@pytest.fixture
def stopped() -> Iterator[None]:
    process.stopping.set()
    yield
    process.stopping.clear()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    monkeypatch.setenv("DEX_PASSWORD", PASSWORD)
    with ExitStack() as closing:

        def served(gate: Callable[[Asked], Said]) -> Served:
            script = Scripted(gate)
            return Served(gate, script, closing.enter_context(script.serve()))  # type: ignore[arg-type]

        yield served


@pytest.mark.parametrize(
    "gate",
    [
        Gate(),
        Gate(Dex(connectors=("github", "ldap", "local"))),
        Gate(Dex(connectors=("github", "local"), approval=True)),
        Gate(button=True),
        Gate(home=True),
        Gate(Dex(approval=True), home=True, button=True),
        Gate(cookie="; Secure; SameSite=Lax"),
    ],
    ids=["form", "choice", "consent", "button", "home", "all", "secure"],
)
def test_the_form_is_filled_in_wherever_it_stands(serve: Callable[..., Served], gate: Gate) -> None:
    served = serve(gate)
    assert served.status() == 200
    assert served.status() == 200
    assert gate.dex.logins == 1
    session = next(iter(gate.sessions))
    assert served.login.headers() == {"Cookie": f"{SESSION}={session}"}
    assert {PASSWORD, session} <= set(served.secrets)


def test_where_no_login_is_asked_for_none_is_made(serve: Callable[..., Served]) -> None:
    served = serve(lambda _: said({"pipelines": []}))
    assert served.login.headers() == {}
    assert [asked.method for asked in served.script.asked] == ["GET"]
    told = served.login.identity()
    assert (told.user, told.source) == ("", "Dex was not asked")
    assert "asks for no login" in told.warnings[0]


def test_a_session_that_ended_is_renewed_once(serve: Callable[..., Served]) -> None:
    served = serve(Gate())
    assert served.status() == 200
    served.gate.sessions.clear()
    assert served.status() == 401
    assert served.login.renew() is True
    assert served.status() == 200
    assert served.gate.dex.logins == 2


def test_threads_that_are_refused_together_log_in_once(serve: Callable[..., Served]) -> None:
    served = serve(Gate())
    served.status()
    served.gate.sessions.clear()
    ready = threading.Barrier(4)

    def work() -> None:
        assert served.status() == 401
        ready.wait(timeout=60)
        served.login.renew()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.status() == 200
    assert served.gate.dex.logins == 2


@pytest.mark.parametrize(
    ("gate", "known"),
    [
        (Gate(cookie="; Max-Age=1000"), True),
        (Gate(value=jwt(email=USER, exp=4_102_444_800)), True),
        (Gate(value=jwt(sub="x")), False),
        (Gate(), False),
    ],
)
def test_the_session_tells_until_when(serve: Callable[..., Served], gate: Gate, *, known: bool) -> None:
    told = serve(gate).login.identity()
    assert (told.user, told.renews, told.warnings) == (USER, True, ())
    assert (told.until is not None) is known


def test_a_session_whose_own_end_has_come_is_renewed_before_it_is_refused(serve: Callable[..., Served]) -> None:
    served = serve(Gate(value=jwt(email=USER, exp=1_000_000_000)))
    served.login.headers()
    served.gate.value = ""
    assert served.status() == 200
    assert served.gate.dex.logins == 2


def test_a_wrong_password_is_said_and_not_shown(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", "wrong-one")
    served = serve(Gate())
    for _ in range(3):
        with pytest.raises(RemoteError, match=f"Dex refused the login of {USER}") as caught:
            served.login.headers()
    assert [asked.method for asked in served.script.asked].count("POST") == 1, "a password that is wrong locks the account in the end"
    assert "wrong-one" not in caught.value.told
    assert "DEX_PASSWORD" in caught.value.next_step


def test_a_password_that_is_not_set_is_said(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEX_PASSWORD")
    with pytest.raises(UsageError, match="DEX_PASSWORD is not set"):
        serve(Gate()).login.headers()


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ((200, HTML, b"<title>Welcome</title>"), r"no login form of Dex found at http://127.0.0.1:\d+/apis\S+ \(HTTP 200\)"),
        ((200, HTML, b'<form><input name="username"><input name="password"></form>'), "no login form of Dex found"),
        ((503, HTML, b"upstream connect error"), r"\(HTTP 503\)"),
        ((302, {"Location": "/again"}, b""), "redirects without end"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "leads to no web address"),
        (
            (200, HTML, b'<form action="http://127.0.0.2:1/take"><input name="login"><input name="password"></form>'),
            "sends the password to http://127.0.0.2:1",
        ),
    ],
)
def test_what_is_no_form_of_dex_gets_no_password(serve: Callable[..., Served], page: Said, told: str) -> None:
    served = serve(lambda _: page)
    with pytest.raises(RemoteError, match=told):
        served.login.headers()
    assert {asked.method for asked in served.script.asked} == {"GET"}


def test_a_password_is_sent_on_to_no_other_origin(serve: Callable[..., Served]) -> None:
    served = serve(gate := Gate())
    elsewhere = served.address.replace("127.0.0.1", "localhost") + "/take"
    served.script.answer = lambda asked: (307, {"Location": elsewhere}, b"") if asked.method == "POST" else gate(asked)
    with pytest.raises(RemoteError, match=f"wants the password sent on to {elsewhere.removesuffix('/take')}"):
        served.login.headers()
    assert [asked.method for asked in served.script.asked].count("POST") == 1


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (Gate(denied=True), r"Dex took the password of \S+, but Kubeflow does not let them in \(HTTP 403\)"),
        (Gate(cookie="; Path=/elsewhere"), "the session's cookie is not taken"),
        (Gate(cookie="; Max-Age=0"), "no cookie of a session came"),
    ],
)
def test_a_session_that_opens_nothing_is_no_login(serve: Callable[..., Served], gate: Gate, told: str) -> None:
    with pytest.raises(RemoteError, match=told):
        serve(gate).login.headers()


def test_cookies_stay_with_the_origin_that_set_them(serve: Callable[..., Served]) -> None:
    """Dex has an origin of its own here: it never sees the proxy's cookies, nor the proxy those of Dex."""
    dex = Dex()

    def issuer(asked: Asked) -> Said:
        status, headers, body = dex(asked)
        return status, {**headers, "Set-Cookie": "dex-session=of-dex-alone; Path=/"}, body

    own = serve(issuer)
    served = serve(Gate(dex, dex_at=own.address))
    assert served.status() == 200
    to_dex = {asked.headers.get("Cookie", "") for asked in own.script.asked}
    to_proxy = " ".join(asked.headers.get("Cookie", "") for asked in served.script.asked)
    assert to_dex == {"", "dex-session=of-dex-alone"}
    assert "dex-session" not in to_proxy
    assert CSRF in to_proxy


@pytest.mark.parametrize(
    ("header", "asked", "sent"),
    [
        ("a=1; Secure", "https://k.example.org/x", "a=1"),
        ("a=1; Secure", "http://k.example.org/x", ""),
        ("a=1", "https://other.example.org/x", ""),
        ("a=1", "https://k.example.org:8443/x", ""),
        ("a=1; Path=/dex", "https://k.example.org/dex/auth", "a=1"),
        ("a=1; Path=/dex", "https://k.example.org/dexter", ""),
        ("a=1; Path=/", "https://k.example.org/x", "a=1"),
        ("a=1; Max-Age=0", "https://k.example.org/x", ""),
        ("a=1; Expires=Thu, 01-Jan-1970 00:00:00 GMT", "https://k.example.org/x", ""),
        ("a=1; Expires=Fri, 01 Jan 2100 00:00:00 GMT; HttpOnly, b=2", "https://k.example.org/x", "a=1; b=2"),
        ("a=1, a=2", "https://k.example.org/x", "a=2"),
        ("a=1, a=; Max-Age=0", "https://k.example.org/x", ""),
        ("a=1; Max-Age=never; Expires=whenever", "https://k.example.org/x", "a=1"),
        ("nothing, a=b=c", "https://k.example.org/x", "a=b=c"),
        ("a=\x01, b=1", "https://k.example.org/x", "b=1"),
    ],
)
def test_a_cookie_goes_where_its_attributes_say(header: str, asked: str, sent: str) -> None:
    jar = Jar()
    parts = urlsplit(asked)
    jar.keep(f"{parts.scheme}://k.example.org/login", header)
    assert jar.header(asked).get("Cookie", "") == sent


class Pages:
    """Answers by address, for hosts that no test may reach."""

    def __init__(self, answers: dict[str, Said]) -> None:
        self.answers, self.asked = answers, list[tuple[str, str]]()

    def request(self, method: str, url: str, **_: Any) -> Any:
        from trainshed.tools.http import Response, place

        self.asked.append((method, place(url)))
        status, headers, body = self.answers[place(url)]
        return Response(status=status, headers={name.lower(): value for name, value in headers.items()}, body=body, place=place(url))


FORM = (200, HTML, b'<form method="post"><input name="login"><input name="password"></form>')


def test_a_password_is_never_sent_in_the_clear_for_a_host_on_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", PASSWORD)
    probe = "https://k.example.org/apis/v2beta1/pipelines"
    pages = Pages({probe: (302, {"Location": "http://dex.example.org/form"}, b""), "http://dex.example.org/form": FORM})
    login = login_for(AUTH, "https://k.example.org", pages)  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="is not on HTTPS: no password is sent"):
        login.headers()
    assert {method for method, _ in pages.asked} == {"GET"}


def test_a_cookie_for_https_of_a_host_without_it_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", PASSWORD)
    form = "http://k.example.org/dex"
    cookie = (200, {**HTML, "Set-Cookie": "session=long-value; Secure"}, b"welcome")
    pages = Pages({"http://k.example.org/apis/v2beta1/pipelines": (302, {"Location": form}, b""), form: FORM})
    answered = pages.request

    def request(method: str, url: str, **more: Any) -> Any:
        if method == "POST":
            pages.answers[form] = cookie
        return answered(method, url, **more)

    monkeypatch.setattr(pages, "request", request)
    with pytest.raises(RemoteError, match=r"cookie is for HTTPS only, and kubeflow.host is not"):
        login_for(AUTH, "http://k.example.org", pages).headers()  # type: ignore[arg-type]


def test_a_password_over_plain_http_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages({"http://k.example.org/apis/v2beta1/pipelines": said({})})
    login = login_for(AUTH, "http://k.example.org", pages)  # type: ignore[arg-type]
    assert "can be read on the way" in login.identity().warnings[0]
    monkeypatch.setitem(pages.answers, "https://k.example.org/apis/v2beta1/pipelines", said({}))
    assert login_for(AUTH, "https://k.example.org", pages).identity().warnings[1:] == ()  # type: ignore[arg-type]


def test_a_host_that_sends_to_https_is_told_to_be_written_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEX_PASSWORD", PASSWORD)
    target = "https://k.example.org/apis/v2beta1/pipelines"
    pages = Pages({target.replace("https", "http"): (301, {"Location": target}, b""), target: said({})})
    with pytest.raises(RemoteError, match=r"sends to https://k.example.org") as caught:
        login_for(AUTH, "http://k.example.org", pages).headers()  # type: ignore[arg-type]
    assert caught.value.next_step == "Write that scheme into kubeflow.host."


@pytest.mark.usefixtures("stopped")
def test_a_login_is_made_after_sigterm_for_the_end_of_a_run_needs_it(serve: Callable[..., Served]) -> None:
    served = serve(Gate())
    with KubeflowClient(served.address, auth=AUTH) as client:
        client.terminate("1")
    assert [asked.path for asked in served.script.asked if asked.method == "POST"][-1] == "/apis/v2beta1/runs/1:terminate"


def test_a_login_that_gets_no_answer_leaves_no_doubt_about_the_request(serve: Callable[..., Served]) -> None:
    served = serve(lambda _: (200, {"Content-Length": "99"}, b"cut"))
    with KubeflowClient(served.address, auth=AUTH) as client, pytest.raises(Unclear) as caught:
        client.terminate("1")
    assert caught.value.fate is Fate.UNDONE
