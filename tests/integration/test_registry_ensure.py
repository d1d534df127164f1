"""Repositories made and mended in ECR (moto), their images in a real registry; nothing that is needed expires."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_door import ACCOUNT, CREDENTIALS, Asked, Door, opened
from tests.support.ecr_lifecycle import Image, Lifecycle
from tests.support.oci import Store, some
from tests.support.registry import running_registry
from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.ledger.store import Ledger
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Result, Status, by_name
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.registry import keeping, promises
from trainshed.stages.registry.ensure import ensure
from trainshed.stages.registry.promises import keep_tag
from trainshed.tools import referrers
from trainshed.tools.aws import Aws
from trainshed.tools.copying import INDEX
from trainshed.tools.ecr_repositories import Repositories

REGION = "eu-west-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/build"
PROJECT = """
[project]
name = "small"
[bases.mirrors]
{mirrors}
[environments.dev]
registry = {{ url = "{registry}/team", ecr = "{account}/{region}" }}
aws = {{ region = "{region}", endpoint-url = "{aws}" }}
prediction-service = {{ cluster = "serving" }}
ecr = {{ pull = ["210987654321"], push = ["{role}"], expire = "14d", kms-key = "{key}" }}
[environments.plain]
registry = "{registry}/team"
"""


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with opened() as made:
        yield made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@dataclass
class World:
    """A project of components whose repositories are in moto, and their images in a registry."""

    root: Path
    door: Door
    registry: str
    lifecycle: Lifecycle
    aws: Aws
    project: str
    said: io.StringIO = field(default_factory=io.StringIO)
    opened: list[Context] = field(default_factory=list)

    def configure(self, *, mirrors: str = "", key: str = "") -> None:
        told = {"registry": self.registry, "aws": self.door.url, "account": ACCOUNT, "region": REGION, "role": ROLE}
        text = PROJECT.format(mirrors=mirrors, key=key, **told).replace('name = "small"', f'name = "{self.project}"')
        (self.root / "trainshed.toml").write_text(text)

    def component(self, *names: str) -> None:
        for name in names:
            (self.root / "components" / name).mkdir(parents=True)
            (self.root / "components" / name / "Dockerfile").write_text("FROM scratch\n")

    def context(self, environment: str = "dev", tier: Tier = Tier.MAIN) -> Context:
        loaded = config.load(self.root / "trainshed.toml", environment=environment)
        made = Context(config=loaded, console=Console(stream=self.said), tier=tier)
        made.__dict__["aws"] = self.aws  # the same place, asked as the same identity: a client takes a fifth of a second to make
        self.opened.append(made)
        return made

    def ensure(self, *names: str, dry_run: bool = False) -> Report:
        return ensure(self.context(), names, dry_run=dry_run)

    def one(self, name: str, *, dry_run: bool = False) -> Result:
        return by_name(self.ensure(name, dry_run=dry_run).results)[name]

    def call(self, operation: str, name: str, **more: Any) -> dict[str, Any]:
        return self.aws.call("ecr", operation, repositoryName=self.name(name), **more)

    def name(self, component: str) -> str:
        return f"team/{self.project}/{component}"

    def store(self, component: str) -> Store:
        return Store(self.registry, self.name(component))

    def lock(self, images: Mapping[str, str]) -> None:
        """Record a lock of main."""
        entries = {
            name: LockedImage(reference=f"{self.store(name).repository}@{digest}", digest=digest, input_digest="sha256:" + "0" * 64)
            for name, digest in images.items()
        }
        made = locks.of(project=self.project, commit=None, dirty=False, plan_digest="sha256:" + "1" * 64, images=entries)
        url = f"sqlite:///{self.root / '.trainshed/ledger.sqlite'}"
        with Ledger.open(url, tier=Tier.MAIN) as ledger:
            ledger.record_lock(made.plan_digest, "", "main", made.document())

    def aged(self, days: float, **digests: str) -> None:
        """Have images of a repository be that old, with the tags that the registry has for them now."""

        def images(name: str) -> list[Image]:
            connection = http.client.HTTPConnection(self.registry, timeout=30)
            connection.request("GET", f"/v2/{name}/tags/list")
            tags = json.loads(connection.getresponse().read()).get("tags") or []
            connection.close()
            client = self.context().registry
            by_digest = {
                digest: {tag for tag in tags if client.digest(f"{self.registry}/{name}:{tag}") == digest} for digest in digests.values()
            }
            return [Image(digest, frozenset(held), days) for digest, held in by_digest.items()]

        self.lifecycle.images = images


@pytest.fixture(scope="module")
def aws(door: Door) -> Aws:
    return Aws(region=REGION, endpoints={"*": door.url})


@pytest.fixture
def world(tmp_path: Path, door: Door, aws: Aws, registry: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "pipeline_templates").mkdir()
    door.reset()
    lifecycle = Lifecycle()
    lifecycle.stand(door)
    project = "p" + tmp_path.name.rpartition("_")[0].replace("_", "").lower()[-20:] + tmp_path.name.rpartition("_")[2]
    made = World(root=tmp_path, door=door, registry=registry, lifecycle=lifecycle, aws=aws, project=project)
    made.configure()
    made.component("one", "two")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    yield made
    for context in made.opened:
        context.close()


def changing(door: Door) -> list[str]:
    """Return what was asked that changes something."""
    looking = ("Get", "Describe", "List", "BatchGet", "StartLifecycle")
    return [one.what for one in door.asked if not one.what.partition(" ")[2].startswith(looking)]


def test_repositories_are_made_as_promised_and_a_second_run_does_nothing(world: World) -> None:
    dry = world.ensure(dry_run=True)
    assert [result.status for result in dry.results] == [Status.SKIPPED] * 2
    assert changing(world.door) == []
    assert f"create team/{world.project}/one" in world.said.getvalue()
    assert [result.status for result in world.ensure().results] == [Status.DONE] * 2
    found = Repositories(world.aws, ACCOUNT).describe(map(world.name, ("one", "two")))
    assert set(found) == {world.name("one"), world.name("two")}
    one = found[world.name("one")]
    assert (one.scan_on_push, one.immutable, one.encryption) == (True, True, "KMS")
    assert one.tags == {"project": world.project, "component": "one"}
    assert promises.broken(one, promises.wanted(world.context().config, "one")) == {}
    world.door.asked.clear()
    assert [result.status for result in world.ensure().results] == [Status.CACHED] * 2
    assert changing(world.door) == []


def test_what_drifted_is_shown_and_brought_back(world: World) -> None:
    world.ensure()
    world.call("put_image_scanning_configuration", "one", imageScanningConfiguration={"scanOnPush": False})
    world.call("put_image_tag_mutability", "one", imageTagMutability="MUTABLE")
    world.call("delete_lifecycle_policy", "one")
    statement = {"Sid": "x", "Effect": "Allow", "Principal": "*", "Action": "ecr:*"}
    world.call("set_repository_policy", "one", policyText=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    shown = world.one("one", dry_run=True)
    assert shown.status is Status.SKIPPED
    told = world.said.getvalue()
    for words in ("scan on push: off", "mutable", "lifecycle policy: none", 'takes away {"Action": ["ecr:*"]'):
        assert words in told
    assert world.one("one").status is Status.DONE
    assert world.one("one").status is Status.CACHED
    assert world.one("two").status is Status.CACHED


def test_a_policy_as_aws_rewrites_it_is_no_drift(world: World) -> None:
    world.ensure()
    text = world.call("get_repository_policy", "one")["policyText"]
    document = json.loads(text)
    for statement in document["Statement"]:
        statement["Action"].reverse()
        statement["Principal"]["AWS"] = statement["Principal"]["AWS"][0]
    document["Statement"].reverse()
    world.call("set_repository_policy", "one", policyText=json.dumps(document))
    assert world.one("one").status is Status.CACHED


def test_encryption_cannot_be_mended_and_nothing_is_changed(world: World) -> None:
    world.call("create_repository", "one")
    for dry_run in (True, False):
        report = world.ensure(dry_run=dry_run)
        one, two = report.results
        assert one.status is Status.FAILED
        assert "AES256" in one.message
        assert "cannot change that after creation" in one.message
        assert "delete it" in one.message
        assert two.status is (Status.SKIPPED if dry_run else Status.DONE)
        assert report.exit_code == UsageError.exit_code
    assert not Repositories(world.aws, ACCOUNT).describe([world.name("one")])[world.name("one")].immutable


def test_another_key_is_told(world: World) -> None:
    kms = world.aws.call("kms", "create_key")["KeyMetadata"]["Arn"]
    alias = f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/images"
    world.aws.call("kms", "create_alias", AliasName="alias/images", TargetKeyId=kms)
    world.ensure("one")
    world.configure(key=alias)
    assert kms in world.one("one").message
    assert world.one("two").status is Status.DONE
    assert world.one("two").status is Status.CACHED, "an alias is as good as its key"


def test_leave_over_the_own_repositories_is_enough(world: World) -> None:
    own = [world.name("one"), world.name("two")]

    def refused(one: Asked) -> str:
        named = json.loads(one.body or "{}").get("repositoryNames")
        return "AccessDeniedException" if one.what == "ecr DescribeRepositories" and (not named or set(named) - set(own)) else ""

    world.door.refused = refused
    assert {result.status for result in world.ensure().results} == {Status.DONE}
    assert {result.status for result in world.ensure().results} == {Status.CACHED}
    assert set(Repositories(world.aws, ACCOUNT).describe([own[0]])) == {own[0]}


def test_one_repository_that_is_refused_does_not_hide_the_others(world: World) -> None:
    name = world.name("one")
    world.door.refused = lambda one: "AccessDeniedException" if one.what == "ecr CreateRepository" and name in one.body else ""
    report = world.ensure()
    one, two = report.results
    assert (one.status, two.status) == (Status.FAILED, Status.DONE)
    assert "AccessDeniedException" in one.message
    assert "role may do" in one.message


def test_what_may_not_be_read_is_not_taken_for_good(world: World) -> None:
    world.ensure()
    world.door.deny("ecr GetRepositoryPolicy", code="AccessDeniedException")
    result = world.one("one")
    assert result.status is Status.FAILED
    assert "policy may not be read" in result.message
    assert "ecr:GetRepositoryPolicy" in result.message
    world.door.deny("ecr DescribeRepositories", code="AccessDeniedException")
    with pytest.raises(UsageError, match="AccessDeniedException"):
        world.ensure()


def test_another_registry_or_account_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="is not ECR"):
        ensure(world.context("plain"))
    file = world.root / "trainshed.toml"
    file.write_text(file.read_text().replace(f'aws = {{ region = "{REGION}"', f'aws = {{ account = "999999999999", region = "{REGION}"'))
    with pytest.raises(UsageError, match=rf"environments\.dev\.aws\.account: expected 999999999999, but the credentials are of {ACCOUNT}"):
        world.ensure()
    assert changing(world.door) == []


def test_what_main_locked_is_kept_and_the_rest_expires(world: World) -> None:
    store = world.store("one")
    locked, other = store.image(some(10, 1), tag="in-" + "a" * 64), store.image(some(10, 2), tag="in-" + "b" * 64 + "-pr")
    world.lock({"one": locked["digest"]})
    world.aged(99, locked=locked["digest"], other=other["digest"])
    world.call("create_repository", "one", encryptionConfiguration={"encryptionType": "KMS"})
    result = world.one("one")
    assert result.status is Status.DONE, result.message
    assert "keep 1 image that somebody refers to" in result.details["changes"]
    client = world.context().registry
    assert client.digest(f"{store.repository}:{keep_tag(locked['digest'])}") == locked["digest"]
    policy = json.loads(world.call("get_lifecycle_policy", "one")["lifecyclePolicyText"])
    assert Repositories(world.aws, ACCOUNT).expiring(world.name("one"), policy) == {other["digest"]: 2}
    assert world.one("one").status is Status.CACHED


def test_a_policy_that_would_delete_what_is_needed_is_not_put(world: World) -> None:
    store = world.store("one")
    child = store.image(some(10, 3))
    index = store.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}, tag="in-" + "c" * 64)
    world.lock({"one": index["digest"]})
    world.call("create_repository", "one", encryptionConfiguration={"encryptionType": "KMS"})
    others = [Image(f"sha256:{number:064}", frozenset(), 99) for number in range(3)]
    world.lifecycle.images = lambda _name: [*others, Image(child["digest"], frozenset(), 99)]  # as if somebody took its tag away
    result = world.one("one")
    assert result.status is Status.FAILED
    assert result.exit_code == WorkFailed.exit_code
    assert world.context().registry.digest(f"{store.repository}:{keep_tag(child['digest'])}") == child["digest"]
    assert f"would delete 1 image that somebody refers to: {child['digest']} (rule 4)" in result.message
    with pytest.raises(UsageError, match="LifecyclePolicyNotFoundException"):
        world.call("get_lifecycle_policy", "one")


def test_what_refers_to_a_needed_image_is_kept_also_when_it_came_after_the_image_was(world: World) -> None:
    store = world.store("one")
    image = store.image(some(10, 5), tag="in-" + "e" * 64)
    world.lock({"one": image["digest"]})
    world.call("create_repository", "one", encryptionConfiguration={"encryptionType": "KMS"})
    assert world.one("one").status is Status.DONE
    signature = store.image(some(10, 6), subject=image)
    approval = store.image(some(10, 7), subject=signature)
    for subject, referrer in ((image, signature), (signature, approval)):
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]}
        store.manifest(index, tag=referrers.fallback(subject["digest"]))
    result = world.one("one")
    assert (result.status, result.details["changes"]) == (Status.DONE, ["keep 1 image that somebody refers to"])
    client = world.context().registry
    for each in (signature["digest"], approval["digest"]):
        assert client.digest(f"{store.repository}:{keep_tag(each)}") == each
    assert world.one("one").status is Status.CACHED


def test_what_runs_is_kept_and_without_knowing_it_nothing_is_put(world: World) -> None:
    store = world.store("one")
    running = store.image(some(10, 4), tag="in-" + "d" * 64 + "-laptop")["digest"]
    world.aws.call("ecs", "create_cluster", clusterName="serving")
    container = {"name": "app", "image": f"{store.repository}@{running}", "memory": 64}
    revision = world.aws.call("ecs", "register_task_definition", family="one", containerDefinitions=[container])["taskDefinition"]
    world.aws.call(
        "ecs", "create_service", cluster="serving", serviceName="one", taskDefinition=revision["taskDefinitionArn"], desiredCount=1
    )
    world.call("create_repository", "one", encryptionConfiguration={"encryptionType": "KMS"})
    world.door.deny("ecs ListServices", code="AccessDeniedException")
    with pytest.raises(UsageError, match="nothing may be let expire"):
        world.ensure("one")
    world.door.refused = lambda _one: ""
    assert world.one("one").status is Status.DONE
    assert world.context().registry.digest(f"{store.repository}:{keep_tag(running)}") == running


def test_a_needed_image_that_is_gone_is_told(world: World) -> None:
    world.lock({"one": "sha256:" + "e" * 64})
    world.ensure()
    result = world.one("one")
    assert result.status is Status.CACHED
    assert "is referred to and not there any more" in result.cause


def test_an_evaluation_of_somebody_else_is_waited_for_and_one_that_fails_is_an_error(world: World) -> None:
    world.ensure("one")
    repositories, policy = Repositories(world.aws, ACCOUNT), promises.lifecycle(86_400)
    world.lifecycle.images = lambda _name: [Image(f"sha256:{number:064}", frozenset(), 2) for number in range(5)]
    world.lifecycle.busy = world.lifecycle.unknown = 2
    assert len(repositories.expiring(world.name("one"), policy)) == 5
    world.lifecycle.ends = "FAILED"
    with pytest.raises(RemoteError, match="FAILED"):
        repositories.expiring(world.name("one"), policy)
    world.lifecycle.ends = "IN_PROGRESS"
    with pytest.raises(RemoteError, match=r"not evaluated the lifecycle policy within 0\.2 s"):
        Repositories(world.aws, ACCOUNT, preview_seconds=0.2).expiring(world.name("one"), policy)


def test_rules_of_the_cache_are_made_for_mirrors_in_this_registry(world: World) -> None:
    here = world.registry
    world.configure(mirrors=f'"quay.io" = "{here}/quay"\n"docker.io" = "{here}/hub"\n"ghcr.io" = "mirror.example.org/github"')
    shown = by_name(world.ensure(dry_run=True).results)
    assert shown["mirror quay.io"].status is Status.SKIPPED
    assert world.lifecycle.rules == {}
    found = by_name(world.ensure().results)
    assert found["mirror quay.io"].status is Status.DONE
    assert "mirror ghcr.io" not in found
    assert found["mirror docker.io"].status is Status.FAILED
    assert "--credential-arn" in found["mirror docker.io"].message
    world.lifecycle.rules["hub"] = {"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "registry-1.docker.io", "credentialArn": "arn:x"}
    world.lifecycle.rules["quay"]["upstreamRegistryUrl"] = "public.ecr.aws"
    found = by_name(world.ensure().results)
    assert found["mirror docker.io"].status is Status.CACHED
    assert "is for public.ecr.aws, not for quay.io" in found["mirror quay.io"].message
    for path, status in (("ROOT", Status.CACHED), ("library", Status.FAILED)):
        world.lifecycle.rules["hub"]["upstreamRepositoryPrefix"] = path
        found = by_name(world.ensure().results)
        assert found["mirror docker.io"].status is status
    assert "is for registry-1.docker.io/library, not for registry-1.docker.io" in found["mirror docker.io"].message


def test_main_keeps_what_it_locks_before_it_locks_it(world: World) -> None:
    store = world.store("one")
    digest = store.image(some(10, 5), tag="in-" + "f" * 64)["digest"]
    images = {"one": f"{store.repository}@{digest}"}
    for tier, environment in ((Tier.PULL_REQUEST, "dev"), (Tier.MAIN, "plain")):
        keeping.keep_locked(world.context(environment, tier), images)
        assert world.context().registry.tags(store.repository) == {"in-" + "f" * 64}
    for _ in range(2):
        keeping.keep_locked(world.context(), images)
        assert world.context().registry.digest(f"{store.repository}:{keep_tag(digest)}") == digest


def test_what_a_service_is_about_to_run_is_kept_though_main_never_locked_it(world: World) -> None:
    store = world.store("one")
    digest = store.image(some(10, 8), tag="in-" + "e" * 64 + "-laptop")["digest"]
    reference, tag = f"{store.repository}@{digest}", f"{store.repository}:{keep_tag(digest)}"
    plain, laptop = world.context("plain"), world.context(tier=Tier.LAPTOP)
    keeping.keep_deployed(plain, reference)  # is not ECR: nothing expires there
    assert plain.registry.digest(tag) is None
    for _ in range(2):
        keeping.keep_deployed(laptop, reference)
        assert laptop.registry.digest(tag) == digest
    keeping.keep_deployed(laptop, f"registry.example.invalid/one@{digest}")  # nobody's image that is ours to keep
