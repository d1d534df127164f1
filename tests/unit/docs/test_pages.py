"""The pages can be followed: links lead somewhere, commands parse, examples load, the site's index is whole."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from trainshed import cli, config
from trainshed.findings import waivers
from trainshed.pipelines import settings
from trainshed.services import golden, spec

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_of(page: Path) -> list[str]:
    """Return the lines of a page's console blocks that are typed."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{ids(page)}: {target}"
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in _headings(file)]
        assert not anchor or anchor in headings, f"{ids(page)}: {target}"


def _headings(file: Path) -> list[str]:
    return re.findall(r"^#+ .*$", file.read_text(), re.MULTILINE) if file.suffix == ".md" else []


def test_every_page_is_in_the_site_s_index() -> None:
    index = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("**/*.md"):
        assert str(page.relative_to(ROOT / "docs")) in index


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    parser = cli.parser()
    for command in commands_of(page):
        words = shlex.split(command, comments=True)
        if words[0] == "trainshed":
            assert parser.parse_args(words[1:]).command, command


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_toml_and_yaml_example_parses(page: Path) -> None:
    for language, block in re.findall(r"^```(toml|yaml)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        assert tomllib.loads(block) if language == "toml" else yaml.safe_load(block)


def test_the_environment_of_the_guide_is_a_configuration_that_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/connect-an-environment.md").read_text()
    examples = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "trainshed.toml").write_text("".join(examples))
    production = config.load(tmp_path / "trainshed.toml", environment="prod").environment
    assert (production.trust, len(production.credentials)) == ("main", 3)
    environment = config.load(tmp_path / "trainshed.toml", environment="dev").environment
    assert environment.kubeflow.namespace == "risk-models"
    assert environment.prediction_service.cluster == "prediction"


def test_the_waiver_of_the_guide_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/waive-a-finding.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "waivers.toml").write_text(example)
    assert [waiver.id for waiver in waivers.load(tmp_path / "waivers.toml")] == ["CVE-2026-0001"]


def test_the_schedule_of_the_guide_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/schedule-a-pipeline.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "training.toml").write_text(example)
    (tmp_path / "training.yaml").write_text("")
    found = settings.check_all(tmp_path, environments=["prod"])["training"]
    assert (found.schedules["nightly"].cron, found.schedules["nightly"].profile) == ("0 0 3 * * *", "full")


def test_the_example_s_own_files_load() -> None:
    loaded = config.load(ROOT / "trainshed.toml", environment="local")
    assert loaded.project.name == "diagnosis"
    assert waivers.load(loaded.scan.waivers) == []
    service = spec.load(ROOT / "components/predictor/service.yaml", environment="local")
    assert service.golden is not None
    assert {request.path for request in golden.load(service.golden)} == {"/predict", "/version"}
