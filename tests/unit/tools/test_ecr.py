"""ECR's token: asked for once, kept while it is good, and every refusal says what to do."""

from __future__ import annotations

import base64
import datetime as dt
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from trainshed.errors import RemoteError, TrainshedError, UsageError
from trainshed.tools.aws import Aws, Refused
from trainshed.tools.credentials import Login
from trainshed.tools.ecr import Ecr

HOST, PASSWORD = "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "very-long-token"


class Answers:
    """AWS that gives one token after the other, each for so many seconds; or fails."""

    def __init__(self, seconds: float = 43_200.0, error: TrainshedError | None = None, data: list[dict[str, Any]] | None = None) -> None:
        self.seconds, self.error, self.data = seconds, error, data
        self.asked = 0
        self._lock = threading.Lock()

    def call(self, service: str, operation: str, /, **parameters: object) -> Mapping[str, Any]:
        assert (service, operation, parameters) == ("ecr", "get_authorization_token", {})
        with self._lock:
            self.asked += 1
        if self.error is not None:
            raise self.error
        token = base64.b64encode(f"AWS:{PASSWORD}-{self.asked}".encode()).decode()
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.seconds)
        return {"authorizationData": [{"authorizationToken": token, "expiresAt": ends}] if self.data is None else self.data}


def registry(answers: Answers, secrets: list[str] | None = None) -> Ecr:
    return Ecr(cast(Aws, answers), account="123456789012", on_secret=(secrets if secrets is not None else []).append)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("trainshed.tools.ecr.time.monotonic", lambda: now[0])
    return now


def test_a_hundred_threads_ask_once_and_the_token_is_a_secret() -> None:
    answers, secrets = Answers(), list[str]()
    one = registry(answers, secrets)
    with ThreadPoolExecutor(100) as pool:
        logins = set(pool.map(lambda _: one.login(HOST), range(100)))
    assert logins == {Login(username="AWS", password=f"{PASSWORD}-1")}
    assert answers.asked == 1
    assert secrets == [f"{PASSWORD}-1", base64.b64encode(f"AWS:{PASSWORD}-1".encode()).decode()]
    assert PASSWORD not in repr(logins)


def test_a_token_is_renewed_while_it_still_has_minutes_to_go(clock: list[float]) -> None:
    answers = Answers(seconds=43_200.0)
    one = registry(answers)
    assert one.login(HOST).password == f"{PASSWORD}-1"
    clock[0] += 43_200.0 - 1_300.0
    assert one.login(HOST).password == f"{PASSWORD}-1"
    clock[0] += 200.0
    assert one.login(HOST).password == f"{PASSWORD}-2"
    assert answers.asked == 2


def test_a_token_that_has_ended_when_it_comes_is_used_and_not_asked_for_at_each_look(clock: list[float]) -> None:
    answers = Answers(seconds=-300_000_000.0)
    one = registry(answers)
    assert {one.login(HOST).password for _ in range(50)} == {f"{PASSWORD}-1"}
    clock[0] += 61.0
    assert one.login(HOST).password == f"{PASSWORD}-2"
    assert answers.asked == 2


@pytest.mark.parametrize(
    ("error", "kind", "step"),
    [
        (Refused("refused", code="AccessDeniedException", said="no", next_step=""), UsageError, "Allow ecr:GetAuthorizationToken"),
        (Refused("refused", code="InvalidParameterException", said="no", next_step="Mend it."), UsageError, "Mend it."),
        (UsageError("no credentials", next_step="Give AWS credentials."), UsageError, "Give AWS credentials."),
        (RemoteError("too many", next_step="Wait."), RemoteError, "Wait."),
    ],
)
def test_a_refusal_names_the_registry_and_says_what_to_do(error: TrainshedError, kind: type[TrainshedError], step: str) -> None:
    with pytest.raises(kind) as caught:
        registry(Answers(error=error)).login(HOST)
    assert caught.value.message == f"{HOST}: no token to log in with: {error.message}"
    assert caught.value.next_step.startswith(step)
    assert type(caught.value) is kind


@pytest.mark.parametrize("data", [[], [{}], [{"authorizationToken": "%%"}], [{"authorizationToken": "QVdT"}]])
def test_an_answer_without_a_log_in_is_an_error_that_does_not_show_it(data: list[dict[str, Any]]) -> None:
    with pytest.raises(RemoteError, match=f"^{HOST}: AWS gave") as caught:
        registry(Answers(data=data)).login(HOST)
    assert "QVdT" not in caught.value.told


def test_a_token_without_an_end_is_kept_for_a_minute(clock: list[float]) -> None:
    token = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
    answers = Answers(data=[{"authorizationToken": token}])
    one = registry(answers)
    one.login(HOST)
    clock[0] += 59.0
    assert one.login(HOST).password == PASSWORD
    assert answers.asked == 1
