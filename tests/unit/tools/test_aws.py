from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trainshed.errors import RemoteError, UsageError
from trainshed.tools.aws import Aws, CredentialsExpired, Refused

pytestmark = pytest.mark.sockets
Answer = tuple[int, dict[str, Any]] | None
FINE: Answer = (200, {"clusterArns": ["a"]})


def refusal(code: str, status: int = 400) -> Answer:
    return status, {"__type": code, "message": f"the words of {code}"}


class Script:
    """Answers one after the other; None breaks the connection, and the last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        self.keys: list[str] = []

    def next(self, authorization: str) -> Answer:
        self.keys.append(authorization.partition("Credential=")[2].partition("/")[0])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(scope="module")
def listening() -> Iterator[Callable[[], Script]]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = scripts[-1].next(self.headers.get("Authorization", ""))
            if answer is None:
                self.close_connection = True
                return
            body = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    scripts: list[Script] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def fresh() -> Script:
        scripts.append(Script())
        scripts[-1].url = f"http://127.0.0.1:{server.server_address[1]}"
        return scripts[-1]

    yield fresh
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def script(listening: Callable[[], Script], monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unseen")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("trainshed.tools.aws._FIRST_PAUSE", 0.0)
    return listening()


@pytest.fixture
def aws(script: Script) -> Aws:
    return Aws(region="eu-west-1", endpoints={"ecs": script.url})


@pytest.mark.parametrize(
    "first", [refusal("ThrottlingException"), refusal("ServerException", 500), None], ids=["throttled", "broken", "cut"]
)
def test_a_question_is_asked_again(aws: Aws, script: Script, first: Answer) -> None:
    script.answers = [first, first, FINE]
    assert aws.call("ecs", "list_clusters")["clusterArns"] == ["a"]
    assert len(script.keys) == 3


@pytest.mark.parametrize("first", [refusal("ServerException", 500), None], ids=["broken", "cut"])
def test_a_change_that_may_have_been_taken_is_not_repeated(aws: Aws, script: Script, first: Answer) -> None:
    script.answers = [first, (200, {"cluster": {}})]
    with pytest.raises(RemoteError):
        aws.call("ecs", "create_cluster", clusterName="x")
    assert len(script.keys) == 1


def test_a_throttled_change_is_repeated_for_it_was_not_taken(aws: Aws, script: Script) -> None:
    script.answers = [refusal("ThrottlingException"), (200, {"cluster": {"clusterName": "x"}})]
    assert aws.call("ecs", "create_cluster", clusterName="x")["cluster"]["clusterName"] == "x"


def test_pages_that_go_in_a_circle_are_an_error_and_no_bug(aws: Aws, script: Script) -> None:
    script.answers = [(200, {"clusterArns": ["a"], "nextToken": "again"})]
    with pytest.raises(RemoteError, match="list_clusters gives the same page twice"):
        list(aws.pages("ecs", "list_clusters"))


def test_throttling_that_does_not_end_is_a_remote_error(aws: Aws, script: Script) -> None:
    script.answers = [refusal("ThrottlingException")]
    with pytest.raises(RemoteError, match="ThrottlingException") as caught:
        aws.call("ecs", "list_clusters")
    assert "Wait" in caught.value.next_step
    assert len(script.keys) == 5


@pytest.mark.parametrize(("code", "denied"), [("ClusterNotFoundException", False), ("AccessDeniedException", True)])
def test_a_refusal_has_its_code_and_is_not_repeated(aws: Aws, script: Script, code: str, denied: bool) -> None:
    script.answers = [refusal(code)]
    with pytest.raises(Refused, match=f"AWS ecs in eu-west-1: list_clusters was refused: {code}: the words of {code}") as caught:
        aws.call("ecs", "list_clusters")
    assert (caught.value.code, caught.value.said, caught.value.denied) == (code, f"the words of {code}", denied)
    assert len(script.keys) == 1


def test_what_is_missing_is_told_from_what_is_refused(aws: Aws, script: Script) -> None:
    script.answers = [refusal("ClusterNotFoundException"), refusal("AccessDeniedException")]
    assert aws.find("ecs", "list_clusters", "ClusterNotFoundException") is None
    with pytest.raises(Refused):
        aws.find("ecs", "list_clusters", "ClusterNotFoundException")


def test_credentials_that_ran_out_are_read_anew(aws: Aws, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.answers = [FINE, refusal("ExpiredTokenException"), FINE]
    aws.call("ecs", "list_clusters")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    assert aws.call("ecs", "list_clusters")["clusterArns"] == ["a"]
    assert script.keys == ["first", "first", "second"]


def test_credentials_that_stay_stale_are_said(aws: Aws, script: Script) -> None:
    script.answers = [refusal("ExpiredTokenException")]
    with pytest.raises(CredentialsExpired, match="the credentials ran out") as caught:
        aws.call("ecs", "list_clusters")
    assert "Renew" in caught.value.next_step
    assert caught.value.permanent
    assert len(script.keys) == 2


def test_pages_are_asked_to_the_last_one(aws: Aws, script: Script) -> None:
    script.answers = [(200, {"clusterArns": ["a"], "nextToken": "1"}), refusal("ThrottlingException"), (200, {"clusterArns": ["b"]})]
    assert [page["clusterArns"] for page in aws.pages("ecs", "list_clusters")] == [["a"], ["b"]]


def test_no_credentials_and_a_malformed_request_are_the_callers(aws: Aws, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.answers = [FINE]
    with pytest.raises(UsageError, match="Unknown parameter"):
        aws.call("ecs", "list_clusters", nonsense=1)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(UsageError, match="credentials") as caught:
        Aws(region="eu-west-1", endpoints={"*": script.url}).call("ecs", "list_clusters")
    assert "role" in caught.value.next_step
    assert script.keys == []


def test_nobody_at_the_address_is_a_remote_error_with_the_address() -> None:
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9"):
        Aws(region="eu-west-1", endpoints={"*": "http://127.0.0.1:9"}, anonymous=True).call("ecs", "create_cluster")


def test_the_anonymous_send_no_signature(script: Script) -> None:
    script.answers = [FINE]
    Aws(region="eu-west-1", endpoints={"*": script.url}, anonymous=True).elsewhere("us-east-1").call("ecs", "list_clusters")
    assert script.keys == [""]


def test_many_threads_share_one_client(aws: Aws, script: Script) -> None:
    script.answers = [FINE]
    made: list[object] = []
    threads = [threading.Thread(target=lambda: made.append(aws._client("ecs"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, made))) == 1
