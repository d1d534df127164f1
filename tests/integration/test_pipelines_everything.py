"""All that kfp compiles, with the real kfp: compiled, stamped with overlays and proved; and what is refused before any upload."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import nested_pipeline as nested
from tests.support.kubeflow import OUTPUTS, Scripted, said, step, text
from tests.support.kubeflow_project import DIGEST, UNSTAMPED, FlowProject
from trainshed import config
from trainshed.console import Console
from trainshed.errors import UsageError
from trainshed.pipelines import documents
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import LockedImage
from trainshed.results import Report, Status
from trainshed.settings import Tier
from trainshed.stages import stamp as stamping
from trainshed.stages import verify as verifying
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.stages.upload import upload

OVERLAYS = """\
[overlays."*"."**"]
pull-policy = "IfNotPresent"
tolerations = [{ key = "batch", operator = "Exists", effect = "NoSchedule" }]
labels = { team = "risk" }

[overlays.dev."**.train"]
instance-type = "g5.xlarge"
node-selector = { workload = "gpu" }
tolerations = [{ key = "gpu", value = "yes", effect = "NoExecute", toleration-seconds = 60 }]
accelerator = { type = "nvidia.com/gpu", count = 2 }
cpu = { request = "500m", limit = "1.5" }
memory = { request = "500Mi", limit = "8G" }
secrets = { TOKEN = "other#key", API_KEY = "api#key" }
annotations = { note = "any text: at all" }

[overlays.prod."**.train"]
cpu = "8"
"""

# What the overlays of dev make of a step, written with the SDK. Secrets follow the order of its calls.
BY_HAND = """
from kfp import components, dsl, kubernetes

train = components.load_component_from_file("components/train/component.yaml")


@dsl.pipeline(name="NAME")
def NAME():
    step = train(table="x")
    SETTINGS
"""
SETTINGS = """step.set_cpu_request("500m").set_cpu_limit("1.5").set_memory_request("500Mi").set_memory_limit("8G")
    step.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
    kubernetes.set_image_pull_policy(step, "IfNotPresent")
    kubernetes.add_toleration(step, key="batch", operator="Exists", effect="NoSchedule")
    kubernetes.add_toleration(step, key="gpu", value="yes", effect="NoExecute", toleration_seconds=60)
    kubernetes.add_pod_label(step, "team", "risk")
    kubernetes.add_pod_annotation(step, "note", "any text: at all")
    kubernetes.use_secret_as_env(step, "other", {"key": "TOKEN"})
    kubernetes.use_secret_as_env(step, "api", {"key": "API_KEY"})
    kubernetes.add_node_selector(step, "node.kubernetes.io/instance-type", "g5.xlarge")
    kubernetes.add_node_selector(step, "workload", "gpu")"""


class Room:
    """The project of everything, as a command of an environment sees it."""

    def __init__(self, root: Path) -> None:
        self.root = nested.write_project(root)
        (root / "trainshed.toml").write_text('[project]\nname = "nested"\n[environments.dev]\n[environments.prod]\n')
        folder = root / "pipeline_templates"
        (folder / "everything.toml").write_text(OVERLAYS)
        (folder / "ready.yaml").write_text(nested.compiled().replace("everything", "ready"))
        (folder / "plain.py").write_text(BY_HAND.replace("NAME", "plain").replace("SETTINGS", "pass"))
        (folder / "plain.toml").write_text(OVERLAYS)
        (folder / "settled.py").write_text(BY_HAND.replace("NAME", "settled").replace("SETTINGS", SETTINGS))
        images = {name: LockedImage(reference=image, digest=nested.DIGEST, input_digest=DIGEST) for name, image in nested.IMAGES.items()}
        plan_digest = survey(self.context("dev")).plan_digest()
        lock = locks.of(project="nested", commit=None, dirty=True, plan_digest=plan_digest, images=images)
        locks.write(root / "build" / locks.FILE_NAME, lock)

    def context(self, environment: str) -> Context:
        loaded = config.load(self.root / config.FILE_NAME, environment=environment)
        return Context(config=loaded, console=Console(io.StringIO(), root=self.root), tier=Tier.LAPTOP)

    def text(self, name: str) -> str:
        return (self.root / "build" / "pipelines" / f"{name}.yaml").read_text()


def good(report: Report) -> Report:
    assert report.exit_code == 0, [result.message for result in report.results]
    return report


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("everything") / "project")


def test_everything_is_compiled_stamped_with_overlays_and_accepted_by_kfp(room: Room) -> None:
    stamped = good(stamping.stamp(room.context("dev")))
    good(verifying.verify(room.context("dev")))
    assert room.text("everything.template") == nested.compiled()
    before, after = (text.splitlines() for text in (room.text("ready.template"), room.text("ready")))
    different = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(different) == 18
    assert all("image: component.invalid/" in old and nested.DIGEST in new for old, new in different)
    told = next(result for result in stamped.results if (result.stage, result.name) == ("stamp", "everything")).details
    assert told["environment"] == "dev"
    assert "inner.deepest.train: node-selector.workload = gpu (the template has training)" in told["overlays"]
    assert "inner.deepest.train: cpu.limit = 1.5 (the template has 1)" in told["overlays"]
    assert not [change for change in told["overlays"] if "importer" in change]


def test_an_overlay_is_written_as_the_sdk_would_write_it(room: Room) -> None:
    good(stamping.stamp(room.context("dev"), ["plain", "settled"]))
    plain, settled = (documents.load(room.text(name), place=name) for name in ("plain", "settled"))
    assert documents.executors(plain) == documents.executors(settled)
    assert plain[1] == settled[1]


def test_a_stamp_for_another_environment_is_stale_until_it_is_stamped_again(room: Room) -> None:
    good(stamping.stamp(room.context("dev"), ["everything"]))
    (result,) = verifying.verify(room.context("prod"), ["everything"]).results
    assert (result.status, result.exit_code) == (Status.FAILED, 1)
    assert "differs from the template stamped with this lock and the overlays of the environment prod" in result.message
    (again,) = good(stamping.stamp(room.context("prod"), ["everything"])).results
    assert again.cause == "the template or its overlays changed"
    good(verifying.verify(room.context("prod"), ["everything"]))
    assert good(stamping.stamp(room.context("prod"), ["everything"])).results[0].status is Status.CACHED


def test_a_wrong_settings_file_stops_the_stamp_before_anything_is_written(room: Room) -> None:
    file = room.root / "pipeline_templates" / "everything.toml"
    written = room.text("everything")
    file.write_text(OVERLAYS + '[overlays.prod."inner.deepest.trian"]\ncpu = 1\n')
    try:
        (result,) = stamping.stamp(room.context("dev"), ["everything"]).results
        assert (result.status, result.exit_code) == (Status.FAILED, 2)
        assert (
            'everything.toml: overlays.prod."inner.deepest.trian": no task has this path; perhaps you meant \'inner.deepest.'
            in result.message
        )
        file.write_text("[overlays.staging.train]\ncpu = 1\n")
        with pytest.raises(UsageError, match="staging"):
            stamping.stamp(room.context("dev"), ["everything"])
    finally:
        file.write_text(OVERLAYS)
    assert room.text("everything") == written


def half(stamped: str) -> str:
    first, rest = stamped.split("@sha256:", 1)
    before, _slash, _name = first.rpartition("127.0.0.1")
    return before + UNSTAMPED + rest[64:]


REFUSED: dict[str, tuple[Callable[[str], str], str]] = {
    "unstamped": (lambda stamped: stamped.replace(f"127.0.0.1:9/flows/train@{DIGEST}", UNSTAMPED), "was not stamped"),
    "half": (half, "was not stamped"),
    "tag": (lambda stamped: stamped.replace(f"train@{DIGEST}", "train:1.2"), "'127.0.0.1:9/flows/train:1.2' is not pinned by digest"),
    "foreign": (lambda stamped: stamped.replace("127.0.0.1:9/flows", "elsewhere.example"), "is not in the lock"),
    "older": (lambda stamped: stamped.replace("sha256:1111", "sha256:2222"), "is not in the lock"),
    "missing": (lambda stamped: stamped.replace(f"image: 127.0.0.1:9/flows/train@{DIGEST}", "image: ''"), "'' is not pinned by digest"),
    "argument": (lambda stamped: stamped.replace("- second", "- other"), "differs from the template stamped with this lock"),
    "hidden": (lambda stamped: stamped.replace("- second", f"- {UNSTAMPED}"), "a reserved reference outside an image field"),
    "document": (lambda stamped: f"{stamped}---\nplatforms: {{}}\n---\na: b\n", "documents"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_stamped_from_the_lock_is_refused_before_any_request(tmp_path: Path, kind: str) -> None:
    change, message = REFUSED[kind]
    server = Scripted(lambda _asked: said({}, 500))
    with server.serve() as address:
        flows = FlowProject(tmp_path / "project", address)
        flows.template("training", "first", {"second": step("second", image=UNSTAMPED, outputs=OUTPUTS)})
        flows.settle()
        file = flows.root / "build" / "pipelines" / "training.yaml"
        changed = change(file.read_text())
        assert changed != file.read_text()
        file.write_text(changed)
        with flows.open() as context, pytest.raises(UsageError) as caught:
            upload(context, ())
    assert message in caught.value.message
    assert caught.value.next_step
    assert server.asked == []


def test_overlays_that_were_not_stamped_are_refused_before_any_request(tmp_path: Path) -> None:
    server = Scripted(lambda _asked: said({}, 500))
    with server.serve() as address:
        flows = FlowProject(tmp_path / "project", address)
        flows.settle()
        (flows.root / "pipeline_templates" / "training.toml").write_text('[overlays."*".train]\ncpu = "2"\n')
        with flows.open() as context, pytest.raises(UsageError, match=r"container\.resources: differs .* the environment local") as caught:
            upload(context, ())
    assert caught.value.next_step == "Run `trainshed stamp training`."
    assert server.asked == []


def test_a_half_stamped_text_is_what_the_name_says() -> None:
    made = half(text({"a": {"image": f"127.0.0.1:9/flows/train@{DIGEST}"}, "b": {"image": f"127.0.0.1:9/flows/train@{DIGEST}"}}))
    assert made == f"a:\n  image: {UNSTAMPED}\nb:\n  image: 127.0.0.1:9/flows/train@{DIGEST}\n"
