"""The reference is what the code says: generated pages are current, and the hand-written one leaves no key out."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from trainshed import errors, formats, keys, values
from trainshed.commands import COMMANDS
from trainshed.findings import waivers
from trainshed.images import components
from trainshed.services import golden, reading

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    description = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_code_says(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_check_names_a_page_that_differs_and_writes_nothing(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate.main(["--folder", str(tmp_path)])
    (tmp_path / "commands.md").write_text("old")
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "commands.md: not what the code says" in capsys.readouterr().out
    assert (tmp_path / "commands.md").read_text() == "old"


def test_writing_makes_the_pages_current(generate: ModuleType, tmp_path: Path) -> None:
    assert generate.main(["--folder", str(tmp_path)]) == 0
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["commands.md", "configuration.md", "exit-codes.md", "schemas", "schemas.md"]


def test_the_schemas_are_published_as_they_are_read(generate: ModuleType) -> None:
    page = generate.schemas()
    for file in formats.FOLDER.glob("*.json"):
        assert (DOCS / "reference" / "schemas" / file.name).read_bytes() == file.read_bytes()
        assert f"(schemas/{file.name})" in page
        fields = json.loads(file.read_text())["properties"]
        assert all(f"| `{name}` |" in page for name in fields)


def test_every_command_and_option_has_its_place(generate: ModuleType) -> None:
    page = generate.commands()
    for command in COMMANDS:
        assert f"\n## {command.name}\n" in page
        assert all(flag in page for option in command.options for flag in option.flags)


def test_every_key_has_its_line_with_variable_and_default(generate: ModuleType) -> None:
    page = generate.configuration()
    for key in keys.KEYS:
        (line,) = re.findall(rf"^\| `{re.escape(key.path)}` \|.*{keys.variable_of(key.path)}.*$", page, re.MULTILINE)
        assert key.help.replace("<", "&lt;") in line
    assert "| `scan.max-db-age` | duration | `24h` |" in page
    assert all(f"`{key.path}`" in page for key in keys.ENVIRONMENT_KEYS)
    assert all(f"`{kind}`" in page for kind in values.AUTH_KINDS)


def test_every_exit_code_is_told_in_order(generate: ModuleType) -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", generate.exit_codes(), re.MULTILINE)]
    assert codes == [0, 1, 2, 3, 4, 5, 6, errors.TrainshedError.exit_code, 130]


def test_the_page_of_files_names_every_key_that_the_code_reads() -> None:
    page = (DOCS / "reference" / "files.md").read_text()
    read = [*reading.KEYS, *reading.TABLES, *(key for table in reading.TABLES.values() for key in table)]
    read += [*components._SETTINGS, *waivers._KEYS, *golden._KEYS]
    named = {word for quoted in re.findall(r"`([^`\n]+)`", page) for word in re.split(r"[\s,{}:]+", quoted)}
    named |= set(re.findall(r'"(\w+)":', page))
    assert sorted(set(read) - named) == []
