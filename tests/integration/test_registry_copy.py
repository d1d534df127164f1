"""Images copied by digest between two real registries: whole, with what refers to them, whatever breaks on the way."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.ecr import PASSWORD, ecr
from tests.support.oci import Store, ask, digest_of, some
from tests.support.registry import Proxy, proxied, wait_until
from trainshed import config
from trainshed.console import Console
from trainshed.errors import Interrupted, RemoteError, UsageError, WorkFailed
from trainshed.images import references
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Status
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.registry.copy import copy as copy_stage
from trainshed.stages.registry.copy import transfer
from trainshed.stages.registry.promises import keep_tag
from trainshed.stages.survey import survey
from trainshed.tools import process, referrers
from trainshed.tools.copying import INDEX, How, copy
from trainshed.tools.credentials import Login
from trainshed.tools.registry import RegistryClient

SMALL = 1_000_000
BIG = 25 * 1024 * 1024 + 17


@dataclass
class Gate:
    """What a proxy before a registry does wrong, and what it has seen.

    ``cut`` is after how many bytes of a layer connections break, so many ``times``; ``lost`` is how many big pieces are taken, wholly or
    by ``half``, whose answer never comes; with ``steady`` it tells how far an upload came by the address of its first piece; ``wrong``
    are blobs that come with a changed byte; ``ranges`` whether the registry can begin in the middle;
    ``referrers`` are answered as registries do that keep them, None: this one does not.
    """

    address: str = ""
    cut: int = 0
    times: int = 0
    lost: int = 0
    half: bool = False
    steady: bool = True
    places: dict[str, str] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    ranges: bool = True
    referrers: dict[str, list[dict[str, Any]]] | None = None
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for one, path, _ in self.asked if one == method and re.search(pattern, path))


class _Gate(Proxy):
    def serve(self) -> None:
        gate: Gate = self.server.state  # type: ignore[attr-defined]
        body = self.body()
        with gate.lock:
            gate.asked.append((self.command, self.path, self.headers.get("Range", "")))
        path = self.path.partition("?")[0]
        if self.command == "GET" and gate.steady and path in gate.places:
            self.path = gate.places[path]
        if self.command == "PATCH" and gate.lost and gate.half and len(body) > SMALL:
            body = body[: len(body) // 2]
            self.headers.replace_header("Content-Length", str(len(body)))
        if not gate.ranges:
            del self.headers["Range"]
        if "/referrers/" in self.path and gate.referrers is not None:
            listed = gate.referrers.get(self.path.rpartition("/")[2], [])
            content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
            super().answer(200, {"Content-Type": INDEX, "Content-Length": str(len(content))}, content)
            return
        self.forward(body)

    def answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        gate: Gate = self.server.state  # type: ignore[attr-defined]
        if self.command == "PATCH":
            place = dict(headers)["Location"].partition("/v2/")
            gate.places[self.path.partition("?")[0]] = "".join(place[1:])
        if self.command == "PATCH" and gate.lost and int(self.headers["Content-Length"]) > SMALL:
            gate.lost -= 1
            self.close_connection = True
            return
        if self.command == "GET" and "/blobs/sha256" in self.path:
            if self.path.rpartition("/")[2] in gate.wrong:
                content = bytes([content[0] ^ 1]) + content[1:]
            if gate.times and len(content) > gate.cut:
                gate.times -= 1
                self.close_connection = True
                content = content[: gate.cut]
        super().answer(status, headers, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815 - the library's names


@contextmanager
def gated(upstream: str) -> Iterator[Gate]:
    gate = Gate()
    with proxied(upstream, _Gate, gate) as address:
        gate.address = address
        yield gate


@pytest.fixture
def name() -> str:
    return f"team/small-{os.urandom(6).hex()}"


@pytest.fixture
def source(registries: tuple[str, str], name: str) -> Store:
    return Store(registries[0], name)


@pytest.fixture
def target(registries: tuple[str, str], name: str) -> str:
    return f"{registries[1]}/copied/{name}"


@pytest.fixture
def client() -> Iterator[RegistryClient]:
    with RegistryClient() as made:
        yield made


class Seen(Counter[How]):
    """Counts what came, by how."""

    def __call__(self, _digest: str, _size: int, how: How) -> None:
        self[how] += 1


def test_an_index_comes_with_its_images_under_the_same_digest_and_once(client: RegistryClient, source: Store, target: str) -> None:
    shared = some(1000, 1)
    children = [source.image(shared, some(10, number)) for number in (2, 3)]
    index = source.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, tag="one")
    first, second = Seen(), Seen()
    reference = f"{source.repository}@{index['digest']}"
    assert copy(client, reference, target, tag=keep_tag, on_progress=first) == index["digest"]
    for wanted in (index, *children):
        assert client.manifest(f"{target}@{wanted['digest']}") == client.manifest(f"{source.repository}@{wanted['digest']}")
    for wanted in (index, *children):
        assert client.digest(f"{target}:{keep_tag(wanted['digest'])}") == wanted["digest"]
    # One configuration and the first layer are of both images: 3 manifests, 1 configuration, 3 layers.
    assert first[How.SENT] == 7
    assert copy(client, reference, target, tag=keep_tag, on_progress=second) == index["digest"]
    assert second == Seen({How.PRESENT: 3})


def test_what_refers_to_an_image_comes_too(client: RegistryClient, source: Store, target: str, registries: tuple[str, str]) -> None:
    image = source.image(some(10, 4))
    signature = source.image(some(10, 5), subject=image)
    approval = source.image(some(10, 6), subject=signature)
    with gated(registries[0]) as gate:
        gate.referrers = {image["digest"]: [signature], signature["digest"]: [approval]}
        copy(client, f"{gate.address}/{source.name}@{image['digest']}", target)
    for one in (image, signature, approval):
        assert client.digest(f"{target}@{one['digest']}") == one["digest"]
    # The target keeps no referrers by itself: the tag of the specification does, and it is what the next copy reads.
    onwards = f"{registries[0]}/onwards/{source.name}"
    copy(client, f"{target}@{image['digest']}", onwards)
    assert client.digest(f"{onwards}@{approval['digest']}") == approval["digest"]
    before = client.digest(f"{target}:{image['digest'].replace(':', '-')}")
    with gated(registries[0]) as gate:
        gate.referrers = {image["digest"]: [signature], signature["digest"]: [approval]}
        copy(client, f"{gate.address}/{source.name}@{image['digest']}", target)
    assert client.digest(f"{target}:{image['digest'].replace(':', '-')}") == before


@pytest.mark.parametrize("ending", ["sig", "att", "sbom"])
def test_what_cosign_tagged_comes_too_and_no_signature_is_lost(client: RegistryClient, source: Store, target: str, ending: str) -> None:
    image, mine, theirs = source.image(some(10, 30)), some(10, 31), some(10, 32)
    tag = f"{image['digest'].replace(':', '-')}.{ending}"
    reference, elsewhere = f"{source.repository}@{image['digest']}", Store(*target.split("/", 1))
    signature = source.image(mine, tag=tag)
    copy(client, reference, target, tag=keep_tag)
    assert client.digest(f"{target}:{tag}") == signature["digest"] == client.digest(f"{target}:{keep_tag(signature['digest'])}")
    more = source.image(mine, some(10, 33), tag=tag)
    copy(client, reference, target)
    assert client.digest(f"{target}:{tag}") == more["digest"]
    signed_there = elsewhere.image(mine, some(10, 33), theirs, tag=tag)
    copy(client, reference, target)
    assert client.digest(f"{target}:{tag}") == signed_there["digest"]
    elsewhere.image(theirs, tag=tag)
    with pytest.raises(WorkFailed, match="lacks, and the other way round"):
        copy(client, reference, target)


def test_a_signature_that_was_added_cannot_move_a_tag_of_ecr(source: Store, registries: tuple[str, str]) -> None:
    image = source.image(some(10, 35))
    tag = f"{image['digest'].replace(':', '-')}.sig"
    with ecr(registries[1]) as registry, RegistryClient(login={registry.address: Login(username="AWS", password=PASSWORD)}.get) as client:
        reference, target = f"{source.repository}@{image['digest']}", f"{registry.address}/ecr/{source.name}"
        first = source.image(some(10, 36), tag=tag)
        copy(client, reference, target)
        source.image(some(10, 36), some(10, 37), tag=tag)
        with pytest.raises(WorkFailed, match="its tag is immutable") as caught:
            copy(client, reference, target)
        assert "OCI 1.1" in caught.value.next_step
        assert client.digest(f"{target}:{tag}") == first["digest"]


def test_a_connection_cut_in_the_middle_of_a_layer_goes_on_from_there(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str]
) -> None:
    image = source.image(some(BIG, 7))
    with gated(registries[0]) as gate:
        gate.cut, gate.times = 12_000_000, 2
        copy(client, f"{gate.address}/{source.name}@{image['digest']}", target)
        resumed = [asked for _, _, asked in gate.asked if asked]
    assert gate.times == 0
    assert resumed == ["bytes=12000000-", "bytes=12000000-"] or [int(one[6:-1]) for one in resumed] == sorted(
        int(one[6:-1]) for one in resumed
    )
    assert len(resumed) == 2
    assert client.digest(f"{target}@{image['digest']}") == image["digest"]


def test_a_registry_that_cannot_begin_in_the_middle_is_read_anew(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str]
) -> None:
    image = source.image(some(3_000_000, 8))
    with gated(registries[0]) as gate:
        gate.cut, gate.times, gate.ranges = 2_000_000, 1, False
        copy(client, f"{gate.address}/{source.name}@{image['digest']}", target)
    assert gate.times == 0
    assert client.digest(f"{target}@{image['digest']}") == image["digest"]


@pytest.mark.parametrize(
    ("steady", "half", "pieces"),
    [
        pytest.param(True, False, 4, id="taken wholly, so it is not sent again"),
        pytest.param(True, True, 5, id="taken by half, so the other half is sent"),
        pytest.param(False, False, 5, id="the registry does not say, so the layer is begun anew"),
    ],
)
def test_a_piece_whose_answer_is_lost(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str], steady: bool, half: bool, pieces: int
) -> None:
    image = source.image(some(BIG, 9))
    with gated(registries[1]) as gate:
        gate.lost, gate.half, gate.steady = 1, half, steady
        there = f"{gate.address}/{target.partition('/')[2]}"
        assert copy(client, f"{source.repository}@{image['digest']}", there) == image["digest"]
        assert gate.lost == 0
        # Without a loss three pieces of the layer, and one of the configuration.
        assert gate.count("PATCH", "/blobs/uploads/") == pieces
        assert gate.count("PUT", "/blobs/uploads/") == 2


def test_content_that_is_not_what_its_digest_says_never_arrives(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str]
) -> None:
    layer = some(1000, 10)
    image = source.image(layer, some(1000, 11))
    with gated(registries[0]) as gate:
        gate.wrong = {digest_of(layer)}
        with pytest.raises(WorkFailed, match="not what its digest says"):
            copy(client, f"{gate.address}/{source.name}@{image['digest']}", target, tag=keep_tag)
    assert client.digest(f"{target}@{image['digest']}") is None
    assert client.tags(target) == set()
    again = Seen()
    copy(client, f"{source.repository}@{image['digest']}", target, tag=keep_tag, on_progress=again)
    assert again[How.PRESENT] == 2, "the configuration and the good layer came the first time"
    assert again[How.SENT] == 2, "the layer and the manifest"


def test_a_copy_that_ended_early_sends_only_what_is_missing(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str]
) -> None:
    layers = [some(20_000, seed) for seed in range(20, 26)]
    image = source.image(*layers)
    ended = ask(registries[0], "DELETE", f"/v2/{source.name}/blobs/{digest_of(layers[-1])}")
    assert ended.status == 202
    first, second = Seen(), Seen()
    with pytest.raises(RemoteError, match="404"):
        copy(client, f"{source.repository}@{image['digest']}", target, on_progress=first)
    assert client.digest(f"{target}@{image['digest']}") is None
    source.blob(layers[-1])
    copy(client, f"{source.repository}@{image['digest']}", target, on_progress=second)
    assert first == Seen({How.SENT: 6})
    assert second == Seen({How.PRESENT: 6, How.SENT: 2})


def test_within_one_registry_layers_are_mounted_and_not_sent(client: RegistryClient, source: Store) -> None:
    image = source.image(some(5000, 12))
    seen = Seen()
    copy(client, f"{source.repository}@{image['digest']}", f"{source.repository}-other", on_progress=seen)
    assert seen == Seen({How.MOUNTED: 2, How.SENT: 1})
    assert client.digest(f"{source.repository}-other@{image['digest']}") == image["digest"]


def test_a_tag_that_another_image_has_is_left_alone(client: RegistryClient, source: Store, target: str) -> None:
    one, two = source.image(some(10, 13)), source.image(some(10, 14))
    copy(client, f"{source.repository}@{one['digest']}", target, tag=lambda _digest: "keep")
    with pytest.raises(WorkFailed, match=":keep is sha256:"):
        copy(client, f"{source.repository}@{two['digest']}", target, tag=lambda _digest: "keep")
    assert client.digest(f"{target}:keep") == one["digest"]


def test_ecr_takes_a_copy_with_its_log_in_under_tags_that_cannot_be_moved(source: Store, registries: tuple[str, str]) -> None:
    image = source.image(some(5000, 15))
    with ecr(registries[1]) as registry:
        logins = {registry.address: Login(username="AWS", password=PASSWORD)}
        target = f"{registry.address}/ecr/{source.name}"
        with RegistryClient(login=logins.get) as client:
            for _ in range(2):
                seen = Seen()
                assert copy(client, f"{source.repository}@{image['digest']}", target, tag=keep_tag, on_progress=seen) == image["digest"]
            assert seen == Seen({How.PRESENT: 1})
            assert client.digest(f"{target}:{keep_tag(image['digest'])}") == image["digest"]
        with RegistryClient(login=lambda _host: None) as stranger, pytest.raises(RemoteError, match="log-in"):
            copy(stranger, f"{source.repository}@{image['digest']}", target)


PROJECT = """
[project]
name = "small"
[environments.dev]
registry = "{0}/team"
[environments.prod]
registry = "{1}/live"
trust = "main"
[environments.same]
registry = "{0}/team"
[environments.near]
registry = "{0}/live"
"""


@pytest.fixture
def context(tmp_path: Path, registries: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "trainshed.toml").write_text(PROJECT.format(*registries))
    (tmp_path / "pipeline_templates").mkdir()
    for component in ("one", "two"):
        folder = tmp_path / "components" / component
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
        (folder / "a").write_text(component)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    made = Context(
        config=config.load(tmp_path / "trainshed.toml", environment="dev"), console=Console(stream=io.StringIO()), tier=Tier.MAIN
    )
    images = {}
    for number, component in enumerate(("one", "two")):
        store = Store(registries[0], f"team/small/{component}")
        digest = store.image(some(2000, 100 + number), os.urandom(20))["digest"]
        images[component] = LockedImage(reference=f"{store.repository}@{digest}", digest=digest, input_digest="sha256:" + "0" * 64)
    digest = survey(made).plan_digest()
    locks.write(locking.path(made), locks.of(project="small", commit=None, dirty=False, plan_digest=digest, images=images))
    yield made
    made.close()


def test_the_command_copies_the_lock_and_keeps_what_it_copied(
    context: Context, registries: tuple[str, str], client: RegistryClient
) -> None:
    locked = locks.read(locking.path(context)).images
    dry = copy_stage(context, to="prod", dry_run=True)
    assert [result.status for result in dry.results] == [Status.SKIPPED] * 2
    assert client.digest(f"{registries[1]}/live/small/one@{locked['one'].digest}") is None
    report = copy_stage(context, to="prod")
    assert report.exit_code == 0
    for name, image in locked.items():
        there = f"{registries[1]}/live/small/{name}"
        assert client.digest(f"{there}:{keep_tag(image.digest)}") == image.digest
    assert report.results[0].details["sent"] == 4
    with closing(Context(config=config.load(context.config.file, environment="prod"), console=context.console, tier=Tier.MAIN)) as prod:
        deployed = locking.here(prod, "one", locked["one"])
        assert deployed == replace(locked["one"], reference=f"{registries[1]}/live/small/one@{locked['one'].digest}")
        lost = replace(locked["one"], digest=f"sha256:{'0' * 64}")
        assert locking.here(prod, "one", lost) == lost
    again = copy_stage(context, to="prod")
    assert [result.status for result in again.results] == [Status.CACHED] * 2
    assert [result.details["bytes"] for result in again.results] == [0, 0]


def test_within_one_registry_the_one_who_may_write_there_is_asked_as(
    context: Context, source: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def login(self: Context, host: str) -> Login:
        asked.append(f"{self.config.environment.name} {host}")
        return Login(username="AWS", password=PASSWORD)

    monkeypatch.setattr(Context, "login", login)
    with ecr(source.address) as registry:
        file = context.config.file
        file.write_text(file.read_text().replace(f'"{source.address}/live"', f'"{registry.address}/live"', 1))
        here = config.load(file, environment="dev")
        moved = Context(config=here, console=context.console, tier=Tier.MAIN)
        moved.__dict__["repository_prefix"] = f"{registry.address}/team/small"
        copy_stage(moved, to="near", dry_run=True)
        moved.close()
    assert set(asked) == {f"near {registry.address}"}


def test_one_image_that_fails_does_not_hide_the_other(context: Context, registries: tuple[str, str]) -> None:
    locked = locks.read(locking.path(context)).images
    assert ask(registries[0], "DELETE", f"/v2/team/small/one/manifests/{locked['one'].digest}").status == 202
    report = copy_stage(context, to="prod")
    one, two = report.results
    assert (one.status, two.status) == (Status.FAILED, Status.DONE)
    assert "no such image" in one.message
    assert report.exit_code == RemoteError.exit_code


@pytest.mark.parametrize(
    ("to", "tier", "told"),
    [
        (None, Tier.MAIN, "where to"),
        ("prd", Tier.MAIN, "perhaps you meant 'prod'"),
        ("prod", Tier.PULL_REQUEST, "for main and above"),
        ("same", Tier.MAIN, "the same registry"),
        ("local", Tier.MAIN, "own registry"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_sent(context: Context, to: str | None, tier: Tier, told: str) -> None:
    context.tier = tier
    with pytest.raises(UsageError, match=told):
        copy_stage(context, to=to)


def test_a_copy_that_is_interrupted_goes_on_when_it_is_run_again(client: RegistryClient, source: Store, target: str) -> None:
    image = source.image(*(some(20_000, seed) for seed in range(30, 50)))
    first, second = Seen(), Seen()

    def stop(digest: str, size: int, how: How) -> None:
        first(digest, size, how)
        process.stopping.set()

    with pytest.raises(Interrupted):
        copy(client, f"{source.repository}@{image['digest']}", target, on_progress=stop)
    # Whoever is interrupted ends; here what was left behind has to end first.
    wait_until(lambda: not any(thread.name.startswith("ThreadPool") for thread in threading.enumerate()), what="the end of the workers")
    process.stopping.clear()
    assert client.digest(f"{target}@{image['digest']}") is None
    copy(client, f"{source.repository}@{image['digest']}", target, on_progress=second)
    assert 0 < first[How.SENT] < 21
    assert second[How.PRESENT] >= first[How.SENT]
    assert sum(second.values()) == 22


def refer(store: Store, subject: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    """Say under the specification's tag what refers to a manifest: this registry keeps no list by itself."""
    store.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(others)}, tag=referrers.fallback(subject["digest"]))


def tells(client: RegistryClient, repository: str, digest: str) -> dict[str, tuple[bytes, frozenset[str]]]:
    """Return what a registry has and tells of all that goes with a manifest."""
    return {
        each: (
            client.manifest(f"{repository}@{each}")[0],
            frozenset(one["digest"] for one in referrers.present(client, repository, each)),
        )
        for each in referrers.attached(client, repository, digest)
    }


def test_both_sides_tell_the_same_of_an_index_its_images_and_what_refers_to_any_of_it(
    client: RegistryClient, source: Store, target: str
) -> None:
    child = source.image(some(10, 60))
    index = source.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})
    report, signature = source.image(some(10, 61), subject=child), source.image(some(10, 62), subject=index)
    approval = source.image(some(10, 63), subject=signature)
    refer(source, child, report)
    refer(source, index, signature)
    refer(source, signature, approval)
    copy(client, f"{source.repository}@{index['digest']}", target, tag=keep_tag)
    everything = tells(client, target, index["digest"])
    assert everything == tells(client, source.repository, index["digest"])
    assert set(everything) == {each["digest"] for each in (child, index, report, signature, approval)}
    # A registry's clean-up takes what has no tag: each has its own.
    assert {each: client.digest(f"{target}:{keep_tag(each)}") for each in everything} == {each: each for each in everything}


def test_what_comes_to_refer_to_an_image_later_is_brought_by_the_next_call_and_nothing_else(
    client: RegistryClient, source: Store, target: str
) -> None:
    image = source.image(some(1000, 64))
    reference = f"{source.repository}@{image['digest']}"
    copy(client, reference, target, tag=keep_tag)
    signature = source.image(some(10, 65), subject=image)
    refer(source, image, signature)
    seen = Seen()
    copy(client, reference, target, tag=keep_tag, on_progress=seen)
    assert seen == Seen({How.PRESENT: 2, How.SENT: 2}), "the image and the configuration are there; a layer and a manifest are new"
    assert tells(client, target, image["digest"]) == tells(client, source.repository, image["digest"])
    assert client.digest(f"{target}:{keep_tag(signature['digest'])}") == signature["digest"]


def test_a_list_that_names_what_is_not_there_yet_holds_nothing_up_and_is_followed_later(
    client: RegistryClient, source: Store, target: str
) -> None:
    image = source.image(some(1000, 66))
    reference = f"{source.repository}@{image['digest']}"
    signature = source.image(some(10, 67), subject=image)
    refer(source, image, signature)
    content, kind = client.manifest(f"{source.repository}@{signature['digest']}")
    assert ask(source.address, "DELETE", f"/v2/{source.name}/manifests/{signature['digest']}").status == 202
    copy(client, reference, target, tag=keep_tag)
    assert client.digest(f"{target}:{referrers.fallback(image['digest'])}") is None
    assert ask(source.address, "PUT", f"/v2/{source.name}/manifests/{signature['digest']}", content, kind).status == 201
    copy(client, reference, target, tag=keep_tag)
    assert {one["digest"] for one in referrers.present(client, target, image["digest"])} == {signature["digest"]}


def test_a_target_that_does_not_tell_what_refers_to_an_image_is_an_error(
    client: RegistryClient, source: Store, target: str, registries: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainshed.tools.http._FIRST_PAUSE", 0.001)
    image = source.image(some(10, 68))
    refer(source, image, source.image(some(10, 69), subject=image))
    with gated(registries[1]) as gate:
        gate.referrers = {}
        with pytest.raises(RemoteError, match="does not tell"):
            copy(client, f"{source.repository}@{image['digest']}", f"{gate.address}/{target.partition('/')[2]}", tag=keep_tag)
    assert client.digest(f"{target}:{keep_tag(image['digest'])}") is None, "nothing has its tag before all is proven"


def test_where_both_environments_have_one_registry_nothing_is_sent_and_all_is_kept(context: Context, client: RegistryClient) -> None:
    images = locks.read(locking.path(context)).images
    one = images["one"]
    store = Store(*references.parse(one.reference).repository.split("/", 1))
    assert transfer(context, context, {"one": one}, stage="look")[0].good
    assert client.digest(f"{store.repository}:{keep_tag(one.digest)}") == one.digest
    signature = store.image(some(10, 70), subject={"digest": one.digest, "size": 1, "mediaType": "application/json"})
    refer(store, {"digest": one.digest}, signature)
    lost = replace(images["two"], digest="sha256:" + "0" * 64)
    good, bad = transfer(context, context, {"one": one, "two": lost}, stage="look")
    assert (good.status, good.stage) == (Status.CACHED, "look")
    assert {each for each in (one.digest, signature["digest"]) if client.digest(f"{store.repository}:{keep_tag(each)}") == each} == {
        one.digest,
        signature["digest"],
    }
    assert (bad.status, "no such image" in bad.message) == (Status.FAILED, True)


def test_a_repository_that_ecr_lacks_is_told_with_the_command_that_makes_it_and_not_asked_for_again(
    source: Store, registries: tuple[str, str]
) -> None:
    image = source.image(some(5000, 71))
    with ecr(registries[1]) as registry:
        registry.repositories = set()
        logins = {registry.address: Login(username="AWS", password=PASSWORD)}
        with RegistryClient(login=logins.get) as client, pytest.raises(RemoteError) as caught:
            copy(client, f"{source.repository}@{image['digest']}", f"{registry.address}/ecr/{source.name}", tag=keep_tag)
    assert "trainshed registry ensure" in caught.value.next_step
    assert sum(one.startswith("POST") for one in registry.refused) <= 2, "one for each blob"
