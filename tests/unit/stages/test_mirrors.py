"""Foreign bases behind mirrors: looked up and pinned there, named as the Dockerfile names them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.support.images import DIGEST, OTHER_DIGEST, PYTHON, write
from trainshed import config
from trainshed.console import Console
from trainshed.errors import RemoteError
from trainshed.settings import Tier
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.tools import process

MIRROR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/docker-hub"
CACHED = f"{MIRROR}/library/python:3.11"
WITHOUT = '[environments.dev]\nregistry = "registry.example.org/ml"\n'
WITH = f'[bases]\napproved = ["python"]\n[bases.mirrors]\n"docker.io" = "{MIRROR}"\n{WITHOUT}'


class Registry:
    """Registries that have images by reference; ``late`` is how many questions a cache answers with "missing" first."""

    def __init__(self, held: dict[str, str], late: int = 0) -> None:
        self.held, self.late = held, late
        self.asked: list[tuple[str, bool]] = []

    def digest(self, reference: str, *, fetch: bool = False) -> str | None:
        self.asked.append((reference, fetch))
        if self.late > 0:
            self.late -= 1
            return None
        return self.held.get(reference)


class Cache(Registry):
    """ECR's cache: by digest it has what was asked for by tag before."""

    def digest(self, reference: str, *, fetch: bool = False) -> str | None:
        if "@" in reference and reference.replace(f"@{DIGEST}", "") not in [asked for asked, _ in self.asked]:
            return None
        return super().digest(reference, fetch=fetch)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(process, "pause", made.append)
    return made


def room(folder: Path, settings: str, registry: Registry, dockerfile: str = "FROM python:3.11\nCOPY . /app\n") -> Context:
    write(folder, {"components/train/Dockerfile": dockerfile, "trainshed.toml": f'[project]\nname = "small"\n{settings}'})
    loaded = config.load(folder / "trainshed.toml", environment="dev")
    context = Context(config=loaded, console=Console(io.StringIO()), tier=Tier.LAPTOP)
    vars(context)["registry"] = registry
    return context


def test_a_mirrored_base_is_built_from_the_mirror_and_the_inputs_stay_the_same(tmp_path: Path) -> None:
    mirrored = survey(room(tmp_path, WITH, Registry({CACHED: DIGEST})))
    direct = survey(room(tmp_path, WITHOUT, Registry({PYTHON: DIGEST})))
    assert mirrored.pins[PYTHON].pinned == f"{CACHED}@{DIGEST}"
    assert direct.pins[PYTHON].pinned == f"{PYTHON}@{DIGEST}"
    assert mirrored.inputs("train", {}) == direct.inputs("train", {})


def test_a_cache_that_has_not_fetched_the_image_yet_is_given_time(tmp_path: Path, pauses: list[float]) -> None:
    registry = Registry({CACHED: DIGEST}, late=3)
    assert survey(room(tmp_path, WITH, registry)).pins[PYTHON].digest == DIGEST
    assert registry.asked == [(CACHED, True)] * 4
    assert pauses == [0.5, 1.0, 2.0]


def test_an_image_that_the_mirror_lacks_is_named_in_both_places(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(RemoteError) as caught:
        survey(room(tmp_path, WITH, Registry({PYTHON: DIGEST})))
    assert caught.value.message == f"base image {PYTHON} is not in its mirror (bases.mirrors): there is no {CACHED}"
    assert len(pauses) == 4


def test_a_base_that_is_pinned_by_digest_is_fetched_by_its_tag_first(tmp_path: Path) -> None:
    registry = Cache({f"{CACHED}@{DIGEST}": DIGEST, CACHED: OTHER_DIGEST})
    found = survey(room(tmp_path, WITH, registry, f"FROM python:3.11@{DIGEST}\n"))
    assert [pin.pinned for pin in found.pins.values()] == [f"{CACHED}@{DIGEST}"]
    assert registry.asked == [(CACHED, True), (f"{CACHED}@{DIGEST}", True)]


def test_without_a_mirror_a_registry_is_asked_once_and_believed(tmp_path: Path, pauses: list[float]) -> None:
    registry = Registry({})
    with pytest.raises(RemoteError, match=r"is not in its registry$"):
        survey(room(tmp_path, WITHOUT, registry))
    assert (registry.asked, pauses) == ([(PYTHON, False)], [])
