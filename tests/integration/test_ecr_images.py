"""Images on ECR: a registry with its log-in, words and immutable tags, and moto's token for registry client, engine, builder and Trivy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import aws_door
from tests.support.aws_door import Door
from tests.support.ecr import ACCOUNT, CACHE, PASSWORD, REGION, EcrRegistry, ecr
from tests.support.ecr_answers import BASIC_FINDING, Answer, answer, basic, configuration
from tests.support.ecr_player import CONFIGURATION, FINDINGS
from tests.support.registry import running_registry
from tests.support.sample_project import BASE_IMAGE, Done, Sample, docker
from tests.support.small_base import push
from tests.support.trivy_db import write_database
from trainshed.errors import RemoteError, UsageError
from trainshed.tools.aws import Aws
from trainshed.tools.docker import Engine
from trainshed.tools.ecr import Ecr
from trainshed.tools.registry import RegistryClient

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
TEXTS = (PASSWORD, base64.b64encode(f"AWS:{PASSWORD}".encode()).decode())


@pytest.fixture(scope="module")
def opened() -> Iterator[Door]:
    with aws_door.opened() as door:
        yield door


@pytest.fixture
def door(opened: Door) -> Door:
    opened.open()
    return opened


@pytest.fixture
def moto(door: Door) -> str:
    return door.url


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return where the images really are: nobody is asked for a password there."""
    with running_registry(tmp_path_factory.mktemp("upstream")) as address:
        yield address


@pytest.fixture
def registry(upstream: str) -> Iterator[EcrRegistry]:
    with ecr(upstream) as found:
        yield found


@pytest.fixture(scope="module")
def cached(docker_host: str, base_image: str, upstream: str) -> str:
    """Return the path of a base behind the pull-through cache, as the real registry has it."""
    path = f"{CACHE}/library/{BASE_IMAGE}"
    docker(docker_host, "image", "rm", push(docker_host, base_image, f"{upstream}/{path}"))
    return path


def checkout(root: Path, engine: str, registry: EcrRegistry, moto: str) -> Sample:
    """Return a project on that ECR, with a user whose own store of log-ins is broken: nobody may need it."""
    made = Sample(root / "project", engine)
    prefix = f"{registry.address}/{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"  # the engine may know another run's port
    ecr_key = f'registry = {{ url = "{prefix}", ecr = "{ACCOUNT}/{REGION}" }}'
    made.append(
        "trainshed.toml",
        f'\n[bases.mirrors]\n"docker.io" = "{registry.address}/{CACHE}"\n'
        f'\n[environments.ecr]\n{ecr_key}\naws = {{ region = "{REGION}", endpoint-url = "{moto}" }}\n',
    )
    (root / "docker").mkdir()
    (root / "docker" / "config.json").write_text(json.dumps({"credsStore": "of-nobody"}))
    made.environment |= {**KEYS, "TRAINSHED_ENV": "ecr", "TRAINSHED_SCAN_SOURCES": "trivy", "DOCKER_CONFIG": str(root / "docker")}
    return made


def scan_by_both(made: Sample) -> None:
    """Have the project scanned for vulnerabilities by Trivy, with a database of its own, and by ECR."""
    del made.environment["TRAINSHED_SCAN_SOURCES"]
    made.write("trainshed.toml", (made.root / "trainshed.toml").read_text().replace('["secret"]', '["vulnerability"]\necr-timeout = "1s"'))
    write_database(made.root / ".trainshed/trivy/db", {("zlib", "CVE-2099-0001"): {"severity": "LOW"}})


@contextmanager
def told_no_secret(made: Sample) -> Iterator[list[Done]]:
    """Check that neither what commands said nor any file that they left holds the token."""
    said: list[Done] = []
    yield said
    for done in said:
        assert not any(text in shown for shown in (done.told, json.dumps(done.document)) for text in TEXTS)
    files = [file for folder in (made.root, made.root.parent) for file in folder.rglob("*") if file.is_file()]
    assert [str(file) for file in files if any(text.encode() in file.read_bytes() for text in TEXTS)] == []
    assert made.leftovers()["files"] == []


@pytest.mark.usefixtures("cached")
def test_images_are_built_scanned_and_tested_on_an_ecr_by_its_token_alone(
    tmp_path: Path, docker_host: str, registry: EcrRegistry, moto: str, door: Door
) -> None:
    registry.late = 2
    made = checkout(tmp_path, docker_host, registry, moto)
    asked: list[str] = []
    seen = {**BASIC_FINDING, "name": "CVE-2099-0001", "severity": "MEDIUM", "attributes": [{"key": "package_name", "value": "zlib"}]}
    scan_by_both(made)

    def scanned(about: dict[str, Any]) -> tuple[int, Answer]:
        asked.append(about["imageId"]["imageDigest"])
        return 200, basic(seen)

    door.computed[FINDINGS] = scanned
    with told_no_secret(made) as said:
        said.append(made.green("images", "prepare"))
        first = said[-1]
        assert set(asked) == {first.result("build", name)["digest"] for name in ("base", "prepare")}
        found = first.result("scan", "base")["findings"]
        assert [(one["id"], one["package"], one["severity"], one["sources"]) for one in found] == [
            ("CVE-2099-0001", "zlib", "medium", ["ecr"])
        ]
        assert first.statuses("build") == {"base": "done", "prepare": "done"}
        assert first.statuses("scan") == {"base": "done", "prepare": "done"}
        assert first.statuses("test")["prepare"] == "done"
        said.append(made.green("images", "prepare"))
        assert set(said[-1].statuses("build").values()) == set(said[-1].statuses("scan").values()) == {"cached"}
        door.replaced[CONFIGURATION], door.computed[FINDINGS] = (200, configuration("ENHANCED")), lambda _: (200, answer("ACTIVE"))
        made.environment["TRAINSHED_SCAN_FAIL_ON"] = "critical"
        said.append(made.run("scan", "base"))
        assert said[-1].code == 5
        assert "no findings within 1 s (scan.ecr-timeout): ACTIVE" in said[-1].result("scan", "base")["message"]
        made.environment["TRAINSHED_SCAN_MUST_ANSWER"] = "trivy"
        for status in ("done", "cached"):
            said.append(made.green("scan", "base"))
            assert said[-1].statuses("scan") == {"base": status}
            assert "warning: scan of base: ECR did not answer: no findings within 1 s" in said[-1].told
    assert f"{CACHE}/library/python" in registry.cached
    assert registry.agents >= {"docker", "trivy"}
    dockerfile = (made.root / "components" / "base" / "Dockerfile").read_text()
    assert dockerfile.startswith(f"FROM {BASE_IMAGE} ")
    lock = json.loads(made.lock.read_text())
    assert list(lock["images"]["base"]["base"]) == [f"docker.io/library/{BASE_IMAGE}"]
    assert lock["images"]["base"]["reference"].startswith(f"{registry.address}/")
    remove(docker_host, registry)


def remove(engine: str, registry: EcrRegistry) -> None:
    """Take the names of this registry out of the engine."""
    names = docker(engine, "images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    for name in names:
        if name.startswith(f"{registry.address}/") and "<none>" not in name:
            docker(engine, "image", "rm", name)


def test_what_cannot_be_pushed_says_what_to_do(tmp_path: Path, docker_host: str, registry: EcrRegistry, moto: str, cached: str) -> None:
    registry.repositories = {cached.partition(":")[0]}
    made = checkout(tmp_path, docker_host, registry, moto)
    with told_no_secret(made) as said:
        said.append(made.run("build", "base"))
        assert said[-1].code == 5
        message = said[-1].result("build", "base")["message"]
        assert "/sample/base: there is no such repository, and ECR makes none at a push" in message
        assert "run `trainshed registry ensure`" in message
        assert not (made.root / "build" / "logs" / "base.build.log").exists()  # nothing was built for nothing
        registry.password = PASSWORD[::-1]
        said.append(made.run("plan", "base"))
        assert said[-1].code == 5
        assert f"refused the log-in of {registry.address} (401)" in said[-1].told
        made.environment.pop("AWS_ACCESS_KEY_ID")
        made.environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
        said.append(made.run("plan", "base"))
        assert "no token to log in with" in said[-1].told
    remove(docker_host, registry)


@pytest.fixture
def login(moto: str, monkeypatch: pytest.MonkeyPatch) -> Ecr:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return Ecr(Aws(region=REGION, endpoints={"*": moto}), account=ACCOUNT)


def test_motos_token_opens_the_registry_for_client_and_engine(
    login: Ecr, registry: EcrRegistry, upstream: str, docker_host: str, cached: str
) -> None:
    found = login.login(registry.address)
    assert (found.username, found.password) == ("AWS", PASSWORD)
    repository, _, tag = cached.partition(":")
    reference = f"{registry.address}/{cached}"
    with RegistryClient(login=login.login) as client, RegistryClient(login=lambda _host: None) as nobody, RegistryClient() as real:
        digest = real.digest(f"{upstream}/{cached}")
        assert digest is not None
        assert client.digest(f"{registry.address}/{repository}@{digest}") is None  # it fetches by tag alone
        assert client.digest(reference, fetch=True) == digest
        assert client.digest(f"{registry.address}/{repository}@{digest}") == digest
        content, _ = client.manifest(reference)
        assert content == real.manifest(f"{upstream}/{cached}")[0]
        registry.ended = 1
        assert client.digest(reference) == digest
        assert registry.ended == 0
        with pytest.raises(RemoteError, match="refused the log-in"):
            nobody.digest(reference)
    with Engine.connect(docker_host, login=login.login) as engine:
        image = engine.pull(reference)
        try:
            assert image.id
            engine.tag(image.id, f"{registry.address}/made/one:{tag}")
            assert engine.push(f"{registry.address}/made/one:{tag}") == digest
            registry.repositories = {f"{CACHE}/library/python"}
            with pytest.raises(RemoteError, match=f"does not exist in the registry with id '{ACCOUNT}'") as caught:
                engine.push(f"{registry.address}/made/one:{tag}")
            assert "trainshed registry ensure" in caught.value.next_step
        finally:
            remove(docker_host, registry)


def test_an_immutable_tag_is_no_failure_for_the_same_image_and_an_error_with_both_digests_for_another(
    login: Ecr, registry: EcrRegistry, upstream: str, cached: str, docker_host: str
) -> None:
    reference = f"{registry.address}/{cached}"
    repository = reference.rpartition(":")[0]
    with RegistryClient(login=login.login) as client, RegistryClient() as real, Engine.connect(docker_host, login=login.login) as engine:
        content, kind = real.manifest(f"{upstream}/{cached}")
        first = client.digest(reference, fetch=True)
        assert client.tag(reference, "kept") == first
        assert client.tag(reference, "kept") == first
        assert [line.rpartition("/")[2] for line in registry.refused if "TAG_INVALID" in line] == ["kept TAG_INVALID"]
        other = put(client, repository, "other", content + b"\n", kind)
        assert other != first
        with pytest.raises(UsageError) as caught:
            client.tag(reference, "other")
        assert caught.value.message == f"{repository}:other: its tag is immutable and stands for {other}, not for {first}"
        image, taken = engine.pull(reference), f"{repository}:other"
        try:
            engine.tag(image.id, taken)
            with pytest.raises(RemoteError, match="immutable"):
                engine.push(taken)
            assert engine.push(taken, present=lambda: client.digest(taken)) == other
        finally:
            remove(docker_host, registry)


def put(client: RegistryClient, repository: str, tag: str, content: bytes, kind: str) -> str:
    """Have another image under a tag: the same manifest with other blanks."""
    answer = client.ask("PUT", repository, f"manifests/{tag}", action="pull,push", headers={"Content-Type": kind}, body=content)
    assert answer.ok, answer.body
    return answer.headers["docker-content-digest"]


@pytest.mark.usefixtures("cached")
def test_the_image_that_another_pushes_in_between_is_adopted(
    tmp_path: Path, docker_host: str, registry: EcrRegistry, moto: str, upstream: str
) -> None:
    others: list[str] = []

    def first(path: str, content: bytes, kind: str) -> None:
        repository, _, tag = path.removeprefix("/v2").partition("/manifests/")
        if not others and tag.startswith("in-"):
            with RegistryClient() as real:
                others.append(put(real, f"{upstream}{repository}", tag, content + b"\n", kind))

    registry.before_put = first
    made = checkout(tmp_path, docker_host, registry, moto)
    built = made.green("build", "base").result("build", "base")
    assert [built["digest"]] == others
    assert any("TAG_INVALID" in line for line in registry.refused)
    log = (made.root / built["log"]).read_text()
    assert f"was pushed by another run meanwhile: its image {others[0]} is taken" in log
    remove(docker_host, registry)
