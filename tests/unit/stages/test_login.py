"""``trainshed login``: who one is and until when, from the credential and from the server, with nothing secret shown."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.dex import HTML, jwt
from tests.support.kubeflow import Asked, Said, Scripted, said
from trainshed.cli import main

pytestmark = pytest.mark.sockets

ENV_INFO = {
    "user": "me@example.org",
    "namespaces": [{"namespace": "risk", "role": "contributor", "user": "me@example.org"}, "odd", {"role": "owner"}],
    "platform": {"kubeflowVersion": "1.10"},
    "isClusterAdmin": False,
}


class Server:
    """Kubeflow with a dashboard, where every answer may be replaced."""

    def __init__(self, answers: Mapping[str, Said] | None = None, *, multi_user: bool = True) -> None:
        self.answers = {
            "/apis/v2beta1/healthz": said({"multi_user": multi_user, "tag_name": "2.17.0"}),
            "/apis/v2beta1/experiments": said({"experiments": []}),
            "/api/workgroup/env-info": said(ENV_INFO),
            **(answers or {}),
        }

    def __call__(self, asked: Asked) -> Said:
        path = asked.path.partition("?")[0].removeprefix("/pipeline")
        return self.answers.get(path, (404, HTML, b"<title>not here</title>"))


@pytest.fixture
def told(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command against a server; it gives exit code, result, what people read, and the requests."""
    monkeypatch.chdir(project)

    def run(server: Server, auth: str, *, namespace: str = "risk") -> tuple[int, dict[str, Any], str, list[Asked]]:
        script = Scripted(server)
        with script.serve() as address:
            (project / "trainshed.toml").write_text(
                f'[project]\nname = "small"\n[environments.dev.kubeflow]\nhost = "{address}/pipeline"\n'
                f'namespace = "{namespace}"\nauth = {auth}\n'
            )
            code = main(["--env", "dev", "--json", "login"])
        out = capsys.readouterr()
        document = json.loads(out.out)
        assert document["schema"] == "trainshed/login/v1"
        assert [each["name"] for each in document["results"]] == ["dev"]
        return code, document["results"][0], out.out + out.err, script.asked

    return run


def token(project: Path, content: str) -> str:
    file = project / "token"
    file.write_text(content)
    file.chmod(0o600)
    return f'{{ kind = "token", file = "{file}" }}'


def test_credential_and_server_tell_who_and_until_when(told: Any, project: Path) -> None:
    secret = jwt(email="me@example.org", exp=4_102_444_800)
    code, result, text, asked = told(Server(), token(project, secret))
    assert code == 0, text
    wanted = {
        "status": "done",
        "kind": "token",
        "user": "me@example.org",
        "user_from": "the token's claims",
        "until": "2100-01-01T00:00:00+00:00",
        "server_user": "me@example.org",
        "server_from": "Kubeflow's dashboard",
        "version": "2.17.0",
        "multi_user": True,
        "namespace": "risk",
        "role": "contributor",
        "accepted": True,
        "warnings": [],
    }
    assert {name: result[name] for name in wanted} == wanted
    assert "until 2100-01-01 00:00 UTC" in text
    assert secret not in text
    assert {one.headers["Authorization"] for one in asked} == {f"Bearer {secret}"}
    assert "/api/workgroup/env-info" in {one.path for one in asked}


def test_where_nothing_tells_that_is_said(told: Any, project: Path) -> None:
    server = Server({"/api/workgroup/env-info": (404, HTML, b""), "/apis/v2beta1/healthz": said({"multi_user": True})})
    code, result, text, _ = told(server, token(project, "opaque-token"))
    assert (code, result["user"], result["until"], result["server_user"], result["version"]) == (0, "", None, "", "")
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {"user the server does not say", "version the server does not say", "valid the server does not say until when"} <= lines
    assert "nothing names the user" in result["cause"]
    assert "opaque-token" not in text


@pytest.mark.parametrize(
    ("answer", "user"),
    [
        (said({"user": "Cg0w", "email": "me@example.org", "groups": [], "preferredUsername": "me"}), "me@example.org"),
        (said({"user": "Cg0w", "email": "", "preferredUsername": "me"}), "me"),
        (said({"user": "Cg0w"}), "Cg0w"),
        (said(["me"]), ""),
        (said({"email": 7}), ""),
        ((302, {"Location": "/login"}, b""), ""),
        ((200, HTML, b"<title>Log in</title>"), ""),
    ],
)
def test_the_proxy_is_asked_where_the_dashboard_knows_nobody(told: Any, project: Path, answer: Said, user: str) -> None:
    nobody = said({**ENV_INFO, "user": "anonymous@kubeflow.org"})
    code, result, _, _ = told(Server({"/api/workgroup/env-info": nobody, "/oauth2/userinfo": answer}), token(project, "opaque-token"))
    assert (code, result["server_user"]) == (0, user)


def test_an_expired_token_is_told_before_any_request(told: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = jwt(email="me@example.org", exp=1_000_000_000)
    monkeypatch.setattr(time, "time", lambda: 1_000_007_300.0)
    code, result, text, asked = told(Server(), token(project, secret))
    assert (code, result["status"], asked) == (5, "failed", [])
    assert "expired at 2001-09-09 01:46 UTC, 2 h ago" in result["message"]
    assert secret not in text


@pytest.mark.parametrize(
    ("place", "answer", "said_so"),
    [
        ("/apis/v2beta1/healthz", (302, {"Location": "/dex/auth"}, b""), "session expired"),
        ("/apis/v2beta1/experiments", (302, {"Location": "/dex/auth"}, b""), "session expired"),
        ("/apis/v2beta1/experiments", (200, HTML, b"<form>"), "session expired"),
        ("/apis/v2beta1/experiments", said({"code": 16, "message": "no"}, 401), ""),
        ("/apis/v2beta1/experiments", said({"code": 7, "message": "no"}, 403), ""),
    ],
)
def test_a_login_that_the_server_does_not_take_fails_and_tells_what_is_known(
    told: Any, project: Path, place: str, answer: Said, said_so: str
) -> None:
    code, result, text, _ = told(Server({place: answer}), token(project, jwt(sub="me-myself", exp=4_102_444_800)))
    assert code != 0
    assert (result["status"], result["user"]) == ("failed", "me-myself")
    assert "accepted" not in result
    assert said_so in result["message"]
    assert "me-myself" in text


def test_what_may_hurt_later_is_warned_of(told: Any, project: Path) -> None:
    auth = token(project, jwt(sub="me", exp=int(time.time()) + 3600))
    (project / "token").chmod(0o644)
    old = said({"multi_user": True, "tag_name": "2.0.5"})
    code, result, text, _ = told(Server({"/apis/v2beta1/healthz": old}), auth, namespace="other")
    assert code == 0
    assert [warning for warning in result["warnings"] if warning in text] == result["warnings"]
    for part in (
        "everybody on this machine",
        "the login ends soon",
        "older than the SDK",
        "does not count namespace other among yours: risk",
    ):
        assert part in " ".join(result["warnings"])


def test_a_name_that_a_variable_holds_in_confidence_is_named_by_the_variable(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "me@example.org")
    code, result, text, asked = told(Server(), '{ kind = "header", name = "kubeflow-userid", value-env = "WHO" }')
    assert (code, result["user"]) == (0, "***")
    assert "the user in WHO" in text
    assert "me@example.org" not in text
    assert {one.headers["kubeflow-userid"] for one in asked} == {"me@example.org"}


def test_cookies_are_masked_wherever_the_server_repeats_them(told: Any, project: Path) -> None:
    (project / "cookies").write_text("session=hush-hush-hush\n")
    server = Server({"/apis/v2beta1/experiments": said({"code": 3, "message": "bad cookie hush-hush-hush"}, 400)})
    code, result, text, _ = told(server, f'{{ kind = "cookies", file = "{project}/cookies" }}')
    assert code == 2
    assert "bad cookie ***" in result["message"]
    assert "hush-hush-hush" not in text


def test_no_login_and_no_users_is_said(told: Any) -> None:
    code, result, text, asked = told(Server(multi_user=False), '{ kind = "none" }', namespace="")
    assert (code, result["kind"], result["multi_user"], result["user"]) == (0, "none", False, "")
    assert "none is configured" in text
    assert not any("Authorization" in one.headers or "Cookie" in one.headers for one in asked)


def test_the_embedded_kubeflow_is_not_started(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    assert main(["--json", "login"]) == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert (result["name"], result["host"], result["cause"]) == ("local", "embedded", "embedded, no login")
    assert not (project / ".trainshed" / "kubeflow").exists()
