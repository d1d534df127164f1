from __future__ import annotations

import pytest

from tests.support.pipelines import COMPILED, DIGEST, IMAGES
from trainshed.pipelines import documents
from trainshed.pipelines.stamp import stamp
from trainshed.pipelines.verify import check_template, notes, verify

STAMPED = stamp(COMPILED, IMAGES, place="x")
NOTE = "deploymentSpec.executors.exec-train.container.env[0].value"
EXTRACT = "deploymentSpec.executors.exec-extract.container.image"


def told(text: str, *, template: str = COMPILED) -> list[str]:
    return [str(problem) for problem in verify(text, IMAGES, template_text=template, place="x").problems]


def template_problems(text: str) -> list[str]:
    return [str(problem) for problem in check_template(documents.load(text, place="x"), ["extract", "train"])]


def test_a_stamped_pipeline_has_no_problem_and_no_note() -> None:
    found = verify(STAMPED, IMAGES, template_text=COMPILED, place="x")
    assert (found.problems, found.notes) == ((), ())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("component.invalid/extract:unstamped", "'component.invalid/extract:unstamped' was not stamped"),
        ("127.0.0.1:5000/small/extract:latest", "'127.0.0.1:5000/small/extract:latest' is not pinned by digest"),
        (f"elsewhere.example/extract@{DIGEST}", f"'elsewhere.example/extract@{DIGEST}' is not in the lock"),
        ("''", "'' is not pinned by digest"),
        ("'{{$.inputs.parameters[''image'']}}'", "'{{$.inputs.parameters['image']}}' is taken from a parameter: it cannot be pinned"),
        ("[a]", "expected the name of an image, not ['a']"),
        ("null", "the image is missing"),
    ],
)
def test_every_image_is_pinned_and_in_the_lock(image: str, message: str) -> None:
    assert told(STAMPED.replace(IMAGES["extract"], image)) == [f"{EXTRACT}: {message}"]


def test_the_image_of_another_component_of_the_lock_is_found_out() -> None:
    assert told(STAMPED.replace(IMAGES["extract"], IMAGES["train"])) == [f"{EXTRACT}: differs from the template stamped with this lock"]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("- --seed\n", "- --seeds\n", "deploymentSpec.executors.exec-train.container.args[2]"),
        ("enableCache: true", "enableCache: false", "root.dag.tasks.extract.cachingOptions.enableCache"),
        ("        - --table\n", "", "deploymentSpec.executors.exec-extract.container.args"),
        (
            "workload: training",
            "workload: other",
            "[1].platforms.kubernetes.deploymentSpec.executors.exec-train.nodeSelector.labels.workload",
        ),
        ("# Name: small", "# Name: other", "x"),
    ],
)
def test_a_change_beyond_the_images_is_found_with_its_path(old: str, new: str, place: str) -> None:
    assert old in STAMPED
    assert [problem.removesuffix(": differs from the template stamped with this lock") for problem in told(STAMPED.replace(old, new))] == [
        place.removeprefix("[1].")
    ]


def test_a_lost_platform_document_is_found() -> None:
    assert told(STAMPED.partition("---\n")[0]) == ["platforms: differs from the template stamped with this lock"]


def test_a_reserved_reference_outside_an_image_field_is_found() -> None:
    text = STAMPED.replace("value: plain", "value: component.invalid/train:unstamped")
    assert told(text) == [f"{NOTE}: a reserved reference outside an image field; only image fields are stamped"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("executorLabel: exec-train", "executorLabel: exec-gone", "components.comp-train: no executor 'exec-gone'"),
        ("name: comp-train", "name: comp-gone", "root.dag.tasks.train: no component 'comp-gone' in this pipeline"),
        (
            "        exec-train:\n          nodeSelector",
            "        exec-gone:\n          nodeSelector",
            "platforms.kubernetes.deploymentSpec.executors.exec-gone: no such executor",
        ),
    ],
)
def test_what_leads_nowhere_is_found_because_kfp_does_not_look(old: str, new: str, message: str) -> None:
    assert old in COMPILED
    assert told(STAMPED.replace(old, new)) == [message]
    assert template_problems(COMPILED.replace(old, new)) == [message]


def test_a_file_that_is_no_pipeline_and_a_lock_that_lacks_a_component_are_problems() -> None:
    assert told("a: b\n") == ["x: no compiled pipeline: pipelineInfo.name is missing"]
    other = COMPILED.replace("component.invalid/train:unstamped", "component.invalid/gone:unstamped")
    assert told(STAMPED, template=other) == ["x: x: exec-train names the component 'gone', which is not in the lock"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("component.invalid/trian:unstamped", "no component 'trian'; perhaps you meant 'train'"),
        ("component.invalid/train", "'component.invalid/train' is no reserved reference; write component.invalid/<component>:unstamped"),
        ("python:3.11", "'python:3.11' is no component of this repository"),
        ("null", "the image is missing"),
    ],
)
def test_a_template_is_judged_before_anything_is_built(image: str, message: str) -> None:
    assert template_problems(COMPILED) == []
    text = COMPILED.replace("component.invalid/extract:unstamped", image)
    assert template_problems(text) == [f"{EXTRACT}: {message}"]


def test_notes_show_what_nobody_pins() -> None:
    text = COMPILED.replace("value: plain", "value: docker.io/library/busybox:1.36").replace(
        "- /app/extract.py", "- python3 -m pip install 'pandas'"
    )
    assert notes(documents.load(text, place="x")) == [
        f"{NOTE}: 'docker.io/library/busybox:1.36' looks like an image; it is not pinned",
        "exec-extract: runs pip when it starts: what it installs is not in the image that was scanned",
    ]
