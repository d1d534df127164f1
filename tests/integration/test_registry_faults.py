"""A registry that throttles, fails, stalls, cuts off or refuses is never one that lacks an image."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support.registry import Fault, FaultyRegistry, faulty, running_registry
from trainshed.errors import Interrupted, RemoteError, UsageError
from trainshed.tools import process
from trainshed.tools.registry import RegistryClient

KIND = "application/vnd.docker.distribution.manifest.v2+json"
TAG = "in-" + "a" * 64


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        _put_image(address, "proj/train", TAG)
        yield address


@pytest.fixture
def registry(upstream: str) -> Iterator[FaultyRegistry]:
    with faulty(upstream) as made:
        yield made


def _request(address: str, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, body=body, headers={"Content-Type": kind})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def _put_image(address: str, repository: str, tag: str) -> None:
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"User": "1000"}, "rootfs": {"type": "layers", "diff_ids": []}})
    digest = f"sha256:{hashlib.sha256(config.encode()).hexdigest()}"
    started = _request(address, "POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
    path = started.removeprefix(f"http://{address}")
    assert _request(address, "PUT", f"{path}&digest={digest}", config.encode()).status == 201
    described = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest}
    manifest = {"schemaVersion": 2, "mediaType": KIND, "config": described, "layers": []}
    assert _request(address, "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), KIND).status == 201


def test_what_is_there_and_what_is_not_are_told_apart(registry: FaultyRegistry) -> None:
    with RegistryClient() as client:
        found = client.digest(f"{registry.address}/proj/train:{TAG}")
        assert found is not None
        assert client.digest(f"{registry.address}/proj/train@{found}") == found
        assert client.digest(f"{registry.address}/proj/train:in-other") is None
        assert client.digest(f"{registry.address}/proj/nobody:{TAG}") is None
        assert client.tag(f"{registry.address}/proj/train@{found}", "again") == found
        assert client.digest(f"{registry.address}/proj/train:again") == found
        assert json.loads(client.config(f"{registry.address}/proj/train@{found}"))["config"] == {"User": "1000"}
        client.ping(registry.address)


@pytest.mark.parametrize("tag", [TAG, "in-missing"])
@pytest.mark.parametrize("kind", ["401", "403", "429", "500", "502", "503", "reset", "html404", "slow"])
def test_a_fault_that_stays_is_an_error_whether_the_image_is_there_or_not(registry: FaultyRegistry, kind: str, tag: str) -> None:
    registry.fault = Fault(kind)
    with RegistryClient(timeout=0.2 if kind == "slow" else 30.0) as client, pytest.raises(RemoteError) as caught:
        client.digest(f"{registry.address}/proj/train:{tag}")
    assert registry.address in caught.value.message
    assert caught.value.next_step


@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "reset"])
def test_a_fault_that_passes_is_waited_out(registry: FaultyRegistry, kind: str) -> None:
    registry.fault = Fault(kind, times=2)
    with RegistryClient() as client:
        assert client.digest(f"{registry.address}/proj/train:{TAG}") is not None
        assert client.digest(f"{registry.address}/proj/train:in-missing") is None
    assert registry.fault.seen == 2


def test_an_answer_that_is_cut_off_is_an_error(registry: FaultyRegistry) -> None:
    registry.fault = Fault("truncated", applies=lambda method, path: method == "GET" and "/manifests/" in path)
    with RegistryClient() as client, pytest.raises(RemoteError, match="the connection broke"):
        client.manifest(f"{registry.address}/proj/train:{TAG}")


def test_a_manifest_that_is_not_there_cannot_be_tagged(registry: FaultyRegistry) -> None:
    with RegistryClient() as client, pytest.raises(RemoteError, match="no such image"):
        client.tag(f"{registry.address}/proj/train:in-missing", "again")


def test_a_registry_that_is_not_there_is_an_error(upstream: str) -> None:
    with faulty(upstream) as made:
        gone = made.address
    with RegistryClient() as client, pytest.raises(RemoteError, match="no connection"):
        client.digest(f"{gone}/proj/train:{TAG}")


def test_an_address_that_is_no_registry_is_an_error_of_the_ping(registry: FaultyRegistry) -> None:
    registry.fault = Fault("html404", applies=lambda _method, _path: True)
    with RegistryClient() as client, pytest.raises(RemoteError, match="answered 404"):
        client.ping(registry.address)


def test_what_is_no_reference_is_the_users_error() -> None:
    with RegistryClient() as client, pytest.raises(UsageError, match="is not an image reference"):
        client.digest("not a reference")


def test_a_stalled_registry_does_not_hold_up_sigterm(registry: FaultyRegistry) -> None:
    registry.fault = Fault("slow")
    stopped: list[BaseException] = []

    def ask() -> None:
        try:
            with RegistryClient() as client:
                client.digest(f"{registry.address}/proj/train:{TAG}")
        except BaseException as error:  # noqa: BLE001 - looked at below
            stopped.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        process.stopping.set()
        asking.join(30)
        assert not asking.is_alive()
    finally:
        process.stopping.clear()
    assert isinstance(stopped[0], Interrupted)
