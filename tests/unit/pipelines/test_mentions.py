from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipelines import COMPILED, DIGEST, TEMPLATE
from trainshed.errors import UsageError
from trainshed.pipelines import documents, mentions
from trainshed.pipelines.templates import Template


def python_template(folder: Path, text: str) -> Template:
    path = folder / "training.py"
    path.write_text(text)
    return Template(name="training", path=path, kind="python")


def test_components_are_found_by_reserved_reference_and_by_file() -> None:
    assert mentions.components_of(COMPILED) == {"extract", "train"}
    assert mentions.components_of('f"{COMPONENTS}/train-2/component.yaml"') == {"train-2"}
    assert mentions.components_of("component.invalid/Train:unstamped component.invalid/train:latest component.yaml") == set()


def test_a_template_names_components_in_its_strings_and_not_in_comments(tmp_path: Path) -> None:
    comment = '# once components/old/component.yaml\n"""As components/older/component.yaml."""\n'
    assert mentions.of_template(python_template(tmp_path, comment + TEMPLATE)) == {"extract", "train"}


def test_modules_beside_the_template_count_once_each(tmp_path: Path) -> None:
    (tmp_path / "_one.py").write_text('import _two\nA = "components/one/component.yaml"\n')
    (tmp_path / "_two.py").write_text('from _one import A\nB = "components/two/component.yaml"\n')
    template = python_template(tmp_path, "import json\nfrom . import x\nfrom _one import A\n")
    assert mentions.of_template(template) == {"one", "two"}


def test_a_template_with_a_syntax_error_still_tells_what_it_names(tmp_path: Path) -> None:
    assert mentions.of_template(python_template(tmp_path, 'def (:\n"components/one/component.yaml"')) == {"one"}


def test_a_compiled_template_names_components_in_its_text(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(COMPILED)
    assert mentions.of_template(Template(name="training", path=path, kind="yaml")) == {"extract", "train"}


def test_a_template_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.py"
    path.write_bytes(b"x = '\xff'\n")
    with pytest.raises(UsageError, match=r"training\.py: the pipeline template is not UTF-8 \(byte 5\)"):
        mentions.of_template(Template(name="training", path=path, kind="python"))


def test_images_are_listed_by_executor() -> None:
    found = mentions.images(documents.load(COMPILED, place="x"))
    assert [(image.executor, image.image) for image in found] == [
        ("exec-extract", "component.invalid/extract:unstamped"),
        ("exec-train", "component.invalid/train:unstamped"),
    ]
    assert [mentions.component_named(image.image) for image in found] == ["extract", "train"]
    assert mentions.component_named(["x"]) is None


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("python:3.11-slim", True),
        ("busybox:latest", True),
        ("127.0.0.1:5000/a/b:x", True),
        ("registry.example/team/image:v1.2", True),
        (f"registry.example/image@{DIGEST}", True),
        ("--image=registry.example/image:v1", True),
        ("127.0.0.1:5000", False),
        ("localhost:80", False),
        ("https://example.org/a:1", False),
        ("key:value", False),
        ("plain", False),
        ("system.Dataset", False),
    ],
)
def test_words_that_read_as_images_are_shown(word: str, shown: bool) -> None:
    text = COMPILED.replace("value: plain", f"value: 'see {word}'")
    assert bool(mentions.image_like(documents.load(text, place="x"))) is shown
