"""Pushes that race, and the marks on unfinished images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from trainshed import owner
from trainshed.errors import RemoteError, ToolMissing
from trainshed.tools import process
from trainshed.tools.credentials import Login
from trainshed.tools.docker import Engine, _tag_alive, temporary_tag

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
PUSHED: list[dict[str, Any]] = [{"status": "pushing"}, {"aux": {"Tag": "1", "Digest": DIGEST}}]
RACING: list[dict[str, Any]] = [{"error": "manifest blob unknown: blob unknown to registry"}]


class Api:
    """An engine that answers each push with the next of the given streams of events."""

    def __init__(self, *pushes: list[dict[str, Any]]) -> None:
        self.pushes = list(pushes)
        self.asked = 0
        self.auths: list[object] = []

    def push(self, name: str, tag: str, *, auth_config: object, **_: object) -> list[dict[str, Any]]:
        self.auths.append(auth_config)
        assert (name, tag) == ("127.0.0.1:5000/a", "in-1")
        self.asked += 1
        return self.pushes.pop(0)


def engine(api: Api, login: Callable[[str], Login | None] = lambda _host: None) -> Engine:
    return Engine(cast(Any, api), "unix:///nowhere", "20.10", login=login)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    return made


def test_a_push_that_lost_a_race_is_tried_again(pauses: list[float]) -> None:
    api = Api(RACING, [{"error": "digest invalid: provided digest did not match"}], PUSHED)
    assert engine(api).push("127.0.0.1:5000/a:in-1") == DIGEST
    assert len(pauses) == 2


def test_a_tag_that_another_push_has_made_is_taken() -> None:
    api = Api(RACING)
    assert engine(api).push("127.0.0.1:5000/a:in-1", present=lambda: OTHER) == OTHER


@pytest.mark.parametrize("word", ["denied: no", "unauthorized: log in", "no basic auth credentials", "tag is immutable"])
def test_a_refusal_is_final(word: str) -> None:
    api = Api([{"error": word}])
    with pytest.raises(RemoteError, match=f"push of 127.0.0.1:5000/a:in-1: {word}"):
        engine(api).push("127.0.0.1:5000/a:in-1")
    assert api.asked == 1


def test_a_push_that_never_succeeds_is_given_up() -> None:
    api = Api(*[RACING] * 9)
    with pytest.raises(RemoteError, match="blob unknown"):
        engine(api).push("127.0.0.1:5000/a:in-1")
    assert api.asked == 5


def test_a_push_without_digest_is_an_error() -> None:
    with pytest.raises(RemoteError, match="named no digest"):
        engine(Api(*[[{"status": "pushing"}]] * 5)).push("127.0.0.1:5000/a:in-1")


def test_the_mark_of_an_unfinished_image_tells_its_owner() -> None:
    repository, _, mark = temporary_tag("train").rpartition(":")
    assert repository == "trainshed.invalid/train"
    assert _tag_alive(mark) is True
    host, pid, start = mark.split("-")
    assert _tag_alive(f"{host}-{pid}-{int(start) - 1}") is False
    assert _tag_alive(f"{'0' * 16}-{pid}-{start}") is None
    assert owner.mark().endswith(f":{pid}:{start}")


def test_an_engine_that_is_not_there_is_a_missing_tool() -> None:
    with pytest.raises(ToolMissing, match=r"no container engine answers at unix:///nowhere/docker\.sock"):
        Engine.connect("unix:///nowhere/docker.sock")


def test_too_many_requests_are_repeated_and_a_quota_is_not(pauses: list[float]) -> None:
    api = Api([{"error": "toomanyrequests: Rate exceeded"}], PUSHED)
    assert engine(api).push("127.0.0.1:5000/a:in-1") == DIGEST
    assert len(pauses) == 1
    full = Api([{"error": "The repository already has the maximum allowed number of images which is '10000'"}], PUSHED)
    with pytest.raises(RemoteError, match="maximum allowed number"):
        engine(full).push("127.0.0.1:5000/a:in-1")
    assert full.asked == 1


def test_a_log_in_that_ended_meanwhile_is_taken_anew() -> None:
    api, given = Api([{"error": "denied: Your authorization token has expired. Reauthenticate and try again."}], PUSHED), list[str]()

    def login(host: str) -> Login:
        given.append(host)
        return Login(username="AWS", password=f"token-{len(given)}")

    assert engine(api, login).push("127.0.0.1:5000/a:in-1") == DIGEST
    assert given == ["127.0.0.1:5000"] * 2
    assert api.auths == [{"username": "AWS", "password": f"token-{number}"} for number in (1, 2)]


def test_an_identity_token_is_handed_on_as_one() -> None:
    api = Api(PUSHED)
    engine(api, lambda _host: Login(identity_token=DIGEST)).push("127.0.0.1:5000/a:in-1")
    assert api.auths == [{"identitytoken": DIGEST}]


def test_a_repository_that_is_missing_names_the_command_that_makes_it() -> None:
    api = Api([{"error": "name unknown: The repository with name 'a' does not exist in the registry with id '123456789012'"}])
    with pytest.raises(RemoteError, match="does not exist in the registry") as caught:
        engine(api).push("127.0.0.1:5000/a:in-1")
    assert "trainshed registry ensure" in caught.value.next_step


def test_an_immutable_tag_that_is_there_by_now_is_taken_as_it_is() -> None:
    said = "tag invalid: The image tag 'in-1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable."
    assert engine(Api([{"error": said}])).push("127.0.0.1:5000/a:in-1", present=lambda: OTHER) == OTHER
    with pytest.raises(RemoteError, match="immutable"):
        engine(Api([{"error": said}])).push("127.0.0.1:5000/a:in-1")
