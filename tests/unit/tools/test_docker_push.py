"""Pushes that race, and the marks on unfinished images."""

from __future__ import annotations

from typing import Any, cast

import pytest

from trainshed import owner
from trainshed.errors import RemoteError, ToolMissing
from trainshed.tools import process
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

    def push(self, name: str, tag: str, **_: object) -> list[dict[str, Any]]:
        assert (name, tag) == ("127.0.0.1:5000/a", "in-1")
        self.asked += 1
        return self.pushes.pop(0)


def engine(api: Api) -> Engine:
    return Engine(cast(Any, api), "unix:///nowhere", "20.10")


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
