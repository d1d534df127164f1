"""Logging in to Kubeflow: what is sent, who one is and until when, and what is said instead of being sent."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.dex import jwt
from trainshed.errors import RemoteError, UsageError
from trainshed.tools.http import Http
from trainshed.tools.kubeflow_auth import Login, login_for
from trainshed.values import Auth

HOST = "https://kubeflow.example.org/pipeline"
TOKEN, COOKIES, SERVICE = ("token", "cookies", "service-account")


def login(kind: str, *, secrets: list[str] | None = None, **auth: Any) -> Login:
    told = [] if secrets is None else secrets
    return login_for(Auth(kind=kind, **{name: str(value) for name, value in auth.items()}), HOST, Http(), on_secret=told.append)


def in_file(folder: Path, content: str | bytes, name: str = "credential") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(0o600)
    return file


def test_without_a_login_nothing_is_sent_and_nobody_is_told() -> None:
    nobody = login("none")
    assert nobody.headers() == {}
    assert nobody.renew() is False
    assert (nobody.identity().user, nobody.identity().until) == ("", None)


@pytest.mark.parametrize("content", ["opaque-token", "opaque-token\n", "Bearer opaque-token\n\n", "  opaque-token \r\n"])
def test_a_token_is_sent_and_hidden(tmp_path: Path, content: str) -> None:
    secrets: list[str] = []
    asked = login(TOKEN, file=in_file(tmp_path, content), secrets=secrets)
    assert asked.headers() == {"Authorization": "Bearer opaque-token"}
    assert "opaque-token" in secrets
    assert asked.identity().warnings == ()
    assert (asked.identity().user, asked.identity().until, asked.identity().source) == ("", None, "")


def test_a_text_that_is_part_of_every_other_is_not_hidden(tmp_path: Path) -> None:
    secrets: list[str] = []
    assert login(TOKEN, file=in_file(tmp_path, "abc"), secrets=secrets).headers() == {"Authorization": "Bearer abc"}
    assert secrets == []


def test_a_thread_that_was_refused_tries_what_another_has_read(tmp_path: Path) -> None:
    file = in_file(tmp_path, "first-token")
    asked = login(TOKEN, file=file)
    asked.headers()
    file.write_text("second-token")
    other = threading.Thread(target=asked.headers)
    other.start()
    other.join()
    assert asked.renew() is True


def test_a_rotated_token_is_taken_up_by_the_next_request_and_after_a_refusal(tmp_path: Path) -> None:
    file = in_file(tmp_path, "first-token")
    asked = login(TOKEN, file=file)
    assert asked.headers()["Authorization"] == "Bearer first-token"
    assert asked.renew() is False
    file.write_text("second-token")
    assert asked.renew() is True
    assert asked.headers()["Authorization"] == "Bearer second-token"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"hush-hush\nmore-hush", "it has 2 lines"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"hush hush", "other than plain characters"),
        ("h\u00fcsh-hush".encode(), "other than plain characters"),
        (b"hush-hush\x00", "other than plain characters"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_token_that_cannot_be_one_is_said_without_being_shown(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "credential" if content is None else in_file(tmp_path, content)
    with pytest.raises(UsageError, match=told) as caught:
        login(TOKEN, file=file).headers()
    assert str(file) in caught.value.message
    assert "hush" not in caught.value.told
    assert caught.value.next_step


def test_a_token_that_may_not_be_read_or_is_a_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        login(TOKEN, file=tmp_path).headers()

    def denied(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = in_file(tmp_path, "x")
    monkeypatch.setattr(Path, "read_bytes", denied)  # the tests may run as root, who reads everything
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        login(TOKEN, file=file).headers()


@pytest.mark.parametrize("kind", [TOKEN, COOKIES])
def test_a_file_that_all_may_read_is_warned_of_and_used(tmp_path: Path, kind: str) -> None:
    file = in_file(tmp_path, "name=value")
    file.chmod(0o644)
    asked = login(kind, file=file)
    assert asked.headers()
    assert "everybody on this machine may read" in asked.identity().warnings[0]


def test_a_file_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    in_file(tmp_path, "opaque-token")
    assert login(TOKEN, file="~/credential").headers() == {"Authorization": "Bearer opaque-token"}


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"sub": "Cg0w", "email": "me@example.org", "preferred_username": "me"}, "me@example.org"),
        ({"sub": "Cg0w", "preferred_username": "me"}, "me"),
        ({"sub": "system:serviceaccount:risk:robot"}, "system:serviceaccount:risk:robot"),
        ({"sub": 7, "email": None}, ""),
    ],
)
def test_a_token_tells_who_and_until_when(tmp_path: Path, claims: dict[str, Any], user: str) -> None:
    told = login(TOKEN, file=in_file(tmp_path, jwt(exp=4_102_444_800, **claims))).identity()
    assert told.user == user
    assert told.until is not None
    assert told.until.isoformat() == "2100-01-01T00:00:00+00:00"
    assert told.source == "the token's claims"


@pytest.mark.parametrize("end", [None, "soon", True, float("inf"), 1e300])
def test_a_token_without_an_end_has_none(tmp_path: Path, end: object) -> None:
    assert login(TOKEN, file=in_file(tmp_path, jwt(sub="me", exp=end))).identity().until is None


@pytest.mark.parametrize("token", ["a.b.c", "e30.W10.x", "e30.bm8.x", "....", "e30." + "W1tb" * 30_000 + ".x"])
def test_what_only_looks_like_a_token_is_sent_as_it_is(tmp_path: Path, token: str) -> None:
    asked = login(TOKEN, file=in_file(tmp_path, token))
    assert asked.headers() == {"Authorization": f"Bearer {token}"}
    assert asked.identity().until is None


def test_an_expired_token_is_said_with_the_time_and_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    token = jwt(sub="me", exp=1_700_000_000 - 3 * 3600)
    with pytest.raises(RemoteError) as caught:
        login(TOKEN, file=in_file(tmp_path, token)).headers()
    assert "expired at 2023-11-14 19:13 UTC, 3 h ago" in caught.value.message
    assert token not in caught.value.told
    assert caught.value.next_step == "Write a new token to the file."


def test_clocks_that_differ_by_seconds_do_not_refuse_a_token(tmp_path: Path) -> None:
    assert login(TOKEN, file=in_file(tmp_path, jwt(sub="me", exp=int(time.time()) - 20))).headers()


def test_in_a_cluster_the_mounted_token_is_sent_and_known_to_be_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = in_file(tmp_path, jwt(sub="system:serviceaccount:risk:robot", aud=["pipelines.kubeflow.org"], exp=4_102_444_800))
    monkeypatch.setattr("trainshed.tools.kubeflow_auth.SERVICE_ACCOUNT_TOKEN", file)
    asked = login(SERVICE)
    assert asked.headers()["Authorization"] == f"Bearer {file.read_text()}"
    told = asked.identity()
    assert (told.user, told.renews, told.warnings) == ("system:serviceaccount:risk:robot", True, ())


def test_the_sdks_variable_names_another_token_and_one_for_others_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = in_file(tmp_path, jwt(sub="robot", aud="https://kubernetes.default.svc"))
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    asked = login(SERVICE)
    assert asked.headers()["Authorization"] == f"Bearer {file.read_text()}"
    assert "is for https://kubernetes.default.svc" in asked.identity().warnings[0]


def test_outside_of_a_cluster_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match="does not run inside of a cluster"):
        login(SERVICE).headers()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(UsageError, match="mounted in this pod") as caught:
        login(SERVICE).headers()
    assert "pipelines.kubeflow.org" in caught.value.next_step


@pytest.mark.parametrize("content", ["Cookie: a-0=long-value-1; a-1=long-value-2\n", "cookie:a-0=long-value-1; a-1=long-value-2"])
def test_cookies_are_sent_as_they_are_and_their_values_hidden(tmp_path: Path, content: str) -> None:
    secrets: list[str] = []
    asked = login(COOKIES, file=in_file(tmp_path, content), secrets=secrets)
    assert asked.headers() == {"Cookie": "a-0=long-value-1; a-1=long-value-2"}
    assert {"long-value-1", "long-value-2", "a-0=long-value-1; a-1=long-value-2"} <= set(secrets)


def test_a_short_cookie_is_no_secret(tmp_path: Path) -> None:
    secrets: list[str] = []
    login(COOKIES, file=in_file(tmp_path, "theme=dark; session=long-value"), secrets=secrets).headers()
    assert "dark" not in secrets


@pytest.mark.parametrize("content", ["hush-hush", "hush; hush=1", "=hush", "# Netscape HTTP Cookie File\nhost\tTRUE\t/\thush", ";"])
def test_cookies_that_are_no_header_are_said_without_being_shown(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="expected one") as caught:
        login(COOKIES, file=in_file(tmp_path, content)).headers()
    assert "hush" not in caught.value.told


@pytest.mark.parametrize(("present", "missing"), [((0,), "-1"), ((1,), "-0"), ((0, 2), "-1"), ((2,), "-0 and AWSELBAuthSessionCookie-1")])
def test_half_of_a_load_balancers_session_is_said_before_any_request(tmp_path: Path, present: tuple[int, ...], missing: str) -> None:
    header = "; ".join(["lang=en", *(f"AWSELBAuthSessionCookie-{number}=hush" for number in present)])
    with pytest.raises(UsageError) as caught:
        login(COOKIES, file=in_file(tmp_path, header)).headers()
    assert f"AWSELBAuthSessionCookie{missing} is missing" in caught.value.message
    assert "hush" not in caught.value.told


def test_both_halves_of_a_load_balancers_session_are_sent(tmp_path: Path) -> None:
    header = "AWSELBAuthSessionCookie-0=first; AWSELBAuthSessionCookie-1=second"
    assert login(COOKIES, file=in_file(tmp_path, header)).headers() == {"Cookie": header}


def test_cookies_that_are_tokens_tell_who_and_until_when(tmp_path: Path) -> None:
    live, stale = jwt(email="me@example.org", exp=4_102_444_800), jwt(email="old@example.org", exp=1_000_000_000)
    told = login(COOKIES, file=in_file(tmp_path, f"id={live}; theme=dark; old={stale}")).identity()
    assert told.user == "me@example.org"
    assert told.until is not None
    assert told.until.year == 2100
    assert told.warnings == ("the cookie old expired at 2001-09-09 01:46 UTC",)


def test_cookies_of_which_none_lives_are_not_sent(tmp_path: Path) -> None:
    stale = jwt(email="old@example.org", exp=1_000_000_000)
    with pytest.raises(RemoteError, match=r"expired at 2001-09-09 01:46 UTC, \d+ days ago") as caught:
        login(COOKIES, file=in_file(tmp_path, f"id={stale}")).headers()
    assert stale not in caught.value.told


def test_new_cookies_are_taken_up_after_a_refusal(tmp_path: Path) -> None:
    file = in_file(tmp_path, "session=long-value-1")
    asked = login(COOKIES, file=file)
    asked.headers()
    assert asked.renew() is False
    file.write_text("session=long-value-2")
    assert asked.renew() is True


def test_a_header_names_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[str] = []
    monkeypatch.setenv("WHO", "me@example.org\n")
    asked = login("header", name="kubeflow-userid", value_env="WHO", secrets=secrets)
    assert asked.headers() == {"kubeflow-userid": "me@example.org"}
    assert (asked.identity().user, asked.identity().source) == ("me@example.org", "the header kubeflow-userid")
    assert asked.renew() is False
    assert secrets == []


def test_a_token_in_a_header_is_hidden_and_its_end_known(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[str] = []
    token = jwt(email="me@example.org", exp=1_000_000_000)
    monkeypatch.setenv("WHO", f"Bearer {token}")
    with pytest.raises(RemoteError, match=r"variable WHO: .* expired at 2001") as caught:
        login("header", name="X-Auth", value_env="WHO", secrets=secrets).headers()
    assert secrets == [token]
    assert token not in caught.value.told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("user", None, "the variable WHO is not set"),
        ("user", "hush\r\nX-Admin: yes", "expected one line of plain characters"),
        ("user", "h\u00fcsh", "expected one line of plain characters"),
        ("user id", "hush", "'user id' is no name of a header"),
    ],
)
def test_a_header_that_cannot_be_sent_is_said(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, told: str) -> None:
    if value is not None:
        monkeypatch.setenv("WHO", value)
    with pytest.raises(UsageError, match=told) as caught:
        login("header", name=name, value_env="WHO").headers()
    assert "hush" not in caught.value.told
